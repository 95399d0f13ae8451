package server

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// raw sends bytes over TLS and returns everything that comes back.
func (l *lab) raw(send string) string {
	l.t.Helper()
	c, err := tls.Dial("tcp", strings.TrimPrefix(l.base, "https://"), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}})
	if err != nil {
		l.t.Fatal(err)
	}
	defer c.Close()
	if p := c.ConnectionState().NegotiatedProtocol; p != "" {
		l.t.Errorf("ALPN: %q", p)
	}
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, send); err != nil {
		l.t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if err != nil {
		l.t.Fatalf("after %q: %v", got, err)
	}
	return string(got)
}

func TestRequestsWithoutHost(t *testing.T) {
	l := newLab(t, Options{})
	got := l.raw("GET /api2/json/ping HTTP/1.1\r\n\r\n" +
		"POST /api2/json/access/ticket HTTP/1.1\r\nContent-Length: 1\r\n\r\nx" +
		"GET //api2/json/ping HTTP/1.1\r\nConnection: close\r\n\r\n")
	if strings.Count(got, `{"pong":true}`) != 2 || !strings.Contains(got, "parameter verification failed") {
		t.Errorf("answers: %q", got)
	}
	got = l.raw("GET / HTTP/1.1\r\nA: " + strings.Repeat("b", headMax) + "\r\n\r\n")
	if !strings.HasPrefix(got, "HTTP/1.1 431 ") {
		t.Errorf("a long head: %.80q", got)
	}
}

func TestPlainHTTPIsRedirected(t *testing.T) {
	l := newLab(t, Options{})
	for _, tc := range []struct{ send, status, location string }{
		{"GET /a?b=c HTTP/1.1\r\nHost: pbs.lan:8007\r\n\r\n", "301", "https://pbs.lan:8007/a?b=c"},
		{"HEAD / HTTP/1.1\r\nHost: [::1]:8007\r\n\r\n", "301", "https://[::1]:8007/"},
		{"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", "308", "https://x/a"},
		{"GET / HTTP/1.1\r\n\r\n", "400", ""},
		{"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "400", ""},
		{"SSH-2.0-x\r\n\r\n", "400", ""},
	} {
		c, err := net.Dial("tcp", strings.TrimPrefix(l.base, "https://"))
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		_, _ = io.WriteString(c, tc.send)
		r, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: strings.Fields(tc.send)[0]})
		if err != nil {
			t.Fatalf("%q: %v", tc.send, err)
		}
		if fmt.Sprint(r.StatusCode) != tc.status || r.Header.Get("Location") != tc.location {
			t.Errorf("%q: %s to %q", tc.send, r.Status, r.Header.Get("Location"))
		}
		c.Close()
	}
}

// closes waits for the other side to close a connection.
func closes(t *testing.T, c net.Conn) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	_, err := io.Copy(io.Discard, c)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection stays open")
	}
}

