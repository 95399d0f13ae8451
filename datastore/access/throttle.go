package access

import (
	"container/list"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"holdfast/datastore/wire"
)

// ErrThrottled is returned instead of a check after too many failures of an
// address or a user. It is a wire.ErrUnauthenticated as well.
type ErrThrottled struct {
	// Wait is how long to wait before the next try.
	Wait time.Duration
}

func (e ErrThrottled) Error() string {
	return fmt.Sprintf("too many failed attempts: try again in %s", e.Wait.Round(time.Second))
}

// Is makes errors.Is see a failed authentication.
func (e ErrThrottled) Is(target error) bool { return target == wire.ErrUnauthenticated }

const (
	// freeFailures are without consequence; each one after them doubles the
	// wait, from a second up to waitMax.
	freeFailures = 5
	waitMax      = 5 * time.Minute
	// forgetAfter is how long a failure counts.
	forgetAfter = time.Hour
	// friendFor is how long an address that has logged in as a user is not
	// held back by what others do to that user.
	friendFor = 7 * 24 * time.Hour
	// tableMax is how many addresses, names and friends are remembered; the
	// oldest go first.
	tableMax = 10000
)

// table remembers failures by key. The least recently touched is forgotten
// when it is full.
type table struct {
	by    map[string]*list.Element
	order *list.List // of *tally, newest first
}

type tally struct {
	key      string
	failures int
	last     time.Time
	until    time.Time
}

func newTable() *table { return &table{by: map[string]*list.Element{}, order: list.New()} }

// touch finds or makes the tally of key and makes it the newest.
func (t *table) touch(key string, now time.Time, keep time.Duration) *tally {
	if e, ok := t.by[key]; ok {
		y := e.Value.(*tally)
		if now.Sub(y.last) > keep {
			*y = tally{key: key}
		}
		y.last = now
		t.order.MoveToFront(e)
		return y
	}
	if t.order.Len() >= tableMax {
		t.remove(t.order.Back().Value.(*tally).key)
	}
	y := &tally{key: key, last: now}
	t.by[key] = t.order.PushFront(y)
	return y
}

func (t *table) remove(key string) {
	if e, ok := t.by[key]; ok {
		t.order.Remove(e)
		delete(t.by, key)
	}
}

// fail counts a failure and sets how long to wait.
func (t *table) fail(key string, now time.Time) {
	y := t.touch(key, now, forgetAfter)
	y.failures = min(y.failures+1, 1000)
	if over := y.failures - freeFailures; over >= 0 {
		y.until = now.Add(min(time.Second<<min(over, 20), waitMax))
	}
}

// wait tells how long key has still to wait. A clock that was set back makes
// nobody wait for longer than waitMax.
func (t *table) wait(key string, now time.Time) time.Duration {
	e, ok := t.by[key]
	if !ok {
		return 0
	}
	return min(max(e.Value.(*tally).until.Sub(now), 0), waitMax)
}

// brake slows guessing down. Failures count by address, since an attacker
// tries many names, and by name, since an attacker has many addresses.
type brake struct {
	mu      sync.Mutex
	addrs   *table
	names   *table
	friends *table // "name address" of successful logins
}

func newBrake() *brake { return &brake{addrs: newTable(), names: newTable(), friends: newTable()} }

// attempt is one try to prove to be somebody.
type attempt struct {
	name wire.AuthID
	from netip.Addr
	now  time.Time
}

// address is what an address is counted by: for IPv6 the /64, which is what a
// single machine can have all of. Without an address it is "".
func (a attempt) address() string {
	from := a.from.Unmap().WithZone("")
	if !from.IsValid() {
		return ""
	}
	if from.Is6() {
		p, err := from.Prefix(64)
		if err != nil {
			return ""
		}
		return p.Addr().String()
	}
	return from.String()
}

func (a attempt) friend() string { return string(a.name) + " " + a.address() }

// befriended tells whether a comes from where its name has logged in lately.
func (b *brake) befriended(a attempt) bool {
	e, ok := b.friends.by[a.friend()]
	return ok && a.now.Sub(e.Value.(*tally).last) <= friendFor
}

// check returns ErrThrottled if a has to wait.
func (b *brake) check(a attempt) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	wait := b.addrs.wait(a.address(), a.now)
	if !b.befriended(a) {
		wait = max(wait, b.names.wait(string(a.name), a.now))
	}
	if wait > 0 {
		return ErrThrottled{Wait: wait}
	}
	return nil
}

// failed counts a failure. One that was throttled is not counted again, so
// that a client that goes on trying is let in when its time has come.
func (b *brake) failed(a attempt) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if addr := a.address(); addr != "" {
		b.addrs.fail(addr, a.now)
	}
	if a.name != "" {
		b.names.fail(string(a.name), a.now)
	}
}

// succeeded forgets the failures of a name, unless they did not hold this one
// back: whoever logs in every few minutes would otherwise give as many free
// guesses to others. Those of the address stay: whoever has one account could
// otherwise guess at others for ever.
func (b *brake) succeeded(a attempt) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.befriended(a) {
		b.names.remove(string(a.name))
	}
	if a.address() != "" {
		b.friends.touch(a.friend(), a.now, friendFor)
	}
}
