package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
)

func TestWriteFileReplaces(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	for _, want := range []string{"first", "", "a longer second text"} {
		if err := WriteFile(path, []byte(want), 0o640); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != want {
			t.Fatalf("got %q, %v; want %q", got, err, want)
		}
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o640 {
		t.Fatalf("mode %v, %v; want 0640", st.Mode(), err)
	}
	onlyEntry(t, filepath.Dir(path), "f")
}

func TestWriteFileErrorsLeaveNothing(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "taken", "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, path string
		want       error
	}{
		{"no parent", filepath.Join(dir, "none", "f"), fs.ErrNotExist},
		{"name is a directory", filepath.Join(dir, "taken"), fs.ErrExist},
	} {
		err := WriteFile(tc.path, []byte("x"), 0o600)
		if err == nil {
			t.Errorf("%s: no error", tc.name)
		} else if !errors.Is(err, tc.want) && !errors.Is(err, syscall.EISDIR) {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
	onlyEntry(t, dir, "taken")
}

func TestTemp(t *testing.T) {
	dir := t.TempDir()
	tmp, err := create(filepath.Join(dir, "f"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if !IsTemp(filepath.Base(tmp.f.Name())) || IsTemp("f") {
		t.Error("IsTemp does not tell temporary names from others")
	}
	if _, err := tmp.Write([]byte("half")); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "f")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file is visible before commit: %v", err)
	}
	tmp.abort()
	tmp.abort()
	onlyEntry(t, dir, "")

	tmp, err = create(filepath.Join(dir, "f"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(tmp.commit(), tmp.commit()); err != nil {
		t.Fatal(err)
	}
	tmp.abort()
	onlyEntry(t, dir, "f")
}

func TestCommitAfterCloseAborts(t *testing.T) {
	dir := t.TempDir()
	tmp, err := create(filepath.Join(dir, "f"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	tmp.f.Close()
	if err := tmp.commit(); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("got %v, want the error of the sync", err)
	}
	onlyEntry(t, dir, "")
}

func TestRename(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(MkdirAll(filepath.Join(dir, "a", "b"), 0o700), MkdirAll(filepath.Join(dir, "c"), 0o700)); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(filepath.Join(dir, "a", "b", "f"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Rename(filepath.Join(dir, "a", "b"), filepath.Join(dir, "c", "d")); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "c", "d", "f")); err != nil || string(got) != "x" {
		t.Fatalf("got %q, %v", got, err)
	}
	if err := Rename(filepath.Join(dir, "nothing"), filepath.Join(dir, "c", "e")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestRemove(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	onlyEntry(t, filepath.Dir(path), "")
}

func TestMkdirAll(t *testing.T) {
	dir := t.TempDir()
	deep := filepath.Join(dir, "a", "b", "c")
	for range 2 {
		if err := MkdirAll(deep, 0o750); err != nil {
			t.Fatal(err)
		}
	}
	if st, err := os.Stat(deep); err != nil || !st.IsDir() {
		t.Fatalf("%v, %v", st, err)
	}
	if err := WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"file", "file/below"} {
		if err := MkdirAll(filepath.Join(dir, p), 0o700); !errors.Is(err, syscall.ENOTDIR) {
			t.Errorf("%s: got %v, want not a directory", p, err)
		}
	}
}

// Who finds a directory that another caller is just making does not use it before
// it is durable: it syncs the parent itself.
func TestMkdirAllAwaitsOthers(t *testing.T) {
	dir := t.TempDir()
	deep := filepath.Join(dir, "a", "b")
	var synced []string
	note := func(path string) error {
		synced = append(synced, path)
		return nil
	}
	if err := mkdirAll(deep, 0o700, note); err != nil {
		t.Fatal(err)
	}
	if want := []string{filepath.Dir(dir), dir, filepath.Join(dir, "a")}; !slices.Equal(synced, want) {
		t.Errorf("synced %q, want %q", synced, want)
	}
	synced = nil
	if err := mkdirAll(deep, 0o700, note); err != nil || !slices.Equal(synced, []string{filepath.Join(dir, "a")}) {
		t.Errorf("one that is there: synced %q, %v", synced, err)
	}
	lost := filepath.Join(dir, "lost")
	if err := mkdirAll(lost, 0o700, func(string) error { return syscall.EIO }); !errors.Is(err, syscall.EIO) {
		t.Errorf("one that the disk did not take: %v", err)
	}
	if _, err := os.Lstat(lost); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("one that the disk did not take is there, and the next fsync would lie: %v", err)
	}
	for _, refused := range []error{syscall.EROFS, syscall.EACCES} {
		if err := mkdirAll(deep, 0o700, func(string) error { return refused }); err != nil {
			t.Errorf("one that is there and cannot be synced: %v", err)
		}
	}
	if err := mkdirAll(deep, 0o700, func(string) error { return syscall.EIO }); !errors.Is(err, syscall.EIO) {
		t.Errorf("a disk that fails: %v", err)
	}
}

func TestSyncErrors(t *testing.T) {
	if err := SyncDir(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("directory: %v", err)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	if err := SyncFile(f); err != nil {
		t.Error(err)
	}
	f.Close()
	if err := SyncFile(f); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("closed file: %v", err)
	}
}

// onlyEntry fails unless dir holds exactly name, or nothing if name is "".
func onlyEntry(t *testing.T, dir, name string) {
	t.Helper()
	es, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got string
	for _, e := range es {
		got += e.Name()
	}
	if got != name {
		t.Errorf("the directory holds %q, want %q", got, name)
	}
}
