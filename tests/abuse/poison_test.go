package abuse

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"holdfast/tests/harness"
)

// victim is what alice backs up.
func victim() archive {
	a := archive{name: "root.pxar.didx"}
	for i := range 40 {
		data := noise(uint64(5000+i), 3000+i)
		if i%2 == 0 {
			a.chunks = append(a.chunks, plainChunk(data))
			continue
		}
		a.chunks = append(a.chunks, zstdChunk(bytes.Repeat(data[:100], 30+i)))
	}
	return a
}

// poison is an upload that is not what it says to be, for the chunk c.
type poison struct {
	name string
	make func(c chunk, n int) chunk
	// blind is set for what nobody without the key can see through.
	blind bool
}

// poisons are all kinds of them.
func poisons() []poison {
	other := func(c chunk, n int) []byte { return noise(uint64(100000+n), c.size) }
	return []poison{
		{"other bytes", func(c chunk, n int) chunk { return chunk{c.digest, c.size, envelope(magicPlain, other(c, n))} }, false},
		{"other bytes, compressed", func(c chunk, n int) chunk { return chunk{c.digest, c.size, squeezed(other(c, n))} }, false},
		{"zeros", func(c chunk, _ int) chunk { return chunk{c.digest, c.size, envelope(magicPlain, make([]byte, c.size))} }, false},
		{"a bit flipped", func(c chunk, n int) chunk {
			return chunk{c.digest, c.size, envelope(magicPlain, flipped(plainOf(c), n%c.size))}
		}, false},
		{"cut", func(c chunk, n int) chunk { return chunk{c.digest, c.size, c.blob[:13+n%(len(c.blob)-14)]} }, false},
		{"cut and sized so", func(c chunk, n int) chunk {
			b := envelope(magicPlain, noise(uint64(n), 1+n%c.size))
			return chunk{c.digest, len(b) - 12, b}
		}, false},
		{"a size more", func(c chunk, _ int) chunk { return chunk{c.digest, c.size + 1, c.blob} }, false},
		{"a size less", func(c chunk, _ int) chunk { return chunk{c.digest, c.size - 1, c.blob} }, false},
		{"another's name", func(c chunk, n int) chunk { x := plainChunk(other(c, n)); return chunk{c.digest, x.size, x.blob} }, false},
		{"the right bytes under another name", func(c chunk, n int) chunk { return chunk{digestOf(other(c, n)), c.size, c.blob} }, false},
		{"an encrypted blob", func(c chunk, n int) chunk { return chunk{c.digest, c.size, sealed(magicSealed, other(c, n))} }, true},
		{"an encrypted, compressed blob", func(c chunk, n int) chunk { return chunk{c.digest, c.size, sealed(magicSealedZstd, other(c, n))} }, true},
		{"an encrypted blob of another size", func(c chunk, n int) chunk {
			return chunk{c.digest, 1 + n, sealed(magicSealed, noise(uint64(n), 1+n%500))}
		}, true},
	}
}

// plainOf is what an honest chunk holds.
func plainOf(c chunk) []byte {
	b, err := unpack(c.blob)
	if err != nil {
		panic(err)
	}
	return b
}

func flipped(b []byte, at int) []byte {
	c := bytes.Clone(b)
	c[at] ^= 0x10
	return c
}

// poisonAll sends every kind of poison for every chunk of a, rounds times, and
// puts what is taken into an index of its own.
func (s *session) poisonAll(wid int, a archive, rounds int) (sent, taken int, err error) {
	n := 0
	for range rounds {
		for _, c := range a.chunks {
			for _, p := range poisons() {
				n++
				x := p.make(c, n)
				got, err := s.try(chunkMessage("dynamic", wid, x))
				if err != nil {
					return n, taken, fmt.Errorf("%s: %w", p.name, err)
				}
				if got.status == 200 {
					taken++
				}
				if got.status != 200 && (got.status < 400 || got.status > 499) || got.status == 200 && !p.blind {
					return n, taken, fmt.Errorf("%s: %s", p.name, got)
				}
			}
		}
	}
	return n, taken, nil
}

