package datastore_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"holdfast/chunkstore"
	"holdfast/datastore"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/wiretest"
)

func create(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "store")
	if err := datastore.Create(path, datastore.CreateOptions{TrashDays: datastore.TrashDaysDefault}); err != nil {
		t.Fatal(err)
	}
	return path
}

func open(t *testing.T, path string, o datastore.Options) *datastore.Store {
	t.Helper()
	s, err := datastore.Open(t.Context(), path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() }) // closing twice is harmless
	return s
}

func TestPorts(t *testing.T) {
	wiretest.Run(t, func(t *testing.T) wiretest.Ports {
		s := open(t, create(t), datastore.Options{})
		return wiretest.Ports{Source: s, Target: s, Manager: s}
	})
}

func TestCreateRefusesWhatIsThere(t *testing.T) {
	path := create(t)
	if err := datastore.Create(path, datastore.CreateOptions{TrashDays: datastore.TrashDaysDefault}); !errors.Is(err, wire.ErrExists) {
		t.Errorf("a second time: %v", err)
	}
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "precious"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := datastore.Create(full, datastore.CreateOptions{TrashDays: datastore.TrashDaysDefault}); !errors.Is(err, wire.ErrExists) {
		t.Errorf("in a directory that is not empty: %v", err)
	}
	if err := datastore.Create(t.TempDir(), datastore.CreateOptions{TrashDays: datastore.TrashDaysDefault}); err != nil {
		t.Errorf("in an empty directory: %v", err)
	}
}

// A Create that is killed leaves a directory without holdfast.json: the same
// command must simply work again, unless there is a chunk that could be lost.
func TestCreateGoesOnAfterAKill(t *testing.T) {
	path := create(t)
	config := filepath.Join(path, "holdfast.json")
	if err := os.Remove(config); err != nil {
		t.Fatal(err)
	}
	if err := datastore.Create(path, datastore.CreateOptions{TrashDays: datastore.TrashDaysDefault}); err != nil {
		t.Fatalf("again: %v", err)
	}
	s := open(t, path, datastore.Options{})
	wiretest.Store(t, s, wiretest.Content{Snapshot: wire.Snapshot{Group: wire.Group{Type: "vm", ID: "1"}, Time: 1}, Chunks: []string{"precious"}})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(path, "vm")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(config); err != nil {
		t.Fatal(err)
	}
	if err := datastore.Create(path, datastore.CreateOptions{TrashDays: datastore.TrashDaysDefault}); !errors.Is(err, wire.ErrExists) {
		t.Errorf("over packs: %v", err)
	}
}

func TestOpenRefusesWhatIsNoStore(t *testing.T) {
	for name, config := range map[string]string{"none": "", "newer": `{"holdfast-store":99,"check":99}`, "garbage": "{", "other": "{}"} {
		path := create(t)
		file := filepath.Join(path, "holdfast.json")
		if config == "" {
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
		} else if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := datastore.Open(t.Context(), path, datastore.Options{}); err == nil {
			s.Close()
			t.Errorf("%s: opened", name)
		}
	}
	if _, err := datastore.Open(t.Context(), filepath.Join(t.TempDir(), "no"), datastore.Options{}); !errors.Is(err, datastore.ErrNoStore) {
		t.Errorf("no directory: %v", err)
	}
}

func TestSecondWriterIsRefused(t *testing.T) {
	path := create(t)
	s := open(t, path, datastore.Options{})
	if _, err := datastore.Open(t.Context(), path, datastore.Options{}); !errors.Is(err, chunkstore.ErrLocked) {
		t.Errorf("second writer: %v", err)
	}
	reader := open(t, path, datastore.Options{ReadOnly: true})
	if _, err := reader.Groups(t.Context(), ""); err != nil {
		t.Errorf("listing beside a writer: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, path, datastore.Options{})
}

func TestReadOnlyStoreRefusesChanges(t *testing.T) {
	s := open(t, create(t), datastore.Options{ReadOnly: true})
	snap := wire.Snapshot{Group: wire.Group{Type: "vm", ID: "1"}, Time: 1}
	if _, err := s.Begin(t.Context(), snap); !errors.Is(err, chunkstore.ErrReadOnly) {
		t.Errorf("begin: %v", err)
	}
	for name, err := range map[string]error{
		"forget": s.Forget(t.Context(), snap), "notes": s.SetNotes(t.Context(), snap, ""), "protect": s.SetProtected(t.Context(), snap, true),
	} {
		if !errors.Is(err, chunkstore.ErrReadOnly) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWhatAKilledSessionLeftIsRemoved(t *testing.T) {
	path := create(t)
	s := open(t, path, datastore.Options{})
	if _, err := s.Begin(t.Context(), wire.Snapshot{Group: wire.Group{Type: "vm", ID: "1"}, Time: 1}); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(filepath.Join(path, ".tmp"))
	if err != nil || len(left) != 1 {
		t.Fatalf("while writing: %v %v", left, err)
	}
	// A copy of the directory is what a kill would have left.
	killed := filepath.Join(t.TempDir(), "killed")
	if err := os.CopyFS(killed, os.DirFS(path)); err != nil {
		t.Fatal(err)
	}
	open(t, killed, datastore.Options{})
	if left, err := os.ReadDir(filepath.Join(killed, ".tmp")); err != nil || len(left) != 0 {
		t.Errorf("after opening: %v %v", left, err)
	}
}

func TestDamagedManifestIsListedAsDamaged(t *testing.T) {
	path := create(t)
	s := open(t, path, datastore.Options{})
	snap := wire.Snapshot{Group: wire.Group{Type: "vm", ID: "1"}, Time: 1}
	dir := filepath.Join(path, "vm", "1", snap.TimeString())
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, wire.ManifestName), bytes.Repeat([]byte{1}, 100), 0o600); err != nil {
		t.Fatal(err)
	}
	list, err := s.Snapshots(t.Context(), snap.Group)
	if err != nil || len(list) != 1 || list[0].Damage == "" {
		t.Errorf("listed: %+v %v", list, err)
	}
}

func TestStatus(t *testing.T) {
	s := open(t, create(t), datastore.Options{})
	st, err := s.Status(context.Background())
	if err != nil || st.DiskTotal == 0 || st.Snapshots != 0 || st.Chunks != 0 {
		t.Errorf("status: %+v %v", st, err)
	}
}
