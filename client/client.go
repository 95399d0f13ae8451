// Package client is one conversation with one server: a Holdfast server or a
// Proxmox Backup Server, over the network, over the local socket, or within the
// process. A Client implements the ports wire.Source, wire.Target and
// wire.Manager for one datastore, so that whoever uses the ports cannot tell it
// from a directory on this machine.
//
// It promises that every wait for the server has an end, that an error of a
// connection is an ErrUnavailable, that nothing is sent before the server's certificate was accepted
// (certificate.go), that no answer is larger than what was expected of it, that
// a wait ends when the context does, and that nothing is asked for which only a
// Holdfast server knows unless the server said that it is one.
//
// Memory is bounded: a connection has buffers of 256 KiB. A backup session takes
// 4 MiB for what is being sent and 40 bytes for each chunk that may be referred
// to; the chunks themselves are the caller's, and he does best to have as many
// under way as Window says. A Reader takes what its callers have asked for at
// once, again best as much as Window says. A JSON answer takes at most 64 MiB,
// a list what is made of at most a million elements or 256 MiB of it. An index is a
// file on disk; where there is no room for one it takes memory, 256 MiB at most.
//
//   - dial.go, rate.go, certificate.go, batch.go: connections
//   - pulse.go, broken.go: how long a server may be silent, and what became of a connection
//   - auth.go: tokens, tickets and their renewal
//   - rest.go, status.go, retry.go: calls of the REST interface, their errors
//   - upgrade.go, conn.go: from HTTP/1.1 to a session in HTTP/2
//   - session.go, indexwriter.go, previous.go: backup sessions
//   - reader.go, lane.go, spool.go: reader sessions
//   - listing.go, elements.go, manage.go, task.go: the rest of the ports, tasks
package client

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"holdfast/chunkstore"
	"holdfast/datastore/wire"
)

// TrustFunc decides about a certificate that neither the platform nor a
// configured fingerprint vouches for: nil accepts it. host is as it was given,
// fingerprint the SHA-256 of the certificate as 32 hex pairs joined by colons.
type TrustFunc func(ctx context.Context, host, fingerprint string) error

// Options says whom to talk to, as whom, and how. Only Repository is needed.
type Options struct {
	// Repository names the server and its datastore. What it leaves out is
	// root@pam, localhost and wire.DefaultPort.
	Repository wire.Repository
	// Secret is asked for the password, or the secret of the API token, when
	// it is needed; its answer is not kept beyond the Client.
	Secret func(ctx context.Context) (string, error)
	// Fingerprint of the server's certificate, in any case; "" for none. With
	// one no other certificate is accepted, whoever vouches for it.
	Fingerprint string
	// Trust is asked when there is no Fingerprint; nil refuses.
	Trust TrustFunc
	// Tickets keeps tickets between runs; nil keeps none.
	Tickets TicketCache
	// RateUp and RateDown cap all connections of the Client together, in
	// bytes per second; 0 is unlimited.
	RateUp, RateDown int64
	// Proxy is an HTTP proxy that is asked to CONNECT, as
	// [http://][user:password@]host:port; "" for none.
	Proxy string
	// Dial opens connections; nil is net.Dialer's.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Connections of a Reader; 0 is one for a server nearby and more for one
	// that is so far away that a single connection cannot fill the line.
	Connections int
	// UserAgent is what requests say they come from; "" is "holdfast".
	UserAgent string
	// Silence is how long the server may say nothing while it is waited for,
	// at least a second; 0 is 3 minutes. Connecting and the TLS handshake take
	// no longer than that either, nor than 10 and 30 seconds.
	Silence time.Duration
	// LockWait is how long Begin waits for a group that another session writes
	// to, beyond the moment that a session takes to end.
	LockWait time.Duration
	// Log gets one line for a person about whatever was tried again; nil
	// drops it. It may be called from several goroutines.
	Log func(string)
}

// silenceMin is the least silence that can be asked for.
const silenceMin = time.Second

