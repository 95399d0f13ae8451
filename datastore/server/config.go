package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"holdfast/chunkstore"
	"holdfast/datastore"
	"holdfast/datastore/access"
	"holdfast/datastore/server/rest"
	"holdfast/datastore/task"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
)

func configOf(d access.Datastore) api.DatastoreConfig {
	return api.DatastoreConfig{Name: d.Name, Path: d.Path, Comment: d.Comment, Maintenance: d.Maintenance, VerifyNew: d.VerifyNew}
}

func listConfigured(c *call) (any, error) {
	all, err := c.server.o.Access.Datastores()
	if err != nil {
		return nil, err
	}
	list := []api.DatastoreConfig{}
	for _, d := range all {
		have, err := c.server.o.Access.Privileges(c.auth, access.DatastorePath(d.Name, ""))
		if err != nil {
			return nil, err
		}
		if have.Any(c.may.Any) {
			list = append(list, configOf(d))
		}
	}
	c.top("digest", c.server.o.Access.Digest())
	return list, nil
}

// configured returns the datastore that the call names.
func (c *call) configured() (access.Datastore, error) {
	d, err := c.server.o.Access.Datastore(c.Str("name"))
	return d, missing(err)
}

func getConfigured(c *call) (any, error) {
	d, err := c.configured()
	c.top("digest", c.server.o.Access.Digest())
	return configOf(d), err
}

// createDatastore makes a datastore, or takes up one that is there already.
func createDatastore(c *call) (any, error) {
	d := access.Datastore{Name: c.Str("name"), Path: c.Str("path"), Comment: c.Str("comment"), VerifyNew: c.Bool("verify-new", false)}
	if d.Path == "" {
		if c.server.o.DataDir == "" {
			return nil, rest.BadRequest("this server has no place for datastores: a path is needed")
		}
		d.Path = filepath.Join(c.server.o.DataDir, "datastores", d.Name)
	}
	switch _, err := c.server.o.Access.Datastore(d.Name); {
	case err == nil:
		return nil, rest.Refuse(wire.ErrExists, "datastore '%s' already exists.", d.Name)
	case !errors.Is(err, chunkstore.ErrNotExist):
		return nil, err
	}
	if err := c.server.o.Access.CheckNewDatastore(d); err != nil {
		return nil, rest.BadRequest("%v", err).Meaning(err)
	}
	reuse, s := c.Bool("reuse-datastore", false), c.server
	if reuse && c.Has(api.TrashDays) {
		return nil, rest.BadRequest("'%s' is for a new datastore: the one that is there has its own", api.TrashDays)
	}
	o := datastore.CreateOptions{TrashDays: int(c.Int(api.TrashDays, datastore.TrashDaysDefault))}
	upid, err := s.o.Tasks.Go(task.Spec{Type: "create-datastore", ID: d.Name, Auth: c.auth}, func(t *task.Task) error {
		if err := prepareStore(t, d.Path, reuse, o); err != nil {
			return err
		}
		if err := s.o.Access.AddDatastore(d); err != nil {
			return err
		}
		t.Logf("datastore '%s' is in %s", d.Name, d.Path)
		return nil
	})
	return upid.String(), err
}

// prepareStore makes the directory of a datastore, or looks that there is one.
func prepareStore(t *task.Task, path string, reuse bool, o datastore.CreateOptions) error {
	if !reuse {
		t.Logf("create %s", path)
		return datastore.Create(path, o)
	}
	st, err := datastore.Open(t.Context(), path, datastore.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	return st.Close()
}

func setConfigured(c *call) (any, error) {
	if _, err := c.configured(); err != nil {
		return nil, err
	}
	if err := c.digestMatches(); err != nil {
		return nil, err
	}
	return nil, missing(c.server.o.Access.ChangeDatastore(c.Str("name"), func(d *access.Datastore) {
		c.text("comment", &d.Comment)
		c.text("maintenance-mode", &d.Maintenance)
		for _, name := range c.Strs("delete") {
			d.VerifyNew = d.VerifyNew && name != "verify-new"
		}
		d.VerifyNew = c.Bool("verify-new", d.VerifyNew)
	}))
}

// removeDatastore takes a datastore off the list; with destroy-data a task
// removes its directory, too.
func removeDatastore(c *call) (any, error) {
	d, err := c.configured()
	if err != nil {
		return nil, err
	}
	if err := c.digestMatches(); err != nil {
		return nil, err
	}
	destroy, s := c.Bool("destroy-data", false), c.server
	if destroy {
		if err := s.nothingProtected(c.Context(), d); err != nil {
			return nil, err
		}
	}
	if err := s.unlist(d); err != nil {
		return nil, err
	}
	if !destroy {
		return nil, nil
	}
	upid, err := s.o.Tasks.Go(task.Spec{Type: "delete-datastore", ID: d.Name, Auth: c.auth}, func(t *task.Task) error {
		t.Logf("remove %s", d.Path)
		return os.RemoveAll(d.Path)
	})
	return upid.String(), err
}

// unlist takes a datastore off the list and closes it. One that is in use stays
// where it is.
func (s *Server) unlist(d access.Datastore) error {
	if err := s.o.Access.RemoveDatastore(d.Name); err != nil {
		return missing(err)
	}
	err := s.retire(d.Name)
	if errors.Is(err, wire.ErrBusy) {
		return errors.Join(err, s.o.Access.AddDatastore(d))
	}
	s.gc.forget(d.Name)
	return err
}

// nothingProtected refuses to destroy what somebody wanted kept.
func (s *Server) nothingProtected(ctx context.Context, d access.Datastore) error {
	st, err := datastore.Open(ctx, d.Path, datastore.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	defer st.Close()
	spaces, err := st.Namespaces(ctx, "")
	if err != nil {
		return err
	}
	for _, ns := range spaces {
		if err := unprotected(ctx, st, ns); err != nil {
			return fmt.Errorf("datastore '%s': %w", d.Name, err)
		}
	}
	return nil
}

func unprotected(ctx context.Context, st *datastore.Store, ns wire.Namespace) error {
	groups, err := st.Groups(ctx, ns)
	if err != nil {
		return err
	}
	for _, g := range groups {
		err := st.EachSnapshot(ctx, g.Group, func(s wire.SnapshotInfo) error {
			if s.Protected {
				return fmt.Errorf("snapshot %s of namespace '%s': %w", s.Snapshot, ns, wire.ErrProtected)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
