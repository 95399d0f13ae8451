package server

import (
	"errors"
	"path"

	"holdfast/chunkstore"
	"holdfast/datastore"
	"holdfast/datastore/access"
	"holdfast/datastore/server/rest"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
)

// depthOf counts the levels of a namespace.
func depthOf(ns wire.Namespace) int { return len(ns.Components()) }

// subtree lists a namespace and those below it, as deep as max-depth says.
func (c *call) subtree(st *openStore, parent wire.Namespace) ([]wire.Namespace, error) {
	all, err := st.Namespaces(c.Context(), parent)
	if err != nil {
		return nil, err
	}
	most := depthOf(parent) + int(c.Int("max-depth", wire.NamespaceDepthMax))
	var list []wire.Namespace
	for _, ns := range all {
		if depthOf(ns) <= most {
			list = append(list, ns)
		}
	}
	return list, nil
}

func listNamespaces(c *call) (any, error) {
	v, err := c.sight(c.Str("store"))
	if err != nil {
		return nil, err
	}
	if !v.some {
		return nil, c.denied()
	}
	st, err := c.store()
	if err != nil {
		return nil, err
	}
	list := []api.NamespaceItem{}
	all, err := c.subtree(st, wire.Namespace(c.Str("parent")))
	if errors.Is(err, chunkstore.ErrNotExist) {
		all, err = nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, ns := range all {
		have, err := c.server.o.Access.Privileges(c.auth, access.DatastorePath(c.Str("store"), ns))
		if err != nil {
			return nil, err
		}
		if have.Any(api.SeesBelow) {
			list = append(list, api.NamespaceItem{NS: string(ns)})
		}
	}
	return list, nil
}

func createNamespace(c *call) (any, error) {
	parent := wire.Namespace(c.Str("parent"))
	if depthOf(parent) >= wire.NamespaceDepthMax {
		return nil, rest.BadRequest("namespace too deep, at most %d levels", wire.NamespaceDepthMax)
	}
	ns, err := wire.ParseNamespace(path.Join(string(parent), c.Str("name")))
	if err != nil {
		return nil, err
	}
	st, err := c.writable()
	if err != nil {
		return nil, err
	}
	return string(ns), st.CreateNamespace(c.Context(), ns)
}

func deleteNamespace(c *call) (any, error) {
	ns := c.Namespace()
	if ns == "" {
		return nil, rest.BadRequest("cannot remove root namespace")
	}
	st, err := c.writable()
	if err != nil {
		return nil, err
	}
	groups := c.Bool("delete-groups", false)
	if err := st.CheckNamespace(ns); errors.Is(err, chunkstore.ErrNotExist) && !groups {
		return api.Removed{}, nil // section 4.7 of the protocol specification
	}
	r, err := st.RemoveNamespace(c.Context(), ns, datastore.RemoveOptions{Groups: groups})
	if err != nil {
		return nil, err
	}
	if r.Protected > 0 && c.Bool("error-on-protected", true) {
		return nil, rest.Refuse(wire.ErrProtected, "namespace only partially deleted due to protected snapshots")
	}
	return api.Removed{Groups: r.Groups, Protected: r.Protected, Snapshots: r.Snapshots}, nil
}
