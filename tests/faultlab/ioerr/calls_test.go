package ioerr

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"holdfast/tests/faultlab/lab"
	"holdfast/tests/harness"
)

// How many calls that write, and that read, fail at scale 1.
const (
	writeFaults = 40
	readFaults  = 40
)

// writeErrors are what a disk may answer to a write.
var writeErrors = []string{"EIO", "ENOSPC", "EDQUOT", "EROFS", "EFBIG"}

// TestWriteFails lets system calls that change something fail, once or from then
// on, takes the power away and looks at what is left.
func TestWriteFails(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	f, err := newFaults(seed, lab.Changing())
	if err != nil {
		t.Fatal(err)
	}
	refused, i := 0, 0
	for n := writeFaults * here.Scale; lab.More(i, n, refused, n/4); i++ {
		no, err := f.write(uint64(i))
		if err != nil && !errors.Is(err, harness.ErrTracer) {
			t.Fatalf("seed %d, fault %d: %v", seed, i, err)
		}
		if no {
			refused++
		}
	}
	t.Logf("%d of %d steps met an error and were refused", refused, i)
	if refused < writeFaults*here.Scale/4 {
		t.Error("too few to prove anything")
	}
	t.Attr("faultlab.io-errors", strconv.Itoa(i))
}

// faults puts errors into steps.
type faults struct {
	*base
	random *rand.Rand
	calls  map[string]lab.Calls // by step
}

// newFaults makes a base and counts the calls of the steps.
func newFaults(seed uint64, calls []string) (*faults, error) {
	b, err := newBase(lab.Ext4(), seed)
	if err != nil {
		return nil, err
	}
	f := &faults{b, rand.New(rand.NewPCG(seed, 4)), map[string]lab.Calls{}}
	for name, step := range steps() {
		c, err := b.mount(seed)
		if err != nil {
			return nil, err
		}
		op, err := step(c)
		if err == nil {
			f.calls[name], err = c.Trace(op, calls)
		}
		if err = errors.Join(err, c.close()); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// write lets one call of one step fail.
func (f *faults) write(seed uint64) (refused bool, err error) {
	names := []string{"backup", "first backup", "forget", "gc", "gc"}
	name := names[f.random.IntN(len(names))]
	p := f.calls[name].Pick(f.random)
	inject := fmt.Sprintf("error=%s:when=%d", writeErrors[f.random.IntN(len(writeErrors))], p.N)
	if f.random.IntN(3) == 0 {
		inject += "+"
	}
	c, err := f.mount(seed)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	op, err := steps()[name](c)
	if err != nil {
		return false, err
	}
	c.Env, c.Wrap = lab.OneThread(), lab.Strace(p.Call, inject)
	res, ok, err := c.Do(op)
	c.Env, c.Wrap = nil, nil
	if err == nil {
		err = c.afterCut()
	}
	if err != nil {
		return false, fmt.Errorf("%s, %s %s: %w\nafter %s", op, p.Call, inject, err, res)
	}
	return !ok, nil
}

// reading are the calls that read.
var reading = []string{"read", "pread64", "getdents64", "openat", "fstat", "newfstatat"}

// TestReadFails lets calls that read fail while everything is verified and while
// garbage is collected. An error that goes away is no damage, and one that does
// not is no reason to remove anything.
func TestReadFails(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 5))
	w := filledDir(t)
	failed, i := 0, 0
	for n := readFaults * here.Scale; lab.More(i, n, failed, n/5); i++ {
		no, err := readFails(w, random, uint64(i))
		if err != nil && !errors.Is(err, harness.ErrTracer) {
			t.Fatalf("seed %d, fault %d: %v", seed, i, err)
		}
		if no {
			failed++
		}
	}
	t.Logf("%d of %d commands met an error that they told of", failed, i)
	if failed < readFaults*here.Scale/5 {
		t.Error("too few to prove anything")
	}
	t.Attr("faultlab.io-errors", strconv.Itoa(i))
}

