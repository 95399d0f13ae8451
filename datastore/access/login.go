package access

import (
	"context"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"holdfast/datastore/wire"
)

// Credentials are what a request says about who sends it.
type Credentials struct {
	// Method is the HTTP method.
	Method string
	// Authorization and CSRF are the values of the headers Authorization and
	// CSRFPreventionToken, "" if there is none.
	Authorization, CSRF string
	// Cookies are the values of all Cookie headers as they came.
	Cookies []string
	// From is the address of the other side; the zero value is not throttled.
	From netip.Addr
}

// Cookies that carry a ticket, in the order in which they are looked for.
var cookieNames = []string{"__Host-PBSAuthCookie", "PBSAuthCookie"}

const (
	tokenScheme      = "PBSAPIToken"
	authorizationMax = 1024 // bytes
	passwordTextMax  = 1024 // bytes of what is sent as a password
)

// Authenticate tells who sends a request, and by what (sections 1.6 and 1.7 of the protocol
// specification). A cookie with a ticket decides, good or bad; the
// Authorization header counts only without one. Anything but a valid ticket or
// token is wire.ErrUnauthenticated, after too many failures ErrThrottled.
func (s *Store) Authenticate(c Credentials) (Pass, error) {
	if raw, ok := ticketCookie(c.Cookies); ok {
		return s.byTicket(raw, c)
	}
	if c.Authorization == "" {
		return Pass{}, fmt.Errorf("no credentials given: %w", wire.ErrUnauthenticated)
	}
	return s.byToken(c)
}

// ticketCookie finds the cookie with the ticket among the values of all Cookie
// headers and returns it as it stands there.
func ticketCookie(headers []string) (raw string, ok bool) {
	for _, name := range cookieNames {
		for _, h := range headers {
			if raw, ok := cookie(h, name); ok {
				return raw, true
			}
		}
	}
	return "", false
}

// cookie finds one cookie in a header.
func cookie(header, name string) (string, bool) {
	for pair := range strings.SplitSeq(header, ";") {
		k, v, ok := strings.Cut(strings.Trim(pair, " \t"), "=")
		if ok && k == name {
			return v, true
		}
	}
	return "", false
}

// byTicket checks a cookie. Tickets cannot be guessed, so a genuine one is
// accepted whatever else comes from the same address.
func (s *Store) byTicket(raw string, c Credentials) (Pass, error) {
	if len(raw) > 3*ticketMax {
		return Pass{}, fmt.Errorf("ticket: %w", wire.ErrUnauthenticated)
	}
	// Unlike in a query, "+" stands for itself: it is part of base64.
	text, err := url.PathUnescape(raw)
	if err != nil {
		return Pass{}, fmt.Errorf("ticket: %w", wire.ErrUnauthenticated)
	}
	t, err := parseTicket(text)
	if err != nil {
		return Pass{}, fmt.Errorf("ticket: %w", wire.ErrUnauthenticated)
	}
	cfg, now := s.config.Load(), s.now()
	if err := s.redeem(cfg, t, c.From); err != nil {
		return Pass{}, err
	}
	if c.Method != http.MethodGet && !cfg.guards(c.CSRF, t.user, now.Unix()) {
		return Pass{}, fmt.Errorf("ticket of %s: missing or wrong CSRF token: %w", t.user, wire.ErrUnauthenticated)
	}
	return Pass{ID: t.user, kind: ticketPass, proof: cfg.users[t.user].Generation, line: t.line}, nil
}

// redeem checks a ticket. One that this server never made counts as a failure
// of the address alone: it says nothing about the user it names.
func (s *Store) redeem(cfg *config, t ticket, from netip.Addr) error {
	now := s.now()
	if !cfg.genuine(t) {
		return s.reject(attempt{from: from, now: now}, fmt.Sprintf("ticket of %s", t.user))
	}
	if !fresh(t.issued, now.Unix()) || !t.line.lasts(now.Unix()) || s.ended.has(t.line) || cfg.hasEnded(t) || !cfg.active(t.user, now.Unix()) {
		return fmt.Errorf("ticket of %s: expired: %w", t.user, wire.ErrUnauthenticated)
	}
	return nil
}

// reject counts a failure and returns its error, which is ErrThrottled if it
// was one too many before.
func (s *Store) reject(a attempt, what string) error {
	if err := s.brake.check(a); err != nil {
		return err
	}
	s.brake.failed(a)
	return fmt.Errorf("%s: %w", what, wire.ErrUnauthenticated)
}