func TestSlowPeersAreCut(t *testing.T) {
	l := newLab(t, Options{Limits: Limits{
		HandshakeTimeout: 50 * time.Millisecond, HeaderTimeout: 50 * time.Millisecond, IdleTimeout: 50 * time.Millisecond, BodyTimeout: 50 * time.Millisecond,
	}})
	addr := strings.TrimPrefix(l.base, "https://")
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	closes(t, c) // no handshake
	for name, send := range map[string]string{
		"nothing": "", "half a head": "GET / HTTP/1.1\r\nA:", "idle": "GET /api2/json/ping HTTP/1.1\r\n\r\n",
		"no body for nobody": "POST /api2/json/no/such HTTP/1.1\r\nContent-Length: 100\r\n\r\n",
		"half a body":        "POST /api2/json/access/ticket HTTP/1.1\r\nContent-Length: 100\r\n\r\nusername=",
	} {
		c, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		_, _ = io.WriteString(c, send)
		closes(t, c)
		c.Close()
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	l := newLab(t, Options{Limits: Limits{PerAddress: 2}})
	addr := strings.TrimPrefix(l.base, "https://")
	dial := func() *tls.Conn {
		c, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			return nil
		}
		return c
	}
	a, b := dial(), dial()
	if a == nil || b == nil {
		t.Fatal("the first two are refused")
	}
	defer b.Close()
	if c := dial(); c != nil {
		t.Error("the third is taken")
		c.Close()
	}
	a.Close()
	for range 5000 { // the server has to notice
		if c := dial(); c != nil {
			c.Close()
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("a place that was given back is not taken")
}

// A token that is at work in many places leaves room for others, and gets its
// places back when requests return and sessions end.
func TestTokensAreBounded(t *testing.T) {
	l := newLimitedLab(t, Limits{PerToken: 2, LoginDelay: -1, DenyDelay: -1})
	busy := func() int {
		l.server.callers.mu.Lock()
		defer l.server.callers.mu.Unlock()
		return l.server.callers.by["alice@pbs!key"]
	}
	for n := range 5 { // each gives its place back
		if code, text := l.refused(backupOf("alice", "vm/100", 1000).with("backup-id", "")); code != 400 {
			t.Fatalf("malformed request %d: %d %s", n, code, text)
		}
	}
	first, second := l.begin(backupOf("alice", "vm/100", 1000)), l.begin(backupOf("alice", "vm/101", 1000))
	if n := busy(); n != 2 {
		t.Errorf("two sessions have %d places", n)
	}
	if code, text := l.refused(backupOf("alice", "vm/102", 1000)); code != 429 || text != "too many requests and sessions of 'alice@pbs!key' at once" {
		t.Errorf("the third session: %d %s", code, text)
	}
	l.begin(backupOf("bob", "vm/103", 1000)).conn.Close()
	first.conn.Close()
	for range 1000 {
		if busy() < 2 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	l.begin(backupOf("alice", "vm/102", 1000)).conn.Close()
	second.conn.Close()
	for range 1000 {
		if l.server.callers.count() == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d places are not given back", l.server.callers.count())
}

func TestAdmissionCountsNeighbours(t *testing.T) {
	g := newAdmission[netip.Prefix](4, 2)
	enter := func(s string) func() {
		leave, ok := g.enter(neighbours(netip.MustParseAddr(s)))
		if !ok {
			return nil
		}
		return leave
	}
	first := enter("2001:db8::1")
	if first == nil || enter("2001:db8::2") == nil || enter("2001:db8::3") != nil {
		t.Error("one IPv6 network")
	}
	if enter("192.0.2.1") == nil || enter("::ffff:192.0.2.1") == nil || enter("192.0.2.2") != nil {
		t.Error("addresses, mapped ones, and the total")
	}
	first()
	first() // counts once
	if g.count() != 3 || enter("192.0.2.1") != nil || enter("192.0.2.2") == nil {
		t.Error("after one has left")
	}
}

func TestAnswersAreHeldBack(t *testing.T) {
	l := newLab(t, Options{Limits: Limits{LoginDelay: time.Hour, DenyDelay: time.Hour, DelayedAnswers: 1}})
	held := make(chan struct{})
	c, err := tls.Dial("tcp", strings.TrimPrefix(l.base, "https://"), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(c, "GET /api2/json/version HTTP/1.1\r\n\r\n")
	for len(l.server.delays) == 0 {
		time.Sleep(time.Millisecond)
	}
	go func() { defer close(held); _, _ = io.Copy(io.Discard, c) }()
	// All places are taken: answered at once, and closed.
	a := l.request("", "GET", "/api2/json/version", nil, nil)
	l.want(a, 401, "authentication failed")
	if !a.last {
		t.Error("the connection stays open")
	}
	c.Close() // who does not wait gives the place back
	<-held
	for range 1000 {
		if len(l.server.delays) == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("the place is not given back")
}

func TestCertificate(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "c"), filepath.Join(dir, "k")
	a, err := EnsureCertificate(cert, key, []string{"pbs.lan", "::1"})
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(key); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("key: %v %v", st, err)
	}
	if f := a.Fingerprint(); len(f) != 95 || strings.ToLower(f) != f || strings.Count(f, ":") != 31 {
		t.Errorf("fingerprint %q", f)
	}
	b, err := EnsureCertificate(cert, key, nil)
	if err != nil || a.Fingerprint() != b.Fingerprint() {
		t.Errorf("the second time: %v", err)
	}
	was := a.Fingerprint()
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	if err := a.Reload(); err == nil || a.Fingerprint() != was {
		t.Errorf("without its key: %v", err)
	}
	if _, err := EnsureCertificate(cert, key, nil); err == nil {
		t.Error("a certificate without its key was replaced")
	}
}

func TestMetricsAndHealth(t *testing.T) {
	l := newLab(t, Options{})
	l.tank()
	l.want(l.request("", "GET", "/metrics", nil, nil), 401, "authentication failed")
	l.want(l.request(nobody, "GET", "/metrics", nil, nil), 403, "permission check failed")
	for _, name := range []string{"holdfast_requests_total", "holdfast_connections", `holdfast_datastore_bytes{datastore="tank",kind="used"}`, `holdfast_refused_total{reason="login"} 1`} {
		l.want(l.request(audit, "GET", "/metrics", nil, nil), 200, name)
	}
	l.want(l.request("", "BREW", "/healthz", nil, nil), 200, "ok")
	l.want(l.request(audit, "GET", "/metrics", nil, nil), 200, `method="other"`)
	open := newLab(t, Options{OpenMetrics: true})
	open.want(open.request("", "GET", "/metrics", nil, nil), 200, "go_goroutines")
}
