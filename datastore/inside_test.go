package datastore

import (
	"os"
	"path/filepath"
	"testing"
)

func TestInside(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(dir, "store")
	for _, d := range []string{filepath.Join(root, chunksDir, "packs"), filepath.Join(root, "vm", "1"), filepath.Join(dir, "beside")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(root, "vm"), filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"store/disk.raw": root, "store/vm/1/disk.raw": root, "store/.chunks/packs/x": root, "link/x": root, "link/1/x": root,
		"store": "", "beside/x": "", "x": "", "beside/../store/x": root,
	} {
		if got, ok := Inside(filepath.Join(dir, path)); got != want || ok != (want != "") {
			t.Errorf("%s: %q, %v, want %q", path, got, ok, want)
		}
	}
	t.Chdir(root)
	if got, _ := Inside("x"); got != root {
		t.Errorf("relative: %q", got)
	}
}
