package museum

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"holdfast/datastore"
	"holdfast/datastore/gc"
	"holdfast/datastore/verify"
	"holdfast/tests/faultlab/lab"
	"holdfast/tests/faultlab/worker"
)

var here *lab.Lab

func TestMain(m *testing.M) { os.Exit(lab.Run(m, &here)) }

// TestMuseum has one test for each bug that this package covers itself.
func TestMuseum(t *testing.T) {
	for name, test := range map[string]func(*testing.T, *lab.World){
		"M1 PBS PSA-2025-00019-1":          snapshotReusesWhatGoes,
		"M4 PBS 5710":                      knownChunkVanished,
		"M5 PBS 5982 and M18 Kopia Garage": timesOfFiles,
		"M7 PBS 79f6a79c":                  withoutTheProof,
		"M9 restic 4612":                   listingFails,
		"M11 restic 21820":                 entriesAfterRewrite,
		"M12 restic 1115":                  packLost,
		"M15 restic 3619":                  futureParent,
		"M17 Kopia 1949":                   goneAfterMaintenance,
		"M21 Borg 3444":                    repairRemovesNothing,
		"M25 bbolt 562 and M26 bbolt 567":  catalogueWrecked,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, newWorld(t))
			t.Attr("faultlab.museum", "1")
		})
	}
}