// poisoner sends poison in a session of mallory's until it has sent so many.
func (w *world) poisoner(id string, a archive, rounds int) (int, error) {
	s, err := open("", w.address, upgradeRequest(w.mallory, backupProtocol, snap{"host", id, began}))
	if err != nil {
		return 0, err
	}
	defer s.Close()
	wid, err := s.createIndex("poison.didx")
	if err != nil {
		return 0, err
	}
	n, _, err := s.poisonAll(wid, a, rounds)
	return n, err
}

// backup makes a whole backup.
func (w *world) backup(as identity, s snap, archives ...archive) error {
	h, err := open("", w.address, upgradeRequest(as, backupProtocol, s))
	if err != nil {
		return err
	}
	defer h.Close()
	if err := h.fill(s, archives...); err != nil {
		return err
	}
	_, err = h.ok(finishMessage())
	return err
}

// Poison before, while and after an honest client uploads the same chunks is
// refused, or stays without effect on others.
func TestPoison(t *testing.T) {
	harness.Long(t)
	t.Parallel()
	w := start(t, setup{})
	a := victim()
	// First: mallory has the names for herself, and keeps what was taken.
	first := snap{"host", "first", began}
	s := w.session(t, w.mallory, backupProtocol, first)
	wid, err := s.createIndex("poison.didx")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.poisonAll(wid, a, 1); err != nil {
		t.Fatal(err)
	}
	kept := archive{name: "kept.didx"}
	for i, c := range a.chunks {
		kept.chunks = append(kept.chunks, chunk{c.digest, c.size, sealed(magicSealed, noise(uint64(i), c.size))})
	}
	if err := s.fill(first, kept); err == nil {
		s.do(t, finishMessage())
	}
	s.Close()

	rounds := 2
	if atLength(t) {
		rounds = 20
	}
	var sent atomic.Int64
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			n, err := w.poisoner(fmt.Sprintf("race%d", i), a, rounds)
			if sent.Add(int64(n)); err != nil {
				t.Error(err)
			}
		})
	}
	alice := snap{"host", "alice", began}
	for i := range 5 {
		s := alice
		s.time += int64(i)
		if err := w.backup(w.alice, s, a); err != nil {
			t.Errorf("alice, backup %d: %v", i, err)
		}
		if err := w.restore(w.alice, s, a); err != nil {
			t.Errorf("alice, restore %d: %v", i, err)
		}
	}
	all.Wait()
	if n, err := w.poisoner("after", a, 1); err != nil {
		t.Errorf("after %d: %v", n, err)
	}
	t.Logf("%d poisoned uploads", sent.Load())
	for i := range 5 {
		s := alice
		s.time += int64(i)
		if err := w.restore(w.alice, s, a); err != nil {
			t.Errorf("alice, restore %d in the end: %v", i, err)
		}
	}
	w.bobToo(t, a)
}

// bobToo backs the same up as another user, after a collection.
func (w *world) bobToo(t testing.TB, a archive) {
	t.Helper()
	if end, err := w.task(w.admin, "POST", "/admin/datastore/"+store+"/gc"); err != nil || end != "OK" {
		t.Errorf("the collection ended with %q (%v)", end, err)
	}
	bob := snap{"host", "bob", began}
	if err := w.backup(w.bob, bob, a); err != nil {
		t.Errorf("bob: %v", err)
	}
	if err := w.restore(w.bob, bob, a); err != nil {
		t.Errorf("bob: %v", err)
	}
	end, err := w.task(w.admin, "POST", "/admin/datastore/"+store+"/verify", "backup-type", "host", "backup-id", "bob")
	if err != nil || end != "OK" {
		t.Errorf("the verification of bob's ended with %q (%v)", end, err)
	}
}

