package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"holdfast/datastore/access"
	"holdfast/datastore/server/front"
	"holdfast/datastore/server/ledger"
	"holdfast/datastore/server/rest"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
)

// identityKey is the key of an identity in a context.
type identityKey struct{}

// WithIdentity returns a context whose requests come from id, without any
// credentials. It is for callers in process and for the unix socket, whose file
// mode settles who may use it.
func WithIdentity(ctx context.Context, id wire.AuthID) context.Context {
	return context.WithValue(ctx, identityKey{}, id)
}

// identify finds out who calls and stores it in the call. local is true for an
// identity from WithIdentity. m may be nil.
func (s *Server) identify(c *call, m *method) (local bool, err error) {
	if id, ok := c.Context().Value(identityKey{}).(wire.AuthID); ok {
		c.auth, c.pass, c.payer = id, access.LocalPass(id), ledger.Payer{Account: string(id), Admin: true}
		return true, nil
	}
	if m != nil && m.May.Who == api.Anybody {
		return false, nil
	}
	if c.pass, err = s.o.Access.Authenticate(credentials(c.Request)); err != nil {
		return false, s.loginRefused(c.Request, err)
	}
	c.auth = c.pass.ID
	front.Trust(c.Request, s.o.Limits)
	if c.payer, err = s.payer(c.auth); err != nil {
		return false, err
	}
	if g := front.PlaceOf(c.Context()); g != nil {
		if err = g.Login(c.payer); err == nil {
			c.Header().Del("Connection") // it is overdue no more
		}
	}
	return false, err
}

// still refuses a caller whose credential is not good any more. A name alone does not
// tell: the token or user of that name may be another by now.
func (c *call) still() error {
	if c.auth == "" {
		return nil // a public method
	}
	if err := c.server.o.Access.Holds(c.pass); err != nil {
		return c.server.loginRefused(c.Request, err)
	}
	return nil
}

// payer is who pays for what a user or token takes. Who may change the server is
// an administrator.
func (s *Server) payer(id wire.AuthID) (ledger.Payer, error) {
	have, err := s.o.Access.Privileges(id, "/")
	if err != nil {
		return ledger.Payer{}, err
	}
	return ledger.Payer{Account: string(id), Holder: string(id.User()), Admin: have.Has(api.SysModify)}, nil
}

// credentials collects what a request says about its caller.
func credentials(r *http.Request) access.Credentials {
	return access.Credentials{
		Method:        r.Method,
		Authorization: r.Header.Get("Authorization"),
		CSRF:          r.Header.Get("CSRFPreventionToken"),
		Cookies:       r.Header.Values("Cookie"),
		From:          from(r),
	}
}

// from is the address of the caller; not valid if there is none.
func from(r *http.Request) netip.Addr {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap()
}

// throttledError is a refusal for too many failures, with the time to wait.
type throttledError struct {
	*rest.StatusError
	wait time.Duration
}

func (e *throttledError) Unwrap() error { return e.StatusError }

// loginRefused turns an error of a login into its answer. What was wrong is
// for the log of the server only.
func (s *Server) loginRefused(r *http.Request, err error) error {
	var throttled access.ErrThrottled
	refusal := &rest.StatusError{Code: http.StatusUnauthorized, Text: "authentication failed", Delay: s.o.Limits.LoginDelay}
	switch {
	case errors.As(err, &throttled):
		s.metrics.Refused("throttled")
		refusal.Delay = 0
		return &throttledError{StatusError: refusal, wait: throttled.Wait}
	case errors.Is(err, wire.ErrUnauthenticated), errors.Is(err, wire.ErrName):
		s.metrics.Refused("login")
		s.o.Log.Warn("authentication failed", "from", r.RemoteAddr, "error", err)
		return refusal
	case r.Context().Err() != nil:
		// Nobody is at fault here: who asked has stopped sending, or gone.
		return &rest.StatusError{Code: http.StatusRequestTimeout, Text: "the connection was closed before the credentials had their turn"}
	}
	return err
}

// retryAfter is the header of that name, "" for none.
func retryAfter(err error) string {
	var t *throttledError
	if !errors.As(err, &t) || t.wait <= 0 {
		return ""
	}
	return strconv.Itoa(int((t.wait + time.Second - 1) / time.Second))
}

// holdBack waits before a refusal is answered, so that guessing is slow. It
// returns false, at once, if too many answers wait already.
func (s *Server) holdBack(ctx context.Context, delay time.Duration) bool {
	if delay <= 0 {
		return true
	}
	select {
	case s.delays <- struct{}{}:
	default:
		s.metrics.Refused("undelayed")
		return false
	}
	defer func() { <-s.delays }()
	t := time.NewTimer(delay)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	case <-s.ctx.Done():
	}
	return true
}

