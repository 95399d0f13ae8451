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
	"holdfast/crypto"
	"holdfast/datastore"
	"holdfast/datastore/gc"
	"holdfast/datastore/manifest"
	"holdfast/datastore/wire"
)

// exits pairs every code with the errors that lead to it.
func exits() map[int][]error {
	return map[int][]error{
		exitOK:    {nil},
		exitError: {errors.New("anything"), chunkstore.ErrReadOnly, chunkstore.ErrFenced, source.ErrChanged, source.ErrUnsupported},
		exitNoRepository: {datastore.ErrNoStore, &client.StatusError{Code: 404, Text: "datastore 'tank' does not exist"},
			&client.StatusError{Code: 400, Text: "no such datastore 'tank'"}},
		exitLocked: {chunkstore.ErrLocked, wire.ErrBusy, pack.ErrSweeping},
		exitKey:    {crypto.ErrWrongKey, crypto.ErrWrongPassphrase, crypto.ErrNoKey, errPassphrase},
		exitUsage: {usagef("wrong"), wire.ErrName, chunkstore.ErrInvalid, hintf(usagef("wrong"), "do it right"),
			&client.StatusError{Code: 400, Text: "parameter verification failed - 'role': unknown"}},
		exitIntegrity: {chunkstore.ErrCorrupt, crypto.ErrTampered, crypto.ErrFormat, manifest.ErrUnsigned, manifest.ErrFormat,
			source.ErrDamaged, errDamage, &wire.MissingError{Count: 1}},
		exitNotFound: {chunkstore.ErrNotExist, manifest.ErrNotFound, fs.ErrNotExist, syscall.ENOENT},
		exitNoSpace:  {chunkstore.ErrNoSpace, syscall.ENOSPC, syscall.EDQUOT},
		exitRefused: {wire.ErrProtected, wire.ErrExists, restore.ErrTarget, source.ErrBacking, fs.ErrExist, fs.ErrPermission, syscall.EROFS, syscall.EACCES,
			gc.ErrNothingFound, errNotEmpty, meaning(errors.New("exists already"), wire.ErrExists),
			wire.ErrStopped, &client.StatusError{Code: 400, Text: "the session was stopped by root@pam: task aborted"},
			&client.TaskError{Status: "abort requested - aborting task"}, &client.TaskError{Status: "task aborted"}},
		exitUnreachable: {&net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}, &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET},
			client.ErrUnavailable, &client.StatusError{Code: 503, Text: "server is shutting down"}, &client.StatusError{Code: 429}},
		exitInterrupted: {context.Canceled, interruptedError{"half way"}, signalledError{context.Canceled, syscall.SIGINT}},
		exitUnknown:     {wire.ErrUnknown, fmt.Errorf("%w: %w", wire.ErrUnknown, context.Canceled)},
		exitOutput:      {outputError{err: syscall.ENOSPC}, outputError{err: syscall.ENOSPC, done: true}, outputError{err: syscall.EPIPE, done: true}},
		exitPipe:        {outputError{err: syscall.EPIPE}, syscall.EPIPE},
		129:             {signalledError{interruptedError{"half way"}, syscall.SIGHUP}},
		131:             {signalledError{interruptedError{"half way"}, syscall.SIGQUIT}},
		143:             {signalledError{interruptedError{"half way"}, syscall.SIGTERM}},
		152:             {signalledError{interruptedError{"half way"}, syscall.SIGXCPU}},
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

// The list in the help texts has exactly the codes there are, in order.
func TestExitStatusIsComplete(t *testing.T) {
	codes := exits()
	codes[exitPanic] = nil // made by the runtime
	last := -1
	for l := range strings.Lines(exitStatus) {
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
		{chunkstore.ErrCorrupt, chunkstore.ErrNotExist, exitIntegrity},
		{wire.ErrName, chunkstore.ErrCorrupt, exitIntegrity},
		{datastore.ErrNoStore, fs.ErrNotExist, exitNoRepository},
		{context.Canceled, chunkstore.ErrCorrupt, exitInterrupted},
		{chunkstore.ErrNoSpace, fs.ErrPermission, exitNoSpace},
		{errNotEmpty, chunkstore.ErrInvalid, exitRefused},
		{&net.OpError{Op: "dial", Err: errors.New("any")}, wire.ErrUnauthenticated, exitKey},
		{&net.OpError{Op: "listen", Err: errors.New("any")}, errors.New("any"), exitError},
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
		{hintf(crypto.ErrWrongKey, "own words"), "own words"},
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
	if got := stateAt(ctx, err, "state"); !errors.Is(got, err) {
		t.Errorf("before the signal: %v", got)
	}
	cancel()
	if got := stateAt(ctx, err, "state"); got.Error() != "interrupted: state" || exitCode(got) != exitInterrupted {
		t.Errorf("after the signal: %v", got)
	}
	if got := stateAt(ctx, crypto.ErrWrongKey, "state"); !errors.Is(got, crypto.ErrWrongKey) {
		t.Errorf("an error of another kind: %v", got)
	}
	if got := stateAt(ctx, nil, "state"); got != nil {
		t.Errorf("no error: %v", got)
	}
	for _, tc := range []struct {
		err  error
		want string
	}{
		{err, "interrupted: read"},
		{interruptedError{"told"}, "interrupted: told"},
		{crypto.ErrWrongKey, "wrong key"},
	} {
		if got := stateOfInterrupted(tc.err); got.Error() != tc.want {
			t.Errorf("stateOfInterrupted(%v) = %v, want %s", tc.err, got, tc.want)
		}
	}
}
