package server

import (
	"context"
	"errors"
	"slices"

	"holdfast/chunkstore"
	"holdfast/crypto"
	"holdfast/datastore"
	"holdfast/datastore/server/rest"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
)

// filesOf lists the files of a snapshot in the order of its manifest.
func filesOf(s wire.SnapshotInfo) []api.FileItem {
	list := []api.FileItem{}
	for _, f := range s.Files {
		list = append(list, api.FileItem{Name: f.Name, CryptMode: f.CryptMode, Size: &f.Size})
	}
	manifest := api.FileItem{Name: wire.ManifestName}
	if s.Damage == "" {
		manifest.CryptMode, manifest.Size = string(crypto.ModeNone), &s.ManifestSize
		if s.Signed {
			manifest.CryptMode = string(crypto.ModeSignOnly)
		}
	}
	list = append(list, manifest)
	for _, name := range s.Extra {
		if name != wire.ManifestName {
			list = append(list, api.FileItem{Name: name})
		}
	}
	return list
}

func itemOf(s wire.SnapshotInfo) api.SnapshotItem {
	item := api.SnapshotItem{
		Type: s.Snapshot.Group.Type, ID: s.Snapshot.Group.ID, Time: s.Snapshot.Time,
		Files: filesOf(s), Comment: rest.FirstLine(s.Notes), Verify: s.Verify, Fingerprint: s.Fingerprint,
		Owner: string(s.Owner), Protected: s.Protected, Arrived: s.Arrived, Misdated: s.Dated().Misdated(), Undated: s.Undated,
	}
	if s.Damage == "" {
		size := s.ManifestSize
		for _, f := range s.Files {
			size += f.Size
		}
		item.Size = &size
	}
	return item
}

func listSnapshots(c *call) (any, error) {
	st, groups, err := c.visibleSnapshots()
	if err != nil {
		return nil, err
	}
	return nil, c.streamList(func(add func(any) error) error {
		for _, g := range groups {
			if err := listGroup(c.Context(), st, g, add); err != nil {
				return err
			}
		}
		return nil
	})
}

// visibleSnapshots are the groups that a listing of snapshots is about. One that
// is named is not looked for among all others.
func (c *call) visibleSnapshots() (*openStore, []datastore.OwnedGroup, error) {
	if !c.Has("backup-type") || !c.Has("backup-id") {
		st, groups, err := c.visible()
		return st, slices.DeleteFunc(groups, func(g datastore.OwnedGroup) bool { return !c.wanted(g.Group) }), err
	}
	have, err := c.here()
	if err != nil {
		return nil, nil, err
	}
	st, err := c.store()
	if err != nil {
		return nil, nil, err
	}
	owner, err := st.Owner(c.Group())
	if errors.Is(err, chunkstore.ErrNotExist) {
		return st, nil, st.CheckNamespace(c.Namespace())
	}
	if err != nil {
		owner = "" // it is for Owner to tell
	}
	if !have.Any(c.may.Any) && !c.auth.Owns(owner) {
		return st, nil, nil
	}
	return st, []datastore.OwnedGroup{{Group: c.Group(), Owner: owner}}, nil
}

// listGroup lists what a group has, and without a size what is being written to
// it (section 4.3 of the protocol specification).
func listGroup(ctx context.Context, st *openStore, g datastore.OwnedGroup, add func(any) error) error {
	running, writes := st.Unfinished(g.Group)
	for s, err := range st.SnapshotsOf(ctx, g) {
		if err == nil {
			err = add(itemOf(s))
		}
		if err != nil {
			return err
		}
		writes = writes && s.Snapshot != running // it was finished a moment ago
	}
	if !writes {
		return nil
	}
	return add(api.SnapshotItem{Type: g.Group.Type, ID: g.Group.ID, Time: running.Time, Files: []api.FileItem{}, Owner: string(g.Owner)})
}

func deleteSnapshot(c *call) (any, error) {
	st, err := c.changeGroup()
	if err != nil {
		return nil, err
	}
	err = st.Forget(c.Context(), c.Snapshot())
	if errors.Is(err, wire.ErrProtected) {
		return nil, rest.Refuse(wire.ErrProtected, "cannot remove protected snapshot")
	}
	return nil, err
}

func listFiles(c *call) (any, error) {
	st, err := c.forGroup()
	if err != nil {
		return nil, err
	}
	s, err := st.Snapshot(c.Context(), c.Snapshot())
	if err != nil {
		return nil, err
	}
	if s.Damage != "" {
		return nil, rest.Refuse(chunkstore.ErrCorrupt, "manifest of %s: %s", c.Snapshot(), s.Damage)
	}
	return filesOf(s), nil
}

func getNotes(c *call) (any, error) {
	st, err := c.forGroup()
	if err != nil {
		return nil, err
	}
	return st.Notes(c.Context(), c.Snapshot())
}

func setNotes(c *call) (any, error) {
	st, err := c.changeGroup()
	if err != nil {
		return nil, err
	}
	return nil, st.SetNotes(c.Context(), c.Snapshot(), c.Str("notes"))
}

func getProtected(c *call) (any, error) {
	st, err := c.forGroup()
	if err != nil {
		return nil, err
	}
	s, err := st.Snapshot(c.Context(), c.Snapshot())
	if errors.Is(err, chunkstore.ErrNotExist) {
		return false, nil // section 4.3 of the protocol specification
	}
	return s.Protected, err
}

func setProtected(c *call) (any, error) {
	st, err := c.changeGroup()
	if err != nil {
		return nil, err
	}
	return nil, st.SetProtected(c.Context(), c.Snapshot(), c.Bool("protected", false))
}
