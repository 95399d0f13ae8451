package client

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"holdfast/chunkstore"
	"holdfast/datastore/index"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
	"holdfast/datastore/wire/wiretest"
)

// fake is a server that plays the protocol on a wiretest.Memory, as strict about
// parameters as the real one.
type fake struct {
	t        testing.TB
	memory   *wiretest.Memory
	server   *httptest.Server
	holdfast bool // sends the extension header

	// before is called for every request, also within sessions; true means
	// that it has answered.
	before func(w http.ResponseWriter, r *http.Request) bool

	mu       sync.Mutex
	requests []string // method and path, without the root
	tickets  []string
	resume   []wire.ChunkSize
	conns    map[net.Conn]bool  // upgraded ones
	running  map[wire.Group]int // backup sessions

	logins  atomic.Int32
	largest atomic.Int64 // body of an append
}

const (
	fakeUser     = "alice@pbs"
	fakePassword = "pass word+%"
	fakeToken    = "alice@pbs!nightly"
	fakeSecret   = "1b4e28ba-2fa1;+%"
)

func newFake(t testing.TB) *fake {
	f := &fake{t: t, memory: &wiretest.Memory{}, conns: make(map[net.Conn]bool), running: make(map[wire.Group]int)}
	f.server = httptest.NewUnstartedServer(f)
	f.server.StartTLS()
	t.Cleanup(f.stop)
	return f
}

func (f *fake) stop() {
	f.cut()
	f.server.Close()
}

// cut breaks all sessions.
func (f *fake) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.conns {
		c.Close()
	}
}

// count returns how often something was asked for.
func (f *fake) count(request string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.requests {
		if r == request {
			n++
		}
	}
	return n
}

// options are for a client of the fake, with the token.
func (f *fake) options() Options {
	addr := f.server.Listener.Addr().(*net.TCPAddr)
	return Options{
		Repository:  wire.Repository{AuthID: fakeToken, Host: "127.0.0.1", Port: addr.Port, Datastore: "tank"},
		Secret:      secretOf(fakeSecret),
		Fingerprint: fingerprint(f.server.Certificate()),
		Log:         func(s string) { f.t.Log(s) },
		Connections: 1, // however slow the machine is
	}
}

func (f *fake) userOptions() Options {
	o := f.options()
	o.Repository.AuthID, o.Secret = fakeUser, secretOf(fakePassword)
	return o
}

