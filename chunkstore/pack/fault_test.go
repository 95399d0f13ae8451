package pack

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"holdfast/chunkstore"
	"holdfast/chunkstore/durable"
	"holdfast/chunkstore/pack/catalogue"
	"holdfast/chunkstore/pack/packfile"
	"holdfast/chunkstore/storetest"
)

// script is one life of a store: sessions of several sizes, one after the
// other and two at a time, with seals, and a second opening. It never stops
// at an error, and tells acked which chunks a Sync has vouched for.
func script(dir string, hook func(op, path string, change func() error) error, acked func([]chunkstore.Chunk)) error {
	var errs []error
	for life := range 2 {
		s, err := Open(bg, dir, Options{PackSize: 4096, hook: hook})
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for i := range 2 - life {
			errs = append(errs, scriptSessions(s, 100*life+30*i, acked))
		}
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

// scriptSessions runs two sessions side by side in one goroutine.
func scriptSessions(s *Store, first int, acked func([]chunkstore.Chunk)) error {
	a, aerr := s.Begin(bg)
	b, berr := s.Begin(bg)
	if aerr != nil || berr != nil {
		return errors.Join(aerr, berr)
	}
	var errs []error
	var mine, yours []chunkstore.Chunk
	for i, c := range chunks(first, 10) {
		se, list := a, &mine
		if i%3 == 0 {
			se, list = b, &yours
		}
		_, err := se.Put(bg, c)
		if err == nil {
			*list = append(*list, c)
		}
		errs = append(errs, err)
		if i == 6 {
			err := b.Sync(bg)
			if err == nil {
				acked(yours)
				acked(mine)
			}
			errs = append(errs, err)
		}
	}
	err := a.Sync(bg)
	if err == nil {
		acked(mine)
		acked(yours)
	}
	return errors.Join(append(errs, err, a.Close(), b.Close())...)
}

// ledger is what has been acknowledged.
type ledger struct {
	mu  sync.Mutex
	ack map[chunkstore.ID]chunkstore.Chunk
}

func newLedger() *ledger { return &ledger{ack: make(map[chunkstore.ID]chunkstore.Chunk)} }

func (l *ledger) add(cs []chunkstore.Chunk) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range cs {
		l.ack[c.ID] = c
	}
}

func (l *ledger) all() []chunkstore.Chunk {
	l.mu.Lock()
	defer l.mu.Unlock()
	var cs []chunkstore.Chunk
	for _, c := range l.ack {
		cs = append(cs, c)
	}
	return cs
}

// survives opens a store after an accident: it must open by itself, hold what
// was acknowledged, prove all that it names, and take more.
func survives(t *testing.T, dir string, acked []chunkstore.Chunk) {
	t.Helper()
	s := openAt(t, dir, Options{PackSize: 5000})
	holdsAll(t, s, acked)
	checkEverything(t, s)
	fill(t, s, chunks(1000, 6))
	holdsAll(t, s, chunks(1000, 6))
	closeStore(t, s)
	s = openAt(t, dir, Options{ReadOnly: true})
	if o := s.Opened(); o.Unclean || o.Rebuilt != nil || o.PacksMissing > 0 {
		t.Errorf("after a clean close: %+v", o)
	}
	holdsAll(t, s, acked)
	closeStore(t, s)
}

// TestFaultTable fails each change to the disk in turn, before it happens and
// after it has happened, with a full disk and with a broken one.
func TestFaultTable(t *testing.T) {
	for _, errno := range []error{unix.EIO, unix.ENOSPC} {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v,after=%v", errno, after), func(t *testing.T) {
				t.Parallel()
				n := 1
				for faultOnce(t, n, after, errno) {
					n++
				}
				if n < 50 {
					t.Errorf("only %d changes to the disk", n)
				}
			})
		}
	}
}

