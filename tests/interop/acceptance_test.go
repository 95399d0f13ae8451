package interop

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/http2"
)

// Point 1: double slashes; percent-decoding; both separators of tokens;
// decoding of cookies; CSRF only for tickets.
func TestAcceptance01Requests(t *testing.T) {
	t.Parallel()
	w, alice := server, server.alice
	rust := "Authorization: PBSAPIToken " + w.alice1.id + ":" + strings.ReplaceAll(w.alice1.secret, "-", "%2D")
	encoded := "Cookie: PBSAuthCookie=" + strings.ReplaceAll(url.QueryEscape(alice.ticket), "+", "%20")
	for name, r := range map[string]request{
		"double slash":                {target: "//api2/json/version", header: alice.header},
		"slashes everywhere":          {target: "/api2//json///version", header: alice.header},
		"trailing slash":              {target: "/api2/json/version/", header: alice.header},
		"encoded path":                {target: "/api2/json/%76ersion", header: alice.header},
		"bare question mark":          {target: "/api2/json/version?", header: alice.header},
		"cache buster":                {target: "/api2/json/version?_dc=1715000000123", header: alice.header},
		"no host":                     {target: "/api2/json/version", header: alice.header, noHost: true},
		"token with equals sign":      {target: "/api2/json/version", header: w.alice1.header},
		"token with space, encoded":   {target: "/api2/json/version", header: []string{rust}},
		"ticket as it stands":         {target: "/api2/json/version", header: []string{"Cookie: PBSAuthCookie=" + alice.ticket}},
		"ticket encoded":              {target: "/api2/json/version", header: []string{encoded}},
		"ticket of the Perl client":   {target: "/api2/json/version", header: []string{encoded + "; path=/; secure; SameSite=Strict;"}},
		"ticket among other cookies":  {target: "/api2/json/version", header: []string{"Cookie: lang=de; PBSAuthCookie=" + alice.ticket}},
		"ticket in the second header": {target: "/api2/json/version", header: []string{"Cookie: lang=de", "Cookie: PBSAuthCookie=" + alice.ticket}},
		"no content type":             {target: "/api2/json/version", header: alice.header},
	} {
		r.method = "GET"
		if a := w.ask(t, r); a.status != 200 {
			t.Errorf("%s: %s", name, a)
		}
	}
	s := newGroup("host")
	w.snapshot(t, w.alice, s)
	path := "/api2/json" + s.at("/notes") + "?" + pairs(s.params("notes", "one")).Encode()
	cookie := []string{"Cookie: PBSAuthCookie=" + alice.ticket}
	w.ask(t, request{method: "PUT", target: path, header: cookie}).refused(t, 401)
	w.ask(t, request{method: "PUT", target: path, header: append(cookie, "CSRFPreventionToken: "+w.bob.csrf)}).refused(t, 401)
	w.ask(t, request{method: "PUT", target: path, header: append(cookie, "CSRFPreventionToken: "+alice.csrf)}).null(t)
	w.ask(t, request{method: "PUT", target: path, header: w.admin.header}).null(t)
}

// Point 2: plain-text errors with the right codes; data on every success.
func TestAcceptance02Answers(t *testing.T) {
	t.Parallel()
	alice := server.rest(server.alice)
	alice.get(t, "/version").envelope(t)
	alice.get(t, "/no/such/thing").refused(t, 404, "/no/such/thing")
	alice.query(t, "POST", "/version").refused(t, 404)
	server.rest(nobody).get(t, "/version").refused(t, 401, "authentication failed")
	server.rest(nobody).get(t, "/no/such/thing").refused(t, 401)
	alice.get(t, "/version", "colour", "blue").refused(t, 400, "colour")
	alice.get(t, "/admin/datastore/tank/snapshots", "backup-type", "tape").refused(t, 400, "backup-type")
	server.rest(server.dora).get(t, "/admin/datastore/tank/snapshots").refused(t, 403)
	server.ask(t, request{method: "GET", target: "/api2/xml/version"}).refused(t, 400)
	server.ask(t, request{method: "GET", target: "/api2/json/.hidden"}.as(server.alice)).refused(t, 400)
	if a := server.ask(t, request{method: "HEAD", target: "/api2/json/version"}.as(server.alice)); a.status != 404 {
		t.Errorf("HEAD: %s", a)
	}
}

