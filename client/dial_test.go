package client

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestCertificate(t *testing.T) {
	f := newFake(t)
	right := fingerprint(f.server.Certificate())
	roots := x509.NewCertPool()
	roots.AddCert(f.server.Certificate())
	wrong := strings.Repeat("00:", 31) + "00"
	refuse := func(context.Context, string, string) error { return errors.New("no, thanks") }
	for name, tc := range map[string]struct {
		roots       *x509.CertPool
		fingerprint string
		trust       func(ctx context.Context, host, fingerprint string) error
		accepted    bool
	}{
		"nothing known":                      {},
		"fingerprint":                        {fingerprint: right, accepted: true},
		"fingerprint in upper case":          {fingerprint: strings.ToUpper(right), accepted: true},
		"wrong fingerprint":                  {fingerprint: wrong},
		"wrong fingerprint, nobody asked":    {fingerprint: wrong, trust: func(context.Context, string, string) error { return nil }},
		"platform":                           {roots: roots, accepted: true},
		"platform, but another is meant":     {roots: roots, fingerprint: wrong, trust: func(context.Context, string, string) error { return nil }},
		"platform and the one that is meant": {roots: roots, fingerprint: right, trust: refuse, accepted: true},
		"trusted by a person":                {accepted: true, trust: func(_ context.Context, host, fp string) error { return errIf(host != "127.0.0.1" || fp != right) }},
		"refused by a person":                {trust: refuse},
		"fingerprint, so no person's asked":  {fingerprint: right, trust: refuse, accepted: true},
	} {
		o := f.options()
		o.Fingerprint, o.Trust = tc.fingerprint, tc.trust
		before := f.count("GET /admin/datastore/tank/groups")
		c := dial(t, o, func(c *Client) {
			if c.roots = tc.roots; c.roots == nil {
				c.roots = x509.NewCertPool()
			}
		})
		_, err := c.Groups(t.Context(), "")
		if (err == nil) != tc.accepted || err != nil && !errors.Is(err, ErrCertificate) {
			t.Errorf("%s: %v", name, err)
		}
		if sent := f.count("GET /admin/datastore/tank/groups") > before; sent != tc.accepted {
			t.Errorf("%s: a request was sent: %v", name, sent)
		}
	}
}

func errIf(bad bool) error {
	if bad {
		return errors.New("not what was expected")
	}
	return nil
}

func TestPlatformChecksTheName(t *testing.T) {
	f := newFake(t)
	roots := x509.NewCertPool()
	roots.AddCert(f.server.Certificate())
	o := f.options()
	o.Fingerprint, o.Repository.Host = "", "pbs.lan"
	o.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, f.server.Listener.Addr().String())
	}
	c := dial(t, o, func(c *Client) { c.roots = roots })
	if _, err := c.Groups(t.Context(), ""); !errors.Is(err, ErrCertificate) {
		t.Errorf("a certificate for another name: %v", err)
	}
}

func FuzzParseFingerprint(f *testing.F) {
	f.Add(strings.Repeat("aB:", 31) + "00")
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		sum, err := parseFingerprint(s)
		if err != nil {
			return
		}
		again, err := parseFingerprint(fingerprintText(sum))
		if err != nil || again != sum {
			t.Fatalf("%q: %x, then %x, %v", s, sum, again, err)
		}
	})
}

// proxy is an HTTP proxy that speaks CONNECT.
type proxy struct {
	net.Listener
	used atomic.Int32
}

func newProxy(t *testing.T) *proxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{Listener: l}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go p.serve(conn)
		}
	}()
	return p
}

func (p *proxy) serve(conn net.Conn) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	req, err := http.ReadRequest(in)
	if err != nil {
		return
	}
	user, password, _ := (&http.Request{Header: http.Header{"Authorization": {req.Header.Get("Proxy-Authorization")}}}).BasicAuth()
	if req.Method != http.MethodConnect || user != "u" || password != "p:w" {
		io.WriteString(conn, "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
		return
	}
	out, err := net.Dial("tcp", req.Host)
	if err != nil {
		return
	}
	defer out.Close()
	p.used.Add(1)
	io.WriteString(conn, "HTTP/1.1 200 Connection established\r\n\r\n")
	go func() { io.Copy(out, in); out.(*net.TCPConn).CloseWrite() }()
	io.Copy(conn, out)
}

