package api

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"holdfast/datastore/wire"
)

// CheckStoreName wants the name of a datastore.
func CheckStoreName(s string) error {
	if len(s) < 3 || len(s) > 32 {
		return errors.New("want 3 to 32 characters")
	}
	return wire.CheckSafeID("datastore", s)
}

// CheckNamespace wants a namespace; the root is "".
func CheckNamespace(s string) error {
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

// CheckFile wants the name of a file of a snapshot.
func CheckFile(s string) error {
	_, err := wire.CheckFileName(s)
	return err
}

// CheckAuthID wants a user or a token.
func CheckAuthID(s string) error {
	_, err := wire.ParseAuthID(s)
	return err
}

// CheckUserID refuses tokens.
func CheckUserID(s string) error {
	id, err := wire.ParseAuthID(s)
	if err != nil {
		return err
	}
	if _, ok := id.Token(); ok {
		return errors.New("a token is no user")
	}
	return nil
}

// CheckDigest wants a SHA-256 in hex.
func CheckDigest(s string) error {
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

// CheckComment wants one line without control characters.
func CheckComment(s string) error {
	if len(s) > commentMax {
		return fmt.Errorf("longer than %d bytes", commentMax)
	}
	if !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) {
		return errors.New("want one line without control characters")
	}
	return nil
}

// CheckNotes wants text of bounded length.
func CheckNotes(s string) error {
	if len(s) > notesMax {
		return fmt.Errorf("longer than %d bytes", notesMax)
	}
	if !utf8.ValidString(s) {
		return errors.New("want UTF-8 text")
	}
	return nil
}

// CheckSecret bounds what is hashed. An empty one is merely wrong.
func CheckSecret(s string) error {
	if len(s) > passwordMax {
		return fmt.Errorf("want at most %d characters", passwordMax)
	}
	return nil
}

// CheckPassword is for one that is being set.
func CheckPassword(s string) error {
	if n := utf8.RuneCountInString(s); n < 5 || n > 64 {
		return errors.New("want 5 to 64 characters")
	}
	return nil
}

// Within returns a check for integers.
func Within(low, high int64) func(string) error {
	return func(s string) error {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || n < low || n > high {
			return fmt.Errorf("want %d to %d", low, high)
		}
		return nil
	}
}

// OneOf returns a check for texts.
func OneOf(list ...string) func(string) error {
	return func(s string) error {
		for _, l := range list {
			if s == l {
				return nil
			}
		}
		return fmt.Errorf("want one of: %s", strings.Join(list, ", "))
	}
}
