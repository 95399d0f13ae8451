package access

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
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
	_, err := s.Login(id, "wrong", from)
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
		if _, err := s.Login("alice@pbs", "a secret", addr(200+i)); !errors.As(err, new(ErrThrottled)) {
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
	if _, err := s.Login("alice@pbs", "a secret", addr(501)); err != nil {
		t.Errorf("the right password after waiting: %v", err)
	}
	for range freeFailures {
		if w := wait(t, s, "alice@pbs", addr(502)); w != 0 {
			t.Errorf("failures before a success count: wait %s", w)
		}
	}
}

func TestThrottleAddress(t *testing.T) {
	s, c := open(t)
	must(t, s.CreateUser(user("alice@pbs"), "a secret"))
	six := netip.MustParseAddr("2001:db8::1")
	for i := range freeFailures {
		wait(t, s, wire.AuthID(fmt.Sprintf("user%d@pbs", i)), home)
		wait(t, s, wire.AuthID(fmt.Sprintf("other%d@pbs", i)), six)
	}
	for from, throttled := range map[string]bool{
		"192.0.2.1": true, "::ffff:192.0.2.1": true, "192.0.2.2": false,
		"2001:db8::1": true, "2001:db8::ffff:1": true, "2001:db8:0:1::1": false,
	} {
		_, err := s.Login("alice@pbs", "a secret", netip.MustParseAddr(from))
		if errors.As(err, new(ErrThrottled)) != throttled || !throttled && err != nil {
			t.Errorf("%s: %v", from, err)
		}
	}
	c.add(time.Second)
	if _, err := s.Login("alice@pbs", "a secret", home); err != nil {
		t.Errorf("after waiting: %v", err)
	}
	wait(t, s, "user9@pbs", home)
	if w := wait(t, s, "user9@pbs", home); w != 2*time.Second {
		t.Errorf("a success has freed the address: wait %s", w)
	}
	c.add(forgetAfter + 2*time.Second)
	for i := range freeFailures {
		if w := wait(t, s, "user9@pbs", home); w != 0 {
			t.Errorf("failure %d of an hour ago counts: wait %s", i, w)
		}
	}
}

// TestThrottleSparesTheHonest has an attacker fail as alice in every way:
// what alice does with good credentials goes on.
func TestThrottleSparesTheHonest(t *testing.T) {
	s, _ := open(t)
	must(t, s.CreateUser(user("alice@pbs"), "a secret"))
	id := wire.AuthID("alice@pbs!nightly")
	secret := token(t, s, id)
	k, err := s.Login("alice@pbs", "a secret", home)
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
	if _, err := s.Login("alice@pbs", k.Ticket, away); err != nil {
		t.Errorf("renewal: %v", err)
	}
	if _, err := s.Login("alice@pbs", "a secret", home); err != nil {
		t.Errorf("password from where it was right before: %v", err)
	}
	if _, err := s.Login("alice@pbs", "a secret", netip.MustParseAddr("203.0.113.77")); !errors.As(err, new(ErrThrottled)) {
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
			if _, err := s.Login("alice@pbs", "wrong", home); !errors.As(err, new(ErrThrottled)) {
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
	h := newHasher()
	release := make(chan struct{})
	var wg sync.WaitGroup
	var mu sync.Mutex
	inside, most := 0, 0
	results := make(chan error, 200)
	for range 200 {
		wg.Go(func() {
			results <- h.run(func() error {
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
	for range 200 - hashesAtOnce - hashesWaiting { // those turned away come first
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
