package os

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	real "os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"testing"

	"holdfast/tests/faultlab/schedule/sim"
)

// pair does the same on the machine's disk and on a real one.
type pair struct {
	dir string // the real one's
	rnd *rand.Rand
}

func (p *pair) name() string {
	parts := make([]string, 1+p.rnd.IntN(3))
	for i := range parts {
		parts[i] = string("abc"[p.rnd.IntN(3)])
	}
	return filepath.Join(parts...)
}

// step makes one call on both, and describes it with both results.
func (p *pair) step() (what, mine, theirs string) {
	a, b := p.name(), p.name()
	here, there := func(n string) string { return sim.Dir + "/" + n }, func(n string) string { return filepath.Join(p.dir, n) }
	switch p.rnd.IntN(9) {
	case 0:
		return "mkdir " + a, result("", Mkdir(here(a), 0o700)), result("", real.Mkdir(there(a), 0o700))
	case 1:
		return "remove " + a, result("", Remove(here(a))), result("", real.Remove(there(a)))
	case 2:
		return "rename " + a + " " + b, result("", Rename(here(a), here(b))), result("", real.Rename(there(a), there(b)))
	case 3:
		return "removeall " + a, result("", RemoveAll(here(a))), result("", real.RemoveAll(there(a)))
	case 4:
		return "mkdirall " + a, result("", MkdirAll(here(a), 0o700)), result("", real.MkdirAll(there(a), 0o700))
	case 5:
		l1, e1 := ReadDir(here(a))
		l2, e2 := real.ReadDir(there(a))
		return "readdir " + a, result(list(l1), e1), result(list(l2), e2)
	case 6:
		b1, e1 := ReadFile(here(a))
		b2, e2 := real.ReadFile(there(a))
		return "read " + a, result(string(b1), e1), result(string(b2), e2)
	}
	return p.write(a, here(a), there(a))
}

// write opens a file in some way and changes it.
func (p *pair) write(a, here, there string) (what, mine, theirs string) {
	flag := []int{O_RDWR, O_RDWR | O_CREATE, O_RDWR | O_CREATE | O_EXCL, O_WRONLY | O_CREATE | O_TRUNC, O_RDONLY}[p.rnd.IntN(5)]
	off, cut := int64(p.rnd.IntN(20)), p.rnd.IntN(3) == 0
	text := []byte(strings.Repeat("x", 1+p.rnd.IntN(9)))
	f1, e1 := OpenFile(here, flag, 0o600)
	f2, e2 := real.OpenFile(there, flag, 0o600)
	what = fmt.Sprintf("open %s with %x, write at %d", a, flag, off)
	if e1 != nil || e2 != nil {
		if e2 == nil {
			f2.Close()
		}
		return what, result("", e1), result("", e2)
	}
	if st, err := f2.Stat(); err == nil && st.IsDir() {
		return what, result("", f1.Close()), result("", f2.Close())
	}
	_, e1 = f1.WriteAt(text, off)
	_, e2 = f2.WriteAt(text, off)
	if cut && flag != O_RDONLY {
		e1, e2 = errors.Join(e1, f1.Truncate(off)), errors.Join(e2, f2.Truncate(off))
	}
	s1, _ := f1.Stat()
	s2, _ := f2.Stat()
	return what, result(fmt.Sprint(s1.Size()), errors.Join(e1, f1.Close())), result(fmt.Sprint(s2.Size()), errors.Join(e2, f2.Close()))
}

func list(entries []fs.DirEntry) string {
	var names []string
	for _, e := range entries {
		names = append(names, fmt.Sprint(e.Name(), e.IsDir()))
	}
	sort.Strings(names)
	return fmt.Sprint(names)
}

// result is the same for errors of the same kind.
func result(value string, err error) string {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno.Error()
	}
	return fmt.Sprint(value, err)
}

// TestDiskIsADisk compares the machine's disk with a real one.
func TestDiskIsADisk(t *testing.T) {
	for seed := range uint64(40) {
		p := &pair{dir: t.TempDir(), rnd: rand.New(rand.NewPCG(seed, 0))}
		sim.The().Reset(&sim.Image{Mode: 0o755, Entries: map[string]*sim.Image{
			"store": {Mode: 0o755, Entries: map[string]*sim.Image{}},
		}}, seed, nil)
		for i := range 300 {
			if what, mine, theirs := p.step(); mine != theirs {
				t.Fatalf("seed %d, step %d: %s: %q here, %q on a real disk", seed, i, what, mine, theirs)
			}
		}
	}
}
