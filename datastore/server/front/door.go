package front

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"holdfast/datastore/server/budget"
	"holdfast/datastore/server/ledger"
)

// doorkeeper gives connections their places. Whoever connects is a stranger, whose
// address pays, until a request of the connection has been authenticated: then
// the user or token pays. Nothing else that a stranger says, and no time, makes
// its place its own: when there is none left the strangers of the address that
// has most of them make room, the one that came first before the others.
type doorkeeper struct {
	total              int64
	local              bool // callers of a unix socket are who they say they are
	strangers, callers *ledger.Resource

	mu      sync.Mutex
	waiting map[netip.Prefix][]*Place // strangers, in the order of their coming
}

// newDoorkeeper returns a door for so many connections, so many of them of one address
// that has not logged in. An eighth is always
// there for strangers, or nobody could log in; a quarter is kept for callers,
// half of it for administrators.
func newDoorkeeper(l budget.Limits, local bool) *doorkeeper {
	n := int64(l.Connections)
	d := &doorkeeper{total: n, local: local, waiting: make(map[netip.Prefix][]*Place)}
	d.strangers = ledger.New(ledger.Limit{Name: "connections", Total: max(1, n-n/4), Share: int64(l.PerAddress)})
	most := max(1, n-n/8)
	d.callers = ledger.New(ledger.Limit{Name: "open connections", Total: most, Kept: n / 8, Share: most / 2, Each: most * 3 / 8})
	return d
}

// Place is a connection with a place, which it gives back when it is closed.
type Place struct {
	net.Conn
	keeper *doorkeeper
	from   netip.Prefix
	came   time.Time

	// Guarded by the door.
	hold  *ledger.Hold // nil once it is given back
	payer ledger.Payer // of a caller; the zero value is a stranger
}

// enter takes a place for a connection, or returns nil if there is none.
func (d *doorkeeper) enter(c net.Conn) *Place {
	g := &Place{Conn: c, keeper: d, from: Neighbours(remote(c)), came: time.Now()}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.local {
		g.payer = ledger.Payer{Account: "local", Admin: true}
		g.hold, _ = d.callers.Try(g.payer, 1)
		if g.hold == nil {
			return nil
		}
		return g
	}
	payer := ledger.Payer{Account: g.from.String()}
	for {
		if d.strangers.Of(payer) >= d.strangers.Limit().Each {
			d.turnOut(g.from)
		}
		if d.count() < d.total {
			if hold, err := d.strangers.Try(payer, 1); err == nil {
				g.hold = hold
				d.waiting[g.from] = append(d.waiting[g.from], g)
				return g
			}
		}
		if !d.turnOut(d.fullest()) {
			return nil
		}
	}
}

// Neighbours are the addresses that count as one.
func Neighbours(a netip.Addr) netip.Prefix {
	bits := 64
	if a = a.Unmap(); a.Is4() {
		bits = 32
	}
	p, err := a.WithZone("").Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

func (d *doorkeeper) count() int64 { return d.strangers.Used() + d.callers.Used() }

// fullest is the address with most strangers, of several the one whose first has
// been there longest. The lock must be held.
func (d *doorkeeper) fullest() (most netip.Prefix) {
	for p, list := range d.waiting {
		best := d.waiting[most]
		if len(list) > len(best) || len(list) == len(best) && list[0].came.Before(best[0].came) {
			most = p
		}
	}
	return most
}

// turnOut closes the oldest connection of a stranger from an address. The lock
// must be held.
func (d *doorkeeper) turnOut(from netip.Prefix) bool {
	list := d.waiting[from]
	if len(list) == 0 {
		return false
	}
	g := list[0]
	d.forget(g)
	g.hold.Free()
	g.hold = nil
	_ = g.Conn.Close()
	return true
}

// forget takes a connection from the list of the strangers. The lock must be
// held.
func (d *doorkeeper) forget(g *Place) {
	list := d.waiting[g.from]
	for i, other := range list {
		if other == g {
			list = append(list[:i:i], list[i+1:]...)
			break
		}
	}
	if d.waiting[g.from] = list; len(list) == 0 {
		delete(d.waiting, g.from)
	}
}

// Close implements net.Conn.
func (g *Place) Close() error {
	g.keeper.mu.Lock()
	if g.hold != nil {
		g.keeper.forget(g)
		g.hold.Free()
		g.hold = nil
	}
	g.keeper.mu.Unlock()
	return g.Conn.Close()
}

// Login makes the connection that of a caller, who pays for it from now on. A
// *ledger.Refusal says that the caller has as many as it may; the connection
// stays a stranger's then.
func (g *Place) Login(p ledger.Payer) error {
	d := g.keeper
	d.mu.Lock()
	defer d.mu.Unlock()
	if g.hold == nil || d.local || g.payer == p {
		return nil // it has been closed meanwhile, or nothing changes
	}
	hold, err := d.callers.Try(p, 1)
	if err != nil {
		return err
	}
	d.forget(g)
	g.hold.Free()
	g.hold, g.payer = hold, p
	return nil
}

// Overdue tells whether a stranger has been here for longer than a caller may
// rest between two requests.
func (g *Place) Overdue(most time.Duration) bool {
	g.keeper.mu.Lock()
	defer g.keeper.mu.Unlock()
	return g.payer == ledger.Payer{} && time.Since(g.came) > most
}
