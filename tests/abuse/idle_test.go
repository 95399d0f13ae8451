package abuse

import (
	"os"
	"path/filepath"
	"testing"

	"holdfast/tests/harness"
)

// inPacks sums the sizes of the packs, in bytes.
func (w *world) inPacks(t testing.TB) (n int64) {
	t.Helper()
	packs, err := filepath.Glob(filepath.Join(w.data, "datastores", store, ".chunks", "packs", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range packs {
		st, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		n += st.Size()
	}
	return n
}

// TestIdleSessionKeepsNothingOfOthers opens a session that says nothing more, or that has
// sent a little, some of it what others have too. The snapshots of others are removed
// meanwhile: their bytes go with the next collection. Then the session goes on, and what
// it finishes can be restored.
func TestIdleSessionKeepsNothingOfOthers(t *testing.T) {
	harness.Long(t)
	t.Parallel()
	for _, tc := range []struct {
		name  string
		early bool // it is there before the others come
		sent  bool // it has sent something when the others leave
	}{{"silent", true, false}, {"in the middle", false, true}, {"first and in the middle", true, true}} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := start(t, setup{})
			others := archive{name: "b.didx"}
			for i := range 12 {
				others.chunks = append(others.chunks, plainChunk(noise(uint64(i), 1<<20)))
			}
			if err := w.honest(0); err != nil { // or there is nothing to collect
				t.Fatal(err)
			}
			theirs, mine := snap{"host", "b", began}, snap{"host", "a", began}
			var s *session
			if tc.early {
				s = w.session(t, w.mallory, backupProtocol, mine)
			}
			if err := w.backup(w.bob, theirs, others); err != nil {
				t.Fatal(err)
			}
			if !tc.early {
				s = w.session(t, w.mallory, backupProtocol, mine)
			}
			idle := archive{"a.didx", []chunk{plainChunk(noise(100, 1<<20)), others.chunks[3], plainChunk(noise(101, 1<<20))}}
			if tc.sent {
				if err := s.fill(mine, idle); err != nil {
					t.Fatal(err)
				}
			}
			before := w.inPacks(t)
			w.ask(t, w.admin, "DELETE", "/admin/datastore/"+store+"/deleted", theirs.params()...).want(t, 200)
			if end, err := w.task(w.admin, "POST", "/admin/datastore/"+store+"/gc"); err != nil || end != "OK" {
				t.Fatalf("gc: %q %v", end, err)
			}
			if freed := before - w.inPacks(t); freed < 10<<20 {
				t.Errorf("%d bytes were freed of %d", freed, others.size())
			}
			if !tc.sent {
				if err := s.fill(mine, idle); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := s.ok(finishMessage()); err != nil {
				t.Fatal(err)
			}
			if err := w.restore(w.mallory, mine, idle); err != nil {
				t.Error(err)
			}
		})
	}
}
