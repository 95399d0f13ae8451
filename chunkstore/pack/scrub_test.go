package pack

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/chunkstore"
	"holdfast/chunkstore/pack/catalogue"
	"holdfast/chunkstore/pack/packfile"
	"holdfast/chunkstore/storetest"
)

// scrubAll scrubs and returns which chunks were called damaged.
func scrubAll(t testing.TB, s *Store, o ScrubOptions) (ScrubReport, map[chunkstore.ID]bool) {
	t.Helper()
	lost := make(map[chunkstore.ID]bool)
	o.Damaged = func(k chunkstore.Key, err error) {
		if !errors.Is(err, chunkstore.ErrCorrupt) {
			t.Errorf("damage of %s: %v", k.ID.Short(), err)
		}
		lost[k.ID] = true
	}
	r, err := s.Scrub(bg, o)
	if err != nil {
		t.Fatalf("scrub: %v", err)
	}
	return r, lost
}

func at(seconds int64) func() time.Time { return func() time.Time { return time.Unix(seconds, 0) } }

func TestScrubOfAHealthyStore(t *testing.T) {
	dir := create(t)
	s := openAt(t, dir, smallPacks)
	cs := chunks(0, 65)
	fill(t, s, cs)
	r, lost := scrubAll(t, s, ScrubOptions{Now: at(1000)})
	if r.Chunks != 65 || r.Packs != len(packsIn(t, dir)) || len(lost) > 0 || r.PacksDamaged+r.PacksSkipped > 0 || r.Damaged+r.Retried > 0 ||
		r.Bytes != uint64(packBytes(t, dir)) || r.BytesTotal != r.Bytes {
		t.Errorf("%+v, %d lost", r, len(lost))
	}
	sealed := 0
	for _, p := range packList(t, s) {
		if p.Sealed {
			sealed++
		}
		if want := map[bool]int64{true: 1000}[p.Sealed]; p.Checked != want {
			t.Errorf("%+v: checked at %d, want %d", p, p.Checked, want)
		}
	}
	closeStore(t, s)

	// The dates outlive the process, and a rebuilding of the catalogue; a check
	// at or after Before counts.
	s = openAt(t, dir, smallPacks)
	for _, c := range []struct {
		before int64
		skip   int
	}{{1000, sealed}, {1001, 0}, {999, sealed}, {0, 0}} {
		if r, _ := scrubAll(t, s, ScrubOptions{Before: c.before, Now: at(1000)}); r.PacksSkipped != c.skip {
			t.Errorf("before %d: %d packs of %d were left out", c.before, r.PacksSkipped, sealed)
		}
	}
	if _, err := s.Reindex(bg, nil); err != nil {
		t.Fatal(err)
	}
	if r, _ := scrubAll(t, s, ScrubOptions{Before: 1000}); r.PacksSkipped != sealed {
		t.Errorf("after a reindex: %+v", r)
	}
	if r, _ := scrubAll(t, s, ScrubOptions{Before: 500, Now: at(999)}); r.PacksSkipped != 0 {
		t.Errorf("dates in the future: %+v", r)
	}
	holdsAll(t, s, cs)
	closeStore(t, s)
}

