package access

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/datastore/wire"
)

var (
	home = netip.MustParseAddr("192.0.2.1")
	away = netip.MustParseAddr("198.51.100.7")
)

// wait logs in with a wrong password and tells how long to wait, 0 if the
// password was checked.
func wait(t *testing.T, s *Store, id wire.AuthID, from netip.Addr) time.Duration {
	t.Helper()
	_, err := s.Login(t.Context(), id, "wrong", from)
	var e ErrThrottled
	if errors.As(err, &e) && e.Wait <= 0 || !errors.Is(err, wire.ErrUnauthenticated) {
		t.Fatalf("got %v", err)
	}
	return e.Wait
}

func TestThrottleUser(t *testing.T) {
	s, c := open(t)
	must(t, s.CreateUser(user("alice@pbs"), "a secret"))
	addr := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}) }
	for i := range freeFailures {
		if w := wait(t, s, "alice@pbs", addr(i)); w != 0 {
			t.Fatalf("failure %d: wait %s", i, w)
		}
	}
	want := time.Second
	for i := range 12 {
		if w := wait(t, s, "alice@pbs", addr(100+i)); w != want {
			t.Fatalf("round %d: wait %s, want %s", i, w, want)
		}
		if _, err := s.Login(t.Context(), "alice@pbs", "a secret", addr(200+i)); !errors.As(err, new(ErrThrottled)) {
			t.Fatalf("round %d: the right password: %v", i, err)
		}
		c.add(want)
		if w := wait(t, s, "alice@pbs", addr(300+i)); w != 0 {
			t.Fatalf("round %d: not let in after waiting", i)
		}
		want = min(2*want, waitMax)
	}
	if want != waitMax {
		t.Errorf("the wait has grown to %s only", want)
	}
	if w := wait(t, s, "bob@pbs", addr(500)); w != 0 {
		t.Errorf("another user waits %s", w)
	}
	c.add(waitMax)
	if _, err := s.Login(t.Context(), "alice@pbs", "a secret", addr(501)); err != nil {
		t.Errorf("the right password after waiting: %v", err)
	}
	for range freeFailures {
		if w := wait(t, s, "alice@pbs", addr(502)); w != 0 {
			t.Errorf("failures before a success count: wait %s", w)
		}
	}
}

// TestNeighboursAreNotRefused has somebody guess from behind an address that
// many share: the right passwords of the others count at once.
func TestNeighboursAreNotRefused(t *testing.T) {
	s, c := open(t)
	six := netip.MustParseAddr("2001:db8::1")
	var office []wire.AuthID
	for i := range 14 {
		office = append(office, wire.AuthID(fmt.Sprintf("user%d@pbs", i)))
		must(t, s.CreateUser(user(office[i]), "a secret"))
	}
	for _, from := range []netip.Addr{home, six} {
		for range crowdFailures - 1 {
			wait(t, s, office[0], from)
			c.add(waitMax / 10) // not all of them are throttled
		}
		for _, id := range office[1:] {
			if _, err := s.Login(t.Context(), id, "a secret", from); err != nil {
				t.Errorf("%s beside one who guesses: %v", id, err)
			}
		}
	}
	for range freeFailures {
		wait(t, s, office[0], home)
	}
	if w := wait(t, s, office[0], home); w == 0 {
		t.Error("who guesses does not have to wait")
	}
	for from, throttled := range map[string]bool{"2001:db8::ffff:1": true, "::ffff:192.0.2.1": true} {
		_, err := s.Login(t.Context(), office[0], "a secret", netip.MustParseAddr(from))
		if errors.As(err, new(ErrThrottled)) != throttled {
			t.Errorf("%s: %v", from, err)
		}
	}
	// Nor do wrong tokens and forged tickets count for those who have passwords.
	for range 3 * crowdFailures {
		bad := withToken("user1@pbs!x", "wrong")
		bad.From = away
		refused(t, s, bad, "wrong secret")
	}
	if _, err := s.Login(t.Context(), office[3], "a secret", away); err != nil {
		t.Errorf("beside wrong tokens: %v", err)
	}
}

