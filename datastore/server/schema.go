package server

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"holdfast/datastore/wire"
)

// Parameters that many methods have (section 8.1 of the protocol
// specification).
var (
	storeParam  = param{name: "store", check: checkStoreName}
	nsParam     = param{name: "ns", optional: true, check: checkNamespace}
	typeParam   = param{name: "backup-type", check: checkType}
	idParam     = param{name: "backup-id", check: checkBackupID}
	timeParam   = param{name: "backup-time", kind: integer, check: checkTime}
	fileParam   = param{name: "file-name", check: checkFile}
	digestParam = param{name: "digest", optional: true, check: checkDigest}
)

// opt returns the parameter as one that may be left out.
func opt(p param) param {
	p.optional = true
	return p
}

// groupParams are the parameters of a method about a group, and more.
func groupParams(more ...param) []param {
	return append([]param{storeParam, nsParam, typeParam, idParam}, more...)
}

// snapshotParams are the parameters of a method about a snapshot, and more.
func snapshotParams(more ...param) []param {
	return append([]param{storeParam, nsParam, typeParam, idParam, timeParam}, more...)
}

func checkStoreName(s string) error {
	if len(s) < 3 || len(s) > 32 {
		return errors.New("want 3 to 32 characters")
	}
	return wire.CheckSafeID("datastore", s)
}

func checkNamespace(s string) error {
	_, err := wire.ParseNamespace(s)
	return err
}

func checkType(s string) error { return wire.Group{Type: s, ID: "x"}.Validate() }

func checkBackupID(s string) error { return wire.CheckSafeID("backup id", s) }

func checkTime(s string) error {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return errors.New("invalid integer")
	}
	return wire.Snapshot{Group: wire.Group{Type: "vm", ID: "x"}, Time: n}.Validate()
}

func checkFile(s string) error {
	_, err := wire.CheckFileName(s)
	return err
}

func checkAuthID(s string) error {
	_, err := wire.ParseAuthID(s)
	return err
}

// checkUserID refuses tokens.
func checkUserID(s string) error {
	id, err := wire.ParseAuthID(s)
	if err != nil {
		return err
	}
	if _, ok := id.Token(); ok {
		return errors.New("a token is no user")
	}
	return nil
}

func checkDigest(s string) error {
	if len(s) != 64 || strings.Trim(s, "0123456789abcdef") != "" {
		return errors.New("want 64 lower-case hex digits")
	}
	return nil
}

// Limits of texts, in bytes.
const (
	commentMax  = 256
	notesMax    = 64 << 10
	passwordMax = 1024
)

// checkComment wants one line without control characters.
func checkComment(s string) error {
	if len(s) > commentMax {
		return fmt.Errorf("longer than %d bytes", commentMax)
	}
	if !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) {
		return errors.New("want one line without control characters")
	}
	return nil
}

func checkNotes(s string) error {
	if len(s) > notesMax {
		return fmt.Errorf("longer than %d bytes", notesMax)
	}
	if !utf8.ValidString(s) {
		return errors.New("want UTF-8 text")
	}
	return nil
}

// checkSecret bounds what is hashed. An empty one is merely wrong.
func checkSecret(s string) error {
	if len(s) > passwordMax {
		return fmt.Errorf("want at most %d characters", passwordMax)
	}
	return nil
}

// checkPassword is for one that is being set.
func checkPassword(s string) error {
	if n := utf8.RuneCountInString(s); n < 5 || n > 64 {
		return errors.New("want 5 to 64 characters")
	}
	return nil
}

// within returns a check for integers.
func within(low, high int64) func(string) error {
	return func(s string) error {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || n < low || n > high {
			return fmt.Errorf("want %d to %d", low, high)
		}
		return nil
	}
}

// oneOf returns a check for texts.
func oneOf(list ...string) func(string) error {
	return func(s string) error {
		for _, l := range list {
			if s == l {
				return nil
			}
		}
		return fmt.Errorf("want one of: %s", strings.Join(list, ", "))
	}
}

// firstLine returns the part of a text that listings show.
func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return strings.TrimSuffix(s, "\r")
}
