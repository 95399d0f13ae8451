package front

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// fed runs a headFixer over s, cut into pieces of n bytes.
func fed(s string, n int) (out string, f *headFixer) {
	f = &headFixer{}
	for b := []byte(s); len(b) > 0; {
		k := min(n, len(b))
		f.feed(b[:k])
		b = b[k:]
	}
	return string(f.out), f
}

func TestHeadFixer(t *testing.T) {
	const host = "Host: localhost\r\n"
	for _, tc := range []struct{ name, in, want string }{
		{"host is there", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"},
		{"host in lower case", "GET / HTTP/1.1\r\nhost:a\r\n\r\n", "GET / HTTP/1.1\r\nhost:a\r\n\r\n"},
		{"no host", "GET / HTTP/1.1\r\nA: b\r\n\r\n", "GET / HTTP/1.1\r\nA: b\r\n" + host + "\r\n"},
		{"no header", "GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\n" + host + "\r\n"},
		{"bare line feeds", "GET / HTTP/1.1\nA: b\n\n", "GET / HTTP/1.1\nA: b\n" + host + "\n"},
		{"two requests", "GET / HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\n" + host + "\r\nGET /b HTTP/1.1\r\n" + host + "\r\n"},
		{
			"a body that looks like a head", "POST / HTTP/1.1\r\nContent-Length: 18\r\n\r\nGET / HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\n",
			"POST / HTTP/1.1\r\nContent-Length: 18\r\n" + host + "\r\nGET / HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n" + host + "\r\n",
		},
		{
			"after a chunked body nothing is touched", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /b HTTP/1.1\r\n\r\n",
			"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /b HTTP/1.1\r\n\r\n",
		},
		{
			"lengths that differ", "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxGET /b HTTP/1.1\r\n\r\n",
			"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n" + host + "\r\nxGET /b HTTP/1.1\r\n\r\n",
		},
		{"the preface of HTTP/2", "GET / HTTP/1.1\r\nUpgrade: x\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\n\n", "GET / HTTP/1.1\r\nUpgrade: x\r\n" + host + "\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\n\n"},
		{"an empty line in front", "\r\nGET / HTTP/1.1\r\n\r\n", "\r\nGET / HTTP/1.1\r\n\r\n"},
	} {
		for n := 1; n <= len(tc.in); n++ {
			if got, _ := fed(tc.in, n); got != tc.want {
				t.Errorf("%s, in pieces of %d:\n%q, want\n%q", tc.name, n, got, tc.want)
				break
			}
		}
	}
}

func TestHeadFixerHoldsLittle(t *testing.T) {
	for name, head := range map[string]string{
		"one line": "GET /" + strings.Repeat("x", 2*headMax),
		"many":     "GET / HTTP/1.1\r\n" + strings.Repeat("A: b\r\n", headMax),
	} {
		out, f := fed(head, 1000)
		if f.state != passing || len(f.line) != 0 || out != head {
			t.Errorf("%s: state %d, %d bytes held, passed on unchanged: %v", name, f.state, len(f.line), out == head)
		}
	}
}

// The connection hands out the same, whatever the sizes of reads and packets.
func TestFixedConnReads(t *testing.T) {
	in := "POST /a HTTP/1.1\r\nContent-Length: 5\r\n\r\nhelloGET /b HTTP/1.1\r\nUpgrade: x\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\nrest"
	want, _ := fed(in, len(in))
	for name, r := range map[string]io.Reader{
		"whole": strings.NewReader(in), "bytes": iotest.OneByteReader(strings.NewReader(in)), "halves": iotest.HalfReader(strings.NewReader(in)),
		"with its end": iotest.DataErrReader(strings.NewReader(in)),
	} {
		got, err := io.ReadAll(iotest.OneByteReader(newFixedConn(readConn{Reader: r}, nil, 0)))
		if err != nil || string(got) != want {
			t.Errorf("%s: %q %v, want %q", name, got, err, want)
		}
	}
}

// readConn is a connection that can only be read.
type readConn struct {
	net.Conn
	io.Reader
}

func (c readConn) Read(p []byte) (int, error)    { return c.Reader.Read(p) }
func (c readConn) SetDeadline(_ time.Time) error { return nil }

func TestFixedConnWrites(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	data := bytes.Repeat([]byte("0123456789"), 3*writePiece/10)
	go func() {
		_, _ = newFixedConn(b, nil, time.Minute).Write(data)
		b.Close()
	}()
	got, err := io.ReadAll(a)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes arrived, %v", len(got), err)
	}
	c, d := net.Pipe()
	defer c.Close()
	if n, err := newFixedConn(d, nil, time.Millisecond).Write(data); err == nil || n != 0 {
		t.Errorf("to a peer that does not read: %d %v", n, err)
	}
}

// FuzzHeadFixer compares the bytes that come out with those that went in: only
// whole Host lines may be added, and never a byte be lost.
func FuzzHeadFixer(f *testing.F) {
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"), 3)
	f.Add([]byte("POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: x\r\n\r\nabc\r\n"), 1)
	f.Add([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 100)
	f.Add([]byte("POST / HTTP/1.1\ncontent-length:18446744073709551615\n\nabc"), 2)
	f.Fuzz(func(t *testing.T, in []byte, n int) {
		n = max(1, n)
		out, fixer := fed(string(in), n)
		all, _ := fed(string(in), max(1, len(in)))
		if out != all {
			t.Fatalf("depends on the pieces: %q, %q", out, all)
		}
		if len(fixer.line) > headMax+1 {
			t.Fatalf("%d bytes are held", len(fixer.line))
		}
		got := strings.ReplaceAll(out+string(fixer.line), hostLine, "")
		if want := strings.ReplaceAll(string(in), hostLine, ""); got != want {
			t.Fatalf("%q became %q", in, out)
		}
	})
}
