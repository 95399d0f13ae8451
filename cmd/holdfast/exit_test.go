package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"holdfast/chunkstore"
	"holdfast/chunkstore/pack"
	"holdfast/client"
	"holdfast/client/restore"
	"holdfast/client/source"
	"holdfast/command/repo"
	"holdfast/command/secret"
	"holdfast/command/term"
	"holdfast/crypto"
	"holdfast/datastore"
	"holdfast/datastore/gc"
	"holdfast/datastore/manifest"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
)

// exits pairs every code with the errors that lead to it.
func exits() map[int][]error {
	return map[int][]error{
		term.ExitOK: {nil},
		term.ExitError: {errors.New("anything"), chunkstore.ErrReadOnly, chunkstore.ErrFenced, source.ErrChanged,
			fmt.Errorf("%w: %w", wire.ErrLocal, fs.ErrNotExist)},
		term.ExitNoRepository: {datastore.ErrNoStore, &client.StatusError{Code: 404, Text: "datastore 'tank' does not exist"},
			&client.StatusError{Code: 400, Text: "no such datastore 'tank'"}},
		term.ExitLocked: {chunkstore.ErrLocked, wire.ErrBusy, pack.ErrSweeping},
		term.ExitKey:    {crypto.ErrWrongKey, crypto.ErrWrongPassphrase, crypto.ErrNoKey, secret.ErrPassphrase},
		term.ExitUsage: {term.Usagef("wrong"), wire.ErrName, chunkstore.ErrInvalid, term.Hintf(term.Usagef("wrong"), "do it right"),
			&client.StatusError{Code: 400, Text: "parameter verification failed - 'role': unknown"}},
		term.ExitIntegrity: {chunkstore.ErrCorrupt, crypto.ErrTampered, crypto.ErrFormat, manifest.ErrUnsigned, manifest.ErrFormat,
			source.ErrDamaged, repo.ErrDamage, &wire.MissingError{Count: 1}},
		term.ExitNotFound: {chunkstore.ErrNotExist, manifest.ErrNotFound, fs.ErrNotExist, syscall.ENOENT},
		term.ExitNoSpace:  {chunkstore.ErrNoSpace, syscall.ENOSPC, syscall.EDQUOT, fmt.Errorf("%w: %w", wire.ErrLocal, syscall.ENOSPC)},
		term.ExitRefused: {wire.ErrProtected, wire.ErrExists, restore.ErrTarget, source.ErrBacking, source.ErrUnsupported, fs.ErrExist, fs.ErrPermission, syscall.EROFS, syscall.EACCES,
			gc.ErrNothingFound, wire.ErrNotEmpty, term.Meaning(errors.New("exists already"), wire.ErrExists),
			wire.ErrStopped, &client.StatusError{Code: 400, Text: "the session was stopped by root@pam: task aborted"},
			&client.TaskError{Status: "abort requested - aborting task"}, &client.TaskError{Status: "task aborted"}},
		term.ExitUnreachable: {&net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}, &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET},
			client.ErrUnavailable, &client.StatusError{Code: 503, Text: "server is shutting down"}, &client.StatusError{Code: 429}},
		term.ExitInterrupted: {context.Canceled, term.Interrupted("half way"), term.SignalledError{Err: context.Canceled, Signal: syscall.SIGINT}},
		term.ExitUnknown:     {wire.ErrUnknown, fmt.Errorf("%w: %w", wire.ErrUnknown, context.Canceled)},
		term.ExitOutput:      {term.OutputError{Err: syscall.ENOSPC}, term.OutputError{Err: syscall.ENOSPC, Done: true}, term.OutputError{Err: syscall.EPIPE, Done: true}},
		term.ExitPipe:        {term.OutputError{Err: syscall.EPIPE}, syscall.EPIPE},
		129:                  {term.SignalledError{Err: term.Interrupted("half way"), Signal: syscall.SIGHUP}},
		131:                  {term.SignalledError{Err: term.Interrupted("half way"), Signal: syscall.SIGQUIT}},
		143:                  {term.SignalledError{Err: term.Interrupted("half way"), Signal: syscall.SIGTERM}},
		152:                  {term.SignalledError{Err: term.Interrupted("half way"), Signal: syscall.SIGXCPU}},
	}
}

func TestExitCode(t *testing.T) {
	for want, errs := range exits() {
		for _, err := range errs {
			if got := exitCode(err); got != want {
				t.Errorf("exitCode(%v) = %d, want %d", err, got, want)
			}
			if err == nil {
				continue
			}
			wrapped := fmt.Errorf("do a thing: %w", &os.PathError{Op: "open", Path: "x", Err: err})
			if got := exitCode(wrapped); got != want {
				t.Errorf("exitCode(%v), wrapped, = %d, want %d", err, got, want)
			}
			if got := exitCode(errors.Join(errors.New("first"), err)); got != want {
				t.Errorf("exitCode(%v), joined, = %d, want %d", err, got, want)
			}
		}
	}
}

