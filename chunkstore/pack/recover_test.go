package pack

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"holdfast/chunkstore"
	"holdfast/chunkstore/pack/catalogue"
	"holdfast/chunkstore/pack/packfile"
	"holdfast/chunkstore/storetest"
)

// openTail makes a store whose last session was killed: chunks 0 to 4 are
// synced, 5 to 7 only put. It returns the pack that holds them all.
func openTail(t *testing.T) (dir string, p packfile.File) {
	t.Helper()
	dir = create(t)
	s := openAt(t, dir, smallPacks)
	se, err := s.Begin(bg)
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range chunks(0, 8) {
		if i == 5 {
			if err := se.Sync(bg); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := se.Put(bg, c); err != nil {
			t.Fatal(err)
		}
	}
	kill(t, s)
	ps := packsIn(t, dir)
	if len(ps) != 1 || ps[0].State != packfile.StateOpen {
		t.Fatalf("packs %v", ps)
	}
	return dir, ps[0]
}

// offsets returns where the records of chunks 0.. begin in their pack.
func offsets(n int) []int {
	at := []int{packfile.HeaderSize}
	for _, c := range chunks(0, n) {
		at = append(at, at[len(at)-1]+packfile.RecordSize+len(c.Blob))
	}
	return at
}

// openPackCase is what a crash or damage makes of the pack of openTail.
type openPackCase struct {
	name   string
	change func(b []byte) []byte
	held   []int // chunks that are there afterwards
	adopts uint64
}

func openPackCases() []openPackCase {
	at := offsets(8)
	return []openPackCase{
		{"whole", func(b []byte) []byte { return b }, []int{0, 1, 2, 3, 4, 5, 6, 7}, 3},
		{"torn blob", func(b []byte) []byte { return b[:at[7]+200] }, []int{0, 1, 2, 3, 4, 5, 6}, 2},
		{"torn header", func(b []byte) []byte { return b[:at[7]+20] }, []int{0, 1, 2, 3, 4, 5, 6}, 2},
		{"last not written", func(b []byte) []byte { clear(b[at[7]:]); return b }, []int{0, 1, 2, 3, 4, 5, 6}, 2},
		{"one in the middle not written", func(b []byte) []byte { clear(b[at[6]:at[7]]); return b }, []int{0, 1, 2, 3, 4, 5, 7}, 2},
		{"nothing of the tail", func(b []byte) []byte { return b[:at[5]] }, []int{0, 1, 2, 3, 4}, 0},
		{"zeros for the tail", func(b []byte) []byte { clear(b[at[5]:]); return b }, []int{0, 1, 2, 3, 4}, 0},
		{"cut into what was synced", func(b []byte) []byte { return b[:at[3]+10] }, []int{0, 1, 2}, 0},
		{"cut to the header", func(b []byte) []byte { return b[:packfile.HeaderSize] }, nil, 0},
		{"cut to nothing", func(b []byte) []byte { return nil }, nil, 0},
		{"file header damaged", flip(5), []int{0, 1, 2, 3, 4, 5, 6, 7}, 3},
		{"garbage behind", func(b []byte) []byte { return append(b, bytes.Repeat([]byte(packfile.RecordMagic), 500)...) }, []int{0, 1, 2, 3, 4, 5, 6, 7}, 3},
	}
}

func TestRecoverOpenPack(t *testing.T) {
	for _, tc := range openPackCases() {
		t.Run(tc.name, func(t *testing.T) {
			dir, p := openTail(t)
			edit(t, packPath(dir, p), tc.change)
			s := openAt(t, dir, smallPacks)
			if got := s.Opened(); got.Chunks != tc.adopts || !got.Unclean || got.Rebuilt != nil {
				t.Errorf("%+v, want %d adopted", got, tc.adopts)
			}
			for i, c := range chunks(0, 8) {
				if slices.Contains(tc.held, i) {
					storetest.Holds(t, s, c)
					continue
				}
				if _, err := s.Stat(bg, c.Key()); !errors.Is(err, chunkstore.ErrNotExist) {
					t.Errorf("chunk %d: stat %v", i, err)
				}
			}
			// The pack is sealed, and a new run heals what is missing.
			for _, p := range packsIn(t, dir) {
				if p.State != packfile.StateSealed && tc.held != nil {
					t.Errorf("pack %s is not sealed", p.Name())
				}
			}
			fill(t, s, chunks(0, 8))
			holdsAll(t, s, chunks(0, 8))
			closeStore(t, s)
			s = openAt(t, dir, smallPacks)
			if got := s.Opened(); got.Unclean || got.Chunks != 0 || got.BytesCut != 0 {
				t.Errorf("second open: %+v", got)
			}
			holdsAll(t, s, chunks(0, 8))
			checkEverything(t, s)
			closeStore(t, s)
			// Only packs, nothing else: they say the same.
			remove(t, filepath.Join(dir, catalogue.FileName))
			s = openAt(t, dir, smallPacks)
			holdsAll(t, s, chunks(0, 8))
			closeStore(t, s)
		})
	}
}

// TestRecoverNothingIsLostWithTheCatalogue damages an open pack in its middle
// and loses the catalogue too: nobody can say then what was torn, so all bytes
// must stay.
func TestRecoverNothingIsLostWithTheCatalogue(t *testing.T) {
	dir, p := openTail(t)
	at := offsets(8)
	edit(t, packPath(dir, p), func(b []byte) []byte { return flip(at[7] + 4)(flip(at[3] + 5)(b)) })
	before, err := os.ReadFile(packPath(dir, p))
	if err != nil {
		t.Fatal(err)
	}
	remove(t, filepath.Join(dir, catalogue.FileName))
	s := openAt(t, dir, smallPacks)
	if got := s.Opened(); got.Rebuilt == nil || got.Reindex.Chunks != 6 || got.Reindex.RecordsDamaged != 2 || got.BytesCut != 0 {
		t.Errorf("%+v", got)
	}
	closeStore(t, s)
	after, err := os.ReadFile(filepath.Join(packsDir(dir), p.ID.String()+packfile.SealedExt))
	if err != nil || !bytes.HasPrefix(after, before) {
		t.Errorf("the pack has lost bytes: %v", err)
	}
}

// TestRecoverKeepsWhatWasVouchedFor damages records of an open pack that the
// catalogue has vouched for, up to all of them: the store says so, and leaves
// the bytes where they are.
func TestRecoverKeepsWhatWasVouchedFor(t *testing.T) {
	at := offsets(8)
	for name, hurt := range map[string][]int{"the last": {4}, "all": {0, 1, 2, 3, 4}} {
		t.Run(name, func(t *testing.T) {
			dir, p := openTail(t)
			edit(t, packPath(dir, p), func(b []byte) []byte {
				for _, i := range hurt {
					flip(at[i] + 4)(b)
				}
				return b[:at[5]]
			})
			before, err := os.ReadFile(packPath(dir, p))
			if err != nil {
				t.Fatal(err)
			}
			s := openAt(t, dir, smallPacks)
			err = s.Check(bg, chunks(4, 1)[0].Key())
			if !errors.Is(err, chunkstore.ErrCorrupt) || !strings.Contains(err.Error(), p.ID.String()) {
				t.Errorf("check: %v", err)
			}
			if o := s.Opened(); o.BytesCut != 0 {
				t.Errorf("%+v", o)
			}
			closeStore(t, s)
			after, err := os.ReadFile(packPath(dir, packsIn(t, dir)[0]))
			if err != nil || !bytes.HasPrefix(after, before) {
				t.Errorf("the pack has lost bytes: %v", err)
			}
		})
	}
}

func TestRecoverUnknownOpenPacks(t *testing.T) {
	whole, _ := buildPack(chunks(50, 4), false)
	for _, tc := range []struct {
		name    string
		content []byte
		lost    bool // the catalogue as well
		want    string
	}{
		{"empty", nil, false, ""},
		{"empty, no catalogue", nil, true, ""},
		{"header only", whole[:packfile.HeaderSize], false, ""},
		{"half a header", whole[:20], true, ""},
		{"zeros", make([]byte, 5000), false, ""},
		{"zeros, no catalogue", make([]byte, 5000), true, packfile.BadExt},
		{"records", whole, false, packfile.SealedExt},
		{"records, no catalogue", whole, true, packfile.SealedExt},
		{"records and a torn one", whole[:len(whole)-3], false, packfile.SealedExt},
		{"records and a torn one, no catalogue", whole[:len(whole)-3], true, packfile.SealedExt},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir, _ := openTail(t)
			if err := os.WriteFile(filepath.Join(packsDir(dir), testPack.String()+packfile.OpenExt), tc.content, 0o640); err != nil {
				t.Fatal(err)
			}
			if tc.lost {
				remove(t, filepath.Join(dir, catalogue.FileName))
			}
			s := openAt(t, dir, smallPacks)
			holdsAll(t, s, chunks(0, 8))
			if tc.want == packfile.SealedExt {
				holdsAll(t, s, chunks(50, 3))
			}
			closeStore(t, s)
			var got string
			for _, ext := range []string{packfile.OpenExt, packfile.SealedExt, packfile.BadExt} {
				if _, err := os.Stat(filepath.Join(packsDir(dir), testPack.String()+ext)); err == nil {
					got += ext
				}
			}
			if got != tc.want {
				t.Errorf("the pack is %q now, want %q", got, tc.want)
			}
		})
	}
}