func packList(t testing.TB, s *Store) []PackStatus {
	t.Helper()
	list, err := s.Packs(bg)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// TestScrubFindsEveryFlip flips a bit in every byte of a small sealed pack and
// of an open one, one after the other.
func TestScrubFindsEveryFlip(t *testing.T) {
	for _, state := range []packfile.State{packfile.StateSealed, packfile.StateOpen} {
		t.Run(state.Ext(), func(t *testing.T) {
			dir := create(t)
			s := openAt(t, dir, Options{PackSize: packSizeMin})
			cs := []chunkstore.Chunk{storetest.Chunk(1, 60), storetest.Chunk(2, 90)}
			if state == packfile.StateSealed {
				cs = append(cs, storetest.Chunk(3, packSizeMin-500)) // fills it
			}
			fill(t, s, cs)
			p, _ := where(t, s, cs[0])
			path := packPath(dir, p)
			size := int(packsIn(t, dir)[0].Size)
			if len(packsIn(t, dir)) != 1 || p.State != state {
				t.Fatalf("%v", packsIn(t, dir))
			}
			f := rawFile(t, path)
			step := 1
			for off := 0; off < size; off += step {
				step = 1
				if off > 800 && off < size-500 {
					step = 37 // within the stored bytes of the large one
				}
				bit := byte(1) << (off % 8)
				flipAt(t, f, int64(off), bit)
				r, lost := scrubAll(t, s, ScrubOptions{})
				_, hit := recordAt(s, cs, int64(off))
				if r.PacksDamaged != 1 || len(r.Names) != 1 || hit != (len(lost) == 1) || hit != (r.Damaged == 1) {
					t.Fatalf("bit %#x at %d of %d, in a record %v: %+v, %d lost", bit, off, size, hit, r, len(lost))
				}
				flipAt(t, f, int64(off), bit)
				if off%5 > 0 && !hit {
					continue
				}
				if r, lost := scrubAll(t, s, ScrubOptions{}); r.PacksDamaged > 0 || len(lost) > 0 || len(s.quarantine.bad) > 0 {
					t.Fatalf("after the byte at %d was right again: %+v", off, r)
				}
			}
			holdsAll(t, s, cs)
			closeStore(t, s)
		})
	}
}

// recordAt finds the chunk whose record holds a byte.
func recordAt(s *Store, cs []chunkstore.Chunk, off int64) (chunkstore.Chunk, bool) {
	for _, c := range cs {
		if l, ok := s.current(c.Key()); ok && off >= l.Off && off < l.End() {
			return c, true
		}
	}
	return chunkstore.Chunk{}, false
}

// rawFile opens a file for changing it in place.
func rawFile(t testing.TB, path string) *os.File {
	t.Helper()
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func flipAt(t testing.TB, f *os.File, off int64, bit byte) {
	t.Helper()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, off); err != nil {
		t.Fatal(err)
	}
	b[0] ^= bit
	if _, err := f.WriteAt(b, off); err != nil {
		t.Fatal(err)
	}
}

// TestQuarantineLasts follows a damaged chunk: it stays unknown over restarts,
// kills and rebuilt catalogues until it is put again.
func TestQuarantineLasts(t *testing.T) {
	for name, between := range map[string]func(*testing.T, *Store, string) *Store{
		"nothing": func(_ *testing.T, s *Store, _ string) *Store { return s },
		"restart": func(t *testing.T, s *Store, dir string) *Store {
			closeStore(t, s)
			return openAt(t, dir, smallPacks)
		},
		"kill": func(t *testing.T, s *Store, dir string) *Store {
			kill(t, s)
			return openAt(t, dir, smallPacks)
		},
		"reindex": func(t *testing.T, s *Store, _ string) *Store {
			if _, err := s.Reindex(bg, nil); err != nil {
				t.Fatal(err)
			}
			return s
		},
		"lost catalogue": func(t *testing.T, s *Store, dir string) *Store {
			kill(t, s)
			if err := os.Remove(filepath.Join(dir, catalogue.FileName)); err != nil {
				t.Fatal(err)
			}
			return openAt(t, dir, smallPacks)
		},
		"lost list": func(t *testing.T, s *Store, dir string) *Store {
			kill(t, s)
			if err := os.Remove(filepath.Join(dir, quarantineName)); err != nil {
				t.Fatal(err)
			}
			return openAt(t, dir, smallPacks)
		},
		"torn list": func(t *testing.T, s *Store, dir string) *Store {
			kill(t, s)
			edit(t, filepath.Join(dir, quarantineName), func(b []byte) []byte { return b[:len(b)-5] })
			return openAt(t, dir, smallPacks)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := create(t)
			s := openAt(t, dir, smallPacks)
			cs := chunks(0, 35)
			fill(t, s, cs)
			p, l := where(t, s, cs[3])
			flipAt(t, rawFile(t, packPath(dir, p)), l.Off+packfile.RecordSize+7, 1)
			if _, lost := scrubAll(t, s, ScrubOptions{}); len(lost) != 1 || !lost[cs[3].ID] {
				t.Fatalf("lost: %v", lost)
			}
			s = between(t, s, dir)
			absent(t, s, cs[3:4])
			fill(t, s, cs) // the next backup
			holdsAll(t, s, cs)
			if r, lost := scrubAll(t, s, ScrubOptions{}); len(lost) > 0 || r.PacksDamaged != 1 || r.Damaged != 1 {
				t.Errorf("the old record is still there: %+v, %v", r, lost)
			}
			if _, err := s.Reindex(bg, nil); err != nil {
				t.Fatal(err)
			}
			holdsAll(t, s, cs)
			closeStore(t, s)
		})
	}
}