// dial connects a client that does not wait long between tries.
func dial(t testing.TB, o Options, change ...func(*Client)) *Client {
	t.Helper()
	c, err := tryDial(t, o, change...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func tryDial(t testing.TB, o Options, change ...func(*Client)) (*Client, error) {
	c, err := newClient(o)
	if err != nil {
		return nil, err
	}
	c.retry.base, c.retry.max, c.poll = time.Millisecond, 5*time.Millisecond, time.Millisecond
	for _, f := range change {
		f(c)
	}
	t.Cleanup(func() { c.Close() })
	return c, c.start(t.Context())
}

func (f *fake) note(r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests = append(f.requests, r.Method+" "+strings.TrimPrefix(r.URL.Path, apiRoot))
}

// refuse answers with an error, as the real server does: plain text.
func refuse(w http.ResponseWriter, code int, format string, args ...any) {
	w.WriteHeader(code)
	fmt.Fprintf(w, format, args...)
}

func answer(w http.ResponseWriter, data any) {
	w.Header().Set("Content-Type", "application/json;charset=UTF-8")
	json.NewEncoder(w).Encode(map[string]any{"data": data})
}

// only refuses parameters that the real server does not know.
func only(w http.ResponseWriter, q url.Values, names ...string) bool {
	for name, values := range q {
		if !slices.Contains(names, name) || len(values) != 1 {
			refuse(w, 400, "parameter verification failed - '%s': schema does not allow additional properties.", name)
			return false
		}
	}
	return true
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.note(r)
	if f.before != nil && f.before(w, r) {
		return
	}
	path := strings.TrimPrefix(r.URL.Path, apiRoot)
	if path == api.Login.Path() && r.Method == api.Login.Verb() {
		f.login(w, r)
		return
	}
	if !f.authenticated(r) {
		refuse(w, 401, "authentication failed - invalid credentials")
		return
	}
	if r.ParseForm() != nil {
		refuse(w, 400, "bad form")
		return
	}
	switch path {
	case "/backup":
		f.backup(w, r)
	case "/reader":
		f.reader(w, r)
	default:
		f.rest(w, r, path)
	}
}

func (f *fake) login(w http.ResponseWriter, r *http.Request) {
	f.logins.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	password := r.PostFormValue("password")
	if r.PostFormValue("username") != fakeUser || password != fakePassword && !slices.Contains(f.tickets, password) {
		refuse(w, 401, "permission check failed.")
		return
	}
	ticket := fmt.Sprintf("PBS:%s:%08X::c2ln+/%d", fakeUser, len(f.tickets), len(f.tickets))
	f.tickets = append(f.tickets, ticket)
	answer(w, map[string]string{"username": fakeUser, "ticket": ticket, "CSRFPreventionToken": "csrf-" + ticket[len(ticket)-2:]})
}

// forgetTickets makes all tickets invalid.
func (f *fake) forgetTickets() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.tickets {
		f.tickets[i] = "-"
	}
}

func (f *fake) authenticated(r *http.Request) bool {
	if rest, ok := strings.CutPrefix(r.Header.Get("Authorization"), "PBSAPIToken="); ok {
		id, secret, _ := strings.Cut(rest, ":")
		secret, err := url.PathUnescape(secret)
		return err == nil && id == fakeToken && secret == fakeSecret
	}
	cookie, err := r.Cookie(cookieName)
	if err != nil {
		return false
	}
	ticket, err := url.PathUnescape(cookie.Value)
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil || !slices.Contains(f.tickets, ticket) {
		return false
	}
	return r.Method == http.MethodGet || r.Header.Get(csrfHeader) == "csrf-"+ticket[len(ticket)-2:]
}

// snapshotOf reads the parameters of a snapshot.
func snapshotOf(q url.Values) wire.Snapshot {
	at, _ := strconv.ParseInt(q.Get("backup-time"), 10, 64)
	return wire.Snapshot{Group: groupOf(q), Time: at}
}

func groupOf(q url.Values) wire.Group {
	return wire.Group{NS: wire.Namespace(q.Get("ns")), Type: q.Get("backup-type"), ID: q.Get("backup-id")}
}

func (f *fake) rest(w http.ResponseWriter, r *http.Request, path string) {
	q := r.Form
	const store = "/admin/datastore/tank"
	switch r.Method + " " + path {
	case "GET /nodes/localhost/tasks":
		if only(w, q, "running", "limit", "typefilter") {
			f.tasks(w)
		}
	case "GET " + store + "/namespace":
		if only(w, q, "parent") {
			f.namespaces(w, r)
		}
	case "GET " + store + "/groups":
		if only(w, q, "ns") {
			f.groups(w, r)
		}
	case "GET " + store + "/snapshots":
		if only(w, q, "ns", "backup-type", "backup-id") {
			f.snapshots(w, r)
		}
	case "DELETE " + store + "/snapshots":
		if only(w, q, "ns", "backup-type", "backup-id", "backup-time") {
			f.done(w, f.memory.Forget(r.Context(), snapshotOf(q)))
		}
	case "GET " + store + "/notes":
		text, err := f.memory.Notes(r.Context(), snapshotOf(q))
		if err != nil {
			f.done(w, err)
			return
		}
		answer(w, text)
	case "PUT " + store + "/notes":
		if only(w, q, "ns", "backup-type", "backup-id", "backup-time", "notes") {
			f.done(w, f.memory.SetNotes(r.Context(), snapshotOf(q), q.Get("notes")))
		}
	case "PUT " + store + "/protected":
		if only(w, q, "ns", "backup-type", "backup-id", "backup-time", "protected") {
			f.done(w, f.memory.SetProtected(r.Context(), snapshotOf(q), q.Get("protected") == "true"))
		}
	default:
		refuse(w, 404, "Path '%s' not found.", path)
	}
}

// tasks lists the sessions that run.
func (f *fake) tasks(w http.ResponseWriter) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := []map[string]string{}
	for g, n := range f.running {
		if n > 0 {
			out = append(out, map[string]string{"worker_type": "backup", "worker_id": "tank:" + g.String()})
		}
	}
	answer(w, out)
}