// TestRecoverSealedButNotCommitted is a kill between the last step of sealing
// a pack and the commit that would say so.
func TestRecoverSealedButNotCommitted(t *testing.T) {
	dir := create(t)
	s := openAt(t, dir, smallPacks)
	se, err := s.Begin(bg)
	if err != nil {
		t.Fatal(err)
	}
	cs := chunks(0, 25)
	for i, c := range cs {
		if i == 3 {
			if err := se.Sync(bg); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := se.Put(bg, c); err != nil {
			t.Fatal(err)
		}
	}
	kill(t, s)
	for _, damaged := range []bool{false, true} {
		for _, readOnly := range []bool{true, false} {
			dir := copyTree(t, dir)
			if damaged {
				damageFooters(t, dir)
			}
			o := smallPacks
			o.ReadOnly = readOnly
			s := openAt(t, dir, o)
			if got := s.Opened(); got.PacksAdopted != 3 || got.Chunks != 22 || (len(got.Names) > 0) != damaged {
				t.Errorf("damaged=%v: %+v", damaged, got)
			}
			holdsAll(t, s, cs)
			closeStore(t, s)
		}
	}
}

func damageFooters(t *testing.T, dir string) {
	t.Helper()
	for _, p := range packsIn(t, dir) {
		if p.State == packfile.StateSealed {
			edit(t, packPath(dir, p), flip(int(p.Size)-10))
		}
	}
}

// TestRecoverAfterChmod is a kill between the chmod and the rename that seal a
// pack.
func TestRecoverAfterChmod(t *testing.T) {
	dir, p := openTail(t)
	path := packPath(dir, p)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	edit(t, path, func([]byte) []byte {
		return append(b, packfile.EncodeFooter(b[:packfile.HeaderSize], nil, int64(len(b)))...)
	})
	if err := os.Chmod(path, 0o444); err != nil {
		t.Fatal(err)
	}
	s := openAt(t, dir, smallPacks)
	defer closeStore(t, s)
	holdsAll(t, s, chunks(0, 8))
}

// sealedDamages are what may happen to a sealed pack while the store is closed.
var sealedDamages = []struct {
	name   string
	damage func(t *testing.T, path string)
	stat   bool   // notices
	want   string // in the error of Get or Check
}{
	{"missing", remove, true, "missing"},
	{"cut short", func(t *testing.T, path string) {
		edit(t, path, func(b []byte) []byte { return b[:packfile.HeaderSize+10] })
	}, true, "ends within"},
	{"empty", func(t *testing.T, path string) { edit(t, path, func([]byte) []byte { return nil }) }, true, "ends within"},
	{"record headers", func(t *testing.T, path string) {
		edit(t, path, func(b []byte) []byte {
			for i := bytes.Index(b, []byte(packfile.RecordMagic)); i >= 0; i = bytes.Index(b, []byte(packfile.RecordMagic)) {
				b[i] ^= 1
			}
			return b
		})
	}, false, "magic"},
	{"stored bytes", func(t *testing.T, path string) {
		edit(t, path, func(b []byte) []byte {
			for i := 0; i+700 < len(b); i += 700 {
				b[i+50] ^= 1
			}
			return b
		})
	}, false, "checksum"},
	{"content of another pack", func(t *testing.T, path string) {
		edit(t, path, func(b []byte) []byte {
			whole, _ := buildPack(chunks(0, 10), true)
			return append(whole, make([]byte, len(b)-len(whole))...)
		})
	}, false, ""},
}

// TestRecoverSealedPacks loses or damages a sealed pack: what the store says of
// its chunks names the pack, and the next run heals them.
func TestRecoverSealedPacks(t *testing.T) {
	for _, tc := range sealedDamages {
		t.Run(tc.name, func(t *testing.T) {
			dir := create(t)
			cs := chunks(0, 30)
			s := openAt(t, dir, smallPacks)
			fill(t, s, cs)
			hurt, _ := where(t, s, cs[0])
			closeStore(t, s)
			tc.damage(t, packPath(dir, hurt))
			s = openAt(t, dir, smallPacks)
			if _, err := s.Stat(bg, cs[0].Key()); tc.stat != errors.Is(err, chunkstore.ErrNotExist) {
				t.Errorf("stat: %v", err)
			}
			closeStore(t, s)
			s = openAt(t, dir, smallPacks)
			checkHurt(t, s, hurt, tc.want)
			if _, err := s.Stat(bg, cs[0].Key()); !errors.Is(err, chunkstore.ErrNotExist) {
				t.Errorf("stat after check: %v", err)
			}
			// Every chunk that Stat does not vouch for is stored again.
			fill(t, s, cs)
			holdsAll(t, s, cs)
			closeStore(t, s)
			for _, lose := range []string{"", catalogue.FileName} {
				_ = os.Remove(filepath.Join(dir, lose))
				s = openAt(t, dir, smallPacks)
				holdsAll(t, s, cs)
				closeStore(t, s)
			}
		})
	}
}

// checkHurt wants all chunks to be sound but those in one pack, which want an
// error that names it.
func checkHurt(t *testing.T, s *Store, hurt packfile.File, want string) {
	t.Helper()
	damaged := 0
	for _, c := range chunks(0, 30) {
		if p, _ := where(t, s, c); p.ID != hurt.ID {
			storetest.Holds(t, s, c)
			continue
		}
		err := s.Check(bg, c.Key())
		if err == nil {
			continue
		}
		damaged++
		if !errors.Is(err, chunkstore.ErrCorrupt) || !strings.Contains(err.Error(), hurt.Name()) || !strings.Contains(err.Error(), want) {
			t.Errorf("check: %v", err)
		}
	}
	if damaged < 5 {
		t.Errorf("%d chunks are damaged", damaged)
	}
}

// TestMissingPackComesBack takes a pack away and puts it back.
func TestMissingPackComesBack(t *testing.T) {
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
	s = openAt(t, dir, smallPacks)
	_, err := s.Get(bg, cs[0].Key())
	if !errors.Is(err, chunkstore.ErrCorrupt) || !strings.Contains(err.Error(), "pack "+p.Name()+": missing") {
		t.Errorf("get: %v", err)
	}
	if _, err := s.Stat(bg, cs[0].Key()); !errors.Is(err, chunkstore.ErrNotExist) || !strings.Contains(err.Error(), "missing") {
		t.Errorf("stat: %v", err)
	}
	if u, err := s.Usage(bg); err != nil || u.MissingPacks != 1 {
		t.Errorf("%+v, %v", u, err)
	}
	// A new catalogue does not make the loss be forgotten.
	if _, err := s.Reindex(bg, nil); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	s = openAt(t, dir, smallPacks)
	if o := s.Opened(); o.PacksMissing != 1 || !slices.Contains(o.Names, p.Name()) || !slices.Equal(o.Missing, []string{p.Name()}) {
		t.Errorf("%+v", o)
	}
	if err := os.Rename(away, packPath(dir, p)); err != nil {
		t.Fatal(err)
	}
	fill(t, s, nil) // a Sync begins a new look at the packs
	holdsAll(t, s, cs)
	closeStore(t, s)
}

// TestPackRemovedUnderSession removes packs while they are in use: the finish
// of a backup must notice (bug museum M4, M12).
func TestPackRemovedUnderSession(t *testing.T) {
	dir := create(t)
	cs := chunks(0, 25)
	s := openAt(t, dir, smallPacks)
	fill(t, s, cs)
	p, _ := where(t, s, cs[0])
	if p.State != packfile.StateSealed {
		t.Fatal("the first pack is not sealed")
	}
	if err := s.Check(bg, cs[0].Key()); err != nil {
		t.Fatal(err)
	}
	remove(t, packPath(dir, p))
	se, err := s.Begin(bg)
	if err != nil {
		t.Fatal(err)
	}
	if err := se.Sync(bg); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Stat(bg, cs[0].Key()); !errors.Is(err, chunkstore.ErrNotExist) {
		t.Errorf("stat after the pack was removed: %v", err)
	}
	if added, err := se.Put(bg, cs[0]); err != nil || !added {
		t.Errorf("put again: %v, %v", added, err)
	}
	if err := errors.Join(se.Sync(bg), se.Close()); err != nil {
		t.Fatal(err)
	}
	storetest.Holds(t, s, cs[0])

	// The pack being filled goes: the next Sync must not succeed.
	open, _ := where(t, s, cs[0])
	if open.State != packfile.StateOpen {
		t.Fatal("the pack in use is sealed")
	}
	if se, err = s.Begin(bg); err != nil {
		t.Fatal(err)
	}
	if _, err := se.Put(bg, chunks(100, 1)[0]); err != nil {
		t.Fatal(err)
	}
	remove(t, packPath(dir, open))
	if err := se.Sync(bg); !errors.Is(err, chunkstore.ErrCorrupt) {
		t.Errorf("sync of a removed pack: %v", err)
	}
	if _, err := s.Begin(bg); !errors.Is(err, chunkstore.ErrReadOnly) {
		t.Errorf("begin after that: %v", err)
	}
	_ = s.Close()
}

func TestRemovesItsTemporaryFiles(t *testing.T) {
	dir := create(t)
	for _, name := range []string{".catalogue.db.tmp-new", ".epoch.tmp-0102", ".catalogue.sum.tmp-77"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	keep := filepath.Join(dir, ".notes.tmp-mine")
	if err := os.WriteFile(keep, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	closeStore(t, openAt(t, dir, Options{}))
	left, err := filepath.Glob(filepath.Join(dir, ".*tmp*"))
	if err != nil || !slices.Equal(left, []string{keep}) {
		t.Errorf("left: %v, %v", left, err)
	}
	if _, err := os.Stat(filepath.Join(dir, catalogue.SumName)); errors.Is(err, fs.ErrNotExist) {
		t.Error("a clean close leaves no checksum of the catalogue")
	}
}

// A power cut may take the file header and leave the records behind it.
func TestRecoverWithoutFileHeader(t *testing.T) {
	dir := create(t)
	s := openAt(t, dir, Options{})
	cs := chunks(0, 5)
	fill(t, s, cs)
	kill(t, s)
	for _, f := range packsIn(t, dir) {
		edit(t, packPath(dir, f), func(b []byte) []byte {
			clear(b[:packfile.HeaderSize])
			return b
		})
	}
	s = openAt(t, dir, Options{})
	holdsAll(t, s, cs)
	if r, _ := scrubAll(t, s, ScrubOptions{}); r.PacksDamaged > 0 {
		t.Errorf("after the recovery: %+v", r)
	}
	closeStore(t, s)
}
