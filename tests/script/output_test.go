package script

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A standard output that takes nothing is not taken for a repository that is
// full, and what is done is said to be done.
func TestStandardOutputThatFails(t *testing.T) {
	h := newHouse(t)
	backup := []string{"backup", "--crypt-mode", "none", "--no-progress", "hosts.conf:/etc/hosts", "--backup-id"}
	for name, tc := range map[string]struct {
		args []string
		out  func(*testing.T) io.Writer
		code int
		says []string
	}{
		"full, backup":        {append(backup, "a"), full, 74, []string{"snapshot host/a/", "is made", "see what standard output"}},
		"full, JSON":          {append(backup, "b", "--json"), full, 74, []string{`"outcome":"made","snapshot":"host/b/`}},
		"closed pipe, backup": {append(backup, "c"), closedPipe, 74, []string{"snapshot host/c/", "is made"}},
		"full, list":          {[]string{"snapshot", "list"}, full, 74, []string{"could not be written"}},
		"closed pipe, list":   {[]string{"snapshot", "list"}, closedPipe, 141, nil},
	} {
		t.Run(name, func(t *testing.T) {
			if code, out := h.do(append(backup, "there", "--quiet")...); code != 0 {
				t.Fatalf("exit code %d, %s", code, out)
			}
			cmd := h.command(tc.args...)
			var messages strings.Builder
			cmd.Stdout, cmd.Stderr = tc.out(t), &messages
			if code := exitCode(cmd.Run()); code != tc.code {
				t.Errorf("exit code %d, want %d", code, tc.code)
			}
			for _, want := range tc.says {
				if !strings.Contains(messages.String(), want) {
					t.Errorf("it says %q, not %q", messages.String(), want)
				}
			}
			if strings.Contains(messages.String(), "make room") || tc.says == nil && messages.Len() > 0 {
				t.Errorf("it says %q", messages.String())
			}
		})
	}
	if left, err := filepath.Glob(filepath.Join(h.dir, "store/host/[abc]/*/index.json.blob")); err != nil || len(left) != 3 {
		t.Errorf("snapshots: %v, %v", left, err)
	}
}

// A token whose secret could not be shown is not made: the next try makes it.
func TestTokenThatCouldNotBeShown(t *testing.T) {
	h, _ := newServed(t)
	args := []string{"token", "create", "root@pam!nightly", "--data", filepath.Join(h.dir, "data")}
	cmd := h.command(args...)
	var messages strings.Builder
	cmd.Stdout, cmd.Stderr = full(t), &messages
	if code := exitCode(cmd.Run()); code != 74 || !strings.Contains(messages.String(), "was not made, since its secret could not be shown") {
		t.Errorf("exit code %d: %s", code, messages.String())
	}
	if code, out := h.do(args...); code != 0 || !strings.Contains(out, "its secret is shown this once") {
		t.Errorf("exit code %d, %s", code, out)
	}
}

func full(t *testing.T) io.Writer {
	f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func closedPipe(t *testing.T) io.Writer {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	t.Cleanup(func() { w.Close() })
	return w
}
