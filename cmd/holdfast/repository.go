package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"holdfast/chunkstore"
	"holdfast/client"
	"holdfast/command/secret"
	"holdfast/command/term"
	"holdfast/datastore"
	"holdfast/datastore/wire"
)

// openMode says what a command wants to do with a repository.
type openMode bool

const (
	readOnly  openMode = true
	readWrite openMode = false
)

// repository is an open repository, on this machine or on a server: commands
// work on its ports and cannot tell which. What only one kind can do is asked
// of local or remote; one of the two is nil.
type repository struct {
	wire.Source
	wire.Target
	wire.Manager
	io.Closer
	name   wire.Repository
	local  *datastore.Store
	remote *client.Client
}

// repository is the one that the command works on.
func (c *call) repository() (wire.Repository, error) {
	text, from := c.secrets.Setting(c.Given, "repository", secret.EnvRepository, secret.EnvRepositoryPBS)
	if from == "" {
		return wire.Repository{}, term.Hintf(term.Usagef("no repository given"), "name it with -r REPO or $HOLDFAST_REPOSITORY")
	}
	r, err := wire.ParseRepository(text)
	if err != nil {
		err = fmt.Errorf("%s: %w", from, err)
		if isDirectory(text) {
			err = term.Hintf(err, "there is a directory of that name: did you mean \"./%s\"?", term.Printable(text))
		}
		return wire.Repository{}, err
	}
	return r, c.guessPath(r, text)
}

// guessPath refuses the bare name of a directory. It would be a datastore of
// the server on this machine, which is seldom what somebody means who stands
// beside a directory of that name.
func (c *call) guessPath(r wire.Repository, text string) error {
	if r.IsPath() || r.Host != "" {
		return nil
	}
	if isDirectory(text) {
		return term.Hintf(term.Usagef("%q names a datastore of the server on this machine, but there is a directory of that name", term.Printable(text)),
			"did you mean \"./%s\"? the datastore is localhost:%s", text, text)
	}
	return nil
}

func isDirectory(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.IsDir()
}

// namespace is the one that the command works in.
func (c *call) namespace() (wire.Namespace, error) {
	text, from := c.secrets.Setting(c.Given, "ns", secret.EnvNamespace, secret.EnvNamespacePBS)
	ns, err := wire.ParseNamespace(text)
	if err != nil {
		return "", fmt.Errorf("%s: %w", from, err)
	}
	return ns, nil
}

// openRepository opens the repository of the command. The caller closes it.
func (c *call) openRepository(ctx context.Context, mode openMode) (*repository, error) {
	r, err := c.repository()
	if err != nil {
		return nil, err
	}
	if r.IsPath() {
		s, err := c.openPath(ctx, r, mode)
		if err != nil {
			return nil, err
		}
		return &repository{Source: s, Target: s, Manager: s, Closer: s, name: r, local: s}, nil
	}
	s, err := c.dial(ctx, r)
	if err != nil {
		return nil, err
	}
	return &repository{Source: s, Target: s, Manager: s, Closer: s, name: r, remote: s}, nil
}

// openLocal opens a repository for what can only be done beside its files.
func (c *call) openLocal(ctx context.Context, mode openMode) (*datastore.Store, error) {
	r, err := c.repository()
	if err != nil {
		return nil, err
	}
	if !r.IsPath() {
		return nil, term.Hintf(term.Usagef("%s works on repositories that are a path; %s is on a server", c.Flags.Command.HelpName, r),
			"run it on the server, with -r and the path of the datastore")
	}
	return c.openPath(ctx, r, mode)
}

func (c *call) openPath(ctx context.Context, r wire.Repository, mode openMode) (*datastore.Store, error) {
	s, err := datastore.Open(ctx, r.Path, datastore.Options{
		ReadOnly: bool(mode),
		LockWait: c.Flags.Duration("lock-wait"),
		Notify:   func(text string) { c.ui.Warnf("%s", text) },
	})
	if errors.Is(err, datastore.ErrNoStore) {
		return nil, term.Hintf(err, "make it with: holdfast init %s", r)
	}
	if err != nil {
		return nil, fmt.Errorf("open repository %s: %w", r, err)
	}
	return s, nil
}

// closing closes what was written to; its error counts.
func closing(s io.Closer, err *error) {
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
		return wire.Snapshot{}, term.Hintf(term.Usagef("snapshot %q: only the exact time will do for a change", text),
			"holdfast snapshot list %s shows them", strings.TrimSuffix(text, "/latest"))
	}
	return wire.ParseSnapshot(ns, text)
}

// find returns what the listing says of a snapshot.
func find(ctx context.Context, src wire.Source, s wire.Snapshot) (wire.SnapshotInfo, error) {
	list, err := src.Snapshots(ctx, s.Group)
	if err != nil {
		return wire.SnapshotInfo{}, about("list snapshots", s.Group.NS, err)
	}
	for _, i := range list {
		if i.Snapshot == s {
			return i, nil
		}
	}
	return wire.SnapshotInfo{}, fmt.Errorf("snapshot %s%s: %w", s, within(s.Group.NS), chunkstore.ErrNotExist)
}

// about says what was being done, unless the error begins with that itself.
func about(doing string, ns wire.Namespace, err error) error {
	if strings.HasPrefix(err.Error(), doing) {
		return err
	}
	return fmt.Errorf("%s%s: %w", doing, within(ns), err)
}

// within names a namespace that is not the root, for messages.
func within(ns wire.Namespace) string {
	if ns == "" {
		return ""
	}
	return fmt.Sprintf(" in namespace %s", ns)
}
