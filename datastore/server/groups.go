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

func describeGroup(ctx context.Context, st *openStore, g datastore.OwnedGroup) (api.GroupItem, error) {
	info, err := st.Group(ctx, g)
	if err != nil {
		return api.GroupItem{}, err
	}
	files, err := st.Files(wire.Snapshot{Group: g.Group, Time: info.LastTime})
	if errors.Is(err, chunkstore.ErrNotExist) {
		files, err = info.LastFiles, nil // gone meanwhile
	}
	return api.GroupItem{
		Type: g.Group.Type, ID: g.Group.ID, Last: info.LastTime, Count: info.Count, Files: append([]string{}, files...),
		Owner: string(info.Owner), Comment: rest.FirstLine(info.Comment),
	}, err
}

func deleteGroup(c *call) (any, error) {
	st, err := c.changeGroup()
	if err != nil {
		return nil, err
	}
	r, err := st.ForgetGroup(c.Context(), c.Group())
	if err != nil {
		return nil, err
	}
	if r.Protected > 0 && c.Bool("error-on-protected", true) {
		return nil, rest.Refuse(wire.ErrProtected, "group only partially deleted due to protected snapshots")
	}
	return api.Removed{Groups: r.Groups, Protected: r.Protected, Snapshots: r.Snapshots}, nil
}

// changeGroup is forGroup for methods that write: what it returns asks again inside the
// lock of the change.
func (c *call) changeGroup() (datastore.Guarded, error) {
	if _, err := c.forGroup(); err != nil {
		return datastore.Guarded{}, err
	}
	st, err := c.writable()
	if err != nil {
		return datastore.Guarded{}, err
	}
	return c.guarded(st), nil
}

func changeOwner(c *call) (any, error) {
	may := c.grantOn(c.Namespace())
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
	refusal := &rest.StatusError{
		Code: http.StatusUnauthorized, Delay: c.server.o.Limits.LoginDelay,
		Text: fmt.Sprintf("%s does not have permission to change owner of backup group '%s' from %s to %s", c.auth, c.Group(), from, target),
	}
	return refusal.Meaning(wire.ErrPermission)
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
		return rest.Refuse(chunkstore.ErrNotExist, "user '%s' does not exist or is inactive", id)
	}
	return err
}

func expired(at int64, s *Server) bool { return at > 0 && at <= s.o.Now().Unix() }

func getGroupNotes(c *call) (any, error) {
	st, err := c.forGroup()
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
	st, err := c.changeGroup()
	if err != nil {
		return nil, err
	}
	return nil, st.SetGroupNotes(c.Context(), c.Group(), c.Str("notes"))
}
