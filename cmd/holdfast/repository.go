package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"holdfast/chunkstore"
	"holdfast/datastore"
	"holdfast/datastore/wire"
)

// access says what a command wants to do with a repository.
type access bool

const (
	readOnly  access = true
	readWrite access = false
)

// setting is the value of a flag, or of the first variable that is defined.
// from says which it was, "" if none.
func (c *call) setting(flag string, variables ...string) (value, from string) {
	if c.flags.IsSet(flag) {
		return c.flags.String(flag), "--" + flag
	}
	for _, v := range variables {
		if value, ok := c.env[v]; ok {
			return value, "$" + v
		}
	}
	return "", ""
}

// repository is the one that the command works on.
func (c *call) repository() (wire.Repository, error) {
	text, from := c.setting("repository", envRepository, envRepositoryPBS)
	if from == "" {
		return wire.Repository{}, hintf(usagef("no repository given"), "name it with -r PATH or $HOLDFAST_REPOSITORY")
	}
	r, err := wire.ParseRepository(text)
	if err != nil {
		return wire.Repository{}, fmt.Errorf("%s: %w", from, err)
	}
	if !r.IsPath() {
		return wire.Repository{}, serverRepository(text, from)
	}
	return r, nil
}

// serverRepository refuses a repository on a server, and guesses whether a
// directory was meant.
func serverRepository(text, from string) error {
	err := usagef("%s: %q names a datastore on a server; this build reaches only repositories that are a path", from, printable(text))
	if st, e := os.Stat(text); e == nil && st.IsDir() {
		return hintf(err, "did you mean \"./%s\"?", text)
	}
	return hintf(err, `a path contains "/" or begins with "."`)
}

// namespace is the one that the command works in.
func (c *call) namespace() (wire.Namespace, error) {
	text, from := c.setting("ns", envNamespace, envNamespacePBS)
	ns, err := wire.ParseNamespace(text)
	if err != nil {
		return "", fmt.Errorf("%s: %w", from, err)
	}
	return ns, nil
}

// openStore opens the repository. The caller closes it.
func (c *call) openStore(ctx context.Context, mode access) (*datastore.Store, error) {
	r, err := c.repository()
	if err != nil {
		return nil, err
	}
	s, err := datastore.Open(ctx, r.Path, datastore.Options{
		ReadOnly: bool(mode),
		LockWait: c.flags.Duration("lock-wait"),
		Notify:   func(text string) { c.ui.warnf("%s", text) },
	})
	if errors.Is(err, datastore.ErrNoStore) {
		return nil, hintf(err, "make it with: holdfast init %s", r)
	}
	if err != nil {
		return nil, fmt.Errorf("open repository %s: %w", r, err)
	}
	return s, nil
}

// closing closes a store that was written to; its error counts.
func closing(s *datastore.Store, err *error) {
	if e := s.Close(); e != nil && *err == nil {
		*err = fmt.Errorf("close repository: %w", e)
	}
}

// group reads the name of a group.
func (c *call) group(text string) (wire.Group, error) {
	ns, err := c.namespace()
	if err != nil {
		return wire.Group{}, err
	}
	return wire.ParseGroup(ns, text)
}

// snapshotToRead reads the name of a snapshot; TYPE/ID/latest and TYPE/ID are
// the newest one of the group.
func (c *call) snapshotToRead(ctx context.Context, src wire.Source, text string) (wire.Snapshot, error) {
	group := text
	switch strings.Count(text, "/") {
	case 2:
		var latest bool
		if group, latest = strings.CutSuffix(text, "/latest"); !latest {
			return c.exactSnapshot(text)
		}
	case 1:
	default:
		return c.exactSnapshot(text)
	}
	g, err := c.group(group)
	if err != nil {
		return wire.Snapshot{}, err
	}
	list, err := src.Snapshots(ctx, g)
	if err != nil {
		return wire.Snapshot{}, fmt.Errorf("newest snapshot%s: %w", within(g.NS), err)
	}
	if len(list) == 0 {
		return wire.Snapshot{}, fmt.Errorf("group %s%s has no finished snapshot: %w", g, within(g.NS), chunkstore.ErrNotExist)
	}
	return list[len(list)-1].Snapshot, nil
}

// exactSnapshot reads the full name of a snapshot.
func (c *call) exactSnapshot(text string) (wire.Snapshot, error) {
	ns, err := c.namespace()
	if err != nil {
		return wire.Snapshot{}, err
	}
	if strings.HasSuffix(text, "/latest") || strings.Count(text, "/") == 1 {
		return wire.Snapshot{}, hintf(usagef("snapshot %q: only the exact time will do for a change", text),
			"holdfast snapshot list %s shows them", strings.TrimSuffix(text, "/latest"))
	}
	return wire.ParseSnapshot(ns, text)
}

// find returns what the listing says of a snapshot.
func find(ctx context.Context, src wire.Source, s wire.Snapshot) (wire.SnapshotInfo, error) {
	list, err := src.Snapshots(ctx, s.Group)
	if err != nil {
		return wire.SnapshotInfo{}, fmt.Errorf("list snapshots%s: %w", within(s.Group.NS), err)
	}
	for _, i := range list {
		if i.Snapshot == s {
			return i, nil
		}
	}
	return wire.SnapshotInfo{}, fmt.Errorf("snapshot %s%s: %w", s, within(s.Group.NS), chunkstore.ErrNotExist)
}

// within names a namespace that is not the root, for messages.
func within(ns wire.Namespace) string {
	if ns == "" {
		return ""
	}
	return fmt.Sprintf(" in namespace %s", ns)
}
