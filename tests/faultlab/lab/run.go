package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"
)

// patience is how long a command may take before it counts as hanging.
const patience = 10 * time.Minute

// Exit codes of the program.
const (
	ExitOK        = 0
	ExitLocked    = 11
	ExitIntegrity = 65
	ExitNotFound  = 66
	ExitNoSpace   = 69
	// ExitSignal says that a signal ended it.
	ExitSignal = -1
)

// Command is one run of a program.
type Command struct {
	Args []string // with the program itself
	// Wrap is what runs it: strace and its arguments.
	Wrap   []string
	Env    []string
	Stdin  io.Reader
	Stdout io.Writer // nil keeps what it prints in the result
	// Endless says that it ends only when it is told to, and has all its time
	// until then.
	Endless bool
}

// Result is how a command ended.
type Result struct {
	Args     []string
	Code     int
	Out, Err string
	Took     time.Duration
}

// String tells what was run and how it ended.
func (r Result) String() string {
	return fmt.Sprintf("%s: exit %d\n%s%s", strings.Join(r.Args, " "), r.Code, clip(r.Out), clip(r.Err))
}

// clip keeps what a program has said short.
func clip(s string) string {
	const most = 1500
	if len(s) > most {
		return s[:most] + "…\n"
	}
	return s
}

// Process is a command that runs.
type Process struct {
	cmd      *exec.Cmd
	args     []string
	ctx      context.Context
	cancel   context.CancelFunc
	out, err bytes.Buffer
	begin    time.Time
}

// environ is the environment of every program.
func (l *Lab) environ() []string {
	return []string{"PATH=" + os.Getenv("PATH"), "HOME=" + l.home, "XDG_CONFIG_HOME=" + l.home, "TMPDIR=" + l.Dir}
}

// Start begins a command in a process group of its own.
func (l *Lab) Start(c Command) (*Process, error) {
	p := &Process{args: c.Args, begin: time.Now()}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	argv := append(slices.Clone(c.Wrap), c.Args...)
	p.cmd = exec.CommandContext(p.ctx, argv[0], argv[1:]...)
	p.cmd.Env = append(l.environ(), c.Env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// It shows where it hangs, and is killed if it does not.
	p.cmd.Cancel = func() error { return p.Signal(syscall.SIGABRT) }
	p.cmd.WaitDelay = 10 * time.Second
	p.cmd.Stdin, p.cmd.Stderr = c.Stdin, &p.err
	if p.cmd.Stdout = c.Stdout; c.Stdout == nil {
		p.cmd.Stdout = &p.out
	}
	if err := p.cmd.Start(); err != nil {
		p.cancel()
		return nil, err
	}
	if !c.Endless {
		p.endSoon()
	}
	return p, nil
}

// endSoon gives the process the time that is left to it from now on.
func (p *Process) endSoon() {
	timer := time.AfterFunc(patience, p.cancel)
	context.AfterFunc(p.ctx, func() { timer.Stop() })
}

// Signal sends a signal to the process and those it has started.
func (p *Process) Signal(s syscall.Signal) error { return syscall.Kill(-p.cmd.Process.Pid, s) }

// Kill9 kills it.
func (p *Process) Kill9() { _ = p.Signal(syscall.SIGKILL) } // it may be dead already

// Wait waits for the end. A crash or a hang is an error; any exit status is
// none.
func (p *Process) Wait() (Result, error) {
	err := p.cmd.Wait()
	defer p.cancel()
	r := Result{Args: p.args, Out: p.out.String(), Err: p.err.String(), Took: time.Since(p.begin)}
	var exit *exec.ExitError
	switch {
	case p.ctx.Err() != nil:
		r.Code = ExitSignal
		return r, fmt.Errorf("it hung: %s\n%s", r, r.Err)
	case errors.As(err, &exit):
		r.Code = exit.ExitCode()
	case err != nil:
		return r, err
	}
	if p.cmd.Args[0] == tracer && strings.Contains(r.Err, runtimeHit) {
		r.Code = ExitSignal
		return r, nil
	}
	if p.cmd.Args[0] == tracer && strings.Contains(r.Err, tracerFailed) {
		p.Kill9()
		return r, fmt.Errorf("%w: %s", ErrTracer, r)
	}
	if strings.Contains(r.Err, "goroutine ") || strings.Contains(r.Err, "fatal error: ") {
		return r, fmt.Errorf("it crashed: %s\n%s", r, r.Err)
	}
	return r, nil
}

// Do runs a command to its end.
func (l *Lab) Do(c Command) (Result, error) {
	p, err := l.Start(c)
	if err != nil {
		return Result{}, err
	}
	return p.Wait()
}

// tool runs a command of the system that must go well.
func tool(name string, args ...string) error {
	cmd := exec.Command(name, args...)
	// mkfs.xfs makes small file systems only for those who say that they test.
	cmd.Env = append(os.Environ(), "TEST_DIR=1", "TEST_DEV=1", "QA_CHECK_FS=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}