// TestGuessingAtManyNamesTakesTurns bounds what one address can try, whatever
// names it uses, and lets a neighbour in all the same.
func TestGuessingAtManyNamesTakesTurns(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.db")
	cheap := cost{memory: 64, passes: 1, lanes: 1}
	synctest.Test(t, func(t *testing.T) {
		s, err := Open(path, Options{})
		must(t, err)
		defer s.Close()
		s.hashes.cost = cheap
		must(t, s.CreateUser(user("alice@pbs"), "a secret"), s.CreateUser(user("bob@pbs"), "a secret"))
		_, err = s.Login(t.Context(), "bob@pbs", "a secret", home)
		must(t, err)
		begin := time.Now()
		var tried atomic.Int64
		var all sync.WaitGroup
		for lane := range 32 {
			all.Go(func() {
				for i := 0; time.Since(begin) < time.Minute; i++ {
					_, err := s.Login(t.Context(), wire.AuthID(fmt.Sprintf("n%d-%d@pbs", lane, i)), "wrong", home)
					if !errors.As(err, new(ErrThrottled)) {
						tried.Add(1)
					}
				}
			})
		}
		time.Sleep(30 * time.Second)
		at := time.Now()
		if _, err := s.Login(t.Context(), "alice@pbs", "a secret", home); err != nil {
			t.Errorf("a neighbour's right password: %v", err)
		}
		if late := time.Since(at); late > queueMax {
			t.Errorf("a neighbour waits %s", late)
		}
		at = time.Now()
		if _, err := s.Login(t.Context(), "bob@pbs", "a secret", home); err != nil || time.Since(at) > time.Second {
			t.Errorf("one who has logged in from there waits %s: %v", time.Since(at), err)
		}
		if _, err := s.Login(t.Context(), "alice@pbs", "a secret", away); err != nil {
			t.Errorf("from elsewhere: %v", err)
		}
		all.Wait()
		took := time.Since(begin)
		if most := crowdFailures + 32 + int64(took/turnEvery); tried.Load() > most {
			t.Errorf("%d names were tried in %s, want at most %d", tried.Load(), took, most)
		}
	})
}

// TestMistypedPasswordsAreForgiven logs in by the right password after wrong
// ones: it takes a moment and is not refused.
func TestMistypedPasswordsAreForgiven(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.db")
	synctest.Test(t, func(t *testing.T) {
		s, err := Open(path, Options{})
		must(t, err)
		defer s.Close()
		s.hashes.cost = cost{memory: 64, passes: 1, lanes: 1}
		must(t, s.CreateUser(user("alice@pbs"), "a secret"))
		for range freeFailures + 1 {
			wait(t, s, "alice@pbs", home)
		}
		begin := time.Now()
		if _, err := s.Login(t.Context(), "alice@pbs", "a secret", home); err != nil || time.Since(begin) < time.Second {
			t.Errorf("after %s: %v", time.Since(begin), err)
		}
		for range 2 * freeFailures {
			if w := wait(t, s, "alice@pbs", home); w > patience {
				return
			}
		}
		t.Error("nobody is refused any more")
	})
}

