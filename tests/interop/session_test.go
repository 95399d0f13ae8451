package interop

import (
	"bytes"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"

	"holdfast/tests/harness"
)

// The protocols that a connection may be upgraded to.
const (
	backupProtocol = "proxmox-backup-protocol-v1"
	readerProtocol = "proxmox-backup-reader-protocol-v1"
)

const manifestName = "index.json.blob"

// snap names a snapshot.
type snap struct {
	store, ns, kind, id string
	time                int64
}

// later is the same group at a later time.
func (s snap) later(seconds int64) snap {
	s.time += seconds
	return s
}

// group is the group as parameters.
func (s snap) group(more ...string) []string {
	kv := []string{"backup-type", s.kind, "backup-id", s.id}
	if s.ns != "" {
		kv = append(kv, "ns", s.ns)
	}
	return append(kv, more...)
}

// params is the snapshot as parameters.
func (s snap) params(more ...string) []string {
	return s.group(append([]string{"backup-time", strconv.FormatInt(s.time, 10)}, more...)...)
}

// at is a path below the datastore of the snapshot.
func (s snap) at(path string) string { return "/admin/datastore/" + s.store + path }

// key names the snapshot as worker ids do.
func (s snap) key() string { return fmt.Sprintf("%s/%s/%08X", s.kind, s.id, s.time) }

// session is an upgraded connection.
type session struct {
	*talk
	snap
}

// upgrade is the request of the reference client for a session.
func upgrade(path, protocol string, as identity, kv ...string) request {
	return request{method: "GET", target: "//api2/json/" + path + "?" + pairs(kv).Encode(),
		header: []string{formType, "connection: upgrade", "upgrade: " + protocol}}.as(as)
}

// begin asks for a session on a connection. It begins HTTP/2 when the server
// agrees.
func begin(c *wire, r request) (*talk, answer, error) {
	a, err := c.roundTrip(r)
	if err != nil || a.status != 101 {
		return nil, a, err
	}
	if _, err := c.Write(preface()); err != nil {
		return nil, a, err
	}
	return newTalk(c), a, nil
}

// backupRequest is the upgrade for a snapshot.
func backupRequest(as identity, s snap, more ...string) request {
	kv := append(s.params("store", s.store, "debug", "true", "benchmark", "false"), more...)
	return upgrade("backup", backupProtocol, as, kv...)
}

// readerRequest is the upgrade for reading a snapshot.
func readerRequest(as identity, s snap, more ...string) request {
	return upgrade("reader", readerProtocol, as, append(s.params("store", s.store, "debug", "true"), more...)...)
}

// session asks for a session over a new connection, which ends with the test.
func (w *world) session(t testing.TB, s snap, r request) (*session, answer) {
	t.Helper()
	c := w.dial(t)
	h, a, err := begin(c, r)
	if err != nil {
		t.Fatal(err)
	}
	if h == nil {
		c.Close()
		return nil, a
	}
	if !strings.EqualFold(a.header.Get("Upgrade"), r.protocol()) || !strings.EqualFold(a.header.Get("Connection"), "upgrade") {
		t.Errorf("the answer to the upgrade has Upgrade %q and Connection %q", a.header.Get("Upgrade"), a.header.Get("Connection"))
	}
	t.Cleanup(h.hangUp)
	return &session{h, s}, a
}

// protocol is what the request wants to upgrade to.
func (r request) protocol() string {
	for _, h := range r.header {
		if p, ok := strings.CutPrefix(h, "upgrade: "); ok {
			return p
		}
	}
	return ""
}

// tryBackup asks for a backup session; it is nil when refused.
func (w *world) tryBackup(t testing.TB, as identity, s snap, more ...string) (*session, answer) {
	t.Helper()
	return w.session(t, s, backupRequest(as, s, more...))
}

// backup opens a backup session.
func (w *world) backup(t testing.TB, as identity, s snap, more ...string) *session {
	t.Helper()
	b, a := w.tryBackup(t, as, s, more...)
	a.want(t, 101)
	return b
}

// tryReader asks for a reader session; it is nil when refused.
func (w *world) tryReader(t testing.TB, as identity, s snap, more ...string) (*session, answer) {
	t.Helper()
	return w.session(t, s, readerRequest(as, s, more...))
}

