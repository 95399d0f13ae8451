package server

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

// errAnswered is returned by raw methods that have written their answer.
var errAnswered = errors.New("answered")

// statusError is an error whose answer is settled: section 1.5 of the protocol
// specification.
type statusError struct {
	code  int
	text  string
	delay time.Duration // how long the answer is held back
}

func (e *statusError) Error() string { return e.text }

// badRequest is the answer to whatever has no code of its own.
func badRequest(format string, args ...any) *statusError {
	return &statusError{code: http.StatusBadRequest, text: fmt.Sprintf(format, args...)}
}

// notFound is for things below /access and /config that are not there.
func notFound(format string, args ...any) *statusError {
	return &statusError{code: http.StatusNotFound, text: fmt.Sprintf(format, args...)}
}

// errBodyTooLarge is returned for a body beyond the limit of its method.
var errBodyTooLarge = errors.New("request body too large")

// paramFault is one parameter that was refused.
type paramFault struct{ name, why string }

// paramError lists the parameters of a request that were refused.
type paramError []paramFault

func (e paramError) Error() string {
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

// byName is the form in which the web page gets the faults.
func (e paramError) byName() map[string]string {
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

// asStatus turns any error into an answer.
func asStatus(err error) *statusError {
	var status *statusError
	if errors.As(err, &status) {
		return status
	}
	for _, e := range errorCodes {
		if errors.Is(err, e.is) {
			return &statusError{code: e.code, text: clip(err.Error())}
		}
	}
	return &statusError{code: http.StatusBadRequest, text: clip(err.Error())}
}

// errorTextMax caps the text of an answer, in bytes.
const errorTextMax = 8 << 10

// clip keeps a text short and free of what is no UTF-8.
func clip(s string) string {
	if len(s) > errorTextMax {
		s = s[:errorTextMax]
	}
	return strings.ToValidUTF8(s, "?")
}
