package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
)

// Ticket is the proof of a login.
type Ticket struct {
	User   wire.AuthID
	Ticket string // secret
	CSRF   string // secret; goes with every request that changes something
	Issued int64  // Unix seconds, by this machine's clock
	// Host tells that the server wants the ticket in the cookie whose name
	// begins with "__Host-".
	Host bool
}

// TicketCache keeps tickets between runs. The keys name user and server. Its
// methods may be called from several goroutines; what cannot be kept is lost
// silently.
type TicketCache interface {
	Load(key string) (Ticket, bool)
	Store(key string, t Ticket)
	Forget(key string)
}

const (
	// ticketLife is how long a ticket is accepted, less the minute that the
	// reference client leaves (sections 1.7 and 10.2 of the protocol
	// specification).
	ticketLife = 7200*time.Second - time.Minute
	// renewEvery is the age at which a ticket is exchanged for a new one.
	renewEvery = 15 * time.Minute
)

const (
	cookieName     = "PBSAuthCookie"
	hostCookieName = "__Host-PBSAuthCookie"
	csrfHeader     = "CSRFPreventionToken"
)

// auth makes the headers that say who asks.
type auth struct {
	client *Client
	key    string        // in the ticket cache
	lock   chan struct{} // holds one token; whoever has it may use what follows
	secret string        // of an API token
	ticket Ticket
}

func newAuth(c *Client, addr string) *auth {
	a := &auth{client: c, key: string(c.id) + "@" + addr, lock: make(chan struct{}, 1)}
	a.lock <- struct{}{}
	if t := c.opts.Tickets; t != nil {
		a.ticket, _ = t.Load(a.key)
	}
	return a
}

