package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// usageError marks an error that the user corrects on the command line.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// meaning makes the words of a server mean one of our sentinels, too.
func meaning(err, is error) error { return meaningError{err, is} }

type meaningError struct{ err, is error }

func (e meaningError) Error() string   { return e.err.Error() }
func (e meaningError) Unwrap() []error { return []error{e.err, e.is} }

// hintedError carries the next step with an error.
type hintedError struct {
	err  error
	hint string
}

func (e hintedError) Error() string { return e.err.Error() }
func (e hintedError) Unwrap() error { return e.err }

func hintf(err error, format string, args ...any) error {
	return hintedError{err, fmt.Sprintf(format, args...)}
}

// hintOf is the next step that an error carries, "" if it carries none.
func hintOf(err error) string {
	var h hintedError
	if errors.As(err, &h) {
		return h.hint
	}
	return ""
}

// interruptedError replaces the chain of errors that a cancelled context
// leaves behind by what the user wants to know: the state of things.
type interruptedError struct{ state string }

func (e interruptedError) Error() string { return "interrupted: " + e.state }
func (e interruptedError) Unwrap() error { return context.Canceled }

// stateOfInterrupted words an interruption that no command has worded.
func stateOfInterrupted(err error) error {
	var told interruptedError
	if !errors.Is(err, context.Canceled) || errors.As(err, &told) {
		return err
	}
	return interruptedError{strings.TrimSuffix(err.Error(), ": "+context.Canceled.Error())}
}

// stateAt turns err into an interruptedError if ctx was cancelled.
func stateAt(ctx context.Context, err error, state string) error {
	if err != nil && ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return interruptedError{state}
	}
	return err
}
