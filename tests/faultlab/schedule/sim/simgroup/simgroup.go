// Package errgroup stands for golang.org/x/sync/errgroup in the programs of the
// schedules.
//
// The package imports package sim and the standard library.
package errgroup

import (
	"context"

	"holdfast/tests/faultlab/schedule/sim"
)

// Group is a group of tasks.
type Group struct {
	wg     sim.Latch
	cancel context.CancelCauseFunc
	places chan struct{}
	err    error // guarded by the turn
}

// WithContext makes a group whose context ends with its first error.
func WithContext(ctx context.Context) (*Group, context.Context) {
	ctx, cancel := context.WithCancelCause(ctx)
	return &Group{cancel: cancel}, ctx
}

// SetLimit bounds the number of tasks that run at a time.
func (g *Group) SetLimit(n int) { g.places = make(chan struct{}, n) }

// Go runs f as a task.
func (g *Group) Go(f func() error) {
	if g.places != nil {
		g.places <- struct{}{}
	}
	g.wg.Add(1)
	sim.Go(func() {
		defer g.done()
		if err := f(); err != nil && g.err == nil {
			g.err = err
			if g.cancel != nil {
				g.cancel(err)
			}
		}
	})
}

func (g *Group) done() {
	if g.places != nil {
		<-g.places
	}
	g.wg.Add(-1)
}

// Wait waits for all tasks and returns the first error.
func (g *Group) Wait() error {
	g.wg.Wait()
	if g.cancel != nil {
		g.cancel(g.err)
	}
	return g.err
}
