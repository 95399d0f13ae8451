package datastore_test

import (
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
	refs, err := next.Resumed(t.Context())
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
