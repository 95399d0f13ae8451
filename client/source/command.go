package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// stopDelay is how long a command has to end in order before it is killed.
const stopDelay = 5 * time.Second

// CommandOptions say what to run. Text is for sh -c; Env is its environment as
// NAME=VALUE; Stderr is where its messages go.
type CommandOptions struct {
	Text   string
	Env    []string
	Stderr io.Writer
}

// Command is the output of a shell command. Reading from it starts the command
// and reaches io.EOF only when all of its output was read and it ended with
// status 0: a command that fails is a read error that wraps ErrCommand and tells
// its exit status, never the end of the data. The command reads nothing from the standard
// input. It is used by one goroutine.
type Command struct {
	ctx    context.Context
	cancel context.CancelFunc
	o      CommandOptions
	cmd    *exec.Cmd // nil before the first Read
	out    io.ReadCloser
	wait   func() error
	err    error // what every later Read returns
}

// NewCommand starts nothing yet. The end of ctx ends the command and whatever
// it has started.
func NewCommand(ctx context.Context, o CommandOptions) *Command {
	ctx, cancel := context.WithCancel(ctx)
	return &Command{ctx: ctx, cancel: cancel, o: o}
}

// Read implements io.Reader.
func (c *Command) Read(p []byte) (int, error) {
	if c.err == nil && c.cmd == nil {
		c.err = c.start()
	}
	if c.err != nil {
		return 0, c.err
	}
	n, err := c.out.Read(p)
	if err != nil {
		c.err = c.conclude(err)
	}
	if n > 0 {
		return n, nil
	}
	return 0, c.err
}

// start runs the command. It gets a process group of its own, by which all of
// it can be ended; but not at a terminal, where it might have to ask for a
// password and Ctrl-C reaches it by itself.
func (c *Command) start() error {
	c.cmd = exec.CommandContext(c.ctx, "sh", "-c", c.o.Text)
	c.cmd.Env, c.cmd.Stderr = c.o.Env, c.o.Stderr
	c.cmd.WaitDelay = stopDelay
	own := !atTerminal()
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: own}
	c.cmd.Cancel = func() error { return signalCommand(c.cmd.Process, own, syscall.SIGTERM) }
	var err error
	if c.out, err = c.cmd.StdoutPipe(); err != nil {
		return fmt.Errorf("run a command for standard input: %w", err)
	}
	if err := c.cmd.Start(); err != nil {
		return fmt.Errorf("run a command for standard input: %w: %w", cause(err), ErrCommand)
	}
	// A grandchild may keep the pipe open when the command is gone.
	stop := context.AfterFunc(c.ctx, func() { c.out.Close() })
	c.wait = sync.OnceValue(func() error {
		err := c.cmd.Wait()
		if !stop() && own {
			// What is left of the group had its time.
			_ = signalCommand(c.cmd.Process, own, syscall.SIGKILL)
		}
		return err
	})
	return nil
}

// conclude makes of the end of the output, or of an error while reading it, what
// Read returns.
func (c *Command) conclude(err error) error {
	if err != io.EOF && c.ctx.Err() == nil {
		return fmt.Errorf("read the command's output: %w", err)
	}
	waited := c.wait()
	switch {
	case c.ctx.Err() != nil:
		return c.ctx.Err()
	case waited != nil:
		return fmt.Errorf("the command that --stdin-from-command names ended with %w: %w", waited, ErrCommand)
	}
	return io.EOF
}

// Close ends the command if it is still at work. It is no error that it was.
func (c *Command) Close() error {
	c.cancel()
	if c.wait != nil {
		_ = c.wait() // it was stopped here, or its end was told by Read
	}
	return nil
}

// signalCommand sends a signal to a process, or to its whole group.
func signalCommand(p *os.Process, group bool, s syscall.Signal) error {
	if !group {
		return p.Signal(s)
	}
	err := syscall.Kill(-p.Pid, s)
	if errors.Is(err, syscall.ESRCH) {
		return os.ErrProcessDone
	}
	return err
}

// atTerminal reports whether this program is what runs in the foreground of a
// terminal.
func atTerminal() bool {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return false
	}
	defer tty.Close()
	front, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && front == unix.Getpgrp()
}
