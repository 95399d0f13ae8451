package server

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"holdfast/chunkstore"
	"holdfast/crypto"
	"holdfast/datastore"
	"holdfast/datastore/server/rest"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
)

func snapshotMethods() []method {
	const base = "/admin/datastore/{store}"
	list := []api.Param{api.StoreParam, api.NSParam, api.Opt(api.TypeParam), api.Opt(api.IDParam)}
	return []method{
		{Verb: http.MethodGet, Path: base + "/snapshots", Params: list, Do: listSnapshots},
		{Verb: http.MethodDelete, Path: base + "/snapshots", Params: api.SnapshotParams(), Do: deleteSnapshot},
		{Verb: http.MethodGet, Path: base + "/files", Params: api.SnapshotParams(), Do: listFiles},
		{Verb: http.MethodGet, Path: base + "/notes", Params: api.SnapshotParams(), Do: getNotes},
		{Verb: http.MethodPut, Path: base + "/notes", Do: setNotes,
			Params: api.SnapshotParams(api.Param{Name: "notes", Check: api.CheckNotes})},
		{Verb: http.MethodGet, Path: base + "/protected", Params: api.SnapshotParams(), Do: getProtected},
		{Verb: http.MethodPut, Path: base + "/protected", Do: setProtected,
			Params: api.SnapshotParams(api.Param{Name: "protected", Kind: api.Boolean})},
	}
}

// fileItem is a file in the listing of a snapshot.
type fileItem struct {
	Name      string  `json:"filename"`
	CryptMode string  `json:"crypt-mode,omitempty"`
	Size      *uint64 `json:"size,omitempty"`
}

// snapshotItem is a snapshot in a listing.
type snapshotItem struct {
	Type        string            `json:"backup-type"`
	ID          string            `json:"backup-id"`
	Time        int64             `json:"backup-time"`
	Files       []fileItem        `json:"files"`
	Size        *uint64           `json:"size,omitempty"`
	Comment     string            `json:"comment,omitempty"`
	Verify      *wire.VerifyState `json:"verification,omitempty"`
	Fingerprint string            `json:"fingerprint,omitempty"`
	Owner       string            `json:"owner,omitempty"`
	Protected   bool              `json:"protected"`
	// These are not in the protocol; other clients leave them alone.
	Arrived  int64 `json:"arrived,omitempty"`
	Misdated bool  `json:"misdated,omitempty"`
	Undated  bool  `json:"undated,omitempty"`
}

// filesOf lists the files of a snapshot in the order of its manifest.
func filesOf(s wire.SnapshotInfo) []fileItem {
	list := []fileItem{}
	for _, f := range s.Files {
		list = append(list, fileItem{Name: f.Name, CryptMode: f.CryptMode, Size: &f.Size})
	}
	manifest := fileItem{Name: wire.ManifestName}
	if s.Damage == "" {
		manifest.CryptMode, manifest.Size = string(crypto.ModeNone), &s.ManifestSize
		if s.Signed {
			manifest.CryptMode = string(crypto.ModeSignOnly)
		}
	}
	list = append(list, manifest)
	for _, name := range s.Extra {
		if name != wire.ManifestName {
			list = append(list, fileItem{Name: name})
		}
	}
	return list
}

func itemOf(s wire.SnapshotInfo) snapshotItem {
	item := snapshotItem{
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
	have, err := c.namespacePrivileges(listsAll, listsOwn)
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
	if !have.Any(listsAll) && !c.auth.Owns(owner) {
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
	return add(snapshotItem{Type: g.Group.Type, ID: g.Group.ID, Time: running.Time, Files: []fileItem{}, Owner: string(g.Owner)})
}

func deleteSnapshot(c *call) (any, error) {
	st, err := c.changeGroup(api.DatastoreModify, api.DatastorePrune)
	if err != nil {
		return nil, err
	}
	err = st.Forget(c.Context(), c.Snapshot())
	if errors.Is(err, wire.ErrProtected) {
		return nil, rest.BadRequest("cannot remove protected snapshot")
	}
	return nil, err
}

func listFiles(c *call) (any, error) {
	st, err := c.forGroup(api.DatastoreAudit|api.DatastoreRead, api.DatastoreBackup)
	if err != nil {
		return nil, err
	}
	s, err := st.Snapshot(c.Context(), c.Snapshot())
	if err != nil {
		return nil, err
	}
	if s.Damage != "" {
		return nil, rest.BadRequest("manifest of %s: %s", c.Snapshot(), s.Damage)
	}
	return filesOf(s), nil
}

func getNotes(c *call) (any, error) {
	st, err := c.forGroup(api.DatastoreAudit, api.DatastoreBackup)
	if err != nil {
		return nil, err
	}
	return st.Notes(c.Context(), c.Snapshot())
}

func setNotes(c *call) (any, error) {
	st, err := c.changeGroup(api.DatastoreModify, api.DatastoreBackup)
	if err != nil {
		return nil, err
	}
	return nil, st.SetNotes(c.Context(), c.Snapshot(), c.Str("notes"))
}

func getProtected(c *call) (any, error) {
	st, err := c.forGroup(api.DatastoreAudit, api.DatastoreBackup)
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
	st, err := c.changeGroup(api.DatastoreModify, api.DatastoreBackup)
	if err != nil {
		return nil, err
	}
	return nil, st.SetProtected(c.Context(), c.Snapshot(), c.Bool("protected", false))
}
