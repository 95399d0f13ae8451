package interop

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// identity is who asks: the header lines that say so.
type identity struct {
	id     string
	header []string
	// ticket is set for users.
	ticket, csrf string
	secret       string
	// from is the address that is asked from, "" for the usual one.
	from string
}

var nobody = identity{id: "nobody"}

var strangers atomic.Uint32

// stranger is nobody at an address of its own: a server may hold an address
// back for its failures, and neither the other tests nor the next failure are
// to be held back for this one.
func stranger() identity {
	n := strangers.Add(1)
	return identity{id: "stranger", from: fmt.Sprintf("127.1.%d.%d", n>>8&0xff, n&0xff)}
}

// token is an identity in the form of PVE and the documentation.
func token(id, secret string) identity {
	return identity{id: id, secret: secret, header: []string{"Authorization: PBSAPIToken=" + id + ":" + secret}}
}

// ticketed is an identity as the reference client sends it, nothing encoded
// and the second header on every request.
func ticketed(user, ticket, csrf string) identity {
	return identity{id: user, ticket: ticket, csrf: csrf,
		header: []string{"cookie: PBSAuthCookie=" + ticket, "csrfpreventiontoken: " + csrf}}
}

// request is one HTTP/1.1 request; the target is sent as it stands.
type request struct {
	method, target string
	header         []string
	body           []byte
	noHost         bool
	from           string // see identity
}

// as adds who asks.
func (r request) as(who identity) request {
	r.header = append(append([]string{}, r.header...), who.header...)
	r.from = who.from
	return r
}

func (r request) bytes() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\n", r.method, r.target)
	if !r.noHost {
		b.WriteString("host: localhost:8007\r\n")
	}
	for _, h := range r.header {
		b.WriteString(h + "\r\n")
	}
	if r.body != nil {
		fmt.Fprintf(&b, "content-length: %d\r\n", len(r.body))
	}
	b.WriteString("\r\n")
	b.Write(r.body)
	return b.Bytes()
}

// answer is what the server said to one request.
type answer struct {
	what   string
	status int
	header http.Header
	body   []byte
}

func (a answer) String() string {
	body := a.body
	if len(body) > 300 {
		body = body[:300]
	}
	return fmt.Sprintf("%s: %d %q", a.what, a.status, body)
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

// refused fails the test unless the answer is an error in the form of section
// 1.5 that says these words.
func (a answer) refused(t testing.TB, status int, words ...string) {
	t.Helper()
	if a.status != status {
		t.Errorf("want %d: %s", status, a)
		return
	}
	text := string(a.body)
	if text == "" || strings.HasSuffix(text, "\n") || strings.HasPrefix(text, "{") || strings.HasPrefix(text, "<") {
		t.Errorf("an error is a plain text without line feed: %s", a)
	}
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("the error does not say %q: %s", w, a)
		}
	}
}

// judged fails the test if the answer tells who asked to wait, for what others
// have asked before.
func (a answer) judged(t testing.TB) {
	t.Helper()
	if a.header.Get("Retry-After") != "" {
		t.Errorf("held back, not judged: %s", a)
	}
}

// envelope ends the test unless the answer is a success in the form of section
// 1.4, and returns its members.
func (a answer) envelope(t testing.TB) map[string]json.RawMessage {
	t.Helper()
	a.want(t, 200)
	if ct := a.header.Get("Content-Type"); !strings.Contains(ct, "application/json") {
		t.Errorf("content type %q: %s", ct, a)
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(a.body, &all); err != nil {
		t.Fatalf("%v: %s", err, a)
	}
	if _, ok := all["data"]; !ok {
		t.Fatalf("no data: %s", a)
	}
	return all
}

// into decodes the data of a success.
func (a answer) into(t testing.TB, v any) {
	t.Helper()
	if err := json.Unmarshal(a.envelope(t)["data"], v); err != nil {
		t.Fatalf("%v: %s", err, a)
	}
}

// data is the data of a success as it came.
func (a answer) data(t testing.TB) string {
	t.Helper()
	return string(a.envelope(t)["data"])
}

// null fails the test unless the answer is a success without result.
func (a answer) null(t testing.TB) {
	t.Helper()
	if d := a.data(t); d != "null" {
		t.Errorf("want null: %s", a)
	}
}

// wire is one TLS connection that speaks HTTP/1.1 so far.
type wire struct {
	net.Conn
	in *bufio.Reader
}

// connect opens a TLS connection over raw and pins the certificate.
func (w *world) connect(raw net.Conn) (*wire, error) {
	c := tls.Client(raw, &tls.Config{
		ServerName: "localhost", InsecureSkipVerify: true, MinVersion: tls.VersionTLS12,
		VerifyConnection: func(s tls.ConnectionState) error {
			if got := fingerprint(s.PeerCertificates[0].Raw); got != w.fingerprint {
				return fmt.Errorf("fingerprint %s, announced %s", got, w.fingerprint)
			}
			return nil
		},
	})
	if err := c.Handshake(); err != nil {
		return nil, err
	}
	return &wire{Conn: c, in: bufio.NewReader(c)}, nil
}

func fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	var pairs []string
	for _, b := range sum {
		pairs = append(pairs, fmt.Sprintf("%02x", b))
	}
	return strings.Join(pairs, ":")
}