// TestScrubReadsAgain lets reads go wrong once, twice and for ever, by an error
// and by wrong bytes.
func TestScrubReadsAgain(t *testing.T) {
	for _, c := range []struct {
		times   int
		flips   bool
		where   string // what of the pack is read wrong
		damaged int
	}{
		{1, false, "record", 0}, {2, false, "record", 0}, {1 << 30, false, "record", 1},
		{1, true, "record", 0}, {2, true, "record", 0}, {1 << 30, true, "record", 1},
		{1, false, "table", 0}, {2, true, "table", 0}, {1 << 30, false, "table", 0}, {1 << 30, true, "table", 0},
		{2, false, "header", 0}, {1 << 30, true, "header", 0},
	} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			dir := create(t)
			var spot int64 = -1
			left, mu := c.times, sync.Mutex{}
			o := smallPacks
			var file string
			o.readHook = func(path string, off int64, b []byte) error {
				mu.Lock()
				defer mu.Unlock()
				if filepath.Base(path) != file || spot < off || spot >= off+int64(len(b)) || left == 0 {
					return nil
				}
				left--
				if c.flips {
					b[spot-off] ^= 4
					return nil
				}
				return unix.EIO
			}
			s := openAt(t, dir, o)
			cs := chunks(0, 25)
			fill(t, s, cs)
			p, l := where(t, s, cs[2])
			file = p.Name()
			spot = map[string]int64{"record": l.Off + packfile.RecordSize + 50, "table": packsOf(t, dir, p).Size - 100, "header": 20}[c.where]
			r, lost := scrubAll(t, s, ScrubOptions{})
			forever := c.times > readTries
			if len(lost) != c.damaged || (r.PacksDamaged > 0) != forever || (r.Retried > 0) == forever || r.Chunks != 25 {
				t.Errorf("%+v, %d lost", r, len(lost))
			}
			if c.damaged > 0 {
				absent(t, s, cs[2:3])
			}
			spot = -1
			if r, lost := scrubAll(t, s, ScrubOptions{}); r.PacksDamaged > 0 || len(lost) > 0 {
				t.Errorf("when the disk is well again: %+v", r)
			}
			holdsAll(t, s, cs)
			closeStore(t, s)
		})
	}
}

func packsOf(t testing.TB, dir string, p packfile.File) packfile.File {
	t.Helper()
	// A listing may miss one that is being sealed, and renamed, this moment.
	for range 10 {
		for _, f := range packsIn(t, dir) {
			if f.ID == p.ID {
				return f
			}
		}
	}
	t.Fatalf("pack %s is not there", p.Name())
	return packfile.File{}
}

// TestScrubOfCutAndLostPacks takes away parts of packs and whole ones.
func TestScrubOfCutAndLostPacks(t *testing.T) {
	dir := create(t)
	s := openAt(t, dir, smallPacks)
	cs := chunks(0, 45)
	fill(t, s, cs)
	cut, _ := where(t, s, cs[0])
	gone, _ := where(t, s, cs[15])
	open, l := where(t, s, cs[44])
	if cut == gone || open.State != packfile.StateOpen {
		t.Fatalf("%v %v %v", cut, gone, open)
	}
	size := packsOf(t, dir, cut).Size
	if err := errors.Join(os.Truncate(packPath(dir, cut), size/2), os.Remove(packPath(dir, gone)), os.Truncate(packPath(dir, open), l.Off+5)); err != nil {
		t.Fatal(err)
	}
	r, lost := scrubAll(t, s, ScrubOptions{})
	if r.PacksDamaged != 3 || len(r.Names) != 3 || len(lost) == 0 || !lost[cs[44].ID] {
		t.Errorf("%+v, %d lost", r, len(lost))
	}
	slices.Sort(r.Names)
	want := []string{cut.Name(), gone.Name(), open.Name()}
	if slices.Sort(want); !slices.Equal(r.Names, want) {
		t.Errorf("names %v, want %v", r.Names, want)
	}
	for _, c := range cs {
		_, gerr := s.Get(bg, c.Key())
		if _, serr := s.Stat(bg, c.Key()); (gerr == nil) != (serr == nil) {
			t.Errorf("chunk %s: Get %v, Stat %v", c.ID.Short(), gerr, serr)
		}
	}
	kill(t, s)
	s = openAt(t, dir, smallPacks)
	fill(t, s, cs)
	holdsAll(t, s, cs)
	closeStore(t, s)
}

