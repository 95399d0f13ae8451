package verify

import (
	"context"
	"errors"
	"fmt"
	"time"

	"holdfast/chunkstore"
	"holdfast/chunkstore/pack"
	"holdfast/datastore"
	"holdfast/datastore/index"
	"holdfast/datastore/wire"
)

// affectedMax is how many damaged archives a report names at most.
const affectedMax = 10_000

// StoreOptions say how to verify a store. The zero value reads all of it.
type StoreOptions struct {
	// Before leaves out the packs whose last good check is at or after it, in
	// Unix seconds; 0 reads all.
	Before int64
	// Rate bounds the bytes read from packs in a second; 0 means no bound.
	Rate int64
	// Workers is how many packs are read at once; 0 means one for each core.
	Workers int
	// Now is the clock that good checks are dated with; nil means time.Now.
	Now func() time.Time
	// UPID names the task in the verification state of damaged snapshots.
	UPID string
	// NoMark leaves the verification state of snapshots as it is.
	NoMark bool
	// NoScrub reads no packs: only what is known to be damaged or missing is
	// looked for.
	NoScrub bool
	// Progress, if set, is kept up to date with the bytes of the packs.
	Progress *Progress
	// Found, if set, is called for each damaged archive, one at a time.
	Found func(Affected)
}

// Affected is an archive of a snapshot that cannot be restored whole.
type Affected struct {
	Snapshot wire.Snapshot
	// Group tells that the file belongs to the whole group; Snapshot has no
	// time then.
	Group   bool
	Deleted bool   // it is in the trash
	File    string // archive, or the manifest
	// Chunks is how many of its entries are about damaged or missing chunks;
	// 0 if it is the file itself that is damaged.
	Chunks int64
	First  chunkstore.ID // of those chunks
	Err    error         // what is wrong with the first of them, or the file
}

// StoreReport says what was found in a store.
type StoreReport struct {
	Scrub pack.ScrubReport
	// Snapshots is how many were looked at, those in the trash included.
	Snapshots int
	// Lost is how many different chunks snapshots need that are damaged, and
	// Missing how many that are not there at all or were in quarantine before.
	Lost, Missing uint64
	// Damaged is how many snapshots need some of them, or are damaged
	// themselves. Affected are their archives, affectedMax at most.
	Damaged  int
	Affected []Affected
	// Owners are the groups whose owner cannot be read: they can be restored,
	// but nobody can back up to them.
	Owners []datastore.BadOwner
	// Undated are the snapshots of which it is not known when they arrived: they can
	// be restored, and count as of the time in their names.
	Undated []wire.Snapshot
}

// Name is what is affected: a snapshot, or a group, without the namespace.
func (a *Affected) Name() string {
	if a.Group {
		return a.Snapshot.Group.String()
	}
	return a.Snapshot.String()
}

// OK reports whether nothing is wrong: no pack, no snapshot, no owner and no arrival
// is damaged.
func (r *StoreReport) OK() bool {
	return r.Whole() && r.Scrub.PacksDamaged == 0 && len(r.Owners) == 0 && len(r.Undated) == 0
}

// Whole reports whether every snapshot can be restored as far as can be told
// without a key. Packs may hold damaged records that nobody needs.
func (r *StoreReport) Whole() bool { return r.Damaged == 0 }

// Store verifies a whole store: every byte of the packs against its checksum,
// and every reference of every snapshot. Damaged chunks are quarantined, and
// damaged snapshots get a failed verification state, so that no backup builds
// on them. It may run beside backups, removals and a collection. An error means
// that it could not be done, not that something was found; the report is then of
// what was done.
func Store(ctx context.Context, s *datastore.Store, o StoreOptions) (StoreReport, error) {
	sv := &storeCheck{s: s, o: o, bad: make(map[chunkstore.Key]error)}
	err := sv.scrub(ctx)
	if err == nil {
		err = sv.references(ctx)
	}
	if err != nil {
		return sv.report, fmt.Errorf("verify store: %w", err)
	}
	return sv.report, nil
}

// storeCheck is one run of Store.
type storeCheck struct {
	s      *datastore.Store
	o      StoreOptions
	bad    map[chunkstore.Key]error // what the scrub has found
	report StoreReport

	// Of the snapshot at hand.
	files map[string]*Affected
	order []string // of files
	// What the report counted before it.
	lost, missing uint64
}

