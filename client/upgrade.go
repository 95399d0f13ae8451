package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
)

// stream is a connection behind the head of an HTTP/1.1 answer. It knows when
// the other end has closed it.
type stream struct {
	net.Conn
	in io.Reader // what the parser of the head has read too much, then Conn

	once  sync.Once
	ended chan struct{} // closed when reading has come to an end
}

func (s *stream) Read(p []byte) (int, error) {
	n, err := s.in.Read(p)
	if err != nil {
		s.once.Do(func() { close(s.ended) })
	}
	return n, err
}

// lingerMax is how long to wait for the other end to close.
const lingerMax = 3 * time.Second

// hangUp tells the other end that nothing more will be sent, and waits until
// it has closed: when it returns, the server has most likely ended the session
// and released its locks. Something else must be reading.
func (s *stream) hangUp() {
	half, ok := s.Conn.(interface{ CloseWrite() error })
	if !ok {
		return
	}
	s.SetWriteDeadline(time.Now().Add(lingerMax))
	if half.CloseWrite() != nil {
		return
	}
	t := time.NewTimer(lingerMax)
	defer t.Stop()
	select {
	case <-s.ended:
	case <-t.C:
	}
}

// upgrading is a request for a session.
type upgrading struct {
	op       api.Op
	protocol string
	query    url.Values
}

// snapshotQuery are the parameters that name a snapshot of the datastore for a
// session (sections 2.1 and 3.1 of the protocol specification).
func (c *Client) snapshotQuery(s wire.Snapshot) url.Values {
	q := snapshotParams(s)
	q.Set("store", c.opts.Repository.Datastore)
	return q
}

// snapshotParams name a snapshot; the root namespace is left out.
func snapshotParams(s wire.Snapshot) url.Values {
	q := groupParams(s.Group)
	q.Set("backup-time", strconv.FormatInt(s.Time, 10))
	return q
}

func groupParams(g wire.Group) url.Values {
	q := url.Values{"backup-type": {g.Type}, "backup-id": {g.ID}}
	if g.NS != "" {
		q.Set("ns", string(g.NS))
	}
	return q
}

// upgrade opens a session on a connection of its own.
func (c *Client) upgrade(ctx context.Context, u upgrading) (*conn, error) {
	if c.dial == nil || c.opts.Repository.Datastore == "" {
		return nil, errors.New("this client belongs to no datastore")
	}
	var out *conn
	err := c.authorized(ctx, func(h http.Header) error {
		return c.again(ctx, "open a session", sessionBusy, func() (err error) {
			out, err = c.upgradeOnce(ctx, u, h)
			return err
		})
	})
	return out, err
}

// upgradeOnce is section 2.1 of the protocol specification up to the answer.
func (c *Client) upgradeOnce(ctx context.Context, u upgrading, h http.Header) (*conn, error) {
	raw, err := c.connect(ctx)
	if err != nil {
		return nil, err
	}
	var p *pulse
	if l, ok := raw.(living); ok {
		p = l.life()
	}
	var resp *http.Response
	var s *stream
	err = within(ctx, raw, c.silence(), func() (err error) {
		if _, err = io.WriteString(raw, c.upgradeHead(u, h)); err != nil {
			return err
		}
		if resp, s, err = readHead(raw, http.MethodGet); err != nil {
			return err
		}
		if resp.StatusCode != http.StatusSwitchingProtocols {
			return statusError(resp)
		}
		return nil
	})
	if err == nil && !strings.EqualFold(resp.Header.Get("Upgrade"), u.protocol) {
		err = fmt.Errorf("%w: it switches to protocol %q, not %q", errAnswer, printable(resp.Header.Get("Upgrade")), u.protocol)
	}
	if err != nil {
		raw.Close()
		return nil, c.broken(ctx, p, err)
	}
	return newConn(ctx, s, settings{
		client:   c,
		agent:    c.opts.UserAgent,
		holdfast: resp.Header.Get(wire.ExtensionHeader) == wire.ExtensionVersion,
	})
}

func (c *Client) upgradeHead(u upgrading, h http.Header) string {
	host := strings.TrimSuffix(strings.SplitN(c.base, "://", 2)[1], apiRoot)
	var b strings.Builder
	fmt.Fprintf(&b, "GET %s%s?%s HTTP/1.1\r\n", apiRoot, u.op.Path(), u.query.Encode())
	fmt.Fprintf(&b, "Host: %s\r\nUser-Agent: %s\r\n", host, c.opts.UserAgent)
	fmt.Fprintf(&b, "Connection: Upgrade\r\nUpgrade: %s\r\n", u.protocol)
	for name, values := range h {
		for _, v := range values {
			fmt.Fprintf(&b, "%s: %s\r\n", name, v)
		}
	}
	b.WriteString("\r\n")
	return b.String()
}
