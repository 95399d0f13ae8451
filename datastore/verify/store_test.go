package verify_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"holdfast/chunkstore"
	"holdfast/chunkstore/blob"
	"holdfast/crypto"
	"holdfast/datastore"
	"holdfast/datastore/index"
	"holdfast/datastore/manifest"
	"holdfast/datastore/verify"
	"holdfast/datastore/wire"
)

// shop is a real store with two snapshots of one group and one of another.
type shop struct {
	t     *testing.T
	path  string
	codec *blob.Codec
	store *datastore.Store
}

func other(time int64) wire.Snapshot {
	return wire.Snapshot{Group: wire.Group{NS: "a", Type: "ct", ID: "7"}, Time: time}
}

func newShop(t *testing.T) *shop {
	t.Helper()
	codec, err := blob.NewCodec(blob.Options{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	s := &shop{t: t, path: filepath.Join(t.TempDir(), "store"), codec: codec}
	if err := datastore.Create(s.path, datastore.CreateOptions{TrashDays: datastore.TrashDaysDefault}); err != nil {
		t.Fatal(err)
	}
	s.open(datastore.Options{})
	t.Cleanup(func() { s.close() })
	s.backup(snapshot(10), "one", "two", "three")
	s.backup(snapshot(20), "two", "four")
	s.backup(other(10), "two", "five")
	return s
}

func (s *shop) open(o datastore.Options) {
	s.t.Helper()
	st, err := datastore.Open(s.t.Context(), s.path, o)
	if err != nil {
		s.t.Fatal(err)
	}
	s.store = st
}

func (s *shop) close() {
	s.t.Helper()
	if s.store == nil {
		return
	}
	if err := s.store.Close(); err != nil {
		s.t.Errorf("close: %v", err)
	}
	s.store = nil
}

// content is the content of a chunk; long enough that compression leaves
// something to damage.
func content(word string) chunkstore.Plain {
	h := crypto.Sum([]byte(word))
	return chunkstore.Plain(word + string(h[:]) + word)
}

func (s *shop) id(word string) chunkstore.ID { return s.codec.Name(content(word)) }

// backup stores a snapshot of one archive and returns how many chunks were new.
func (s *shop) backup(snap wire.Snapshot, words ...string) (added int) {
	s.t.Helper()
	ctx := s.t.Context()
	ss, err := s.store.BeginSession(ctx, datastore.SessionOptions{Snapshot: snap})
	if err != nil {
		s.t.Fatal(err)
	}
	defer ss.Close()
	w, err := ss.Create(ctx, "disk.img.didx", -1)
	if err != nil {
		s.t.Fatal(err)
	}
	sum, off := index.NewSummer(index.Dynamic), uint64(0)
	for _, word := range words {
		raw, err := s.codec.Encode(nil, content(word))
		if err != nil {
			s.t.Fatal(err)
		}
		e := index.Entry{Off: off, Size: uint32(len(content(word))), ID: s.id(word)}
		put, err := ss.PutChunk(ctx, "disk.img.didx", chunkstore.Chunk{ID: e.ID, PlainSize: e.Size, Blob: raw})
		if err != nil {
			s.t.Fatal(err)
		}
		if put.Added {
			added++
		}
		sum.Add(e)
		off += uint64(e.Size)
		if err := w.Append(ctx, []index.Entry{e}); err != nil {
			s.t.Fatal(err)
		}
	}
	total := sum.Summary()
	if err := w.Close(ctx, total); err != nil {
		s.t.Fatal(err)
	}
	m := manifest.Manifest{Type: snap.Group.Type, ID: snap.Group.ID, Time: snap.Time,
		Files: []manifest.File{{Name: "disk.img.didx", CryptMode: crypto.ModeNone, Size: total.Size, Csum: total.Csum}}}
	raw, err := m.Blob()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := errors.Join(ss.Blob(ctx, wire.ManifestName, raw), ss.Finish(ctx)); err != nil {
		s.t.Fatal(err)
	}
	return added
}

// packFile returns the one pack of the store and its content.
func (s *shop) packFile() (path string, b []byte) {
	s.t.Helper()
	list, err := filepath.Glob(filepath.Join(s.path, ".chunks", "packs", "*"))
	if err != nil || len(list) != 1 {
		s.t.Fatalf("packs %v, %v", list, err)
	}
	if b, err = os.ReadFile(list[0]); err != nil {
		s.t.Fatal(err)
	}
	return list[0], b
}

// damage changes a byte of the record of a chunk: at counts from where its
// stored bytes begin, and is negative for one in its header.
func (s *shop) damage(word string, at int) {
	s.t.Helper()
	raw, err := s.codec.Encode(nil, content(word))
	if err != nil {
		s.t.Fatal(err)
	}
	path, b := s.packFile()
	i := bytes.Index(b, raw)
	if i < 0 {
		s.t.Fatalf("chunk %q is not in the pack", word)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		s.t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	_, err = f.WriteAt([]byte{b[i+at] ^ 0x20}, int64(i+at))
	if err := errors.Join(err, f.Close()); err != nil {
		s.t.Fatal(err)
	}
}

func (s *shop) verify(o verify.StoreOptions) verify.StoreReport {
	s.t.Helper()
	r, err := verify.Store(s.t.Context(), s.store, o)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// names lists what is affected.
func names(r verify.StoreReport) string {
	var list []string
	for _, a := range r.Affected {
		list = append(list, string(a.Snapshot.Group.NS)+":"+a.Snapshot.String()+"/"+a.File)
	}
	return strings.Join(list, " ")
}

// whole fails the test unless every snapshot opens chunk by chunk.
func (s *shop) whole() {
	s.t.Helper()
	v := verify.New(verify.Options{Source: s.store})
	for _, snap := range []wire.Snapshot{snapshot(10), snapshot(20), other(10)} {
		r, err := v.Snapshot(s.t.Context(), snap)
		if err != nil || !r.OK() {
			s.t.Errorf("%s: %+v, %v", snap, r, err)
		}
	}
}

func TestStoreOfAHealthyOne(t *testing.T) {
	s := newShop(t)
	p := new(verify.Progress)
	r := s.verify(verify.StoreOptions{Progress: p})
	if !r.OK() || !r.Whole() || r.Snapshots != 3 || r.Scrub.Chunks != 5 || r.Lost+r.Missing > 0 {
		t.Errorf("%+v", r)
	}
	if p.Total.Load() == 0 || p.Done.Load() != p.Total.Load() {
		t.Errorf("progress %d of %d", p.Done.Load(), p.Total.Load())
	}
	s.whole()
}

// TestStoreTellsWhatIsAffected damages one chunk at a time.
func TestStoreTellsWhatIsAffected(t *testing.T) {
	const a, b, c = ":vm/100/1970-01-01T00:00:10Z/disk.img.didx", ":vm/100/1970-01-01T00:00:20Z/disk.img.didx", "a:ct/7/1970-01-01T00:00:10Z/disk.img.didx"
	for word, want := range map[string][]string{"one": {a}, "two": {a, b, c}, "four": {b}, "five": {c}} {
		for _, at := range []int{20, -30} {
			s := newShop(t)
			s.damage(word, at)
			var found []verify.Affected
			r := s.verify(verify.StoreOptions{UPID: "UPID:x", Found: func(f verify.Affected) { found = append(found, f) }})
			got := strings.Fields(names(r))
			if r.OK() || r.Lost != 1 || r.Missing != 0 || r.Damaged != len(want) || len(found) != len(want) || !sameWords(got, want) {
				t.Errorf("%s at %d: %+v", word, at, r)
			}
			for _, f := range r.Affected {
				if f.Chunks != 1 || f.First != s.id(word) || !errors.Is(f.Err, chunkstore.ErrCorrupt) {
					t.Errorf("%s: %+v", word, f)
				}
			}
			s.stateIs(snapshot(10), len(want) == 3 || want[0] == a)
			s.stateIs(other(10), want[len(want)-1] == c)

			// The next backup that has the chunk makes all of them whole.
			if added := s.backup(wire.Snapshot{Group: wire.Group{Type: "vm", ID: "1"}, Time: 30}, word); added != 1 {
				t.Errorf("%s: the next backup added %d chunks", word, added)
			}
			if r := s.verify(verify.StoreOptions{}); !r.Whole() || r.OK() {
				t.Errorf("%s: after the next backup: %+v", word, r)
			}
			s.whole()
			s.close()
		}
	}
}

func sameWords(a, b []string) bool {
	set := make(map[string]bool)
	for _, w := range b {
		set[w] = true
	}
	for _, w := range a {
		if !set[w] {
			return false
		}
	}
	return len(a) == len(b)
}

// stateIs checks the verification state of a snapshot.
func (s *shop) stateIs(snap wire.Snapshot, failed bool) {
	s.t.Helper()
	list, err := s.store.Snapshots(s.t.Context(), snap.Group)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, i := range list {
		if i.Snapshot == snap && (i.Verify != nil && i.Verify.State == wire.VerifyFailed) != failed {
			s.t.Errorf("%s: state %+v, want failed %v", snap, i.Verify, failed)
		}
	}
}

// TestStoreAtASecondLook finds what an earlier scrub has put in quarantine, and
// needs no second reading for that.
func TestStoreAtASecondLook(t *testing.T) {
	s := newShop(t)
	s.damage("two", 20)
	s.verify(verify.StoreOptions{})
	s.close()
	s.open(datastore.Options{})
	r := s.verify(verify.StoreOptions{NoScrub: true})
	if r.Missing != 1 || r.Damaged != 3 || r.Scrub.Packs != 0 {
		t.Errorf("%+v", r)
	}
}

// TestStoreWithoutItsPack has nothing but the indexes left.
func TestStoreWithoutItsPack(t *testing.T) {
	s := newShop(t)
	s.close()
	path, _ := s.packFile()
	if err := os.Rename(path, filepath.Join(t.TempDir(), filepath.Base(path))); err != nil {
		t.Fatal(err)
	}
	s.open(datastore.Options{})
	r := s.verify(verify.StoreOptions{})
	if r.Missing != 5 || r.Damaged != 3 || len(r.Affected) != 3 || r.Affected[0].Chunks < 2 {
		t.Errorf("%+v", r)
	}
}

// TestStoreLooksIntoTheTrash damages a chunk of a snapshot that was removed and
// can be brought back.
func TestStoreLooksIntoTheTrash(t *testing.T) {
	s := newShop(t)
	if err := s.store.Forget(t.Context(), snapshot(20)); err != nil {
		t.Fatal(err)
	}
	if r := s.verify(verify.StoreOptions{}); !r.OK() || r.Snapshots != 3 {
		t.Errorf("%+v", r)
	}
	s.damage("four", 20)
	r := s.verify(verify.StoreOptions{})
	if r.Damaged != 1 || len(r.Affected) != 1 || !r.Affected[0].Deleted || r.Affected[0].Snapshot != snapshot(20) {
		t.Errorf("%+v", r)
	}
}

func TestStoreFindsDamagedFiles(t *testing.T) {
	for _, name := range []string{"disk.img.didx", wire.ManifestName} {
		s := newShop(t)
		path := filepath.Join(s.path, "vm", "100", "1970-01-01T00:00:10Z", name)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)-2] ^= 1
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		r := s.verify(verify.StoreOptions{})
		if r.Damaged != 1 || len(r.Affected) == 0 || r.Affected[0].Snapshot != snapshot(10) || r.Affected[0].File != name {
			t.Errorf("%s: %+v", name, r)
		}
		s.close()
	}
}

// TestStoreFindsAnotherChecksumInAHeader: other programs compare it. The content
// is right, so nothing keeps it from being restored.
func TestStoreFindsAnotherChecksumInAHeader(t *testing.T) {
	s := newShop(t)
	path := filepath.Join(s.path, "vm", "100", "1970-01-01T00:00:20Z", "disk.img.didx")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[63] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	look := func(deleted bool) {
		t.Helper()
		r := s.verify(verify.StoreOptions{NoMark: true})
		if r.OK() || r.Damaged != 1 || len(r.Affected) != 1 || r.Lost+r.Missing > 0 {
			t.Fatalf("%+v", r)
		}
		if a := r.Affected[0]; a.Snapshot != snapshot(20) || a.Deleted != deleted || a.File != "disk.img.didx" || a.Chunks != 0 || !errors.Is(a.Err, chunkstore.ErrCorrupt) {
			t.Errorf("%+v", a)
		}
	}
	look(false)
	r, err := verify.New(verify.Options{Source: s.store}).Snapshot(t.Context(), snapshot(20))
	if err != nil || r.Count != 1 || r.Chunks != 2 || r.Problems[0].File != "disk.img.didx" {
		t.Errorf("the snapshot: %+v, %v", r, err)
	}
	if err := s.store.Forget(t.Context(), snapshot(20)); err != nil {
		t.Fatal(err)
	}
	look(true)
}

// TestStoreFindsALostManifest: no list shows the snapshot, and the last one
// takes its group and namespace out of the lists as well.
func TestStoreFindsALostManifest(t *testing.T) {
	for _, snap := range []wire.Snapshot{snapshot(10), snapshot(20), other(10)} {
		s := newShop(t)
		found, err := filepath.Glob(filepath.Join(s.path, "vm/100", snap.TimeString(), wire.ManifestName))
		if snap.Group.NS != "" {
			found, err = filepath.Glob(filepath.Join(s.path, "ns/a/ct/7", snap.TimeString(), wire.ManifestName))
		}
		if err != nil || len(found) != 1 {
			t.Fatalf("manifests %q, %v", found, err)
		}
		if err := os.Remove(found[0]); err != nil {
			t.Fatal(err)
		}
		r := s.verify(verify.StoreOptions{})
		if r.Snapshots != 3 || r.Damaged != 1 || len(r.Affected) != 1 {
			t.Fatalf("%s: %+v", snap, r)
		}
		if a := r.Affected[0]; a.Snapshot != snap || a.Deleted || a.File != wire.ManifestName || !errors.Is(a.Err, chunkstore.ErrCorrupt) {
			t.Errorf("%s: %+v", snap, a)
		}
		s.close()
	}
}

func TestStoreIsInterrupted(t *testing.T) {
	s := newShop(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := verify.Store(ctx, s.store, verify.StoreOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// tree reads all files of a directory.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		all[path] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func repair(t *testing.T, path string) verify.RepairReport {
	t.Helper()
	r, err := verify.Repair(t.Context(), path, verify.RepairOptions{LockWait: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRepairOfAHealthyStoreChangesNothing(t *testing.T) {
	s := newShop(t)
	s.close()
	before := tree(t, s.path)
	r := repair(t, s.path)
	if r.Changed || r.Configured || !r.Before.OK() || !r.After.OK() {
		t.Errorf("%+v", r)
	}
	after := tree(t, s.path)
	for path, b := range after {
		if before[path] != b {
			t.Errorf("%s was changed or made", path)
		}
	}
	if len(after) != len(before) {
		t.Errorf("%d files, before there were %d", len(after), len(before))
	}
}

// TestRepair damages a closed store; what can be rebuilt is whole afterwards,
// what cannot is known, and nothing is gone.
func TestRepair(t *testing.T) {
	for name, c := range map[string]struct {
		damage func(*testing.T, *shop)
		whole  bool
	}{
		"stored bytes": {func(_ *testing.T, s *shop) { s.damage("two", 20) }, false},
		"configuration": {func(t *testing.T, s *shop) {
			if err := os.Remove(filepath.Join(s.path, "holdfast.json")); err != nil {
				t.Fatal(err)
			}
		}, true},
		"catalogue": {func(t *testing.T, s *shop) {
			if err := os.WriteFile(filepath.Join(s.path, ".chunks", "catalogue.db"), []byte("nonsense"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newShop(t)
			s.close()
			before := tree(t, s.path)
			c.damage(t, s)
			r := repair(t, s.path)
			if r.After.Whole() != c.whole {
				t.Errorf("%+v", r)
			}
			for path := range before {
				if strings.Contains(path, "/packs/") {
					base := strings.TrimSuffix(strings.TrimSuffix(path, ".open"), ".pack")
					if list, err := filepath.Glob(base + ".*"); err != nil || len(list) == 0 {
						t.Errorf("%s is gone", path)
					}
				}
			}
			s.open(datastore.Options{})
			if added := s.backup(snapshot(30), "two"); (added == 1) == c.whole {
				t.Errorf("the next backup added %d chunks", added)
			}
			s.whole()
		})
	}
}

// TestOwnerThatCannotBeRead is found by a verification and made anew by a
// repair, which touches nothing else.
func TestOwnerThatCannotBeRead(t *testing.T) {
	for name, content := range map[string]string{"empty": "", "garbled": "\x00\x00\x00\x00", "long": strings.Repeat("x", 1000)} {
		t.Run(name, func(t *testing.T) {
			s := newShop(t)
			if err := s.store.Forget(t.Context(), snapshot(10)); err != nil {
				t.Fatal(err)
			}
			if err := s.store.SetOwner(t.Context(), other(10).Group, "ann@pbs"); err != nil {
				t.Fatal(err)
			}
			s.close()
			for _, g := range []string{"vm/100", "ns/a/ct/7"} {
				if err := os.WriteFile(filepath.Join(s.path, g, "owner"), []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			s.open(datastore.Options{})
			if _, err := s.store.Begin(t.Context(), snapshot(30)); !errors.Is(err, chunkstore.ErrCorrupt) || !strings.Contains(err.Error(), "repair") {
				t.Errorf("begin: %v", err)
			}
			var found []string
			r, err := verify.Store(t.Context(), s.store, verify.StoreOptions{Found: func(a verify.Affected) { found = append(found, a.Name()+" "+a.File) }})
			if err != nil || r.OK() || !r.Whole() || len(found) != 2 {
				t.Errorf("found %q in %+v, %v", found, r, err)
			}
			s.close()
			report, err := verify.Repair(t.Context(), s.path, verify.RepairOptions{})
			if err != nil || report.Changed || !report.After.OK() || len(report.Owners) != 2 {
				t.Errorf("repair: %+v, %v", report, err)
			}
			s.open(datastore.Options{})
			s.backup(snapshot(30), "one")
			if owner, err := s.store.Owner(snapshot(30).Group); err != nil || owner != wire.RootUser {
				t.Errorf("owner %q, %v", owner, err)
			}
		})
	}
}
