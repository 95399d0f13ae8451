package server

import (
	"fmt"
	"strings"

	"holdfast/datastore"
	"holdfast/datastore/access"
	"holdfast/datastore/server/ledger"
	"holdfast/datastore/server/rest"
	"holdfast/datastore/task"
	"holdfast/datastore/verify"
)

const (
	// scrubDamaged begins the lines about archives that cannot be restored
	// whole: holdfast verify knows them by it.
	scrubDamaged = "damaged: "
	// scrubNamesMax is how many damaged packs the log names.
	scrubNamesMax = 20
)

// startScrub begins to verify a whole datastore, the trash included: every byte
// of its packs, and every reference of its snapshots.
func startScrub(c *call) (any, error) {
	name := c.Str("store")
	for _, other := range []string{"ns", "backup-type", "backup-id", "backup-time", "max-depth", "ignore-verified", "outdated-after"} {
		if c.Has(other) {
			return nil, rest.BadRequest("parameter '%s' does not go with 'scrub', which is about a whole datastore", other)
		}
	}
	if err := c.require(access.DatastorePath(name, ""), c.may.Any); err != nil {
		return nil, err
	}
	st, err := c.checkable()
	if err != nil {
		return nil, err
	}
	s := c.server
	o := verify.StoreOptions{
		Rate: c.Int("rate", 0), Workers: int(c.Int("read-threads", 0)), Now: s.o.Now, Progress: new(verify.Progress),
	}
	if c.Has("older-than") {
		const day = 24 * 60 * 60
		o.Before = s.o.Now().Unix() - c.Int("older-than", 0)*day
	}
	payer := c.payer
	return c.spawn(st, task.Spec{Type: "verify", ID: name}, func(t *task.Task) error {
		done, err := s.verifyTurn(t, payer)
		if err != nil {
			return err
		}
		defer done()
		return s.scrub(t, st.Store, o)
	})
}

// verifyTurn waits until one more verification may run, one of each caller at a time;
// done ends it.
func (s *Server) verifyTurn(t *task.Task, p ledger.Payer) (done func(), err error) {
	hold, err := s.accounts.Verifying.Take(t.Context(), p, 1)
	if err != nil {
		return nil, err
	}
	return hold.Free, nil
}

// scrub verifies a whole datastore. That something is wrong with it is
// errVerification; damage that neither a backup nor anybody else needs to heal
// is a warning.
func (s *Server) scrub(t *task.Task, st *datastore.Store, o verify.StoreOptions) error {
	t.Logf("read every byte of datastore '%s'", t.UPID().ID)
	o.UPID = t.UPID().String()
	o.Found = func(a verify.Affected) { t.Logf("%s%s", scrubDamaged, describeAffected(a)) }
	stop := follow(t, func() string {
		return fmt.Sprintf("read %s of %s", size(uint64(o.Progress.Done.Load())), size(uint64(o.Progress.Total.Load())))
	})
	r, err := verify.Store(t.Context(), st, o)
	stop()
	describeScrub(t, r)
	if err != nil {
		t.Logf("not all was verified; what was read counts, and a run with older-than goes on there")
		return err
	}
	t.Logf("all references of %s were looked up: %s damaged or missing, %s cannot be restored whole",
		plural(uint64(r.Snapshots), "snapshot", "snapshots"), plural(r.Lost+r.Missing, "chunk is", "chunks are"),
		plural(uint64(r.Damaged), "snapshot", "snapshots"))
	return scrubVerdict(t, r)
}

// describeAffected tells of one archive what cannot be restored.
func describeAffected(a verify.Affected) string {
	var b strings.Builder
	if ns := a.Snapshot.Group.NS; ns != "" {
		fmt.Fprintf(&b, "%s:", ns)
	}
	fmt.Fprintf(&b, "%s %s", a.Name(), a.File)
	if a.Deleted {
		b.WriteString(" (in the trash)")
	}
	if a.Chunks > 0 {
		fmt.Fprintf(&b, ": %s, the first %s", plural(uint64(a.Chunks), "chunk", "chunks"), a.First)
	}
	fmt.Fprintf(&b, ": %v", a.Err)
	return b.String()
}

// describeScrub tells what was read.
func describeScrub(t *task.Task, report verify.StoreReport) {
	r := report.Scrub
	t.Logf("%s read with %s, %s; %d left out, as they were checked recently",
		plural(uint64(r.Packs), "pack", "packs"), plural(r.Chunks, "chunk", "chunks"), size(r.Bytes), r.PacksSkipped)
	if r.Retried > 0 {
		t.Warnf("%s went wrong and right when done again: look at the disk", plural(r.Retried, "read", "reads"))
	}
	if r.PacksDamaged > 0 {
		t.Warnf("%s damaged, with %s: %s", plural(uint64(r.PacksDamaged), "pack is", "packs are"),
			plural(r.Damaged, "damaged record", "damaged records"), strings.Join(r.Names[:min(len(r.Names), scrubNamesMax)], ", "))
	}
}

// scrubVerdict is how the task ends.
func scrubVerdict(t *task.Task, r verify.StoreReport) error {
	switch {
	case !r.Whole():
		t.Logf("the next backup of the same data heals what is damaged; holdfast repair, while the server is stopped, looks for other copies")
	case len(r.Owners) > 0:
		t.Logf("nobody can back up to a group whose owner cannot be read; holdfast repair, while the server is stopped, makes it anew")
	case len(r.Undated) > 0:
		t.Logf("snapshots of which it is lost when they arrived count as of the time in their names; holdfast repair, while the server is stopped, writes that down anew")
	case uint64(r.Scrub.PacksDamaged) > r.Scrub.Damaged: // there is one without a damaged record
		t.Logf("packs are missing, or damaged outside of their chunks; holdfast repair, while the server is stopped, rebuilds them")
	default:
		return nil
	}
	return errVerification
}