func TestProxy(t *testing.T) {
	f, p := newFake(t), newProxy(t)
	o := f.options()
	o.Proxy = "u:p%3Aw@" + p.Addr().String()
	groups(t, dial(t, o))
	if p.used.Load() != 1 {
		t.Errorf("the proxy was used %d times", p.used.Load())
	}
	o.Proxy = "http://" + p.Addr().String()
	if _, err := dial(t, o).Groups(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "407") {
		t.Errorf("without a password: %v", err)
	}
}

func TestBucket(t *testing.T) {
	b := newBucket(100_000)
	now := time.Unix(1000, 0)
	for _, step := range []struct {
		later time.Duration
		n     int
		wait  time.Duration
	}{
		{0, 5000, 0}, // what the burst allows
		{0, 5000, 0},
		{0, 5000, 50 * time.Millisecond},
		{0, 5000, 100 * time.Millisecond},
		{20 * time.Millisecond, 1000, 90 * time.Millisecond},
		{time.Hour, 10_000, 0}, // nothing is saved up but the burst
		{0, 1000, 10 * time.Millisecond},
	} {
		now = now.Add(step.later)
		if got := b.take(step.n, now); (got - step.wait).Abs() > time.Microsecond {
			t.Errorf("%d bytes %v later wait %v, want %v", step.n, step.later, got, step.wait)
		}
	}
	if newBucket(0) != nil {
		t.Error("no rate is a limit")
	}
}

// A slice fits into every bucket: it would have to wait for ever otherwise.
func TestEveryRateMovesASlice(t *testing.T) {
	for _, perSecond := range []int64{1, 1000, 40 << 10, 1 << 20, 10 << 30, math.MaxInt64} {
		b, now := newBucket(perSecond), time.Unix(1000, 0)
		for range 3 {
			if d := b.take(b.slice(), now); d < 0 || d > 3*4096*time.Second {
				t.Errorf("%d bytes per second: a slice of %d bytes waits %v", perSecond, b.slice(), d)
			}
		}
	}
}