// reader opens a reader session.
func (w *world) reader(t testing.TB, as identity, s snap) *session {
	t.Helper()
	r, a := w.tryReader(t, as, s)
	a.want(t, 101)
	return r
}

// side is the half of the protocol that an index belongs to.
func side(name string) string {
	if strings.HasSuffix(name, ".fidx") {
		return "fixed"
	}
	return "dynamic"
}

// index creates an index and returns its writer.
func (s *session) index(t testing.TB, name string, kv ...string) int {
	t.Helper()
	var wid int
	s.do(t, "POST", "/"+side(name)+"_index", nil, append([]string{"archive-name", name}, kv...)...).into(t, &wid)
	return wid
}

// tryChunk uploads a chunk and claims a size for it.
func (s *session) tryChunk(side string, wid int, c chunk) (answer, error) {
	return s.try("POST", "/"+side+"_chunk", c.blob, "wid", strconv.Itoa(wid), "digest", c.digest,
		"size", strconv.Itoa(len(c.plain)), "encoded-size", strconv.Itoa(len(c.blob)))
}

// chunk uploads a chunk, which the server must take.
func (s *session) chunk(t testing.TB, side string, wid int, c chunk) {
	t.Helper()
	a, err := s.tryChunk(side, wid, c)
	if err != nil {
		t.Fatal(err)
	}
	var name string
	if a.into(t, &name); name != c.digest {
		t.Errorf("the answer is not the digest %s: %s", c.digest, a)
	}
}

// list is the body of an append.
type list struct {
	Wid     int      `json:"wid"`
	Digests []string `json:"digest-list"`
	Offsets []int64  `json:"offset-list"`
}

// put appends to an index.
func (s *session) put(t testing.TB, side string, l list) answer {
	t.Helper()
	return s.json(t, "PUT", "/"+side+"_index", l)
}

// end closes an index.
func (s *session) end(t testing.TB, side string, wid, count int, size int64, sum string) answer {
	t.Helper()
	return s.do(t, "POST", "/"+side+"_close", nil, "wid", strconv.Itoa(wid), "chunk-count", strconv.Itoa(count),
		"size", strconv.FormatInt(size, 10), "csum", sum)
}

// layout is where chunks lie one behind the other.
func layout(chunks []chunk) (digests []string, starts []int64, ends []uint64, size int64) {
	for _, c := range chunks {
		digests, starts = append(digests, c.digest), append(starts, size)
		size += int64(len(c.plain))
		ends = append(ends, uint64(size))
	}
	return digests, starts, ends, size
}

// archive uploads a whole index, with every distinct chunk once.
func (s *session) archive(t testing.TB, name string, chunks ...chunk) entry {
	t.Helper()
	digests, starts, ends, size := layout(chunks)
	var more []string
	sum := dynamicSum(t, digests, ends)
	if side(name) == "fixed" {
		more, sum = []string{"size", strconv.FormatInt(size, 10)}, fixedSum(t, digests)
	}
	wid, sent := s.index(t, name, more...), map[string]bool{}
	for _, c := range chunks {
		if !sent[c.digest] {
			s.chunk(t, side(name), wid, c)
		}
		sent[c.digest] = true
	}
	s.put(t, side(name), list{wid, digests, starts}).null(t)
	s.end(t, side(name), wid, len(chunks), size, sum).null(t)
	return entry{name, "none", size, sum}
}

// file uploads a blob.
func (s *session) file(t testing.TB, name string, blob []byte) entry {
	t.Helper()
	s.do(t, "POST", "/blob", blob, "file-name", name, "encoded-size", strconv.Itoa(len(blob))).null(t)
	return entry{name, "none", int64(len(blob)), digestOf(blob)}
}

// describe uploads the manifest.
func (s *session) describe(t testing.TB, files ...entry) {
	t.Helper()
	s.file(t, manifestName, zstdBlob(manifestOf(s.snap, files).text()))
}

// finish asks the server to keep the snapshot.
func (s *session) finish(t testing.TB) answer {
	t.Helper()
	return s.do(t, "POST", "/finish", nil)
}