// newWorld is a repository with two snapshots of each group, and no trash.
func newWorld(t *testing.T) *lab.World {
	t.Helper()
	dir, err := here.MkdirTemp()
	if err != nil {
		t.Fatal(err)
	}
	w, err := here.NewWorldWithTrash(filepath.Join(dir, "store"), 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for _, g := range lab.Groups() {
			op, err := w.Backup(g)
			if err == nil {
				err = w.MustDo(op)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	return w
}

func check(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// hooked is a store during whose mark something happens, after the list of the
// indexes was made.
type hooked struct {
	*datastore.Store
	then func() error
}

func (h hooked) Indexes(ctx context.Context) ([]datastore.IndexFile, error) {
	list, err := h.Store.Indexes(ctx)
	return list, errors.Join(err, h.then())
}

// snapshotReusesWhatGoes: the collection lists the indexes; a new snapshot takes
// over the chunks of an old one, which is removed before it is read.
func snapshotReusesWhatGoes(t *testing.T, w *lab.World) {
	for range 5 {
		open, err := worker.Open(t.Context(), w.Path, w.Key)
		check(t, err)
		again, err := w.Again()
		check(t, err)
		_, err = gc.Collect(t.Context(), hooked{open.Store, func() error {
			w.Begin(again)
			if err := open.Do(t.Context(), again.Request); err != nil {
				return err
			}
			w.Done(again)
			for _, name := range slices.Collect(maps.Keys(w.Snaps)) {
				if w.Snaps[name].Group != w.Snaps[again.Name].Group || name == again.Name {
					continue
				}
				old := w.ForgetNow(name)
				w.Begin(old)
				if err := open.Do(t.Context(), old.Request); err != nil {
					return err
				}
				w.Done(old)
			}
			return nil
		}}, gc.Options{})
		check(t, err, open.Store.Close(), w.Judge(), w.RestoreAll())
	}
}

// knownChunkVanished: what the previous snapshot has need not be there any more.
// A backup that is acknowledged comes back all the same.
func knownChunkVanished(t *testing.T, w *lab.World) {
	for i, pack := range packs(t, w) {
		c := w.Clone(filepath.Join(filepath.Dir(w.Path), fmt.Sprint("clone", i)), uint64(i))
		check(t, c.Own(), lab.CopyTree(w.Path, c.Path), os.Remove(filepath.Join(c.Path, pack)))
		op, err := c.Again()
		check(t, err)
		if res, ok, err := c.Do(op); err != nil || ok {
			check(t, err)
			for archive := range c.Snaps[op.Name].Sums {
				check(t, c.RestoreOne(op.Name, archive))
			}
		} else if res.Code != lab.ExitIntegrity {
			t.Errorf("refused for another reason: %s", res)
		}
	}
}

// packs are the names of the packs in a repository.
func packs(t *testing.T, w *lab.World) (names []string) {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(w.Path, ".chunks", "packs", "*"))
	check(t, err)
	for _, name := range all {
		rel, err := filepath.Rel(w.Path, name)
		check(t, err)
		names = append(names, rel)
	}
	if len(names) < 3 {
		t.Fatalf("only %d packs", len(names))
	}
	return names
}

// timesOfFiles: nothing depends on when a file was read or written, nor on what
// another machine says about that.
func timesOfFiles(t *testing.T, w *lab.World) {
	for _, at := range []time.Time{time.Unix(0, 0), time.Now().AddDate(100, 0, 0), time.Now().AddDate(-3, 0, 0)} {
		err := filepath.WalkDir(w.Path, func(path string, _ fs.DirEntry, err error) error {
			return errors.Join(err, os.Chtimes(path, at, at))
		})
		check(t, err, w.MustDo(w.GC()), w.Judge(), w.RestoreAll(), w.GoOn())
	}
}

// withoutTheProof: somebody finds the proof of all references superfluous. With
// it a backup whose chunks have vanished is refused, without it, it is not, so that
// the removal would be noticed.
func withoutTheProof(t *testing.T, w *lab.World) {
	for i, tc := range []struct {
		patches []lab.Patch
		refused bool
	}{
		{nil, true},
		{[]lab.Patch{
			lab.Replace("datastore/finish.go", "if err := ss.prove(ctx, classes); err != nil {", "if err := error(nil); err != nil {"),
			// and the look at the packs themselves
			lab.Replace("chunkstore/pack/writer.go", "if st.Nlink == 0 || st.Size < upTo {", "if false {"),
		}, false},
	} {
		agent, err := here.BuildAgent(tc.patches...)
		check(t, err)
		c := w.Clone(filepath.Join(filepath.Dir(w.Path), fmt.Sprint("clone", i)), uint64(i))
		check(t, c.Own(), lab.CopyTree(w.Path, c.Path))
		op, err := c.Again()
		check(t, err)
		op.Kind = worker.Losing
		a, err := c.Agent(agent)
		check(t, err)
		check(t, a.Begin(op))
		_, answer, err := a.Next()
		check(t, err)
		if _, err := a.Kill(); err != nil {
			t.Error(err)
		}
		if refused := answer.Error != ""; refused != tc.refused {
			t.Errorf("patched %v: refused %v: %s", tc.patches != nil, refused, answer.Error)
		}
	}
}

// listingFails: a list that cannot be read, or is empty, is not an empty
// repository.
func listingFails(t *testing.T, w *lab.World) {
	before := size(t, w)
	for _, dir := range []string{"", "vm", "ct/two", "host"} {
		w.Wrap = lab.Strace("getdents64", "error=EIO:when=1+", filepath.Join(w.Path, dir))
		res, err := w.Run(w.Args(w.GC())...)
		w.Wrap = nil
		check(t, err)
		if dir != "" && res.Code == lab.ExitOK {
			t.Errorf("%s could not be listed, and garbage was collected: %s", dir, res)
		}
		check(t, w.Judge())
	}
	for _, dir := range []string{"vm", "ct", "host"} {
		check(t, os.Rename(filepath.Join(w.Path, dir), filepath.Join(w.Path, ".hidden-"+dir)))
	}
	res, err := w.Run("gc", "-r", w.Name)
	check(t, err)
	if res.Code == lab.ExitOK {
		t.Errorf("there was no snapshot at all, and garbage was collected: %s", res)
	}
	for _, dir := range []string{"vm", "ct", "host"} {
		check(t, os.Rename(filepath.Join(w.Path, ".hidden-"+dir), filepath.Join(w.Path, dir)))
	}
	if size(t, w) < before {
		t.Error("packs have become smaller")
	}
	check(t, w.Judge(), w.RestoreAll(), w.GoOn())
}

// size is how many bytes the packs have.
func size(t *testing.T, w *lab.World) (sum int64) {
	t.Helper()
	for _, name := range packs(t, w) {
		st, err := os.Stat(filepath.Join(w.Path, name))
		check(t, err)
		sum += st.Size()
	}
	return sum
}

// entriesAfterRewrite: after many rewrites of packs, a catalogue built anew knows
// what the one that was kept up to date knows.
func entriesAfterRewrite(t *testing.T, w *lab.World) {
	for range 30 {
		check(t, w.Step())
	}
	check(t, w.Judge())
	kept := status(t, w)
	check(t, w.Must("reindex", "-r", w.Name), w.Judge(), w.RestoreAll())
	if anew := status(t, w); anew != kept {
		t.Errorf("before the catalogue was built anew:\n%s\nafter:\n%s", kept, anew)
	}
}

// status is what the repository says about its chunks.
func status(t *testing.T, w *lab.World) string {
	t.Helper()
	res, err := w.Run("status", "-r", w.Name)
	check(t, err)
	var lines []string
	for line := range strings.Lines(res.Out) {
		if strings.Contains(line, "chunk") || strings.Contains(line, "pack") {
			lines = append(lines, line)
		}
	}
	if len(lines) == 0 {
		t.Fatal(res)
	}
	return strings.Join(lines, "")
}

// packLost: an index names what is not there. That is said, and the next backups
// of the same content heal it.
func packLost(t *testing.T, w *lab.World) {
	for i, pack := range packs(t, w) {
		c := w.Clone(filepath.Join(filepath.Dir(w.Path), fmt.Sprint("clone", i)), uint64(i))
		check(t, c.Own(), lab.CopyTree(w.Path, c.Path), os.Remove(filepath.Join(c.Path, pack)))
		newest := map[string]string{}
		for _, g := range lab.Groups() {
			op, err := c.AgainOf(g)
			check(t, err, c.MustDo(op))
			newest[g] = op.Name
		}
		for _, name := range newest {
			for archive := range c.Snaps[name].Sums {
				check(t, c.RestoreOne(name, archive))
			}
		}
	}
}

// futureParent: a snapshot of the future stands in nobody's way, in its own group and
// in others.
func futureParent(t *testing.T, w *lab.World) {
	const year = 365 * 86400
	w.Skip(10 * year)
	future, err := w.Backup("vm/1")
	check(t, err, w.MustDo(future))
	w.Skip(-10 * year)
	now, err := w.Backup("vm/1")
	check(t, err, w.MustDo(now), w.Judge())
	other, err := w.Backup("ct/two")
	check(t, err, w.MustDo(other), w.Judge())
	// Once it is gone, everything is as before.
	again, err := w.Backup("vm/1")
	check(t, err, w.MustDo(w.ForgetNow(future.Name)), w.MustDo(again), w.Judge(), w.RestoreAll())
}

// goneAfterMaintenance: a collection that is killed again and again, and one that
// comes to its end, leave everything in use.
func goneAfterMaintenance(t *testing.T, w *lab.World) {
	for i := range 25 {
		check(t, w.Step(), w.Step())
		w.Env, w.Wrap = lab.OneThread(), lab.Strace([]string{"unlinkat", "pwrite64", "fdatasync", "fsync", "renameat"}[i%5], fmt.Sprintf("signal=SIGKILL:when=%d", 1+i/5))
		_, _, err := w.Do(w.GC())
		w.Env, w.Wrap = nil, nil
		check(t, err, w.Judge())
	}
	check(t, w.MustDo(w.GC()), w.RestoreAll(), w.GoOn())
}

// repairRemovesNothing: repairing a healthy repository changes nothing, and
// repairing a damaged one removes nothing.
func repairRemovesNothing(t *testing.T, w *lab.World) {
	check(t, w.Judge())
	before := tree(t, w)
	r, err := verify.Repair(t.Context(), w.Path, verify.RepairOptions{})
	check(t, err)
	if after := tree(t, w); r.Changed || !slices.Equal(names(before), names(after)) {
		t.Errorf("a healthy repository was repaired: %+v", r)
	} else {
		for name, b := range before {
			if strings.Contains(name, "packs/") && !bytes.Equal(b, after[name]) {
				t.Errorf("%s was changed", name)
			}
		}
	}
	for i, pack := range packs(t, w) {
		b, err := os.ReadFile(filepath.Join(w.Path, pack))
		check(t, err, os.Chmod(filepath.Join(w.Path, pack), 0o600))
		b[len(b)/2] ^= 1 << (i % 8)
		check(t, os.WriteFile(filepath.Join(w.Path, pack), b, 0o600))
	}
	damaged := tree(t, w)
	_, err = verify.Repair(t.Context(), w.Path, verify.RepairOptions{})
	check(t, err)
	after := tree(t, w)
	for name := range damaged {
		if strings.HasPrefix(name, ".chunks/") && !strings.Contains(name, "packs/") {
			continue // what is rebuilt
		}
		// A pack that was being filled may have been sealed.
		if _, ok := after[strings.TrimSuffix(name, ".open")+".pack"]; ok && strings.HasSuffix(name, ".open") {
			continue
		}
		if _, ok := after[name]; !ok {
			t.Errorf("repairing has removed %s", name)
		}
	}
}

// tree is every file of a repository.
func tree(t *testing.T, w *lab.World) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	err := filepath.WalkDir(w.Path, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(w.Path, path)
		if err != nil {
			return err
		}
		files[rel], err = os.ReadFile(path)
		return err
	})
	check(t, err)
	return files
}

func names(files map[string][]byte) []string { return slices.Sorted(maps.Keys(files)) }

// catalogueWrecked: bbolt loses its file in all the ways it was seen to, torn first
// pages and an old version among them.
func catalogueWrecked(t *testing.T, w *lab.World) {
	path := filepath.Join(w.Path, ".chunks", "catalogue.db")
	old, err := os.ReadFile(path)
	check(t, err)
	for range 6 {
		check(t, w.Step())
	}
	const page = 4096
	for _, wreck := range []func(b []byte) []byte{
		func([]byte) []byte { return nil },
		func(b []byte) []byte { clear(b[:4*page]); return b },
		func(b []byte) []byte { clear(b[:page]); return b },
		func(b []byte) []byte { copy(b[:2*page], lab.Noise(1, 2*page)); return b },
		func(b []byte) []byte { return b[:len(b)/2] },
		func(b []byte) []byte { copy(b[2*page:], lab.Noise(2, len(b)-2*page)); return b },
		func([]byte) []byte { return old },
		func(b []byte) []byte { return append(b, make([]byte, page)...) },
	} {
		b, err := os.ReadFile(path)
		check(t, err, os.WriteFile(path, wreck(b), 0o600), w.Judge(), w.GoOn())
	}
	check(t, os.Remove(path), w.Judge(), w.GoOn(), w.RestoreAll())
}
