package term

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// UsageError marks an error that the user corrects on the command line.
type UsageError struct{ err error }

func (e UsageError) Error() string { return e.err.Error() }
func (e UsageError) Unwrap() error { return e.err }

// Usagef makes a UsageError.
func Usagef(format string, args ...any) error { return UsageError{fmt.Errorf(format, args...)} }

// Meaning makes the words of a server mean one of our sentinels, too.
func Meaning(err, is error) error { return meaningError{err, is} }

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

// Hintf gives an error the next step.
func Hintf(err error, format string, args ...any) error {
	return hintedError{err, fmt.Sprintf(format, args...)}
}

// NextStep is the next step that an error carries, "" if it carries none.
func NextStep(err error) string {
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

// Interrupted is the error of a command that was interrupted, and how things stand.
func Interrupted(state string) error { return interruptedError{state} }

// StateOfInterrupted words an interruption that no command has worded.
func StateOfInterrupted(err error) error {
	var told interruptedError
	if !errors.Is(err, context.Canceled) || errors.As(err, &told) {
		return err
	}
	return interruptedError{strings.TrimSuffix(err.Error(), ": "+context.Canceled.Error())}
}

// StateAt turns err into an interruptedError if ctx was cancelled.
func StateAt(ctx context.Context, err error, state string) error {
	if err != nil && ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return interruptedError{state}
	}
	return err
}

// IsAny reports whether err is one of some sentinels.
func IsAny(err error, sentinels ...error) bool {
	return slices.ContainsFunc(sentinels, func(s error) bool { return errors.Is(err, s) })
}
