package server

import (
	"strings"

	"holdfast/datastore/access"
	"holdfast/datastore/server/ledger"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
)

func listACLs(c *call) (any, error) {
	everybody, err := c.seesAll()
	if err != nil {
		return nil, err
	}
	all, err := c.server.o.Access.ACLs()
	if err != nil {
		return nil, err
	}
	list := []api.ACLItem{}
	for _, a := range all {
		if !everybody && !c.ownToken(a.ID) || !c.wantsPath(a.Path) {
			continue
		}
		list = append(list, api.ACLItem{Path: a.Path, ID: a.ID, Type: "user", Propagate: a.Propagate, Role: a.Role})
	}
	c.top("digest", c.server.o.Access.Digest())
	return list, nil
}

// ownToken reports whether id is a token of the calling user.
func (c *call) ownToken(id wire.AuthID) bool { return id != c.auth && c.auth.Owns(id) }

// wantsPath applies the filter of the listing: the path itself, and what lies
// below it unless exact.
func (c *call) wantsPath(path string) bool {
	want := strings.TrimRight(c.Str("path"), "/")
	if !c.Has("path") || path == want || path == "/" && want == "" {
		return true
	}
	return !c.Bool("exact", false) && strings.HasPrefix(path, want+"/")
}

func setACL(c *call) (any, error) {
	a := access.ACL{
		Path: c.Str("path"), Role: c.Str("role"), ID: wire.AuthID(c.Str("auth-id")), Propagate: c.Bool("propagate", true),
	}
	if !c.ownToken(a.ID) {
		if err := c.granted(); err != nil {
			return nil, err
		}
	}
	if err := c.digestMatches(); err != nil {
		return nil, err
	}
	if c.Bool("delete", false) {
		return nil, missing(c.server.o.Access.RemoveACL(a))
	}
	return nil, c.ownRow("access rules", c.server.ownRules, func() error { return c.server.o.Access.SetACL(a) })
}

// Rows of the configuration that users may make for themselves: so many each, and so
// many of a table that administrators have room left.
const (
	ownRowsMax = 100
	allRowsMax = 7500
)

// ownRow adds a row to a table whose rows count counts, all of them and those of a user.
// A caller who may not change the rights of others may have a few.
func (c *call) ownRow(table string, count func(wire.AuthID) (all, own int, err error), add func() error) error {
	have, err := c.server.o.Access.Privileges(c.auth, "/access")
	if err != nil {
		return err
	}
	if have.Has(api.PermissionsModify) {
		return add()
	}
	c.server.rows.Lock()
	defer c.server.rows.Unlock()
	all, own, err := count(c.auth.User())
	if err == nil && own >= ownRowsMax {
		err = &ledger.Refusal{Resource: table, Own: true}
	}
	if err == nil && all >= allRowsMax {
		err = &ledger.Refusal{Resource: table}
	}
	if err != nil {
		return err
	}
	return add()
}

// ownRules counts the access rules, and those of a user's tokens.
func (s *Server) ownRules(user wire.AuthID) (all, own int, err error) {
	list, err := s.o.Access.ACLs()
	for _, a := range list {
		if a.ID.User() == user {
			own++
		}
	}
	return len(list), own, err
}

// ownTokens counts the tokens of a user. Those of all users are bounded by the number of
// users.
func (s *Server) ownTokens(user wire.AuthID) (all, own int, err error) {
	list, err := s.o.Access.Tokens(user)
	return len(list), len(list), err
}

func listRoles(*call) (any, error) {
	list := []api.RoleItem{}
	for _, r := range api.Roles() {
		list = append(list, api.RoleItem{Name: r.Name, Privileges: r.Privileges.Names(), Comment: r.Comment})
	}
	return list, nil
}

func permissions(c *call) (any, error) {
	id := c.auth
	if c.Has("auth-id") {
		id = wire.AuthID(c.Str("auth-id"))
	}
	if !c.auth.Owns(id) {
		if err := c.granted(); err != nil {
			return nil, err
		}
	}
	all, err := c.server.o.Access.Permissions(id, c.Str("path"))
	return api.Permissions(all), missing(err)
}

// ticketInfo is a ticket without what makes it worth something.
func ticketInfo(ticket string) string {
	info, _, _ := strings.Cut(ticket, "::")
	return info + "::ticketinfo"
}
