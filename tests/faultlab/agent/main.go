// Command agent keeps a repository open and does what it is told, several things
// at once, as a server would: that is where a backup is acknowledged long before
// the store is closed.
//
//	agent STORE KEYFILE
//
// It reads one lab.Request as JSON from each line of standard input and answers
// with a lab.Answer when that is done; the answers come in any order. At the end
// of its input it closes the repository and exits.
//
// It imports tests/faultlab/lab and tests/faultlab/worker.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"

	"holdfast/tests/faultlab/lab"
	"holdfast/tests/faultlab/worker"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: agent STORE KEYFILE")
		os.Exit(64)
	}
	if err := run(context.Background(), os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "agent: error:", err)
		os.Exit(1)
	}
}

// answers are written by many.
type answers struct {
	mu  sync.Mutex
	out *json.Encoder
}

func (a *answers) write(r lab.Answer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.out.Encode(r); err != nil {
		os.Exit(1) // nobody listens
	}
}

func run(ctx context.Context, path, keyfile string) error {
	w, err := worker.Open(ctx, path, keyfile)
	if err != nil {
		return err
	}
	a := &answers{out: json.NewEncoder(os.Stdout)}
	a.write(lab.Answer{}) // it is open
	var running sync.WaitGroup
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var r lab.Request
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return errors.Join(fmt.Errorf("request: %w", err), w.Store.Close())
		}
		running.Go(func() {
			answer := lab.Answer{Seq: r.Seq}
			if err := w.Do(ctx, r); err != nil {
				answer.Error = err.Error()
			}
			a.write(answer)
		})
	}
	running.Wait()
	return errors.Join(lines.Err(), w.Store.Close())
}