// Point 3: the upgrade with a query on a GET, without Host; no byte is lost
// that came before the answer.
func TestAcceptance03Upgrade(t *testing.T) {
	t.Parallel()
	s := newGroup("host")
	c := server.dial(t)
	r := backupRequest(server.alice1, s)
	r.noHost = true
	if _, err := c.Write(append(r.bytes(), preface()...)); err != nil {
		t.Fatal(err)
	}
	a, err := c.receive("GET", "early upgrade")
	if err != nil {
		t.Fatal(err)
	}
	a.want(t, 101)
	h := newTalk(c)
	h.do(t, "GET", "/previous_backup_time", nil).null(t)
	h.hangUp()
}

// Point 4: 128 streams at a time, large windows, bodies of 16 MiB + 44, append
// bodies as JSON.
func TestAcceptance04Streams(t *testing.T) {
	t.Parallel()
	b := server.backup(t, server.alice, newGroup("host"))
	settings := b.announced(t)
	if n, limited := settings[http2.SettingMaxConcurrentStreams]; limited && n < 128 {
		t.Errorf("%d streams at a time", n)
	}
	if n, ok := settings[http2.SettingInitialWindowSize]; !ok || n < 1<<20 {
		t.Errorf("the window of a stream is %d", n)
	}
	wid := b.index(t, "root.pxar.didx")
	var begun sync.WaitGroup
	const streams = 128
	chunks, failed := make([]chunk, streams), make(chan error, streams)
	for i := range chunks {
		chunks[i] = newChunk(noise(uint64(i), 40000))
	}
	// All streams are open before any of them ends.
	begun.Add(streams)
	var done sync.WaitGroup
	for _, c := range chunks {
		done.Go(func() { failed <- b.inTwo(c, wid, &begun) })
	}
	done.Wait()
	for range chunks {
		if err := <-failed; err != nil {
			t.Fatal(err)
		}
	}
	digests, starts, ends, size := layout(chunks)
	b.put(t, "dynamic", list{wid, digests, starts}).null(t)
	b.end(t, "dynamic", wid, streams, size, dynamicSum(t, digests, ends)).null(t)

	key := noise(1, 32)
	large := newSealed(key, noise(2, maxChunk))
	if len(large.blob) != maxChunk+44 {
		t.Fatalf("the largest chunk has %d bytes", len(large.blob))
	}
	b.chunk(t, "dynamic", b.index(t, "large.didx"), large)
	b.file(t, "large.conf.blob", plainBlob(noise(3, maxChunk+32))) // 16 MiB + 44 with its header
}

// inTwo uploads a chunk in two halves; the second follows when everybody has
// sent the first.
func (s *session) inTwo(c chunk, wid int, all *sync.WaitGroup) error {
	path := target("/dynamic_chunk", []string{"wid", strconv.Itoa(wid), "digest", c.digest,
		"size", strconv.Itoa(len(c.plain)), "encoded-size", strconv.Itoa(len(c.blob))})
	id, st, err := s.open("POST", path, "application/octet-stream", false)
	half := len(c.blob) / 2
	if err == nil {
		err = s.pour(id, st, c.blob[:half], false)
	}
	all.Done()
	if err != nil {
		return err
	}
	all.Wait()
	if err := s.pour(id, st, c.blob[half:], true); err != nil {
		return err
	}
	return s.gets(id, st, 200)
}

