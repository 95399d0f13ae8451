// Package crypto holds everything that touches a secret: backup keys and the
// files they are kept in, chunk names, the seal of a blob, the signature of a
// manifest, fingerprints, the paper key and the RSA master key.
//
// The promises:
//
//   - a Key never shows its bytes, whichever way it is printed, logged or
//     encoded; no error carries a secret,
//   - tags and signatures are compared in constant time,
//   - a decoder of foreign bytes checks every size and cost before it takes
//     memory or time, and its errors name the field and the byte offset,
//   - a key that comes out of a file, a sheet of paper or a master key is the
//     key whose fingerprint stands beside it, or there is an error.
//
// The byte layouts are those of sections 2 and 5 of the formats specification.
//
// The package knows no chunk store and no network. It imports the standard
// library, golang.org/x/crypto and rsc.io/qr.
package crypto

import (
	"errors"
	"fmt"
)

// Errors of this package, matched with errors.Is.
var (
	// ErrWrongKey is returned when a key is sound but not the one that was
	// used.
	ErrWrongKey = errors.New("wrong key")
	// ErrWrongPassphrase is returned when a passphrase does not open what it
	// should.
	ErrWrongPassphrase = errors.New("wrong passphrase")
	// ErrTampered is returned when an authentication tag does not fit.
	ErrTampered = errors.New("authentication failed")
	// ErrNoKey is returned when a key is needed and there is none.
	ErrNoKey = errors.New("no key")
	// ErrFormat is returned for input that breaks its format.
	ErrFormat = errors.New("malformed")
)

// Mode says what a key does for an archive.
type Mode string

// The three modes, as manifests spell them (section 4.4 of the formats
// specification).
const (
	// ModeNone is neither encrypted nor signed.
	ModeNone Mode = "none"
	// ModeEncrypt is encrypted chunks, keyed names and a signed manifest.
	ModeEncrypt Mode = "encrypt"
	// ModeSignOnly is plain chunks, plain names and a signed manifest.
	ModeSignOnly Mode = "sign-only"
)

// ParseMode reads one of the three modes.
func ParseMode(s string) (Mode, error) {
	switch m := Mode(s); m {
	case ModeNone, ModeEncrypt, ModeSignOnly:
		return m, nil
	}
	return "", fmt.Errorf("crypt mode %q: want none, encrypt or sign-only: %w", clip(s), ErrFormat)
}

// clip keeps foreign text in an error message short.
func clip(s string) string {
	const most = 80
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