var errAuthorization = errors.New("not in the form of an API token")

// parseAuthorization reads PBSAPIToken, a space or "=", USER!TOKEN, ":" and
// the percent-encoded secret. Its errors do not repeat any of it.
func parseAuthorization(h string) (id wire.AuthID, secret string, err error) {
	rest, ok := strings.CutPrefix(h, tokenScheme)
	if !ok || len(h) > authorizationMax || rest == "" || rest[0] != ' ' && rest[0] != '=' {
		return "", "", errAuthorization
	}
	name, raw, ok := strings.Cut(rest[1:], ":")
	if !ok {
		return "", "", errAuthorization
	}
	if id, err = wire.ParseAuthID(name); err != nil {
		return "", "", errAuthorization
	}
	if _, isToken := id.Token(); !isToken {
		return "", "", errAuthorization
	}
	if secret, err = url.PathUnescape(raw); err != nil {
		return "", "", errAuthorization
	}
	return id, secret, nil
}

// byToken checks an Authorization header. The right secret is accepted
// whatever else comes from the same address: it cannot be guessed.
func (s *Store) byToken(c Credentials) (Pass, error) {
	id, secret, err := parseAuthorization(c.Authorization)
	if err != nil {
		return Pass{}, fmt.Errorf("authorization header: %w: %w", err, wire.ErrUnauthenticated)
	}
	cfg, now := s.config.Load(), s.now()
	// The zero record of an unknown token has no hash that could be equal.
	r := cfg.tokens[id]
	if subtle.ConstantTimeCompare([]byte(hashSecret(secret)), []byte(r.Secret)) != 1 {
		return Pass{}, s.reject(attempt{name: id, from: c.From, now: now}, fmt.Sprintf("token %s", id))
	}
	if !cfg.active(id, now.Unix()) {
		return Pass{}, fmt.Errorf("token %s: disabled or expired: %w", id, wire.ErrUnauthenticated)
	}
	return Pass{ID: id, kind: tokenPass, proof: r.Secret}, nil
}

// Login checks a password, or a ticket that is still valid in its place, and
// hands out a new ticket. After too many failures it takes some seconds. A name that is not one of a user is wire.ErrName;
// anything else that is wrong is wire.ErrUnauthenticated, and too many
// failures are ErrThrottled.
func (s *Store) Login(ctx context.Context, user wire.AuthID, password string, from netip.Addr) (Ticket, error) {
	if _, err := wire.ParseAuthID(string(user)); err != nil {
		return Ticket{}, fmt.Errorf("log in: %w", err)
	}
	if _, isToken := user.Token(); isToken {
		return Ticket{}, fmt.Errorf("log in as %s: a token cannot log in: %w", user, wire.ErrName)
	}
	l := line{began: s.now().Unix()}
	err := s.random.read(l.id[:])
	cfg := s.config.Load()
	if t, bad := parseTicket(password); bad == nil && err == nil {
		l = t.line
		err = s.renew(cfg, user, t, from)
	} else if err == nil {
		err = s.checkPassword(ctx, cfg, attempt{name: user, from: from, now: s.now()}, password)
	}
	if err != nil {
		return Ticket{}, fmt.Errorf("log in as %s: %w", user, err)
	}
	return cfg.issue(user, s.now().Unix(), l), nil
}

// Confirm checks the password of a user who is logged in: unlike for Login a ticket does
// not stand in its place. The errors are those of Login.
func (s *Store) Confirm(ctx context.Context, user wire.AuthID, password string, from netip.Addr) error {
	if err := s.checkPassword(ctx, s.config.Load(), attempt{name: user, from: from, now: s.now()}, password); err != nil {
		return fmt.Errorf("confirm the password of %s: %w", user, err)
	}
	return nil
}

