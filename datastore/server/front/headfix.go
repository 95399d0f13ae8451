package front

import (
	"bytes"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// headMax caps the head of a request, in bytes.
const headMax = 32 << 10

// hostLine is what a head without a Host header gets: some clients leave it out of
// the request that begins a session, which may be any request of a connection, and
// net/http insists on it with no way to tell it otherwise.
const hostLine = "Host: localhost\r\n"

// fixState says which part of a request comes next.
type fixState int

const (
	inHead fixState = iota
	inBody
	passing // nothing is looked at any more
)

// headFixer copies the bytes of an HTTP/1.1 connection and adds a Host header
// where a request has none. It holds back at most one line of a head.
type headFixer struct {
	state fixState
	line  []byte // of the head, up to what has arrived
	out   []byte // ready
	left  uint64 // bytes of the body still to come
	// What is known of the head being read.
	lines    int
	size     int
	host     bool
	stream   bool // the body's end cannot be counted
	length   uint64
	lengthOK bool
	upgrade  bool // what follows the head may be another protocol
}

// feed takes bytes of the connection; what is ready is appended to out.
func (f *headFixer) feed(b []byte) {
	for len(b) > 0 {
		switch f.state {
		case passing:
			f.out = append(f.out, b...)
			return
		case inBody:
			n := min(f.left, uint64(len(b)))
			f.out = append(f.out, b[:n]...)
			b = b[n:]
			f.took(n)
		case inHead:
			b = f.head(b)
		}
	}
}

// took notes n bytes of a body.
func (f *headFixer) took(n uint64) {
	f.left -= n
	if f.left == 0 {
		f.state = inHead
	}
}

// head takes bytes up to the end of a line and returns the rest.
func (f *headFixer) head(b []byte) []byte {
	i := bytes.IndexByte(b, '\n')
	n := i + 1
	if i < 0 {
		n = len(b)
	}
	n = min(n, headMax-f.size+1)
	f.line = append(f.line, b[:n]...)
	f.size += n
	switch {
	case f.size > headMax:
		f.pass() // net/http refuses it
	case i >= 0:
		f.endLine()
	}
	return b[n:]
}

// pass lets everything through from here on.
func (f *headFixer) pass() {
	f.out = append(f.out, f.line...)
	f.line = nil
	f.state = passing
}

// endLine looks at a line of a head that is complete.
func (f *headFixer) endLine() {
	text := bytes.TrimRight(f.line, "\r\n")
	switch {
	case f.lines == 0 && len(text) == 0:
		f.pass()
		return
	case len(text) == 0:
		f.endHead()
		return
	case f.lines > 0:
		f.header(string(text))
	}
	f.lines++
	f.out = append(f.out, f.line...)
	f.line = f.line[:0]
}

// header looks at a header line.
func (f *headFixer) header(text string) {
	name, value, _ := strings.Cut(text, ":")
	value = strings.TrimSpace(value)
	switch strings.ToLower(name) {
	case "host":
		f.host = true
	case "transfer-encoding":
		f.stream = true
	case "upgrade":
		f.upgrade = true
	case "content-length":
		n, err := strconv.ParseUint(value, 10, 63)
		if err != nil || f.lengthOK && n != f.length {
			f.stream = true
			return
		}
		f.length, f.lengthOK = n, true
	}
}

// endHead ends a head and settles what follows it.
func (f *headFixer) endHead() {
	if !f.host {
		f.out = append(f.out, hostLine...)
	}
	f.out = append(f.out, f.line...)
	next, left := inHead, f.length
	switch {
	case f.stream, f.upgrade:
		next = passing
	case left > 0:
		next = inBody
	}
	*f = headFixer{state: next, out: f.out, line: f.line[:0], left: left}
}

// fixedConn is a connection whose request heads are mended, and which ends when
// a write makes no progress. Nothing that the peer sends changes that; release
// does, when a session has been authorised.
type fixedConn struct {
	net.Conn
	place    *Place // nil in tests
	fix      headFixer
	buf      []byte
	stall    time.Duration // 0 for none
	released atomic.Bool
}

func newFixedConn(c net.Conn, place *Place, stall time.Duration) *fixedConn {
	return &fixedConn{Conn: c, place: place, stall: stall}
}

// release leaves the bounds of time to who speaks on the connection from now on.
func (c *fixedConn) release() { c.released.Store(true) }

// Read implements net.Conn.
func (c *fixedConn) Read(p []byte) (int, error) {
	for {
		if len(c.fix.out) > 0 {
			n := copy(p, c.fix.out)
			c.fix.out = c.fix.out[n:]
			return n, nil
		}
		switch c.fix.state {
		case passing:
			c.buf, c.fix.out = nil, nil
			return c.Conn.Read(p)
		case inBody:
			n, err := c.Conn.Read(p[:min(uint64(len(p)), c.fix.left)])
			c.fix.took(uint64(n))
			return n, err
		}
		if err := c.more(); err != nil {
			return 0, err
		}
	}
}

// more reads once and feeds the fixer.
func (c *fixedConn) more() error {
	if c.buf == nil {
		c.buf = make([]byte, 4096)
	}
	n, err := c.Conn.Read(c.buf)
	c.fix.out = c.fix.out[:0]
	c.fix.feed(c.buf[:n])
	if n > 0 {
		return nil
	}
	return err
}

// writePiece is how much must go out within one stall time, in bytes.
const writePiece = 64 << 10

// Write implements net.Conn.
func (c *fixedConn) Write(p []byte) (int, error) {
	done := 0
	for {
		if c.released.Load() || c.stall <= 0 {
			n, err := c.Conn.Write(p[done:])
			return done + n, err
		}
		piece := p[done:min(done+writePiece, len(p))]
		if err := c.Conn.SetWriteDeadline(time.Now().Add(c.stall)); err != nil {
			return done, err
		}
		n, err := c.Conn.Write(piece)
		done += n
		if err != nil || done == len(p) {
			return done, err
		}
	}
}
