package source

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

func command(t *testing.T, ctx context.Context, text string) (*Command, *bytes.Buffer) {
	t.Helper()
	var stderr bytes.Buffer
	c := NewCommand(ctx, CommandOptions{Text: text, Env: append(os.Environ(), "GREETING=hello"), Stderr: &stderr})
	t.Cleanup(func() { c.Close() })
	return c, &stderr
}

func TestCommandOutput(t *testing.T) {
	for text, want := range map[string]string{
		"true": "", "printf '%s' \"$GREETING\"": "hello", "printf a; sleep 0; printf b": "ab", "cat; printf end": "end",
		"head -c 3000000 /dev/zero": string(make([]byte, 3000000)),
	} {
		c, _ := command(t, t.Context(), text)
		if got, err := io.ReadAll(c); err != nil || string(got) != want {
			t.Errorf("%s: %d bytes, %v, want %d", text, len(got), err, len(want))
		}
		if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("%s: after the end: %d, %v", text, n, err)
		}
	}
}

// The output of a command that fails has no end, and its words are passed on.
func TestCommandFails(t *testing.T) {
	for text, say := range map[string]string{
		"exit 255":                          "exit status 255",
		"printf some; exit 3":               "exit status 3",
		"printf some; kill -9 $$":           "signal: killed",
		"printf some; no-such-program 2>&1": "exit status 127",
		"exec 1>&-; sleep 0.1; exit 4":      "exit status 4",
	} {
		c, _ := command(t, t.Context(), text)
		_, err := io.ReadAll(c)
		wantError(t, err, ErrCommand, say)
		_, err = c.Read(make([]byte, 1))
		wantError(t, err, ErrCommand, say)
	}
	c, stderr := command(t, t.Context(), "echo words >&2; exit 1")
	io.ReadAll(c)
	if stderr.String() != "words\n" {
		t.Errorf("standard error is %q", stderr)
	}
}

// The end of the context, and Close, end the command and what it has started.
func TestCommandIsEnded(t *testing.T) {
	for _, how := range []string{"context", "close"} {
		t.Run(how, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			pidFile := filepath.Join(t.TempDir(), "pid")
			c, _ := command(t, ctx, "sleep 1000 & echo $! >"+pidFile+"; echo started; wait")
			if _, err := c.Read(make([]byte, 100)); err != nil {
				t.Fatal(err)
			}
			if how == "context" {
				cancel()
				if _, err := io.ReadAll(c); !errors.Is(err, context.Canceled) {
					t.Errorf("error is %v", err)
				}
			}
			c.Close()
			b, err := os.ReadFile(pidFile)
			if err != nil {
				t.Fatal(err)
			}
			pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
			if err != nil {
				t.Fatal(err)
			}
			if !atTerminal() && isRunning(pid) {
				t.Errorf("process %d goes on", pid)
			}
		})
	}
}

// isRunning waits for a process to be gone that has got its signal.
func isRunning(pid int) bool {
	for range 30_000 {
		b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if err != nil || bytes.Contains(b, []byte(") Z ")) {
			return false
		}
		time.Sleep(time.Millisecond)
	}
	return true
}

// Nothing is run before it is read from.
func TestCommandWaits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "made")
	c, _ := command(t, t.Context(), "echo >"+path)
	c.Close()
	if _, err := os.Stat(path); err == nil {
		t.Error("the command has run")
	}
}