// permit is where the row of a method is held against the rights of the caller. What
// depends on whose a thing is, the method finds out and asks granted or seesAll.
func (c *call) permit(m api.May) error {
	c.may = m
	switch m.Who {
	case api.Anybody, api.LoggedIn, api.Asks, api.Lists, api.Session:
		return nil
	case api.Local:
		if c.auth == wire.RootUser {
			return nil
		}
	case api.Granted:
		return c.granted()
	case api.InNamespace:
		_, err := c.privilegesIn(m.Namespace(c.Str), m.Any, m.Own)
		return err
	case api.Self:
		if c.auth == c.user() {
			return nil
		}
		return c.granted()
	}
	return c.denied()
}

// granted refuses a caller that has none of the privileges that the row names.
func (c *call) granted() error { return c.require(c.may.Place(c.Str), c.may.Any) }

// seesAll tells whether the caller has one of the privileges that the row names.
func (c *call) seesAll() (bool, error) {
	have, err := c.server.o.Access.Privileges(c.auth, c.may.Place(c.Str))
	return have.Any(c.may.Any), err
}

// require refuses a caller that has none of the privileges on a path.
func (c *call) require(path string, list ...api.Privilege) error {
	have, err := c.server.o.Access.Privileges(c.auth, path)
	if err != nil {
		return err
	}
	if !have.Any(api.Of(list...)) {
		return c.denied()
	}
	return nil
}

// denied is the refusal of a method as such.
func (c *call) denied() error {
	return &rest.StatusError{Code: http.StatusForbidden, Text: "permission check failed", Delay: c.server.o.Limits.DenyDelay}
}

// here returns what the caller may do in the namespace that the parameters name, or
// refuses one that has none of the privileges of the row.
func (c *call) here() (api.Privilege, error) {
	return c.privilegesIn(c.Namespace(), c.may.Any, c.may.Own)
}

// privilegesIn returns what the caller may do in a namespace, or refuses one that has none
// of the privileges.
func (c *call) privilegesIn(ns wire.Namespace, list ...api.Privilege) (api.Privilege, error) {
	path := access.DatastorePath(c.Str("store"), ns)
	have, err := c.server.o.Access.Privileges(c.auth, path)
	if err != nil {
		return 0, err
	}
	want := api.Of(list...)
	if !have.Any(want) {
		return 0, &rest.StatusError{
			Code: http.StatusForbidden,
			Text: fmt.Sprintf("permission check failed - missing %s on %s", strings.Join(want.Names(), "|"), path),
		}
	}
	return have, nil
}

// forGroup lets pass who has, of the privileges of the row, one for all groups, or one for
// its own and owns the group: "A or B+owner" of section 7.4 of the protocol
// specification.
func (c *call) forGroup() (*openStore, error) {
	have, err := c.here()
	if err != nil {
		return nil, err
	}
	st, err := c.store()
	if err != nil {
		return nil, err
	}
	if have.Any(c.may.Any) {
		return st, nil
	}
	return st, c.owned(st, c.Group())
}

// owned refuses a caller that is not the owner of a group.
func (c *call) owned(st *openStore, g wire.Group) error {
	owner, err := st.Owner(g)
	if err != nil {
		return err
	}
	if !c.auth.Owns(owner) {
		return c.server.notOwner(c.auth, owner, access.DatastorePath(c.Str("store"), g.NS))
	}
	return nil
}

// notOwner refuses a caller that is not the owner of a group of a namespace. Who that is
// he is told if he may list it, or if it is his own user.
func (s *Server) notOwner(caller, owner wire.AuthID, path string) error {
	name, err := s.ownerFor(caller, owner, path)
	switch {
	case err != nil:
		return err
	case name == "":
		return rest.Refuse(wire.ErrOwner, "backup owner check failed (%s is not the owner)", caller)
	}
	return rest.Refuse(wire.ErrOwner, "backup owner check failed (%s != %s)", caller, name)
}

// ownerFor is the owner of a group of a namespace, or "" for a caller who is not to know.
func (s *Server) ownerFor(caller, owner wire.AuthID, path string) (wire.AuthID, error) {
	have, err := s.o.Access.Privileges(caller, path)
	if err != nil || !have.Any(api.DatastoreAudit) && caller.User() != owner.User() {
		return "", err
	}
	return owner, nil
}
