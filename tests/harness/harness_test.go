package harness

import (
	"os"
	"strings"
	"syscall"
	"testing"
)

// shell is a command that a shell carries out.
func shell(text string) Command {
	return Command{Args: []string{"/bin/sh", "-c", text}, Env: os.Environ()}
}

// Ends are told apart: those with any code, by a signal, in a crash, and those of
// which nothing is known.
func TestHowACommandEnds(t *testing.T) {
	for _, c := range []struct {
		name, text string
		code       int
		how, err   string
	}{
		{"well", "echo out; echo err >&2", 0, "exit status 0", ""},
		{"with a code", "echo out; echo err >&2; exit 3", 3, "exit status 3", ""},
		{"by a signal", "echo out; echo err >&2; kill -TERM $$", ExitKilled, "signal: terminated", ""},
		{"in a crash", "echo out; echo err >&2; echo goroutine 7 >&2; exit 2", 2, "exit status 2", "it crashed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := Do(shell(c.text))
			if r.Code != c.code || r.How != c.how || r.Out != "out\n" || !strings.HasPrefix(r.Err, "err\n") {
				t.Errorf("%+v", r)
			}
			if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("%v, want %q", err, c.err)
			}
		})
	}
}

// What hangs is ended, what wraps it too, and is an error.
func TestCommandThatHangs(t *testing.T) {
	for name, wrap := range map[string][]string{"alone": nil, "wrapped": {"/bin/sh", "-c", `"$@"; exit 0`, "sh"}} {
		t.Run(name, func(t *testing.T) {
			p, err := Start(Command{Args: []string{"sleep", "100000"}, Wrap: wrap, Env: os.Environ(), Endless: true})
			if err != nil {
				t.Fatal(err)
			}
			p.EndWithin(0)
			if r, err := p.Wait(); err == nil || !strings.Contains(err.Error(), "it hung") || r.Code != ExitKilled {
				t.Errorf("%v, %s", err, r)
			}
			if err := p.Signal(syscall.SIGTERM); err == nil {
				t.Error("a signal has found somebody")
			}
		})
	}
}

const (
	ready     = `trap 'exit 0' TERM; `
	saysFirst = `echo '{"message_type":"first_start","auth_id":"root","secret":"open sesame"}'; `
	listens   = `echo '{"message_type":"listening","address":"127.0.0.1:1","fingerprint":"ab"}'; `
	waits     = `while :; do sleep 0.01; done`
)

// A server is known by what it says, and how it ends is looked at.
func TestServer(t *testing.T) {
	for _, c := range []struct{ name, text, start, stop string }{
		{"good", ready + saysFirst + listens + waits, "", ""},
		{"ends early", "echo no port >&2; exit 7", "exit status 7\nno port", ""},
		{"says no record", "echo hello; " + waits, `"hello\n"`, ""},
		{"crashes", ready + saysFirst + "echo 'panic: no' >&2; " + listens + waits, "", "panic: no"},
		{"ends badly", strings.Replace(ready, "exit 0", "exit 5", 1) + saysFirst + listens + waits, "", "exit status 5"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := Serve(shell(c.text))
			if !says(err, c.start) {
				t.Fatalf("start: %v, want %q", err, c.start)
			}
			if err != nil {
				return
			}
			if want := (Announced{"127.0.0.1:1", "ab", "root", "open sesame"}); s.Announced != want {
				t.Errorf("it is %v, want %v", s.Announced, want)
			}
			if err := s.Stop(); !says(err, c.stop) {
				t.Errorf("stop: %v, want %q", err, c.stop)
			}
			if err := s.Stop(); err != nil {
				t.Errorf("stop once more: %v", err)
			}
		})
	}
}

// says reports whether an error is there, with a text, or is not where there is no
// text.
func says(err error, text string) bool {
	if text == "" || err == nil {
		return text == "" && err == nil
	}
	return strings.Contains(err.Error(), text)
}
