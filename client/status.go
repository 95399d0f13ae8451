package client

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"unicode"

	"holdfast/chunkstore"
	"holdfast/datastore/wire"
)

// StatusError is an answer of the server that is no success. errors.Is finds
// in it the sentinel of wire or chunkstore that it means.
type StatusError struct {
	Code int    // HTTP status
	Text string // what the server says, for a person; may be empty
}

func (e *StatusError) Error() string {
	if e.Text == "" {
		return fmt.Sprintf("the server answered %d %s", e.Code, http.StatusText(e.Code))
	}
	return e.Text
}

// Temporary reports whether the server says that it has no time or no means now.
func (e *StatusError) Temporary() bool {
	return slices.Contains([]int{http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusBadGateway,
		http.StatusServiceUnavailable, http.StatusGatewayTimeout}, e.Code)
}

// sentinels are the errors that a Holdfast server ends its text with.
var sentinels = []error{
	chunkstore.ErrNotExist, chunkstore.ErrCorrupt, chunkstore.ErrInvalid, chunkstore.ErrLocked, chunkstore.ErrReadOnly,
	chunkstore.ErrNoSpace, wire.ErrName, wire.ErrProtected, wire.ErrExists, wire.ErrBusy,
	wire.ErrUnauthenticated, wire.ErrPermission, wire.ErrQuota, wire.ErrStopped,
}

// texts are what a Proxmox Backup Server says where its status says only that
// something is wrong (sections 2.1, 2.6, 3.1, 4.3 and 4.4 of the protocol
// specification).
var texts = []struct {
	part string
	is   error
}{
	{"timestamp is older than last backup", wire.ErrExists},
	{"backup directory already exists", wire.ErrExists},
	{"another backup is already running", wire.ErrBusy},
	{"already locked by another operation", wire.ErrBusy},
	{"unable to acquire lock", wire.ErrBusy},
	{": locked by ", chunkstore.ErrLocked},
	{"cannot remove protected snapshot", wire.ErrProtected},
	{"backup owner check failed", wire.ErrPermission},
	{"no permissions on", wire.ErrPermission},
	{"permission check failed", wire.ErrPermission},
	{"does not exist", chunkstore.ErrNotExist},
	{"no such file or directory", chunkstore.ErrNotExist},
	{"enoent", chunkstore.ErrNotExist},
	{"no such chunk", chunkstore.ErrNotExist},
	{"no such datastore", chunkstore.ErrNotExist},
	{"no space left", chunkstore.ErrNoSpace},
}

// notAllowed are what servers say with the status of a failed login though they know who
// asks (section 1.5 of the protocol specification).
var notAllowed = []string{"does not have permission to", "not allowed"}

// Is tells which sentinel the answer means.
func (e *StatusError) Is(target error) bool {
	switch e.Code {
	case http.StatusUnauthorized:
		if slices.ContainsFunc(notAllowed, func(words string) bool { return strings.Contains(e.Text, words) }) {
			return target == wire.ErrPermission
		}
		return target == wire.ErrUnauthenticated
	case http.StatusForbidden:
		return target == wire.ErrPermission
	case http.StatusNotFound:
		return target == chunkstore.ErrNotExist
	}
	if e.Code == http.StatusInsufficientStorage && target == chunkstore.ErrNoSpace {
		return true
	}
	text := strings.ToLower(strings.TrimRight(e.Text, ". \n"))
	for _, s := range sentinels {
		if target == s && strings.HasSuffix(text, s.Error()) {
			return true
		}
	}
	for _, t := range texts {
		if target == t.is && strings.Contains(text, t.part) {
			return true
		}
	}
	return false
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
		return &StatusError{Code: resp.StatusCode}
	}
	return &StatusError{Code: resp.StatusCode, Text: printable(string(b))}
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
