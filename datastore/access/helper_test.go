package access

import (
	"errors"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"holdfast/datastore/wire"
)

// clock is a time that tests turn forward.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// open makes a store with cheap hashes in a fresh directory.
func open(t testing.TB) (*Store, *clock) {
	t.Helper()
	c := &clock{t: time.Unix(1_800_000_000, 0)}
	return openAt(t, filepath.Join(t.TempDir(), "access.db"), c), c
}

func openAt(t testing.TB, path string, c *clock) *Store {
	t.Helper()
	s, err := Open(path, Options{Now: c.now, Patience: -1})
	if err != nil {
		t.Fatal(err)
	}
	s.hashes.cost = cost{memory: 64, passes: 1, lanes: 1}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func user(id wire.AuthID) User { return User{ID: id, Enabled: true} }

func token(t testing.TB, s *Store, id wire.AuthID) (secret string) {
	t.Helper()
	secret, err := s.CreateToken(Token{ID: id, Enabled: true})
	must(t, err)
	return secret
}

func login(t testing.TB, s *Store, id wire.AuthID, password string) Ticket {
	t.Helper()
	k, err := s.Login(t.Context(), id, password, netip.Addr{})
	must(t, err)
	return k
}

func withToken(id wire.AuthID, secret string) Credentials {
	return Credentials{Method: "POST", Authorization: "PBSAPIToken=" + string(id) + ":" + secret}
}

func withTicket(k Ticket) Credentials {
	return Credentials{Method: "POST", CSRF: k.CSRF, Cookies: []string{"PBSAuthCookie=" + k.Ticket}}
}

// refused fails unless the credentials are.
func refused(t testing.TB, s *Store, c Credentials, why string) {
	t.Helper()
	if p, err := s.Authenticate(c); !errors.Is(err, wire.ErrUnauthenticated) || p != (Pass{}) {
		t.Errorf("%s: got %q, %v", why, p.ID, err)
	}
}

// accepted fails unless the credentials are those of id.
func accepted(t testing.TB, s *Store, c Credentials, id wire.AuthID) {
	t.Helper()
	if got, err := s.Authenticate(c); err != nil || got.ID != id {
		t.Errorf("got %q, %v; want %s", got.ID, err, id)
	}
}