// faultOnce fails the n-th change and reports whether there was one.
func faultOnce(t *testing.T, n int, after bool, errno error) bool {
	var mu sync.Mutex
	count, hit := 0, ""
	hook := func(op, path string, change func() error) error {
		mu.Lock()
		count++
		now := count == n
		if now {
			hit = op + " " + filepath.Base(path)
		}
		mu.Unlock()
		if now && !after {
			return &os.PathError{Op: op, Path: path, Err: errno}
		}
		if err := change(); err != nil || !now {
			return err
		}
		return &os.PathError{Op: op, Path: path, Err: errno}
	}
	dir := create(t)
	l := newLedger()
	err := script(dir, hook, l.add)
	if hit == "" {
		if err != nil {
			t.Errorf("without a fault: %v", err)
		}
		return false
	}
	if err == nil && !harmless(hit, errno) {
		t.Errorf("fault %d, %s: nobody was told", n, hit)
	}
	if err != nil && !errors.Is(err, errno) {
		t.Errorf("fault %d, %s: the cause is not in %v", n, hit, err)
	}
	survives(t, dir, l.all())
	return true
}

// harmless are faults that the store gets over by itself. A full disk may keep
// the files for a quick start from being written, and a pack whose session has
// ended meanwhile from being sealed, and the reserve from being had.
func harmless(hit string, errno error) bool {
	if errno != unix.ENOSPC {
		return false
	}
	if strings.HasSuffix(hit, reserveName) {
		return true
	}
	if strings.HasSuffix(hit, packfile.OpenExt) {
		return strings.HasPrefix(hit, "write ") || strings.HasPrefix(hit, "chmod ")
	}
	return strings.HasPrefix(hit, "write "+catalogue.SumName) || strings.HasPrefix(hit, "write epoch") || strings.HasPrefix(hit, "overwrite epoch")
}

// TestFsyncFailsOnce is the rule of its own that a failed fsync makes the
// store read-only, whatever the error says.
func TestFsyncFailsOnce(t *testing.T) {
	for _, errno := range []error{unix.EIO, unix.ENOSPC, unix.EDQUOT} {
		syncs := 0
		o := Options{hook: func(op, path string, change func() error) error {
			if op != "sync" || !strings.HasSuffix(path, packfile.OpenExt) {
				return change()
			}
			if syncs++; syncs == 2 {
				return errno
			}
			return change()
		}}
		dir := create(t)
		s := openAt(t, dir, o)
		fill(t, s, chunks(0, 3))
		se, err := s.Begin(bg)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := se.Put(bg, chunks(3, 1)[0]); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if err := se.Sync(bg); !errors.Is(err, errno) {
				t.Errorf("sync: %v", err)
			}
		}
		if syncs != 2 {
			t.Errorf("fsync was called %d times: it was tried again", syncs)
		}
		if _, err := se.Put(bg, chunks(4, 1)[0]); !errors.Is(err, chunkstore.ErrReadOnly) || !errors.Is(err, errno) {
			t.Errorf("put: %v", err)
		}
		if _, err := s.Begin(bg); !errors.Is(err, chunkstore.ErrReadOnly) {
			t.Errorf("begin: %v", err)
		}
		holdsAll(t, s, chunks(0, 3))
		_ = s.Close()
		survives(t, dir, chunks(0, 3))
	}
}

// TestFsyncIsNotTriedAgain is what two goroutines could do to a pack: one seals it and
// is told that the medium has failed, and before the store knows, the other syncs it
// and would be told that all is well.
func TestFsyncIsNotTriedAgain(t *testing.T) {
	seal := func(w *writer) error { _, err := w.seal(); return err }
	sync := func(w *writer) error { return w.sync(w.end) }
	for _, c := range []struct {
		name, op    string
		first, then func(*writer) error
	}{
		{"sealed, then synced", "sync", seal, sync},
		{"synced, then sealed", "sync", sync, seal},
		{"synced twice", "sync", sync, sync},
		{"sealed twice", "sync", seal, seal},
		{"the directory", "syncdir", sync, sync},
		{"the name of a sealed pack", "rename", seal, sync},
	} {
		t.Run(c.name, func(t *testing.T) {
			calls := 0
			d := durable.Door{Hook: func(op, path string, change func() error) error {
				if op != c.op {
					return change()
				}
				if calls++; calls == 1 {
					return unix.EIO
				}
				return change()
			}}
			w, err := createWriter(d, t.TempDir(), 1)
			if err != nil {
				t.Fatal(err)
			}
			defer w.close()
			for i, act := range []func(*writer) error{c.first, c.then} {
				if err := act(w); !errors.Is(err, durable.ErrLost) || !errors.Is(err, unix.EIO) {
					t.Errorf("call %d: %v", i, err)
				}
			}
			if calls != 1 {
				t.Errorf("%s was called %d times", c.op, calls)
			}
		})
	}
}