// TestThrottleSparesTheHonest has an attacker fail as alice in every way:
// what alice does with good credentials goes on.
func TestThrottleSparesTheHonest(t *testing.T) {
	s, _ := open(t)
	must(t, s.CreateUser(user("alice@pbs"), "a secret"))
	id := wire.AuthID("alice@pbs!nightly")
	secret := token(t, s, id)
	k, err := s.Login(t.Context(), "alice@pbs", "a secret", home)
	must(t, err)
	for i := range byte(20) {
		wait(t, s, "alice@pbs", netip.AddrFrom4([4]byte{203, 0, 113, i}))
		c := withToken(id, "wrong")
		c.From = away
		refused(t, s, c, "wrong secret")
		c = withTicket(Ticket{Ticket: k.Ticket[:len(k.Ticket)-2] + "AA", CSRF: k.CSRF})
		c.From = away
		refused(t, s, c, "forged ticket")
	}
	for name, c := range map[string]Credentials{"token": withToken(id, secret), "ticket": withTicket(k)} {
		for _, c.From = range []netip.Addr{home, away} {
			if _, err := s.Authenticate(c); err != nil {
				t.Errorf("%s from %s: %v", name, c.From, err)
			}
		}
	}
	if _, err := s.Login(t.Context(), "alice@pbs", k.Ticket, away); err != nil {
		t.Errorf("renewal: %v", err)
	}
	if _, err := s.Login(t.Context(), "alice@pbs", "a secret", home); err != nil {
		t.Errorf("password from where it was right before: %v", err)
	}
	if _, err := s.Login(t.Context(), "alice@pbs", "a secret", netip.MustParseAddr("203.0.113.77")); !errors.As(err, new(ErrThrottled)) {
		t.Errorf("password from elsewhere: %v", err)
	}
}

func TestThrottleTokens(t *testing.T) {
	s, c := open(t)
	bad := withToken("alice@pbs!nightly", "wrong")
	bad.From = away
	for i := range 2 * freeFailures {
		_, err := s.Authenticate(bad)
		if got := errors.As(err, new(ErrThrottled)); got != (i >= freeFailures) {
			t.Errorf("failure %d: %v", i, err)
		}
	}
	if w := wait(t, s, "alice@pbs", home); w != 0 {
		t.Errorf("wrong secrets of a token hold its user back: wait %s", w)
	}
	c.add(time.Second)
	if _, err := s.Authenticate(bad); errors.As(err, new(ErrThrottled)) {
		t.Error("not let in after waiting")
	}
}

// TestThrottleHoldsInParallel sends many guesses at once: waiting for a slot
// must not let more through than came before the brake.
func TestThrottleHoldsInParallel(t *testing.T) {
	s, _ := open(t)
	must(t, s.CreateUser(user("alice@pbs"), "a secret"))
	var wg sync.WaitGroup
	var mu sync.Mutex
	checked := 0
	for range 60 {
		wg.Go(func() {
			if _, err := s.Login(t.Context(), "alice@pbs", "wrong", home); !errors.As(err, new(ErrThrottled)) {
				mu.Lock()
				defer mu.Unlock()
				checked++
			}
		})
	}
	wg.Wait()
	if checked < freeFailures || checked >= freeFailures+hashesAtOnce {
		t.Errorf("%d guesses were checked", checked)
	}
}

