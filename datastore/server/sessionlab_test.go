package server

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"holdfast/chunkstore"
	"holdfast/chunkstore/blob"
	"holdfast/crypto"
	"holdfast/datastore"
	"holdfast/datastore/access"
	"holdfast/datastore/index"
	"holdfast/datastore/manifest"
	"holdfast/datastore/server/budget"
	"holdfast/datastore/server/front"
	"holdfast/datastore/task"
	"holdfast/datastore/wire"
)

// sessionLab is a server on the loopback device with a datastore "tank", and the
// users alice and bob, who may back up to it, each with a token.
type sessionLab struct {
	t      *testing.T
	dir    string
	server *Server
	access *access.Store
	tasks  *task.Registry
	addr   string
	tokens map[string]string // of "alice", "bob", "reader", "putter": Authorization headers
	codec  *blob.Codec
}

func newSessionLab(t *testing.T) *sessionLab {
	t.Helper()
	return newLimitedLab(t, budget.Limits{LoginDelay: -1, DenyDelay: -1})
}

func newLimitedLab(t *testing.T, limits budget.Limits) *sessionLab {
	t.Helper()
	l := &sessionLab{t: t, dir: t.TempDir(), tokens: make(map[string]string)}
	var err error
	l.access, err = access.Open(filepath.Join(l.dir, "access"), access.Options{PasswordMemory: cheapPassword})
	l.must(err)
	l.tasks, err = task.Open(filepath.Join(l.dir, "tasks"), task.Options{Node: "lab"})
	l.must(err)
	store := filepath.Join(l.dir, "tank")
	l.must(datastore.Create(store, datastore.CreateOptions{TrashDays: datastore.TrashDaysDefault}))
	l.must(l.access.AddDatastore(access.Datastore{Name: "tank", Path: store}))
	for name, role := range map[string]string{"alice": "DatastoreBackup", "bob": "DatastoreBackup", "reader": "DatastoreReader", "putter": "DatastorePutOnly", "nobody": ""} {
		l.user(name, role)
	}
	l.server, err = New(Options{DataDir: l.dir, Access: l.access, Tasks: l.tasks, Limits: limits})
	l.must(err)
	l.codec, err = blob.NewCodec(blob.Options{})
	l.must(err)
	l.listen()
	return l
}

func (l *sessionLab) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

func (l *sessionLab) user(name, role string) {
	l.t.Helper()
	id := wire.AuthID(name + "@pbs")
	l.must(l.access.CreateUser(access.User{ID: id, Enabled: true}, ""))
	token := id + "!key"
	secret, err := l.access.CreateToken(access.Token{ID: token, Enabled: true})
	l.must(err)
	if role != "" {
		for _, who := range []wire.AuthID{id, token} {
			l.must(l.access.SetACL(access.ACL{Path: "/datastore/tank", Role: role, ID: who, Propagate: true}))
		}
	}
	l.tokens[name] = "PBSAPIToken=" + string(token) + ":" + secret
}

func (l *sessionLab) listen() {
	l.t.Helper()
	cert, err := front.EnsureCertificate(filepath.Join(l.dir, "cert.pem"), filepath.Join(l.dir, "key.pem"), []string{"localhost"})
	l.must(err)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	l.must(err)
	l.addr = ln.Addr().String()
	served := make(chan error, 1)
	go func() { served <- l.server.Serve(context.Background(), ln, cert.Config()) }()
	l.t.Cleanup(func() {
		if err := l.server.Close(); err != nil {
			l.t.Errorf("close: %v", err)
		}
		if err := <-served; err != nil {
			l.t.Errorf("serve: %v", err)
		}
		if err := l.access.Close(); err != nil {
			l.t.Error(err)
		}
	})
}

// store is the datastore as the server has it open.
func (l *sessionLab) store() *datastore.Store {
	l.t.Helper()
	st, err := l.server.store("tank")
	l.must(err)
	return st
}

// upgradeRequest asks for a session.
type upgradeRequest struct {
	user, method, protocol string // method is "backup" or "reader"
	params                 url.Values
	early                  string // bytes sent together with the request
}

