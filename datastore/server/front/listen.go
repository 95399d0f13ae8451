package front

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"sync"
	"time"

	"holdfast/datastore/server/budget"
)

// Options says what stands behind a front door.
type Options struct {
	Limits  budget.Limits // with their defaults
	Log     *slog.Logger
	Handler http.Handler
	Refused func(reason string) // is told of a connection that was refused
}

// Door is the way into a server: whoever connects takes a place, shows TLS and
// sends whole heads in time before the handler hears of him. It is safe for concurrent
// use.
type Door struct {
	o Options

	mu      sync.Mutex
	keepers []*doorkeeper
}

// New returns a front door without a listener.
func New(o Options) *Door { return &Door{o: o} }

// Connections is how many there are of all listeners.
func (d *Door) Connections() (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, each := range d.keepers {
		n += int(each.count())
	}
	return n
}

// HTTPServer returns the HTTP/1.1 server of one listener. identity may put into the
// context of its requests who makes them; it may be nil.
func (d *Door) HTTPServer(identity func(context.Context) context.Context) *http.Server {
	l := d.o.Limits
	return &http.Server{
		Handler:           d.o.Handler,
		ReadHeaderTimeout: l.HeaderTimeout,
		IdleTimeout:       l.IdleTimeout,
		// net/http allows 4 KiB more than this.
		MaxHeaderBytes: headMax - 4<<10,
		TLSNextProto:   map[string]func(*http.Server, *tls.Conn, http.Handler){},
		ErrorLog:       slog.NewLogLogger(d.o.Log.Handler(), slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context {
			if identity == nil {
				return context.Background()
			}
			return identity(context.Background())
		},
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if f, ok := c.(*fixedConn); ok {
				ctx = context.WithValue(ctx, placeKey{}, f.place)
			}
			return ctx
		},
	}
}

// placeKey is the key of a connection's place in the context of its requests.
type placeKey struct{}

// PlaceOf is the place of the connection that a request came on, nil if it came
// on none.
func PlaceOf(ctx context.Context) *Place {
	g, _ := ctx.Value(placeKey{}).(*Place)
	return g
}

// listener is one that hands out connections which have passed the gate
// and TLS. Both happen beside the accepting, so that nobody waits for another.
type listener struct {
	net.Listener
	front  *Door
	conf   *tls.Config // nil for a unix socket
	keeper *doorkeeper
	ready  chan net.Conn
	failed chan error
	ctx    context.Context
	cancel context.CancelFunc
	once   sync.Once
}

// Listen returns a listener for ln, which it takes over. conf is nil for a unix socket.
// It ends with ctx.
func (d *Door) Listen(ctx context.Context, ln net.Listener, conf *tls.Config) net.Listener {
	l, err := d.o.Limits.WithinFiles()
	if err != nil {
		d.o.Log.Warn("connections are not bounded by open files", "error", err)
	}
	f := &listener{Listener: ln, front: d, conf: conf, keeper: newDoorkeeper(l, conf == nil), ready: make(chan net.Conn), failed: make(chan error, 1)}
	f.ctx, f.cancel = context.WithCancel(ctx)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.keepers = append(d.keepers, f.keeper)
	return f
}

// Accept implements net.Listener.
func (f *listener) Accept() (net.Conn, error) {
	f.once.Do(func() { go f.acceptAll() })
	select {
	case c := <-f.ready:
		return c, nil
	case err := <-f.failed:
		f.failed <- err
		return nil, err
	}
}

// Close implements net.Listener.
func (f *listener) Close() error {
	f.cancel()
	return f.Listener.Close()
}

// acceptAll accepts until the listener is closed.
func (f *listener) acceptAll() {
	for {
		c, err := f.Listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			f.cancel()
			f.failed <- err
			return
		}
		if err != nil {
			// Out of file descriptors, or the peer has gone already.
			f.front.o.Log.Warn("accept", "error", err)
			select {
			case <-time.After(50 * time.Millisecond):
			case <-f.ctx.Done():
			}
			continue
		}
		g := f.keeper.enter(c)
		if g == nil {
			f.front.o.Refused("connections")
			c.Close()
			continue
		}
		go f.receive(g)
	}
}

func remote(c net.Conn) netip.Addr {
	ap, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr()
}

// receive makes a connection ready and hands it to Accept.
func (f *listener) receive(c *Place) {
	stop := context.AfterFunc(f.ctx, func() { c.Close() })
	ready, err := f.secure(c)
	if err != nil {
		stop()
		f.front.o.Refused("handshake")
		f.front.o.Log.Debug("connection refused", "from", c.RemoteAddr().String(), "error", err)
		c.Close()
		return
	}
	select {
	case f.ready <- newFixedConn(ready, c, f.front.o.Limits.WriteTimeout):
		stop()
	case <-f.ctx.Done():
		c.Close()
	}
}

// recordHandshake is the first byte of a TLS connection.
const recordHandshake = 0x16

// secure does the TLS handshake, or answers a caller that speaks plain HTTP.
func (f *listener) secure(c net.Conn) (net.Conn, error) {
	if f.conf == nil {
		return c, nil
	}
	if err := c.SetDeadline(time.Now().Add(f.front.o.Limits.HandshakeTimeout)); err != nil {
		return nil, err
	}
	first := make([]byte, 1)
	if _, err := io.ReadFull(c, first); err != nil {
		return nil, err
	}
	rest := &prefixedConn{Conn: c, prefix: first}
	if first[0] != recordHandshake {
		return nil, redirect(rest)
	}
	conn := tls.Server(rest, f.conf)
	if err := conn.HandshakeContext(f.ctx); err != nil {
		return nil, err
	}
	return conn, c.SetDeadline(time.Time{})
}

// prefixedConn is a connection of which some bytes have been read.
type prefixedConn struct {
	net.Conn
	prefix []byte
}

// Read implements net.Conn.
func (c *prefixedConn) Read(p []byte) (int, error) {
	if len(c.prefix) > 0 {
		n := copy(p, c.prefix)
		c.prefix = c.prefix[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

// hostName is what a Host header may hold to be repeated in an answer.
var hostName = regexp.MustCompile(`^(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._-]+)(:[0-9]{1,5})?$`)

var errPlain = errors.New("plain HTTP on the TLS port")

// redirect answers a plain HTTP request with the https address of the same
// thing (section 1.1 of the protocol specification).
func redirect(c net.Conn) error {
	r, err := http.ReadRequest(bufio.NewReader(io.LimitReader(c, headMax)))
	code, location := http.StatusBadRequest, ""
	if err == nil && hostName.MatchString(r.Host) {
		code = http.StatusPermanentRedirect
		if r.Method == http.MethodGet || r.Method == http.MethodHead {
			code = http.StatusMovedPermanently
		}
		location = "Location: https://" + r.Host + r.URL.RequestURI() + "\r\n"
	}
	_, err = fmt.Fprintf(c, "HTTP/1.1 %d %s\r\n%sContent-Length: 0\r\nConnection: close\r\n\r\n", code, http.StatusText(code), location)
	return errors.Join(errPlain, err)
}
