package access

import (
	"errors"
	"testing"
	"time"

	"holdfast/datastore/wire"
)

// A pass is bound to the credential and not to its name: whatever is done to the
// credential ends it for good, unless that is undone before the next question.
func TestPassesEndWithTheirCredential(t *testing.T) {
	const user, token = wire.AuthID("alice@pbs"), wire.AuthID("alice@pbs!nightly")
	enabled := func(on bool) func(*User) error {
		return func(u *User) error { u.Enabled = on; return nil }
	}
	type lab struct {
		*Store
		clock  *clock
		ticket Ticket
	}
	for _, tc := range []struct {
		name          string
		do            func(l lab) error
		token, ticket bool // hold on
	}{
		{"nothing", func(lab) error { return nil }, true, true},
		{"something else is changed", func(l lab) error { return l.CreateUser(User{ID: "bob@pbs", Enabled: true}, "") }, true, true},
		{"days go by", func(l lab) error { l.clock.add(72 * time.Hour); return nil }, true, true},
		{"the secret is made anew", func(l lab) error { _, err := l.RegenerateToken(token); return err }, false, true},
		{"the token is revoked", func(l lab) error { return l.RevokeToken(token) }, false, true},
		{"the token is revoked and made again", func(l lab) error {
			err := l.RevokeToken(token)
			_, again := l.CreateToken(Token{ID: token, Enabled: true})
			return errors.Join(err, again)
		}, false, true},
		{"the token is disabled", func(l lab) error { return l.SetToken(Token{ID: token}) }, false, true},
		{"the password is changed", func(l lab) error { return l.SetPassword(user, "another secret") }, true, false},
		{"the user is disabled", func(l lab) error { return l.ChangeUser(user, enabled(false)) }, false, false},
		{"the user is disabled and enabled", func(l lab) error {
			return errors.Join(l.ChangeUser(user, enabled(false)), l.ChangeUser(user, enabled(true)))
		}, true, false},
		{"the user expires", func(l lab) error {
			return l.ChangeUser(user, func(u *User) error { u.Expire = l.clock.now().Unix(); return nil })
		}, false, false},
		{"the user is removed and made again", func(l lab) error {
			return errors.Join(l.RemoveUser(user), l.CreateUser(User{ID: user, Enabled: true}, "a secret"))
		}, false, false},
		{"the user logs out", func(l lab) error { return l.Logout(withTicket(l.ticket)) }, true, false},
		{"the user logs out of a renewed ticket", func(l lab) error {
			k, err := l.Login(t.Context(), user, l.ticket.Ticket, home)
			return errors.Join(err, l.Logout(withTicket(k)))
		}, true, false},
		{"the user logs out of another ticket", func(l lab) error {
			k, err := l.Login(t.Context(), user, "a secret", home)
			return errors.Join(err, l.Logout(withTicket(k)))
		}, true, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, c := open(t)
			must(t, s.CreateUser(User{ID: user, Enabled: true}, "a secret"))
			secret, err := s.CreateToken(Token{ID: token, Enabled: true})
			must(t, err)
			ticket, err := s.Login(t.Context(), user, "a secret", home)
			must(t, err)
			byToken, err := s.Authenticate(withToken(token, secret))
			must(t, err)
			byTicket, err := s.Authenticate(withTicket(ticket))
			must(t, err)
			before := s.Changed()
			must(t, tc.do(lab{s, c, ticket}))
			for what, p := range map[string]struct {
				pass  Pass
				holds bool
			}{"token": {byToken, tc.token}, "ticket": {byTicket, tc.ticket}, "local": {LocalPass(user), true}, "none": {Pass{ID: user}, false}} {
				if err := s.Holds(p.pass); (err == nil) != p.holds || err != nil && !errors.Is(err, wire.ErrUnauthenticated) {
					t.Errorf("%s: %v, want it to hold: %v", what, err, p.holds)
				}
			}
			select {
			case <-before:
			default:
				if !tc.token || !tc.ticket {
					t.Error("nobody was told of the change")
				}
			}
		})
	}
}
