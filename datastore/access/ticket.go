package access

import (
	"crypto/hmac"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"holdfast/datastore/wire"
)

// Ticket is the answer to a login (section 1.7 of the protocol specification).
type Ticket struct {
	User   wire.AuthID
	Ticket string
	// CSRF goes with every request that is not a GET.
	CSRF string
}

const (
	ticketPrefix = "PBS"
	ticketMax    = 512 // bytes of a ticket's text
	// A ticket is good while its age in seconds is within these; it can be
	// negative when two clocks disagree.
	ageMin = -300
	ageMax = 7200
	// lineMax is how long, in seconds, tickets can be had for tickets after one
	// was had for a password.
	lineMax = 24 * 3600
	// timeLen is the length of an issue time: eight upper-case hex digits.
	timeLen = 8
)

// ticket is the text of a Ticket taken apart. Nothing about it is proven.
type ticket struct {
	user   wire.AuthID
	issued int64  // Unix seconds
	text   string // what was signed: everything left of "::"
	line   line
	sum    []byte
}

// line is what the tickets have in common that descend from one login.
type line struct {
	began int64 // Unix seconds
	id    [lineLen]byte
}

// Lengths of what is right of "::", in bytes: when the line began, which one it
// is, and the sum.
const (
	beganLen = 4
	lineLen  = 12
	sumLen   = 32
)

func (l line) bytes() []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(l.began)), l.id[:]...)
}

// parseLine reads the hex digits of what bytes returns.
func parseLine(s string) (line, error) {
	raw, err := hex.DecodeString(s)
	if err != nil || len(raw) != beganLen+lineLen {
		return line{}, errTicket
	}
	return line{began: int64(binary.BigEndian.Uint32(raw)), id: [lineLen]byte(raw[beganLen:])}, nil
}

var errTicket = errors.New("not in the form of a ticket")

// parseTicket reads PBS:USER:TIME8::SIGNATURE. Only the one form that is ever
// handed out is accepted. Its errors do not repeat any of it.
func parseTicket(s string) (ticket, error) {
	if len(s) > ticketMax {
		return ticket{}, errTicket
	}
	text, sig, ok := strings.Cut(s, "::")
	f := strings.Split(text, ":")
	if !ok || len(f) != 3 || f[0] != ticketPrefix {
		return ticket{}, errTicket
	}
	name, err := url.PathUnescape(f[1])
	if err != nil || encodeUser(name) != f[1] {
		return ticket{}, errTicket
	}
	user, err := wire.ParseAuthID(name)
	if _, isToken := user.Token(); err != nil || isToken {
		return ticket{}, errTicket
	}
	issued, err := parseTime8(f[2])
	if err != nil {
		return ticket{}, errTicket
	}
	raw, err := base64.RawStdEncoding.Strict().DecodeString(sig)
	if err != nil || len(raw) != beganLen+lineLen+sumLen || strings.ContainsAny(sig, "\r\n") {
		return ticket{}, errTicket
	}
	l := line{began: int64(binary.BigEndian.Uint32(raw)), id: [lineLen]byte(raw[beganLen:])}
	return ticket{user: user, issued: issued, text: text, line: l, sum: raw[beganLen+lineLen:]}, nil
}

// encodeUser percent-encodes what a user's name in a ticket cannot hold.
func encodeUser(name string) string {
	var b strings.Builder
	for _, c := range []byte(name) {
		if c < ' ' || c == 0x7f || c == ':' || c == '%' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// parseTime8 reads eight upper-case hex digits.
func parseTime8(s string) (int64, error) {
	if len(s) != timeLen || strings.Trim(s, "0123456789ABCDEF") != "" {
		return 0, errTicket
	}
	return strconv.ParseInt(s, 16, 64)
}

func time8(t int64) string { return fmt.Sprintf("%08X", uint32(t)) }

// issue makes a ticket of a line for a user.
func (c *config) issue(user wire.AuthID, now int64, l line) Ticket {
	text := ticketPrefix + ":" + encodeUser(string(user)) + ":" + time8(now)
	return Ticket{
		User:   user,
		Ticket: text + "::" + base64.RawStdEncoding.EncodeToString(append(l.bytes(), c.sign(user, text, l)...)),
		CSRF:   time8(now) + ":" + c.csrf(user, time8(now)),
	}
}

// sign makes the sum of a ticket. The generation of the user goes into
// it, so that a new one makes the tickets of before worthless.
func (c *config) sign(user wire.AuthID, text string, l line) []byte {
	return mac(c.ticketKey, text+":"+hex.EncodeToString(l.bytes())+":"+c.users[user].Generation)
}

// csrf makes the second half of a CSRF token.
func (c *config) csrf(user wire.AuthID, issued string) string {
	return base64.RawStdEncoding.EncodeToString(mac(c.guardKey, issued+":"+string(user)+":"+c.users[user].Generation))
}

// genuine tells whether a ticket was handed out by this server to a user who
// still exists, and not before the last change of the password.
func (c *config) genuine(t ticket) bool {
	same := hmac.Equal(t.sum, c.sign(t.user, t.text, t.line))
	_, exists := c.users[t.user]
	return same && exists
}

// lasts tells whether the tickets of a line are still good, and may be renewed.
func (l line) lasts(now int64) bool { return now-l.began <= lineMax }

// fresh tells whether something issued then is good now.
func fresh(issued, now int64) bool { return now-issued >= ageMin && now-issued <= ageMax }

// guards tells whether a CSRF token belongs to a user and is fresh.
func (c *config) guards(token string, user wire.AuthID, now int64) bool {
	issued, sum, ok := strings.Cut(token, ":")
	if !ok || len(token) > ticketMax {
		return false
	}
	t, err := parseTime8(issued)
	same := hmac.Equal([]byte(sum), []byte(c.csrf(user, issued)))
	return err == nil && same && fresh(t, now)
}
