package datastore_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"holdfast/chunkstore"
	"holdfast/chunkstore/pack"
	"holdfast/datastore"
	"holdfast/datastore/wire"
)

// resumed returns what a session is told of an interrupted one.
func resumed(t *testing.T, ss *datastore.Session) []chunkstore.ID {
	t.Helper()
	list, err := ss.Resume(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var ids []chunkstore.ID
	for _, c := range list {
		ids = append(ids, c.ID)
	}
	return ids
}

func lists(t *testing.T, store string) []os.DirEntry {
	t.Helper()
	names, err := os.ReadDir(filepath.Join(store, ".resume"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return names
}

func TestResumeAfterABackupThatWasGivenUp(t *testing.T) {
	l := newLab(t)
	ss := l.foreign(at(10), "eve@pbs")
	if got := resumed(t, ss); got != nil {
		t.Errorf("the first backup resumes %v", got)
	}
	var want []chunkstore.ID
	for _, content := range []string{"one", "two", "two", "three"} {
		if id := l.put(ss, content).ID; !slices.Contains(want, id) {
			want = append(want, id)
		}
	}
	if got := resumed(t, ss); got != nil {
		t.Errorf("a session resumes itself: %v", got)
	}
	ss.Close()

	other := l.foreign(wire.Snapshot{Group: wire.Group{Type: "vm", ID: "101"}, Time: 10}, "eve@pbs")
	if got := resumed(t, other); got != nil {
		t.Errorf("another group resumes %v", got)
	}
	other.Close()

	// A second interruption loses nothing.
	ss = l.foreign(at(20), "eve@pbs")
	want = append(want, l.put(ss, "four").ID)
	ss.Close()
	ss = l.foreign(at(30), "eve@pbs")
	got := resumed(t, ss)
	for _, id := range want {
		if !slices.Contains(got, id) {
			t.Errorf("chunk %s is not resumed", id.Short())
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d chunks are resumed, want %d", len(got), len(want))
	}
	l.finish(ss)
	ss.Close()
	if left := lists(t, l.path); len(left) != 0 {
		t.Errorf("a finished backup leaves %v", left)
	}
	ss = l.foreign(at(40), "eve@pbs")
	if got := resumed(t, ss); got != nil {
		t.Errorf("after a finished backup %v is resumed", got)
	}
}

// A token and its user share groups, but not what they have sent.
func TestResumeIsForTheSameOwner(t *testing.T) {
	l := newLab(t)
	ss := l.foreign(at(10), "eve@pbs!night")
	l.put(ss, "one")
	ss.Close()
	ss = l.foreign(at(20), "eve@pbs")
	if got := resumed(t, ss); got != nil {
		t.Errorf("somebody else resumes %v", got)
	}
	ss.Close()
	if got := resumed(t, l.foreign(at(20), "eve@pbs!night")); len(got) != 1 {
		t.Errorf("the owner resumes %v", got)
	}
}

func TestResumeAfterAKill(t *testing.T) {
	l := newLab(t)
	// Chunks of a finished snapshot are on the medium.
	l.store(at(10), "eve@pbs")
	ss := l.foreign(at(20), "eve@pbs")
	want := l.put(ss, "content").ID
	l.put(ss, "may be lost")
	killed := l.kill()

	s := open(t, killed, datastore.Options{})
	if left, err := os.ReadDir(filepath.Join(killed, ".tmp")); err != nil || len(left) != 0 {
		t.Errorf("left in .tmp: %v %v", left, err)
	}
	next, err := s.BeginSession(t.Context(), datastore.SessionOptions{Snapshot: at(30), Owner: "eve@pbs", Foreign: true})
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	got := resumed(t, next)
	if !slices.Contains(got, want) {
		t.Errorf("resumes %v, want %s among them", got, want.Short())
	}
	r, err := s.Open(t.Context(), at(10))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var refs []chunkstore.Ref
	err = next.EachResumed(t.Context(), func(part []chunkstore.Ref) error {
		refs = append(refs, part...)
		return nil
	})
	if err != nil || len(refs) != len(got) {
		t.Errorf("%d chunks with classes of %d, %v", len(refs), len(got), err)
	}
	for _, ref := range refs {
		if _, err := r.Get(t.Context(), ref); err != nil {
			t.Errorf("chunk %s: %v", ref.ID.Short(), err)
		}
	}
}

// What a session was told it need not send must be there in the end, and what
// nobody counts on is not promised.
func TestSweepSparesWhatIsResumed(t *testing.T) {
	for _, asked := range []bool{true, false} {
		l := newLab(t)
		ss := l.foreign(at(10), "eve@pbs")
		id := l.put(ss, "one").ID
		l.fillPack(ss)
		ss.Close()
		ss = l.foreign(at(20), "eve@pbs")
		if asked {
			if got := resumed(t, ss); !slices.Contains(got, id) {
				t.Fatalf("resumes %v", got)
			}
		}
		l.sweepAll()
		if got := resumed(t, ss); slices.Contains(got, id) != asked {
			t.Errorf("asked before the sweep: %v, resumed after it: %v", asked, got)
		}
	}
}

// Who breaks off the question what is there counts on nothing: a collection ends the list,
// or it would tell afterwards which of it others have.
func TestSweepEndsAListThatWasNotReadToItsEnd(t *testing.T) {
	l := newLab(t)
	ss := l.foreign(at(10), "eve@pbs")
	id := l.put(ss, "one").ID
	l.fillPack(ss)
	ss.Close()
	ss = l.foreign(at(20), "eve@pbs")
	broken := errors.New("broken off")
	if err := ss.EachResumed(t.Context(), func([]chunkstore.Ref) error { return broken }); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	l.sweepAll()
	if got := resumed(t, ss); slices.Contains(got, id) {
		t.Errorf("after a sweep %v are resumed", got)
	}
}

// fillPack puts so much that the first pack is full, and a sweep may take it.
func (l *lab) fillPack(ss *datastore.Session) {
	l.t.Helper()
	random := rand.NewChaCha8([32]byte{})
	content := make([]byte, chunkstore.PlainSizeMax)
	for size := 0; size <= pack.PackSizeDefault; size += len(content) {
		random.Read(content)
		l.put(ss, string(content))
	}
}

// sweepAll removes every chunk that no session counts on.
func (l *lab) sweepAll() {
	l.t.Helper()
	sweep, err := l.BeginSweep(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	defer sweep.Close()
	none := func(chunkstore.Key) bool { return false }
	if _, err := sweep.Run(l.t.Context(), none, pack.SweepOptions{}); err != nil {
		l.t.Fatal(err)
	}
}

func TestResumeListGoesWithItsGroup(t *testing.T) {
	l := newLab(t)
	ss := l.foreign(at(10), "eve@pbs")
	l.put(ss, "one")
	ss.Close()
	if left := lists(t, l.path); len(left) != 1 {
		t.Fatalf("lists: %v", left)
	}
	if _, err := l.ForgetGroup(t.Context(), group); err != nil {
		t.Fatal(err)
	}
	if left := lists(t, l.path); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// A list that is damaged costs time and nothing else.
func TestResumeListDamaged(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"empty":          func(b []byte) []byte { return nil },
		"other magic":    func(b []byte) []byte { b[0]++; return b },
		"other key":      func(b []byte) []byte { b[20]++; return b },
		"torn":           func(b []byte) []byte { return b[:len(b)-1] },
		"name of zeros":  func(b []byte) []byte { clear(b[48:80]); return b },
		"immense size":   func(b []byte) []byte { copy(b[80:], "\xff\xff\xff\xff"); return b },
		"chunk not here": func(b []byte) []byte { b[48]++; return b },
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			ss := l.foreign(at(10), "eve@pbs")
			l.put(ss, "one")
			ss.Close()
			file := filepath.Join(l.path, ".resume", lists(t, l.path)[0].Name())
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, damage(raw), 0o600); err != nil {
				t.Fatal(err)
			}
			ss = l.foreign(at(20), "eve@pbs")
			if got := resumed(t, ss); got != nil {
				t.Errorf("resumes %v", got)
			}
			l.finish(ss)
		})
	}
}

// What a session is told of an interrupted one after a collection is what it has sent
// since, whatever others have: else everybody could ask what is stored.
func TestCollectionEndsWhatCanBeResumed(t *testing.T) {
	for name, c := range map[string]struct {
		during bool // the session that has sent the chunks lives until the sweep has begun
		open   bool // the next one has begun before it
		asked  bool // and has asked
		want   bool
	}{
		"ended before":              {},
		"ended while it runs":       {during: true, want: true},
		"gone on with, not asked":   {open: true},
		"gone on with, and counted": {open: true, asked: true, want: true},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			other := l.foreign(wire.Snapshot{Group: wire.Group{Type: "vm", ID: "200"}, Time: 10}, "bob@pbs")
			secret := l.put(other, "secret")
			l.finish(other)
			l.must(other.Close())
			ss := l.foreign(at(10), "eve@pbs")
			old := []chunkstore.ID{l.put(ss, "secret").ID, l.put(ss, "control").ID}
			if !c.during {
				l.must(ss.Close())
			}
			if c.open {
				ss = l.foreign(at(20), "eve@pbs")
				if c.asked && len(resumed(t, ss)) != 2 {
					t.Fatal("there is nothing to resume before the collection")
				}
			}
			sweep, err := l.BeginSweep(t.Context())
			l.must(err)
			if c.during {
				before := sweep.Before
				sweep.Before = func(ctx context.Context) error { return errors.Join(before(ctx), ss.Close()) }
			}
			_, err = sweep.Run(t.Context(), func(k chunkstore.Key) bool { return k.ID == secret.ID }, pack.SweepOptions{Waste: 0.001})
			l.must(err)
			sweep.Close()
			var fresh chunkstore.ID
			if c.open {
				fresh = l.put(ss, "fresh").ID
				l.must(ss.Close())
			}
			got := resumed(t, l.foreign(at(30), "eve@pbs"))
			for _, id := range old {
				if slices.Contains(got, id) != c.want {
					t.Errorf("of the secret %s and the control %s %v is resumed, want both: %v", old[0].Short(), old[1].Short(), got, c.want)
				}
			}
			if c.open && !slices.Contains(got, fresh) {
				t.Errorf("what was sent since is not resumed: %v", got)
			}
		})
	}
}

