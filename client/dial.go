package client

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"holdfast/chunkstore"
)

const (
	// headerMax caps the head of every HTTP answer, in bytes.
	headerMax = 1 << 20
	// connectTimeout and keepAlive are what the reference client has
	// (section 1.1 of the protocol specification).
	connectTimeout = 10 * time.Second
	keepAlive      = 120 * time.Second
	// proxyTimeout is for the answer of a proxy, handshakeTimeout for TLS.
	// Both are no longer than the silence that is allowed.
	proxyTimeout     = 30 * time.Second
	handshakeTimeout = 30 * time.Second
)

// dialer opens connections to one server: TCP, the proxy, the rate, TLS.
type dialer struct {
	client   *Client
	addr     string // host:port
	proxy    *url.URL
	up, down *bucket
}

// parseProxy reads the address of a proxy; "" is none.
func parseProxy(s string) (*url.URL, error) {
	if s == "" {
		return nil, nil
	}
	if !strings.Contains(s, "://") {
		s = "http://" + s
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" || u.Hostname() == "" {
		// The text may hold a password: it is not repeated.
		return nil, fmt.Errorf("proxy: want [http://][user:password@]host:port: %w", chunkstore.ErrInvalid)
	}
	if u.Port() == "" {
		u.Host = net.JoinHostPort(u.Hostname(), "8080")
	}
	return u, nil
}

// CheckProxy says what is wrong with Options.Proxy, nil if nothing is.
func CheckProxy(s string) error {
	_, err := parseProxy(s)
	return err
}

// dial opens one connection, up to the accepted certificate.
func (d *dialer) dial(ctx context.Context) (net.Conn, error) {
	to := d.addr
	if d.proxy != nil {
		to = d.proxy.Host
	}
	raw, err := d.tcp(ctx, to)
	if err != nil {
		return nil, d.through(err)
	}
	p := newPulse(raw, d.client.silence())
	raw = limit(p, d.up, d.down)
	if d.proxy != nil {
		err = within(ctx, raw, min(proxyTimeout, p.limit), func() error { raw, err = d.tunnel(raw); return err })
	}
	if err != nil {
		raw.Close()
		return nil, d.through(err)
	}
	conn, err := d.client.secure(ctx, raw, p)
	if err != nil {
		raw.Close()
		return nil, d.through(err)
	}
	return conn, nil
}

// through names the proxy, if there is one, in an error of a connection: the
// fault may be with it, and not with the server that is named.
func (d *dialer) through(err error) error {
	if d.proxy == nil {
		return err
	}
	return fmt.Errorf("through the proxy %s: %w", d.proxy.Host, err)
}

func (d *dialer) tcp(ctx context.Context, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if d.client.opts.Dial != nil {
		return d.client.opts.Dial(ctx, "tcp", addr)
	}
	n := net.Dialer{KeepAlive: keepAlive}
	return n.DialContext(ctx, "tcp", addr)
}

// within runs a conversation on a connection that ends with the context or
// after most.
func within(ctx context.Context, conn net.Conn, most time.Duration, talk func() error) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	err := talk()
	if !stop() && err == nil {
		err = ctx.Err() // the deadline may have been set just now
	}
	switch {
	case err == nil || ctx.Err() == nil:
		return err
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("no answer within %v: %w", most, ErrSilent)
	}
	return ctx.Err()
}

// tunnel asks the proxy for a connection to the server.
func (d *dialer) tunnel(raw net.Conn) (net.Conn, error) {
	var head strings.Builder
	fmt.Fprintf(&head, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n", d.addr, d.addr)
	if u := d.proxy.User; u != nil {
		password, _ := u.Password()
		pair := base64.StdEncoding.EncodeToString([]byte(u.Username() + ":" + password))
		fmt.Fprintf(&head, "Proxy-Authorization: Basic %s\r\n", pair)
	}
	head.WriteString("\r\n")
	if _, err := io.WriteString(raw, head.String()); err != nil {
		return raw, err
	}
	resp, s, err := readHead(raw, http.MethodConnect)
	if err != nil {
		return raw, err
	}
	if resp.StatusCode != http.StatusOK {
		return raw, fmt.Errorf("connect to %s: it answered %q", d.addr, resp.Status)
	}
	return s, nil
}

// readHead reads the head of an HTTP/1.1 answer. What follows it is read from
// the stream returned; a body from the answer.
func readHead(conn net.Conn, method string) (*http.Response, *stream, error) {
	limited := &io.LimitedReader{R: conn, N: headerMax}
	in := bufio.NewReader(limited)
	resp, err := http.ReadResponse(in, &http.Request{Method: method})
	if errors.Is(err, io.ErrUnexpectedEOF) && limited.N <= 0 {
		err = fmt.Errorf("the head of the answer is larger than %d bytes: %w", headerMax, chunkstore.ErrInvalid)
	}
	if err != nil {
		return nil, nil, err
	}
	limited.N = int64(^uint64(0) >> 1)
	return resp, &stream{Conn: conn, in: in, ended: make(chan struct{})}, nil
}