// Connections of a Reader.
const (
	connectionsMax = 16
	// connectionsFar is how many there are at most if nobody has said, and
	// perConnection the round trip that each is for: the kernel keeps no more
	// than some megabytes under way in one connection.
	connectionsFar = 4
	perConnection  = 30 * time.Millisecond
)

// Client talks to one server. It is safe for concurrent use.
type Client struct {
	opts  Options
	id    wire.AuthID
	host  string // as given, for certificates and messages
	base  string // URL that the paths of calls are appended to
	rest  http.RoundTripper
	dial  func(context.Context) (net.Conn, error) // nil: connections cannot be upgraded
	auth  *auth                                   // nil: the way in says who asks
	retry policy
	roots *x509.CertPool // nil: the platform's
	now   func() time.Time
	every time.Duration // between renewals of a ticket
	round atomic.Int64  // the shortest TLS handshake so far, in nanoseconds
	poll  time.Duration // between looks at a task
	// inMemory is the most of an index that is kept in memory, in bytes, if it
	// cannot be on disk.
	inMemory int64

	// shown takes any certificate, if it is set, instead of a decision about it.
	shown func(*x509.Certificate)

	ctx  context.Context // ends with Close
	stop context.CancelFunc
}

var (
	_ wire.Source  = (*Client)(nil)
	_ wire.Target  = (*Client)(nil)
	_ wire.Manager = (*Client)(nil)
)

// apiRoot is the path of the REST interface (section 1.2 of the protocol
// specification).
const apiRoot = "/api2/json"