// run counts the running sessions of a group.
func (f *fake) run(g wire.Group, by int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.running[g] += by
}

// done answers a call without a result. What is missing is told as the real
// server does: without telling.
func (f *fake) done(w http.ResponseWriter, err error) {
	switch {
	case err == nil:
		answer(w, nil)
	case errors.Is(err, wire.ErrProtected):
		refuse(w, 400, "cannot remove protected snapshot")
	default:
		refuse(w, 400, "something is wrong")
	}
}

func (f *fake) namespaces(w http.ResponseWriter, r *http.Request) {
	list, _ := f.memory.Namespaces(r.Context(), wire.Namespace(r.Form.Get("parent")))
	out := []map[string]string{}
	for _, ns := range list {
		out = append(out, map[string]string{"ns": string(ns)})
	}
	slices.Reverse(out)
	answer(w, out)
}

func (f *fake) groups(w http.ResponseWriter, r *http.Request) {
	list, _ := f.memory.Groups(r.Context(), wire.Namespace(r.Form.Get("ns")))
	out := []map[string]any{}
	for _, g := range list {
		out = append(out, map[string]any{
			"backup-type": g.Group.Type, "backup-id": g.Group.ID, "last-backup": g.LastTime, "backup-count": g.Count,
			"files": append([]string{wire.ManifestName}, g.LastFiles...), "owner": fakeUser,
		})
	}
	answer(w, out)
}

func (f *fake) snapshots(w http.ResponseWriter, r *http.Request) {
	list, _ := f.memory.Snapshots(r.Context(), groupOf(r.Form))
	if !r.Form.Has("backup-id") {
		for s := range f.memory.AllSnapshots(r.Context(), wire.Namespace(r.Form.Get("ns"))) {
			list = append(list, s)
		}
	}
	out := []map[string]any{}
	for _, s := range list {
		files := []map[string]any{}
		for _, file := range s.Files {
			files = append(files, map[string]any{"filename": file.Name, "crypt-mode": file.CryptMode, "size": file.Size})
		}
		files = append(files, map[string]any{"filename": wire.ManifestName, "crypt-mode": "none", "size": 100})
		comment, _, _ := strings.Cut(s.Notes, "\n")
		g := s.Snapshot.Group
		out = append(out, map[string]any{
			"backup-type": g.Type, "backup-id": g.ID, "backup-time": s.Snapshot.Time, "files": files, "size": s.Size + 100,
			"protected": s.Protected, "comment": comment,
		})
	}
	slices.Reverse(out)
	answer(w, out)
}

// heldConn is closed only when the session's locks have been released.
type heldConn struct {
	net.Conn
	in   io.Reader
	once sync.Once
	done chan struct{}
}

func (c *heldConn) Read(p []byte) (int, error) { return c.in.Read(p) }
func (c *heldConn) Close() error               { c.once.Do(func() { close(c.done) }); return nil }

// oneListener hands out one connection.
type oneListener struct {
	conn chan net.Conn
	done chan struct{}
}

func (l *oneListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conn:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l *oneListener) Close() error   { return nil }
func (l *oneListener) Addr() net.Addr { return &net.TCPAddr{} }

