package access

import (
	"cmp"
	"fmt"
	"iter"
	"slices"
	"strings"

	"holdfast/datastore/wire"

	"holdfast/datastore/wire/api"
)

// ACL grants a role to a user or token on a path, and on everything below it
// if it propagates. Roles found deeper replace those found higher up
// (section 7.2 of the protocol specification).
type ACL struct {
	Path      string      `json:"path"`
	Role      string      `json:"role"`
	ID        wire.AuthID `json:"auth-id"`
	Propagate bool        `json:"propagate"`
}

func (a ACL) key() aclKey    { return aclKey{a.Path, a.ID, a.Role} }
func (a ACL) rowKey() string { return a.Path + "\x00" + string(a.ID) + "\x00" + a.Role }

// Limits of a path: a namespace on a remote is the deepest there is.
const (
	pathDepthMax = 3 + wire.NamespaceDepthMax
	pathLenMax   = 512
)

// pathRoots are the names that a path may begin with.
var pathRoots = []string{"access", "datastore", "openid", "remote", "system", "tape"}

// parsePath checks the path of an ACL and returns its one canonical form:
// "/", or a slash before each name and none at the end. "" is the root.
func parsePath(s string) (string, error) {
	bad := func(why string) error { return fmt.Errorf("ACL path %.80q: %s: %w", s, why, wire.ErrName) }
	if len(s) > pathLenMax {
		return "", bad(fmt.Sprintf("longer than %d bytes", pathLenMax))
	}
	names := strings.FieldsFunc(s, func(r rune) bool { return r == '/' })
	switch {
	case len(names) == 0:
		return "/", nil
	case s[0] != '/':
		return "", bad(`want a "/" in front`)
	case len(names) > pathDepthMax:
		return "", bad(fmt.Sprintf("deeper than %d levels", pathDepthMax))
	case !slices.Contains(pathRoots, names[0]):
		return "", bad("want one of /" + strings.Join(pathRoots, ", /"))
	}
	for _, n := range names {
		if err := wire.CheckSafeID("ACL path", n); err != nil {
			return "", err
		}
	}
	return "/" + strings.Join(names, "/"), nil
}

// DatastorePath returns the ACL path of a namespace of a datastore, such as
// "/datastore/tank/a/b".
func DatastorePath(store string, ns wire.Namespace) string {
	if ns == "" {
		return "/datastore/" + store
	}
	return "/datastore/" + store + "/" + string(ns)
}

// nodes yields a canonical path from the root down, itself last.
func nodes(path string) iter.Seq[string] {
	return func(yield func(string) bool) {
		if !yield("/") || path == "/" {
			return
		}
		for i := 1; i < len(path); i++ {
			if path[i] == '/' && !yield(path[:i]) {
				return
			}
		}
		yield(path)
	}
}

// grant is what one user or token was given at one node: here what counts on
// the node itself, below what the nodes under it inherit unless nothing given
// here propagates.
type grant struct {
	here, below api.Privilege
	propagates  bool
}

// grantsOf turns a list of ACLs round, so that a check looks only at the
// entries of the one who asks.
func grantsOf(acls map[aclKey]bool) map[wire.AuthID]map[string]grant {
	type node struct {
		id   wire.AuthID
		path string
	}
	noneHere, noneBelow := map[node]bool{}, map[node]bool{}
	all := map[wire.AuthID]map[string]grant{}
	for k, propagate := range acls {
		if all[k.id] == nil {
			all[k.id] = map[string]grant{}
		}
		n, g := node{k.id, k.path}, all[k.id][k.path]
		role, _ := api.ParseRole(k.role) // check has refused unknown ones
		g.here |= role.Privileges.Effective()
		if k.role == api.RoleNoAccess {
			noneHere[n] = true
		}
		if propagate {
			g.propagates = true
			g.below |= role.Privileges.Effective()
			noneBelow[n] = noneBelow[n] || k.role == api.RoleNoAccess
		}
		if noneHere[n] {
			g.here = 0
		}
		if noneBelow[n] {
			g.below = 0
		}
		all[k.id][k.path] = g
	}
	return all
}

// granted walks from the root to a canonical path. here is what id was given
// there, below what the nodes under it inherit.
func (c *config) granted(id wire.AuthID, path string) (here, below api.Privilege) {
	if id == wire.RootUser {
		return api.AllPrivileges, api.AllPrivileges
	}
	given := c.grants[id]
	if len(given) == 0 {
		return 0, 0
	}
	for n := range nodes(path) {
		here = below
		g, ok := given[n]
		if !ok {
			continue
		}
		here = g.here
		if g.propagates {
			below = g.below
		}
	}
	return here, below
}

