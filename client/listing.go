package client

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"net/url"
	"slices"
	"strings"

	"holdfast/chunkstore"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
)

// Namespaces implements wire.Source.
func (c *Client) Namespaces(ctx context.Context, parent wire.Namespace) ([]wire.Namespace, error) {
	if _, err := wire.ParseNamespace(string(parent)); err != nil {
		return nil, err
	}
	params := url.Values{}
	if parent != "" {
		params.Set("parent", string(parent))
	}
	var entries []api.NamespaceItem
	if err := c.doInStore(ctx, Call{Op: api.ListNamespaces, Params: params, Into: &entries}); err != nil {
		return nil, fmt.Errorf("list namespaces: %w", err)
	}
	list := []wire.Namespace{parent}
	for _, e := range entries {
		ns, err := wire.ParseNamespace(e.NS)
		if err != nil {
			c.log("list namespaces: %v", err)
			continue
		}
		list = append(list, ns)
	}
	slices.Sort(list)
	return slices.Compact(list), nil
}

// groupEntry is an element of section 4.2 of the protocol specification.
type groupEntry api.GroupItem

// Groups implements wire.Source. A Proxmox Backup Server counts snapshots that
// are not finished as well.
func (c *Client) Groups(ctx context.Context, ns wire.Namespace) ([]wire.GroupInfo, error) {
	if _, err := wire.ParseNamespace(string(ns)); err != nil {
		return nil, err
	}
	var list []wire.GroupInfo
	take := func(e groupEntry) {
		info, err := e.info(ns)
		if err != nil {
			c.log("list groups: %v", err)
		} else if e.finished() {
			list = append(list, info)
		}
	}
	err := elements(ctx, c, api.ListGroups, nsParams(ns), func() func(groupEntry) { list = nil; return take })
	if err != nil {
		return nil, fmt.Errorf("list groups: %w", err)
	}
	slices.SortFunc(list, func(a, b wire.GroupInfo) int { return a.Group.Compare(b.Group) })
	return list, nil
}

// finished tells whether any snapshot of the group is: the files are those of
// the newest finished one if there is one.
func (e groupEntry) finished() bool {
	return e.Count > 0 && slices.Contains(e.Files, wire.ManifestName)
}

func (e groupEntry) info(ns wire.Namespace) (wire.GroupInfo, error) {
	g := wire.Group{NS: ns, Type: e.Type, ID: e.ID}
	if err := g.Validate(); err != nil {
		return wire.GroupInfo{}, err
	}
	info := wire.GroupInfo{Group: g, Count: e.Count, LastTime: e.Last, Owner: ownerOf(e.Owner), Comment: firstLine(e.Comment)}
	for _, name := range e.Files {
		if _, err := wire.CheckFileName(name); err == nil && name != wire.ManifestName {
			info.LastFiles = append(info.LastFiles, name)
		}
	}
	slices.Sort(info.LastFiles)
	return info, nil
}

// ownerOf reads an owner, "" if it is none.
func ownerOf(s string) wire.AuthID {
	id, err := wire.ParseAuthID(s)
	if err != nil {
		return ""
	}
	return id
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return printable(line)
}

// snapshotEntry is an element of section 4.3 of the protocol specification.
type snapshotEntry api.SnapshotItem

// Snapshots implements wire.Source. The notes of the listing are the first
// line only.
func (c *Client) Snapshots(ctx context.Context, g wire.Group) ([]wire.SnapshotInfo, error) {
	if err := g.Validate(); err != nil {
		return nil, err
	}
	if _, err := wire.ParseNamespace(string(g.NS)); err != nil {
		return nil, err
	}
	list, err := c.snapshots(ctx, g.NS, groupParams(g), func(e snapshotEntry) bool { return e.Type == g.Type && e.ID == g.ID })
	if err != nil {
		return nil, fmt.Errorf("list snapshots of %s: %w", g, err)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("backup group %s: %w", g, chunkstore.ErrNotExist)
	}
	return list, nil
}