// Dial prepares a conversation and, for a user with a password, logs in. The
// caller closes the Client.
func Dial(ctx context.Context, o Options) (*Client, error) {
	c, err := newClient(o)
	if err != nil {
		return nil, err
	}
	if err := c.start(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

// start logs in and keeps the ticket fresh from then on.
func (c *Client) start(ctx context.Context) error {
	if _, isToken := c.id.Token(); isToken {
		return nil
	}
	if _, err := c.auth.header(ctx); err != nil {
		c.Close()
		return fmt.Errorf("log in to %s as %s: %w", c.host, c.id, err)
	}
	go c.auth.keepFresh(c.ctx)
	return nil
}

// newClient checks the options; it sends nothing.
func newClient(o Options) (*Client, error) {
	r := o.Repository
	if r.IsPath() || r.Datastore == "" {
		return nil, fmt.Errorf("repository %q is not on a server: %w", r.String(), wire.ErrName)
	}
	if r.AuthID == "" {
		r.AuthID = string(wire.RootUser)
	}
	id, err := wire.ParseAuthID(r.AuthID)
	if err != nil {
		return nil, err
	}
	if o.Fingerprint != "" {
		if _, err := parseFingerprint(o.Fingerprint); err != nil {
			return nil, err
		}
	}
	if o.Silence != 0 && o.Silence < silenceMin || o.LockWait < 0 {
		return nil, fmt.Errorf("the silence must not be shorter than %v, and the wait for a lock not negative: %w", silenceMin, chunkstore.ErrInvalid)
	}
	if o.RateUp < 0 || o.RateDown < 0 || o.Connections < 0 || o.Connections > connectionsMax {
		return nil, fmt.Errorf("rates must not be negative, and connections be 0 to %d: %w", connectionsMax, chunkstore.ErrInvalid)
	}
	c := blank(o)
	c.id = id
	if c.host = r.Host; c.host == "" {
		c.host = "localhost"
	}
	port := r.Port
	if port == 0 {
		port = wire.DefaultPort
	}
	d := &dialer{client: c, addr: net.JoinHostPort(c.host, strconv.Itoa(port)), up: newBucket(o.RateUp), down: newBucket(o.RateDown)}
	if d.proxy, err = parseProxy(o.Proxy); err != nil {
		return nil, err
	}
	c.dial = d.dial
	// The zone of an IPv6 address is escaped in a URL.
	c.base = (&url.URL{Scheme: "https", Host: d.addr, Path: apiRoot}).String()
	c.rest = &http.Transport{
		DialTLSContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return c.connect(ctx) },
		DisableCompression:     true,
		MaxResponseHeaderBytes: headerMax,
		ResponseHeaderTimeout:  workFactor * c.silence(), // though it comes byte by byte
		IdleConnTimeout:        time.Minute,
	}
	c.auth = newAuth(c, d.addr)
	return c, nil
}

// blank is a Client that knows no server.
func blank(o Options) *Client {
	if o.UserAgent == "" {
		o.UserAgent = "holdfast"
	}
	c := &Client{opts: o, retry: defaultPolicy(), now: time.Now, every: renewEvery, poll: taskPoll, inMemory: inMemoryMax}
	c.ctx, c.stop = context.WithCancel(context.Background())
	return c
}

// Local returns a Client for the server that listens on a Unix socket; the
// server takes who may connect to it for its superuser. silence is that of
// Options. It belongs to no datastore: it is for Do and FollowTask.
func Local(socketPath string, silence time.Duration) *Client {
	d := net.Dialer{Timeout: connectTimeout}
	return local(func(ctx context.Context) (net.Conn, error) { return d.DialContext(ctx, "unix", socketPath) }, silence)
}

// local is Local over any connection.
func local(dial func(context.Context) (net.Conn, error), silence time.Duration) *Client {
	c := blank(Options{Silence: silence})
	c.id, c.host = wire.RootUser, "localhost"
	c.base = "http://localhost" + apiRoot
	c.dial = func(ctx context.Context) (net.Conn, error) {
		conn, err := dial(ctx)
		if err != nil {
			return nil, err
		}
		return newPulse(conn, c.silence()), nil
	}
	c.rest = &http.Transport{
		DialContext:            func(ctx context.Context, _, _ string) (net.Conn, error) { return c.connect(ctx) },
		DisableCompression:     true,
		MaxResponseHeaderBytes: headerMax,
		ResponseHeaderTimeout:  workFactor * c.silence(), // though it comes byte by byte
		IdleConnTimeout:        time.Minute,
	}
	return c
}

// InProcess returns a Client whose calls h answers, without a connection. It
// belongs to no datastore: it is for Do and FollowTask.
func InProcess(h http.Handler) *Client {
	c := blank(Options{})
	c.id, c.host = wire.RootUser, "localhost"
	c.base = "http://localhost" + apiRoot
	c.rest = handlerTransport{h}
	return c
}

// Close ends the conversation. Sessions and Readers are closed by whoever
// opened them. It always returns nil.
func (c *Client) Close() error {
	c.stop()
	if t, ok := c.rest.(*http.Transport); ok {
		t.CloseIdleConnections()
	}
	return nil
}

// silence is how long the server may say nothing.
func (c *Client) silence() time.Duration {
	if c.opts.Silence == 0 {
		return defaultSilence
	}
	return c.opts.Silence
}

// AuthID returns who the Client speaks as.
func (c *Client) AuthID() wire.AuthID { return c.id }

// connections is how many a Reader uses, once there has been one.
func (c *Client) connections() int {
	if c.opts.Connections > 0 {
		return c.opts.Connections
	}
	return 1 + int(min(time.Duration(c.round.Load())/perConnection, connectionsFar-1))
}

// met notes how long a handshake took, which is little more than a round trip.
func (c *Client) met(took time.Duration) {
	if old := c.round.Load(); old == 0 || int64(took) < old {
		c.round.Store(int64(took))
	}
}

// log tells a person one line.
func (c *Client) log(format string, args ...any) {
	if c.opts.Log != nil {
		c.opts.Log(strings.TrimSpace(fmt.Sprintf(format, args...)))
	}
}

// doInStore makes a call about the datastore.
func (c *Client) doInStore(ctx context.Context, call Call) error {
	if c.opts.Repository.Datastore == "" {
		return fmt.Errorf("this client belongs to no datastore: %w", chunkstore.ErrInvalid)
	}
	call.At = []string{c.opts.Repository.Datastore}
	return c.Do(ctx, call)
}