func backupOf(user, group string, when int64) upgradeRequest {
	typ, id, _ := strings.Cut(group, "/")
	return upgradeRequest{user: user, method: "backup", protocol: wire.BackupProtocol, params: url.Values{
		"store": {"tank"}, "backup-type": {typ}, "backup-id": {id}, "backup-time": {fmt.Sprint(when)}, "debug": {"true"}, "benchmark": {"false"}}}
}

func readerOf(user, group string, when int64) upgradeRequest {
	u := backupOf(user, group, when)
	u.method, u.protocol = "reader", wire.ReaderProtocol
	u.params.Del("benchmark")
	return u
}

// with adds a parameter.
func (u upgradeRequest) with(name, value string) upgradeRequest {
	more := url.Values{name: {value}}
	for k, v := range u.params {
		if k != name {
			more[k] = v
		}
	}
	u.params = more
	return u
}

// ask sends the request as the clients do, without a Host header, and returns
// the connection together with what the reader has read ahead.
func (l *sessionLab) ask(u upgradeRequest) (*http.Response, *ahead) {
	l.t.Helper()
	conn, err := tls.Dial("tcp", l.addr, &tls.Config{InsecureSkipVerify: true})
	l.must(err)
	l.t.Cleanup(func() { conn.Close() })
	head := fmt.Sprintf("GET //api2/json/%s?%s HTTP/1.1\r\nConnection: upgrade\r\nAuthorization: %s\r\n", u.method, u.params.Encode(), l.tokens[u.user])
	if u.protocol != "" {
		head += "Upgrade: " + u.protocol + "\r\n"
	}
	_, err = io.WriteString(conn, head+"\r\n"+u.early)
	l.must(err)
	c := &ahead{Conn: conn, r: bufio.NewReader(conn)}
	resp, err := http.ReadResponse(c.r, &http.Request{Method: http.MethodGet})
	l.must(err)
	return resp, c
}

// ahead is a connection with a buffer.
type ahead struct {
	net.Conn
	r *bufio.Reader
}

func (c *ahead) Read(p []byte) (int, error) { return c.r.Read(p) }

// cut resets the connection, without a word of TLS.
func (c *ahead) cut() {
	tcp := c.Conn.(*tls.Conn).NetConn().(*net.TCPConn)
	_ = tcp.SetLinger(0)
	tcp.Close()
}

// refused asks for a session that is not to come, and returns status and text.
func (l *sessionLab) refused(u upgradeRequest) (int, string) {
	l.t.Helper()
	resp, conn := l.ask(u)
	defer conn.Close()
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return resp.StatusCode, ""
	}
	text, err := io.ReadAll(resp.Body)
	l.must(err)
	return resp.StatusCode, string(text)
}

// talk is one session of a client.
type talk struct {
	lab    *sessionLab
	conn   net.Conn
	client *http.ClientConn
}

// begin opens a session.
func (l *sessionLab) begin(u upgradeRequest) *talk {
	l.t.Helper()
	resp, conn := l.ask(u)
	if resp.StatusCode != http.StatusSwitchingProtocols {
		text, _ := io.ReadAll(resp.Body)
		l.t.Fatalf("upgrade: %d %s", resp.StatusCode, text)
	}
	if resp.Header.Get("Upgrade") != u.protocol || resp.Header.Get(wire.ExtensionHeader) != wire.ExtensionVersion {
		l.t.Fatalf("headers of the 101: %v", resp.Header)
	}
	return l.over(conn)
}

// over speaks HTTP/2 on a connection.
func (l *sessionLab) over(conn net.Conn) *talk {
	l.t.Helper()
	transport := &http.Transport{
		Protocols:   new(http.Protocols),
		DialContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil },
	}
	transport.Protocols.SetUnencryptedHTTP2(true)
	client, err := transport.NewClientConn(context.Background(), "http", "localhost:80")
	l.must(err)
	l.t.Cleanup(func() { client.Close() })
	return &talk{lab: l, conn: conn, client: client}
}

// request is one request within a session.
type request struct {
	verb, path string
	params     url.Values
	body       io.Reader
	mime       string
}

