package term

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
)

// enders are the signals that ask a command to end. It ends in order then: it
// removes what is half done and says how things stand.
func enders() []os.Signal {
	return []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGXCPU}
}

// Signals is what a run has been sent.
type Signals struct {
	ended   atomic.Int32 // the signal that ends the run, 0 for none
	reloads atomic.Bool  // SIGHUP means something else to the command
}

// Watch returns a context that ends with the first signal of enders, but for
// those that whoever started the program wants ignored, as nohup does. From then
// on another one kills at once, unless it is SIGHUP: a terminal that goes sends
// it several times. A closed pipe is an error of the write and nothing else.
func (s *Signals) Watch(parent context.Context) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancel(parent)
	got := make(chan os.Signal, 1)
	var again []os.Signal
	for _, sig := range enders() {
		if signal.Ignored(sig) {
			continue
		}
		signal.Notify(got, sig)
		if sig != syscall.SIGHUP {
			again = append(again, sig)
		}
	}
	pipe := make(chan os.Signal, 1)
	signal.Notify(pipe, syscall.SIGPIPE)
	over := make(chan struct{})
	go func() {
		for {
			select {
			case sig := <-got:
				if sig == syscall.SIGHUP && (s.reloads.Load() || s.ended.Load() != 0) {
					continue
				}
				if number, ok := sig.(syscall.Signal); ok {
					s.ended.CompareAndSwap(0, int32(number))
				}
				signal.Reset(again...)
				cancel()
			case <-over:
				return
			}
		}
	}()
	return ctx, func() {
		signal.Stop(got)
		signal.Stop(pipe)
		close(over)
		cancel()
	}
}

// HangupReloads gives SIGHUP the meaning it has for a server: it ends nothing.
func (s *Signals) HangupReloads() { s.reloads.Store(true) }

// SignalledError is the end of a run by a signal.
type SignalledError struct {
	Err    error
	Signal syscall.Signal
}

func (e SignalledError) Error() string { return e.Err.Error() }
func (e SignalledError) Unwrap() error { return e.Err }

// By says which signal has ended the run, if one has.
func (s *Signals) By(err error) error {
	var usage UsageError
	var output OutputError
	if errors.As(err, &usage) || errors.As(err, &output) {
		return err
	}
	if sig := s.ended.Load(); sig != 0 && errors.Is(err, context.Canceled) {
		return SignalledError{err, syscall.Signal(sig)}
	}
	return err
}

// OutputError is a result that could not be written. Everything else is done.
type OutputError struct {
	Err  error
	Done bool   // it was the summary of something that is done
	made string // the snapshot that was made, "" for none
}

// Written marks an error of standard output.
func Written(err error) error {
	if err == nil {
		return nil
	}
	return OutputError{Err: err}
}

// Unread reports whether whoever reads a list has closed standard output.
func (e OutputError) Unread() bool { return !e.Done && errors.Is(e.Err, syscall.EPIPE) }

func (e OutputError) Error() string {
	switch {
	case e.made != "":
		return fmt.Sprintf("snapshot %s is made, but the summary could not be written to standard output: %v", e.made, e.Err)
	case e.Done:
		return fmt.Sprintf("what was asked for is done, but the summary could not be written to standard output: %v", e.Err)
	}
	return fmt.Sprintf("the result could not be written to standard output: %v", e.Err)
}
