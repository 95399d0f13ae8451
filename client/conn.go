package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"holdfast/datastore/wire/api"
)

const (
	// pingShare is the part of the silence after which a sign of life is asked
	// for. How long the answer may take is for the pulse to say, which sees
	// whether anything moves; pingTimeout only has to be longer than all that.
	pingShare   = 4
	pingTimeout = 24 * time.Hour
	// frameMax is the largest frame that the server may send, in bytes.
	frameMax = 1 << 20
	// sessionAnswerMax caps the JSON answers within a session, in bytes.
	sessionAnswerMax = 1 << 20
	// bodiesMax is how many bodies are sent at once. For each of them the
	// transport has a frame of up to 512 KiB; more would only share the line,
	// so that all came late and none of them before it is lost. Up to
	// smallBody bytes a body need not wait for its turn.
	bodiesMax = 8
	smallBody = 64 << 10
)

// settings of a conn.
type settings struct {
	agent    string // the User-Agent
	holdfast bool   // the server knows what Holdfast adds to the protocol
	client   *Client
}

// conn is a session in HTTP/2 on an upgraded connection (section 2.2 of the
// protocol specification). It is safe for concurrent use.
type conn struct {
	settings
	cc     *http.ClientConn
	stream *stream
	pulse  *pulse // nil if nobody watches the connection
	work   *vigil // over the requests as a whole: signs of life are not enough
	dead   atomic.Bool
	seen   sync.Map      // names of the files that were downloaded over it
	turns  chan struct{} // holds one token for each body being sent
}

// newConn begins HTTP/2 on a connection, without negotiation. It owns s.
func newConn(ctx context.Context, s *stream, set settings) (*conn, error) {
	c := &conn{settings: set, stream: s, turns: make(chan struct{}, bodiesMax)}
	silence := set.client.silence()
	if l, ok := s.Conn.(living); ok {
		c.pulse = l.life()
	}
	c.work = newVigil(workFactor*silence, func() { s.Close() })
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	t := &http.Transport{
		// The connection is there already, TLS and all; what is handed over
		// hides the TLS, so that no protocol is looked for in it.
		DialTLSContext:         func(context.Context, string, string) (net.Conn, error) { return s, nil },
		Protocols:              protocols,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: silence / pingShare, PingTimeout: pingTimeout, MaxReadFrameSize: frameMax},
		DisableCompression:     true,
		MaxResponseHeaderBytes: headerMax,
	}
	defer c.await(false)()
	var err error
	if c.cc, err = t.NewClientConn(ctx, "https", "localhost:8007"); err != nil {
		s.Close()
		return nil, fmt.Errorf("begin http/2: %w", c.broken(ctx, err))
	}
	return c, nil
}

// await says that somebody waits for the server until done is called, once; for
// something long if it may do that alone.
func (c *conn) await(long bool) (done func()) {
	work, pulse := func() {}, func() {}
	if !long {
		work = c.work.await()
	}
	if c.pulse != nil {
		pulse = c.pulse.await()
	}
	return func() { work(); pulse() }
}

// broken explains an error of the connection.
func (c *conn) broken(ctx context.Context, err error) error {
	if err != nil && ctx.Err() == nil && c.work.fired.Load() && !settled(err) {
		return &brokenError{fmt.Sprintf("%s is there but has done nothing for %v: the session was given up", c.client.host, c.work.limit), ErrSilent}
	}
	return c.client.broken(ctx, c.pulse, err)
}

// alive reports whether requests can still be sent.
func (c *conn) alive() bool { return !c.dead.Load() && c.cc.Err() == nil }

// close ends the session; requests under way fail.
func (c *conn) close() {
	if !c.dead.Swap(true) && c.cc.Err() == nil {
		c.stream.hangUp()
	}
	c.cc.Close()
	c.stream.Close()
}

// drop closes a connection that has failed.
func (c *conn) drop() {
	c.dead.Store(true)
	c.close()
}

// query is one request of a session.
type query struct {
	op     api.Op
	params url.Values
	body   []byte
	kind   string // content type of body
	long   bool   // the server may work on it as long as it shows that it lives
}