// send returns status and body of the answer.
func (k *talk) send(ctx context.Context, q request) (int, []byte, error) {
	target := "http://localhost" + q.path
	if len(q.params) > 0 {
		target += "?" + q.params.Encode()
	}
	r, err := http.NewRequestWithContext(ctx, q.verb, target, q.body)
	if err != nil {
		return 0, nil, err
	}
	if q.mime == "" {
		q.mime = "application/x-www-form-urlencoded"
	}
	r.Header.Set("Content-Type", q.mime)
	resp, err := k.client.RoundTrip(r)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, body, err
}

// raw wants a 200 and returns the body.
func (k *talk) raw(q request) []byte {
	k.lab.t.Helper()
	code, body, err := k.send(context.Background(), q)
	if err != nil || code != http.StatusOK {
		k.lab.t.Fatalf("%s %s %v: %d %s %v", q.verb, q.path, q.params, code, body, err)
	}
	return body
}

// data wants a 200 and returns the member data.
func (k *talk) data(q request) any {
	k.lab.t.Helper()
	var answer map[string]any
	k.lab.must(json.Unmarshal(k.raw(q), &answer))
	v, ok := answer["data"]
	if !ok {
		k.lab.t.Fatalf("%s %s: no data in %v", q.verb, q.path, answer)
	}
	return v
}

// fails wants an error and returns its status and text.
func (k *talk) fails(q request) (int, string) {
	k.lab.t.Helper()
	code, body, err := k.send(context.Background(), q)
	if err != nil {
		k.lab.t.Fatalf("%s %s: %v", q.verb, q.path, err)
	}
	if code == http.StatusOK {
		k.lab.t.Fatalf("%s %s %v: accepted, %s", q.verb, q.path, q.params, body)
	}
	return code, string(body)
}

// refuses wants an error with that status and words in its text.
func (k *talk) refuses(q request, code int, words string) {
	k.lab.t.Helper()
	got, text := k.fails(q)
	if got != code || !strings.Contains(text, words) || strings.HasPrefix(text, "{") || strings.HasSuffix(text, "\n") {
		k.lab.t.Errorf("%s %s %v: %d %q, want %d with %q", q.verb, q.path, q.params, got, text, code, words)
	}
}

// bit is a chunk as a client has it.
type bit struct {
	id   chunkstore.ID
	size int
	raw  chunkstore.Blob
}

// key is what a copy of it is found by.
func (b bit) key(owner string) chunkstore.Key {
	return chunkstore.Ref{ID: b.id, Size: uint32(b.size), Class: b.raw.Class()}.Key(chunkstore.OwnerOf(owner))
}

// bitOf makes a chunk of n bytes out of a seed.
func (l *sessionLab) bitOf(seed byte, n int) bit {
	l.t.Helper()
	plain := bytes.Repeat([]byte{seed, seed ^ 0x55, 7}, n/3+1)[:n]
	raw, err := l.codec.Encode(nil, plain)
	l.must(err)
	return bit{id: l.codec.Name(plain), size: n, raw: raw}
}

func vals(pairs ...any) url.Values {
	v := make(url.Values)
	for i := 0; i < len(pairs); i += 2 {
		v.Add(fmt.Sprint(pairs[i]), fmt.Sprint(pairs[i+1]))
	}
	return v
}

func post(path string, pairs ...any) request {
	return request{verb: http.MethodPost, path: path, params: vals(pairs...)}
}

func get(path string, pairs ...any) request {
	return request{verb: http.MethodGet, path: path, params: vals(pairs...)}
}

// chunkUpload is the upload of a chunk; kind is "fixed" or "dynamic".
func chunkUpload(kind string, wid int, b bit) request {
	q := post("/"+kind+"_chunk", "wid", wid, "digest", b.id, "size", b.size, "encoded-size", len(b.raw))
	q.body, q.mime = bytes.NewReader(b.raw), "application/octet-stream"
	return q
}

// entry is a chunk in an index.
type entry struct {
	off uint64
	bit bit
}

