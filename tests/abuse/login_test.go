package abuse

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"holdfast/tests/harness"
)

// credentials is the answer to a login.
type credentials struct {
	Ticket string `json:"ticket"`
	CSRF   string `json:"CSRFPreventionToken"`
}

// login asks for a ticket from an address of this machine.
func (w *world) login(from, user, secret string) (answer, error) {
	body, err := json.Marshal(map[string]string{"username": user, "password": secret})
	if err != nil {
		return answer{}, err
	}
	c, err := dial(from, w.address)
	if err != nil {
		return answer{}, err
	}
	defer c.Close()
	return c.say(withBody(head(identity{}, "POST", "/access/ticket"), jsonType, body))
}

// logins asks so many times at once and counts those that were told to wait.
func (w *world) logins(t testing.TB, n int, from func(int) string, user string) (throttled int64) {
	t.Helper()
	var count atomic.Int64
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			a, err := w.login(from(i), user, "wrong")
			if err != nil || a.status != http.StatusUnauthorized {
				t.Errorf("a wrong password: %s (%v)", a, err)
				return
			}
			if a.header.Get("Retry-After") != "" {
				count.Add(1)
			}
		})
	}
	all.Wait()
	return count.Load()
}

// Who guesses at a user has to wait, by address and user and by user; others
// behind the same address do not, nor who has logged in before from an address
// of its own, nor do tokens.
func TestGuessing(t *testing.T) {
	harness.Long(t)
	t.Parallel()
	w := start(t, setup{})
	const home, evil = "127.0.0.9", "127.0.0.66"
	if a, err := w.login(home, "alice@pbs", password); err != nil || a.status != 200 {
		t.Fatalf("%s (%v)", a, err)
	}
	// Many passwords from one address.
	w.logins(t, 10, func(int) string { return evil }, "bob@pbs")
	if n := w.logins(t, 10, func(int) string { return evil }, "bob@pbs"); n == 0 {
		t.Error("an address that guesses does not have to wait")
	}
	for _, id := range []string{"mallory@pbs", "root@pam"} {
		want := map[bool]int{true: http.StatusOK, false: http.StatusUnauthorized}[id == "mallory@pbs"]
		a, err := w.login(evil, id, password)
		if err != nil || a.status != want || a.header.Get("Retry-After") != "" {
			t.Errorf("%s, from an address where another guesses: %s (%v)", id, a, err)
		}
	}
	// Many addresses that guess at one user, until they have to wait.
	for i, wait := 0, ""; wait == ""; i++ {
		a, err := w.login("127.0.1."+string(rune('1'+i%9)), "alice@pbs", "wrong")
		if err != nil || a.status != http.StatusUnauthorized || i > 50 {
			t.Fatalf("guess %d: %s (%v)", i, a, err)
		}
		wait = a.header.Get("Retry-After")
	}
	if a, err := w.login(home, "alice@pbs", password); err != nil || a.status != 200 {
		t.Errorf("a user who is guessed at, from home: %s (%v)", a, err)
	}
	for _, from := range []string{home, "127.0.0.1"} {
		if a, err := w.tryAsk(from, w.alice, "GET", "/version"); err != nil || a.status != 200 {
			t.Errorf("a token from %s: %s (%v)", from, a, err)
		}
	}
	if s := w.server.Log.String(); strings.Contains(s, password) || strings.Contains(s, w.alice.secret) {
		t.Error("a secret is in the log")
	}
}

// Many logins at once, right and wrong, take no more memory than there is, and
// everybody else goes on.
func TestLoginStorm(t *testing.T) {
	harness.Long(t)
	t.Parallel()
	w := start(t, setup{})
	var all sync.WaitGroup
	var in atomic.Int64
	for i := range 100 {
		all.Go(func() {
			user, secret := []string{"alice@pbs", "bob@pbs", "nobody@pbs", "root@pam"}[i%4], password
			if i%4 == 1 {
				secret = "wrong"
			}
			a, err := w.login("127.0.0."+string(rune('1'+i%9)), user, secret)
			if err != nil || a.status != 200 && a.status != 401 && a.status != 503 {
				t.Errorf("%s (%v)", a, err)
			}
			if a.status == 200 {
				in.Add(1)
			}
		})
	}
	w.undisturbed(t, atLeast(2))
	all.Wait()
	if in.Load() == 0 {
		t.Error("nobody got in")
	}
}

// keepAlive is a connection that goes on asking with the same header.
type keepAlive struct {
	*wire
	header string
}

func (k keepAlive) ask(t testing.TB) int {
	t.Helper()
	a, err := k.say([]byte("GET /api2/json/admin/datastore/" + store + "/snapshots HTTP/1.1\r\nHost: x\r\n" + k.header + "\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	return a.status
}

// What is taken away is gone with the next request, on connections that are
// open too.
func TestRevocation(t *testing.T) {
	t.Parallel()
	w := start(t, setup{})
	a, err := w.login("", "bob@pbs", password)
	if err != nil {
		t.Fatal(err)
	}
	var bob credentials
	a.into(t, &bob)
	ticket := "Cookie: PBSAuthCookie=" + bob.Ticket + "\r\n"

	for _, c := range []struct {
		name, header string
		revoke       func()
		state        int
	}{
		{"a token that is disabled", w.mallory.header(), func() { w.ask(t, w.admin, "PUT", "/access/users/mallory@pbs/token/t", "enable", "0").want(t, 200) }, 401},
		{"a token that is made anew", w.alice.header(), func() { w.ask(t, w.admin, "PUT", "/access/users/alice@pbs/token/t", "regenerate", "1").want(t, 200) }, 401},
		{"a token that is removed", w.bob.header(), func() { w.ask(t, w.admin, "DELETE", "/access/users/bob@pbs/token/t").want(t, 200) }, 401},
		{"rights that are taken", ticket, func() {
			w.ask(t, w.admin, "PUT", "/access/acl", "path", "/datastore/"+store, "role", "DatastorePowerUser", "auth-id", "bob@pbs", "delete", "1").want(t, 200)
		}, 403},
		{"a user who is disabled", ticket, func() { w.ask(t, w.admin, "PUT", "/access/users/bob@pbs", "enable", "0").want(t, 200) }, 401},
		{"a user who is removed", ticket, func() { w.ask(t, w.admin, "DELETE", "/access/users/bob@pbs").want(t, 200) }, 401},
	} {
		k := keepAlive{w.dial(t), c.header}
		if c.name != "a user who is disabled" && c.name != "a user who is removed" {
			if got := k.ask(t); got != 200 {
				t.Errorf("%s: before, %d", c.name, got)
			}
		}
		c.revoke()
		if got := k.ask(t); got != c.state {
			t.Errorf("%s: %d, want %d", c.name, got, c.state)
		}
	}
	// A token dies with its user.
	eve := w.user(t, "eve")
	k := keepAlive{w.dial(t), eve.header()}
	if got := k.ask(t); got != 200 {
		t.Errorf("a token of a user: %d", got)
	}
	w.ask(t, w.admin, "PUT", "/access/users/eve@pbs", "enable", "0").want(t, 200)
	if got := k.ask(t); got != 401 {
		t.Errorf("a token of a disabled user: %d", got)
	}
	w.ask(t, w.admin, "PUT", "/access/users/eve@pbs", "enable", "1").want(t, 200)
	if got := k.ask(t); got != 200 {
		t.Errorf("a token of a user who is back: %d", got)
	}
}