// commit uploads the manifest, finishes and closes the connection at once.
func (s *session) commit(t testing.TB, files ...entry) {
	t.Helper()
	s.describe(t, files...)
	s.finish(t).null(t)
	s.hangUp()
}

// small are the chunks of a dynamic archive that is made in no time.
func small(seed uint64) []chunk {
	return []chunk{newChunk(noise(seed, 1000)), newZstd(bytes.Repeat([]byte{byte(seed)}, 5000)), newChunk([]byte("x"))}
}

// snapshot makes a small snapshot: a dynamic archive and a blob.
func (w *world) snapshot(t testing.TB, as identity, s snap) []entry {
	t.Helper()
	b := w.backup(t, as, s)
	files := []entry{b.archive(t, "root.pxar.didx", small(uint64(s.time))...), b.file(t, "a.conf.blob", plainBlob([]byte("key=value\n")))}
	b.commit(t, files...)
	return files
}

// listed is one element of the snapshot list, section 4.3.
type listed struct {
	Type         string            `json:"backup-type"`
	ID           string            `json:"backup-id"`
	Time         int64             `json:"backup-time"`
	Files        []map[string]any  `json:"files"`
	Size         *int64            `json:"size"`
	Comment      *string           `json:"comment"`
	Verification map[string]string `json:"verification"`
	Fingerprint  *string           `json:"fingerprint"`
	Owner        string            `json:"owner"`
	Protected    *bool             `json:"protected"`
}

// list is the snapshots of a group, those that are finished only.
func (w *world) list(t testing.TB, s snap) map[int64]listed {
	t.Helper()
	var all []listed
	w.rest(w.admin).get(t, s.at("/snapshots"), s.group()...).into(t, &all)
	found := map[int64]listed{}
	for _, l := range all {
		if l.Size != nil {
			found[l.Time] = l
		}
	}
	return found
}

// gone waits until a snapshot that was not finished is no longer there, and
// fails the test if it was ever listed as finished. The group must be free at
// once: the same snapshot can be begun again.
func (w *world) gone(t testing.TB, s snap) {
	t.Helper()
	if l, ok := w.list(t, s)[s.time]; ok {
		t.Errorf("a backup without finish is listed: %+v", l)
	}
	w.free(t, s).hangUp()
	w.quiet(t, s)
	harness.Eventually(t, "the abort of "+s.key(), func() bool {
		var all []listed
		w.rest(w.admin).get(t, s.at("/snapshots"), s.group()...).into(t, &all)
		for _, l := range all {
			if l.Time == s.time {
				return false
			}
		}
		return true
	})
}

// quiet waits until no backup of a group runs. The lock of a session that was cut
// is free before its task has ended.
func (w *world) quiet(t testing.TB, s snap) {
	t.Helper()
	harness.Eventually(t, "the end of the backups of "+s.key(), func() bool {
		var all []struct {
			ID string `json:"worker_id"`
		}
		w.rest(w.admin).get(t, "/nodes/localhost/tasks", "running", "1", "typefilter", "backup", "limit", "0").into(t, &all)
		for _, task := range all {
			if task.ID == store+":"+s.kind+"/"+s.id {
				return false
			}
		}
		return true
	})
}

// free begins a snapshot of a group as its owner, whose last session has just
// been cut: the server needs a moment to see that.
func (w *world) free(t testing.TB, s snap) *session {
	t.Helper()
	var b *session
	harness.Eventually(t, "the lock of "+s.key(), func() bool {
		var a answer
		if b, a = w.tryBackup(t, w.alice, s); b == nil {
			a.refused(t, 400)
		}
		return b != nil
	})
	return b
}

// cutter is a TCP connection that is lost after so many bytes have been sent.
type cutter struct {
	net.Conn
	sent, cut int64 // no cut when negative
}

func (c *cutter) Write(p []byte) (int, error) {
	if c.cut >= 0 && c.sent+int64(len(p)) >= c.cut {
		n, _ := c.Conn.Write(p[:max(0, c.cut-c.sent)])
		c.sent = c.cut
		c.Conn.Close()
		return n, net.ErrClosed
	}
	n, err := c.Conn.Write(p)
	c.sent += int64(n)
	return n, err
}
