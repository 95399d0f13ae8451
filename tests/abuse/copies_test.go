package abuse

import (
	"bytes"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"holdfast/tests/harness"
)

// holdfast runs the program as a client of the server.
func (w *world) holdfast(as identity, args ...string) (string, error) {
	c := w.command(args...)
	c.Env = append(c.Env, "HOLDFAST_PASSWORD="+as.secret, "HOLDFAST_REPOSITORY="+as.id+"@"+w.address+":"+store)
	r, err := harness.Do(c)
	if err == nil && r.Code != 0 {
		err = errors.New(r.How)
	}
	return r.Out + r.Err, err
}

// Garbage that claims to be encrypted, under the digest of another tenant's plain chunk,
// makes nothing readable: by no session and by no request.
func TestGarbageDoesNotOpenAnothersChunk(t *testing.T) {
	t.Parallel()
	w := start(t, setup{})
	secret := bytes.Repeat([]byte("alice's medical record "), 20)
	c := plainChunk(secret)
	if err := w.backup(w.alice, snap{"host", "alice", began}, archive{"root.pxar.didx", []chunk{c}}); err != nil {
		t.Fatal(err)
	}
	eve := w.writer(t, "eve")
	garbage := chunk{c.digest, c.size, sealed(magicSealed, bytes.Repeat([]byte{0xee}, c.size))}
	if err := w.backup(eve, snap{"host", "eve", began}, archive{"stolen.didx", []chunk{garbage}}); err == nil {
		t.Error("a snapshot was made that calls encrypted chunks plain")
	}
	// An interrupted session leaves a list of what it has sent: of what it has sent.
	own := snap{"host", "resumed", began}
	for range 2 {
		s := w.session(t, eve, backupProtocol, own)
		s.do(t, message{method: "GET", path: "/holdfast/resume"})
		wid, err := s.createIndex("stolen.didx")
		if err != nil {
			t.Fatal(err)
		}
		s.do(t, chunkMessage("dynamic", wid, garbage))
		a := archive{"stolen.didx", []chunk{c}}
		s.do(t, appendMessage("dynamic", wid, a.chunks))
		s.do(t, closeMessage(wid, a))
		s.do(t, blobMessage(manifestName, envelope(magicPlain, manifestOf(own, entry{a.name, "none", a.size(), digestOf(a.records())}))))
		s.do(t, finishMessage()).refused(t)
		s.Close()
	}
}

// A token that may only put learns from task logs, manifests and answers nothing of what
// the store has: they are the same for a chunk that is there and for one that is not.
func TestPutOnlyTokenLearnsNothingOfTheStore(t *testing.T) {
	t.Parallel()
	w := start(t, setup{})
	known := plainChunk([]byte("the leaked payroll file of alice, word for word"))
	absent := plainChunk([]byte("something that nobody has ever backed up at all"))
	if err := w.backup(w.alice, snap{"host", "alice", began}, archive{"root.pxar.didx", []chunk{known}}); err != nil {
		t.Fatal(err)
	}
	w.user(t, "eve")
	w.cli(t, "acl", "remove", "/datastore/"+store, "DatastorePowerUser", "--auth-id", "eve@pbs!t")
	put := w.token(t, "eve", "put", "DatastorePutOnly", "/datastore/"+store)
	var said []string
	for i, c := range []chunk{known, absent} {
		s := snap{"host", fmt.Sprintf("probe%d", i), began}
		if err := w.backup(put, s, archive{"p.didx", []chunk{c}}); err != nil {
			t.Fatal(err)
		}
		var tasks []struct{ Upid string }
		w.ask(t, put, "GET", "/nodes/localhost/tasks", "limit", "1").into(t, &tasks)
		log := w.ask(t, put, "GET", "/nodes/localhost/tasks/"+strings.ReplaceAll(tasks[0].Upid, "\\", "%5C")+"/log")
		var lines []struct{ T string }
		log.into(t, &lines)
		var text strings.Builder
		for _, l := range lines {
			// When a line was written says nothing of the store, and two runs have not the same second.
			if _, words, ok := strings.Cut(l.T, ": "); ok && strings.Contains(words, "chunk") {
				fmt.Fprintln(&text, words)
			}
		}
		s.time++
		h := w.session(t, put, backupProtocol, s)
		m := h.do(t, message{method: "GET", path: "/previous", kv: []string{"archive-name", manifestName}}).want(t, 200)
		h.Close()
		raw, err := unpack(m.body)
		if err != nil {
			t.Fatal(err)
		}
		var mf struct {
			Unprotected map[string]json.RawMessage
		}
		if err := json.Unmarshal(raw, &mf); err != nil || text.Len() == 0 {
			t.Fatalf("%v; log %q", err, text.String())
		}
		said = append(said, text.String()+string(mf.Unprotected["chunk_upload_stats"]))
	}
	if said[0] != said[1] {
		t.Errorf("of a chunk that is there:\n%s\nof one that is not:\n%s", said[0], said[1])
	}
}

