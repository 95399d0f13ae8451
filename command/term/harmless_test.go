package term

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

func TestPrintable(t *testing.T) {
	if got := Printable("a\x1b[31mb\x07c\u009bd\te\nf\r\x7fü"); got != "a?[31mb?c?d\te\nf??ü" {
		t.Errorf("printable = %q", got)
	}
}

// hostile is what a server, a note or a name could hold.
const hostile = "a\x1b]0;owned\x07b\x1b[2Jc\u009b31md\u202ee\x00\x7f\rholdfast: done\nholdfast: error: fake ü"

// harmlessText fails the test for a text that commands the terminal.
func harmlessText(t *testing.T, what, text string) {
	t.Helper()
	for _, r := range text {
		if commands(r) {
			t.Errorf("%s holds %U: %q", what, r, text)
		}
	}
}

// Whatever way a text takes to the terminal, it commands nothing there and does
// not look like a message of the program.
func TestNoTextCommandsTheTerminal(t *testing.T) {
	for name, say := range map[string]func(o *Output){
		"result":  func(o *Output) { o.Result(nil, func(w io.Writer) { fmt.Fprintf(w, "snapshot %s\n", hostile) }) },
		"done":    func(o *Output) { o.Done(nil, "made %s", hostile) },
		"table":   func(o *Output) { o.Result(nil, func(w io.Writer) { Table(w, [][]string{{hostile, "x"}}) }) },
		"note":    func(o *Output) { o.Notef("%s", hostile) },
		"warning": func(o *Output) { o.Warnf("%s", hostile) },
		"error":   func(o *Output) { o.Fail(errors.New(hostile), ExitError, hostile) },
		"bytes": func(o *Output) {
			o.Result(nil, func(w io.Writer) {
				for i := range len(hostile) {
					io.WriteString(w, hostile[i:i+1])
				}
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			var out, err bytes.Buffer
			say(New(&out, &err, time.Now, nil))
			harmlessText(t, "output", out.String()+err.String())
			for i, line := range strings.Split(strings.TrimSuffix(err.String(), "\n"), "\n") {
				if strings.HasPrefix(line, "holdfast: error: fake") {
					t.Errorf("line %d looks like a message: %q", i, line)
				}
			}
			if !strings.Contains(out.String()+err.String(), "ü") {
				t.Errorf("the harmless part is lost: %q", out.String()+err.String())
			}
		})
	}
}

func TestJSONCommandsNothingAndLosesNothing(t *testing.T) {
	var out, errs bytes.Buffer
	o := New(&out, &errs, time.Now, nil)
	o.JSON = true
	o.Result(messageRecord{"x", hostile}, nil)
	o.Fail(errors.New(hostile), ExitError, "")
	harmlessText(t, "JSON", out.String()+errs.String())
	for _, line := range []string{out.String(), errs.String()} {
		var r messageRecord
		if err := json.Unmarshal([]byte(line), &r); err != nil || r.Message != hostile {
			t.Errorf("%q, %v", r.Message, err)
		}
	}
}

func FuzzHarmless(f *testing.F) {
	f.Add([]byte(hostile), 3)
	f.Add([]byte("\xc2\x9b\xe2\x80\xae\xff"), 1)
	f.Fuzz(func(t *testing.T, text []byte, size int) {
		var b bytes.Buffer
		h := &harmless{w: &b}
		for rest := text; len(rest) > 0; {
			n := min(len(rest), max(1, size))
			h.Write(rest[:n])
			rest = rest[n:]
		}
		h.flush()
		harmlessText(t, "text", b.String())
		if got, want := b.String(), Printable(string(text)); got != want {
			t.Errorf("in pieces of %d: %q, want %q", size, got, want)
		}
	})
}
