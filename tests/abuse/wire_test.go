package abuse

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"
)

// identity is a token, or nobody.
type identity struct{ id, secret string }

// header is the line that says who asks.
func (i identity) header() string {
	if i.id == "" {
		return ""
	}
	return "Authorization: PBSAPIToken=" + i.id + ":" + i.secret + "\r\n"
}

// answer is what the server said to one request.
type answer struct {
	what   string
	status int
	header http.Header
	body   []byte
}

func (a answer) String() string {
	return fmt.Sprintf("%s: %d %.300q", a.what, a.status, a.body)
}

// want ends the test unless the answer has one of these states.
func (a answer) want(t testing.TB, states ...int) answer {
	t.Helper()
	for _, s := range states {
		if a.status == s {
			return a
		}
	}
	t.Fatalf("want %v: %s", states, a)
	return a
}

// refused fails the test unless the answer is an error of the caller.
func (a answer) refused(t testing.TB) {
	t.Helper()
	if a.status < 400 || a.status > 499 {
		t.Errorf("want 4xx: %s", a)
	}
}

// into decodes the data of a success.
func (a answer) into(t testing.TB, v any) {
	t.Helper()
	a.want(t, 200)
	whole := struct{ Data any }{v}
	if err := json.Unmarshal(a.body, &whole); err != nil {
		t.Fatalf("%v: %s", err, a)
	}
}

// wire is one TLS connection that speaks HTTP/1.1 so far.
type wire struct {
	net.Conn
	raw *net.TCPConn
	in  *bufio.Reader
}

// Read implements net.Conn: nothing that was read ahead is lost.
func (c *wire) Read(p []byte) (int, error) { return c.in.Read(p) }

// reset ends the connection without a word.
func (c *wire) reset() {
	c.raw.SetLinger(0)
	c.raw.Close()
}

// tickets lets connections skip most of the handshake.
var tickets = tls.NewLRUClientSessionCache(0)

