package lab

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"syscall"

	"holdfast/tests/harness"
)

// Agent is a running agent.
type Agent struct {
	p       *harness.Process
	in      *os.File
	out     *os.File
	answers *bufio.Reader
	running map[int]*Op
	seq     int
}

// BuildAgent compiles the agent with patches.
func (l *Lab) BuildAgent(patches ...Patch) (string, error) {
	return l.Build("agent", "./tests/faultlab/agent", append([]Patch{SmallPacks()}, patches...)...)
}

// Agent starts program, an agent, on the repository and waits until it is open.
func (w *World) Agent(program string) (*Agent, error) {
	inR, inW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	a := &Agent{in: inW, out: outR, answers: bufio.NewReader(outR), running: map[int]*Op{}}
	a.p, err = harness.Start(harness.Command{
		Args: []string{program, w.Path, w.Key}, Stdin: inR, Stdout: outW, Wrap: w.Wrap, Env: w.environ(),
	})
	inR.Close()
	outW.Close()
	if err == nil {
		_, _, err = a.Next()
		if err != nil {
			res, e := a.Kill()
			err = fmt.Errorf("start agent: %w %w %s", err, e, res)
		}
	}
	return a, err
}

// Running is how many steps have not been answered.
func (a *Agent) Running() int { return len(a.running) }

// Begin tells the agent to do a step.
func (a *Agent) Begin(op *Op) error {
	a.seq++
	op.Seq = a.seq
	a.running[op.Seq] = op
	return json.NewEncoder(a.in).Encode(op.Request)
}

// Next waits for the next answer. An error that is none of a step means that the
// agent is gone.
func (a *Agent) Next() (*Op, Answer, error) {
	line, err := a.answers.ReadBytes('\n')
	if err != nil {
		return nil, Answer{}, fmt.Errorf("no answer: %w", err)
	}
	var r Answer
	if err := json.Unmarshal(line, &r); err != nil {
		return nil, r, err
	}
	op := a.running[r.Seq]
	delete(a.running, r.Seq)
	return op, r, nil
}

// Signal sends the agent a signal.
func (a *Agent) Signal(s syscall.Signal) error { return a.p.Signal(s) }

// Kill9 kills the agent; Kill or Close must follow.
func (a *Agent) Kill9() { _ = a.p.Signal(syscall.SIGKILL) } // it may have died already

// Kill kills the agent and waits for its end.
func (a *Agent) Kill() (harness.Result, error) {
	a.Kill9()
	return a.end()
}

// Close lets the agent close the repository.
func (a *Agent) Close() error {
	res, err := a.end()
	if err == nil && res.Code != ExitOK {
		err = fmt.Errorf("should have gone well: %s", res)
	}
	return err
}

func (a *Agent) end() (harness.Result, error) {
	a.in.Close()
	rest, _ := io.ReadAll(a.answers)
	res, err := a.p.Wait()
	a.out.Close()
	res.Out += string(rest)
	return res, err
}
