package pack

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"holdfast/chunkstore"
	"holdfast/chunkstore/pack/catalogue"
	"holdfast/chunkstore/pack/packfile"
	"holdfast/chunkstore/storetest"
)

// usedSet makes the answer of a mark from the chunks in use.
func usedSet(cs ...[]chunkstore.Chunk) func(chunkstore.Key) bool {
	set := make(map[chunkstore.Key]bool)
	for _, list := range cs {
		for _, c := range list {
			set[c.Key()] = true
		}
	}
	return func(k chunkstore.Key) bool { return set[k] }
}

func nothing(chunkstore.Key) bool { return false }

func sweep(t testing.TB, s *Store, used func(chunkstore.Key) bool, o SweepOptions) SweepReport {
	t.Helper()
	sw, err := s.BeginSweep(bg)
	if err != nil {
		t.Fatal(err)
	}
	defer sw.Close()
	r, err := sw.Run(bg, used, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func packBytes(t testing.TB, dir string) (sum int64) {
	t.Helper()
	files, err := packfile.List(packsDir(dir))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		sum += f.Size
	}
	return sum
}

func absent(t testing.TB, s *Store, cs []chunkstore.Chunk) {
	t.Helper()
	for _, c := range cs {
		if _, err := s.Stat(bg, c.Key()); !errors.Is(err, chunkstore.ErrNotExist) {
			t.Errorf("chunk %s: %v, want that it is gone", c.ID.Short(), err)
		}
	}
}

func TestSweep(t *testing.T) {
	dir := create(t)
	s := openAt(t, dir, smallPacks)
	first, second := chunks(0, 60), chunks(100, 60)
	fill(t, s, first)
	fill(t, s, second)
	mixed := append(append([]chunkstore.Chunk(nil), first[:25]...), second...)
	before := packBytes(t, dir)

	dry := sweep(t, s, usedSet(mixed), SweepOptions{DryRun: true})
	if dry.PacksRemoved+dry.PacksRewritten == 0 || dry.BytesRemoved == 0 || packBytes(t, dir) != before {
		t.Errorf("dry run: %+v, packs %d -> %d bytes", dry, before, packBytes(t, dir))
	}
	r := sweep(t, s, usedSet(mixed), SweepOptions{})
	if r.PacksRemoved == 0 || r.PacksRewritten == 0 || r.ChunksRemoved < 30 || r.Chunks != 120 || r.UsedChunks != 85 {
		t.Errorf("report: %+v", r)
	}
	if after := packBytes(t, dir); after > before*3/4 {
		t.Errorf("packs took %d bytes before and %d after", before, after)
	}
	holdsAll(t, s, mixed)
	closeStore(t, s)
	for _, o := range []Options{{ReadOnly: true}, smallPacks} {
		s = openAt(t, dir, o)
		if got := s.Opened(); got.PacksMissing != 0 || got.Rebuilt != nil || got.PacksAdopted != 0 {
			t.Errorf("after a sweep the next start finds %+v", got)
		}
		holdsAll(t, s, mixed)
		if o.ReadOnly {
			closeStore(t, s)
		}
	}
	if _, err := s.Reindex(bg, nil); err != nil {
		t.Fatal(err)
	}
	holdsAll(t, s, mixed)
	sweep(t, s, nothing, SweepOptions{})
	absent(t, s, first[:10])
	fill(t, s, mixed) // what is gone can be stored again
	holdsAll(t, s, mixed)
	closeStore(t, s)
}

// A session counts on what it has put and on what it was told is there, whether
// a mark has seen it or not.
func TestSweepKeepsWhatSessionsCountOn(t *testing.T) {
	s := openAt(t, create(t), smallPacks)
	old := chunks(0, 40)
	fill(t, s, old)
	se, err := s.Begin(bg)
	if err != nil {
		t.Fatal(err)
	}
	again, added := old[:3], chunks(200, 30)
	for _, c := range append(append([]chunkstore.Chunk(nil), again...), added...) {
		if _, err := se.Put(bg, c); err != nil {
			t.Fatal(err)
		}
	}
	told := old[30]
	if info, err := se.(chunkstore.Keeper).Keep(bg, told.Key()); err != nil || info.PlainSize != told.PlainSize {
		t.Fatalf("keep: %+v, %v", info, err)
	}
	s.sealDone.Wait()
	sw, err := s.BeginSweep(bg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.BeginSweep(bg); !errors.Is(err, ErrSweeping) {
		t.Errorf("a second sweep: %v", err)
	}
	// The session ends while the mark is going on: what it has committed has
	// not been seen, and must stay all the same.
	if err := errors.Join(se.Sync(bg), se.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := sw.Run(bg, nothing, SweepOptions{}); err != nil {
		t.Fatal(err)
	}
	sw.Close()
	kept := append(append([]chunkstore.Chunk{told}, again...), added...)
	holdsAll(t, s, kept)
	absent(t, s, old[10:20])
	closeStore(t, s)
}

// A chunk that is about to go counts as gone, so that a backup stores it anew.
func TestSweepBesidePuts(t *testing.T) {
	s := openAt(t, create(t), smallPacks)
	all := chunks(0, 300)
	fill(t, s, all)
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Add(1)
	go func() { // a reader of what is always in use
		defer wg.Done()
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			c := all[i%50]
			if got, err := s.Get(bg, c.Key()); err != nil || len(got) != len(c.Blob) {
				t.Errorf("chunk in use: %v", err)
				return
			}
			if _, err := s.Stat(bg, c.Key()); err != nil {
				t.Errorf("stat of a chunk in use: %v", err)
				return
			}
		}
	}()
	for round := range 6 {
		part := all[50+round*40 : 90+round*40]
		wg.Add(1)
		go func() {
			defer wg.Done()
			se, err := s.Begin(bg)
			if err != nil {
				t.Error(err)
				return
			}
			for _, c := range part {
				if _, err := se.Put(bg, c); err != nil {
					t.Error(err)
					return
				}
			}
			if err := se.Sync(bg); err != nil {
				t.Error(err)
			}
			for _, c := range part {
				storetest.Holds(t, s, c)
			}
			if err := se.Close(); err != nil {
				t.Error(err)
			}
		}()
		sweep(t, s, usedSet(all[:50]), SweepOptions{Waste: 0.01})
	}
	close(stop)
	wg.Wait()
	holdsAll(t, s, all[:50])
	closeStore(t, s)
}

// A record in use that cannot be read leaves its pack where it is.
func TestSweepLeavesDamage(t *testing.T) {
	dir := create(t)
	s := openAt(t, dir, smallPacks)
	cs := chunks(0, 30)
	fill(t, s, cs)
	l, ok, err := s.lookup(bg, cs[0].Key())
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	path := filepath.Join(packsDir(dir), s.packNow(l.Pack).Name())
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[l.Off+packfile.RecordSize+5] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	r := sweep(t, s, usedSet(cs[:1], cs[5:6]), SweepOptions{})
	if len(r.Left) != 1 {
		t.Errorf("left alone: %q, want one pack", r.Left)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the damaged pack: %v", err)
	}
	storetest.Holds(t, s, cs[5])
	closeStore(t, s)
}

func TestSmallPacksAreMerged(t *testing.T) {
	dir := create(t)
	var all []chunkstore.Chunk
	for i := range smallPacksMax + 4 {
		s := openAt(t, dir, smallPacks)
		cs := chunks(10*i, 1)
		fill(t, s, cs)
		all = append(all, cs...)
		kill(t, s) // its pack will not be continued
	}
	s := openAt(t, dir, smallPacks)
	r := sweep(t, s, usedSet(all), SweepOptions{})
	files, err := packfile.List(packsDir(dir))
	if err != nil || len(files) > 3 || r.PacksRewritten < smallPacksMax {
		t.Errorf("%d packs are left, %v; %+v", len(files), err, r)
	}
	holdsAll(t, s, all)
	closeStore(t, s)
}

// Every change a sweep makes to the disk fails before or after it has
// happened, or is the last one before a kill: what is in use stays.
func TestSweepFaults(t *testing.T) {
	base := create(t)
	s := openAt(t, base, smallPacks)
	cs := chunks(0, 60)
	fill(t, s, cs)
	closeStore(t, s)
	used := [][]chunkstore.Chunk{cs[:7], cs[25:30], cs[50:52]}
	for _, fault := range []error{unix.EIO, unix.ENOSPC, errKilled} {
		for _, after := range []bool{false, true} {
			for at := 0; ; at++ {
				if done := sweepFault(t, copyTree(t, base), faultPlan{fault, after, at}, used); done {
					if at < 10 {
						t.Errorf("only %d changes were made to the disk", at)
					}
					break
				}
			}
		}
	}
}

var errKilled = errors.New("killed")

// faultPlan says which change fails, and how.
type faultPlan struct {
	err   error
	after bool
	at    int
}

func sweepFault(t *testing.T, dir string, plan faultPlan, used [][]chunkstore.Chunk) (done bool) {
	t.Helper()
	var mu sync.Mutex
	armed, n, hit := false, 0, false
	o := smallPacks
	o.hook = func(_, _ string, change func() error) error {
		mu.Lock()
		defer mu.Unlock()
		if !armed || plan.err != errKilled && hit {
			return change()
		}
		if hit {
			return errKilled
		}
		n++
		if n <= plan.at {
			return change()
		}
		hit = true
		if plan.after {
			if err := change(); err != nil {
				return err
			}
		}
		return plan.err
	}
	s := openAt(t, dir, o)
	sw, err := s.BeginSweep(bg)
	if err != nil {
		t.Fatal(err)
	}
	armed = true
	_, err = sw.Run(bg, usedSet(used...), SweepOptions{})
	sw.Close()
	what := fmt.Sprintf("%v at change %d, after=%v", plan.err, plan.at, plan.after)
	if plan.err == errKilled {
		kill(t, s)
	} else {
		for _, list := range used {
			holdsAll(t, s, list)
		}
		// A pack may have been sealed in the background.
		if err := errors.Join(err, s.Close()); hit && err == nil && plan.err == unix.EIO {
			t.Errorf("%s: nobody was told", what)
		}
	}
	s = openAt(t, dir, smallPacks)
	for _, list := range used {
		holdsAll(t, s, list)
	}
	sweep(t, s, usedSet(used...), SweepOptions{})
	for _, list := range used {
		holdsAll(t, s, list)
	}
	closeStore(t, s)
	return !hit
}

// A catalogue that was built while packs could not be read knows too little.
// Its word alone costs no pack, and the next opening builds it anew.
func TestSweepDoesNotTrustTheCatalogueAlone(t *testing.T) {
	dir := create(t)
	s := openAt(t, dir, smallPacks)
	all := chunks(0, 60)
	fill(t, s, all)
	var ids []chunkstore.Key
	for _, c := range all {
		ids = append(ids, c.Key())
	}
	if _, err := s.cat.Commit(catalogue.Changes{Epoch: s.epoch.Number, Deletes: ids}); err != nil {
		t.Fatal(err)
	}
	if err := s.cat.MarkPartial(); err != nil {
		t.Fatal(err)
	}
	before := packBytes(t, dir)
	r := sweep(t, s, usedSet(all), SweepOptions{})
	if r.PacksRemoved > 0 || len(r.Left) == 0 || packBytes(t, dir) != before {
		t.Errorf("packs of %d bytes, were %d; %+v", packBytes(t, dir), before, r)
	}
	closeStore(t, s)
	s = openAt(t, dir, smallPacks)
	if s.Opened().Rebuilt == nil {
		t.Error("the catalogue was taken for whole")
	}
	holdsAll(t, s, all)
	closeStore(t, s)
	s = openAt(t, dir, smallPacks)
	if why := s.Opened().Rebuilt; why != nil {
		t.Errorf("built anew without need: %v", why)
	}
	closeStore(t, s)
}

// A chunk that is put over a condemned copy must win against that one in a
// catalogue that is built anew before the copy has gone.
func TestPutOverCondemnedWins(t *testing.T) {
	s := openAt(t, create(t), smallPacks)
	cs := chunks(0, 40)
	fill(t, s, cs)
	old, ok, _, err := s.catalogued(cs[0].Key())
	if err != nil || !ok {
		t.Fatalf("the catalogue knows the chunk: %v, %v", ok, err)
	}
	sw, err := s.BeginSweep(bg)
	if err != nil {
		t.Fatal(err)
	}
	condemned := current{packfile.Entry{Record: packfile.Record{Key: cs[0].Key()}, Off: old.Off}, []catalogue.Held{{Key: cs[0].Key(), Location: old}}}
	if dead, err := sw.condemn(old.Pack, []current{condemned}, new([]current)); err != nil || len(dead) != 1 {
		t.Fatalf("%d condemned, %v", len(dead), err)
	}
	fill(t, s, cs[:1])
	if now, ok, _, err := s.catalogued(cs[0].Key()); err != nil || !ok || now.Pack == old.Pack || now.Rank != old.Rank+1 {
		t.Errorf("put again: %+v, %v, %v; it was %+v", now, ok, err, old)
	}
	sw.pardon(old.Pack)
	sw.Close()
	closeStore(t, s)
}

// TestSweepForgetsALostPack: a pack that is missing is told of until all that was
// in use in it is there again, or needed no more; then a sweep ends that.
func TestSweepForgetsALostPack(t *testing.T) {
	dir := create(t)
	cs := chunks(0, 20)
	s := openAt(t, dir, smallPacks)
	fill(t, s, cs)
	p, _ := where(t, s, cs[0])
	closeStore(t, s)
	away := filepath.Join(tempDir(t), "pack")
	if err := os.Rename(packPath(dir, p), away); err != nil {
		t.Fatal(err)
	}
	reopened := func(missing int) *Store {
		t.Helper()
		s := openAt(t, dir, smallPacks)
		if got := s.Opened().PacksMissing; got != missing {
			t.Fatalf("%d packs are missing, want %d", got, missing)
		}
		return s
	}

	s = reopened(1)
	if r := sweep(t, s, usedSet(cs), SweepOptions{}); r.PacksRemoved != 0 {
		t.Errorf("forgot what is in use: %+v", r)
	}
	closeStore(t, s)

	s = reopened(1)
	fill(t, s, cs) // stored again
	if r := sweep(t, s, usedSet(cs), SweepOptions{}); r.PacksRemoved != 1 {
		t.Errorf("%+v", r)
	}
	holdsAll(t, s, cs)
	closeStore(t, s)

	s = reopened(0)
	holdsAll(t, s, cs)
	if u, err := s.Usage(bg); err != nil || u.MissingPacks != 0 {
		t.Errorf("%+v, %v", u, err)
	}
	closeStore(t, s)

	// One that comes back is garbage, and nothing is lost by it.
	if err := os.Rename(away, packPath(dir, p)); err != nil {
		t.Fatal(err)
	}
	s = reopened(0)
	sweep(t, s, usedSet(cs), SweepOptions{})
	holdsAll(t, s, cs)
	closeStore(t, s)
}
