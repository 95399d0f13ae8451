package datastore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"holdfast/chunkstore"
	"holdfast/chunkstore/durable"
	"holdfast/datastore/wire"
)

// groupTypes are the directories of a namespace that hold groups, sorted.
var groupTypes = []string{"ct", "host", "vm"}

// checkNamespace returns chunkstore.ErrNotExist if there is no such namespace. A
// disk that cannot tell is another error.
func (s *Store) checkNamespace(ns wire.Namespace) error {
	err := s.checkDir(namespacePath(ns))
	if err != nil {
		return fmt.Errorf("namespace %q: %w", ns, err)
	}
	return nil
}

// checkDir returns chunkstore.ErrNotExist if a name of the tree is not there, or
// no directory.
func (s *Store) checkDir(dir string) error {
	st, err := s.root.Stat(dir)
	if absent(err) || err == nil && !st.IsDir() {
		return chunkstore.ErrNotExist
	}
	return err
}

// absent tells that the disk has said that a name is not there.
func absent(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) }

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
	s.making.Lock()
	defer s.making.Unlock()
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
// wire.ErrNotEmpty and nothing is removed. With it, protected snapshots
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
	if o.Groups {
		// Of thousands this takes minutes, and no backup begins or ends while the tree
		// is held.
		if r, err = s.forgetGroups(ctx, ns); err != nil {
			return r, err
		}
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
	if err := errors.Join(errs...); err != nil || r.Protected > 0 {
		return r, err
	}
	switch err := s.checkNamespace(ns); {
	case errors.Is(err, chunkstore.ErrNotExist):
		return r, nil
	case err != nil:
		return r, err
	}
	return r, fmt.Errorf("namespace %q holds files that are not part of the store: %w", ns, chunkstore.ErrInvalid)
}

// forgetGroups removes the groups of a namespace and of those below it that can be
// removed. It tells of no group that stays.
func (s *Store) forgetGroups(ctx context.Context, ns wire.Namespace) (r Removed, err error) {
	all, err := s.Namespaces(ctx, ns)
	if err != nil {
		return r, err
	}
	for _, each := range all {
		groups, err := s.groupDirs(each)
		if err != nil {
			return r, err
		}
		for _, g := range groups {
			if err := ctx.Err(); err != nil {
				return r, err
			}
			// Whoever has the tree meets what stays, and why, once more.
			more, _ := s.forgetGroup(ctx, nil, g)
			more.Protected = 0
			r.add(more)
		}
	}
	return r, nil
}

// checkEmpty returns an error that names a group, if there is one with a
// snapshot.
func (s *Store) checkEmpty(ctx context.Context, all []wire.Namespace) error {
	for _, ns := range all {
		groups, err := s.Owners(ctx, ns)
		if err != nil {
			return err
		}
		for _, g := range groups {
			times, err := s.times(g.Group)
			if err == nil && len(times) > 0 {
				err = fmt.Errorf("namespace %q holds backup group %s: %w", ns, g.Group, wire.ErrNotEmpty)
			}
			if err != nil {
				return err
			}
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
		more, err := s.forgetGroup(ctx, nil, g)
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