func (w *world) tcp() (net.Conn, error) { return w.tcpFrom("") }

// tcpFrom is tcp from an address, "" for the usual one.
func (w *world) tcpFrom(from string) (net.Conn, error) {
	d := net.Dialer{Timeout: patience}
	if from != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	return d.Dial("tcp", w.address)
}

// dial opens a connection that ends with the test.
func (w *world) dial(t testing.TB) *wire {
	t.Helper()
	return w.dialFrom(t, "")
}

func (w *world) dialFrom(t testing.TB, from string) *wire {
	t.Helper()
	raw, err := w.tcpFrom(from)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { raw.Close() })
	c, err := w.connect(raw)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// roundTrip sends a request and reads its answer whole.
func (c *wire) roundTrip(r request) (answer, error) {
	what := r.method + " " + r.target
	if len(what) > 200 {
		what = what[:200] + "…"
	}
	c.SetDeadline(time.Now().Add(patience))
	defer c.SetDeadline(time.Time{})
	// A server may answer and close before it has read a body that is too
	// large: the answer counts, not the error of the write.
	_, sent := c.Write(r.bytes())
	a, err := c.receive(r.method, what)
	if err != nil {
		return a, errors.Join(err, sent)
	}
	return a, nil
}

// receive reads one answer.
func (c *wire) receive(method, what string) (answer, error) {
	a := answer{what: what}
	resp, err := http.ReadResponse(c.in, &http.Request{Method: method})
	if err != nil {
		return a, fmt.Errorf("%s: %w", what, err)
	}
	defer resp.Body.Close()
	a.status, a.header = resp.StatusCode, resp.Header
	if a.status != http.StatusSwitchingProtocols {
		a.body, err = io.ReadAll(resp.Body)
	}
	return a, err
}

// send is roundTrip for tests that go on.
func (c *wire) send(t testing.TB, r request) answer {
	t.Helper()
	a, err := c.roundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// ask sends one request over a connection of its own.
func (w *world) ask(t testing.TB, r request) answer {
	t.Helper()
	c := w.dialFrom(t, r.from)
	defer c.Close()
	return c.send(t, r)
}

// pairs makes a query of names and values.
func pairs(kv []string) url.Values {
	v := url.Values{}
	for i := 0; i+1 < len(kv); i += 2 {
		v.Add(kv[i], kv[i+1])
	}
	return v
}

const (
	formType  = "content-type: application/x-www-form-urlencoded"
	jsonType  = "content-type: application/json"
	bytesType = "content-type: application/octet-stream"
)

// rest is one identity at the REST interface; parameters are names and values.
type rest struct {
	w  *world
	as identity
}

func (w *world) rest(as identity) rest { return rest{w, as} }

// query sends the parameters in the query, as the reference client does for
// everything but POST.
func (r rest) query(t testing.TB, method, path string, kv ...string) answer {
	t.Helper()
	target := "/api2/json" + path
	if len(kv) > 0 {
		target += "?" + pairs(kv).Encode()
	}
	return r.w.ask(t, request{method: method, target: target, header: []string{formType}}.as(r.as))
}

func (r rest) get(t testing.TB, path string, kv ...string) answer {
	t.Helper()
	return r.query(t, "GET", path, kv...)
}

// form sends the parameters in a form, as PVE does.
func (r rest) form(t testing.TB, method, path string, kv ...string) answer {
	t.Helper()
	body := []byte(pairs(kv).Encode())
	return r.w.ask(t, request{method: method, target: "/api2/json" + path, header: []string{formType}, body: body}.as(r.as))
}

// json sends a value as body, as the reference client does for POST.
func (r rest) json(t testing.TB, method, path string, v any) answer {
	t.Helper()
	body, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return r.w.ask(t, request{method: method, target: "/api2/json" + path, header: []string{jsonType}, body: body}.as(r.as))
}

// credentials is the answer to a login.
type credentials struct {
	Username string `json:"username"`
	Ticket   string `json:"ticket"`
	CSRF     string `json:"CSRFPreventionToken"`
}

// login asks for a ticket as the reference client does.
func (w *world) login(user, secret string) (identity, error) {
	raw, err := w.tcp()
	if err != nil {
		return nobody, err
	}
	defer raw.Close()
	c, err := w.connect(raw)
	if err != nil {
		return nobody, err
	}
	body, _ := json.Marshal(map[string]string{"username": user, "password": secret})
	a, err := c.roundTrip(request{method: "POST", target: "//api2/json/access/ticket", header: []string{jsonType}, body: body})
	if err != nil {
		return nobody, err
	}
	var got struct{ Data credentials }
	if err := json.Unmarshal(a.body, &got); a.status != 200 || err != nil {
		return nobody, fmt.Errorf("login of %s: %s (%w)", user, a, err)
	}
	return ticketed(user, got.Data.Ticket, got.Data.CSRF), nil
}
