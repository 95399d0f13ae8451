// Package ledger keeps the accounts of what callers take from a server: for each
// resource how much there is, how much of it one caller may have, and what is
// kept for administrators.
//
// Nothing here knows what a unit is worth: a resource of places counts places,
// one of memory bytes. What is taken is charged at that moment to the account of
// whoever asked, and to the holder of the account, however many accounts that
// one has; it is given back by Free. Whoever holds little goes before whoever
// holds much, so that one caller who takes all he can keeps nobody waiting for
// longer than the work under way takes.
package ledger

import (
	"cmp"
	"container/list"
	"context"
	"fmt"
	"sync"

	"holdfast/datastore/wire"
)

// Errors that a refusal is matched with by errors.Is.
var (
	// ErrShare says that the caller has all that one caller may have.
	ErrShare = wire.ErrShare
	// ErrFull says that all there is for callers of this kind is taken.
	ErrFull = wire.ErrFull
)

// Payer is who pays.
type Payer struct {
	// Account is an address, a user or a token.
	Account string
	// Holder is whom the account belongs to: the user of a token. "" is the
	// account itself.
	Holder string
	// Admin payers may take what is kept for them, and have a share of their
	// own beside that of their holder.
	Admin bool
}

// holder is under which name the payer's share is counted.
func (p Payer) holder() string {
	if p.Holder == "" || p.Admin {
		return p.Account
	}
	return p.Holder
}

// Limit says how much there is of a resource.
type Limit struct {
	// Name is what refusals call it, in the plural: "open connections".
	Name string
	// Total is all there is.
	Total int64
	// Kept is the part of Total that only administrators may take.
	Kept int64
	// Share is the most of one holder, Each that of one account; 0 is the
	// next larger bound.
	Share, Each int64
}

// Refusal is why something was not given. It is ErrShare or ErrFull.
type Refusal struct {
	// Resource is the name of what was asked for.
	Resource string
	// Own says that it is the caller's share that is used up.
	Own bool
}

// Error implements error.
func (e *Refusal) Error() string {
	if e.Own {
		return fmt.Sprintf("you have all %s that one caller may have", e.Resource)
	}
	return fmt.Sprintf("all %s are taken, try again later", e.Resource)
}

// Is implements the matching of errors.Is.
func (e *Refusal) Is(target error) bool {
	return target == ErrShare && e.Own || target == ErrFull && !e.Own
}

// Resource is something that callers take from. All methods are safe for
// concurrent use.
type Resource struct {
	limit Limit

	mu      sync.Mutex
	used    int64
	holders map[string]int64
	each    map[string]int64     // only of accounts that are not their own holders
	waiting map[Payer]*list.List // of *waiter, in the order of their coming
	turns   map[Payer]uint64     // when those who wait had their last turn
	arrived uint64
}

// waiter is a Take under way.
type waiter struct {
	payer Payer
	n     int64
	at    uint64        // when it came
	ready chan struct{} // closed when it has got what it wants
}

// New returns a resource of which nothing is taken.
func New(l Limit) *Resource {
	if l.Share <= 0 || l.Share > l.Total-l.Kept {
		l.Share = l.Total - l.Kept
	}
	if l.Each <= 0 || l.Each > l.Share {
		l.Each = l.Share
	}
	return &Resource{limit: l, holders: make(map[string]int64), each: make(map[string]int64), waiting: make(map[Payer]*list.List), turns: make(map[Payer]uint64)}
}

// Limit returns the limit with its defaults filled in.
func (r *Resource) Limit() Limit { return r.limit }

// refuse tells why p may not have n more; nil if it may. The lock must be held.
func (r *Resource) refuse(p Payer, n int64) *Refusal {
	all, own := r.left(p)
	switch {
	case n > own:
		return &Refusal{Resource: r.limit.Name, Own: true}
	case n > all:
		return &Refusal{Resource: r.limit.Name}
	}
	return nil
}

// left tells what there is for p at all, and what of its share. The lock must be
// held.
func (r *Resource) left(p Payer) (all, own int64) {
	l, holder := &r.limit, p.holder()
	own = l.Share - r.holders[holder]
	if p.Admin {
		return l.Total - r.used, own
	}
	account := r.each[p.Account]
	if holder == p.Account {
		account = r.holders[holder]
	}
	return l.Total - l.Kept - r.used, min(own, l.Each-account)
}

// charge books n more, or less, for p. The lock must be held.
func (r *Resource) charge(p Payer, n int64) {
	r.used += n
	book(r.holders, p.holder(), n)
	if p.holder() != p.Account {
		book(r.each, p.Account, n)
	}
}

func book(m map[string]int64, key string, n int64) {
	if m[key] += n; m[key] == 0 {
		delete(m, key)
	}
}

// Try takes n for p, or returns a *Refusal at once.
func (r *Resource) Try(p Payer, n int64) (*Hold, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if no := r.refuse(p, n); no != nil {
		return nil, no
	}
	r.charge(p, n)
	return &Hold{resource: r, payer: p, size: n}, nil
}

