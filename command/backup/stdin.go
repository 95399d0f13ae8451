package backup

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"holdfast/client/source"
	"holdfast/command/secret"
)

// pollMillis is how long a silent pipe may keep an interruption waiting.
const pollMillis = 100

// patientReader reads from a file that may stay silent for long, without being
// deaf to the end of ctx.
type patientReader struct {
	ctx context.Context
	f   *os.File
}

// patient makes r give up with ctx where that is possible.
func patient(ctx context.Context, r io.Reader) io.Reader {
	if f, ok := r.(*os.File); ok {
		return &patientReader{ctx, f}
	}
	return r
}

func (r *patientReader) Read(p []byte) (int, error) {
	fds := []unix.PollFd{{Fd: int32(r.f.Fd()), Events: unix.POLLIN}}
	for {
		if err := r.ctx.Err(); err != nil {
			return 0, err
		}
		n, err := unix.Poll(fds, pollMillis)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return 0, os.NewSyscallError("poll", err)
		}
		if n > 0 {
			return r.f.Read(p)
		}
	}
}

// sourceCommand is the output of the command that --stdin-from-command names. It
// does not get our passwords.
func (c *call) sourceCommand(ctx context.Context) *source.Command {
	secrets := secret.Variables()
	var env []string
	for name, value := range c.Env {
		if !slices.Contains(secrets, name) {
			env = append(env, name+"="+value)
		}
	}
	return source.NewCommand(ctx, source.CommandOptions{Text: c.Flags.String("stdin-from-command"), Env: env, Stderr: c.Err})
}
