package wire

import (
	"fmt"
	"strconv"
	"strings"
)

// UPID names a task (section 5.1 of the protocol specification).
type UPID struct {
	Node   string // host name
	PID    uint32
	PStart uint64 // when the process began, in clock ticks
	TaskID uint64 // counter of the process
	Start  int64  // Unix seconds, below 2^32
	Type   string // "backup", "verify" …
	ID     string // what the task is about; may be empty
	Auth   AuthID
}

// upidMax caps the text form, in bytes.
const upidMax = 1024

// String returns the text form.
func (u UPID) String() string {
	return fmt.Sprintf("UPID:%s:%08X:%08X:%08X:%08X:%s:%s:%s:",
		u.Node, u.PID, u.PStart, u.TaskID, uint32(u.Start), u.Type, escapeWorker(u.ID), u.Auth)
}

// ParseUPID reads the text form. Errors wrap ErrName.
func ParseUPID(s string) (UPID, error) {
	if len(s) > upidMax {
		return UPID{}, nameError("task", s, fmt.Sprintf("longer than %d bytes", upidMax))
	}
	rest, ok := strings.CutPrefix(s, "UPID:")
	rest, end := strings.CutSuffix(rest, ":")
	parts := strings.Split(rest, ":")
	if !ok || !end || len(parts) != 8 {
		return UPID{}, nameError("task", s, "want UPID:NODE:PID:PSTART:TASK:START:TYPE:ID:USER:")
	}
	u := UPID{Node: parts[0], Type: parts[5]}
	if !isLabel(u.Node) {
		return UPID{}, nameError("task", s, "bad node name")
	}
	if CheckSafeID("worker type", u.Type) != nil {
		return UPID{}, nameError("task", s, "bad worker type")
	}
	if err := u.parseNumbers(parts[1:5]); err != nil {
		return UPID{}, nameError("task", s, err.Error())
	}
	var err error
	if u.ID, err = unescapeWorker(parts[6]); err != nil {
		return UPID{}, nameError("task", s, err.Error())
	}
	if u.Auth, err = ParseAuthID(parts[7]); err != nil {
		return UPID{}, err
	}
	return u, nil
}

func (u *UPID) parseNumbers(parts []string) error {
	var n [4]uint64
	for i, most := range [4]int{8, 9, 16, 8} {
		if len(parts[i]) < 8 || len(parts[i]) > most || strings.Trim(parts[i], "0123456789ABCDEF") != "" {
			return fmt.Errorf("number %q: want 8 to %d upper-case hex digits", parts[i], most)
		}
		var err error
		if n[i], err = strconv.ParseUint(parts[i], 16, 64); err != nil {
			return err
		}
	}
	u.PID, u.PStart, u.TaskID, u.Start = uint32(n[0]), n[1], n[2], int64(n[3])
	return nil
}

// isLabel reports whether s could be a host name.
func isLabel(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		if !isAlnum(c) && c != '-' || c == '_' {
			return false
		}
	}
	return true
}

// escapeWorker writes a worker id: "/" becomes "-", and what is not a letter,
// digit, "_" or "." becomes \xNN, as does a leading ".".
func escapeWorker(id string) string {
	var b strings.Builder
	for i, c := range []byte(id) {
		switch {
		case c == '/':
			b.WriteByte('-')
		case isAlnum(c) || c == '_' || c == '.' && i > 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, `\x%02x`, c)
		}
	}
	return b.String()
}

// unescapeWorker is the reverse; a "-" stands for "/".
func unescapeWorker(s string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '-':
			b.WriteByte('/')
		case isAlnum(c) || c == '_' || c == '.' && i > 0:
			b.WriteByte(c)
		case c == '\\' && len(s)-i >= 4 && s[i+1] == 'x':
			n, err := strconv.ParseUint(s[i+2:i+4], 16, 8)
			if err != nil || strings.ToLower(s[i+2:i+4]) != s[i+2:i+4] {
				return "", fmt.Errorf("worker id: bad escape at byte %d", i)
			}
			b.WriteByte(byte(n))
			i += 3
		default:
			return "", fmt.Errorf("worker id: byte %d is not escaped", i)
		}
	}
	return b.String(), nil
}
