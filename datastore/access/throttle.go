package access

import (
	"container/list"
	"fmt"
	"maps"
	"net/netip"
	"sync"
	"time"

	"holdfast/datastore/wire"
)

// ErrThrottled is returned instead of a check after too many failures of a
// user, or of an address that guesses at one. It is a wire.ErrUnauthenticated as
// well.
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
	// patience is how long a try is held until its wait is over; one that would
	// have to wait longer is refused.
	patience = 5 * time.Second
	// After crowdFailures of one address, whoever is meant by them, the tries
	// from there take turns, one every turnEvery: many names can be guessed at
	// no faster. A right password among them waits and is not refused, unless
	// queueMax is not enough for all that wait.
	crowdFailures = 20
	turnEvery     = 250 * time.Millisecond
	queueMax      = 30 * time.Second
	// forgetAfter is how long a failure counts.
	forgetAfter = time.Hour
	// friendFor is how long an address that has logged in as a user is not
	// held back by what others do to that user.
	friendFor = 7 * 24 * time.Hour
	// tableMax is how many addresses are remembered, and how many tokens and pairs
	// of token and address; the oldest go first.
	tableMax = 10000
	// addressesMax is how many addresses are remembered for each user, of failures
	// and of friends.
	addressesMax = 256
	// strangersMax is how many names are remembered that are none of a user: more
	// than one address can try in forgetAfter, and than all can in minutes, since
	// each is a hash. Otherwise it would show that they are forgotten, unlike users.
	strangersMax = 32768
)

// table remembers failures by key. The least recently touched is forgotten
// when it is full.
type table struct {
	max   int
	by    map[string]*list.Element
	order *list.List // of *tally, newest first
}

type tally struct {
	key      string
	failures int
	last     time.Time
	until    time.Time
	next     time.Time // turn of an address
}

func newTable() *table { return newTableOf(tableMax) }

func newTableOf(most int) *table {
	return &table{max: most, by: map[string]*list.Element{}, order: list.New()}
}

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
	if t.order.Len() >= max(t.max, 1) {
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

// turn tells how long the next try of key has to wait for its turn, and takes
// it. ok is false, and nothing is taken, if that is too long.
func (t *table) turn(key string, now time.Time) (wait time.Duration, ok bool) {
	e, there := t.by[key]
	if !there {
		return 0, true
	}
	y := e.Value.(*tally)
	if y.failures < crowdFailures || now.Sub(y.last) > forgetAfter {
		return 0, true
	}
	if wait = max(y.next.Sub(now), 0); wait > queueMax {
		// A clock that was set back closes no address for ever.
		y.next = now.Add(min(wait, queueMax+turnEvery))
		return min(wait, queueMax+turnEvery), false
	}
	y.next = now.Add(wait + turnEvery)
	return wait, true
}

// brake slows guessing down. Failures count by user and address, since that is
// who guesses; by user, since an attacker has many addresses; and by address,
// since an attacker tries many users. Only the first two refuse anything, and
// nothing but tries for that user: there are many users behind one address, and
// what one of them does is no fault of the others.
//
// What a caller can make up pushes nothing out that holds him back: each user has
// tallies of its own, of which there are as many as users; names that are none of a
// user have others, and are held back like users; and so do tokens and tickets,
// which nobody guesses.
type brake struct {
	mu        sync.Mutex
	users     map[wire.AuthID]*tallies
	strangers *tallies
	tokens    *tallies
	addrs     *table
}

// tallies are the failures of some names.
type tallies struct {
	pairs   *table // "name address"
	names   *table
	friends *table // "name address" of successful logins
}

func newBrake() *brake {
	of := func(names, pairs int) *tallies {
		return &tallies{pairs: newTableOf(pairs), names: newTableOf(names), friends: newTableOf(1)}
	}
	return &brake{users: map[wire.AuthID]*tallies{}, strangers: of(strangersMax, strangersMax), tokens: of(tableMax, tableMax), addrs: newTable()}
}

// of finds the tallies that a counts for. Those of a user are nil if there are none
// yet. The lock must be held.
func (b *brake) of(a attempt) *tallies {
	switch _, isToken := a.name.Token(); {
	case isToken || a.name == "":
		return b.tokens
	case !a.user():
		return b.strangers
	}
	return b.users[a.name]
}

// make is of that makes them. The lock must be held.
func (b *brake) make(a attempt) *tallies {
	if t := b.of(a); t != nil {
		return t
	}
	if len(b.users) >= len(a.cfg.users) { // some have been removed
		maps.DeleteFunc(b.users, func(id wire.AuthID, _ *tallies) bool { _, ok := a.cfg.users[id]; return !ok })
	}
	t := &tallies{pairs: newTableOf(addressesMax), names: newTableOf(1), friends: newTableOf(addressesMax)}
	b.users[a.name] = t
	return t
}

// attempt is one try to prove to be somebody.
type attempt struct {
	cfg  *config // who is a user; nil if that does not matter
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

// pair is what names the user together with the address.
func (a attempt) pair() string { return string(a.name) + " " + a.address() }

// user tells whether the name is one of a user.
func (a attempt) user() bool {
	if a.cfg == nil {
		return false
	}
	_, ok := a.cfg.users[a.name]
	return ok
}

// befriended tells whether a comes from where its name has logged in lately. The lock
// must be held.
func (b *brake) befriended(a attempt) bool {
	t := b.of(a)
	if t == nil {
		return false
	}
	e, ok := t.friends.by[a.pair()]
	return ok && a.now.Sub(e.Value.(*tally).last) <= friendFor
}

// knows is befriended for who does not have the lock.
func (b *brake) knows(a attempt) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.befriended(a)
}

// check returns ErrThrottled if a has to wait.
func (b *brake) check(a attempt) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.of(a)
	if t == nil {
		return nil
	}
	wait := t.pairs.wait(a.pair(), a.now)
	if !b.befriended(a) {
		wait = max(wait, t.names.wait(string(a.name), a.now))
	}
	if wait > 0 {
		return ErrThrottled{Wait: wait}
	}
	return nil
}

// turn takes a turn among the tries from an address that has failed often and
// tells how long to wait for it. Who has logged in from there lately does not
// wait. It returns ErrThrottled if too many wait already.
func (b *brake) turn(a attempt) (time.Duration, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if a.address() == "" || b.befriended(a) {
		return 0, nil
	}
	wait, ok := b.addrs.turn(a.address(), a.now)
	if !ok {
		return 0, ErrThrottled{Wait: wait}
	}
	return wait, nil
}

// failed counts a failure. One that was throttled is not counted again, so
// that a client that goes on trying is let in when its time has come.
func (b *brake) failed(a attempt) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.make(a)
	t.pairs.fail(a.pair(), a.now)
	if a.name != "" {
		t.names.fail(string(a.name), a.now)
	}
	if a.address() != "" && t != b.tokens {
		b.addrs.fail(a.address(), a.now)
	}
}

// succeeded forgets the failures of a user, unless they did not hold this one
// back: whoever logs in every few minutes would otherwise give as many free
// guesses to others. Those of the address stay: whoever has one account could
// otherwise guess at others for ever.
func (b *brake) succeeded(a attempt) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.make(a)
	if !b.befriended(a) {
		t.names.remove(string(a.name))
	}
	t.pairs.remove(a.pair())
	if a.address() != "" {
		t.friends.touch(a.pair(), a.now, friendFor)
	}
}
