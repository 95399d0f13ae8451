package repo

import (
	"context"
	"fmt"
	"iter"
	"strings"

	"holdfast/chunkstore"
	"holdfast/command/secret"
	"holdfast/command/term"
	"holdfast/datastore/wire"
)

// Group reads the name of a group.
func (o Opener) Group(text string) (wire.Group, error) {
	ns, err := o.Namespace()
	if err != nil {
		return wire.Group{}, err
	}
	return wire.ParseGroup(ns, text)
}

// SnapshotToRead reads the name of a snapshot; TYPE/ID/latest and TYPE/ID are
// the newest one of the group.
func (o Opener) SnapshotToRead(ctx context.Context, src wire.Source, text string) (wire.Snapshot, error) {
	group := text
	switch strings.Count(text, "/") {
	case 2:
		var latest bool
		if group, latest = strings.CutSuffix(text, "/latest"); !latest {
			return o.exactSnapshot(text)
		}
	case 1:
	default:
		return o.exactSnapshot(text)
	}
	g, err := o.Group(group)
	if err != nil {
		return wire.Snapshot{}, err
	}
	list, err := src.Snapshots(ctx, g)
	if err != nil {
		return wire.Snapshot{}, fmt.Errorf("newest snapshot%s: %w", Within(g.NS), err)
	}
	if len(list) == 0 {
		return wire.Snapshot{}, fmt.Errorf("group %s%s has no finished snapshot: %w", g, Within(g.NS), chunkstore.ErrNotExist)
	}
	return list[len(list)-1].Snapshot, nil
}

// exactSnapshot reads the full name of a snapshot.
func (o Opener) exactSnapshot(text string) (wire.Snapshot, error) {
	ns, err := o.Namespace()
	if err != nil {
		return wire.Snapshot{}, err
	}
	if strings.HasSuffix(text, "/latest") || strings.Count(text, "/") == 1 {
		return wire.Snapshot{}, term.Hintf(term.Usagef("snapshot %q: only the exact time will do for a change", text),
			"holdfast snapshot list %s shows them", strings.TrimSuffix(text, "/latest"))
	}
	return wire.ParseSnapshot(ns, text)
}

// Namespace is the one that the command works in.
func (o Opener) Namespace() (wire.Namespace, error) {
	text, from := o.setting("ns", secret.EnvNamespace, secret.EnvNamespacePBS)
	ns, err := wire.ParseNamespace(text)
	if err != nil {
		return "", fmt.Errorf("%s: %w", from, err)
	}
	return ns, nil
}

// About says what was being done, unless the error begins with that itself.
func About(doing string, ns wire.Namespace, err error) error {
	if strings.HasPrefix(err.Error(), doing) {
		return err
	}
	return fmt.Errorf("%s%s: %w", doing, Within(ns), err)
}

// Within names a namespace that is not the root, for messages.
func Within(ns wire.Namespace) string {
	if ns == "" {
		return ""
	}
	return fmt.Sprintf(" in namespace %s", ns)
}

// Groups are those of the command's namespace and, if deep, of all below.
func (o Opener) Groups(ctx context.Context, src wire.Source, deep bool) ([]wire.GroupInfo, error) {
	spaces, err := o.Namespaces(ctx, src, deep)
	if err != nil {
		return nil, err
	}
	var groups []wire.GroupInfo
	for _, ns := range spaces {
		g, err := src.Groups(ctx, ns)
		if err != nil {
			return nil, About("list groups", ns, err)
		}
		groups = append(groups, g...)
	}
	return groups, nil
}

// Namespaces is the command's namespace and, if deep, all below.
func (o Opener) Namespaces(ctx context.Context, src wire.Source, deep bool) ([]wire.Namespace, error) {
	ns, err := o.Namespace()
	if err != nil {
		return nil, err
	}
	if !deep {
		return []wire.Namespace{ns}, nil
	}
	all, err := src.Namespaces(ctx, ns)
	if err != nil {
		return nil, About("list namespaces", ns, err)
	}
	return all, nil
}

// Reading calls do with the snapshot of that name, which may
// be the latest of its group, in a store opened for reading.
func (o Opener) Reading(ctx context.Context, name string, do func(*Repository, wire.Snapshot) error) error {
	s, err := o.Open(ctx, Read)
	if err != nil {
		return err
	}
	defer s.Close()
	snap, err := o.SnapshotToRead(ctx, s, name)
	if err != nil {
		return err
	}
	return do(s, snap)
}

// Changing calls do with the snapshot of exactly that name, in
// a store opened for writing.
func (o Opener) Changing(ctx context.Context, name string, do func(*Repository, wire.Snapshot) error) (err error) {
	snap, err := o.exactSnapshot(name)
	if err != nil {
		return err
	}
	s, err := o.Open(ctx, Write)
	if err != nil {
		return err
	}
	defer Closing(s, &err)
	return do(s, snap)
}

// InGroup lists the snapshots of one group.
func InGroup(ctx context.Context, src wire.Source, g wire.Group) iter.Seq2[wire.SnapshotInfo, error] {
	return func(yield func(wire.SnapshotInfo, error) bool) {
		list, err := src.Snapshots(ctx, g)
		if err != nil {
			yield(wire.SnapshotInfo{Snapshot: wire.Snapshot{Group: g}}, err)
		}
		for _, i := range list {
			if !yield(i, nil) {
				return
			}
		}
	}
}

// WithNamespace shows a name with its namespace in front, if that is not the
// root.
func WithNamespace(ns wire.Namespace, name string) string {
	if ns == "" {
		return name
	}
	return fmt.Sprintf("%s: %s", ns, name)
}
