package server

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"holdfast/datastore/server/budget"
	"holdfast/datastore/server/ledger"
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
	_ = c.SetDeadline(time.Now().Add(3 * time.Minute))
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
	got = l.raw("GET / HTTP/1.1\r\nA: " + strings.Repeat("b", 32<<10) + "\r\n\r\n")
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
		_ = c.SetDeadline(time.Now().Add(3 * time.Minute))
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
	_ = c.SetReadDeadline(time.Now().Add(3 * time.Minute))
	_, err := io.Copy(io.Discard, c)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection stays open")
	}
}

func TestSlowPeersAreCut(t *testing.T) {
	l := newLab(t, Options{Limits: budget.Limits{
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
		c := dialBriefly(t, addr)
		if c == nil {
			t.Fatalf("%s: no handshake was in time", name)
		}
		_, _ = io.WriteString(c, send)
		closes(t, c)
		c.Close()
	}
}

// dialBriefly makes a connection to a server that gives a handshake little time, which
// on a busy machine is sometimes too little.
func dialBriefly(t *testing.T, addr string) *tls.Conn {
	t.Helper()
	for range 200 {
		if c, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true}); err == nil {
			return c
		}
	}
	return nil
}

// A stranger makes room for whoever comes after it; who has logged in does not.
func TestStrangersMakeRoom(t *testing.T) {
	l := newLimitedLab(t, budget.Limits{PerAddress: 2, LoginDelay: -1, DenyDelay: -1})
	dial := func() *tls.Conn {
		c, err := tls.Dial("tcp", l.addr, &tls.Config{InsecureSkipVerify: true})
		l.must(err)
		t.Cleanup(func() { c.Close() })
		return c
	}
	ask := func(c *tls.Conn, more string) string {
		_ = c.SetDeadline(time.Now().Add(testWait))
		_, err := io.WriteString(c, "GET /api2/json/version HTTP/1.1\r\n"+more+"\r\n")
		l.must(err)
		r, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			return err.Error()
		}
		_, _ = io.Copy(io.Discard, r.Body)
		return r.Status
	}
	login := "Authorization: " + l.tokens["alice"] + "\r\n"
	member := dial()
	if s := ask(member, login); s != "200 OK" {
		t.Fatal(s)
	}
	first := dial()
	// What it says before it has logged in makes no difference.
	_, err := io.WriteString(first, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	l.must(err)
	for range 3 {
		if s := ask(dial(), login+"Connection: keep-alive\r\n"); s != "200 OK" {
			t.Fatal(s)
		}
	}
	second, third, fourth := dial(), dial(), dial()
	closes(t, first)
	closes(t, second)
	for name, c := range map[string]*tls.Conn{"the member": member, "the third": third, "the fourth": fourth} {
		if s := ask(c, login); s != "200 OK" {
			t.Errorf("%s: %s", name, s)
		}
	}
}

// A token that is at work in many places leaves room for others, and gets its
// places back when requests return and sessions end.
func TestTokensAreBounded(t *testing.T) {
	l := newLimitedLab(t, budget.Limits{PerToken: 2, LoginDelay: -1, DenyDelay: -1})
	busy := func() int {
		return int(l.server.accounts.Requests.Of(ledger.Payer{Account: "alice@pbs!key", Holder: "alice@pbs"}))
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
	if code, text := l.refused(backupOf("alice", "vm/102", 1000)); code != 429 || text != "you have all requests and sessions that one caller may have" {
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
		if l.server.accounts.Requests.Used() == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d places are not given back", l.server.accounts.Requests.Used())
}

func TestAnswersAreHeldBack(t *testing.T) {
	l := newLab(t, Options{Limits: budget.Limits{LoginDelay: time.Hour, DenyDelay: time.Hour, DelayedAnswers: 1}})
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
