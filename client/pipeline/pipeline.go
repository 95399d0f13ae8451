// Package pipeline is the bounded, ordered machinery under backup and restore:
// a fixed number of goroutines, a fixed number of buffers, results in the order
// of their items however long each takes. It knows nothing of chunks.
//
// Every goroutine that the package starts has ended when the function that
// started it returns, and the first error cancels the rest.
package pipeline

import (
	"context"
	"iter"

	"golang.org/x/sync/errgroup"
)

// Limits bounds an ordered run.
type Limits struct {
	Workers int // items worked on at once
	Depth   int // items alive at once, finished ones that wait their turn included
}

// Stages are the two halves of an ordered run: Work is called on several
// goroutines at once, Consume on one, in the order of the items.
type Stages[In, Out any] struct {
	Work    func(ctx context.Context, in In) (Out, error)
	Consume func(out Out) error
}

// job carries one item to a worker, and its result to the consumer.
type job[In, Out any] struct {
	in   In
	done chan Out // holds one result; closed without one after an error
}

// Ordered runs every item through the stages and returns the first error. It
// stops early when ctx ends.
func Ordered[In, Out any](ctx context.Context, l Limits, items iter.Seq2[In, error], s Stages[In, Out]) error {
	g, ctx := errgroup.WithContext(ctx)
	jobs := make(chan job[In, Out])
	queue := make(chan job[In, Out], max(l.Depth-l.Workers-1, 1))
	g.Go(func() error {
		defer close(jobs)
		defer close(queue)
		return feed(ctx, items, jobs, queue)
	})
	for range max(l.Workers, 1) {
		g.Go(func() error { return work(ctx, jobs, s.Work) })
	}
	g.Go(func() error { return consume(ctx, queue, s.Consume) })
	return g.Wait()
}

// feed puts each item into the queue first, so that its place in the order is
// taken, and then hands it to a worker.
func feed[In, Out any](ctx context.Context, items iter.Seq2[In, error], jobs, queue chan<- job[In, Out]) error {
	for in, err := range items {
		if err != nil {
			return err
		}
		j := job[In, Out]{in: in, done: make(chan Out, 1)}
		for _, to := range []chan<- job[In, Out]{queue, jobs} {
			select {
			case to <- j:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return nil
}

func work[In, Out any](ctx context.Context, jobs <-chan job[In, Out], do func(context.Context, In) (Out, error)) error {
	for j := range jobs {
		out, err := do(ctx, j.in)
		if err != nil {
			return err
		}
		j.done <- out
	}
	return nil
}

func consume[In, Out any](ctx context.Context, queue <-chan job[In, Out], do func(Out) error) error {
	for j := range queue {
		select {
		case out := <-j.done:
			if err := do(out); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// Pool hands out at most a fixed number of things at once, each made when it
// is first needed and used again after that. It is how memory is bounded.
type Pool[T any] struct {
	slots chan slot[T]
	fresh func() T
}

type slot[T any] struct {
	thing T
	made  bool
}

// NewPool returns a pool of n things.
func NewPool[T any](n int, fresh func() T) *Pool[T] {
	p := &Pool[T]{slots: make(chan slot[T], n), fresh: fresh}
	for range n {
		p.slots <- slot[T]{}
	}
	return p
}

// Get waits for a free thing, or for ctx to end.
func (p *Pool[T]) Get(ctx context.Context) (T, error) {
	select {
	case s := <-p.slots:
		if !s.made {
			s.thing = p.fresh()
		}
		return s.thing, nil
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

// Put gives a thing back. Each thing may be given back once only.
func (p *Pool[T]) Put(t T) { p.slots <- slot[T]{thing: t, made: true} }
