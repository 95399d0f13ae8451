package faults

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// TestNamedPipes puts a named pipe that nobody writes to in the place of each file of
// a repository, in turn. No command waits for it: it is damage like any other, which
// hides no other group.
func TestNamedPipes(t *testing.T) {
	t.Parallel()
	r, image := smallRepo(t)
	r.backup(t, snap{"vm/2", 0}, "disk0.img:"+image).want(t, exitOK)
	for _, name := range r.files(t) {
		t.Run(strings.ReplaceAll(name, "/", "_"), func(t *testing.T) {
			c := r.clone(t)
			at := filepath.Join(c.path, name)
			if err := os.Remove(at); err != nil {
				t.Fatal(err)
			}
			if err := syscall.Mkfifo(at, 0o600); err != nil {
				t.Fatal(err)
			}
			c.piped(t, name, image)
		})
	}
}

// files lists the files of a repository but for those that only take up room, and
// those of the second group and of the second snapshot.
func (r repo) files(t *testing.T) (names []string) {
	t.Helper()
	err := fs.WalkDir(os.DirFS(r.path), ".", func(name string, e fs.DirEntry, err error) error {
		again := path.Dir(name) == snap{"vm/1", 1}.String()
		room := strings.Contains(name, "spare") || strings.Contains(name, "reserve")
		if err == nil && e.Type().IsRegular() && !room && !again && !strings.HasPrefix(name, "vm/2/") {
			names = append(names, name)
		}
		return err
	})
	if err != nil || len(names) < 10 {
		t.Fatalf("%v, %v", names, err)
	}
	return names
}

// piped runs commands on a repository that has a named pipe for a file.
func (r repo) piped(t *testing.T, name, image string) {
	t.Helper()
	whole := name != "holdfast.json" // without it nothing is a repository
	for _, args := range [][]string{{"list"}, {"verify"}, {"gc"}} {
		got := holdfast(t, append(args, "-r", r.path)...)
		if !slices.Contains([]int{exitOK, exitIntegrity}, got.Code) {
			t.Errorf("%s", got)
		}
		if got.Code == exitIntegrity && !strings.Contains(got.Out+got.Err, filepath.Base(name)) && args[0] != "verify" {
			t.Errorf("the file is not named: %s", got)
		}
		if whole && args[0] != "gc" && !strings.Contains(got.Out+got.Err, "vm/2") {
			t.Errorf("the other group is not there: %s", got)
		}
	}
	if got := r.backup(t, snap{"vm/1", 7}, "disk0.img:"+image); !slices.Contains([]int{exitOK, exitIntegrity}, got.Code) {
		t.Errorf("%s", got)
	}
}