const (
	formType  = "application/x-www-form-urlencoded"
	jsonType  = "application/json"
	bytesType = "application/octet-stream"
)

// open sends a request and returns its answer if that is a success. The body
// of q has been let go of when it returns.
func (c *conn) open(ctx context.Context, q query) (*http.Response, error) {
	u := &url.URL{Scheme: "https", Host: "localhost:8007", Path: q.op.Path(), RawQuery: q.params.Encode()}
	req := (&http.Request{Method: q.op.Verb(), URL: u, Header: make(http.Header), Host: u.Host}).WithContext(ctx)
	if q.kind == "" {
		q.kind = formType
	}
	req.Header.Set("Content-Type", q.kind)
	req.Header.Set("User-Agent", c.agent)
	if len(q.body) > 0 {
		body, err := c.lend(ctx, q.body)
		if err != nil {
			return nil, err
		}
		defer body.Close()
		req.Body, req.ContentLength = body, int64(len(q.body))
	}
	done := c.await(q.long)
	resp, err := c.cc.RoundTrip(req)
	if err != nil {
		done()
		return nil, c.broken(ctx, err)
	}
	c.work.sign()
	explain := func(err error) error { return c.broken(ctx, err) }
	resp.Body = &answerBody{ReadCloser: resp.Body, explain: explain, pace: c.client.pace(), moved: c.work.sign, done: done}
	if resp.StatusCode/100 != 2 {
		defer resp.Body.Close()
		return nil, statusError(resp)
	}
	return resp, nil
}

// loan is a body whose bytes stay the caller's. The transport may go on
// reading after the answer has come; from Close on it gets nothing.
type loan struct {
	read func() // called when some of it has been taken
	mu   sync.Mutex
	in   *bytes.Reader
	turn <-chan struct{} // nil: it has none, or has given it back
}

// lend makes a body of b. A large one waits for its turn.
func (c *conn) lend(ctx context.Context, b []byte) (*loan, error) {
	l := &loan{in: bytes.NewReader(b), read: c.work.sign}
	if len(b) <= smallBody {
		return l, nil
	}
	select {
	case c.turns <- struct{}{}:
		l.turn = c.turns
		return l, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *loan) Read(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.in == nil {
		return 0, io.ErrClosedPipe
	}
	n, err := l.in.Read(p)
	l.read()
	if l.in.Len() == 0 {
		l.done()
	}
	return n, err
}

func (l *loan) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.in = nil
	l.done()
	return nil
}

// done gives the turn to the next.
func (l *loan) done() {
	if l.turn != nil {
		<-l.turn
		l.turn = nil
	}
}

// bytes returns the body of the answer, of at most most bytes.
func (c *conn) bytes(ctx context.Context, q query, most int) ([]byte, error) {
	return c.into(ctx, nil, q, most)
}

// into is bytes that uses the capacity of room first.
func (c *conn) into(ctx context.Context, room []byte, q query, most int) ([]byte, error) {
	resp, err := c.open(ctx, q)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return readInto(room, resp.Body, resp.ContentLength, most)
}

// data decodes the data of a JSON answer into a pointer; nil drops it.
func (c *conn) data(ctx context.Context, q query, into any) error {
	b, err := c.bytes(ctx, q, sessionAnswerMax)
	if err != nil {
		return err
	}
	if into != nil && len(b) == 0 {
		return fmt.Errorf("%s: %w: it is empty", q.op, errAnswer)
	}
	if err := (&reply{body: b}).decode(into, nil); err != nil {
		return fmt.Errorf("%s: %w", q.op, err)
	}
	return nil
}

// copy writes the body of the answer to w, of at most most bytes, and returns
// its length.
func (c *conn) copy(ctx context.Context, q query, w io.Writer, most int64) (int64, error) {
	resp, err := c.open(ctx, q)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	n, err := io.Copy(w, io.LimitReader(resp.Body, most+1))
	if err == nil && n > most {
		err = fmt.Errorf("%w: more than %d bytes", errAnswer, most)
	}
	return n, err
}

// encode is json.Marshal of what cannot fail.
func encode(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, errors.Join(errAnswer, err)
	}
	return b, nil
}