// AllSnapshots implements wire.Source: it is one call. The notes of the listing
// are the first line only.
func (c *Client) AllSnapshots(ctx context.Context, ns wire.Namespace) iter.Seq2[wire.SnapshotInfo, error] {
	return func(yield func(wire.SnapshotInfo, error) bool) {
		list, err := c.allSnapshots(ctx, ns)
		if err != nil {
			yield(wire.SnapshotInfo{}, fmt.Errorf("list snapshots: %w", err))
			return
		}
		for _, info := range list {
			if !yield(info, nil) {
				return
			}
		}
	}
}

func (c *Client) allSnapshots(ctx context.Context, ns wire.Namespace) ([]wire.SnapshotInfo, error) {
	if _, err := wire.ParseNamespace(string(ns)); err != nil {
		return nil, err
	}
	return c.snapshots(ctx, ns, nsParams(ns), func(snapshotEntry) bool { return true })
}

func nsParams(ns wire.Namespace) url.Values {
	params := url.Values{}
	if ns != "" {
		params.Set("ns", string(ns))
	}
	return params
}

// snapshots lists the finished snapshots that are wanted, sorted: a server may
// send them in any order.
func (c *Client) snapshots(ctx context.Context, ns wire.Namespace, params url.Values, wanted func(snapshotEntry) bool) ([]wire.SnapshotInfo, error) {
	var list []wire.SnapshotInfo
	take := func(e snapshotEntry) {
		if !wanted(e) || !e.finished() {
			return
		}
		info, err := e.info(wire.Group{NS: ns, Type: e.Type, ID: e.ID})
		if err != nil {
			c.log("list snapshots: %v", err)
			return
		}
		list = append(list, info)
	}
	err := elements(ctx, c, api.ListSnapshots, params, func() func(snapshotEntry) { list = nil; return take })
	if err != nil {
		return nil, err
	}
	slices.SortFunc(list, func(a, b wire.SnapshotInfo) int {
		return cmp.Or(a.Snapshot.Group.Compare(b.Snapshot.Group), a.Dated().Compare(b.Dated()))
	})
	return list, nil
}

// snapshotEntries asks for the snapshots of a group, finished or not.
func (c *Client) snapshotEntries(ctx context.Context, g wire.Group) (entries []snapshotEntry, err error) {
	if err := c.doInStore(ctx, Call{Op: api.ListSnapshots, Params: groupParams(g), Into: &entries}); err != nil {
		return nil, fmt.Errorf("list snapshots of %s: %w", g, err)
	}
	return entries, nil
}

// finished tells whether the snapshot has a manifest. Without one there is no
// size, but there is none either if the manifest cannot be read.
func (e snapshotEntry) finished() bool {
	return e.Size != nil || slices.ContainsFunc(e.Files, func(f api.FileItem) bool { return f.Name == wire.ManifestName })
}

func (e snapshotEntry) info(g wire.Group) (wire.SnapshotInfo, error) {
	info := wire.SnapshotInfo{
		Snapshot: wire.Snapshot{Group: g, Time: e.Time}, Protected: e.Protected, Notes: firstLine(e.Comment),
		Fingerprint: printable(e.Fingerprint), Owner: ownerOf(e.Owner), Verify: e.Verify,
		Arrived: wire.CheckArrived(e.Arrived), Undated: e.Undated,
	}
	if err := info.Snapshot.Validate(); err != nil {
		return info, err
	}
	if v := info.Verify; v != nil && v.State != wire.VerifyOK && v.State != wire.VerifyFailed {
		info.Verify = nil
	}
	if e.Size == nil {
		info.Damage = "the server cannot read the manifest"
	}
	for _, f := range e.Files {
		if _, err := wire.CheckFileName(f.Name); err != nil {
			return info, err
		}
		addFile(&info, f)
	}
	return info, nil
}

// addFile enters a file where it belongs: the manifest, what the manifest names
// (it has a size), and the rest.
func addFile(info *wire.SnapshotInfo, f api.FileItem) {
	switch {
	case f.Name == wire.ManifestName:
		info.Signed = f.CryptMode == "sign-only"
		if f.Size != nil {
			info.ManifestSize = *f.Size
		}
	case f.Size == nil:
		info.Extra = append(info.Extra, f.Name)
	default:
		info.Files = append(info.Files, wire.FileInfo{Name: f.Name, CryptMode: printable(f.CryptMode), Size: *f.Size})
		info.Size += *f.Size
	}
}