// Point 5: the known chunks with those of previous, checks of appends and
// checksums, a zero chunk that is not used, the values of incremental closes.
func TestAcceptance05KnownChunks(t *testing.T) {
	t.Parallel()
	first := newGroup("vm")
	zero, d0, d1, d2 := newZstd(make([]byte, fixedSize)), newChunk(noise(50, fixedSize)), newChunk(noise(51, fixedSize)), newChunk(noise(52, 777))
	b := server.backup(t, server.alice, first)
	disk := b.archive(t, "disk.img.fidx", d0, d1, d2)
	b.commit(t, disk)

	b = server.backup(t, server.alice, first.later(1))
	b.do(t, "GET", "/previous_backup_time", nil).into(t, new(int64))
	wid := b.index(t, "disk.img.fidx", "size", fmt.Sprint(disk.Size), "reuse-csum", disk.Sum)
	b.chunk(t, "fixed", wid, zero) // never appended
	b.put(t, "fixed", list{wid, []string{d0.digest}, []int64{0}}).refused(t, 400, "no such chunk")
	changed := newChunk(noise(53, fixedSize))
	b.chunk(t, "fixed", wid, changed)
	b.put(t, "fixed", list{wid, []string{changed.digest}, []int64{fixedSize}}).null(t)
	sum := fixedSum(t, []string{d0.digest, changed.digest, d2.digest})
	b.end(t, "fixed", wid, 1, fixedSize, sum).null(t)

	b.do(t, "GET", "/previous", nil, "archive-name", "disk.img.fidx").want(t, 200)
	wid = b.index(t, "copy.img.fidx", "size", fmt.Sprint(disk.Size))
	digests, starts, _, _ := layout([]chunk{d0, d1, d2})
	b.put(t, "fixed", list{wid, digests, starts}).null(t)
	b.end(t, "fixed", wid, 3, disk.Size, disk.Sum).null(t)
	b.commit(t, entry{"disk.img.fidx", "none", disk.Size, sum}, entry{"copy.img.fidx", "none", disk.Size, disk.Sum})

	r := server.reader(t, server.alice, first.later(1))
	got := r.do(t, "GET", "/download", nil, "file-name", "disk.img.fidx").want(t, 200)
	checkFixed(t, got.body, disk.Size, []string{d0.digest, changed.digest, d2.digest})
}

// Point 6: finish rewrites the manifest, releases the locks and bears a close
// at once; an abort removes the directory.
func TestAcceptance06Finish(t *testing.T) {
	t.Parallel()
	s := newGroup("host")
	b := server.backup(t, server.alice, s)
	files := []entry{b.archive(t, "root.pxar.didx", small(6)...)}
	b.describe(t, files...)
	b.finish(t).null(t)
	server.snapshot(t, server.alice, s.later(1)) // the first session is still open
	b.hangUp()

	r := server.reader(t, server.alice, s)
	m := parseManifest(t, r.do(t, "GET", "/download", nil, "file-name", manifestName).want(t, 200).body)
	stats, ok := m.Unprotected["chunk_upload_stats"].(map[string]any)
	if !ok || stats["count"] != 3.0 || stats["size"] == nil || stats["compressed_size"] == nil || stats["duplicates"] == nil {
		t.Errorf("the manifest has the statistics %v", m.Unprotected)
	}
	if len(m.Files) != 1 || m.Files[0] != files[0] || m.ID != s.id || m.Time != s.time {
		t.Errorf("the manifest came back as %+v", m)
	}
	b = server.backup(t, server.alice, s.later(2))
	b.archive(t, "root.pxar.didx", small(7)...)
	b.hangUp()
	server.gone(t, s.later(2))
}

// Point 7: locks of group, snapshot and base, owner rule, time, failed verify.
// The tests of sessions go into each of them.
func TestAcceptance07Rules(t *testing.T) {
	t.Parallel()
	s := newGroup("host")
	server.snapshot(t, server.alice, s)
	open := server.backup(t, server.alice, s.later(1))
	_, a := server.tryBackup(t, server.alice, s.later(2))
	a.refused(t, 400)
	server.rest(server.alice).query(t, "DELETE", s.at("/snapshots"), s.params()...).refused(t, 400)
	open.hangUp()
	server.gone(t, s.later(1))
	_, a = server.tryBackup(t, server.bob, s.later(2))
	a.refused(t, 400, "backup owner check failed")
	_, a = server.tryBackup(t, server.alice, s)
	a.refused(t, 400)
}

// Point 8: the chunks of a reader session are those of its downloads.
func TestAcceptance08Reader(t *testing.T) {
	t.Parallel()
	s := newGroup("host")
	b := server.backup(t, server.alice, s)
	chunks := small(8)
	b.commit(t, b.archive(t, "root.pxar.didx", chunks...))
	r := server.reader(t, server.alice, s)
	r.do(t, "GET", "/chunk", nil, "digest", chunks[0].digest).refused(t, 401, chunks[0].digest)
	r.do(t, "GET", "/download", nil, "file-name", "root.pxar.didx").want(t, 200)
	for _, c := range chunks {
		got := r.do(t, "GET", "/chunk", nil, "digest", c.digest).want(t, 200)
		if !bytes.Equal(openBlob(t, got.body), c.plain) {
			t.Errorf("chunk %s came back as something else", c.digest)
		}
	}
	other := server.reader(t, server.alice, s)
	other.do(t, "GET", "/chunk", nil, "digest", chunks[0].digest).refused(t, 401)
}

