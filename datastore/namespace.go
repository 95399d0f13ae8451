package datastore

import (
	"context"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"holdfast/chunkstore"
	"holdfast/chunkstore/durable"
	"holdfast/datastore/wire"
)

// groupTypes are the directories of a namespace that hold groups, sorted.
var groupTypes = []string{"ct", "host", "vm"}

// checkNamespace returns chunkstore.ErrNotExist if there is no such namespace.
func (s *Store) checkNamespace(ns wire.Namespace) error {
	if st, err := s.root.Stat(namespacePath(ns)); err != nil || !st.IsDir() {
		return fmt.Errorf("namespace %q: %w", ns, chunkstore.ErrNotExist)
	}
	return nil
}

// CreateNamespace makes a namespace below one that is there; a parent that is
// missing is chunkstore.ErrNotExist. One that exists already is no error.
func (s *Store) CreateNamespace(ctx context.Context, ns wire.Namespace) error {
	if _, err := wire.ParseNamespace(string(ns)); err != nil {
		return err
	}
	if _, err := s.writable(ctx); err != nil {
		return err
	}
	s.tree.Lock()
	defer s.tree.Unlock()
	parent := ""
	if i := strings.LastIndexByte(string(ns), '/'); i >= 0 {
		parent = string(ns[:i])
	}
	if err := s.checkNamespace(wire.Namespace(parent)); err != nil {
		return err
	}
	if err := durable.MkdirAll(filepath.Join(s.path, namespacePath(ns)), 0o700); err != nil {
		return fmt.Errorf("create namespace %q: %w", ns, noSpace(err))
	}
	return nil
}

// RemoveOptions say what may go with a namespace.
type RemoveOptions struct {
	// Groups removes the backup groups in it as well.
	Groups bool
}

// RemoveNamespace removes a namespace and those below it. Without
// RemoveOptions.Groups they must hold no snapshots, or the error wraps
// chunkstore.ErrInvalid and nothing is removed. With it, protected snapshots
// stay, and the namespaces that hold them; that is no error. What is being read
// or written to stays too; that is wire.ErrBusy. What it returns has been done,
// with an error as well. The root cannot be removed.
func (s *Store) RemoveNamespace(ctx context.Context, ns wire.Namespace, o RemoveOptions) (r Removed, err error) {
	if ns == "" {
		return r, fmt.Errorf("the root namespace cannot be removed: %w", chunkstore.ErrInvalid)
	}
	if _, err := s.writable(ctx); err != nil {
		return r, err
	}
	s.tree.Lock()
	defer s.tree.Unlock()
	all, err := s.Namespaces(ctx, ns)
	if err != nil {
		return r, err
	}
	if !o.Groups {
		if err := s.checkEmpty(ctx, all); err != nil {
			return r, err
		}
	}
	slices.Reverse(all) // parents come after their children
	var errs []error
	for _, each := range all {
		more, err := s.removeNamespace(ctx, each)
		r.add(more)
		errs = append(errs, err)
	}
	err = errors.Join(errs...)
	if err == nil && r.Protected == 0 && s.checkNamespace(ns) == nil {
		err = fmt.Errorf("namespace %q holds files that are not part of the store: %w", ns, chunkstore.ErrInvalid)
	}
	return r, err
}

// checkEmpty returns an error that names a group, if there is one with a
// snapshot.
func (s *Store) checkEmpty(ctx context.Context, all []wire.Namespace) error {
	for _, ns := range all {
		groups, err := s.Groups(ctx, ns)
		if err != nil {
			return err
		}
		if len(groups) > 0 {
			return fmt.Errorf("namespace %q is not empty, it holds backup group %s: %w", ns, groups[0].Group, chunkstore.ErrInvalid)
		}
	}
	return nil
}

// removeNamespace removes the groups of one namespace and, if nothing is left,
// its directory.
func (s *Store) removeNamespace(ctx context.Context, ns wire.Namespace) (r Removed, err error) {
	groups, err := s.groupDirs(ns)
	if err != nil {
		return r, err
	}
	var errs []error
	for _, g := range groups {
		more, err := s.forgetGroup(ctx, g)
		r.add(more)
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return r, err
	}
	for _, name := range append(slices.Clone(groupTypes), nsDir, ".") {
		dir := path.Join(namespacePath(ns), name)
		left, err := s.readDir(dir)
		if err == nil && len(left) == 0 {
			err = durable.Remove(filepath.Join(s.path, dir))
		}
		if err != nil {
			return r, fmt.Errorf("remove namespace %q: %w", ns, err)
		}
	}
	return r, nil
}

// groupDirs lists the groups of a namespace, those without a snapshot among
// them.
func (s *Store) groupDirs(ns wire.Namespace) ([]wire.Group, error) {
	var list []wire.Group
	for _, typ := range groupTypes {
		names, err := s.readTreeDir(path.Join(namespacePath(ns), typ))
		if err != nil {
			return nil, fmt.Errorf("list groups: %w", err)
		}
		for _, n := range names {
			g := wire.Group{NS: ns, Type: typ, ID: n.Name()}
			if g.Validate() != nil || !n.IsDir() {
				continue // not ours
			}
			list = append(list, g)
		}
	}
	return list, nil
}
