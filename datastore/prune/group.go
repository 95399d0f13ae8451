package prune

import (
	"context"
	"fmt"
	"time"

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

// ForGood is a Store from which snapshots go without a stay in the trash.
func ForGood(r Remover) Store { return forGood{r} }

type forGood struct{ Remover }

// Forget implements Store.
func (f forGood) Forget(ctx context.Context, s wire.Snapshot) error { return f.ForgetNow(ctx, s) }

// Options say how Group prunes.
type Options struct {
	// Keep is what stays.
	Keep Keep
	// DryRun decides and removes nothing.
	DryRun bool
	// Location is the calendar of the periods; nil is local time.
	Location *time.Location
	// Warn is told of every snapshot that could not be removed; it may be nil.
	Warn func(error)
}

// Group prunes one group and returns what was decided about each of its
// snapshots, oldest first. A snapshot that cannot be removed is passed to Warn
// and the others are removed nevertheless; its decision still says that it was
// to go. When ctx ends the rest stays, and the decisions come with the error
// of the context.
func Group(ctx context.Context, m Store, g wire.Group, o Options) ([]Decision, error) {
	list, err := m.Snapshots(ctx, g)
	if err != nil {
		return nil, fmt.Errorf("prune %s: list its snapshots: %w", g, err)
	}
	candidates := make([]Candidate, len(list))
	for i, s := range list {
		candidates[i] = Candidate{Time: s.Snapshot.Time, Protected: s.Protected, Damaged: s.Damage != ""}
	}
	decisions := Select(candidates, o.Keep, o.Location)
	if o.DryRun {
		return decisions, nil
	}
	for _, d := range decisions {
		if d.Keep {
			continue
		}
		if err := ctx.Err(); err != nil {
			return decisions, fmt.Errorf("prune %s: %w", g, err)
		}
		snap := wire.Snapshot{Group: g, Time: d.Time}
		if err := m.Forget(ctx, snap); err != nil && o.Warn != nil {
			o.Warn(fmt.Errorf("remove snapshot %s: %w", snap, err))
		}
	}
	return decisions, nil
}