// TestScrubIsResumed interrupts a scrub; the next one leaves out what was done.
func TestScrubIsResumed(t *testing.T) {
	dir := create(t)
	s := openAt(t, dir, smallPacks)
	cs := chunks(0, 95)
	fill(t, s, cs)
	ctx, cancel := context.WithCancel(bg)
	o := ScrubOptions{Now: at(50), Workers: 1, Progress: func(r ScrubReport) {
		if r.Packs == 4 {
			cancel()
		}
	}}
	r, err := s.Scrub(ctx, o)
	if !errors.Is(err, context.Canceled) || r.Packs < 4 {
		t.Fatalf("%+v, %v", r, err)
	}
	done := r.Packs
	closeStore(t, s)
	s = openAt(t, dir, smallPacks)
	r, _ = scrubAll(t, s, ScrubOptions{Before: 50})
	if r.PacksSkipped != done || r.Packs+done != len(packsIn(t, dir)) {
		t.Errorf("%d packs had been done; then %+v", done, r)
	}
	// What was found damaged is never left out.
	p, l := where(t, s, cs[0])
	flipAt(t, rawFile(t, packPath(dir, p)), l.Off+packfile.RecordSize+1, 1)
	if err := s.Check(bg, cs[0].Key()); !errors.Is(err, chunkstore.ErrCorrupt) {
		t.Fatal(err)
	}
	if r, lost := scrubAll(t, s, ScrubOptions{Before: 50, Now: at(60)}); !lost[cs[0].ID] || r.PacksDamaged != 1 {
		t.Errorf("%+v", r)
	}
	if r, lost := scrubAll(t, s, ScrubOptions{Before: 50, Now: at(60)}); !lost[cs[0].ID] || r.PacksDamaged != 1 {
		t.Errorf("the second time: %+v", r)
	}
	closeStore(t, s)
}

// TestScrubKeepsToItsRate measures with a clock that only waiting moves.
func TestScrubKeepsToItsRate(t *testing.T) {
	dir := create(t)
	s := openAt(t, dir, smallPacks)
	fill(t, s, chunks(0, 95))
	closeStore(t, s)
	synctest.Test(t, func(t *testing.T) {
		s := openAt(t, dir, smallPacks)
		begin := time.Now()
		r, _ := scrubAll(t, s, ScrubOptions{Rate: 10_000})
		took := time.Since(begin)
		// The last block read is not waited for.
		if least := time.Duration(r.Bytes-20_000) * time.Second / 10_000; took < least || took > 3*least {
			t.Errorf("%d bytes took %v", r.Bytes, took)
		}
		closeStore(t, s)
	})
}

// TestScrubOfAReader finds damage in a store that is open for reading; the next
// writer knows of it.
func TestScrubOfAReader(t *testing.T) {
	dir := create(t)
	s := openAt(t, dir, smallPacks)
	cs := chunks(0, 25)
	fill(t, s, cs)
	p, l := where(t, s, cs[2])
	closeStore(t, s)
	flipAt(t, rawFile(t, packPath(dir, p)), l.Off+packfile.RecordSize+1, 1)
	r := openAt(t, dir, Options{ReadOnly: true})
	if rep, lost := scrubAll(t, r, ScrubOptions{}); rep.Damaged != 1 || !lost[cs[2].ID] {
		t.Errorf("%+v", rep)
	}
	closeStore(t, r)
	s = openAt(t, dir, smallPacks)
	absent(t, s, cs[2:3])
	if !s.isQuarantined(place{p.ID, l.Off}, cs[2].ID) {
		t.Error("the list does not have it")
	}
	closeStore(t, s)
}

// TestScrubBesideEverything runs scrubs beside puts, sweeps and reindexes: a
// pack that goes or is sealed meanwhile is no damage.
func TestScrubBesideEverything(t *testing.T) {
	s := openAt(t, create(t), smallPacks)
	all := chunks(0, 400)
	fill(t, s, all[:200])
	stop := make(chan struct{})
	var wg sync.WaitGroup
	scrubs := 0
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			r, err := s.Scrub(bg, ScrubOptions{Workers: 3})
			if err != nil || r.PacksDamaged > 0 || r.Damaged > 0 {
				t.Errorf("%+v, %v", r, err)
			}
			scrubs++
		}
	})
	for round := range 5 {
		fill(t, s, all[200+40*round:240+40*round])
		sweep(t, s, usedSet(all[:50], all[200:]), SweepOptions{Waste: 0.01})
		if _, err := s.Reindex(bg, nil); err != nil {
			t.Error(err)
		}
		fill(t, s, all[50:120])
	}
	close(stop)
	wg.Wait()
	if scrubs == 0 {
		t.Error("no scrub came to its end")
	}
	holdsAll(t, s, all[:120])
	holdsAll(t, s, all[200:])
	closeStore(t, s)
}

// TestScrubFaults fails each change to the disk that a scrub with findings makes.
func TestScrubFaults(t *testing.T) {
	base := create(t)
	s := openAt(t, base, smallPacks)
	cs := chunks(0, 45)
	fill(t, s, cs)
	p, l := where(t, s, cs[2])
	closeStore(t, s)
	flipAt(t, rawFile(t, packPath(base, p)), l.Off+packfile.RecordSize+1, 1)
	for _, fault := range []error{unix.EIO, unix.ENOSPC, errKilled} {
		for _, after := range []bool{false, true} {
			for n := 0; ; n++ {
				if scrubFault(t, copyTree(t, base), faultPlan{fault, after, n}, cs) {
					if n < 3 {
						t.Errorf("only %d changes were made to the disk", n)
					}
					break
				}
			}
		}
	}
}

