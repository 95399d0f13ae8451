package harness

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
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Patience is how long a command, or anything else, may take before it counts as
// hanging. A machine that is busy with ten other things needs much of it.
const Patience = 10 * time.Minute

// ExitKilled is the exit code of what a signal has ended.
const ExitKilled = -1

// Environ is the environment of a program that finds no configuration in home, and
// makes its temporary files in tmp.
func Environ(home, tmp string) []string {
	return []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "XDG_CONFIG_HOME=" + home, "TMPDIR=" + tmp}
}

// Command is one run of a program.
type Command struct {
	Args []string // with the program itself
	// Wrap is what runs it: a tracer or a shell, and its arguments.
	Wrap   []string
	Dir    string   // "" is that of the tests
	Env    []string // all of it
	Stdin  io.Reader
	Stdout io.Writer // nil keeps what it prints in the result
	// Endless says that it may take as long as it likes until it is told to end.
	Endless bool
}

// Result is how a command ended.
type Result struct {
	Args     []string
	Code     int
	How      string // in words of the system: "exit status 1", "signal: killed"
	Out, Err string
	Took     time.Duration
}

// String tells what was run and how it ended.
func (r Result) String() string {
	return fmt.Sprintf("%s: exit %d\n%s%s", strings.Join(r.Args, " "), r.Code, Clip(r.Out), Clip(r.Err))
}

// Clip keeps what a program has said short.
func Clip(s string) string {
	const most = 4000
	if len(s) > most {
		return s[:most] + "…\n"
	}
	return s
}

// Log is what a program has written so far. It may be read while it writes.
type Log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// String is all of it.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Tail is the end of it.
func (l *Log) Tail() string {
	const most = 8000
	s := l.String()
	return s[max(0, len(s)-most):]
}

// Process is a command that runs.
type Process struct {
	// Log is its standard error.
	Log Log

	cmd     *exec.Cmd
	args    []string
	wrapped bool
	ctx     context.Context
	cancel  context.CancelFunc
	out     Log
	begin   time.Time
	wait    func() (Result, error)
	ended   atomic.Bool
}

// Start begins a command. What wraps it shares a process group with it, which
// signals go to.
func Start(c Command) (*Process, error) {
	p := &Process{args: c.Args, wrapped: len(c.Wrap) > 0, begin: time.Now()}
	p.wait = sync.OnceValues(p.end)
	p.ctx, p.cancel = context.WithCancel(context.Background())
	argv := append(slices.Clone(c.Wrap), c.Args...)
	p.cmd = exec.CommandContext(p.ctx, argv[0], argv[1:]...)
	p.cmd.Dir, p.cmd.Env = c.Dir, c.Env
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: p.wrapped}
	// It shows where it hangs, and is killed if it does not.
	p.cmd.Cancel = func() error { return p.Signal(syscall.SIGABRT) }
	p.cmd.WaitDelay = 10 * time.Second
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = c.Stdin, c.Stdout, &p.Log
	if c.Stdout == nil {
		p.cmd.Stdout = &p.out
	}
	if err := p.cmd.Start(); err != nil {
		p.cancel()
		return nil, err
	}
	if !c.Endless {
		p.EndWithin(Patience)
	}
	return p, nil
}

// EndWithin gives the process that time from now on: it hangs if it takes longer.
func (p *Process) EndWithin(d time.Duration) {
	timer := time.AfterFunc(d, p.cancel)
	context.AfterFunc(p.ctx, func() { timer.Stop() })
}

// Pid is the number of the process, or of what wraps it.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Peak is the most memory that the process has held so far, in bytes. It must not have
// ended.
func (p *Process) Peak() (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Pid()))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		var kib int64
		if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kib); n == 1 {
			return kib << 10, nil
		}
	}
	return 0, fmt.Errorf("no VmHWM in %q", text)
}

// Signal sends a signal to the process and to what wraps it.
func (p *Process) Signal(s syscall.Signal) error {
	switch {
	case !p.wrapped:
		return p.cmd.Process.Signal(s)
	case p.ended.Load():
		return os.ErrProcessDone
	}
	return syscall.Kill(-p.Pid(), s)
}

// Kill kills the process and waits for its end.
func (p *Process) Kill() (Result, error) {
	_ = p.Signal(syscall.SIGKILL) // it may be dead already
	p.EndWithin(Patience)
	return p.Wait()
}

// Wait waits for the end. A crash or a hang is an error; any exit status is
// none. Who waits again is told the same.
func (p *Process) Wait() (Result, error) { return p.wait() }

func (p *Process) end() (Result, error) {
	err := p.cmd.Wait()
	defer p.cancel()
	defer p.ended.Store(true)
	r := Result{Args: p.args, How: p.cmd.ProcessState.String(), Out: p.out.String(), Err: p.Log.String(), Took: time.Since(p.begin)}
	var exit *exec.ExitError
	switch {
	case p.ctx.Err() != nil:
		r.Code = ExitKilled
		p.leaveNobody()
		return r, fmt.Errorf("it hung: %s\n%s", r, r.Err)
	case errors.As(err, &exit):
		r.Code = exit.ExitCode()
	case err != nil:
		r.Code = ExitKilled
		return r, fmt.Errorf("%s: %w", r, err)
	}
	return p.judge(r)
}

// judge tells a crash from an end, and what the tracer did from what the program
// did.
func (p *Process) judge(r Result) (Result, error) {
	traced := p.cmd.Args[0] == Tracer
	switch {
	case traced && strings.Contains(r.Err, runtimeHit):
		r.Code = ExitKilled
	case traced && strings.Contains(r.Err, tracerFailed):
		p.leaveNobody()
		return r, fmt.Errorf("%w: %s", ErrTracer, r)
	case strings.Contains(r.Err, "goroutine "), strings.Contains(r.Err, "fatal error: "):
		return r, fmt.Errorf("it crashed: %s\n%s", r, r.Err)
	}
	return r, nil
}

// leaveNobody kills what the end of the first process may have left of the others.
func (p *Process) leaveNobody() {
	if p.wrapped {
		_ = syscall.Kill(-p.Pid(), syscall.SIGKILL)
	}
}

// Do runs a command to its end.
func Do(c Command) (Result, error) {
	p, err := Start(c)
	if err != nil {
		return Result{}, err
	}
	return p.Wait()
}

// Tracer is the program that puts faults between another one and the system.
const Tracer = "strace"

// runtimeHit is what a program says that ends because the tracer has put an error
// into its runtime's own event descriptor. No disk does that: it was killed.
const runtimeHit = "runtime: netpollBreak write failed"

// tracerFailed is how a tracer begins what it says that could not follow a thread,
// as now and then one that ends at that moment.
const tracerFailed = "strace: ptrace("

// ErrTracer is returned for a program whose tracer failed: what it has done, or
// still does, nobody can tell, and it says nothing about the program. What it
// worked on is to be thrown away.
var ErrTracer = errors.New("the tracer failed")
