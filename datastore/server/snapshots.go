package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"holdfast/chunkstore"
	"holdfast/crypto"
	"holdfast/datastore/access"
	"holdfast/datastore/wire"
)

func snapshotMethods() []method {
	const base = "/admin/datastore/{store}"
	list := []param{storeParam, nsParam, opt(typeParam), opt(idParam)}
	return []method{
		{verb: http.MethodGet, path: base + "/snapshots", params: list, do: listSnapshots},
		{verb: http.MethodDelete, path: base + "/snapshots", params: snapshotParams(), do: deleteSnapshot},
		{verb: http.MethodGet, path: base + "/files", params: snapshotParams(), do: listFiles},
		{verb: http.MethodGet, path: base + "/notes", params: snapshotParams(), do: getNotes},
		{verb: http.MethodPut, path: base + "/notes", do: setNotes,
			params: snapshotParams(param{name: "notes", check: checkNotes})},
		{verb: http.MethodGet, path: base + "/protected", params: snapshotParams(), do: getProtected},
		{verb: http.MethodPut, path: base + "/protected", do: setProtected,
			params: snapshotParams(param{name: "protected", kind: boolean})},
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
		Files: filesOf(s), Comment: firstLine(s.Notes), Verify: s.Verify, Fingerprint: s.Fingerprint,
		Owner: string(s.Owner), Protected: s.Protected,
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
	st, groups, err := c.listedGroups()
	if err != nil {
		return nil, err
	}
	list := []snapshotItem{}
	for _, g := range groups {
		if c.has("backup-type") && g.Group.Type != c.str("backup-type") || c.has("backup-id") && g.Group.ID != c.str("backup-id") {
			continue
		}
		snaps, err := st.Snapshots(c.Context(), g.Group)
		if err != nil && !errors.Is(err, chunkstore.ErrNotExist) { // it may have gone a moment ago
			return nil, err
		}
		for _, s := range snaps {
			list = append(list, itemOf(s))
		}
	}
	return list, nil
}

// find returns a snapshot as listings have it.
func find(ctx context.Context, st *openStore, snap wire.Snapshot) (wire.SnapshotInfo, error) {
	list, err := st.Snapshots(ctx, snap.Group)
	if err != nil {
		return wire.SnapshotInfo{}, err
	}
	i := slices.IndexFunc(list, func(s wire.SnapshotInfo) bool { return s.Snapshot == snap })
	if i < 0 {
		return wire.SnapshotInfo{}, fmt.Errorf("snapshot %s: %w", snap, chunkstore.ErrNotExist)
	}
	return list[i], nil
}

func deleteSnapshot(c *call) (any, error) {
	st, err := c.changeGroup(access.DatastoreModify, access.DatastorePrune)
	if err != nil {
		return nil, err
	}
	err = st.Forget(c.Context(), c.snapshot())
	if errors.Is(err, wire.ErrProtected) {
		return nil, badRequest("cannot remove protected snapshot")
	}
	return nil, err
}

func listFiles(c *call) (any, error) {
	st, err := c.forGroup(access.DatastoreAudit|access.DatastoreRead, access.DatastoreBackup)
	if err != nil {
		return nil, err
	}
	s, err := find(c.Context(), st, c.snapshot())
	if err != nil {
		return nil, err
	}
	if s.Damage != "" {
		return nil, badRequest("manifest of %s: %s", c.snapshot(), s.Damage)
	}
	return filesOf(s), nil
}

func getNotes(c *call) (any, error) {
	st, err := c.forGroup(access.DatastoreAudit, access.DatastoreBackup)
	if err != nil {
		return nil, err
	}
	return st.Notes(c.Context(), c.snapshot())
}

func setNotes(c *call) (any, error) {
	st, err := c.changeGroup(access.DatastoreModify, access.DatastoreBackup)
	if err != nil {
		return nil, err
	}
	return nil, st.SetNotes(c.Context(), c.snapshot(), c.str("notes"))
}

func getProtected(c *call) (any, error) {
	st, err := c.forGroup(access.DatastoreAudit, access.DatastoreBackup)
	if err != nil {
		return nil, err
	}
	s, err := find(c.Context(), st, c.snapshot())
	return s.Protected, err
}

func setProtected(c *call) (any, error) {
	st, err := c.changeGroup(access.DatastoreModify, access.DatastoreBackup)
	if err != nil {
		return nil, err
	}
	return nil, st.SetProtected(c.Context(), c.snapshot(), c.bool("protected", false))
}
