package client

import (
	"bufio"
	"crypto/tls"
	"net"
	"sync"
)

// TLS moves records of at most recordMax bytes, one system call each, and every
// one wakes the other end. A session moves frames of many records.
const (
	recordMax = 16 << 10
	// batchSize is how much is moved at a time, in bytes. Every connection
	// has a buffer of it in each direction.
	batchSize = 128 << 10
)

// batcher is a connection below TLS that gathers records. It is safe for
// concurrent use as far as net.Conn is.
type batcher struct {
	net.Conn
	in *bufio.Reader

	mu   sync.Mutex
	held int    // writers that flush when they are done
	out  []byte // records not yet written
	err  error  // of a flush; the connection is of no use then
}

func newBatcher(c net.Conn) *batcher {
	return &batcher{Conn: c, in: bufio.NewReaderSize(c, batchSize)}
}

// Read implements net.Conn.
func (b *batcher) Read(p []byte) (int, error) { return b.in.Read(p) }

// Write implements net.Conn. Between hold and release it only gathers.
func (b *batcher) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return 0, b.err
	}
	if b.held == 0 {
		return b.Conn.Write(p)
	}
	if len(b.out)+len(p) > batchSize {
		if err := b.flush(); err != nil {
			return 0, err
		}
	}
	if b.out == nil {
		b.out = make([]byte, 0, batchSize)
	}
	b.out = append(b.out, p...)
	return len(p), nil
}

func (b *batcher) hold() {
	b.mu.Lock()
	b.held++
	b.mu.Unlock()
}

// release writes what was gathered.
func (b *batcher) release() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held--
	return b.flush()
}

func (b *batcher) flush() error {
	if b.err == nil && len(b.out) > 0 {
		_, b.err = b.Conn.Write(b.out)
	}
	b.out = b.out[:0]
	return b.err
}

// secureConn is TLS over a batcher.
type secureConn struct {
	*tls.Conn
	raw   *batcher
	pulse *pulse
}

func (c *secureConn) life() *pulse { return c.pulse }

// Write implements net.Conn. When it returns nothing waits to be written.
func (c *secureConn) Write(p []byte) (int, error) {
	if len(p) <= recordMax {
		return c.Conn.Write(p)
	}
	c.raw.hold()
	n, err := c.Conn.Write(p)
	if flushed := c.raw.release(); err == nil && flushed != nil {
		return 0, flushed
	}
	return n, err
}
