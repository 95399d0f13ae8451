// Package resident carries out command lines of holdfast in a process that stays.
//
// The tests look at a repository with several commands after each of their
// thousands of faults. Most of the time that such a command takes goes into the
// start of its process. A resident program is the real one, with all that a command
// line does between its first word and its exit code: arguments, opening, closing,
// messages. Only the process is there already. What a test does to a process, and
// the command that it does it to, is for a process of its own.
//
// Every command opens the repository anew and must leave nothing open: the program
// has no state besides.
//
// The package imports the standard library only.
package resident

import (
	"bufio"
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// What makes holdfast reside: a file that is added to the program, and a text in
// one of its files that is replaced.
const (
	File = "cmd/holdfast/reside.go"
	Main = "cmd/holdfast/main.go"
	Old  = "os.Exit(a.run(os.Args[1:]))"
	New  = "os.Exit(a.reside(os.Args[1:]))"
)

//go:embed reside.go.txt
var source string

// Source is the text of File.
func Source() string { return source }

// patience is how long a command may take before it counts as hanging.
const patience = 10 * time.Minute

// Pool is a number of processes of one program, as many as are asked at a time.
// It is safe for concurrent use.
type Pool struct {
	program string

	mu   sync.Mutex
	idle []*process
}

// NewPool makes a pool of processes of a program that was built with Source. They
// end with Close, or with this process.
func NewPool(program string) *Pool { return &Pool{program: program} }

// Result is how a command ended.
type Result struct {
	Code int
	Err  string // what it has printed to standard error
}

// Do carries out a command line, without the program's name, in an environment. What
// the command prints to standard output goes to out once it has ended. A program
// that crashes or hangs is an error.
func (p *Pool) Do(out io.Writer, env []string, args ...string) (Result, error) {
	r, err := p.get()
	if err != nil {
		return Result{}, err
	}
	res, err := r.do(out, env, args)
	if err != nil {
		return Result{}, fmt.Errorf("holdfast %s: %w\n%s", strings.Join(args, " "), err, r.end())
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle = append(p.idle, r)
	return res, nil
}

// Close ends the processes that have nothing to do.
func (p *Pool) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.idle {
		r.end()
	}
	p.idle = nil
}

// get finds a process, or starts one.
func (p *Pool) get() (*process, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.idle); n > 0 {
		r := p.idle[n-1]
		p.idle = p.idle[:n-1]
		return r, nil
	}
	return start(p.program)
}

// process is one of them.
type process struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	stderr bytes.Buffer
}

func start(program string) (*process, error) {
	r := &process{cmd: exec.Command(program, "reside")}
	r.cmd.Stderr = &r.stderr
	r.cmd.WaitDelay = 10 * time.Second
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err := r.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	r.in, r.out = in, bufio.NewReader(out)
	return r, r.cmd.Start()
}

// do sends one command line and reads how it ended.
func (r *process) do(out io.Writer, env, args []string) (res Result, err error) {
	late := time.AfterFunc(patience, func() { r.signal(syscall.SIGQUIT) }) // it shows where it hangs
	defer late.Stop()
	if err := json.NewEncoder(r.in).Encode(map[string]any{"Args": args, "Env": env}); err != nil {
		return res, fmt.Errorf("it is gone: %w", err)
	}
	line, err := r.out.ReadString('\n')
	if err != nil {
		return res, fmt.Errorf("it crashed or hung: %w", err)
	}
	var said, complained int64
	if _, err := fmt.Sscanf(line, "%d %d %d\n", &res.Code, &said, &complained); err != nil {
		return res, fmt.Errorf("it answered %q: %w", line, err)
	}
	if _, err := io.CopyN(out, r.out, said); err != nil {
		return res, err
	}
	text, err := io.ReadAll(io.LimitReader(r.out, complained))
	res.Err = string(text)
	return res, err
}

func (r *process) signal(s syscall.Signal) { _ = syscall.Kill(-r.cmd.Process.Pid, s) } // it may be dead

// end ends the process and returns what it has printed besides.
func (r *process) end() string {
	r.in.Close()
	late := time.AfterFunc(patience, func() { r.signal(syscall.SIGKILL) })
	defer late.Stop()
	_ = r.cmd.Wait() // what it says matters, not how it ends
	return r.stderr.String()
}