// TestFullDiskFailsOneSession is the other rule: what does not fit fails the
// session that met it, and the store goes on when there is room again.
func TestFullDiskFailsOneSession(t *testing.T) {
	full := false
	o := smallPacks
	o.hook = func(op, path string, change func() error) error {
		if !full || op != "write" && op != "create" && op != "commit" {
			return change()
		}
		if op == "write" && strings.HasSuffix(path, packfile.OpenExt) {
			// Some of it still fits.
			if err := change(); err != nil {
				return err
			}
		}
		return unix.ENOSPC
	}
	dir := create(t)
	s := openAt(t, dir, o)
	fill(t, s, chunks(0, 3))
	se, err := s.Begin(bg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := se.Put(bg, chunks(3, 1)[0]); err != nil {
		t.Fatal(err)
	}
	full = true
	c := chunks(4, 1)[0]
	if _, err := se.Put(bg, c); !errors.Is(err, chunkstore.ErrNoSpace) || !strings.Contains(err.Error(), packfile.OpenExt) {
		t.Errorf("put on a full disk: %v", err)
	}
	storetest.Lacks(t, s, c.Key())
	if p := packsIn(t, dir)[0]; p.Size != int64(offsets(4)[4]) {
		t.Errorf("a torn record is left in the pack: %d bytes", p.Size)
	}
	if err := se.Sync(bg); !errors.Is(err, chunkstore.ErrNoSpace) {
		t.Errorf("sync of a failed session: %v", err)
	}
	other, err := s.Begin(bg)
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Sync(bg); !errors.Is(err, chunkstore.ErrNoSpace) {
		t.Errorf("sync on a full disk: %v", err)
	}
	holdsAll(t, s, chunks(0, 3))
	full = false
	if _, err := se.Put(bg, c); !errors.Is(err, chunkstore.ErrNoSpace) {
		t.Errorf("put in a failed session: %v", err)
	}
	_, _ = se.Close(), other.Close()
	fill(t, s, chunks(4, 20))
	holdsAll(t, s, chunks(0, 24))
	closeStore(t, s)
	survives(t, dir, chunks(0, 24))
}

// crashDisk records what a power cut would leave: which files have been synced
// up to where, and which names are durable.
type crashDisk struct {
	mu     sync.Mutex
	synced map[string]int64 // by path, for packs being filled
	named  map[string]bool  // packs whose directory entry is durable
}

func (d *crashDisk) note(op, path string) {
	switch {
	case op == "sync":
		if st, err := os.Stat(path); err == nil {
			d.synced[path] = st.Size()
		}
	case op == "syncdir" || op == "rename":
		for p := range d.synced {
			d.named[p] = true
		}
	}
}

// leave makes a copy of the store as a power cut would leave it: of each pack
// being filled any part that was not synced may be missing or zero.
func (d *crashDisk) leave(t *testing.T, dir string, r *rand.Rand) string {
	to := copyTree(t, dir)
	for _, p := range packsIn(t, dir) {
		if p.State != packfile.StateOpen {
			continue
		}
		safe, copied := d.synced[packPath(dir, p)], packPath(to, p)
		if !d.named[packPath(dir, p)] && r.IntN(2) == 0 {
			remove(t, copied)
			continue
		}
		if p.Size <= safe {
			continue
		}
		edit(t, copied, func(b []byte) []byte {
			cut := safe + r.Int64N(p.Size-safe+1)
			switch r.IntN(3) {
			case 0: // the tail is gone
				return b[:cut]
			case 1: // the size is there, the bytes are not
				clear(b[cut:])
			case 2: // a block in the middle is not
				clear(b[cut:min(p.Size, cut+512)])
			}
			return b
		})
	}
	return to
}

// TestCrashAtEveryStep runs the script once and takes, before and after every
// change to the disk, a copy as a kill or a power cut at this point would
// leave it. Each copy must open by itself and hold what had been acknowledged.
func TestCrashAtEveryStep(t *testing.T) {
	type state struct {
		dir   string
		at    string
		acked []chunkstore.Chunk
	}
	var states []state
	d := &crashDisk{synced: make(map[string]int64), named: make(map[string]bool)}
	r := rand.New(rand.NewPCG(3, 4))
	dir := create(t)
	l := newLedger()
	step := 0
	hook := func(op, path string, change func() error) error {
		d.mu.Lock()
		defer d.mu.Unlock()
		step++
		if step%2 == 0 {
			states = append(states, state{copyTree(t, dir), fmt.Sprintf("kill before step %d, %s %s", step, op, filepath.Base(path)), l.all()})
		} else {
			states = append(states, state{d.leave(t, dir, r), fmt.Sprintf("power cut before step %d, %s %s", step, op, filepath.Base(path)), l.all()})
		}
		err := change()
		if err == nil {
			d.note(op, path)
		}
		return err
	}
	if err := script(dir, hook, l.add); err != nil {
		t.Fatal(err)
	}
	if len(l.all()) != 30 || len(states) < 100 {
		t.Fatalf("%d chunks acknowledged in %d steps", len(l.all()), step)
	}
	for _, st := range states {
		t.Run(st.at, func(t *testing.T) { survives(t, st.dir, st.acked) })
	}
}

// TestReadErrors gives a store records that cannot be read: a bad sector is
// damage with a name, a lack of descriptors is not damage.
func TestReadErrors(t *testing.T) {
	c := storetest.Chunk(1, 500)
	whole, es := buildPack([]chunkstore.Chunk{c}, false)
	path := filepath.Join(t.TempDir(), testPack.String()+packfile.OpenExt)
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	h := newHandles(filepath.Dir(path))
	defer h.closeAll()
	e, err := h.acquire(testPack, packfile.StateOpen)
	if err != nil {
		t.Fatal(err)
	}
	l := catalogue.Locate(0, es[0])
	rr := recordReader{buf: make([]byte, es[0].Size()), prove: true}
	if err := rr.read(e, c.Key(), l); err != nil {
		t.Fatal(err)
	}
	e.f.Close()
	if err := rr.read(e, c.Key(), l); err == nil || errors.Is(err, chunkstore.ErrCorrupt) {
		t.Errorf("closed file: %v", err)
	}
	if _, err := h.acquire(packfile.ID{1}, packfile.StateOpen); !errors.Is(err, chunkstore.ErrCorrupt) {
		t.Errorf("missing pack: %v", err)
	}
}

// TestCanceledSyncHarmsNothing gives up in the middle of a sync.
func TestCanceledSyncHarmsNothing(t *testing.T) {
	ctx, cancel := context.WithCancel(bg)
	o := smallPacks
	o.hook = func(op, path string, change func() error) error {
		if op == "sync" && strings.HasSuffix(path, packfile.OpenExt) {
			cancel()
		}
		return change()
	}
	dir := create(t)
	s := openAt(t, dir, o)
	a, err := s.Begin(bg)
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.Begin(bg)
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range chunks(0, 8) {
		se := a
		if i%2 == 0 {
			se = b
		}
		if _, err := se.Put(bg, c); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Sync(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	holdsAll(t, s, chunks(0, 8))
	if err := errors.Join(a.Sync(bg), a.Close(), b.Close()); err != nil {
		t.Fatal(err)
	}
	kill(t, s)
	survives(t, dir, chunks(0, 8))
}
