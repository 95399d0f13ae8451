package faults

import (
	"crypto/sha256"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"holdfast/tests/harness"
)

var seed = flag.Uint64("faults.seed", 0, "seed of the random positions of damage; 0 takes the time")

// archive is one file of a snapshot with what must come back.
type archive struct {
	snap snap
	name string
	sum  [32]byte
	more []string // flags of restore
}

// specimen is a repository with one of every kind of file, made once and copied
// for each kind of damage.
type specimen struct {
	repo
	archives []archive
	// old is what the catalogue and its companions were before the last backup.
	old map[string][]byte
	// image is what the newest snapshot of vm/1 was made from.
	image string
}

// The snapshots of the specimen.
var (
	first  = snap{"vm/1", 1} // images in chunks cut by content, and a small file
	second = snap{"vm/1", 2} // the same, a little changed
	fixed  = snap{"host/fixed", 3}
	plain  = snap{"host/plain", 4}
)

// companions are the files of the chunk store that are no packs.
var companions = []string{"catalogue.db", "catalogue.sum", "epoch", "lock"}

// newSpecimen makes a repository whose largest image has about the given size.
// From sealing on there is a sealed pack.
func newSpecimen(t *testing.T, about int) *specimen {
	dir := t.TempDir()
	s := &specimen{repo: newRepo(t, dir), old: map[string][]byte{}}
	disk := append(noise(7, about), mixed(8, 2<<20)...)
	s.image = filepath.Join(dir, "disk.raw")
	s.add(t, first, "disk0.img", disk)
	s.addWith(t, fixed, "disk1.img", mixed(9, 9<<20+512), "--chunking", "fixed")
	s.addWith(t, plain, "disk0.img", mixed(10, 3<<20), "--crypt-mode", "none")
	for _, name := range companions {
		s.old[name] = read(t, filepath.Join(s.path, ".chunks", name))
	}
	copy(disk[about/5:], noise(11, 300_000))
	copy(disk[about*4/5:], text(12, 300_000))
	s.add(t, second, "disk0.img", disk)
	s.check(t, about >= sealing)
	return s
}

// sealing is the size of an image in bytes that seals a pack and begins
// another.
const sealing = packSize + 1<<20

// add makes a snapshot of an image and a small file.
func (s *specimen) add(t *testing.T, name snap, arch string, content []byte) {
	t.Helper()
	conf := text(uint64(name.n), 700)
	s.backup(t, name, arch+":"+write(t, s.image, content),
		"machine.conf:"+write(t, filepath.Join(filepath.Dir(s.path), "machine.conf"), conf)).want(t, exitOK)
	s.archives = append(s.archives, archive{snap: name, name: arch, sum: sha256.Sum256(content)},
		archive{snap: name, name: "machine.conf", sum: sha256.Sum256(conf)})
}

// addWith makes a snapshot of an image with flags.
func (s *specimen) addWith(t *testing.T, name snap, arch string, content []byte, flags ...string) {
	t.Helper()
	path := write(t, filepath.Join(filepath.Dir(s.path), "other.raw"), content)
	s.backup(t, name, append(flags, arch+":"+path)...).want(t, exitOK)
	a := archive{snap: name, name: arch, sum: sha256.Sum256(content)}
	if slices.Contains(flags, "none") {
		a.more = []string{"--crypt-mode", "none"}
	}
	s.archives = append(s.archives, a)
}

// check makes sure that the specimen has one of everything.
func (s *specimen) check(t *testing.T, sealed bool) {
	t.Helper()
	want := map[string]int{sealedPack: 0, openPack: 1}
	if sealed {
		want[sealedPack] = 1
	}
	for pattern, n := range want {
		if got := len(glob(t, s.path, pattern)); got != n {
			t.Fatalf("%d files match %s, want %d", got, pattern, n)
		}
	}
	s.wantList(t, first, second, fixed, plain)
	s.verify(t).want(t, exitOK)
	s.verifyKeyless(t).want(t, exitOK)
}

