package main

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
	for name, value := range c.env {
		if !slices.Contains(secrets, name) {
			env = append(env, name+"="+value)
		}
	}
	return source.NewCommand(ctx, source.CommandOptions{Text: c.Flags.String("stdin-from-command"), Env: env, Stderr: c.stderr})
}

// isClosed reports whether a standard stream was closed when the program began: Go
// then puts the null device in its place, open for both directions, which nobody who
// writes to it on purpose does.
func isClosed(stream any) bool {
	f, ok := stream.(*os.File)
	if !ok {
		return false
	}
	var st unix.Stat_t
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	if err != nil || unix.Fstat(int(f.Fd()), &st) != nil {
		return false
	}
	null := st.Mode&unix.S_IFMT == unix.S_IFCHR && unix.Major(st.Rdev) == 1 && unix.Minor(st.Rdev) == 3
	return null && flags&unix.O_ACCMODE == unix.O_RDWR
}
