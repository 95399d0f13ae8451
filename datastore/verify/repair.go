package verify

import (
	"context"
	"errors"
	"fmt"
	"time"

	"holdfast/chunkstore"
	"holdfast/chunkstore/pack"
	"holdfast/datastore"
	"holdfast/datastore/wire"
)

// RepairOptions say how to repair a store.
type RepairOptions struct {
	// LockWait is how long to wait for another process to close the store.
	LockWait time.Duration
	// Workers, Rate and Progress are those of StoreOptions.
	Workers  int
	Rate     int64
	Progress *Progress
	// Notify, if set, gets a line of text about what is being done.
	Notify func(string)
}

// RepairReport says what was wrong with a store and what has become of it.
type RepairReport struct {
	// Configured tells that the store had lost its configuration.
	Configured bool
	// Before is what was found first, After what is left; they are the same if
	// nothing was wrong.
	Before, After StoreReport
	// Changed tells that a snapshot or a pack was damaged, so that the catalogue
	// was built anew and what could be was salvaged.
	Changed bool
	Reindex datastore.ReindexReport
	Salvage pack.SalvageReport
	// Owners are those that were made anew, with who the group belongs to now.
	Owners []NewOwner
	// Dated is how many snapshots have got an arrival anew.
	Dated int
}

// NewOwner is who a group belongs to since its recorded owner was found
// damaged.
type NewOwner struct {
	Group wire.Group
	Owner wire.AuthID
}

// Repair verifies a store that nobody has open and, if something is wrong,
// rebuilds what can be rebuilt from what is there. It removes nothing: what is
// damaged stays in quarantine, and the next backup that has the chunks sends
// them again. A store in which nothing is wrong is not changed.
func Repair(ctx context.Context, path string, o RepairOptions) (RepairReport, error) {
	r := &repair{path: path, o: o}
	if err := r.run(ctx); err != nil {
		return r.report, fmt.Errorf("repair %s: %w", path, err)
	}
	return r.report, nil
}

type repair struct {
	path   string
	o      RepairOptions
	report RepairReport
}

func (r *repair) tell(format string, args ...any) {
	if r.o.Notify != nil {
		r.o.Notify(fmt.Sprintf(format, args...))
	}
}

func (r *repair) run(ctx context.Context) (err error) {
	if r.report.Configured, err = datastore.RestoreConfig(r.path); err != nil {
		return err
	}
	if r.report.Configured {
		r.tell("the configuration was missing or damaged and was made anew")
	}
	// Open for reading first: what is whole is to stay as it is, to the byte.
	err = r.with(ctx, true, func(s *datastore.Store) error {
		r.report.Before, err = Store(ctx, s, StoreOptions{NoMark: true, Workers: r.o.Workers, Rate: r.o.Rate, Progress: r.o.Progress})
		return err
	})
	r.report.After = r.report.Before
	if err != nil || r.report.Before.OK() {
		return err
	}
	r.report.Changed = !r.report.Before.Whole() || r.report.Before.Scrub.PacksDamaged > 0
	return r.with(ctx, false, func(s *datastore.Store) error { return r.rebuild(ctx, s) })
}

// owners makes the owners anew that cannot be understood. The others are what
// the disk does not read.
func (r *repair) owners(ctx context.Context, s *datastore.Store) error {
	for _, bad := range r.report.Before.Owners {
		if !errors.Is(bad.Err, chunkstore.ErrCorrupt) {
			continue
		}
		id, err := s.RepairOwner(ctx, bad.Group)
		if err != nil {
			return err
		}
		r.report.Owners = append(r.report.Owners, NewOwner{bad.Group, id})
		r.tell("the owner of backup group %s could not be read; it belongs to %s now: holdfast change-owner gives it to somebody else", bad.Group, id)
	}
	return nil
}

// arrivals writes down anew when snapshots arrived of which that is lost.
func (r *repair) arrivals(ctx context.Context, s *datastore.Store) error {
	for _, snap := range r.report.Before.Undated {
		err := s.RepairArrival(ctx, snap)
		if err != nil && !errors.Is(err, chunkstore.ErrNotExist) {
			return err
		}
		r.report.Dated++
	}
	return nil
}

// with opens the store, runs fn and closes it.
func (r *repair) with(ctx context.Context, readOnly bool, fn func(*datastore.Store) error) error {
	s, err := datastore.Open(ctx, r.path, datastore.Options{ReadOnly: readOnly, LockWait: r.o.LockWait, Notify: r.o.Notify})
	if err != nil {
		return err
	}
	return errors.Join(fn(s), s.Close())
}

// chunks builds the catalogue anew and rescues what it can.
func (r *repair) chunks(ctx context.Context, s *datastore.Store) (err error) {
	r.tell("building the catalogue anew")
	if r.report.Reindex, err = s.Reindex(ctx, nil); err != nil {
		return err
	}
	r.tell("looking for other copies of what is damaged")
	r.report.Salvage, err = s.Salvage(ctx)
	return err
}

// rebuild does what can be done. What was found damaged is marked so.
func (r *repair) rebuild(ctx context.Context, s *datastore.Store) (err error) {
	if err := errors.Join(r.owners(ctx, s), r.arrivals(ctx, s)); err != nil {
		return err
	}
	if r.report.Changed {
		if err := r.chunks(ctx, s); err != nil {
			return err
		}
	}
	// The packs are as they were: only the references have to be looked up.
	r.report.After, err = Store(ctx, s, StoreOptions{NoScrub: true})
	r.report.After.Scrub = r.report.Before.Scrub
	return err
}
