package gc_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"holdfast/datastore"
	"holdfast/datastore/gc"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/wiretest"
)

// TestForeignFilesDoNotStopACollection puts what file managers and file systems
// leave into every directory of the tree. A collection goes on, and all of it
// stays.
func TestForeignFilesDoNotStopACollection(t *testing.T) {
	for _, name := range []string{
		"vm/Thumbs.db", "vm/100/.DS_Store", "ct", "host/100", "ns/desktop.ini", "ns/a/ns", "ns/a/vm/x.didx", "Thumbs.db", "lost+found/",
		"vm/@eaDir/", ".trash/Thumbs.db", ".tmp/Thumbs.db", ".chunks/.DS_Store", ".chunks/packs/Thumbs.db",
		"vm/pipe|", "vm/100/pipe|", "ct|", "ns/pipe|", ".trash/pipe|", ".tmp/pipe|", ".tmp/out@", ".resume|", ".chunks/packs/pipe|",
	} {
		t.Run(name, func(t *testing.T) {
			s, path := newStore(t, 7)
			backup(t, s, snapshot("", 10), "one", "two")
			backup(t, s, snapshot("a", 10), "one", "three")
			s = reopened(t, s, path)
			foreign(t, path, name)
			if err := s.ForgetNow(t.Context(), snapshot("", 10)); err != nil {
				t.Fatal(err)
			}
			if r, err := gc.Collect(t.Context(), s, gc.Options{}); err != nil || r.ChunksRemoved != 1 || r.References != 2 {
				t.Errorf("%+v, %v", r, err)
			}
			restorable(t, s, snapshot("a", 10))
			if groups, err := s.Groups(t.Context(), ""); err != nil || len(groups) != 0 {
				t.Errorf("%v, %v", groups, err)
			}
			s = reopened(t, s, path)
			s.Close()
			if _, err := os.Lstat(filepath.Join(path, strings.TrimRight(name, "|@"))); err != nil {
				t.Errorf("the foreign file is gone: %v", err)
			}
		})
	}
}

// TestLinkOutOfTheRepository stops a collection: what it leads to may be a group of
// snapshots, which somebody has moved.
func TestLinkOutOfTheRepository(t *testing.T) {
	s, path := newStore(t, 0)
	backup(t, s, snapshot("", 10), "one")
	s = reopened(t, s, path)
	defer func() { s.Close() }()
	foreign(t, path, "vm/200@")
	if _, err := gc.Collect(t.Context(), s, gc.Options{}); err == nil || !strings.Contains(err.Error(), "vm/200 is a symbolic link that leads out") {
		t.Errorf("%v", err)
	}
}

// foreign makes a file; a directory if the name ends with a slash, a named pipe with "|",
// and with "@" a link that leads out of the store.
func foreign(t *testing.T, path, name string) {
	t.Helper()
	full := filepath.Join(path, name)
	err := os.MkdirAll(filepath.Dir(full), 0o700)
	switch bare := strings.TrimRight(full, "|@"); {
	case err != nil:
	case strings.HasSuffix(name, "/"):
		err = os.MkdirAll(full, 0o700)
	case strings.HasSuffix(name, "|"):
		err = unix.Mkfifo(bare, 0o600)
	case strings.HasSuffix(name, "@"):
		err = os.Symlink("/", bare)
	default:
		err = os.WriteFile(full, []byte("not of the store"), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestSnapshotWithADamagedNameKeepsItsChunks renames a part of the tree as a
// damaged directory or a file system without capital letters would.
func TestSnapshotWithADamagedNameKeepsItsChunks(t *testing.T) {
	for _, c := range [][2]string{
		{"vm/100/1970-01-01T00:00:10Z", "vm/100/1970-01-01t00:00:10z"},
		{"vm/100/1970-01-01T00:00:10Z", "lost+found/#1234"},
		{"vm/100", "vm/1\x8000"},
		{"vm", "vm.old"},
		{"vm", "Vm"},
		{"ns/b", "ns/b~1 (copy)"},
		{"ns", "NS"},
	} {
		t.Run(c[0]+" to "+strings.ToValidUTF8(c[1], "?"), func(t *testing.T) {
			s, path := newStore(t, 0)
			backup(t, s, snapshot("", 10), "one", "two")
			backup(t, s, snapshot("b", 10), "three")
			backup(t, s, wire.Snapshot{Group: wire.Group{Type: "ct", ID: "1"}, Time: 10}, "four")
			s = reopened(t, s, path)
			s.Close()
			to := filepath.Join(path, c[1])
			if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(filepath.Join(path, c[0]), to); err != nil {
				t.Fatal(err)
			}
			var told []string
			s, err := datastore.Open(t.Context(), path, datastore.Options{Notify: func(m string) { told = append(told, m) }})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { s.Close() }()
			if r, err := gc.Collect(t.Context(), s, gc.Options{}); err != nil || r.ChunksRemoved != 0 {
				t.Errorf("%+v, %v", r, err)
			}
			if len(told) == 0 || !strings.Contains(told[0], path) {
				t.Errorf("told %q", told)
			}
			if err := os.Rename(to, filepath.Join(path, c[0])); err != nil {
				t.Fatal(err)
			}
			restorable(t, s, snapshot("", 10))
			restorable(t, s, snapshot("b", 10))
		})
	}
}

// TestBackupWhereAForeignFileIs refuses before anything is sent.
func TestBackupWhereAForeignFileIs(t *testing.T) {
	s, path := newStore(t, 0)
	defer s.Close()
	foreign(t, path, "vm")
	_, err := s.Begin(t.Context(), snapshot("", 10))
	if err == nil || !strings.Contains(err.Error(), "file vm") {
		t.Errorf("begin: %v", err)
	}
	if err := os.Remove(filepath.Join(path, "vm")); err != nil {
		t.Fatal(err)
	}
	wiretest.Store(t, s, wiretest.Content{Snapshot: snapshot("", 10), Chunks: []string{"one"}})
}

// TestCreateAmongLitter makes a store on a fresh file system.
func TestCreateAmongLitter(t *testing.T) {
	for name, ok := range map[string]bool{
		"lost+found/": true, ".DS_Store": true, "Thumbs.db": true, "System Volume Information/": true, ".Trash-1000/": true, "work.txt": false,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			foreign(t, dir, name)
			if err := datastore.Create(dir, datastore.CreateOptions{TrashDays: datastore.TrashDaysDefault}); (err == nil) != ok {
				t.Errorf("%v", err)
			}
			if _, err := os.Lstat(filepath.Join(dir, name)); err != nil {
				t.Errorf("the foreign file is gone: %v", err)
			}
		})
	}
}
