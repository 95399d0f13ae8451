package main

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"syscall"

	"holdfast/chunkstore"
	"holdfast/client"
	"holdfast/client/restore"
	"holdfast/client/source"
	"holdfast/command/repo"
	"holdfast/command/secret"
	"holdfast/command/term"
	"holdfast/crypto"
	"holdfast/datastore"
	"holdfast/datastore/gc"
	"holdfast/datastore/image"
	"holdfast/datastore/manifest"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
)

// alike are the errors that only commands meet, each with those of the table of failures
// that it counts as: it has the same exit code, and is as telling.
func alike() map[error][]error {
	return map[error][]error{
		wire.ErrUnauthenticated: {crypto.ErrWrongKey, crypto.ErrWrongPassphrase, crypto.ErrNoKey, secret.ErrPassphrase},
		wire.ErrPermission:      {client.ErrCertificate},
		chunkstore.ErrNoSpace:   {syscall.ENOSPC, syscall.EDQUOT},
		chunkstore.ErrCorrupt: {crypto.ErrTampered, manifest.ErrUnsigned, manifest.ErrFormat, crypto.ErrFormat, source.ErrDamaged,
			repo.ErrDamage},
		wire.ErrFull: {client.ErrUnavailable},
		wire.ErrExists: {restore.ErrTarget, source.ErrBacking, source.ErrForeign, source.ErrInUse, source.ErrEmpty, source.ErrSizeless,
			source.ErrUnsupported, fs.ErrExist, fs.ErrPermission, syscall.EROFS},
		chunkstore.ErrNotExist: {manifest.ErrNotFound, fs.ErrNotExist},
	}
}

// exitCode is the only place where an error becomes a number: that of the first row of the
// table of failures that it is. What is more telling stands further up there: a missing
// chunk that proves damage is damage.
func exitCode(err error) int {
	var usage term.UsageError
	switch {
	case err == nil:
		return term.ExitOK
	case endCode(err) != 0:
		return endCode(err)
	case errors.As(err, &usage):
		return term.ExitUsage
	case errors.Is(err, context.Canceled):
		return term.ExitInterrupted
	case errors.Is(err, wire.ErrLocal) && !repo.NoSpace(err):
		return term.ExitError // and not that what was asked for is not there
	}
	same := alike()
	for _, row := range api.Failures() {
		// A repository on this machine becomes read-only when a write has gone wrong.
		if row.Is == chunkstore.ErrReadOnly && !repo.FrozenThere(err) {
			continue
		}
		if errors.Is(err, row.Is) || term.IsAny(err, same[row.Is]...) {
			return row.Exit
		}
	}
	switch {
	case repo.Unreachable(err):
		return term.ExitUnreachable
	case errors.Is(err, syscall.EPIPE):
		return term.ExitPipe
	}
	return term.ExitError
}

// endCode is the exit code of an error that is about how the command ended and
// not about what it did, 0 if it is none.
func endCode(err error) int {
	var output term.OutputError
	var ended term.SignalledError
	switch {
	case errors.Is(err, wire.ErrUnknown):
		return term.ExitUnknown
	case errors.As(err, &ended):
		return term.ExitSignal + int(ended.Signal)
	case !errors.As(err, &output):
		return 0
	case output.Unread():
		return term.ExitPipe
	}
	return term.ExitOutput
}

// hint is the next step for an error, "" if none is known.
func hint(err error) string {
	var moved *image.MovedError
	var origin *image.OriginError
	var output term.OutputError
	step := term.NextStep(err)
	switch {
	case step != "":
		return step
	case errors.As(err, &output):
		return "see what standard output is connected to; it is not the repository that failed"
	case errors.Is(err, wire.ErrUnknown):
		return "holdfast snapshot list GROUP shows the snapshot once it is made; what has been sent is not sent again either way"
	case errors.Is(err, wire.ErrLocal):
		return "it is kept in the directory for temporary files while it is read: make room there, or name another one with $TMPDIR"
	case errors.Is(err, wire.ErrStopped):
		return "whoever has stopped it knows why; what has been sent is kept for a while, and not sent again"
	case errors.Is(err, datastore.ErrNoStore):
		return "make one with: holdfast init PATH"
	case errors.Is(err, chunkstore.ErrLocked), errors.Is(err, wire.ErrBusy):
		return "another holdfast is at work there; --lock-wait 10m waits for it to end"
	case errors.Is(err, crypto.ErrWrongKey):
		return "name the key the snapshot was made with: --keyfile FILE (holdfast key show FILE prints a key's fingerprint)"
	case errors.Is(err, crypto.ErrWrongPassphrase):
		return "the passphrase is taken from the environment if set there: " + strings.Join(secret.EncryptionPassphrase().Names(), ", ")
	case errors.Is(err, crypto.ErrNoKey):
		return "the data is encrypted; name the key with --keyfile FILE"
	case errors.Is(err, manifest.ErrUnsigned):
		return "nothing proves where this snapshot comes from; if it was made without a key on purpose, add --crypt-mode none"
	case errors.As(err, &moved):
		return "if it was moved on purpose, restore it with --any-origin; otherwise somebody has put it in the place of another"
	case errors.As(err, &origin):
		return "nothing proves any more that the snapshot was made for this namespace; if you know that it was: --any-origin"
	case errors.Is(err, datastore.ErrOwnerFile):
		return "holdfast repair, or holdfast change-owner, says anew who the group belongs to; its snapshots can be restored"
	case errors.Is(err, datastore.ErrConfig):
		return "holdfast repair makes it anew; on a server, run it there with -r and the path of the datastore while the server is stopped"
	case errors.Is(err, crypto.ErrTampered), errors.Is(err, chunkstore.ErrCorrupt):
		return "holdfast verify SNAPSHOT lists everything that is damaged; an older snapshot may be whole"
	case errors.Is(err, datastore.ErrFileSystem):
		return "choose a directory on another file system; reading what is there already still works"
	case errors.Is(err, gc.ErrNothingFound):
		return "see that the snapshots are where they should be; if all were removed on purpose: --allow-empty"
	case errors.Is(err, wire.ErrProtected):
		return "lift the protection first with: holdfast snapshot unprotect SNAPSHOT"
	case errors.Is(err, source.ErrInUse) && !errors.Is(err, restore.ErrTarget):
		return "stop the machine, or back up a snapshot of the disk; --force-share reads it nevertheless, and what it stores may contradict itself"
	case errors.Is(err, source.ErrChanged):
		return "back up from something that stands still: a snapshot of the volume, or a stopped machine"
	case errors.Is(err, chunkstore.ErrNoSpace), errors.Is(err, syscall.ENOSPC):
		return "reading and restoring still work; make room and run the command again"
	}
	return repo.ServerHint(err)
}