// What belongs to another cannot be had by its name, nor be changed.
func TestOtherTenant(t *testing.T) {
	harness.Long(t)
	t.Parallel()
	w := start(t, setup{})
	a := victim()
	alice := snap{"host", "alice", began}
	if err := w.backup(w.alice, alice, a); err != nil {
		t.Fatal(err)
	}
	eve := w.writer(t, "eve")

	own := snap{"host", "eve", began}
	s := w.session(t, eve, backupProtocol, own)
	wid, err := s.createIndex("stolen.didx")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range a.chunks {
		got := s.do(t, appendMessage("dynamic", wid, []chunk{c}))
		if got.status != 400 || !strings.Contains(string(got.body), "no such chunk") {
			t.Errorf("alice's chunk in another's index: %s", got)
		}
	}
	fixed := message{method: "POST", path: "/fixed_index", kv: []string{"archive-name", "x.img.fidx", "size", "4194304", "reuse-csum", digestOf(a.records())}}
	s.do(t, fixed).refused(t)
	s.do(t, message{method: "GET", path: "/previous", kv: []string{"archive-name", a.name}}).refused(t)
	mine := archive{"mine.didx", []chunk{plainChunk([]byte("eve"))}}
	second := snap{"host", "eve2", began}
	if err := w.backup(eve, second, mine); err != nil {
		t.Fatal(err)
	}
	r := w.session(t, eve, readerProtocol, second)
	r.do(t, message{method: "GET", path: "/download", kv: []string{"file-name", mine.name}}).want(t, 200)
	for _, c := range a.chunks[:2] { // the answer is held back
		r.do(t, message{method: "GET", path: "/chunk", kv: []string{"digest", c.digest}}).refused(t)
	}
	w.foreign(t, eve, alice)
	if err := w.restore(w.alice, alice, a); err != nil {
		t.Error(err)
	}
}

// writer makes a user with a token that may make backups and nothing else.
func (w *world) writer(t testing.TB, name string) identity {
	t.Helper()
	i := w.user(t, name)
	for _, id := range []string{name + "@pbs", i.id} {
		w.cli(t, "acl", "remove", "/datastore/"+store, "DatastorePowerUser", "--auth-id", id)
		w.cli(t, "acl", "set", "/datastore/"+store, "DatastoreBackup", "--auth-id", id)
	}
	return i
}

// foreign tries everything that changes or reads the snapshot of another.
func (w *world) foreign(t testing.TB, as identity, s snap) {
	t.Helper()
	const base = "/admin/datastore/" + store
	group := s.params()[:4]
	for _, p := range []place{
		{"GET", base + "/files", s.params()}, {"GET", base + "/notes", s.params()}, {"PUT", base + "/notes", s.params("notes", "x")},
		{"PUT", base + "/protected", s.params("protected", "1")}, {"DELETE", base + "/snapshots", s.params()}, {"DELETE", base + "/groups", group},
		{"GET", base + "/group-notes", group}, {"PUT", base + "/group-notes", append(group[:4:4], "notes", "x")},
		{"POST", base + "/prune", append(group[:4:4], "keep-last", "1")}, {"POST", base + "/change-owner", append(group[:4:4], "new-owner", "eve@pbs")},
		{"GET", base + "/download", s.params("file-name", manifestName)}, {"GET", base + "/download-decoded", s.params("file-name", manifestName)},
		{"POST", base + "/upload-backup-log", s.params()}, {"POST", base + "/gc", nil}, {"GET", "/access/users/alice@pbs", nil},
		{"PUT", "/access/password", []string{"userid", "alice@pbs", "password", "hacked1"}}, {"POST", "/access/users/alice@pbs/token/evil", nil},
		{"PUT", "/access/acl", []string{"path", "/", "role", "Admin", "auth-id", as.id}}, {"DELETE", "/config/datastore/" + store, nil},
	} {
		w.ask(t, as, p.method, p.path, p.kv...).refused(t)
	}
	for _, protocol := range []string{backupProtocol, readerProtocol} {
		s := s
		s.time += 10 * int64(len(protocol)%2)
		_, err := open("", w.address, upgradeRequest(as, protocol, s))
		if r := (refusal{}); !errors.As(err, &r) || r.status < 400 || r.status > 499 {
			t.Errorf("%s of another's group: %v", protocol, err)
		}
	}
	var list []map[string]any
	w.ask(t, as, "GET", base+"/snapshots", group...).into(t, &list)
	if len(list) > 0 {
		t.Errorf("another sees %v", list)
	}
}
