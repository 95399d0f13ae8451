package pack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"holdfast/chunkstore"
	"holdfast/chunkstore/durable"
	"holdfast/chunkstore/pack/catalogue"
)

func TestOpenErrors(t *testing.T) {
	dir := create(t)
	if err := Create(dir); !errors.Is(err, fs.ErrExist) {
		t.Errorf("create over a store: %v", err)
	}
	if _, err := Open(bg, t.TempDir(), Options{}); !errors.Is(err, chunkstore.ErrNotExist) {
		t.Errorf("open an empty directory: %v", err)
	}
	for _, o := range []Options{{PackSize: 1}, {PackSize: packSizeMax + 1}, {LockWait: -1}} {
		if _, err := Open(bg, dir, o); !errors.Is(err, chunkstore.ErrInvalid) {
			t.Errorf("%+v: %v", o, err)
		}
	}
	ctx, cancel := context.WithCancel(bg)
	s := openAt(t, dir, Options{})
	defer closeStore(t, s)
	cancel()
	if _, err := Open(ctx, dir, Options{LockWait: time.Hour}); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled while waiting for the lock: %v", err)
	}
}

// TestLockTable has one cell for each pair of ways to open a store.
func TestLockTable(t *testing.T) {
	for _, tc := range []struct {
		first, second bool // read-only
		refused       bool
	}{
		{false, false, true},
		{false, true, true},
		{true, false, true},
		{true, true, false},
	} {
		t.Run(fmt.Sprintf("reader=%v,reader=%v", tc.first, tc.second), func(t *testing.T) {
			dir := create(t)
			a := openAt(t, dir, Options{ReadOnly: tc.first})
			b, err := Open(bg, dir, Options{ReadOnly: tc.second, LockWait: 10 * time.Millisecond})
			if tc.refused != errors.Is(err, chunkstore.ErrLocked) {
				t.Errorf("got %v", err)
			}
			if tc.refused && !tc.first && !strings.Contains(err.Error(), fmt.Sprintf("pid %d", os.Getpid())) {
				t.Errorf("the error does not name the holder: %v", err)
			}
			if err == nil {
				closeStore(t, b)
			}
			closeStore(t, a)
			closeStore(t, openAt(t, dir, Options{ReadOnly: tc.second}))
		})
	}
}

func TestLockWait(t *testing.T) {
	dir := create(t)
	s := openAt(t, dir, Options{})
	got := make(chan error)
	go func() {
		second, err := Open(bg, dir, Options{LockWait: time.Hour})
		if err == nil {
			err = second.Close()
		}
		got <- err
	}()
	closeStore(t, s)
	if err := <-got; err != nil {
		t.Errorf("after the first had closed: %v", err)
	}
}

func TestReadOnlyRefusesWrites(t *testing.T) {
	dir := create(t)
	s := openAt(t, dir, Options{})
	fill(t, s, chunks(0, 3))
	closeStore(t, s)
	before := listing(t, dir)
	s = openAt(t, dir, Options{ReadOnly: true})
	if _, err := s.Begin(bg); !errors.Is(err, chunkstore.ErrReadOnly) {
		t.Errorf("begin: %v", err)
	}
	if _, err := s.Reindex(bg, nil); !errors.Is(err, chunkstore.ErrReadOnly) {
		t.Errorf("reindex: %v", err)
	}
	if err := s.Writable(); !errors.Is(err, chunkstore.ErrReadOnly) {
		t.Errorf("writable: %v", err)
	}
	holdsAll(t, s, chunks(0, 3))
	closeStore(t, s)
	if after := listing(t, dir); after != before {
		t.Errorf("reading has changed the store:\n%s\nbefore:\n%s", after, before)
	}
}

// listing names every file with its size and time of change.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		fmt.Fprintln(&b, path, info.Size(), info.ModTime(), info.Mode())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// putSome puts n chunks and stops at the first error.
func putSome(se chunkstore.Session, n int) error {
	for _, c := range chunks(50, n) {
		if _, err := se.Put(bg, c); err != nil {
			return err
		}
	}
	return nil
}

// fencedActs are what a writer may do that has lost its store.
var fencedActs = map[string]func(*Store, chunkstore.Session) error{
	"sync":         func(_ *Store, se chunkstore.Session) error { return se.Sync(bg) },
	"put and sync": func(_ *Store, se chunkstore.Session) error { return errors.Join(putSome(se, 5), se.Sync(bg)) },
	"many puts":    func(_ *Store, se chunkstore.Session) error { return putSome(se, 30) },
	"close":        func(s *Store, _ chunkstore.Session) error { return s.Close() },
	"reindex":      func(s *Store, _ chunkstore.Session) error { _, err := s.Reindex(bg, nil); return err },
}

