package access

import (
	"crypto/subtle"
	"fmt"
	"time"

	"holdfast/datastore/wire"
)

// Pass is a credential that was accepted, and not the name alone: a token whose
// secret was made anew, and a user whose password was, has the same name and
// another pass. The zero value is nobody's. It holds nothing to log in with.
type Pass struct {
	ID wire.AuthID

	kind passKind
	// proof is the sum of a token's secret, or the generation of a user.
	proof string
	line  line // of a ticket
}

type passKind int

const (
	noPass passKind = iota
	localPass
	tokenPass
	ticketPass
)

// LocalPass is for who needs no credential, since the machine vouches for him. It
// holds for ever.
func LocalPass(id wire.AuthID) Pass { return Pass{ID: id, kind: localPass} }

// Local tells whether the pass is one of LocalPass.
func (p Pass) Local() bool { return p.kind == localPass }

// LoggedIn tells when the password was given that a ticket descends from; ok is false
// for anything but a ticket.
func (p Pass) LoggedIn() (at time.Time, ok bool) {
	return time.Unix(p.line.began, 0), p.kind == ticketPass
}

// Holds returns wire.ErrUnauthenticated once a pass would not be given for the same
// credential any more: the token or user was removed, disabled or has expired, the
// secret or the password was changed, or the user has logged out. A ticket itself need
// not be fresh any more: what was begun with it may take days.
func (s *Store) Holds(p Pass) error {
	if p.kind == localPass {
		return nil
	}
	if s.config.Load().holds(p, s.now().Unix()) && !(p.kind == ticketPass && s.ended.has(p.line)) {
		return nil
	}
	return fmt.Errorf("the credential of %s is not good any more: %w", p.ID, wire.ErrUnauthenticated)
}

func (c *config) holds(p Pass, now int64) bool {
	if !c.active(p.ID, now) {
		return false
	}
	switch p.kind {
	case tokenPass:
		return subtle.ConstantTimeCompare([]byte(c.tokens[p.ID].Secret), []byte(p.proof)) == 1
	case ticketPass:
		same := subtle.ConstantTimeCompare([]byte(c.users[p.ID].Generation), []byte(p.proof)) == 1
		return same && !c.hasEnded(ticket{user: p.ID, line: p.line})
	}
	return false
}

// Changed returns what is closed with the next change, so that whoever has asked may
// ask again.
func (s *Store) Changed() <-chan struct{} { return s.config.Load().replaced }