// Whoever has disk, key and a token of a machine cannot harm the backups that are there
// with plain blobs of their encrypted chunks' names, nor those of another machine of the
// same key that are still to come with garbage, whatever the sizes it claims.
func TestNamesOfEncryptedChunksAreNobodysWeapon(t *testing.T) {
	harness.Long(t)
	t.Parallel()
	w := start(t, setup{})
	w.user(t, "web")
	put := w.token(t, "web", "put", "DatastorePutOnly", "/datastore/"+store)
	other := w.token(t, "web", "other", "DatastorePutOnly", "/datastore/"+store)
	key, disk := filepath.Join(w.dir, "key.json"), filepath.Join(w.dir, "disk.raw")
	image := noise(77, 9<<20)
	if err := os.WriteFile(disk, image, 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(as identity, args ...string) {
		t.Helper()
		if out, err := w.holdfast(as, args...); err != nil {
			t.Errorf("holdfast %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	run(put, "key", "create", "--kdf", "none", key)
	run(put, "backup", "--accept-new", "--keyfile", key, "--backup-type", "vm", "--backup-id", "100", "disk.img:"+disk)

	s := w.session(t, put, backupProtocol, snap{"vm", "100", 1900000000})
	idx := s.do(t, message{method: "GET", path: "/previous", kv: []string{"archive-name", "disk.img.didx"}}).want(t, 200).body
	wid, err := s.createIndex("x.didx")
	if err != nil {
		t.Fatal(err)
	}
	idKey := idKeyOf(t, key)
	at := uint64(0)
	for b := idx[4096:]; len(b) >= 40; b = b[40:] {
		end := binary.LittleEndian.Uint64(b)
		data := append(bytes.Clone(image[at:end]), idKey...) // its SHA-256 is the name of the encrypted chunk
		if digestOf(data) != hex.EncodeToString(b[8:40]) {
			t.Fatal("the name is another")
		}
		name := hex.EncodeToString(b[8:40])
		s.do(t, chunkMessage("dynamic", wid, chunk{name, len(data), envelope(magicPlain, data)})).want(t, 200)
		for _, size := range []int{int(end - at), 1, 4 << 20} {
			s.do(t, chunkMessage("dynamic", wid, chunk{name, size, sealed(magicSealedZstd, noise(at, 100))})).want(t, 200)
		}
		at = end
	}
	s.Close()
	// The other machine has the same content, and its token has nothing of it yet.
	run(other, "backup", "--accept-new", "--keyfile", key, "--backup-type", "vm", "--backup-id", "200", "disk.img:"+disk)
	for _, id := range []string{"100", "200"} {
		run(w.admin, "restore", "--keyfile", key, "vm/"+id+"/latest", "disk.img", filepath.Join(w.dir, id+".raw"))
		if back, err := os.ReadFile(filepath.Join(w.dir, id+".raw")); err != nil || !bytes.Equal(back, image) {
			t.Errorf("vm/%s comes back with other content (%v)", id, err)
		}
		run(w.admin, "verify", "--keyfile", key, "vm/"+id)
	}
}

// idKeyOf derives what names of chunks are made with.
func idKeyOf(t testing.TB, file string) []byte {
	t.Helper()
	var kf struct{ Data string }
	raw, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(raw, &kf)
	}
	enc, derr := base64.StdEncoding.DecodeString(kf.Data)
	if err != nil || derr != nil {
		t.Fatal(err, derr)
	}
	id, err := pbkdf2.Key(sha256.New, string(enc), []byte("_id_key"), 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// token makes another token of a user.
func (w *world) token(t testing.TB, user, name, role, path string) identity {
	t.Helper()
	var made harness.Announced
	out := w.cli(t, "token", "create", user+"@pbs!"+name, "--role", role, "--path", path, "--json")
	if err := json.Unmarshal(out, &made); err != nil || made.Secret == "" {
		t.Fatalf("token create printed %q (%v)", out, err)
	}
	return identity{user + "@pbs!" + name, made.Secret}
}

// Honest deduplication stays: two machines with one key, under tokens of two users,
// store a system that they share once. What seals at random, as the client of
// Proxmox does, shares among the machines of one token.
func TestACommonSystemIsStoredOnce(t *testing.T) {
	harness.Long(t)
	t.Parallel()
	w := start(t, setup{})
	const shared, own = 48 << 20, 2 << 20
	system, key := noise(1, shared), filepath.Join(w.dir, "key.json")
	at := w.stored(t)
	if out, err := w.holdfast(w.admin, "key", "create", "--kdf", "none", key); err != nil {
		t.Fatal(out)
	}
	var grew []int64
	for i, user := range []string{"web", "mail"} {
		w.user(t, user)
		as := w.token(t, user, "put", "DatastorePutOnly", "/datastore/"+store)
		// Each has content of its own before, between and after.
		image := append(append(noise(uint64(2+i), own+i*12345), system...), noise(uint64(4+i), own)...)
		disk := filepath.Join(w.dir, user+".raw")
		w.write(t, disk, string(image))
		if out, err := w.holdfast(as, "backup", "--accept-new", "--keyfile", key, "--backup-type", "vm", "--backup-id", user, "disk.img:"+disk); err != nil {
			t.Fatal(out)
		}
		now := w.stored(t)
		grew, at = append(grew, now-at), now
	}
	t.Logf("two tokens: the first machine of %d MiB took %.1f MiB, the second, with %d MiB of its own, %.1f MiB",
		(shared+2*own)>>20, mib(grew[0]), 2*own>>20, mib(grew[1]))
	if grew[1] > 2*own+shared/10 {
		t.Error("what two machines share is stored twice")
	}

	// The same content in two sessions of one token, sealed otherwise each time.
	grew = nil
	for i := range 2 {
		a := archive{name: "disk.img.didx"}
		for j := range 16 {
			c := plainChunk(noise(uint64(100+j), 1<<20))
			a.chunks = append(a.chunks, chunk{c.digest, c.size, sealed(magicSealed, noise(uint64(1000*i+j), 1<<20))})
		}
		of := snap{"vm", fmt.Sprint(300 + i), began}
		h := w.session(t, w.alice, backupProtocol, of)
		e, err := h.put(a, map[string]bool{})
		if err != nil {
			t.Fatal(err)
		}
		e.Mode = "encrypt"
		h.do(t, blobMessage(manifestName, envelope(magicPlain, manifestOf(of, e)))).want(t, 200)
		h.do(t, finishMessage()).want(t, 200)
		h.Close()
		now := w.stored(t)
		grew, at = append(grew, now-at), now
	}
	t.Logf("one token, sealed at random: the first machine of 16 MiB took %.1f MiB, the second %.1f MiB", mib(grew[0]), mib(grew[1]))
	if grew[1] > grew[0]/10 {
		t.Error("what one token sends twice is stored twice")
	}
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

// stored is how many bytes of chunks the datastore has on its disk.
func (w *world) stored(t testing.TB) (n int64) {
	t.Helper()
	err := filepath.WalkDir(w.data, func(path string, e os.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // of a session that has just ended
		}
		if err != nil || e.IsDir() || !strings.Contains(path, "/.chunks/") {
			return err
		}
		info, err := e.Info()
		if err == nil {
			n += info.Sys().(*syscall.Stat_t).Blocks * 512
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}