// upgrade switches to HTTP/2 and serves the session until it is over.
func (f *fake) upgrade(w http.ResponseWriter, r *http.Request, protocol string, session http.Handler) bool {
	if r.Header.Get("Upgrade") != protocol {
		refuse(w, 400, "invalid protocol name")
		return false
	}
	raw, rw, err := w.(http.Hijacker).Hijack()
	if err != nil {
		f.t.Error(err)
		return false
	}
	defer raw.Close()
	f.mu.Lock()
	f.conns[raw] = true
	f.mu.Unlock()
	defer func() { f.mu.Lock(); delete(f.conns, raw); f.mu.Unlock() }()
	head := "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: " + protocol + "\r\n"
	if f.holdfast {
		head += wire.ExtensionHeader + ": " + wire.ExtensionVersion + "\r\n"
	}
	io.WriteString(raw, head+"\r\n")
	conn := &heldConn{Conn: raw, in: bufio.NewReader(rw), done: make(chan struct{})}
	l := &oneListener{conn: make(chan net.Conn, 1), done: conn.done}
	l.conn <- conn
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	// A body that nobody reads must not keep others from coming.
	windows := &http.HTTP2Config{MaxReceiveBufferPerConnection: 32 << 20, MaxReceiveBufferPerStream: 1 << 20}
	s := &http.Server{Protocols: p, HTTP2: windows, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.note(r)
		if f.before != nil && f.before(w, r) {
			return
		}
		session.ServeHTTP(w, r)
	})}
	s.Serve(l)
	if c, ok := session.(io.Closer); ok {
		c.Close() // before the client sees the end
	}
	return true
}

// backupSession plays section 2.
type backupSession struct {
	f       *fake
	snap    wire.Snapshot
	session wire.Session
	base    *wire.Snapshot

	mu      sync.Mutex
	known   map[chunkstore.ID]uint32
	writers map[int]*fakeWriter
	next    int
}

type fakeWriter struct {
	wire.IndexWriter
	kind  string
	count uint64
	order sync.Mutex
}

func (f *fake) backup(w http.ResponseWriter, r *http.Request) {
	if !only(w, r.Form, "store", "ns", "backup-type", "backup-id", "backup-time") {
		return
	}
	b := &backupSession{f: f, snap: snapshotOf(r.Form), known: make(map[chunkstore.ID]uint32), writers: make(map[int]*fakeWriter), next: 1}
	if list, err := f.memory.Snapshots(r.Context(), b.snap.Group); err == nil {
		b.base = &list[len(list)-1].Snapshot
	}
	var err error
	b.session, err = f.memory.Begin(r.Context(), b.snap)
	switch {
	case errors.Is(err, wire.ErrBusy):
		refuse(w, 400, "unable to acquire lock on group - another backup is already running")
		return
	case errors.Is(err, wire.ErrExists):
		refuse(w, 400, "backup timestamp is older than last backup.")
		return
	case err != nil:
		refuse(w, 400, "%v", err)
		return
	}
	if f.holdfast {
		for _, c := range f.resume {
			b.known[c.ID] = c.Size
		}
	}
	f.run(b.snap.Group, 1)
	defer f.run(b.snap.Group, -1)
	if !f.upgrade(w, r, wire.BackupProtocol, b) {
		b.session.Close()
	}
}

func (b *backupSession) Close() error { return b.session.Close() }

func (b *backupSession) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	kind, what, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "_")
	switch r.Method + " " + what {
	case "POST index":
		b.create(w, r, kind)
		return
	case "PUT index":
		b.append(w, r, kind)
		return
	case "POST chunk":
		b.chunk(w, r, kind)
		return
	case "POST close":
		b.close(w, r, kind)
		return
	}
	switch r.Method + " " + r.URL.Path {
	case "GET /previous_backup_time":
		if b.base == nil {
			answer(w, nil)
			return
		}
		answer(w, b.base.Time)
	case "GET /previous":
		b.previous(w, q.Get("archive-name"))
	case "POST /blob":
		body, _ := io.ReadAll(r.Body)
		if only(w, q, "file-name", "encoded-size") {
			b.result(w, nil, b.session.Blob(r.Context(), q.Get("file-name"), body))
		}
	case "POST /finish":
		if only(w, q) {
			b.result(w, nil, b.session.Finish(r.Context()))
		}
	case "GET " + wire.ResumePath:
		var out []byte
		for _, c := range b.f.resume {
			out = c.Append(out)
		}
		w.Write(out)
	default:
		refuse(w, 404, "Path '%s' not found.", r.URL.Path)
	}
}

