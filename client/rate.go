package client

import (
	"net"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// bucket spreads bytes evenly over time. One bucket serves all connections of a
// Client. nil is unlimited.
type bucket struct{ limiter *rate.Limiter }

// burst is for how long unused capacity is kept, as part of a second; where that is
// less than a slice it is a slice.
const burst = 10

func newBucket(perSecond int64) *bucket {
	if perSecond <= 0 {
		return nil
	}
	limit := rate.Limit(perSecond)
	return &bucket{rate.NewLimiter(limit, int(max(limit/burst, sliceAt(limit))))}
}

// slice is how many bytes are moved before the next wait, so that a large write
// does not take the line for itself.
func (b *bucket) slice() int { return int(sliceAt(b.limiter.Limit())) }

func sliceAt(limit rate.Limit) rate.Limit { return min(max(limit/20, 4<<10), 64<<10) }

// take pays for n bytes, at most a slice, at a time and returns how long to wait until
// they may be used.
func (b *bucket) take(n int, now time.Time) time.Duration {
	return b.limiter.ReserveN(now, n).DelayFrom(now)
}

// limitedConn is a connection through two buckets.
type limitedConn struct {
	net.Conn
	up, down *bucket

	once   sync.Once
	closed chan struct{}
}

// limit puts a connection behind the buckets; either may be nil.
func limit(conn net.Conn, up, down *bucket) net.Conn {
	if up == nil && down == nil {
		return conn
	}
	return &limitedConn{Conn: conn, up: up, down: down, closed: make(chan struct{})}
}

func (c *limitedConn) Read(p []byte) (int, error) {
	if c.down == nil {
		return c.Conn.Read(p)
	}
	n, err := c.Conn.Read(p[:min(len(p), c.down.slice())])
	if n > 0 {
		c.wait(c.down.take(n, time.Now()))
	}
	return n, err
}

func (c *limitedConn) Write(p []byte) (n int, err error) {
	if c.up == nil {
		return c.Conn.Write(p)
	}
	for n < len(p) && err == nil {
		part := p[n:min(n+c.up.slice(), len(p))]
		c.wait(c.up.take(len(part), time.Now()))
		var m int
		m, err = c.Conn.Write(part)
		n += m
	}
	return n, err
}

// wait ends early when the connection is closed.
func (c *limitedConn) wait(d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-c.closed:
	}
}

func (c *limitedConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}