func appendOf(kind string, wid int, list ...entry) request {
	body := map[string]any{"wid": wid}
	ids, offs := []string{}, []uint64{}
	for _, e := range list {
		ids, offs = append(ids, e.bit.id.String()), append(offs, e.off)
	}
	body["digest-list"], body["offset-list"] = ids, offs
	raw, _ := json.Marshal(body)
	return request{verb: http.MethodPut, path: "/" + kind + "_index", body: bytes.NewReader(raw), mime: "application/json"}
}

func closeOf(kind string, wid int, s index.Summary) request {
	return post("/"+kind+"_close", "wid", wid, "chunk-count", s.Count, "size", s.Size, "csum", hex.EncodeToString(s.Csum[:]))
}

// summaryOf is what a client computes for an index.
func summaryOf(kind string, list ...entry) index.Summary {
	k := index.Dynamic
	if kind == "fixed" {
		k = index.Fixed
	}
	s := index.NewSummer(k)
	for _, e := range list {
		s.Add(index.Entry{Off: e.off, Size: uint32(e.bit.size), ID: e.bit.id})
	}
	return s.Summary()
}

func blobUpload(name string, raw []byte) request {
	q := post("/blob", "file-name", name, "encoded-size", len(raw))
	q.body, q.mime = bytes.NewReader(raw), "application/octet-stream"
	return q
}

// manifestOf is the manifest of a snapshot with these files, as a blob.
func (l *sessionLab) manifestOf(group string, when int64, files ...manifest.File) []byte {
	l.t.Helper()
	typ, id, _ := strings.Cut(group, "/")
	m := manifest.Manifest{Type: typ, ID: id, Time: when, Files: files}
	raw, err := m.Blob()
	l.must(err)
	return raw
}

func indexFile(name string, s index.Summary) manifest.File {
	return manifest.File{Name: name, CryptMode: crypto.ModeNone, Size: s.Size, Csum: s.Csum}
}

func blobFile(name string, raw []byte) manifest.File {
	return manifest.File{Name: name, CryptMode: crypto.ModeNone, Size: uint64(len(raw)), Csum: sha256.Sum256(raw)}
}

// simple makes a whole snapshot of two chunks in a dynamic index.
func (l *sessionLab) simple(user, group string, when int64) []entry {
	l.t.Helper()
	k := l.begin(backupOf(user, group, when))
	list := k.archive("disk.img.didx", byte(when))
	s := summaryOf("dynamic", list...)
	k.data(blobUpload(wire.ManifestName, l.manifestOf(group, when, indexFile("disk.img.didx", s))))
	k.data(post("/finish"))
	k.conn.Close()
	return list
}

// archive uploads a dynamic index of two chunks.
func (k *talk) archive(name string, seed byte) []entry {
	k.lab.t.Helper()
	a, b := k.lab.bitOf(seed, 1000), k.lab.bitOf(seed+100, 2000)
	wid := int(k.data(post("/dynamic_index", "archive-name", name)).(float64))
	list := []entry{{0, a}, {1000, b}}
	for _, e := range list {
		if got := k.data(chunkUpload("dynamic", wid, e.bit)); got != e.bit.id.String() {
			k.lab.t.Errorf("upload answered %v", got)
		}
	}
	k.data(appendOf("dynamic", wid, list...))
	k.data(closeOf("dynamic", wid, summaryOf("dynamic", list...)))
	return list
}

// ended waits for the end of the newest task of a type and returns its status.
func (l *sessionLab) ended(kind string) string {
	l.t.Helper()
	for deadline := time.Now().Add(testWait); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		list, err := l.tasks.List(task.Filter{Type: kind, Limit: 1})
		l.must(err)
		if len(list) > 0 && !list[0].Running {
			return list[0].Status
		}
	}
	l.t.Fatalf("no %s task has ended", kind)
	return ""
}

// times lists the finished snapshots of a group.
func (l *sessionLab) times(group string) (list []int64) {
	l.t.Helper()
	typ, id, _ := strings.Cut(group, "/")
	all, err := l.store().Snapshots(context.Background(), wire.Group{Type: typ, ID: id})
	if errors.Is(err, chunkstore.ErrNotExist) {
		return nil
	}
	l.must(err)
	for _, s := range all {
		list = append(list, s.Snapshot.Time)
	}
	return list
}
