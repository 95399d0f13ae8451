package front

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// What a session's HTTP/2 connection announces (section 2.2 of the protocol
// specification), in bytes but for the streams. What has arrived and is not read
// yet takes memory: at most one window of the connection, which its account gives. A frame is read whole
// before anybody sees any of it, into a buffer that stays as large as the largest
// of the connection: small ones let a slow line be seen to get on, and many
// connections be open. The head of a request is in memory as long as its stream is open: the longest
// that means anything has some 4 KiB. Fewer streams would make some clients wait for ever.
const (
	h2Streams      = 128
	h2StreamWindow = 32 << 20
	h2FrameMax     = 64 << 10
	h2HeadersMax   = 8 << 10
)

// h2Ping is after how much silence a client is asked whether it is still there.
const h2Ping = time.Minute

// h2PrefaceWait is how long a client may take to speak after the 101.
const h2PrefaceWait = time.Minute

// Upgraded is a connection that has left HTTP/1.1. It is its own listener, which
// accepts nothing but the connection.
type Upgraded struct {
	net.Conn
	ahead    io.Reader
	heard    func() // is told that something has come
	accepted bool
	once     sync.Once
	closed   chan struct{}
}

// newUpgraded takes over c together with the bytes that the parser of HTTP/1.1
// has read ahead.
func newUpgraded(c net.Conn, buffered *bufio.Reader) (*Upgraded, error) {
	held, err := buffered.Peek(buffered.Buffered())
	if err != nil {
		return nil, err
	}
	u := &Upgraded{Conn: c, heard: func() {}, closed: make(chan struct{})}
	u.ahead = io.MultiReader(bytes.NewReader(slices.Clone(held)), c)
	return u, nil
}

// Hijack takes the connection of a request, with what has been read ahead of it.
func Hijack(w http.ResponseWriter) (*Upgraded, error) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, err
	}
	if f, ok := conn.(*fixedConn); ok {
		f.release()
	}
	u, err := newUpgraded(conn, rw.Reader)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return u, nil
}

// Read implements net.Conn.
func (u *Upgraded) Read(p []byte) (int, error) {
	n, err := u.ahead.Read(p)
	if n > 0 {
		u.heard()
	}
	return n, err
}

// Close implements net.Conn and net.Listener.
func (u *Upgraded) Close() error {
	err := net.ErrClosed
	u.once.Do(func() {
		close(u.closed)
		err = u.Conn.Close()
	})
	return err
}

// Accept implements net.Listener. The second call waits for the end.
func (u *Upgraded) Accept() (net.Conn, error) {
	if !u.accepted {
		u.accepted = true
		return u, nil
	}
	<-u.closed
	return nil, net.ErrClosed
}

// Addr implements net.Listener.
func (u *Upgraded) Addr() net.Addr { return u.LocalAddr() }

// gate counts the handlers of a session, which may outlive its connection.
type gate struct {
	mu     sync.Mutex
	closed bool
	inside sync.WaitGroup
}

// enter reports whether a handler may begin; it must leave then.
func (g *gate) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.inside.Add(1)
	return true
}

// shut lets nobody in any more and waits for those inside. After late it calls
// over, which must make them leave.
func (g *gate) shut(late time.Duration, over func()) {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	defer time.AfterFunc(late, over).Stop()
	g.inside.Wait()
}

// H2Options says where faults are told, how much the client may send that is not
// read yet, and how long a peer that has gone, and whose connection does not say
// so, may leave what was sent to it unread, or the question whether it is there
// unanswered.
type H2Options struct {
	Log    *log.Logger
	Stall  time.Duration
	Answer time.Duration
	Window int    // of the connection, in bytes
	Gone   func() // called when the session is over
	Heard  func() // called when something has come
	// Late reports, when ctx has ended, whether the client is to be told. Refuse
	// answers then what it asks after the last handler has returned.
	Late   func() bool
	Refuse http.HandlerFunc
}

// lastWords is how long the handlers of a session that is to be told of its end
// may take to answer.
const lastWords = 10 * time.Second

// Line is a connection with HTTP/2.
type Line struct {
	*Upgraded
	over chan struct{} // closed when the connection has ended
}

// cut ends the connection, also when the peer does not read.
func (l *Line) cut() {
	_ = l.SetDeadline(time.Now())
	_ = l.Close()
}

// Linger waits until the connection has ended, which it does with ctx at the
// latest.
func (l *Line) Linger(ctx context.Context) {
	defer context.AfterFunc(ctx, l.cut)()
	<-l.over
}

// ServeH2 speaks HTTP/2 on the connection until it ends or ctx is cancelled, and
// returns when the last handler has. The connection is closed then, unless the
// client is to be told why. The contexts of the requests are cancelled with the
// connection.
func ServeH2(ctx context.Context, u *Upgraded, h http.Handler, o H2Options) *Line {
	u.heard = o.Heard
	requests, cancel := context.WithCancel(ctx)
	defer cancel()
	l := &Line{u, make(chan struct{})}
	var g gate
	engine := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if g.enter() {
				defer g.inside.Done()
				h.ServeHTTP(w, r)
				return
			}
			o.Refuse(w, r)
		}),
		BaseContext:       func(net.Listener) context.Context { return requests },
		ReadHeaderTimeout: h2PrefaceWait,
		MaxHeaderBytes:    h2HeadersMax,
		ErrorLog:          o.Log,
		Protocols:         new(http.Protocols),
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          h2Streams,
			MaxReadFrameSize:              h2FrameMax,
			MaxReceiveBufferPerConnection: o.Window,
			MaxReceiveBufferPerStream:     h2StreamWindow,
			WriteByteTimeout:              o.Stall,
			SendPingTimeout:               h2Ping,
			PingTimeout:                   o.Answer,
		},
	}
	// The connection is encrypted underneath, or local; the protocol is begun
	// without negotiation either way.
	engine.Protocols.SetUnencryptedHTTP2(true)
	go func() {
		defer close(l.over)
		_ = engine.Serve(u) // ends with the connection, always with an error
	}()
	select {
	case <-l.over:
	case <-ctx.Done():
	}
	if ctx.Err() == nil || !o.Late() {
		l.cut()
		<-l.over
	}
	o.Gone()
	cancel()
	g.shut(lastWords, l.cut)
	return l
}