// A session that has sent nothing leaves nothing, and its group is its own all the same
// until a collection.
func TestGroupsThatHoldNothingLeaveNothing(t *testing.T) {
	l := newLab(t)
	entries := func() (n int) {
		l.must(filepath.WalkDir(l.path, func(path string, e os.DirEntry, err error) error {
			n++
			return err
		}))
		return n
	}
	named := func(id string, time int64) wire.Snapshot {
		return wire.Snapshot{Group: wire.Group{Type: "vm", ID: id}, Time: time}
	}
	l.must(l.foreign(named("1", 10), "eve@pbs").Close())
	before := entries()
	for i := range 20 {
		l.must(l.foreign(named(fmt.Sprint(i), 10), "eve@pbs").Close())
	}
	if n := entries(); n != before {
		t.Errorf("20 empty sessions leave %d files and directories", n-before)
	}
	begin := func(owner wire.AuthID) error {
		ss, err := l.BeginSession(t.Context(), datastore.SessionOptions{Snapshot: named("5", 20), Owner: owner, Foreign: true})
		if err == nil {
			err = ss.Close()
		}
		return err
	}
	is(t, "somebody else", begin("bob@pbs"), datastore.ErrOwner)
	l.must(l.SetOwner(t.Context(), named("5", 1).Group, "bob@pbs"))
	l.must(begin("bob@pbs"))
	is(t, "who had it before", begin("eve@pbs"), datastore.ErrOwner)
	r, err := l.ForgetGroup(t.Context(), named("5", 1).Group)
	if err != nil || r.Groups != 1 {
		t.Errorf("its removal: %+v, %v", r, err)
	}
	l.must(begin("eve@pbs"))

	// What has sent something stays for the next session, and goes with a collection; so
	// does what a crash has left.
	ss := l.foreign(named("7", 10), "eve@pbs")
	l.put(ss, "content")
	l.must(ss.Close())
	crashed := filepath.Join(l.path, "vm", "crashed")
	l.must(os.MkdirAll(crashed, 0o700))
	for _, name := range []string{"begun", "owner"} {
		l.must(os.WriteFile(filepath.Join(crashed, name), []byte("eve@pbs\n"), 0o600))
	}
	// One that has had a snapshot may have lost it, and wait for it.
	lost := l.foreign(named("lost", 10), "eve@pbs")
	l.finish(lost)
	l.must(lost.Close())
	l.must(os.Rename(filepath.Join(l.path, "vm", "lost", "1970-01-01T00:00:10Z"), filepath.Join(l.path, "found")))
	l.must(l.foreign(named("lost", 20), "eve@pbs").Close())
	busy := l.foreign(named("8", 10), "eve@pbs")
	l.must(l.DropUnfinished(t.Context()))
	for id, there := range map[string]bool{"7": false, "8": true, "lost": true, "crashed": false} {
		if _, err := os.Stat(filepath.Join(l.path, "vm", id)); (err == nil) != there {
			t.Errorf("group %s after a collection: %v, want it there: %v", id, err, there)
		}
	}
	l.must(busy.Close())
	if err := begin("bob@pbs"); err != nil {
		t.Errorf("a group that was begun before the collection: %v", err)
	}
}

// A list is kept for so many groups of a user, whichever token it uses.
func TestListsOfAUserAreBounded(t *testing.T) {
	l := newLab(t)
	ss := l.foreign(at(10), "eve@pbs!a")
	l.put(ss, "one")
	l.must(ss.Close())
	dir := filepath.Join(l.path, ".resume")
	name := lists(t, l.path)[0].Name()
	for i := range 1023 {
		l.must(os.WriteFile(filepath.Join(dir, fmt.Sprintf("%032x%s", i, name[32:])), nil, 0o600))
	}
	leave := func(id string, owner wire.AuthID) {
		ss := l.foreign(wire.Snapshot{Group: wire.Group{Type: "vm", ID: id}, Time: 10}, owner)
		l.put(ss, "two")
		l.must(ss.Close())
	}
	leave("101", "eve@pbs!b")
	if n := len(lists(t, l.path)); n != 1024 {
		t.Errorf("%d lists, want 1024", n)
	}
	if _, err := os.Stat(filepath.Join(l.path, "vm", "101")); err == nil {
		t.Error("a group without a list stays")
	}
	leave("102", "bob@pbs!a")
	if n := len(lists(t, l.path)); n != 1025 {
		t.Errorf("%d lists with that of another user, want 1025", n)
	}
}