// Point 9: the lists. The tests of lists go into each of them.
func TestAcceptance09Lists(t *testing.T) {
	t.Parallel()
	s := newGroup("host")
	server.snapshot(t, server.alice, s)
	open := server.backup(t, server.alice, s.later(1))
	var all []listed
	server.rest(server.alice).get(t, s.at("/snapshots"), s.group()...).into(t, &all)
	for _, l := range all {
		if (l.Size != nil) != (l.Time == s.time) {
			t.Errorf("a snapshot with size %v: %+v", l.Size, l)
		}
		if l.Files == nil {
			t.Errorf("the files are null: %+v", l)
		}
	}
	open.hangUp()
	var status map[string]any
	server.rest(server.alice).get(t, s.at("/status")).into(t, &status)
	for _, k := range []string{"total", "used", "avail"} {
		if n, ok := status[k].(float64); !ok || n != float64(int64(n)) {
			t.Errorf("%s is %v", k, status[k])
		}
	}
	if d := server.rest(server.alice).get(t, s.at("/protected"), s.params()...).data(t); d != "false" {
		t.Errorf("protected is %s", d)
	}
}

// Point 10: upgrade as a later request; bare question mark; addresses as
// server names; lists that are never null; complete tickets; a ticket as
// password.
func TestAcceptance10LaterUpgrade(t *testing.T) {
	t.Parallel()
	s := newGroup("host")
	c := server.dial(t)
	body, _ := json.Marshal(map[string]string{"username": "alice@pbs", "password": password})
	var got credentials
	c.send(t, request{method: "POST", target: "//api2/json/access/ticket", header: []string{jsonType}, body: body}).into(t, &got)
	as := ticketed("alice@pbs", got.Ticket, got.CSRF)
	list := c.send(t, request{method: "GET", target: "/api2/json" + s.at("/snapshots?") + pairs(s.group()).Encode()}.as(as))
	if d := list.data(t); d != "[]" {
		t.Errorf("an empty list is %s", d)
	}
	c.send(t, request{method: "GET", target: "/api2/json" + s.at("/namespace?")}.as(as)).envelope(t)
	c.send(t, request{method: "GET", target: "/api2/json/no/such/path"}.as(as)).refused(t, 404)
	h, a, err := begin(c, backupRequest(as, s))
	if err != nil || h == nil {
		t.Fatalf("%v %s", err, a)
	}
	h.do(t, "GET", "/previous_backup_time", nil).null(t)
	h.hangUp()
	renewed, err := server.login("alice@pbs", got.Ticket)
	if err != nil {
		t.Fatal(err)
	}
	server.rest(renewed).get(t, "/version").envelope(t)
}

// Point 11: release is a number, ping needs nobody, tickets carry their time.
func TestAcceptance11Version(t *testing.T) {
	t.Parallel()
	var version struct{ Version, Release, RepoID string }
	server.rest(server.dora).get(t, "/version").into(t, &version)
	if _, err := strconv.Atoi(version.Release); err != nil {
		t.Errorf("release %q", version.Release)
	}
	if !regexp.MustCompile(`^[0-9]+\.[0-9]+$`).MatchString(version.Version) {
		t.Errorf("version %q", version.Version)
	}
	if d := server.rest(nobody).get(t, "/ping").data(t); !strings.Contains(strings.ReplaceAll(d, " ", ""), `"pong":true`) {
		t.Errorf("ping says %s", d)
	}
	if !regexp.MustCompile(`^PBS:alice@pbs:[0-9A-F]{8}::[A-Za-z0-9+/]+$`).MatchString(server.alice.ticket) {
		t.Errorf("the ticket is %q", server.alice.ticket)
	}
	var realms []map[string]any
	server.rest(nobody).get(t, "/access/domains").into(t, &realms)
	if len(realms) == 0 {
		t.Error("no realms")
	}
}