// Take waits until n can be taken for p. Among those who wait the one whose
// holder has least comes first. What no wait could give is a *Refusal; when ctx
// ends first its error is returned.
func (r *Resource) Take(ctx context.Context, p Payer, n int64) (*Hold, error) {
	r.mu.Lock()
	if !p.Admin && n > r.limit.Each || n > r.limit.Share {
		r.mu.Unlock()
		return nil, &Refusal{Resource: r.limit.Name, Own: true}
	}
	r.arrived++
	w := &waiter{payer: p, n: n, at: r.arrived, ready: make(chan struct{})}
	if r.waiting[p] == nil {
		r.waiting[p] = list.New()
	}
	place := r.waiting[p].PushBack(w)
	if place.Prev() == nil {
		r.grant()
	}
	r.mu.Unlock()
	hold := &Hold{resource: r, payer: p, size: n}
	select {
	case <-w.ready:
		return hold, nil
	case <-ctx.Done():
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-w.ready:
		r.charge(p, -n) // it came at the same moment
	default:
		r.leave(place)
	}
	r.grant() // it may have stood in the way
	return nil, fmt.Errorf("wait for %s: %w", r.limit.Name, context.Cause(ctx))
}

// leave takes a waiter from its queue. The lock must be held.
func (r *Resource) leave(place *list.Element) {
	p := place.Value.(*waiter).payer
	if q := r.waiting[p]; q != nil {
		if q.Remove(place); q.Len() == 0 {
			delete(r.waiting, p)
			delete(r.turns, p)
		}
	}
}

// grant lets those go on who may, those of one payer in the order of their coming. The
// lock must be held.
func (r *Resource) grant() {
	for {
		// Nobody passes the next one, or a large one would never have its turn: but
		// for administrators, who have a part that it waits for in vain.
		place := r.next(false)
		if place == nil || r.waits(place) != nil {
			place = r.next(true)
		}
		if place == nil || r.waits(place) != nil {
			return
		}
		next := place.Value.(*waiter)
		r.leave(place)
		if r.waiting[next.payer] != nil {
			r.arrived++
			r.turns[next.payer] = r.arrived
		}
		r.charge(next.payer, next.n)
		close(next.ready)
	}
}

// next is whose turn it is among those who wait, or among the administrators of
// them, nil if there is nobody. The lock must be held.
func (r *Resource) next(admins bool) (place *list.Element) {
	for p, q := range r.waiting {
		if admins && !p.Admin {
			continue
		}
		if no := r.waits(q.Front()); no != nil && no.Own {
			continue // others may pass it: it waits for itself
		}
		if place == nil || r.before(q.Front().Value.(*waiter), place.Value.(*waiter)) {
			place = q.Front()
		}
	}
	return place
}

// waits tells what a waiter waits for, nil if it may go on. The lock must be held.
func (r *Resource) waits(place *list.Element) *Refusal {
	w := place.Value.(*waiter)
	return r.refuse(w.payer, w.n)
}

// before tells whether a's turn is before b's: its holder has less, its last turn is
// longer ago, or it came earlier.
func (r *Resource) before(a, b *waiter) bool {
	x, y := r.holders[a.payer.holder()], r.holders[b.payer.holder()]
	s, t := r.turns[a.payer], r.turns[b.payer]
	return cmp.Or(cmp.Compare(x, y), cmp.Compare(s, t), cmp.Compare(a.at, b.at)) < 0
}

// Used returns how much is taken.
func (r *Resource) Used() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.used
}

// Of returns how much the payer's account has.
func (r *Resource) Of(p Payer) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p.holder() != p.Account {
		return r.each[p.Account]
	}
	return r.holders[p.Account]
}

// Left returns how much the payer could take now.
func (r *Resource) Left(p Payer) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return max(0, min(r.left(p)))
}

// Hold is what somebody has taken. Its methods are safe for concurrent use.
type Hold struct {
	resource *Resource
	payer    Payer
	size     int64 // guarded by the lock of the resource
}

// Size returns how much is held.
func (h *Hold) Size() int64 {
	h.resource.mu.Lock()
	defer h.resource.mu.Unlock()
	return h.size
}

// More takes n more at once, or returns a *Refusal.
func (h *Hold) More(n int64) error {
	r := h.resource
	r.mu.Lock()
	defer r.mu.Unlock()
	if no := r.refuse(h.payer, n); no != nil {
		return no
	}
	r.charge(h.payer, n)
	h.size += n
	return nil
}

// Shrink gives back what is held beyond size.
func (h *Hold) Shrink(size int64) {
	r := h.resource
	r.mu.Lock()
	defer r.mu.Unlock()
	if rest := h.size - max(size, 0); rest > 0 {
		r.charge(h.payer, -rest)
		h.size -= rest
		r.grant()
	}
}

// Free gives everything back. It may be called again, and on nil.
func (h *Hold) Free() {
	if h != nil {
		h.Shrink(0)
	}
}
