package rest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"

	"holdfast/chunkstore"
	"holdfast/datastore/server/ledger"
	"holdfast/datastore/wire"
)

// ErrAnswered is returned by raw methods that have written their answer.
var ErrAnswered = errors.New("answered")

// StatusError is an error whose answer is settled: section 1.5 of the protocol
// specification.
type StatusError struct {
	Code  int
	Text  string
	Delay time.Duration // how long the answer is held back
}

// Error implements error: it is the text of the answer.
func (e *StatusError) Error() string { return e.Text }

// BadRequest is the answer to whatever has no code of its own.
func BadRequest(format string, args ...any) *StatusError {
	return &StatusError{Code: http.StatusBadRequest, Text: fmt.Sprintf(format, args...)}
}

// NotFound is for things below /access and /config that are not there.
func NotFound(format string, args ...any) *StatusError {
	return &StatusError{Code: http.StatusNotFound, Text: fmt.Sprintf(format, args...)}
}

// ErrBodyTooLarge is returned for a body beyond the limit of its method.
var ErrBodyTooLarge = errors.New("request body too large")

// paramFault is one parameter that was refused.
type paramFault struct{ name, why string }

// ParamError lists the parameters of a request that were refused.
type ParamError []paramFault

// Error implements error: a line for each parameter.
func (e ParamError) Error() string {
	if len(e) == 1 {
		return fmt.Sprintf("parameter verification failed - '%s': %s", e[0].name, e[0].why)
	}
	var b strings.Builder
	b.WriteString("parameter verification failed:")
	for _, f := range e {
		fmt.Fprintf(&b, "\n- '%s': %s", f.name, f.why)
	}
	return b.String()
}

// ByName is the form in which the web page gets the faults.
func (e ParamError) ByName() map[string]string {
	m := make(map[string]string, len(e))
	for _, f := range e {
		m[f.name] = f.why
	}
	return m
}

// errorCodes says which status a sentinel has; all others are 400.
var errorCodes = []struct {
	is   error
	code int
}{
	{wire.ErrUnauthenticated, http.StatusUnauthorized},
	{wire.ErrPermission, http.StatusForbidden},
	{ledger.ErrShare, http.StatusTooManyRequests},
	{ledger.ErrFull, http.StatusServiceUnavailable},
	{wire.ErrQuota, http.StatusInsufficientStorage},
	{chunkstore.ErrNoSpace, http.StatusInsufficientStorage},
	{syscall.ENOSPC, http.StatusInsufficientStorage},
	{os.ErrDeadlineExceeded, http.StatusRequestTimeout},
	{context.Canceled, http.StatusServiceUnavailable},
	{context.DeadlineExceeded, http.StatusServiceUnavailable},
}

// AsStatus turns any error into an answer.
func AsStatus(err error) *StatusError {
	var status *StatusError
	if errors.As(err, &status) {
		return status
	}
	for _, e := range errorCodes {
		if errors.Is(err, e.is) {
			return &StatusError{Code: e.code, Text: Clip(err.Error())}
		}
	}
	return &StatusError{Code: http.StatusBadRequest, Text: Clip(err.Error())}
}

// errorTextMax caps the text of an answer, in bytes.
const errorTextMax = 8 << 10

// Clip keeps a text short and free of what is no UTF-8.
func Clip(s string) string {
	if len(s) > errorTextMax {
		s = s[:errorTextMax]
	}
	return strings.ToValidUTF8(s, "?")
}