// tcp connects from an address of this machine, "" for any.
func tcp(from, to string) (*net.TCPConn, error) {
	d := net.Dialer{Timeout: patience}
	if from != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	c, err := d.Dial("tcp", to)
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// secure opens TLS over a connection and takes it over.
func secure(raw *net.TCPConn) (*wire, error) {
	c := tls.Client(raw, &tls.Config{ServerName: "localhost", InsecureSkipVerify: true, ClientSessionCache: tickets})
	c.SetDeadline(time.Now().Add(patience))
	if err := c.Handshake(); err != nil {
		raw.Close()
		return nil, err
	}
	c.SetDeadline(time.Time{})
	return &wire{c, raw, bufio.NewReader(c)}, nil
}

// dial opens a connection.
func dial(from, to string) (*wire, error) {
	raw, err := tcp(from, to)
	if err != nil {
		return nil, err
	}
	return secure(raw)
}

// dial opens a connection that ends with the test.
func (w *world) dial(t testing.TB) *wire {
	t.Helper()
	c, err := dial("", w.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// head is a request without body; parameters are names and values.
func head(as identity, method, path string, kv ...string) string {
	target := "/api2/json" + path
	if len(kv) > 0 {
		target += "?" + pairs(kv)
	}
	return method + " " + target + " HTTP/1.1\r\nHost: x\r\n" + as.header()
}

// pairs makes a query of names and values.
func pairs(kv []string) string {
	v := url.Values{}
	for i := 0; i+1 < len(kv); i += 2 {
		v.Add(kv[i], kv[i+1])
	}
	return v.Encode()
}

// withBody ends a head with a body.
func withBody(head, contentType string, body []byte) []byte {
	return append(fmt.Appendf(nil, "%sContent-Type: %s\r\nContent-Length: %d\r\n\r\n", head, contentType, len(body)), body...)
}

const (
	formType  = "application/x-www-form-urlencoded"
	jsonType  = "application/json"
	bytesType = "application/octet-stream"
)

// say sends bytes and reads one answer.
func (c *wire) say(request []byte) (answer, error) {
	line, _, _ := bytes.Cut(request, []byte("\r\n"))
	a := answer{what: fmt.Sprintf("%.200q", line)}
	c.SetDeadline(time.Now().Add(patience))
	defer c.SetDeadline(time.Time{})
	// A server may answer and close before it has read everything.
	_, sent := c.Write(request)
	method, _, _ := strings.Cut(string(line), " ")
	r, err := http.ReadResponse(c.in, &http.Request{Method: method})
	if err != nil {
		return a, errors.Join(fmt.Errorf("%s: %w", a.what, err), sent)
	}
	defer r.Body.Close()
	a.status, a.header = r.StatusCode, r.Header
	if a.status != http.StatusSwitchingProtocols {
		a.body, err = io.ReadAll(r.Body)
	}
	return a, err
}

// ask sends one request over a connection of its own.
func (w *world) ask(t testing.TB, as identity, method, path string, kv ...string) answer {
	t.Helper()
	a, err := w.tryAsk("", as, method, path, kv...)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// tryAsk is ask from an address of this machine.
func (w *world) tryAsk(from string, as identity, method, path string, kv ...string) (answer, error) {
	c, err := dial(from, w.address)
	if err != nil {
		return answer{}, err
	}
	defer c.Close()
	return c.say([]byte(head(as, method, path, kv...) + "\r\n"))
}

// snap names a snapshot.
type snap struct {
	kind, id string
	time     int64
}

// params is the snapshot as parameters.
func (s snap) params(more ...string) []string {
	return append([]string{"backup-type", s.kind, "backup-id", s.id, "backup-time", strconv.FormatInt(s.time, 10)}, more...)
}

// began is the time of the first snapshot of a group.
const began = 1715000000

// The protocols that a connection may be upgraded to.
const (
	backupProtocol = "proxmox-backup-protocol-v1"
	readerProtocol = "proxmox-backup-reader-protocol-v1"
)

// upgradeRequest asks for a session.
func upgradeRequest(as identity, protocol string, s snap) []byte {
	path := "/backup"
	if protocol == readerProtocol {
		path = "/reader"
	}
	return []byte(head(as, "GET", path, s.params("store", store)...) + "Connection: upgrade\r\nUpgrade: " + protocol + "\r\n\r\n")
}

// session speaks HTTP/2 on an upgraded connection.
type session struct {
	*wire
	h2 *http.ClientConn
}

// refusal is an upgrade that was answered with an error.
type refusal struct{ answer }

func (r refusal) Error() string { return r.answer.String() }

// upgrade makes a session of a connection, which it takes over.
func upgrade(c *wire, request []byte) (*session, error) {
	a, err := c.say(request)
	if err == nil && a.status != http.StatusSwitchingProtocols {
		err = refusal{a}
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	t := &http.Transport{DisableCompression: true, Protocols: protocols,
		DialTLSContext: func(context.Context, string, string) (net.Conn, error) { return c, nil }}
	h2, err := t.NewClientConn(context.Background(), "https", "localhost:8007")
	if err != nil {
		c.Close()
		return nil, err
	}
	return &session{c, h2}, nil
}

// open begins a session from an address to one.
func open(from, to string, request []byte) (*session, error) {
	c, err := dial(from, to)
	if err != nil {
		return nil, err
	}
	return upgrade(c, request)
}

// session opens a session that ends with the test.
func (w *world) session(t testing.TB, as identity, protocol string, s snap) *session {
	t.Helper()
	h, err := open("", w.address, upgradeRequest(as, protocol, s))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

// message is one request of a session.
type message struct {
	method, path string
	kv           []string
	contentType  string
	body         []byte
}

// try sends a request and reads its answer.
func (s *session) try(m message) (answer, error) {
	target := "https://localhost:8007" + m.path
	if len(m.kv) > 0 {
		target += "?" + pairs(m.kv)
	}
	a := answer{what: fmt.Sprintf("%s %.200q", m.method, target)}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var body io.Reader
	if m.body != nil {
		body = bytes.NewReader(m.body)
	}
	r, err := http.NewRequestWithContext(ctx, m.method, target, body)
	if err != nil {
		return a, err
	}
	if m.contentType != "" {
		r.Header.Set("Content-Type", m.contentType)
	}
	resp, err := s.h2.RoundTrip(r)
	if err != nil {
		return a, fmt.Errorf("%s: %w", a.what, err)
	}
	defer resp.Body.Close()
	a.status, a.header = resp.StatusCode, resp.Header
	a.body, err = io.ReadAll(resp.Body)
	return a, err
}

// do is try for tests that go on.
func (s *session) do(t testing.TB, m message) answer {
	t.Helper()
	a, err := s.try(m)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// ok is try for a request that must succeed.
func (s *session) ok(m message) (answer, error) {
	a, err := s.try(m)
	if err == nil && a.status != 200 {
		err = refusal{a}
	}
	return a, err
}