func (sv *storeCheck) scrub(ctx context.Context) (err error) {
	if sv.o.NoScrub {
		return nil
	}
	sv.report.Scrub, err = sv.s.Scrub(ctx, pack.ScrubOptions{
		Before: sv.o.Before, Rate: sv.o.Rate, Workers: sv.o.Workers, Now: sv.o.Now,
		Damaged: func(k chunkstore.Key, err error) { sv.bad[k] = err },
		Progress: func(r pack.ScrubReport) {
			if p := sv.o.Progress; p != nil {
				p.Total.Store(int64(r.BytesTotal))
				p.Done.Store(int64(r.Bytes))
			}
		},
	})
	return err
}

// references looks every chunk up that a snapshot refers to.
func (sv *storeCheck) references(ctx context.Context) error {
	if err := sv.owners(ctx); err != nil {
		return err
	}
	v := New(Options{Source: sv.s})
	v.look, v.tell = sv.look, sv.found
	spaces, err := sv.s.Namespaces(ctx, "")
	if err != nil {
		return err
	}
	for _, ns := range spaces {
		groups, err := sv.s.Groups(ctx, ns)
		if err != nil {
			return err
		}
		for _, g := range groups {
			if err := sv.group(ctx, v, g.Group); err != nil {
				return err
			}
		}
	}
	return sv.deleted(ctx, v)
}

// owners looks at who the groups belong to.
func (sv *storeCheck) owners(ctx context.Context) (err error) {
	if sv.report.Owners, err = sv.s.BadOwners(ctx); err != nil {
		return err
	}
	for _, o := range sv.report.Owners {
		sv.affected(Affected{Snapshot: wire.Snapshot{Group: o.Group}, Group: true, File: "owner", Err: o.Err})
	}
	return nil
}

// affected reports something that is not whole.
func (sv *storeCheck) affected(a Affected) {
	if len(sv.report.Affected) < affectedMax {
		sv.report.Affected = append(sv.report.Affected, a)
	}
	if sv.o.Found != nil {
		sv.o.Found(a)
	}
}

// dated looks whether it is known when a snapshot arrived.
func (sv *storeCheck) dated(info wire.SnapshotInfo) {
	if !info.Undated {
		return
	}
	sv.report.Undated = append(sv.report.Undated, info.Snapshot)
	sv.affected(Affected{Snapshot: info.Snapshot, File: datastore.ArrivedName, Err: datastore.ErrArrival})
}

func (sv *storeCheck) group(ctx context.Context, v *Verifier, g wire.Group) error {
	var list []wire.SnapshotInfo
	err := sv.s.EachSnapshot(ctx, g, func(info wire.SnapshotInfo) error {
		// Of many snapshots these may take all memory, and nobody asks for them here.
		info.Notes, info.Files, info.Extra = "", nil, nil
		list = append(list, info)
		return nil
	})
	if errors.Is(err, chunkstore.ErrNotExist) {
		return nil // removed since it was listed
	}
	if err != nil {
		return err
	}
	for _, info := range list {
		sv.begin()
		_, err := v.Snapshot(ctx, info.Snapshot)
		if errors.Is(err, chunkstore.ErrNotExist) || errors.Is(err, wire.ErrBusy) {
			continue // removed, or being removed
		}
		if err != nil {
			return err
		}
		sv.dated(info)
		if sv.end(info.Snapshot, false) {
			if err := sv.mark(ctx, info); err != nil {
				return err
			}
		}
	}
	return nil
}

// look is how a chunk is proven here: the scrub has not found it damaged, and
// the store vouches for it. It is asked once for each chunk.
func (sv *storeCheck) look(ctx context.Context, w wanted) error {
	_, err := sv.s.Stat(ctx, w.key)
	switch {
	case errors.Is(err, chunkstore.ErrNotExist) && sv.bad[w.key] != nil:
		sv.report.Lost++
		return sv.bad[w.key]
	case errors.Is(err, chunkstore.ErrNotExist):
		sv.report.Missing++
		return fmt.Errorf("no %s chunk of %d bytes: %w", w.ref.Class, w.ref.Size, err)
	}
	return err
}

func (sv *storeCheck) begin() {
	sv.files, sv.order = make(map[string]*Affected), nil
	sv.lost, sv.missing = sv.report.Lost, sv.report.Missing
}

