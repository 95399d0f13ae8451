package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"holdfast/chunkstore"
	"holdfast/datastore"
	"holdfast/datastore/access"
	"holdfast/datastore/server/rest"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
)

func groupMethods() []method {
	const base = "/admin/datastore/{store}"
	return []method{
		{Verb: http.MethodGet, Path: base + "/groups", Params: []api.Param{api.StoreParam, api.NSParam}, Do: listGroups},
		{Verb: http.MethodDelete, Path: base + "/groups", Do: deleteGroup,
			Params: api.GroupParams(api.Param{Name: "error-on-protected", Kind: api.Boolean, Optional: true})},
		{Verb: http.MethodPost, Path: base + "/change-owner", Do: changeOwner,
			Params: api.GroupParams(api.Param{Name: "new-owner", Check: api.CheckAuthID})},
		{Verb: http.MethodGet, Path: base + "/group-notes", Params: api.GroupParams(), Do: getGroupNotes},
		{Verb: http.MethodPut, Path: base + "/group-notes", Do: setGroupNotes,
			Params: api.GroupParams(api.Param{Name: "notes", Check: api.CheckNotes})},
	}
}

// groupItem is a group in a listing.
type groupItem struct {
	Type    string   `json:"backup-type"`
	ID      string   `json:"backup-id"`
	Last    int64    `json:"last-backup"`
	Count   int      `json:"backup-count"`
	Files   []string `json:"files"`
	Owner   string   `json:"owner,omitempty"`
	Comment string   `json:"comment,omitempty"`
}

// Who may list: with the first, everything; with the second, what is its own.
const (
	listsAll = api.DatastoreAudit
	listsOwn = api.DatastoreBackup | api.DatastorePut
)

func listGroups(c *call) (any, error) {
	st, groups, err := c.visible()
	if err != nil {
		return nil, err
	}
	return nil, c.streamList(func(add func(any) error) error {
		for _, each := range groups {
			item, err := describeGroup(c.Context(), st, each)
			if errors.Is(err, chunkstore.ErrNotExist) {
				continue // it has no snapshot
			}
			if err == nil {
				err = add(item)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func describeGroup(ctx context.Context, st *openStore, g datastore.OwnedGroup) (groupItem, error) {
	info, err := st.Group(ctx, g)
	if err != nil {
		return groupItem{}, err
	}
	files, err := st.Files(wire.Snapshot{Group: g.Group, Time: info.LastTime})
	if errors.Is(err, chunkstore.ErrNotExist) {
		files, err = info.LastFiles, nil // gone meanwhile
	}
	return groupItem{
		Type: g.Group.Type, ID: g.Group.ID, Last: info.LastTime, Count: info.Count, Files: append([]string{}, files...),
		Owner: string(info.Owner), Comment: rest.FirstLine(info.Comment),
	}, err
}

// removedAnswer tells what a removal has done.
type removedAnswer struct {
	Groups    int `json:"removed-groups"`
	Protected int `json:"protected-snapshots"`
	Snapshots int `json:"removed-snapshots"`
}

func deleteGroup(c *call) (any, error) {
	st, err := c.changeGroup(api.DatastoreModify, api.DatastorePrune)
	if err != nil {
		return nil, err
	}
	r, err := st.ForgetGroup(c.Context(), c.Group())
	if err != nil {
		return nil, err
	}
	if r.Protected > 0 && c.Bool("error-on-protected", true) {
		return nil, rest.BadRequest("group only partially deleted due to protected snapshots")
	}
	return removedAnswer{Groups: r.Groups, Protected: r.Protected, Snapshots: r.Snapshots}, nil
}

// changeGroup is forGroup for methods that write: what it returns asks again inside the
// lock of the change.
func (c *call) changeGroup(full, owned api.Privilege) (datastore.Guarded, error) {
	if _, err := c.forGroup(full, owned); err != nil {
		return datastore.Guarded{}, err
	}
	st, err := c.writable()
	if err != nil {
		return datastore.Guarded{}, err
	}
	return c.guarded(st, full, owned), nil
}

func changeOwner(c *call) (any, error) {
	may := c.grantOn(c.Namespace(), api.DatastoreModify, api.DatastoreBackup)
	if _, err := may.everything(); err != nil {
		return nil, err
	}
	st, err := c.writable()
	if err != nil {
		return nil, err
	}
	target := wire.AuthID(c.Str("new-owner"))
	guard := func(owner func() (wire.AuthID, error)) error {
		all, err := may.everything()
		if err == nil && !all {
			err = c.mayHandOver(owner, target)
		}
		if err != nil {
			return err
		}
		return c.server.active(target)
	}
	return nil, st.Guarded(guard).SetOwner(c.Context(), c.Group(), target)
}

// mayHandOver lets a user move groups between itself and its own tokens.
func (c *call) mayHandOver(now func() (wire.AuthID, error), target wire.AuthID) error {
	owner, err := now()
	if err != nil {
		return err
	}
	_, isToken := c.auth.Token()
	if !isToken && c.auth.Owns(owner) && c.auth.Owns(target) && owner != target {
		return nil
	}
	from, err := c.server.ownerFor(c.auth, owner, access.DatastorePath(c.Str("store"), c.Namespace()))
	if err != nil {
		return err
	}
	if from == "" {
		from = "its owner"
	}
	return &rest.StatusError{
		Code: http.StatusUnauthorized, Delay: c.server.o.Limits.LoginDelay,
		Text: fmt.Sprintf("%s does not have permission to change owner of backup group '%s' from %s to %s", c.auth, c.Group(), from, target),
	}
}

// active refuses an owner that does not exist or cannot log in.
func (s *Server) active(id wire.AuthID) error {
	u, err := s.o.Access.User(id.User())
	ok := u.Enabled && !expired(u.Expire, s)
	if _, isToken := id.Token(); err == nil && isToken {
		var t access.Token
		t, err = s.o.Access.Token(id)
		ok = ok && t.Enabled && !expired(t.Expire, s)
	}
	if errors.Is(err, chunkstore.ErrNotExist) || err == nil && !ok {
		return rest.BadRequest("user '%s' does not exist or is inactive", id)
	}
	return err
}

func expired(at int64, s *Server) bool { return at > 0 && at <= s.o.Now().Unix() }

func getGroupNotes(c *call) (any, error) {
	st, err := c.forGroup(listsAll, api.DatastoreBackup)
	if err != nil {
		return nil, err
	}
	notes, err := st.GroupNotes(c.Group())
	if errors.Is(err, chunkstore.ErrNotExist) {
		return "", nil // as on Proxmox Backup Server
	}
	return notes, err
}

func setGroupNotes(c *call) (any, error) {
	st, err := c.changeGroup(api.DatastoreModify, api.DatastoreBackup)
	if err != nil {
		return nil, err
	}
	return nil, st.SetGroupNotes(c.Context(), c.Group(), c.Str("notes"))
}
