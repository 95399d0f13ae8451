package repo

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"

	"holdfast/chunkstore"
	"holdfast/client"
	"holdfast/command/secret"
	"holdfast/command/term"
	"holdfast/datastore/wire"
)

// ErrDamage is returned when a check has found damage.
var ErrDamage = errors.New("damage found")

// unavailable reports whether a conversation with a server failed for a reason
// that may pass: the connection broke, or the server has no time.
func unavailable(err error) bool {
	var refused *client.StatusError
	return errors.Is(err, client.ErrUnavailable) || errors.As(err, &refused) && refused.Temporary()
}

// Unreachable reports whether a connection could not be made at all.
func Unreachable(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && (op.Op == "dial" || op.Op == "read" || op.Op == "write")
}

// FrozenThere reports whether a server refused a change of what it can only
// read.
func FrozenThere(err error) bool {
	var refused *client.StatusError
	return errors.As(err, &refused) && errors.Is(refused, chunkstore.ErrReadOnly)
}

// BadParameter reports whether a server found a value bad.
func BadParameter(err error) bool {
	return term.IsAny(err, wire.ErrName, chunkstore.ErrInvalid, wire.ErrParameter)
}

// ServerHint is the next step for an error about a server, "" if none is known.
func ServerHint(err error) string {
	switch {
	case errors.Is(err, client.ErrSilent):
		return "the server or the way to it hangs; run the command again when that has passed, or wait longer with --timeout"
	case Unreachable(err):
		return "see that a server listens there and nothing is in between; a server is started with: holdfast serve"
	case errors.Is(err, wire.ErrNoDatastore):
		return "holdfast datastore list shows what there is; make it with: holdfast init, or on the server: holdfast datastore create NAME"
	case errors.Is(err, wire.ErrOwner):
		return "the group belongs to somebody else: choose another --backup-id, or have an administrator run: holdfast change-owner GROUP ID"
	case errors.Is(err, wire.ErrUnauthenticated):
		return "the password or secret is taken from the environment if set there: " + strings.Join(secret.Login(wire.RootUser).Names(), ", ")
	case errors.Is(err, client.ErrCertificate):
		return "holdfast cert show prints on the server what its fingerprint is; somebody else may answer in its place"
	case errors.Is(err, wire.ErrPermission):
		return "on the server, holdfast acl list shows who may do what"
	case errors.Is(err, wire.ErrShare):
		return "the same token is at work in too many places: give each machine its own, or raise requests_per_token of the server"
	case unavailable(err):
		return "run the command again; if it fails in the same way, the log of the server says more"
	case errors.Is(err, wire.ErrQuota):
		return "remove snapshots that are not needed, or have the quota raised"
	}
	return ""
}

// OnlyHoldfast tells somebody whose server does not know a parameter what that
// means and what to do.
func OnlyHoldfast(err error, hint string) error {
	if errors.Is(err, wire.ErrUnknownParameter) {
		return term.Hintf(err, "%s", hint)
	}
	return err
}

// NoTrashRoom is the next step where a disk is too full for the trash.
const NoTrashRoom = "there is no room to keep it in the trash; --now removes it for good"

// logRecord is a line of a task's log.
type logRecord struct {
	MessageType string `json:"message_type"` // "task_log"
	Line        string `json:"line"`
}

// ShowLine shows a line of a task's log as a result.
func ShowLine(ui *term.Output, line string) {
	ui.Result(logRecord{"task_log", line}, func(w io.Writer) { fmt.Fprintln(w, line) })
}

// NoSpace reports whether there was no room for something, on a disk or in a quota.
func NoSpace(err error) bool {
	return term.IsAny(err, chunkstore.ErrNoSpace, syscall.ENOSPC, syscall.EDQUOT, wire.ErrQuota)
}