// clone copies the repository. Sealed packs are shared: nobody changes them,
// and a test that wants to damage one copies it first, with own.
func (s *specimen) clone(t *testing.T) *specimen {
	t.Helper()
	c := *s
	c.path = filepath.Join(t.TempDir(), "store")
	err := filepath.WalkDir(s.path, func(from string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		to := c.path + strings.TrimPrefix(from, s.path)
		switch {
		case d.IsDir():
			return os.MkdirAll(to, 0o700)
		case strings.HasSuffix(from, ".pack"):
			return os.Link(from, to)
		}
		copyFile(t, from, to)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return &c
}

// own makes sure that a file of a clone is not shared with the original.
func own(t *testing.T, path string) {
	t.Helper()
	copyFile(t, path, path+".copy")
	if err := os.Rename(path+".copy", path); err != nil {
		t.Fatal(err)
	}
}

// file returns the path of the first file of the clone that matches.
func (s *specimen) file(t *testing.T, pattern string) string {
	t.Helper()
	names := glob(t, s.path, pattern)
	if len(names) == 0 {
		t.Fatalf("no file matches %s", pattern)
	}
	return names[0]
}

// at is the directory of a snapshot.
func (s *specimen) at(name snap) string { return filepath.Join(s.path, name.String()) }

// outcome is what the commands made of a damaged repository.
type outcome struct {
	keyed, keyless result
	broken         []result // restores that did not come to an end
}

// judge verifies and restores everything, in an order that depends on turn, and
// compares what comes back. Anything but the right bytes or a clear error fails
// the test.
func (s *specimen) judge(t *testing.T, turn int) outcome {
	t.Helper()
	var o outcome
	steps := []func(){
		func() { o.keyed = s.verify(t) },
		func() { o.keyless = s.verifyKeyless(t) },
		func() { o.broken = s.restoreAll(t) },
	}
	for i := range steps {
		steps[(i+turn)%len(steps)]()
	}
	for _, r := range append(o.broken, o.keyed, o.keyless) {
		if !slices.Contains([]int{exitOK, exitIntegrity, exitNotFound, exitKey, exitNoRepository}, r.Code) {
			t.Errorf("an exit status that says nothing of damage: %s", r)
		}
	}
	for _, r := range o.broken {
		// What is not listed is not verified.
		if r.Code != exitNotFound && o.keyed.Code == exitOK {
			t.Errorf("verify finds nothing wrong, but: %s", r)
		}
	}
	return o
}

// restoreAll restores every archive to a new file and returns the results of
// those that failed.
func (s *specimen) restoreAll(t *testing.T) (broken []result) {
	t.Helper()
	for _, a := range s.archives {
		target := filepath.Join(filepath.Dir(s.path), "target")
		r := s.restore(t, a.snap, a.name, target, a.more...)
		if r.Code != exitOK {
			gone(t, target)
			broken = append(broken, r)
			continue
		}
		if sha256.Sum256(read(t, target)) != a.sum {
			t.Errorf("WRONG BYTES in %s of %s: %s", a.name, a.snap, r)
		}
		if err := os.Remove(target); err != nil {
			t.Fatal(err)
		}
	}
	return broken
}

// whole fails the test unless everything was right.
func (o outcome) whole(t *testing.T) {
	t.Helper()
	for _, r := range append(o.broken, o.keyed, o.keyless) {
		if r.Code != exitOK {
			t.Errorf("this need not have failed: %s", r)
		}
	}
}

// found fails the test unless damage was found by everybody who can see it, and
// named: word is a file or part of one.
func (o outcome) found(t *testing.T, word string) {
	t.Helper()
	if len(o.broken) == 0 {
		t.Error("every restore went well")
	}
	for _, r := range []result{o.keyed, o.keyless} {
		if r.Code != exitIntegrity {
			t.Errorf("damage was not found: %s", r)
		}
	}
	for _, r := range append(o.broken, o.keyed, o.keyless) {
		r.says(t, word)
	}
}

// usable fails the test unless the next backup goes well and everything is right
// after it.
func (s *specimen) usable(t *testing.T) {
	t.Helper()
	image := write(t, filepath.Join(filepath.Dir(s.path), "next.raw"), mixed(13, 2<<20))
	s.backup(t, snap{"vm/1", 100}, "disk0.img:"+image).want(t, exitOK)
	s.verify(t).want(t, exitOK)
	s.verifyKeyless(t).want(t, exitOK)
}

// kind is a kind of file that a bit is flipped in.
type kind struct {
	name, pattern string
	// cache says that nothing depends on it: everything must go on.
	cache bool
	// sealed says that a specimen with a sealed pack is needed.
	sealed bool
}

var kinds = []kind{
	{"sealed pack", ".chunks/packs/*.pack", false, true},
	{"open pack", ".chunks/packs/*.open", false, false},
	{"catalogue", ".chunks/catalogue.db", true, false},
	{"catalogue sum", ".chunks/catalogue.sum", true, false},
	{"epoch", ".chunks/epoch", true, false},
	{"lock", ".chunks/lock", true, false},
	{"config", "holdfast.json", false, false},
	{"dynamic index", inSecond("disk0.img.didx"), false, false},
	{"fixed index", "host/fixed/*/disk1.img.fidx", false, false},
	{"manifest", inSecond("index.json.blob"), false, false},
	{"plain manifest", "host/plain/*/index.json.blob", false, false},
	{"small file", inSecond("machine.conf.blob"), false, false},
}

// positions are the byte offsets where bits are flipped.
func (k kind) positions(r *rand.Rand, size int64) []int64 {
	list := []int64{0, 9, 40, size / 2, size - 1}
	for range 5 {
		list = append(list, r.Int64N(size))
	}
	list = slices.DeleteFunc(list, func(off int64) bool { return off >= size })
	slices.Sort(list)
	return slices.Compact(list)
}

// TestDamage does damage to copies of a repository: single bits are flipped in
// every kind of file, and files are cut, lost, swapped, old or forged. What comes
// back is right or does not come back, and caches do not matter.
func TestDamage(t *testing.T) {
	harness.Long(t)
	t.Parallel()
	small, large := newSpecimen(t, 5<<20), newSpecimen(t, sealing)
	choose := func(sealed bool) *specimen {
		if sealed {
			return large
		}
		return small
	}
	number := *seed
	if number == 0 {
		number = uint64(time.Now().UnixNano())
	}
	t.Logf("-faults.seed=%d flips the same bits again", number)
	random := rand.New(rand.NewPCG(number, 0))
	for i, k := range kinds {
		base := choose(k.sealed)
		for _, off := range k.positions(random, size(t, base.file(t, k.pattern))) {
			bit := random.IntN(8)
			t.Run(fmt.Sprintf("%s/%d.%d", k.name, off, bit), func(t *testing.T) {
				t.Parallel()
				base.clone(t).flip(t, k, off, bit, i+bit)
			})
		}
	}
	for i, w := range wrecks() {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			s := choose(w.sealed).clone(t)
			w.do(t, s)
			w.expect(t, s, s.judge(t, i))
		})
	}
}

// flip flips one bit and looks at what becomes of it.
func (s *specimen) flip(t *testing.T, k kind, off int64, bit, turn int) {
	path := s.file(t, k.pattern)
	own(t, path)
	b := read(t, path)
	b[off] ^= 1 << bit
	write(t, path, b)
	o := s.judge(t, turn)
	switch {
	case k.cache:
		o.whole(t)
		s.usable(t)
	case len(o.broken) > 0:
		o.found(t, "")
		o.names(t, path)
	}
}

// names fails the test unless each error says which file or chunk is concerned.
func (o outcome) names(t *testing.T, path string) {
	t.Helper()
	for _, r := range append(o.broken, o.keyed, o.keyless) {
		if r.Code == exitOK {
			continue
		}
		said := r.Err + r.Out
		if !strings.Contains(said, filepath.Base(path)) && !strings.Contains(said, "chunk ") && !strings.Contains(said, "manifest") {
			t.Errorf("neither %s nor a chunk is named: %s", filepath.Base(path), r)
		}
	}
}