func (b *backupSession) result(w http.ResponseWriter, data any, err error) {
	if err != nil {
		refuse(w, 400, "%v", err)
		return
	}
	answer(w, data)
}

func (b *backupSession) create(w http.ResponseWriter, r *http.Request, kind string) {
	q := r.URL.Query()
	size := int64(-1)
	if kind == "fixed" {
		size, _ = strconv.ParseInt(q.Get("size"), 10, 64)
	}
	if !only(w, q, "archive-name", "size") || kind == "dynamic" && q.Has("size") {
		return
	}
	iw, err := b.session.Create(r.Context(), q.Get("archive-name"), size)
	if err != nil {
		refuse(w, 400, "%v", err)
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.writers[b.next] = &fakeWriter{IndexWriter: iw, kind: kind}
	answer(w, b.next)
	b.next++
}

func (b *backupSession) writer(w http.ResponseWriter, kind string, wid int) *fakeWriter {
	b.mu.Lock()
	defer b.mu.Unlock()
	iw := b.writers[wid]
	if iw == nil || iw.kind != kind {
		refuse(w, 400, "%s writer '%d' not registered", kind, wid)
		return nil
	}
	return iw
}

func parseID(s string) (id chunkstore.ID, err error) {
	n, err := hex.Decode(id[:], []byte(s[:min(len(s), 2*len(id))]))
	if n != len(id) || id.String() != s {
		return id, errors.Join(err, fmt.Errorf("%q is no digest", s))
	}
	return id, nil
}

func (b *backupSession) chunk(w http.ResponseWriter, r *http.Request, kind string) {
	q := r.URL.Query()
	wid, _ := strconv.Atoi(q.Get("wid"))
	iw := b.writer(w, kind, wid)
	if iw == nil || !only(w, q, "wid", "digest", "size", "encoded-size") {
		return
	}
	id, err := parseID(q.Get("digest"))
	size, _ := strconv.ParseUint(q.Get("size"), 10, 32)
	body, readErr := io.ReadAll(r.Body)
	if err != nil || readErr != nil || strconv.Itoa(len(body)) != q.Get("encoded-size") {
		refuse(w, 400, "uploaded chunk has unexpected size.")
		return
	}
	if _, err := iw.PutChunk(r.Context(), chunkstore.Chunk{ID: id, PlainSize: uint32(size), Blob: body}); err != nil {
		refuse(w, 400, "%v", err)
		return
	}
	b.mu.Lock()
	b.known[id] = uint32(size)
	b.mu.Unlock()
	answer(w, id.String())
}

func (b *backupSession) append(w http.ResponseWriter, r *http.Request, kind string) {
	raw, _ := io.ReadAll(r.Body)
	b.f.largest.Store(max(b.f.largest.Load(), int64(len(raw))))
	var body struct {
		Wid     int      `json:"wid"`
		Digests []string `json:"digest-list"`
		Offsets []uint64 `json:"offset-list"`
	}
	if err := json.Unmarshal(raw, &body); err != nil || len(body.Digests) != len(body.Offsets) {
		refuse(w, 400, "lists differ")
		return
	}
	iw := b.writer(w, kind, body.Wid)
	if iw == nil {
		return
	}
	if !iw.order.TryLock() {
		b.f.t.Error("two appends at once")
	}
	defer iw.order.Unlock()
	var entries []index.Entry
	b.mu.Lock()
	for i, d := range body.Digests {
		id, _ := parseID(d)
		size, ok := b.known[id]
		if !ok {
			b.mu.Unlock()
			refuse(w, 400, "no such chunk %s", d)
			return
		}
		entries = append(entries, index.Entry{Off: body.Offsets[i], Size: size, ID: id})
	}
	b.mu.Unlock()
	iw.count += uint64(len(entries))
	b.result(w, nil, iw.Append(r.Context(), entries))
}

func (b *backupSession) close(w http.ResponseWriter, r *http.Request, kind string) {
	q := r.URL.Query()
	wid, _ := strconv.Atoi(q.Get("wid"))
	iw := b.writer(w, kind, wid)
	if iw == nil || !only(w, q, "wid", "chunk-count", "size", "csum") {
		return
	}
	b.mu.Lock()
	delete(b.writers, wid)
	b.mu.Unlock()
	var sum index.Summary
	sum.Count, _ = strconv.ParseUint(q.Get("chunk-count"), 10, 64)
	sum.Size, _ = strconv.ParseUint(q.Get("size"), 10, 64)
	csum, _ := hex.DecodeString(q.Get("csum"))
	copy(sum.Csum[:], csum)
	if sum.Count != iw.count {
		refuse(w, 400, "wrong chunk count")
		return
	}
	b.result(w, nil, iw.IndexWriter.Close(r.Context(), sum))
}

func (b *backupSession) previous(w http.ResponseWriter, name string) {
	if b.base == nil {
		refuse(w, 400, "no valid previous backup")
		return
	}
	file := b.f.memory.File(*b.base, name)
	if file == nil {
		refuse(w, 400, "Unable to open fixed index")
		return
	}
	if !strings.HasSuffix(name, ".blob") {
		b.mu.Lock()
		eachEntry(b.f.t, name, file, func(e index.Entry) { b.known[e.ID] = e.Size })
		b.mu.Unlock()
	}
	w.Write(file)
}

func eachEntry(t testing.TB, name string, file []byte, use func(index.Entry)) {
	kind, err := indexKind(name)
	if err != nil {
		t.Error(err)
		return
	}
	idx, err := index.Open(strings.NewReader(string(file)), int64(len(file)), kind)
	if err != nil {
		t.Error(err)
		return
	}
	for e, err := range idx.All(0) {
		if err != nil {
			t.Error(err)
			return
		}
		use(e)
	}
}

// readerSession plays section 3.
type readerSession struct {
	f    *fake
	snap wire.Snapshot
	open wire.Reader
	mu   sync.Mutex
	may  map[chunkstore.ID]uint32 // sizes
}

func (f *fake) reader(w http.ResponseWriter, r *http.Request) {
	if !only(w, r.Form, "store", "ns", "backup-type", "backup-id", "backup-time") {
		return
	}
	s := &readerSession{f: f, snap: snapshotOf(r.Form), may: make(map[chunkstore.ID]uint32)}
	var err error
	if s.open, err = f.memory.Open(r.Context(), s.snap); err != nil {
		refuse(w, 400, "snapshot %s does not exist.", s.snap)
		return
	}
	f.upgrade(w, r, wire.ReaderProtocol, s)
}

func (s *readerSession) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	switch r.URL.Path {
	case "/download":
		name := q.Get("file-name")
		file := s.f.memory.File(s.snap, name)
		if file == nil {
			refuse(w, 404, "no such file")
			return
		}
		if !strings.HasSuffix(name, ".blob") {
			s.mu.Lock()
			eachEntry(s.f.t, name, file, func(e index.Entry) { s.may[e.ID] = e.Size })
			s.mu.Unlock()
		}
		w.Write(file)
	case "/chunk":
		id, _ := parseID(q.Get("digest"))
		s.mu.Lock()
		size, may := s.may[id]
		s.mu.Unlock()
		if !may {
			refuse(w, 401, "download chunk %s not allowed", id)
			return
		}
		raw, err := s.open.Get(r.Context(), chunkstore.Ref{ID: id, Size: size})
		if err != nil {
			raw, err = s.open.Get(r.Context(), chunkstore.Ref{ID: id, Size: size, Class: chunkstore.ClassEncrypted})
		}
		if err != nil {
			refuse(w, 400, "reading chunk failed: No such file or directory (os error 2)")
			return
		}
		w.Write(raw)
	default:
		refuse(w, 404, "Path '%s' not found.", r.URL.Path)
	}
}
