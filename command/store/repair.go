package store

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"holdfast/command/repo"
	"holdfast/command/term"
	"holdfast/datastore"
	"holdfast/datastore/verify"
)

// Repair is holdfast repair.
func (r Room) Repair() *cli.Command {
	return &cli.Command{
		Name: "repair", Usage: "rebuild what can be rebuilt of a damaged repository",
		Description: term.Describe(`Verifies a repository that is a directory, as holdfast verify --store does, and rebuilds what can be
rebuilt from what is there: a lost configuration, the catalogue, damaged chunks of which there
is another copy, packs that have lost their table, the owner of a group, the arrival of a snapshot. Nothing is removed, and a repository
that is whole is not changed. What cannot be rebuilt is listed and ends with exit status
65: the next backup of the same data heals it. Nobody else may use the repository meanwhile;
stop the server whose datastore it is.`,
			"holdfast repair -r /srv/store"),
		Action: r.action(term.Takes(0, 0), runRepair),
	}
}

// repairRecord is the last line.
type repairRecord struct {
	MessageType   string `json:"message_type"` // "summary"
	Operation     string `json:"operation"`    // "repair"
	Healthy       bool   `json:"healthy"`      // nothing was wrong, and nothing was changed
	Whole         bool   `json:"whole"`        // every snapshot can be restored now
	Configuration bool   `json:"configuration_rebuilt"`
	Catalogue     bool   `json:"catalogue_rebuilt"`
	PacksDamaged  int    `json:"packs_damaged"`
	Snapshots     int    `json:"snapshots"`
	DamagedBefore int    `json:"damaged_before"` // snapshots
	DamagedAfter  int    `json:"damaged_after"`
	LostChunks    uint64 `json:"lost_chunks"` // that snapshots still need
	Rescued       int    `json:"chunks_rescued"`
	Renewed       int    `json:"packs_renewed"`
	Owners        int    `json:"owners_rebuilt"`   // of groups
	Dated         int    `json:"arrivals_rebuilt"` // of snapshots
	// Notes are what was done, opened what the opening of the repository has
	// put right before anything else could be looked at.
	Notes   []string `json:"notes"`
	opened  []string
	Seconds float64 `json:"seconds"`
}

func runRepair(ctx context.Context, c *call) error {
	begin := c.Now()
	r, err := c.repos.Name()
	if err != nil {
		return err
	}
	if !r.IsPath() {
		return term.Hintf(term.Usagef("holdfast repair works on repositories that are a path; %s is on a server", r),
			"run it on the server's machine while the server is stopped, with -r and the path of the datastore; holdfast verify --store works from here")
	}
	o := verify.RepairOptions{LockWait: c.repos.LockWait(), Progress: new(verify.Progress)}
	notes := []string{}
	o.Notify = func(text string) {
		notes = append(notes, text)
		c.UI.Notef("%s", text)
	}
	stop := c.UI.Watch(ctx, func(st *term.Status) {
		st.Operation = "repair"
		st.BytesDone, st.BytesTotal = o.Progress.Done.Load(), o.Progress.Total.Load()
	})
	report, err := verify.Repair(ctx, r.Path, o)
	stop()
	if errors.Is(err, datastore.ErrNoStore) {
		return term.Hintf(err, "there is nothing to repair; a new one is made with: holdfast init %s", r)
	}
	if err != nil {
		return term.StateAt(ctx, err, "nothing has been removed; run it once more")
	}
	rec := repairRecordOf(report, notes)
	rec.Seconds = term.Seconds(c.Now().Sub(begin))
	for _, a := range report.After.Affected {
		c.affected(a)
	}
	c.UI.Summary(rec, func(w io.Writer) { repairText(w, rec) })
	if !report.After.Whole() {
		return term.Hintf(fmt.Errorf("%w that could not be repaired, in %d of %s", repo.ErrDamage, rec.DamagedAfter, term.Plural(int64(rec.Snapshots), "snapshot")),
			"the next backup of the same data heals it, if the data is still there; what nothing can heal: holdfast snapshot forget")
	}
	if n := len(report.After.Owners); n > 0 {
		return fmt.Errorf("%w: the owner of %s cannot be read", repo.ErrDamage, term.Plural(int64(n), "group"))
	}
	if n := len(report.After.Undated); n > 0 {
		return fmt.Errorf("%w: it cannot be read when %s arrived", repo.ErrDamage, term.Plural(int64(n), "snapshot"))
	}
	return nil
}

// repairRecordOf translates a report.
func repairRecordOf(r verify.RepairReport, notes []string) repairRecord {
	opened := notes
	if r.Configured { // the first of them tells that
		opened = notes[1:]
	}
	if r.Changed || len(r.Owners) > 0 || r.Dated > 0 {
		opened = nil
	}
	return repairRecord{
		MessageType: "summary", Operation: "repair",
		Healthy: !r.Changed && !r.Configured && len(notes) == 0 && r.Dated == 0, Whole: r.After.Whole(), Owners: len(r.Owners), Dated: r.Dated,
		Configuration: r.Configured, Catalogue: r.Changed, PacksDamaged: r.Before.Scrub.PacksDamaged,
		Snapshots: r.After.Snapshots, DamagedBefore: r.Before.Damaged, DamagedAfter: r.After.Damaged, LostChunks: r.After.Lost + r.After.Missing,
		Rescued: r.Salvage.Rescued, Renewed: r.Salvage.Renewed, Notes: notes, opened: opened,
	}
}

// repairText is the result for people.
func repairText(w io.Writer, r repairRecord) {
	if r.Healthy {
		fmt.Fprintf(w, "nothing is wrong (%s), and nothing was changed\n", term.Plural(int64(r.Snapshots), "snapshot"))
		return
	}
	if r.PacksDamaged+r.DamagedBefore > 0 {
		fmt.Fprintf(w, "found: %s damaged, %s with damage\n", term.Plural(int64(r.DamagedBefore), "snapshot"), term.Plural(int64(r.PacksDamaged), "pack"))
	}
	if r.Configuration {
		fmt.Fprintf(w, "rebuilt: the configuration; the trash time is %d days again\n", datastore.TrashDaysDefault)
	}
	if r.Owners > 0 {
		fmt.Fprintf(w, "rebuilt: the owner of %s\n", term.Plural(int64(r.Owners), "group"))
	}
	if r.Dated > 0 {
		fmt.Fprintf(w, "rebuilt: when %s arrived, by the time in the name\n", term.Plural(int64(r.Dated), "snapshot"))
	}
	for _, note := range r.opened {
		fmt.Fprintf(w, "put right: %s\n", term.Printable(note))
	}
	if r.Catalogue {
		fmt.Fprintf(w, "rebuilt: the catalogue; %s and %s were written anew from other copies\n",
			term.Plural(int64(r.Rescued), "damaged chunk"), term.Plural(int64(r.Renewed), "pack"))
	}
	switch {
	case r.DamagedAfter > 0:
		fmt.Fprintf(w, "left: %d of %s damaged, for want of %s\n",
			r.DamagedAfter, term.Plural(int64(r.Snapshots), "snapshot"), term.Plural(int64(r.LostChunks), "chunk"))
	case r.PacksDamaged > 0:
		fmt.Fprintf(w, "%s, all whole; what is damaged in packs is needed by none, and holdfast gc removes it in time\n", term.Plural(int64(r.Snapshots), "snapshot"))
	default:
		fmt.Fprintf(w, "%s, all whole\n", term.Plural(int64(r.Snapshots), "snapshot"))
	}
}