// Two connections share one bucket: a megabyte each at 100 kB per second takes twenty
// seconds, whichever way it goes.
func TestLimitedConnsShareARate(t *testing.T) {
	for _, way := range []string{"up", "down"} {
		t.Run(way, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, began := newBucket(100_000), time.Now()
				var all sync.WaitGroup
				for range 2 {
					from, to := net.Pipe()
					if way == "up" {
						from = limit(from, b, nil)
					} else {
						to = limit(to, nil, b)
					}
					all.Go(func() {
						from.Write(make([]byte, 1_000_000))
						from.Close()
					})
					all.Go(func() {
						if n, err := io.Copy(io.Discard, to); n != 1_000_000 || err != nil {
							t.Errorf("%d bytes, %v", n, err)
						}
					})
				}
				all.Wait()
				if took := time.Since(began); took < 19800*time.Millisecond || took > 20*time.Second {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
}

func TestLimitedConnPassesEverything(t *testing.T) {
	a, b := net.Pipe()
	la := limit(a, newBucket(50<<20), newBucket(50<<20))
	lb := limit(b, nil, newBucket(50<<20))
	sent := bytes.Repeat([]byte("0123456789abcdef"), 40_000)
	go func() {
		la.Write(sent)
		la.Close()
	}()
	got, err := io.ReadAll(lb)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d of %d bytes, %v", len(got), len(sent), err)
	}
	if limit(a, nil, nil) != a {
		t.Error("a connection without limits is wrapped")
	}
}

// Closing ends a wait, however low the rate.
func TestLimitedConnCloses(t *testing.T) {
	a, b := net.Pipe()
	go io.Copy(io.Discard, b)
	la := limit(a, newBucket(1), nil)
	done := make(chan error)
	go func() { _, err := la.Write(make([]byte, 1<<20)); done <- err }()
	time.Sleep(5 * time.Millisecond)
	la.Close()
	if err := <-done; err == nil {
		t.Error("wrote a megabyte at a byte per second")
	}
}

func TestDialIsTriedAgain(t *testing.T) {
	f := newFake(t)
	o := f.options()
	tries := 0
	o.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if tries++; tries < 3 {
			return nil, errors.New("connection refused")
		}
		var d net.Dialer
		return d.DialContext(ctx, network, addr)
	}
	groups(t, dial(t, o))
	o.Dial = func(context.Context, string, string) (net.Conn, error) {
		tries++
		return nil, &net.DNSError{Err: "no such host", Name: "pbs.lan", IsNotFound: true}
	}
	tries = 0
	if _, err := dial(t, o).Groups(t.Context(), ""); err == nil || tries != 1 {
		t.Errorf("a name that does not exist: %d tries, %v", tries, err)
	}
	o.Dial = func(context.Context, string, string) (net.Conn, error) {
		tries++
		return nil, errors.New("connection refused")
	}
	tries = 0
	if _, err := dial(t, o).Groups(t.Context(), ""); err == nil || tries != defaultPolicy().tries {
		t.Errorf("a server that is down: %d tries, %v", tries, err)
	}
}

func TestReadHead(t *testing.T) {
	for name, tc := range map[string]struct {
		in   string
		code int
		rest string
	}{
		"bytes behind it are kept": {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nREST", 101, "REST"},
		"a body":                   {"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\nno", 400, "no"},
		"endless":                  {"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", headerMax), 0, ""},
		"nonsense":                 {"SSH-2.0-OpenSSH\r\n\r\n", 0, ""},
		"cut":                      {"HTTP/1.1 101 Switch", 0, ""},
	} {
		a, b := net.Pipe()
		go func() { io.WriteString(b, tc.in); b.Close() }()
		resp, s, err := readHead(a, http.MethodGet)
		if err != nil {
			if tc.code != 0 {
				t.Errorf("%s: %v", name, err)
			}
			a.Close()
			continue
		}
		rest, _ := io.ReadAll(s)
		if resp.StatusCode != tc.code || string(rest) != tc.rest {
			t.Errorf("%s: %d, then %q", name, resp.StatusCode, rest)
		}
		select {
		case <-s.ended:
		default:
			t.Errorf("%s: the end was not noticed", name)
		}
	}
}

func FuzzReadHead(f *testing.F) {
	f.Add([]byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nREST"))
	f.Add([]byte("HTTP/1.0 200\r\n\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		resp, s, err := readHead(readConn{r: bytes.NewReader(in)}, http.MethodGet)
		if err != nil {
			return
		}
		rest, err := io.ReadAll(s)
		if err != nil || !bytes.HasSuffix(in, rest) {
			t.Fatalf("status %d, then %q, %v", resp.StatusCode, rest, err)
		}
	})
}

// readConn is a connection that can only be read from.
type readConn struct {
	net.Conn
	r io.Reader
}

func (c readConn) Read(p []byte) (int, error) { return c.r.Read(p) }

func TestUpgradeRefusesAnotherProtocol(t *testing.T) {
	f := newFake(t)
	f.before = func(w http.ResponseWriter, r *http.Request) bool {
		raw, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return true
		}
		io.WriteString(raw, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
		raw.Close()
		return true
	}
	if _, err := dial(t, f.options()).Begin(t.Context(), snap(1)); !errors.Is(err, errAnswer) {
		t.Errorf("another protocol: %v", err)
	}
	if f.count("GET /backup") != 1 {
		t.Errorf("asked %d times", f.count("GET /backup"))
	}
}

func TestCancelledContextEndsADial(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // nobody answers
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f := newFake(t)
	o := f.options()
	o.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, l.Addr().String())
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	if _, err := dial(t, o).Begin(ctx, snap(1)); !errors.Is(err, context.Canceled) {
		t.Errorf("begin: %v", err)
	}
}
