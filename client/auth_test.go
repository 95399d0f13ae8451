package client

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"holdfast/datastore/wire"
)

// clock is a time that a test moves.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Unix(1_700_000_000, 0)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// cache is a TicketCache.
type cache struct {
	mu sync.Mutex
	m  map[string]Ticket
}

func (c *cache) Load(key string) (Ticket, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t, ok := c.m[key]
	return t, ok
}

func (c *cache) Store(key string, t Ticket) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil {
		c.m = make(map[string]Ticket)
	}
	c.m[key] = t
}

func (c *cache) Forget(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.m, key)
}

func groups(t *testing.T, c *Client) {
	t.Helper()
	if _, err := c.Groups(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
}

func TestTicketIsRenewed(t *testing.T) {
	f, now := newFake(t), newClock()
	o := f.userOptions()
	asked := 0
	o.Secret = func(context.Context) (string, error) { asked++; return fakePassword, nil }
	c := dial(t, o, func(c *Client) { c.now = now.Now })
	groups(t, c)
	for _, step := range []struct {
		after  time.Duration
		logins int32
		asked  int
	}{
		{14 * time.Minute, 1, 1}, {2 * time.Minute, 2, 1}, {110 * time.Minute, 3, 1}, {119 * time.Minute, 4, 2},
	} {
		now.add(step.after)
		groups(t, c)
		if got := f.logins.Load(); got != step.logins || asked != step.asked {
			t.Errorf("%v later: %d logins, asked %d times; want %d and %d", step.after, got, asked, step.logins, step.asked)
		}
	}
}

func TestTicketIsKeptFreshInTheBackground(t *testing.T) {
	f, now := newFake(t), newClock()
	c := dial(t, f.userOptions(), func(c *Client) { c.now, c.every = now.Now, time.Millisecond })
	now.add(time.Hour)
	for f.logins.Load() < 2 {
		time.Sleep(time.Millisecond)
	}
	groups(t, c)
}

func TestRefusedTicketIsReplaced(t *testing.T) {
	f := newFake(t)
	c := dial(t, f.userOptions())
	groups(t, c)
	f.forgetTickets()
	groups(t, c)
	f.forgetTickets()
	s, err := c.Begin(t.Context(), wire.Snapshot{Group: wire.Group{Type: "vm", ID: "1"}, Time: 5})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if got := f.logins.Load(); got != 3 {
		t.Errorf("%d logins", got)
	}
}

// A ticket that is still good survives a server that cannot renew it now.
func TestRenewalMayFail(t *testing.T) {
	f, now := newFake(t), newClock()
	c := dial(t, f.userOptions(), func(c *Client) { c.now = now.Now })
	f.before = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPost {
			refuse(w, 503, "later")
		}
		return r.Method == http.MethodPost
	}
	now.add(time.Hour)
	groups(t, c)
}

func TestTicketCache(t *testing.T) {
	f, k := newFake(t), &cache{}
	o := f.userOptions()
	o.Tickets = k
	groups(t, dial(t, o))
	o.Secret = nil
	c := dial(t, o)
	groups(t, c)
	if f.logins.Load() != 1 || len(k.m) != 1 {
		t.Fatalf("%d logins, %d tickets kept", f.logins.Load(), len(k.m))
	}
	if err := c.Logout(t.Context()); err != nil {
		t.Error(err)
	}
	if len(k.m) != 0 {
		t.Error("the ticket is still kept")
	}
	if _, err := c.Groups(t.Context(), ""); !errors.Is(err, wire.ErrUnauthenticated) {
		t.Errorf("after logout: %v", err)
	}
}

func TestLogin(t *testing.T) {
	f, k := newFake(t), &cache{}
	o := f.userOptions()
	o.Tickets = k
	c := dial(t, o)
	if err := c.Login(t.Context()); err != nil || f.logins.Load() != 2 {
		t.Errorf("%d logins, %v", f.logins.Load(), err)
	}
	if err := dial(t, f.options()).Login(t.Context()); err != nil || f.logins.Load() != 2 {
		t.Errorf("login with a token: %d logins, %v", f.logins.Load(), err)
	}
}

func TestReadTicket(t *testing.T) {
	for name, tc := range map[string]struct {
		body, cookie string
		want         Ticket
		err          error
	}{
		"plain": {
			body: `{"data":{"username":"alice@pbs","ticket":"PBS:x","CSRFPreventionToken":"c"},"status":200}`,
			want: Ticket{User: fakeUser, Ticket: "PBS:x", CSRF: "c"},
		},
		"host cookie": {
			body:   `{"data":{"username":"alice@pbs","ticket-info":"PBS:x","CSRFPreventionToken":"c"}}`,
			cookie: "__Host-PBSAuthCookie=PBS:x::sig; Secure; HttpOnly; Path=/",
			want:   Ticket{User: fakeUser, Ticket: "PBS:x::sig", CSRF: "c", Host: true},
		},
		"second factor": {
			body: `{"data":{"username":"alice@pbs","ticket":"PBS:!tfa!%7B%7D:00000000::x","CSRFPreventionToken":"invalid"}}`,
			err:  wire.ErrUnauthenticated,
		},
		"somebody else": {body: `{"data":{"username":"bob@pbs","ticket":"PBS:x","CSRFPreventionToken":"c"}}`, err: errAnswer},
		"no csrf":       {body: `{"data":{"username":"alice@pbs","ticket":"PBS:x"}}`, err: errAnswer},
		"new header":    {body: `{"data":{"username":"alice@pbs","ticket":"PBS:x","CSRFPreventionToken":"c\r\nX: y"}}`, err: errAnswer},
		"too long": {
			body: `{"data":{"username":"alice@pbs","ticket":"` + strings.Repeat("x", ticketMax+1) + `","CSRFPreventionToken":"c"}}`, err: errAnswer,
		},
		"empty": {body: ``, err: errAnswer},
		"array": {body: `[]`, err: errAnswer},
	} {
		h := http.Header{}
		if tc.cookie != "" {
			h.Set("Set-Cookie", tc.cookie)
		}
		got, err := readTicket(&reply{header: h, body: []byte(tc.body)}, fakeUser)
		if got != tc.want || !errors.Is(err, tc.err) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// What is secret does not show in an error or in the log.
func TestSecretsAreNotTold(t *testing.T) {
	f := newFake(t)
	var told strings.Builder
	o := f.userOptions()
	o.Secret = secretOf("hush-hush")
	o.Log = func(s string) { told.WriteString(s) }
	o.Proxy = "http://u:hush-hush@127.0.0.1:1"
	_, err := tryDial(t, o)
	if err == nil || strings.Contains(err.Error()+told.String(), "hush") {
		t.Errorf("error %v, log %s", err, told.String())
	}
	o.Proxy = ""
	if _, err = tryDial(t, o); err == nil || strings.Contains(err.Error()+told.String(), "hush") {
		t.Errorf("error %v, log %s", err, told.String())
	}
}
