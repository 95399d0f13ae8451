package front

import (
	"fmt"
	"net"
	"net/netip"
	"testing"

	"holdfast/datastore/server/budget"
	"holdfast/datastore/server/ledger"
)

// When the house is full, the address with most strangers makes room, and a part
// is left for strangers however many have logged in.
func TestFullHouse(t *testing.T) {
	d := newDoorkeeper(budget.Limits{Connections: 16, PerAddress: 8, PerToken: 8}, false)
	var closed []string
	enter := func(name, from string) *Place {
		return d.enter(namedConn{name: name, from: from, closed: &closed})
	}
	enter("victim", "192.0.2.9:1")
	for i := range 8 {
		enter(fmt.Sprint("a", i), "192.0.2.1:1")
	}
	for i := range 5 {
		enter(fmt.Sprint("b", i), "192.0.2.2:1")
	}
	if fmt.Sprint(closed) != "[a0 a1]" {
		t.Errorf("turned out: %v", closed)
	}
	for i := range 20 { // a hog, and another one
		if g := enter("m", "192.0.2.3:1"); g != nil {
			_ = g.Login(ledger.Payer{Account: fmt.Sprint("u", i%3)})
		}
	}
	if n := d.callers.Used(); n != 12 {
		t.Errorf("%d places are those of callers", n)
	}
	admin := enter("admin", "192.0.2.4:1")
	if admin == nil || admin.Login(ledger.Payer{Account: "admin", Admin: true}) != nil {
		t.Error("the administrator has no place")
	}
	if n := d.count(); n > 16 {
		t.Errorf("%d connections", n)
	}
	admin.Close()
	admin.Close()
	if d.callers.Of(ledger.Payer{Account: "admin", Admin: true}) != 0 {
		t.Error("the place is not given back")
	}
}

// namedConn is a connection that notes its end.
type namedConn struct {
	net.Conn
	name, from string
	closed     *[]string
}

func (c namedConn) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(c.from))
}

func (c namedConn) Close() error {
	*c.closed = append(*c.closed, c.name)
	return nil
}

func TestDoorCountsNeighbours(t *testing.T) {
	for _, tc := range []struct{ a, b, same string }{
		{"2001:db8::1", "2001:db8::2", "yes"}, {"192.0.2.1", "::ffff:192.0.2.1", "yes"}, {"192.0.2.1", "192.0.2.2", "no"}, {"2001:db8::1", "2001:db8:0:1::1", "no"},
	} {
		if same := Neighbours(netip.MustParseAddr(tc.a)) == Neighbours(netip.MustParseAddr(tc.b)); same != (tc.same == "yes") {
			t.Errorf("%s and %s: %v", tc.a, tc.b, same)
		}
	}
}
