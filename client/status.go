package client

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"unicode"

	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
)

// StatusError is an answer of the server that is no success. errors.Is finds
// in it the errors of the table of failures that it means.
type StatusError struct {
	Code int    // HTTP status
	Text string // what the server says, for a person; may be empty
	// Names are the names that the server gives to what has failed, nil if it gives none,
	// as a Proxmox Backup Server does, and whatever stands before a server.
	Names []string
}

func (e *StatusError) Error() string {
	if e.Text == "" {
		return fmt.Sprintf("the server answered %d %s", e.Code, http.StatusText(e.Code))
	}
	return e.Text
}

// named reports whether the server has said what it means: there is nothing to guess.
func (e *StatusError) named() bool { return e.Names != nil }

// failures are the rows of the table that the answer means.
func (e *StatusError) failures() []api.Failure {
	if e.named() {
		return api.FailuresNamed(e.Names)
	}
	return api.FailuresSaid(e.Code, e.Text)
}

// Is tells which errors of the table of failures the answer means.
func (e *StatusError) Is(target error) bool { return isOneOf(e.failures(), target) }

// isOneOf tells whether one of the rows is what errors.Is looks for.
func isOneOf(rows []api.Failure, target error) bool {
	return slices.ContainsFunc(rows, func(row api.Failure) bool { return errors.Is(row.Is, target) })
}

// Temporary reports whether the server says that it has no time or no means now.
func (e *StatusError) Temporary() bool {
	return e.Is(wire.ErrShare) || e.Is(wire.ErrFull) || e.Is(wire.ErrSlow)
}

// errorTextMax caps what is read of an error's body, in bytes.
const errorTextMax = 16 << 10

// errAnswer is wrapped by errors about answers that make no sense. Asking again
// would not help.
var errAnswer = errors.New("unusable answer of the server")

// statusError reads the body of an answer that is no success.
func statusError(resp *http.Response) error {
	b, err := io.ReadAll(io.LimitReader(resp.Body, errorTextMax))
	if err != nil && len(b) == 0 {
		b = nil
	}
	e := &StatusError{Code: resp.StatusCode, Text: printable(string(b))}
	if named := resp.Header.Get(wire.FailureHeader); named != "" {
		e.Names = strings.Split(named, ",")
	}
	return e
}

// printable keeps what a foreign text could do to a terminal out of it.
func printable(s string) string {
	return strings.TrimRight(strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || unicode.IsPrint(r):
			return r
		case r == '\t':
			return ' '
		}
		return '?'
	}, strings.ToValidUTF8(s, "?")), " \n")
}