func TestHashesAreBounded(t *testing.T) {
	h := newHasher(0)
	release := make(chan struct{})
	var wg sync.WaitGroup
	var mu sync.Mutex
	inside, most := 0, 0
	const all = 2 * hashesWaiting
	results := make(chan error, all)
	for range all {
		wg.Go(func() {
			results <- h.run(t.Context(), hashesWaiting, func() error {
				mu.Lock()
				inside++
				most = max(most, inside)
				mu.Unlock()
				<-release
				mu.Lock()
				inside--
				mu.Unlock()
				return nil
			})
		})
	}
	for range all - hashesAtOnce - hashesWaiting { // those turned away come first
		if err := <-results; !errors.As(err, new(ErrThrottled)) {
			t.Errorf("got %v", err)
		}
	}
	close(release)
	wg.Wait()
	if most > hashesAtOnce {
		t.Errorf("%d at once", most)
	}
	for range hashesAtOnce + hashesWaiting {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}

func TestTableIsBounded(t *testing.T) {
	b := newTable()
	now := time.Unix(1000, 0)
	b.fail("first", now)
	b.fail("second", now)
	for i := range tableMax - 2 {
		b.fail(fmt.Sprint(i), now)
	}
	b.fail("first", now) // touched again, so it is not the oldest
	b.fail("one more", now)
	if len(b.by) != tableMax || b.order.Len() != tableMax {
		t.Errorf("%d and %d entries", len(b.by), b.order.Len())
	}
	if b.by["second"] != nil || b.by["first"] == nil || b.by["one more"] == nil {
		t.Error("the wrong one was forgotten")
	}
	b.remove("first")
	b.remove("first")
	if len(b.by) != tableMax-1 || b.order.Len() != tableMax-1 {
		t.Error("remove leaves something")
	}
	for range 2000 {
		b.fail("one more", now)
	}
	if w := b.wait("one more", now.Add(-time.Hour*1000)); w != waitMax {
		t.Errorf("with a clock that was set back: wait %s", w)
	}
}

// What a guesser makes up does not make the server forget how often he has guessed: tokens
// by the thousands, names that are none of a user, and forged tickets.
func TestMadeUpNamesForgetNoGuesses(t *testing.T) {
	s, c := open(t)
	must(t, s.CreateUser(user("anna@pbs"), "the right one"), s.CreateUser(user("bob@pbs"), "his own"))
	for wait(t, s, "anna@pbs", away) == 0 {
		continue
	}
	for i := range tableMax + 1 {
		made := withToken(wire.AuthID(fmt.Sprintf("x%d@pbs!t", i)), "secret")
		made.From = away
		if _, err := s.Authenticate(made); err == nil {
			t.Fatal("a token that was made up is good")
		}
	}
	for i := range strangersMax + 1 { // as if they had all been checked
		s.brake.failed(attempt{cfg: s.config.Load(), name: wire.AuthID(fmt.Sprintf("n%d@pbs", i)), from: away, now: s.now()})
	}
	if w := wait(t, s, "anna@pbs", away); w == 0 {
		t.Error("the guesses at a user are forgotten")
	}
	if n := len(s.brake.users); n != 1 {
		t.Errorf("%d users are remembered, want 1", n)
	}
	if n := len(s.brake.strangers.names.by); n != strangersMax {
		t.Errorf("%d names are remembered, want %d", n, strangersMax)
	}
	if _, err := s.Login(t.Context(), "bob@pbs", "his own", home); err != nil {
		t.Errorf("a neighbour: %v", err)
	}
	// Who is removed is not remembered beside those who are there.
	for i := range 10 {
		id := wire.AuthID(fmt.Sprintf("u%d@pbs", i))
		must(t, s.CreateUser(user(id), "its own"))
		c.add(time.Minute)
		wait(t, s, id, home)
		must(t, s.RemoveUser(id))
	}
	if n, most := len(s.brake.users), len(s.config.Load().users)+1; n > most {
		t.Errorf("%d users are remembered, there are %d", n, most-1)
	}
}

// A name that is none of a user is held back like one that is, and a token fails beside
// both.
func TestStrangersAreHeldBackLikeUsers(t *testing.T) {
	s, c := open(t)
	must(t, s.CreateUser(user("anna@pbs"), "the right one"))
	for i := range 3 * freeFailures {
		if a, b := wait(t, s, "anna@pbs", away), wait(t, s, "nobody@pbs", away); a != b {
			t.Errorf("failure %d: a user waits %s, a name that is none %s", i, a, b)
		}
		c.add(time.Duration(i) * time.Second)
	}
}

// The addresses of one user push out none of another.
func TestFriendsOfAUserStay(t *testing.T) {
	s, _ := open(t)
	must(t, s.CreateUser(user("anna@pbs"), "the right one"), s.CreateUser(user("mallory@pbs"), "his own"))
	_, err := s.Login(t.Context(), "anna@pbs", "the right one", home)
	must(t, err)
	for i := range tableMax + 1 {
		a := attempt{cfg: s.config.Load(), name: "mallory@pbs", from: netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), now: s.now()}
		s.brake.succeeded(a)
	}
	if !s.brake.knows(attempt{cfg: s.config.Load(), name: "anna@pbs", from: home, now: s.now()}) {
		t.Error("where a user has logged in is forgotten for the sake of another")
	}
	if n := len(s.brake.users["mallory@pbs"].friends.by); n != addressesMax {
		t.Errorf("%d addresses of one user are remembered, want %d", n, addressesMax)
	}
}
