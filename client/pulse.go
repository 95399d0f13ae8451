package client

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// defaultSilence is how long a server may say nothing while somebody waits for
// it. A session asks for a sign of life (an HTTP/2 ping) after a quarter of
// that, so that a server that works for hours has to say something.
const defaultSilence = 3 * time.Minute

// Within a session a server that shows that it lives may still hang, as with a
// disk that does not answer.
const (
	// workFactor times the silence is how long no request of a session may get
	// on: nothing sent, nothing received but signs of life.
	workFactor = 10
	// finishMost is how long the server may work on finish, which looks at every
	// chunk of the snapshot.
	finishMost = 12 * time.Hour
)

// ErrSilent is wrapped, beside ErrUnavailable, by the loss of a connection whose
// other end said nothing for too long. To ask once more would double the wait.
var ErrSilent = errors.New("it has said nothing")

// vigil waits beside those who wait for somebody else, and calls over when
// there was no sign of him for limit. Nothing is watched while nobody waits.
type vigil struct {
	limit time.Duration
	over  func()
	// moving tells what the last sign does not: that something is under way.
	// nil is never.
	moving func() bool
	began  time.Time
	last   atomic.Int64 // the last sign, since began

	mu    sync.Mutex
	waits int
	timer *time.Timer
	fired atomic.Bool
}

func newVigil(limit time.Duration, over func()) *vigil {
	return &vigil{limit: limit, over: over, began: time.Now()}
}

// sign notes that there was a sign of life.
func (v *vigil) sign() { v.last.Store(int64(time.Since(v.began))) }

// await says that somebody waits until done is called, once.
func (v *vigil) await() (done func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.waits++; v.waits == 1 {
		v.sign()
		if v.timer == nil {
			v.timer = time.AfterFunc(v.limit, v.look)
		} else {
			v.timer.Reset(v.limit)
		}
	}
	return sync.OnceFunc(func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		if v.waits--; v.waits == 0 {
			v.timer.Stop()
		}
	})
}

func (v *vigil) look() {
	v.mu.Lock()
	if v.waits == 0 || v.fired.Load() {
		v.mu.Unlock()
		return
	}
	if v.moving != nil && v.moving() {
		v.sign()
	}
	if quiet := time.Since(v.began) - time.Duration(v.last.Load()); quiet < v.limit {
		v.timer.Reset(v.limit - quiet)
		v.mu.Unlock()
		return
	}
	v.fired.Store(true)
	v.mu.Unlock()
	v.over()
}

// pulse is the lowest layer of a connection to a server. Every byte that comes
// or goes is a sign of life; without one for too long it closes the connection
// under those who wait. A process that is stopped takes bytes only until its
// buffers are full.
type pulse struct {
	net.Conn
	*vigil
	queued int // what the system had not got rid of at the last look, in bytes
}

// pieceMax is how much is written at a time, in bytes, so that a slow line is
// seen to move.
const pieceMax = 64 << 10

// unsentMax is how much the system may hold that has not been sent, in bytes:
// with more a slow line would take minutes to let a sign of life through.
const unsentMax = 256 << 10

func newPulse(conn net.Conn, silence time.Duration) *pulse {
	p := &pulse{Conn: conn}
	p.vigil = newVigil(silence, func() { conn.Close() })
	p.moving = p.drains
	p.control(func(fd int) { _ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsentMax) })
	return p
}

// control calls f with the socket, if there is one.
func (p *pulse) control(f func(fd int)) {
	s, ok := p.Conn.(syscall.Conn)
	if !ok {
		return
	}
	if raw, err := s.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { f(int(fd)) })
	}
}

// drains reports whether the other end takes what the system still holds.
func (p *pulse) drains() bool {
	queued := 0
	p.control(func(fd int) {
		if n, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ); err == nil {
			queued = n
		}
	})
	drains := queued > 0 && (p.queued == 0 || queued < p.queued)
	p.queued = queued
	return drains
}

// Read implements net.Conn.
func (p *pulse) Read(b []byte) (int, error) {
	n, err := p.Conn.Read(b)
	if n > 0 {
		p.sign()
	}
	return n, err
}

// Write implements net.Conn.
func (p *pulse) Write(b []byte) (n int, err error) {
	for len(b) > n && err == nil {
		var m int
		m, err = p.Conn.Write(b[n:min(n+pieceMax, len(b))])
		if n += m; m > 0 {
			p.sign()
		}
	}
	return n, err
}

// CloseWrite tells the other end that nothing more will be sent.
func (p *pulse) CloseWrite() error {
	if half, ok := p.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// life returns the pulse itself; connections above it hand it on.
func (p *pulse) life() *pulse { return p }

// living is a connection that has a pulse.
type living interface{ life() *pulse }