// TestFencing takes the lock away under a writer, as a network file system may
// do, and lets another one in. Whatever the first does then, nothing of it is
// acknowledged and nothing that the second stores is harmed.
func TestFencing(t *testing.T) {
	for name, act := range fencedActs {
		t.Run(name, func(t *testing.T) {
			dir := create(t)
			commits := 0
			o := smallPacks
			o.hook = func(op, _ string, change func() error) error {
				if op == "commit" {
					commits++
				}
				return change()
			}
			first := openAt(t, dir, o)
			fill(t, first, chunks(0, 5))
			se, err := first.Begin(bg)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := se.Put(bg, chunks(5, 1)[0]); err != nil {
				t.Fatal(err)
			}
			// On such a file system locks of the catalogue are lost as well.
			remove(t, filepath.Join(dir, "lock"))
			if err := os.Rename(filepath.Join(dir, catalogue.FileName), filepath.Join(dir, "old")); err != nil {
				t.Fatal(err)
			}
			second := openAt(t, dir, smallPacks)
			fill(t, second, chunks(10, 15))
			commits = 0
			if err := act(first, se); !errors.Is(err, chunkstore.ErrFenced) {
				t.Errorf("the first writer got %v", err)
			}
			if commits > 0 {
				t.Error("the first writer has written to the catalogue")
			}
			afterFencing(t, dir, first, second)
		})
	}
}

// afterFencing lets both writers go on, and looks at what is there then.
func afterFencing(t *testing.T, dir string, first, second *Store) {
	t.Helper()
	if err := first.Close(); !errors.Is(err, chunkstore.ErrFenced) && !first.closed {
		t.Errorf("close of the first writer: %v", err)
	}
	if _, err := first.Begin(bg); err == nil {
		t.Error("the first writer may go on")
	}
	fill(t, second, chunks(30, 15))
	closeStore(t, second)
	third := openAt(t, dir, smallPacks)
	defer closeStore(t, third)
	holdsAll(t, third, chunks(0, 5))
	holdsAll(t, third, chunks(10, 15))
	holdsAll(t, third, chunks(30, 15))
	checkEverything(t, third)
}

// TestFencingDuringCommit lets another writer in while a transaction is being
// written: it must not be acknowledged.
func TestFencingDuringCommit(t *testing.T) {
	dir := create(t)
	armed := false
	o := Options{hook: func(op, _ string, change func() error) error {
		err := change()
		if op == "commit" && armed {
			e, eerr := nextEpoch(100)
			return errors.Join(err, eerr, e.write(durable.Door{}, dir))
		}
		return err
	}}
	s := openAt(t, dir, o)
	armed = true
	se, err := s.Begin(bg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := se.Put(bg, chunks(0, 1)[0]); err != nil {
		t.Fatal(err)
	}
	if err := se.Sync(bg); !errors.Is(err, chunkstore.ErrFenced) {
		t.Errorf("sync: %v", err)
	}
	if err := s.Close(); !errors.Is(err, chunkstore.ErrFenced) {
		t.Errorf("close: %v", err)
	}
}

// checkEverything proves every chunk that a store names.
func checkEverything(t testing.TB, s *Store) {
	t.Helper()
	err := s.Walk(bg, func(k chunkstore.Key, _ chunkstore.Info) error { return s.Check(bg, k) })
	if err != nil {
		t.Fatal(err)
	}
}

func TestEpochFile(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, path string){
		"sound":   func(*testing.T, string) {},
		"missing": remove,
		"empty":   func(t *testing.T, path string) { edit(t, path, func([]byte) []byte { return nil }) },
		"garbage": func(t *testing.T, path string) { edit(t, path, func([]byte) []byte { return []byte("{") }) },
		"no token": func(t *testing.T, path string) {
			edit(t, path, func([]byte) []byte { return []byte(`{"epoch":1}`) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := create(t)
			s := openAt(t, dir, Options{})
			fill(t, s, chunks(0, 3))
			number := s.epoch.Number
			closeStore(t, s)
			damage(t, epochPath(dir))
			s = openAt(t, dir, Options{})
			if s.epoch.Number <= number {
				t.Errorf("epoch %d after %d", s.epoch.Number, number)
			}
			holdsAll(t, s, chunks(0, 3))
			fill(t, s, chunks(3, 3))
			closeStore(t, s)
		})
	}
}

func TestEpochSurvivesLossOfEverything(t *testing.T) {
	dir := create(t)
	for i := range 3 {
		s := openAt(t, dir, smallPacks)
		fill(t, s, chunks(20*i, 20))
		closeStore(t, s)
	}
	for _, name := range []string{"epoch", "lock", catalogue.FileName, catalogue.SumName} {
		remove(t, filepath.Join(dir, name))
	}
	s := openAt(t, dir, smallPacks)
	defer closeStore(t, s)
	if s.epoch.Number < 4 {
		t.Errorf("epoch %d", s.epoch.Number)
	}
	holdsAll(t, s, chunks(0, 60))
}