// What a server answers ends a command with the code of its row in the table of failures,
// whether the server names it or says it; so does the same error of a repository on this
// machine, but for one.
func TestExitCodesOfFailures(t *testing.T) {
	for _, row := range api.Failures() {
		t.Run(row.Name, func(t *testing.T) {
			text := "do a thing: " + row.Is.Error()
			for _, err := range []error{
				&client.StatusError{Code: row.Status, Text: "in other words", Names: []string{row.Name}},
				&client.StatusError{Code: row.Status, Text: text},
				fmt.Errorf("do a thing: %w", row.Is),
			} {
				want := row.Exit
				if err.Error() == text && row.Is == chunkstore.ErrReadOnly && !repo.FrozenThere(err) {
					want = term.ExitError // a write has gone wrong here
				}
				if got := exitCode(err); got != want {
					t.Errorf("%#v ends with %d, want %d", err, got, want)
				}
			}
		})
	}
}

// The list in the help texts has exactly the codes there are, in order.
func TestExitStatusIsComplete(t *testing.T) {
	codes := exits()
	codes[term.ExitPanic] = nil // made by the runtime
	last := -1
	for l := range strings.Lines(term.ExitStatus) {
		var code int
		if _, err := fmt.Sscanf(l, "%d ", &code); err != nil {
			t.Fatalf("line %q: %v", l, err)
		}
		if code <= last {
			t.Errorf("code %d stands behind %d", code, last)
		}
		last = code
		if _, ok := codes[code]; !ok {
			t.Errorf("code %d is listed, but nothing makes it", code)
		}
		delete(codes, code)
	}
	for code := range codes {
		t.Errorf("code %d is not in the help texts", code)
	}
}

// A chunk that is missing or has the wrong key is told by its gravest cause.
func TestExitCodeOfTwoCauses(t *testing.T) {
	for _, tc := range []struct {
		a, b error
		want int
	}{
		{chunkstore.ErrCorrupt, chunkstore.ErrNotExist, term.ExitIntegrity},
		{wire.ErrName, chunkstore.ErrCorrupt, term.ExitIntegrity},
		{datastore.ErrNoStore, fs.ErrNotExist, term.ExitNoRepository},
		{context.Canceled, chunkstore.ErrCorrupt, term.ExitInterrupted},
		{chunkstore.ErrNoSpace, fs.ErrPermission, term.ExitNoSpace},
		{wire.ErrNotEmpty, chunkstore.ErrInvalid, term.ExitRefused},
		{&net.OpError{Op: "dial", Err: errors.New("any")}, wire.ErrUnauthenticated, term.ExitKey},
		{&net.OpError{Op: "listen", Err: errors.New("any")}, errors.New("any"), term.ExitError},
	} {
		for _, err := range []error{fmt.Errorf("%w: %w", tc.a, tc.b), fmt.Errorf("%w: %w", tc.b, tc.a)} {
			if got := exitCode(err); got != tc.want {
				t.Errorf("exitCode(%v) = %d, want %d", err, got, tc.want)
			}
		}
	}
}

func TestHint(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want string
	}{
		{errors.New("anything"), ""},
		{&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, "see that a server listens there"},
		{&client.StatusError{Code: 404, Text: "datastore 'tank' does not exist"}, "holdfast datastore create"},
		{fmt.Errorf("%w (a != b)", datastore.ErrOwner), "change-owner"},
		{gc.ErrNothingFound, "--allow-empty"},
		{term.Hintf(crypto.ErrWrongKey, "own words"), "own words"},
		{datastore.ErrNoStore, "holdfast init"},
		{chunkstore.ErrLocked, "--lock-wait"},
		{crypto.ErrWrongKey, "--keyfile"},
		{crypto.ErrWrongPassphrase, "$HOLDFAST_ENCRYPTION_PASSWORD"},
		{crypto.ErrNoKey, "--keyfile"},
		{manifest.ErrUnsigned, "--crypt-mode none"},
		{chunkstore.ErrCorrupt, "holdfast verify"},
		{wire.ErrProtected, "unprotect"},
		{source.ErrChanged, "stands still"},
		{chunkstore.ErrNoSpace, "make room"},
	} {
		if got := hint(fmt.Errorf("x: %w", tc.err)); !strings.Contains(got, tc.want) || tc.want == "" && got != "" {
			t.Errorf("hint(%v) = %q, want %q", tc.err, got, tc.want)
		}
	}
}

func TestStateAt(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	err := fmt.Errorf("read: %w", context.Canceled)
	if got := term.StateAt(ctx, err, "state"); !errors.Is(got, err) {
		t.Errorf("before the signal: %v", got)
	}
	cancel()
	if got := term.StateAt(ctx, err, "state"); got.Error() != "interrupted: state" || exitCode(got) != term.ExitInterrupted {
		t.Errorf("after the signal: %v", got)
	}
	if got := term.StateAt(ctx, crypto.ErrWrongKey, "state"); !errors.Is(got, crypto.ErrWrongKey) {
		t.Errorf("an error of another kind: %v", got)
	}
	if got := term.StateAt(ctx, nil, "state"); got != nil {
		t.Errorf("no error: %v", got)
	}
	for _, tc := range []struct {
		err  error
		want string
	}{
		{err, "interrupted: read"},
		{term.Interrupted("told"), "interrupted: told"},
		{crypto.ErrWrongKey, "wrong key"},
	} {
		if got := term.StateOfInterrupted(tc.err); got.Error() != tc.want {
			t.Errorf("stateOfInterrupted(%v) = %v, want %s", tc.err, got, tc.want)
		}
	}
}
