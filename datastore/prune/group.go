package prune

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"holdfast/chunkstore"
	"holdfast/datastore/wire"
)

// Store is where the snapshots are. A server's datastore and one reached over
// the network both are.
type Store interface {
	// Snapshots lists the snapshots of a group.
	Snapshots(ctx context.Context, g wire.Group) ([]wire.SnapshotInfo, error)
	// Forget removes a snapshot, and refuses a protected one.
	Forget(ctx context.Context, s wire.Snapshot) error
}

// Remover removes snapshots for good.
type Remover interface {
	// Snapshots lists the snapshots of a group.
	Snapshots(ctx context.Context, g wire.Group) ([]wire.SnapshotInfo, error)
	// ForgetNow removes a snapshot so that nobody can bring it back, and
	// refuses a protected one.
	ForgetNow(ctx context.Context, s wire.Snapshot) error
}

// Walker is a Store that can tell of one snapshot after the other: there may be many of
// them, each with long notes and many files.
type Walker interface {
	// EachSnapshot visits what Snapshots would list.
	EachSnapshot(ctx context.Context, g wire.Group, visit func(wire.SnapshotInfo) error) error
}

// lister is what both kinds of store have.
type lister interface {
	Snapshots(ctx context.Context, g wire.Group) ([]wire.SnapshotInfo, error)
}

// each visits the snapshots of a group, as a Walker does if it is one.
func each(ctx context.Context, from lister, g wire.Group, visit func(wire.SnapshotInfo) error) error {
	if w, ok := from.(Walker); ok {
		return w.EachSnapshot(ctx, g, visit)
	}
	list, err := from.Snapshots(ctx, g)
	for _, s := range list {
		if err == nil {
			err = visit(s)
		}
	}
	return err
}

// ForGood is a Store from which snapshots go without a stay in the trash.
func ForGood(r Remover) Store { return forGood{r} }

type forGood struct{ Remover }

// Forget implements Store.
func (f forGood) Forget(ctx context.Context, s wire.Snapshot) error { return f.ForgetNow(ctx, s) }

// EachSnapshot implements Walker.
func (f forGood) EachSnapshot(ctx context.Context, g wire.Group, visit func(wire.SnapshotInfo) error) error {
	return each(ctx, f.Remover, g, visit)
}

// Options say how Group prunes.
type Options struct {
	// Keep is what stays.
	Keep Keep
	// DryRun decides and removes nothing.
	DryRun bool
	// Location is the calendar of the periods; nil is local time.
	Location *time.Location
	// Now is the time; the zero one is that of this machine.
	Now time.Time
	// Warn is told of every snapshot that could not be removed; it may be nil.
	Warn func(error)
}

// Group prunes one group and returns what was decided about each of its
// snapshots, as Select does. A snapshot that cannot be removed is passed to Warn
// and the others are removed nevertheless; its decision still says that it was
// to go. If there was no room to keep one in the trash, the decisions come with
// chunkstore.ErrNoSpace in the end. When ctx ends the rest stays, and they come with
// the error of the context.
func Group(ctx context.Context, m Store, g wire.Group, o Options) ([]Decision, error) {
	var candidates []Candidate
	err := each(ctx, m, g, func(s wire.SnapshotInfo) error {
		candidates = append(candidates, candidate(s))
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("prune %s: list its snapshots: %w", g, err)
	}
	if o.Now.IsZero() {
		o.Now = time.Now()
	}
	decisions := Select(candidates, o.Keep, o.Location, o.Now.Unix())
	if o.DryRun {
		return decisions, nil
	}
	var full error
	for _, d := range decisions {
		if d.Keep {
			continue
		}
		if err := ctx.Err(); err != nil {
			return decisions, fmt.Errorf("prune %s: %w", g, err)
		}
		snap := wire.Snapshot{Group: g, Time: d.Time}
		err := m.Forget(ctx, snap)
		if errors.Is(err, chunkstore.ErrNoSpace) {
			full = err
		}
		if err != nil && o.Warn != nil {
			o.Warn(fmt.Errorf("remove snapshot %s: %w", snap, err))
		}
	}
	if full != nil {
		return decisions, fmt.Errorf("prune %s: not everything could be removed: %w", g, full)
	}
	return decisions, nil
}

// candidate is what Select has to know of a snapshot.
func candidate(s wire.SnapshotInfo) Candidate {
	return Candidate{
		Time: s.Snapshot.Time, Arrived: s.Arrived, Protected: s.Protected, Damaged: s.Damage != "", Standing: standing(s),
	}
}

func standing(s wire.SnapshotInfo) Standing {
	switch {
	case empty(s), s.Verify != nil && s.Verify.State == wire.VerifyFailed:
		return Suspect
	case s.Dated().Ahead():
		return Ahead
	case s.Verify != nil && s.Verify.State == wire.VerifyOK:
		return Verified
	}
	return Unverified
}

// empty reports whether there is no archive with content in a snapshot. A blob is
// none: who has nothing to back up can send one as well.
func empty(s wire.SnapshotInfo) bool {
	return !slices.ContainsFunc(s.Files, func(f wire.FileInfo) bool {
		kind, err := wire.CheckFileName(f.Name)
		return err == nil && kind != wire.Blob && f.Name != catalogName && f.Size > 0
	})
}

// catalogName is the list of the files in the archives of a snapshot.
const catalogName = "catalog.pcat1.didx"