// readFails lets one call of a reading command fail, on the files of the
// repository only.
func readFails(base *lab.World, random *rand.Rand, seed uint64) (failed bool, err error) {
	dir, err := here.MkdirTemp()
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(dir)
	w := base.Clone(filepath.Join(dir, "store"), seed)
	if err := errors.Join(w.Own(), lab.CopyTree(base.Path, w.Path)); err != nil {
		return false, err
	}
	var paths []string
	err = filepath.WalkDir(w.Path, func(path string, d os.DirEntry, err error) error {
		paths = append(paths, path)
		return err
	})
	if err != nil {
		return false, err
	}
	args := w.VerifyArgs()
	if random.IntN(2) == 0 {
		args = w.Args(w.GC())
	}
	call := reading[random.IntN(len(reading))]
	inject := fmt.Sprintf("error=EIO:when=%d", 1+random.IntN(12))
	if random.IntN(3) == 0 {
		inject += "+"
	}
	w.Env, w.Wrap = lab.OneThread(), lab.Strace(call, inject, paths...)
	res, err := w.Run(args...)
	w.Env, w.Wrap = nil, nil
	if err == nil {
		err = nothingLost(w)
	}
	if err != nil {
		return false, fmt.Errorf("%s %s: %w\nafter %s", call, inject, err, res)
	}
	return res.Code != lab.ExitOK, nil
}

// nothingLost makes sure that everything is there, and counts as being there: a
// backup of the same content again stores nothing.
func nothingLost(w *lab.World) error {
	if err := w.Judge(); err != nil {
		return err
	}
	op, err := w.Again()
	if err != nil {
		return err
	}
	res, ok, err := w.Do(op)
	switch {
	case err != nil:
		return err
	case !ok:
		return fmt.Errorf("should have gone well: %s", res)
	}
	lines := slices.Collect(strings.Lines(res.Out))
	if len(lines) == 0 || !strings.Contains(lines[len(lines)-1], `"bytes_new":0,`) {
		return fmt.Errorf("sound chunks were stored again: %s", res)
	}
	return nil
}

// TestUnreadableThenCollected reads nothing of the packs while the repository is
// opened, so that a catalogue built from them is empty, and collects garbage when
// the disk is well again. What is in use must stay.
func TestUnreadableThenCollected(t *testing.T) {
	t.Parallel()
	for _, call := range []string{"pread64", "read", "openat"} {
		t.Run(call, func(t *testing.T) {
			t.Parallel()
			w := filledDir(t)
			packs, err := filepath.Glob(filepath.Join(w.Path, ".chunks", "packs", "*"))
			if err != nil || len(packs) == 0 {
				t.Fatal(packs, err)
			}
			for _, paths := range [][]string{
				append(slices.Clone(packs), filepath.Join(w.Path, ".chunks", "catalogue.db")), packs, packs[:1],
			} {
				if err := os.Remove(filepath.Join(w.Path, ".chunks", "catalogue.sum")); err != nil && !os.IsNotExist(err) {
					t.Fatal(err)
				}
				w.Wrap = lab.Strace(call, "error=EIO:when=1+", paths...)
				res, err := w.Run(w.Args(w.GC())...)
				w.Wrap = nil
				if err != nil {
					t.Fatal(err)
				}
				if err := errors.Join(w.MustDo(w.GC()), w.Judge(), w.RestoreAll()); err != nil {
					t.Fatalf("%v\nafter %s", err, res)
				}
			}
		})
	}
}

// filledDir is a repository in a directory, without a file system of its own.
func filledDir(t *testing.T) *lab.World {
	t.Helper()
	dir, err := here.MkdirTemp()
	if err != nil {
		t.Fatal(err)
	}
	w, err := here.NewWorld(filepath.Join(dir, "store"), 1)
	if err == nil {
		err = (&base{world: w}).fill()
	}
	if err != nil {
		t.Fatal(err)
	}
	return w
}