// found takes a problem of the snapshot at hand.
func (sv *storeCheck) found(p Problem) {
	a := sv.files[p.File]
	if a == nil {
		a = &Affected{File: p.File, First: p.ID, Err: p.Err}
		sv.files[p.File], sv.order = a, append(sv.order, p.File)
	}
	if p.ID.IsZero() {
		return
	}
	if a.First.IsZero() {
		a.First = p.ID
	}
	a.Chunks++
}

// end reports what was found in the snapshot at hand, and whether that was
// anything.
func (sv *storeCheck) end(snap wire.Snapshot, deleted bool) bool {
	sv.report.Snapshots++
	if len(sv.order) == 0 {
		return false
	}
	sv.report.Damaged++
	for _, name := range sv.order {
		a := *sv.files[name]
		a.Snapshot, a.Deleted = snap, deleted
		sv.affected(a)
	}
	return true
}

// mark writes down that a snapshot is damaged. One whose manifest is damaged
// itself cannot say so, and a store that is open for reading cannot either.
func (sv *storeCheck) mark(ctx context.Context, info wire.SnapshotInfo) error {
	if sv.o.NoMark || info.Verify != nil && info.Verify.State == wire.VerifyFailed {
		return nil
	}
	err := sv.s.SetVerifyState(ctx, info.Snapshot, wire.VerifyState{State: wire.VerifyFailed, UPID: sv.o.UPID})
	for _, no := range []error{chunkstore.ErrNotExist, chunkstore.ErrReadOnly, chunkstore.ErrCorrupt, chunkstore.ErrNoSpace, wire.ErrBusy} {
		if errors.Is(err, no) {
			return nil
		}
	}
	return err
}

// deleted looks at the indexes in the trash: those snapshots can be brought
// back.
func (sv *storeCheck) deleted(ctx context.Context, v *Verifier) error {
	list, err := sv.s.Indexes(ctx)
	if err != nil {
		return err
	}
	for i, f := range list {
		if !f.Deleted {
			continue
		}
		if i == 0 || list[i-1].Snapshot != f.Snapshot || !list[i-1].Deleted {
			sv.begin()
		}
		if err := sv.trashed(ctx, v, f); err != nil {
			return err
		}
		if i+1 == len(list) || list[i+1].Snapshot != f.Snapshot {
			sv.end(f.Snapshot, true)
		}
	}
	return nil
}

func (sv *storeCheck) trashed(ctx context.Context, v *Verifier, f datastore.IndexFile) error {
	idx, err := sv.s.OpenIndex(ctx, f)
	if errors.Is(err, chunkstore.ErrNotExist) {
		return nil // removed for good, or brought back
	}
	if err != nil {
		sv.found(Problem{File: f.Name, Err: err})
		return ctx.Err()
	}
	defer idx.Close()
	scope := sv.s.Scope(ctx, f)
	if scope.Doubt != nil {
		if !errors.Is(scope.Doubt, datastore.ErrNotNamed) && !sv.gone(ctx, f) {
			sv.found(Problem{File: f.Name, Err: scope.Doubt})
		}
		return ctx.Err()
	}
	sum := index.NewSummer(idx.Kind())
	for e, err := range idx.All(0) {
		if err != nil {
			sv.found(Problem{File: f.Name, Err: err})
			return nil
		}
		sum.Add(e)
		w := wanted{chunkstore.Ref{ID: e.ID, Size: e.Size, Class: scope.Class}, scope.Key(e)}
		done, bad := v.seen(w.key)
		if !done {
			bad = sv.look(ctx, w)
		}
		if bad != nil && sv.gone(ctx, f) {
			// Since it has been opened, and what it needed with it.
			sv.report.Lost, sv.report.Missing = sv.lost, sv.missing
			sv.begin()
			return nil
		}
		if !done {
			v.remember(w.key, bad)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if bad != nil {
			sv.found(Problem{File: f.Name, Off: e.Off, ID: e.ID, Err: bad})
		}
	}
	if err := idx.CheckStated(sum.Summary().Csum); err != nil {
		sv.found(Problem{File: f.Name, Err: err})
	}
	return nil
}

// gone reports whether an index has been removed for good.
func (sv *storeCheck) gone(ctx context.Context, f datastore.IndexFile) bool {
	idx, err := sv.s.OpenIndex(ctx, f)
	if err == nil {
		idx.Close()
	}
	return errors.Is(err, chunkstore.ErrNotExist)
}
