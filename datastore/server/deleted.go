package server

import (
	"context"
	"time"

	"holdfast/datastore"
	"holdfast/datastore/access"
	"holdfast/datastore/server/quota"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
)

// listDeleted lists what can be brought back to a namespace, or of it what was
// the caller's own.
func listDeleted(c *call) (any, error) {
	have, err := c.here()
	if err != nil {
		return nil, err
	}
	st, err := c.store()
	if err != nil {
		return nil, err
	}
	all, err := st.Deleted(c.Context())
	if err != nil {
		return nil, err
	}
	list := []api.DeletedItem{}
	for _, d := range all {
		g := d.Snapshot.Group
		if d.Damage != "" || g.NS != c.Namespace() || !have.Any(c.may.Any) && !c.auth.Owns(d.Owner) {
			continue
		}
		list = append(list, api.DeletedItem{
			Type: g.Type, ID: g.ID, Time: d.Snapshot.Time, Owner: d.Owner,
			Deleted: d.Time, Left: int64(d.Left / time.Second), Protected: d.Protected,
		})
	}
	return list, nil
}

// changeDeleted returns the datastore for a change of its trash. The owner of a
// group that is gone has no say: its name may be somebody else's by now.
func (c *call) changeDeleted() (*openStore, datastore.Guarded, error) {
	st, err := c.writable()
	if err != nil {
		return nil, datastore.Guarded{}, err
	}
	return st, c.guarded(st), nil
}

func restoreDeleted(c *call) (any, error) {
	_, changes, err := c.changeDeleted()
	if err != nil {
		return nil, err
	}
	return nil, changes.RestoreDeleted(c.Context(), c.Snapshot())
}

// destroyDeleted removes a snapshot for good, from the tree and from the trash.
func destroyDeleted(c *call) (any, error) {
	st, changes, err := c.changeDeleted()
	if err != nil {
		return nil, err
	}
	return nil, destroyer{changes, st, c.server}.ForgetNow(c.Context(), c.Snapshot())
}

// destroyer removes snapshots for good. What they have counted goes on counting until a
// collection has freed it: the disk has got nothing back yet.
type destroyer struct {
	datastore.Guarded
	store  *openStore
	server *Server
}

// ForgetNow removes a snapshot from its place and from the trash.
func (d destroyer) ForgetNow(ctx context.Context, snap wire.Snapshot) error {
	all, err := d.server.o.Access.Quotas()
	if err != nil {
		return err
	}
	var list []datastore.Usage
	if len(all) > 0 {
		if list, err = d.store.UsageOf(ctx, snap); err != nil {
			return err
		}
	}
	if err := d.Guarded.ForgetNow(ctx, snap); err != nil {
		return err
	}
	for _, u := range list {
		for _, q := range all {
			if quota.Applies(q.Subject, u.Owner, access.DatastorePath(d.store.conf.Name, snap.Group.NS)) {
				d.server.host.quotas.Removed(q.Subject, d.store.conf.Name, u.Bytes)
			}
		}
	}
	return nil
}
