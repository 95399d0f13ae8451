package rest

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
)

// ErrAnswered is returned by raw methods that have written their answer.
var ErrAnswered = errors.New("answered")

// StatusError is an error whose answer is settled: section 1.5 of the protocol
// specification.
type StatusError struct {
	Code  int
	Text  string
	Delay time.Duration // how long the answer is held back
	is    error         // what it means; nil for what its status says
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

// Reasons why a parameter is refused (section 1.3 of the protocol
// specification).
const (
	whyMissing   = "parameter is missing and it is not optional."
	whyUnknown   = "schema does not allow additional properties."
	whyDuplicate = "duplicate parameter."
)

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

// Is makes it wire.ErrParameter, and wire.ErrUnknownParameter if one of them is not known.
func (e ParamError) Is(target error) bool {
	return target == wire.ErrParameter ||
		target == wire.ErrUnknownParameter && slices.ContainsFunc(e, func(f paramFault) bool { return f.why == whyUnknown })
}

// ByName is the form in which the web page gets the faults.
func (e ParamError) ByName() map[string]string {
	m := make(map[string]string, len(e))
	for _, f := range e {
		m[f.name] = f.why
	}
	return m
}

// Refuse is the answer to what fails for a reason that the table of failures has: it has
// the status of its row, and its name.
func Refuse(is error, format string, args ...any) *StatusError {
	e := BadRequest(format, args...).Meaning(is)
	if rows := api.FailuresOf(is); len(rows) > 0 {
		e.Code = rows[0].Status
	}
	return e
}

// Meaning says what else than its status and text the answer means: errors of the table of
// failures.
func (e *StatusError) Meaning(is error) *StatusError {
	e.is = is
	return e
}

// Failures are the names of what has failed, for the header wire.FailureHeader.
func (e *StatusError) Failures() string {
	rows := api.FailuresOf(e.is)
	if len(rows) == 0 {
		rows = api.FailuresAnswered(e.Code)
	}
	if len(rows) == 0 {
		return api.FailureOther
	}
	names := make([]string, len(rows))
	for i, row := range rows {
		names[i] = row.Name
	}
	return strings.Join(names, ",")
}

// Head writes the head of the answer.
func (e *StatusError) Head(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set(wire.FailureHeader, e.Failures())
	w.WriteHeader(e.Code)
}

// AsStatus turns any error into an answer. What the table of failures does not have is 400.
func AsStatus(err error) *StatusError {
	var status *StatusError
	if errors.As(err, &status) {
		return status
	}
	return Refuse(err, "%s", Clip(err.Error()))
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