// Logout ends the ticket in the cookies, and all that it was renewed from or to.
// Without a genuine one it does nothing. If it cannot be written down the ticket is
// at its end until the server is started anew, which is the error. Who has logged out
// endedMax times within a day is logged out everywhere.
func (s *Store) Logout(c Credentials) error {
	raw, ok := ticketCookie(c.Cookies)
	if !ok || len(raw) > 3*ticketMax {
		return nil
	}
	text, err := url.PathUnescape(raw)
	if err != nil {
		return nil
	}
	t, err := parseTicket(text)
	if cfg := s.config.Load(); err != nil || !cfg.genuine(t) || !t.line.lasts(s.now().Unix()) || cfg.hasEnded(t) {
		return nil
	}
	s.ended.add(t.line, s.now())
	gen, err := newGeneration(s.random)
	if err == nil {
		err = s.update(func(c *config) error {
			c.end(t, s.now().Unix(), gen)
			return nil
		})
	}
	if err != nil {
		return fmt.Errorf("log out of %s: the ticket has ended until the server is started anew only: %w", t.user, err)
	}
	return nil
}

// endedMax is how many ended lines of a user are kept.
const endedMax = 64

// hasEnded tells whether a ticket's user has logged out of its line.
func (c *config) hasEnded(t ticket) bool {
	return slices.Contains(c.users[t.user].Ended, hex.EncodeToString(t.line.bytes()))
}

// end writes down that the line of a genuine ticket has ended. gen is for a user with
// too many of them.
func (c *config) end(t ticket, now int64, gen string) {
	r, ok := c.users[t.user]
	if !ok {
		return // removed meanwhile
	}
	kept := []string{hex.EncodeToString(t.line.bytes())}
	for _, e := range r.Ended {
		if l, err := parseLine(e); err == nil && l.lasts(now) && e != kept[0] {
			kept = append(kept, e)
		}
	}
	if r.Ended = kept; len(kept) > endedMax {
		r.Generation, r.Ended = gen, nil
	}
	c.users[t.user] = r
}

// endedLines are lines of tickets that were logged out of.
type endedLines struct {
	mu   sync.Mutex
	list *table
}

func (e *endedLines) add(l line, now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list.touch(string(l.bytes()), now, lineMax*time.Second)
}

func (e *endedLines) has(l line) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	_, ok := e.list.by[string(l.bytes())]
	return ok
}

// renew checks a ticket that stands in place of a password.
func (s *Store) renew(cfg *config, user wire.AuthID, t ticket, from netip.Addr) error {
	if err := s.redeem(cfg, t, from); err != nil {
		return err
	}
	if t.user != user {
		return fmt.Errorf("ticket of another user: %w", wire.ErrUnauthenticated)
	}
	return nil
}

// checkPassword checks a password. Whether the user is unknown, disabled or
// has no password can be told neither from the answer nor from its time.
func (s *Store) checkPassword(ctx context.Context, cfg *config, a attempt, password string) error {
	a.cfg = cfg
	if err := s.await(ctx, &a); err != nil {
		return err
	}
	if len(password) > passwordTextMax {
		password = ""
	}
	most := int64(hashesWaiting)
	if s.brake.knows(a) {
		most += friendsWaiting
	}
	return s.hashes.run(ctx, most, func() error {
		a.now = s.now()
		// Those who waited for their turn may have failed too often by now.
		if err := s.brake.check(a); err != nil {
			return err
		}
		same := s.hashes.matches(password, cfg.users[a.name].Password)
		if !same || !cfg.active(a.name, a.now.Unix()) {
			s.brake.failed(a)
			return wire.ErrUnauthenticated
		}
		s.brake.succeeded(a)
		return nil
	})
}

// await holds a try back as long as the failures before it demand, or returns
// ErrThrottled if that is too long.
func (s *Store) await(ctx context.Context, a *attempt) error {
	// One that is refused anyway takes no turn of others.
	if err := s.hold(ctx, a); err != nil {
		return err
	}
	wait, err := s.brake.turn(*a)
	if err != nil {
		return err
	}
	if wait == 0 {
		return nil
	}
	if err := s.sleep(ctx, wait, a); err != nil {
		return err
	}
	return s.hold(ctx, a)
}

// hold waits until brake.check lets a pass, if that is soon.
func (s *Store) hold(ctx context.Context, a *attempt) error {
	left := s.patience
	for {
		err := s.brake.check(*a)
		var late ErrThrottled
		if !errors.As(err, &late) || late.Wait > left {
			return err
		}
		left -= late.Wait
		if err := s.sleep(ctx, late.Wait, a); err != nil {
			return err
		}
	}
}

// sleep waits and sets the time of the try anew.
func (s *Store) sleep(ctx context.Context, d time.Duration, a *attempt) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		a.now = s.now()
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