func scrubFault(t *testing.T, dir string, plan faultPlan, cs []chunkstore.Chunk) (done bool) {
	t.Helper()
	armed, n, hit := false, 0, false
	o, mu := smallPacks, sync.Mutex{}
	o.hook = func(_, _ string, change func() error) error {
		mu.Lock()
		defer mu.Unlock()
		if !armed || hit && plan.err != errKilled {
			return change()
		}
		if hit {
			return errKilled
		}
		if n++; n <= plan.at {
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
	armed = true
	found := 0
	r, err := s.Scrub(bg, ScrubOptions{Damaged: func(chunkstore.Key, error) { found++ }})
	if found != 1 || r.Damaged != 1 || hit && plan.err == unix.ENOSPC && err != nil {
		t.Errorf("%+v: %+v, %d found, %v", plan, r, found, err)
	}
	if plan.err == errKilled {
		kill(t, s)
	} else if cerr := s.Close(); hit && plan.err == unix.EIO && errors.Join(err, cerr) == nil {
		t.Errorf("%+v: nobody was told", plan)
	}
	s = openAt(t, dir, smallPacks)
	if _, lost := scrubAll(t, s, ScrubOptions{}); len(lost) != 1 {
		t.Errorf("%+v: the next scrub finds %d", plan, len(lost))
	}
	fill(t, s, cs)
	holdsAll(t, s, cs)
	closeStore(t, s)
	return !hit
}

// TestScrubFindsRandomDamage spreads damage over a store: nothing is missed and
// nothing else is called damaged.
func TestScrubFindsRandomDamage(t *testing.T) {
	dir := create(t)
	s := openAt(t, dir, smallPacks)
	cs := chunks(0, 205)
	fill(t, s, cs)
	rnd := rand.New(rand.NewPCG(3, 3))
	want := make(map[chunkstore.ID]bool)
	for range 40 {
		c := cs[rnd.IntN(len(cs))]
		if want[c.ID] {
			continue
		}
		want[c.ID] = true
		p, l := where(t, s, c)
		flipAt(t, rawFile(t, packPath(dir, p)), l.Off+rnd.Int64N(l.End()-l.Off), 1<<rnd.IntN(8))
	}
	r, lost := scrubAll(t, s, ScrubOptions{})
	if len(lost) != len(want) || int(r.Damaged) != len(want) {
		t.Errorf("%d of %d were found; %+v", len(lost), len(want), r)
	}
	for _, c := range cs {
		if want[c.ID] != lost[c.ID] {
			t.Errorf("chunk %s: damaged %v, found %v", c.ID.Short(), want[c.ID], lost[c.ID])
		}
	}
	fill(t, s, cs)
	holdsAll(t, s, cs)
	closeStore(t, s)
}

func TestScrubRefuses(t *testing.T) {
	s := openAt(t, create(t), smallPacks)
	if _, err := s.Scrub(bg, ScrubOptions{Rate: -1}); !errors.Is(err, chunkstore.ErrInvalid) {
		t.Errorf("rate: %v", err)
	}
	closeStore(t, s)
	if _, err := s.Scrub(bg, ScrubOptions{}); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("closed: %v", err)
	}
}

func TestQuarantineFile(t *testing.T) {
	bad := map[place]chunkstore.ID{}
	for i := range 20 {
		bad[place{packfile.ID{byte(i % 3)}, int64(i)}] = chunkstore.ID{byte(i + 1)}
	}
	b := encodeQuarantine(bad)
	got, err := decodeQuarantine(b)
	if err != nil || len(got) != len(bad) {
		t.Fatalf("%v, %v", got, err)
	}
	for at, id := range bad {
		if got[at] != id {
			t.Errorf("%v: %v, want %v", at, got[at], id)
		}
	}
	storetest.EveryFlip(t, b, func(b []byte) error { _, err := decodeQuarantine(b); return err })
}

func FuzzQuarantine(f *testing.F) {
	f.Add(encodeQuarantine(nil))
	f.Add(encodeQuarantine(map[place]chunkstore.ID{{packfile.ID{1}, 64}: {2}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := decodeQuarantine(b)
		if err == nil && len(list) > len(b) {
			t.Errorf("%d entries from %d bytes", len(list), len(b))
		}
	})
}