// take waits for the lock.
func (a *auth) take(ctx context.Context) error {
	select {
	case <-a.lock:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (a *auth) give() { a.lock <- struct{}{} }

// header returns what to add to a request. It logs in or renews the ticket if
// that is due.
func (a *auth) header(ctx context.Context) (http.Header, error) {
	if err := a.take(ctx); err != nil {
		return nil, err
	}
	defer a.give()
	if _, isToken := a.client.id.Token(); isToken {
		return a.tokenHeader(ctx)
	}
	if err := a.fresh(ctx); err != nil {
		return nil, err
	}
	name := cookieName
	if a.ticket.Host {
		name = hostCookieName
	}
	return http.Header{
		"Cookie":                            {name + "=" + percentEncode(a.ticket.Ticket)},
		http.CanonicalHeaderKey(csrfHeader): {a.ticket.CSRF},
	}, nil
}

// tokenHeader is the header of section 1.6 of the protocol specification.
func (a *auth) tokenHeader(ctx context.Context) (http.Header, error) {
	if a.secret == "" {
		var err error
		if a.secret, err = a.ask(ctx); err != nil {
			return nil, err
		}
	}
	return http.Header{"Authorization": {"PBSAPIToken=" + string(a.client.id) + ":" + percentEncode(a.secret)}}, nil
}

// ask gets the password or the token's secret from whoever has it.
func (a *auth) ask(ctx context.Context) (string, error) {
	if a.client.opts.Secret == nil {
		return "", fmt.Errorf("no password was given for %s: %w", a.client.id, wire.ErrUnauthenticated)
	}
	secret, err := a.client.opts.Secret(ctx)
	if err != nil {
		return "", fmt.Errorf("get the password of %s: %w", a.client.id, err)
	}
	if secret == "" {
		return "", fmt.Errorf("the password of %s is empty: %w", a.client.id, wire.ErrUnauthenticated)
	}
	return secret, nil
}

// fresh makes sure that there is a ticket, by the old one if that is still
// good, else by the password.
func (a *auth) fresh(ctx context.Context) error {
	age := a.client.now().Sub(time.Unix(a.ticket.Issued, 0))
	good := a.ticket.Ticket != "" && age < ticketLife
	if good && age < a.client.every {
		return nil
	}
	if good {
		err := a.login(ctx, a.ticket.Ticket)
		if err == nil || ctx.Err() != nil {
			return err
		}
		if !errors.Is(err, wire.ErrUnauthenticated) {
			return nil // it lasts a while yet
		}
		a.drop()
	}
	secret, err := a.ask(ctx)
	if err != nil {
		return err
	}
	return a.login(ctx, secret)
}

// login exchanges a password or a ticket for a new ticket.
func (a *auth) login(ctx context.Context, password string) error {
	c := a.client
	params := url.Values{"username": {string(c.id)}, "password": {password}}
	call := Call{Op: api.Login, Params: params}
	r, err := c.exchange(ctx, call, nil)
	if err != nil {
		return err
	}
	t, err := readTicket(r, c.id)
	if err != nil {
		return err
	}
	t.Issued = c.now().Unix()
	a.ticket = t
	if c.opts.Tickets != nil {
		c.opts.Tickets.Store(a.key, t)
	}
	return nil
}

// ticketMax caps a ticket and what goes with it, in bytes: they are kept beside those of
// other servers, in a file of which only so much is read.
const ticketMax = 4 << 10

// readTicket reads the answer to a login (section 1.7 of the protocol
// specification).
func readTicket(r *reply, id wire.AuthID) (Ticket, error) {
	var data api.Ticket
	if err := r.decode(&data, nil); err != nil {
		return Ticket{}, err
	}
	t := Ticket{User: wire.AuthID(data.User), Ticket: data.Ticket, CSRF: data.CSRF}
	for _, k := range (&http.Response{Header: r.header}).Cookies() {
		if k.Name == hostCookieName && k.Value != "" {
			t.Ticket, t.Host = k.Value, true
		}
	}
	switch {
	case len(t.Ticket) > ticketMax || len(t.CSRF) > ticketMax:
		return Ticket{}, fmt.Errorf("log in as %s: %w: the ticket is longer than %d bytes", id, errAnswer, ticketMax)
	case t.Ticket == "" || t.CSRF == "" || t.User != id:
		return Ticket{}, fmt.Errorf("log in as %s: %w: it is incomplete or for somebody else", id, errAnswer)
	case strings.Contains(t.Ticket, ":!tfa!"):
		return Ticket{}, fmt.Errorf("%s needs a second factor to log in; use an API token: %w", id, wire.ErrUnauthenticated)
	case strings.ContainsFunc(t.CSRF, func(r rune) bool { return r <= ' ' || r > '~' }):
		return Ticket{}, fmt.Errorf("log in as %s: %w: the ticket holds control characters", id, errAnswer)
	}
	return t, nil
}

// drop forgets the ticket.
func (a *auth) drop() {
	a.ticket = Ticket{}
	if c := a.client.opts.Tickets; c != nil {
		c.Forget(a.key)
	}
}

// reject forgets the ticket that a request was refused with, unless there is
// another by now.
func (a *auth) reject(ctx context.Context, used http.Header) error {
	if err := a.take(ctx); err != nil {
		return err
	}
	defer a.give()
	if used.Get(csrfHeader) == a.ticket.CSRF {
		a.drop()
	}
	return nil
}

// keepFresh renews the ticket while the Client lives, so that a connection lost
// after hours can be made again without a password.
func (a *auth) keepFresh(ctx context.Context) {
	tick := time.NewTicker(a.client.every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if _, err := a.header(ctx); err != nil && ctx.Err() == nil {
			a.client.log("renew the ticket of %s: %v", a.client.id, err)
		}
	}
}

// authorized runs a request with the headers that say who asks, and once more
// with a new ticket if the server does not take the old one.
func (c *Client) authorized(ctx context.Context, send func(http.Header) error) error {
	if c.auth == nil {
		return send(nil)
	}
	h, err := c.auth.header(ctx)
	if err != nil {
		return err
	}
	err = send(h)
	if h.Get(csrfHeader) == "" || !errors.Is(err, wire.ErrUnauthenticated) || c.opts.Secret == nil {
		return err
	}
	if err := c.auth.reject(ctx, h); err != nil {
		return err
	}
	if h, err = c.auth.header(ctx); err != nil {
		return err
	}
	return send(h)
}

// Login gets a new ticket with the password; a token needs none.
func (c *Client) Login(ctx context.Context) error {
	if c.auth == nil {
		return nil
	}
	if err := c.auth.take(ctx); err != nil {
		return err
	}
	defer c.auth.give()
	secret, err := c.auth.ask(ctx)
	if err != nil {
		return err
	}
	if _, isToken := c.id.Token(); isToken {
		c.auth.secret = secret
		return nil
	}
	return c.auth.login(ctx, secret)
}

// Logout forgets the ticket, here and, if the server can do that, there.
func (c *Client) Logout(ctx context.Context) error {
	if c.auth == nil {
		return nil
	}
	if err := c.auth.take(ctx); err != nil {
		return err
	}
	defer c.auth.give()
	if _, isToken := c.id.Token(); isToken || c.auth.ticket.Ticket == "" {
		return nil
	}
	h := http.Header{"Cookie": {cookieName + "=" + percentEncode(c.auth.ticket.Ticket)}}
	h.Set(csrfHeader, c.auth.ticket.CSRF)
	c.auth.drop()
	_, err := c.exchange(ctx, Call{Op: api.Logout}, h)
	var status *StatusError
	if errors.As(err, &status) {
		return nil // older servers cannot
	}
	return err
}

// percentEncode encodes all but letters, digits, "-", "_", "." and "~", for
// places where the server decodes "%" but must not see "+" or ";".
func percentEncode(s string) string {
	return strings.ReplaceAll(url.QueryEscape(s), "+", "%20")
}
