package pack

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"holdfast/chunkstore"
	"holdfast/chunkstore/pack/catalogue"
	"holdfast/chunkstore/pack/packfile"
	"holdfast/chunkstore/storetest"
)

// TestReindexBesideWriters builds the catalogue anew over and over while four
// sessions fill and seal packs.
func TestReindexBesideWriters(t *testing.T) {
	dir := create(t)
	s := openAt(t, dir, smallPacks)
	var wg sync.WaitGroup
	for w := range 4 {
		se, err := s.Begin(bg)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			if err := errors.Join(putAndSync(se, chunks(1000*w, 120)), se.Close()); err != nil {
				t.Error(err)
			}
		})
	}
	stop, rounds := make(chan struct{}), make(chan int)
	go func() { rounds <- reindexUntil(t, s, stop) }()
	wg.Wait()
	close(stop)
	if <-rounds == 0 {
		t.Error("no reindex came to its end")
	}
	check := func() {
		for w := range 4 {
			holdsAll(t, s, chunks(1000*w, 120))
		}
		if u, err := s.Usage(bg); err != nil || u.Chunks != 480 {
			t.Errorf("%+v, %v", u, err)
		}
	}
	check()
	closeStore(t, s)
	s = openAt(t, dir, smallPacks)
	check()
	if o := s.Opened(); o.Chunks > 0 || o.Rebuilt != nil {
		t.Errorf("%+v", o)
	}
	closeStore(t, s)
}

// TestGetHealsMissOnce takes chunks out of the catalogue behind the store's
// back. The first Get that misses one builds it anew; after that a miss is the
// answer.
func TestGetHealsMissOnce(t *testing.T) {
	dir := create(t)
	s := openAt(t, dir, smallPacks)
	defer closeStore(t, s)
	cs := chunks(0, 25)
	fill(t, s, cs)
	forget := func(c chunkstore.Chunk) {
		if _, err := s.cat.Commit(catalogue.Changes{Deletes: []chunkstore.Key{c.Key()}}); err != nil {
			t.Fatal(err)
		}
	}
	forget(cs[3])
	forget(cs[4])
	if _, err := s.Stat(bg, cs[3].Key()); !errors.Is(err, chunkstore.ErrNotExist) {
		t.Errorf("stat: %v", err)
	}
	storetest.Holds(t, s, cs[3])
	storetest.Holds(t, s, cs[4])
	forget(cs[5])
	if _, err := s.Get(bg, cs[5].Key()); !errors.Is(err, chunkstore.ErrNotExist) {
		t.Errorf("second miss: %v", err)
	}
}

// putAndSync puts chunks and syncs now and then.
func putAndSync(se chunkstore.Session, cs []chunkstore.Chunk) error {
	for i, c := range cs {
		if _, err := se.Put(bg, c); err != nil {
			return err
		}
		if i%25 != 0 {
			continue
		}
		if err := se.Sync(bg); err != nil {
			return err
		}
	}
	return se.Sync(bg)
}

// reindexUntil builds the catalogue anew until stop is closed, and returns how
// often.
func reindexUntil(t *testing.T, s *Store, stop chan struct{}) int {
	for n := 0; ; n++ {
		select {
		case <-stop:
			return n
		default:
		}
		if _, err := s.Reindex(bg, nil); err != nil {
			t.Errorf("reindex: %v", err)
		}
	}
}

// TestHealsWhileOpen damages the catalogue under a running store: whoever
// meets it, be it a reader, a Put or a Sync, gets what he asked for.
func TestHealsWhileOpen(t *testing.T) {
	cs := chunks(0, 30)
	var errs failure
	for name, act := range map[string]func(*testing.T, *Store){
		"get": func(t *testing.T, s *Store) { holdsAll(t, s, cs) },
		"put": func(t *testing.T, s *Store) { fill(t, s, cs) },
		"sync": func(t *testing.T, s *Store) {
			se, err := s.Begin(bg)
			if err != nil {
				t.Fatal(err)
			}
			s.mu.Lock() // past the lookup of Put
			s.pending.Put(chunkstore.Key{ID: chunkstore.ID{1}, Size: 1}, catalogue.Location{Pack: 0, Off: packfile.HeaderSize, Stored: 100})
			s.mu.Unlock()
			if err := errors.Join(se.Sync(bg), se.Close()); err != nil {
				t.Fatal(err)
			}
		},
		"all at once": func(t *testing.T, s *Store) {
			var wg sync.WaitGroup
			for range 6 {
				wg.Go(func() {
					for _, c := range cs {
						_, err := s.Get(bg, c.Key())
						errs.set(err)
					}
				})
			}
			wg.Wait()
			if err := errs.get(); err != nil {
				t.Errorf("get: %v", err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := create(t)
			s := openAt(t, dir, smallPacks)
			fill(t, s, cs)
			if err := os.Truncate(filepath.Join(dir, catalogue.FileName), 8192); err != nil {
				t.Fatal(err)
			}
			act(t, s)
			holdsAll(t, s, cs)
			fill(t, s, chunks(100, 10))
			if name != "sync" {
				closeStore(t, s)
				s = openAt(t, dir, smallPacks)
				if o := s.Opened(); o.Rebuilt != nil || o.Unclean {
					t.Errorf("%+v", o)
				}
				holdsAll(t, s, cs)
				holdsAll(t, s, chunks(100, 10))
			}
			closeStore(t, s)
		})
	}
}

// TestReaderKeepsWhatItFoundDamaged lets a reader find a flipped bit. The next
// writer must not take the chunk for stored.
func TestReaderKeepsWhatItFoundDamaged(t *testing.T) {
	dir := create(t)
	s := openAt(t, dir, Options{})
	all := chunks(1, 3)
	se, err := s.Begin(bg)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(putAndSync(se, all), se.Close()); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	flipStored(t, dir, all[1])

	r := openAt(t, dir, Options{ReadOnly: true})
	if err := r.Check(bg, all[1].Key()); !errors.Is(err, chunkstore.ErrCorrupt) {
		t.Fatalf("check: %v", err)
	}
	closeStore(t, r)

	s = openAt(t, dir, Options{})
	if _, err := s.Stat(bg, all[1].Key()); !errors.Is(err, chunkstore.ErrNotExist) {
		t.Errorf("stat of what was found damaged: %v", err)
	}
	if _, err := s.Stat(bg, all[0].Key()); err != nil {
		t.Errorf("stat of a sound one: %v", err)
	}
	if se, err = s.Begin(bg); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(putAndSync(se, all[1:2]), se.Close()); err != nil {
		t.Fatal(err)
	}
	holdsAll(t, s, all)
	closeStore(t, s)
}

// flipStored changes one bit in the stored bytes of a chunk.
func flipStored(t *testing.T, dir string, c chunkstore.Chunk) {
	t.Helper()
	files, err := packfile.List(packsDir(dir))
	if err != nil || len(files) != 1 {
		t.Fatalf("packs: %v %v", files, err)
	}
	path := filepath.Join(packsDir(dir), files[0].ID.String()+files[0].State.Ext())
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(b, c.Blob)
	if at < 0 {
		t.Fatal("the chunk is not in the pack")
	}
	b[at+len(c.Blob)/2] ^= 1
	if err := os.WriteFile(path, b, 0o640); err != nil {
		t.Fatal(err)
	}
}
