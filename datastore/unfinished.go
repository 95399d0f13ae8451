package datastore

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"holdfast/chunkstore/durable"
	"holdfast/datastore/wire"
)

// What unfinished sessions leave stays until the next collection: lists of what has
// arrived, and who began which group.

// listsMax is how many resume lists the sessions of one user may leave. With one a new
// group stays, so that this bounds the directories and files that are there for nothing.
const listsMax = 1024

// lists are the resume lists of running sessions.
type lists struct {
	// turn is held shared while a session lets go of its chunks and files its list, or
	// counts on those of an earlier one, and alone while lists are dropped: a list that
	// is there afterwards names nothing that the sweep which has begun may take.
	turn sync.RWMutex

	mu   sync.Mutex
	open map[string]*resumeList // by path
}

func (l *lists) add(r *resumeList) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open == nil {
		l.open = make(map[string]*resumeList)
	}
	l.open[r.path] = r
}

func (l *lists) remove(r *resumeList) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, r.path)
}

func (l *lists) running() (all []*resumeList) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.open {
		all = append(all, r)
	}
	return all
}

// DropUnfinished ends what unfinished sessions have left, for a sweep that has begun and
// has removed nothing yet: the lists of the chunks that had arrived, but for what running
// sessions count on, the groups that hold nothing, and whose those were. So whether a
// chunk is still there never depends on what others have when somebody is told of it.
func (s *Store) DropUnfinished(ctx context.Context) error {
	if _, err := s.writable(ctx); err != nil {
		return err
	}
	if err := s.dropLists(); err != nil {
		return fmt.Errorf("drop the lists of interrupted backups: %w", err)
	}
	s.claims.clear()
	return s.removeEmptyGroups(ctx)
}

func (s *Store) dropLists() error {
	s.lists.turn.Lock()
	defer s.lists.turn.Unlock()
	for _, r := range s.lists.running() {
		if err := r.forget(s); err != nil {
			return err
		}
	}
	names, err := s.readTreeDir(resumeDir)
	if err != nil || len(names) == 0 {
		return err
	}
	for _, n := range names {
		if n.IsDir() || !isResumeName(n.Name()) {
			continue // not ours
		}
		if err := s.root.Remove(path.Join(resumeDir, n.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return durable.SyncDir(filepath.Join(s.path, resumeDir))
}

// isResumeName tells a list from what others have put beside it.
func isResumeName(name string) bool {
	group, owner, ok := strings.Cut(name, "-")
	return ok && len(group) == resumeKeyLen && len(owner) == resumeKeyLen && strings.Trim(group+owner, "0123456789abcdef") == ""
}

// mayKeep reports whether the user that a list is of has left few enough.
func (s *Store) mayKeep(key resumeKey) bool {
	names, err := s.readTreeDir(resumeDir)
	if err != nil {
		return false
	}
	n := 0
	for _, other := range names {
		if _, owner, ok := strings.Cut(other.Name(), "-"); ok && strings.HasPrefix(owner, key.user()) {
			n++
		}
	}
	return n < listsMax
}

// hasList reports whether there is a list of a group, of whomever.
func (s *Store) hasList(g wire.Group) (bool, error) {
	names, err := s.readTreeDir(resumeDir)
	prefix := newResumeKey(g, "").group()
	return slices.ContainsFunc(names, func(n fs.DirEntry) bool { return strings.HasPrefix(n.Name(), prefix) }), err
}

// user is what the second half of a list's name begins with, for all tokens of a user.
func (k resumeKey) user() string {
	return hex.EncodeToString(k[resumeKeyLen/2 : resumeKeyLen*3/4])
}

// begunName is the file in the directory of a group that has had no snapshot yet. A group
// without it that holds nothing may have lost what it held, and stays as it is.
const begunName = "begun"

// markBegun notes that a group which is about to be made has had no snapshot. It is on
// the medium with the owner, which comes after it.
func (s *Store) markBegun(g wire.Group) error {
	_, err := s.root.Lstat(path.Join(groupPath(g), ownerName))
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if times, err := s.times(g); err != nil || len(times) > 0 {
		return err
	}
	if err := durable.MkdirAll(filepath.Join(s.path, groupPath(g)), 0o700); err != nil {
		return noSpace(err)
	}
	return noSpace(durable.WriteIn(s.root, path.Join(groupPath(g), begunName), nil, 0o600))
}

// hasBegun reports whether a group has had no snapshot yet, or nothing at all.
func (s *Store) hasBegun(g wire.Group) bool {
	names, err := s.readDir(groupPath(g))
	return err == nil && (len(names) == 0 || slices.ContainsFunc(names, func(n fs.DirEntry) bool { return n.Name() == begunName }))
}

// unmarkBegun notes that a group gets a snapshot.
func (s *Store) unmarkBegun(g wire.Group) error {
	err := s.root.Remove(path.Join(groupPath(g), begunName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return noSpace(err)
}

// removeEmptyGroups removes the groups that have had no snapshot and that nobody writes to.
// What cannot be removed now is for the next collection.
func (s *Store) removeEmptyGroups(ctx context.Context) error {
	spaces, err := s.Namespaces(ctx, "")
	if err != nil {
		return err
	}
	for _, ns := range spaces {
		groups, err := s.groupDirs(ns)
		if err != nil {
			return err
		}
		for _, g := range groups {
			if err := ctx.Err(); err != nil {
				return err
			}
			if s.hasBegun(g) {
				_ = s.removeEmpty(nil, g)
			}
		}
	}
	return nil
}

// claims are groups that somebody has begun and that hold nothing, not a directory
// either. They stay his until the next collection or opening; but those of a user who has
// begun more than claimsMax keep nobody out.
type claims struct {
	mu     sync.Mutex
	groups map[wire.Group]wire.AuthID
	counts map[wire.AuthID]int // of a user; beyond claimsMax none is remembered
}

// add remembers who began a group.
func (c *claims) add(g wire.Group, owner wire.AuthID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.groups == nil {
		c.groups, c.counts = make(map[wire.Group]wire.AuthID), make(map[wire.AuthID]int)
	}
	c.dropLocked(g)
	user := owner.User()
	if c.counts[user] <= claimsMax {
		c.counts[user]++
		c.groups[g] = owner
	}
	if c.counts[user] <= claimsMax {
		return
	}
	for other, whose := range c.groups {
		if whose.User() == user {
			delete(c.groups, other)
		}
	}
}

// of tells who has begun a group.
func (c *claims) of(g wire.Group) (owner wire.AuthID, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	owner, ok = c.groups[g]
	return owner, ok
}

// drop forgets a group.
func (c *claims) drop(g wire.Group) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dropLocked(g)
}

func (c *claims) dropLocked(g wire.Group) {
	owner, ok := c.groups[g]
	if !ok {
		return
	}
	delete(c.groups, g)
	if c.counts[owner.User()]--; c.counts[owner.User()] == 0 {
		delete(c.counts, owner.User())
	}
}

func (c *claims) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.groups, c.counts = nil, nil
}

// giveUp removes the group of a session that has come to nothing, if it holds nothing,
// what could be resumed neither. The caller has occupied it.
func (s *Store) giveUp(g wire.Group) error {
	s.tree.RLock()
	defer s.tree.RUnlock()
	defer s.locks.edit(g)()
	owner, err := s.recordedOwner(g)
	if err != nil || !s.hasBegun(g) {
		return nil // it is not there, or for repair to mend
	}
	if has, err := s.hasList(g); err != nil || has {
		return err
	}
	gone, err := s.removeGroup(g)
	if gone {
		s.claims.add(g, owner)
	}
	return err
}
