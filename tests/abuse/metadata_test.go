package abuse

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"testing"
)

// What such a thief reads is the metadata of the snapshot his own backup builds on.
const (
	metaName    = "root.mpxar.didx"
	contentName = "root.ppxar.didx"
)

// secretChunk is a chunk of which a server sees neither content nor truth.
func secretChunk(seed uint64, size int) chunk {
	data := noise(seed, size)
	return chunk{digestOf(append([]byte("key"), data...)), size, sealed(magicSealed, data)}
}

// encrypted makes a backup of encrypted archives.
func (s *session) encrypted(t testing.TB, of snap, archives ...archive) {
	t.Helper()
	var files []entry
	for _, a := range archives {
		e, err := s.put(a, map[string]bool{})
		if err != nil {
			t.Fatal(err)
		}
		e.Mode = "encrypt"
		files = append(files, e)
	}
	s.do(t, blobMessage("a.conf.blob", envelope(magicPlain, []byte("secret")))).want(t, 200)
	s.do(t, blobMessage(manifestName, envelope(magicPlain, manifestOf(of, files...)))).want(t, 200)
	s.do(t, finishMessage()).want(t, 200)
	s.Close()
}

// digestsOf are those that an index file names, with their sizes: what its owner, who
// may only put, is told for deduplication.
func digestsOf(raw []byte) (list []chunk) {
	at := 0
	for b := raw[4096:]; len(b) >= 40; b = b[40:] {
		end := 0
		for i := range 8 {
			end |= int(b[i]) << (8 * i)
		}
		list = append(list, chunk{digest: hex.EncodeToString(b[8:40]), size: end - at})
		at = end
	}
	return list
}

// download asks a reader for a file.
func download(name string) message {
	return message{method: "GET", path: "/download", kv: []string{"file-name", name}}
}

// getChunk asks a reader for a chunk.
func getChunk(digest string) message {
	return message{method: "GET", path: "/chunk", kv: []string{"digest", digest}}
}

// Whoever has a token that may only put, and the key, sends garbage as metadata under
// the digests of all content that he can learn, and has it read back: he gets his
// garbage. What he has not sent he cannot name, and he opens nothing else.
func TestMetadataOpensNoContent(t *testing.T) {
	t.Parallel()
	w := start(t, setup{})
	w.user(t, "web")
	put := w.token(t, "web", "put", "DatastorePutOnly", "/datastore/"+store)
	first, old, other := snap{"host", "web", began}, snap{"host", "web", began - 100}, snap{"host", "mail", began}
	honest := []archive{{metaName, []chunk{secretChunk(1, 900)}}, {contentName, []chunk{secretChunk(2, 70000), secretChunk(3, 60000)}},
		{"catalog.pcat1.didx", []chunk{secretChunk(4, 800)}}, {"disk.img.fidx", []chunk{secretChunk(5, fixedSize)}}}
	for _, s := range []snap{old, first, other} {
		w.session(t, put, backupProtocol, s).encrypted(t, s, honest...)
	}
	plain := plainChunk([]byte("alice's medical record, in clear"))
	if err := w.backup(w.alice, snap{"host", "alice", began}, archive{metaName, []chunk{plain}}); err != nil {
		t.Fatal(err)
	}

	second := snap{"host", "web", began + 100}
	s := w.session(t, put, backupProtocol, second)
	var content []chunk
	for _, a := range honest[1:3] {
		content = append(content, digestsOf(s.do(t, message{method: "GET", path: "/previous", kv: []string{"archive-name", a.name}}).want(t, 200).body)...)
	}
	content = append(content, honest[3].chunks[0])
	s.do(t, message{method: "GET", path: "/previous", kv: []string{"archive-name", "disk.img.fidx"}}).want(t, 200)
	wid, err := s.createIndex(metaName)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range append(content, plain) {
		s.do(t, appendMessage("dynamic", wid, []chunk{c})).refused(t) // he has it in another archive, or has it not
	}
	lie := chunk{plain.digest, plain.size, envelope(magicPlain, noise(9, plain.size))}
	s.do(t, chunkMessage("dynamic", wid, lie)).refused(t)
	garbage := archive{name: metaName}
	for i, c := range append(content, plain) {
		c.blob = sealed(magicSealed, noise(uint64(100+i), c.size))
		s.do(t, chunkMessage("dynamic", wid, c)).want(t, 200)
		garbage.chunks = append(garbage.chunks, c)
	}
	s.do(t, appendMessage("dynamic", wid, garbage.chunks)).want(t, 200)
	s.do(t, closeMessage(wid, garbage)).want(t, 200)
	e := entry{metaName, "none", garbage.size(), digestOf(garbage.records())}
	s.do(t, blobMessage(manifestName, envelope(magicPlain, manifestOf(second, e)))).want(t, 200)
	s.do(t, finishMessage()).refused(t) // what is encrypted does not become plain
	e.Mode = "encrypt"
	s.do(t, blobMessage(manifestName, envelope(magicPlain, manifestOf(second, e)))).want(t, 200)
	s.do(t, finishMessage()).want(t, 200)
	s.Close()

	s = w.session(t, put, backupProtocol, snap{"host", "web", began + 200})
	r := w.session(t, put, readerProtocol, second)
	r.do(t, download(metaName)).want(t, 200)
	for _, c := range garbage.chunks {
		if a := r.do(t, getChunk(c.digest)).want(t, 200); !bytes.Equal(a.body, c.blob) {
			t.Errorf("%d bytes that are not his come back", len(a.body))
		}
	}
	w.nothingElse(t, put, r, []snap{old, first, other, {"host", "alice", began}, {"host", "web", began + 200}})
	s.Close()

	// What was there before is as it was.
	for _, of := range []snap{old, first, other} {
		r := w.session(t, w.admin, readerProtocol, of)
		for _, a := range honest {
			if err := r.back(a, map[string]bool{}); err != nil {
				t.Errorf("%v: %v", of, err)
			}
		}
		r.Close()
	}
}

// nothingElse asks for all that such a session must not give.
func (w *world) nothingElse(t testing.TB, as identity, r *session, others []snap) {
	t.Helper()
	said := ""
	for _, name := range []string{contentName, "catalog.pcat1.didx", "disk.img.fidx", "a.conf.blob", "none.blob", "none.didx", "client.log.blob"} {
		a := r.do(t, download(name)).want(t, 403)
		text := string(bytes.ReplaceAll(a.body, []byte(name), []byte("it")))
		if said == "" {
			said = text
		}
		if text != said {
			t.Errorf("%s: %q, another was refused with %q", name, text, said)
		}
	}
	r.do(t, getChunk(digestOf([]byte("nowhere")))).want(t, 401)
	r.do(t, message{method: "GET", path: "/speedtest"}).want(t, 404)
	for _, s := range append(others, snap{"host", "nobody", began}) {
		_, err := open("", w.address, upgradeRequest(as, readerProtocol, s))
		if text := fmt.Sprint(err); err == nil || !bytes.Contains([]byte(text), []byte("no permissions on")) {
			t.Errorf("%v: %s", s, text)
		}
	}
}