// effective is granted for one who is active, cut down for a token to what
// its user may do.
func (c *config) effective(id wire.AuthID, path string, now int64) (here, below api.Privilege) {
	if !c.active(id, now) {
		return 0, 0
	}
	here, below = c.granted(id, path)
	if user := id.User(); user != id {
		h, b := c.granted(user, path)
		here, below = here&h, below&b
	}
	return here, below
}

// Privileges returns what a user or token may do on a path at this moment:
// nothing if it, or its user, is unknown, disabled or expired. A path outside
// the grammar wraps wire.ErrName.
func (s *Store) Privileges(id wire.AuthID, path string) (api.Privilege, error) {
	p, err := parsePath(path)
	if err != nil {
		return 0, err
	}
	here, _ := s.config.Load().effective(id, p, s.now().Unix())
	return here, nil
}

// PrivilegesBelow returns the union of what a user or token may do on a path
// and anywhere below it.
func (s *Store) PrivilegesBelow(id wire.AuthID, path string) (api.Privilege, error) {
	p, err := parsePath(path)
	if err != nil {
		return 0, err
	}
	c, now := s.config.Load(), s.now().Unix()
	here, below := c.effective(id, p, now)
	sum := here | below
	prefix := strings.TrimSuffix(p, "/") + "/"
	for _, n := range c.grantPaths(id) {
		if strings.HasPrefix(n, prefix) {
			here, below = c.effective(id, n, now)
			sum |= here | below
		}
	}
	return sum, nil
}

// grantPaths are the paths where the rights of id change: its own ACLs and,
// for a token, those of its user. A path may come twice.
func (c *config) grantPaths(id wire.AuthID) []string {
	var paths []string
	for p := range c.grants[id] {
		paths = append(paths, p)
	}
	if user := id.User(); user != id {
		for p := range c.grants[user] {
			paths = append(paths, p)
		}
	}
	return paths
}

// commonPaths are listed by Permissions besides those that ACLs name.
var commonPaths = []string{
	"/", "/access", "/access/acl", "/access/users", "/datastore", "/remote", "/system", "/system/status", "/system/tasks",
}

// Permissions lists what a user or token may do: by path, the names of the
// privileges, and whether each holds for what lies below as well. With path
// "" it lists all paths where there is something to tell. Paths without any
// privilege are left out. An unknown user or token is chunkstore.ErrNotExist.
func (s *Store) Permissions(id wire.AuthID, path string) (map[string]map[string]bool, error) {
	c, now := s.config.Load(), s.now().Unix()
	if !c.exists(id) {
		return nil, notExist("user or token", id)
	}
	paths := []string{path}
	if path == "" {
		paths = append(c.grantPaths(id), commonPaths...)
		for name := range c.stores {
			paths = append(paths, DatastorePath(name, ""))
		}
	}
	all := map[string]map[string]bool{}
	for _, p := range paths {
		p, err := parsePath(p)
		if err != nil {
			return nil, err
		}
		here, below := c.effective(id, p, now)
		if here == 0 {
			continue
		}
		all[p] = map[string]bool{}
		for _, name := range here.Names() {
			all[p][name] = slices.Contains(below.Names(), name)
		}
	}
	return all, nil
}

// aclList returns the ACLs sorted by path, user and role, never nil.
func (c *config) aclList() []ACL {
	l := make([]ACL, 0, len(c.acls))
	for k, propagate := range c.acls {
		l = append(l, ACL{Path: k.path, Role: k.role, ID: k.id, Propagate: propagate})
	}
	slices.SortFunc(l, func(a, b ACL) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.ID, b.ID), cmp.Compare(a.Role, b.Role))
	})
	return l
}

// ACLs returns all entries, sorted by path, user and role. The caller owns the
// slice.
func (s *Store) ACLs() ([]ACL, error) { return s.config.Load().aclList(), nil }

// SetACL adds an entry, or changes whether it propagates. The path is brought
// into its canonical form. The user or token must exist.
func (s *Store) SetACL(a ACL) error {
	p, err := parsePath(a.Path)
	if err != nil {
		return err
	}
	a.Path = p
	return s.update(func(c *config) error {
		c.acls[a.key()] = a.Propagate
		return nil
	})
}

// RemoveACL removes the entry with the path, role and user or token of a.
func (s *Store) RemoveACL(a ACL) error {
	p, err := parsePath(a.Path)
	if err != nil {
		return err
	}
	a.Path = p
	return s.update(func(c *config) error {
		if _, ok := c.acls[a.key()]; !ok {
			return notExist("ACL on "+a.Path+" for", a.ID)
		}
		delete(c.acls, a.key())
		return nil
	})
}
