package term

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Text from outside (names, notes, comments, what servers say) can hold what
// makes a terminal do things: move the cursor over what stands there, change its
// title, answer in the user's name. Everything the program prints goes through
// here: results through harmless, messages through printable, JSON, which
// must lose nothing, through escaping.

// commands reports whether a terminal takes r for a command, or shows what
// follows in another order than it is in: control characters but line feed and
// tab, line separators, and what turns the direction of writing.
func commands(r rune) bool {
	switch {
	case r == '\n' || r == '\t':
		return false
	case r < ' ', r >= 0x7f && r < 0xa0:
		return true
	case r == 0x2028, r == 0x2029, r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069:
		return true
	}
	return false
}

// Printable keeps commands to the terminal out of a text of one or more lines.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if commands(r) {
			return '?'
		}
		return r
	}, s)
}

// oneLine is printable for a text that is to be a part of a line.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		return r
	}, Printable(s))
}

// harmless is a writer that makes printable what is written to it. The last
// bytes may wait for the rest of their character until flush.
type harmless struct {
	w    io.Writer
	rest []byte
}

func (h *harmless) Write(p []byte) (int, error) {
	b := append(h.rest, p...)
	end := len(b)
	for i := max(0, end-utf8.UTFMax+1); i < end; i++ {
		if utf8.RuneStart(b[i]) && !utf8.FullRune(b[i:]) {
			end = i
			break
		}
	}
	_, err := io.WriteString(h.w, Printable(string(b[:end])))
	h.rest = append([]byte(nil), b[end:]...)
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// flush writes what has waited. An error is for w to remember.
func (h *harmless) flush() {
	if len(h.rest) > 0 {
		io.WriteString(h.w, Printable(string(h.rest)))
		h.rest = nil
	}
}

// Escape returns a writer for whole lines of JSON: what is a command to a terminal
// becomes an escape, which means the same to a program.
func Escape(w io.Writer) io.Writer { return escaping{w} }

type escaping struct{ w io.Writer }

func (e escaping) Write(p []byte) (int, error) {
	if _, err := e.w.Write(EscapeJSON(p)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// EscapeJSON writes the commands in a JSON text, which can only stand in its
// strings, as escapes.
func EscapeJSON(text []byte) []byte {
	if bytes.IndexFunc(text, commands) < 0 {
		return text
	}
	var b bytes.Buffer
	for _, r := range string(text) {
		if commands(r) {
			fmt.Fprintf(&b, "\\u%04x", r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.Bytes()
}
