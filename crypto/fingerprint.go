package crypto

import (
	"encoding/hex"
	"fmt"
	"strings"
)

// fingerprintInput is hashed before the id key (section 2.3 of the formats
// specification).
const fingerprintInput = "Proxmox Backup Encryption Key Fingerprint"

// Fingerprint tells keys apart without giving anything of them away.
type Fingerprint [32]byte

// String returns the full form: 32 lower-case hex pairs joined by colons.
func (f Fingerprint) String() string { return colons(f[:]) }

// Short returns the first eight pairs, for messages.
func (f Fingerprint) Short() string { return colons(f[:8]) }

func colons(b []byte) string {
	digits := hex.EncodeToString(b)
	var s strings.Builder
	s.Grow(3 * len(b))
	for i := 0; i < len(digits); i += 2 {
		if i > 0 {
			s.WriteByte(':')
		}
		s.WriteString(digits[i : i+2])
	}
	return s.String()
}

// ParseFingerprint reads the full form. Colons may stand anywhere or be left
// out.
func ParseFingerprint(s string) (Fingerprint, error) {
	const most = 256
	var f Fingerprint
	if len(s) > most {
		return f, fmt.Errorf("key fingerprint %q: longer than %d characters: %w", clip(s), most, ErrFormat)
	}
	digits := strings.ReplaceAll(s, ":", "")
	if len(digits) != 2*len(f) {
		return f, fmt.Errorf("key fingerprint %q: want 64 hex digits, got %d: %w", clip(s), len(digits), ErrFormat)
	}
	if _, err := hex.Decode(f[:], []byte(digits)); err != nil {
		return Fingerprint{}, fmt.Errorf("key fingerprint %q: want hex digits and colons only: %w", clip(s), ErrFormat)
	}
	return f, nil
}
