package server

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"holdfast/datastore"
	"holdfast/datastore/access"
	"holdfast/datastore/server/rest"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
)

// grant is what a caller may do with the groups of a namespace: everything with one of
// full, and with one of owned what is its own. It is asked anew where something is
// done, in the middle of a task too.
type grant struct {
	server      *Server
	pass        access.Pass
	path        string // of the namespace, as for ACLs
	full, owned api.Privilege
}

// grantOn is what the caller may do in a namespace of its datastore, by the row of the
// method.
func (c *call) grantOn(ns wire.Namespace) grant {
	return grant{server: c.server, pass: c.pass, path: access.DatastorePath(c.Str("store"), ns), full: c.may.Any, owned: c.may.Own}
}

// may implements datastore.Guard.
func (g grant) may(owner func() (wire.AuthID, error)) error {
	all, err := g.everything()
	if err != nil || all {
		return err
	}
	id, err := owner()
	if err != nil {
		return err
	}
	if !g.pass.ID.Owns(id) {
		return g.server.notOwner(g.pass.ID, id, g.path)
	}
	return nil
}

// everything tells whether the caller may do it with the groups of others too, or
// refuses.
func (g grant) everything() (bool, error) {
	if err := g.server.o.Access.Holds(g.pass); err != nil {
		return false, err
	}
	have, err := g.server.o.Access.Privileges(g.pass.ID, g.path)
	if err != nil {
		return false, err
	}
	if want := g.full | g.owned; !have.Any(want) {
		return false, &rest.StatusError{
			Code: http.StatusForbidden,
			Text: fmt.Sprintf("permission check failed - missing %s on %s", strings.Join(want.Names(), "|"), g.path),
		}
	}
	return have.Any(g.full), nil
}

// ask is may for what changes nothing itself.
func (g grant) ask(st *openStore, group wire.Group) error {
	return g.may(func() (wire.AuthID, error) { return st.OwnerNow(group) })
}

// over tells whether a task ends with what a grant has said, and does not go on with
// the next group: the credential that it was begun with is gone.
func over(err error) bool { return errors.Is(err, wire.ErrUnauthenticated) }

// guarded is the datastore of the call for changes that the caller may make.
func (c *call) guarded(st *openStore) datastore.Guarded {
	return st.Guarded(c.grantOn(c.Namespace()).may)
}
