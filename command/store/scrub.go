package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"holdfast/chunkstore"
	"holdfast/client"
	"holdfast/command/repo"
	"holdfast/command/term"
	"holdfast/datastore"
	"holdfast/datastore/verify"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
)

// affectedRecord is an archive that cannot be restored whole.
type affectedRecord struct {
	MessageType string `json:"message_type"` // "affected"
	Namespace   string `json:"ns"`
	Snapshot    string `json:"snapshot"` // or the group whose file it is
	Deleted     bool   `json:"deleted"`  // it is in the trash
	File        string `json:"file"`
	Chunks      int64  `json:"chunks"`          // damaged or missing; 0 if it is the file itself
	Chunk       string `json:"chunk,omitempty"` // the first of them
	Message     string `json:"message"`
}

// scrubSummary is the last line of verify --store.
type scrubSummary struct {
	MessageType string `json:"message_type"` // "summary"
	Operation   string `json:"operation"`    // "verify_store"
	Task        string `json:"task,omitempty"`
	*scrubCounts
	Seconds float64 `json:"seconds"`
}

// scrubCounts is what can only be told beside the files of a repository.
type scrubCounts struct {
	Packs         int      `json:"packs"`         // read
	PacksSkipped  int      `json:"packs_skipped"` // checked recently
	PacksDamaged  int      `json:"packs_damaged"`
	DamagedPacks  []string `json:"damaged_packs"` // the first of them
	Chunks        uint64   `json:"chunks"`
	Bytes         uint64   `json:"bytes"`
	Retried       uint64   `json:"reads_retried"`
	Snapshots     int      `json:"snapshots"` // in the trash, too
	Damaged       int      `json:"damaged"`
	LostChunks    uint64   `json:"lost_chunks"`    // damaged
	MissingChunks uint64   `json:"missing_chunks"` // not there, or found damaged before
	// OldestCheck is the least date of a good check of all sealed packs.
	OldestCheck    string `json:"oldest_check,omitempty"`
	PacksUnchecked int    `json:"packs_unchecked"` // sealed, without such a date
	// DatesKept tells that the dates of this run will count for the next.
	DatesKept bool `json:"dates_kept"`
}

// scrubOrder is what the flags say.
type scrubOrder struct {
	aged bool // --older-than is given
	days uint
	rate int64 // bytes in a second, 0 for no bound
}

// scrubOrder reads the flags of verify --store.
func (c *call) scrubOrder() (o scrubOrder, err error) {
	if c.Arg(0) != "" {
		return o, term.Hintf(term.Usagef("--store is about the whole repository; %s is a part of it", term.Printable(c.Arg(0))), "leave out one of the two")
	}
	for _, name := range []string{"keyfile", "ns"} {
		if c.Flags.IsSet(name) {
			return o, term.Usagef("--store is about all that is stored and needs no key: leave out --%s", name)
		}
	}
	o.aged, o.days = c.Flags.IsSet("older-than"), c.Flags.Uint("older-than")
	if o.days > api.ScrubDaysMax {
		return o, term.Usagef("--older-than %d: want 0 to %d", o.days, api.ScrubDaysMax)
	}
	o.rate, err = repo.Rate(c.Given, "limit")
	if err == nil && o.rate < 0 {
		err = term.Usagef("--limit: must not be negative")
	}
	return o, err
}

// verifyStore is verify --store.
func (c *call) verifyStore(ctx context.Context) error {
	begin := c.Now()
	o, err := c.scrubOrder()
	if err != nil {
		return err
	}
	r, err := c.repos.Name()
	if err != nil {
		return err
	}
	rec := scrubSummary{MessageType: "summary", Operation: "verify_store"}
	finish := func() {
		rec.Seconds = term.Seconds(c.Now().Sub(begin))
		c.UI.Summary(rec, func(w io.Writer) { scrubText(w, rec) })
	}
	if !r.IsPath() {
		return c.scrubThere(ctx, o, &rec, finish)
	}
	return c.scrubHere(ctx, o, &rec, finish)
}

// openScrub opens a path so that marks and dates can be written, if it is free
// and can be written to.
func (c *call) openScrub(ctx context.Context) (s *datastore.Store, kept bool, err error) {
	s, err = c.repos.OpenLocal(ctx, repo.Write)
	if err == nil || ctx.Err() != nil || !term.IsAny(err, chunkstore.ErrLocked, chunkstore.ErrReadOnly, fs.ErrPermission, syscall.EROFS) {
		return s, true, err
	}
	only, rerr := c.repos.OpenLocal(ctx, repo.Read)
	if rerr != nil {
		return nil, false, err
	}
	c.UI.Warnf("what is found is told, but neither marked nor dated: %v", err)
	return only, false, nil
}

// scrubHere verifies a repository that is a path.
func (c *call) scrubHere(ctx context.Context, o scrubOrder, rec *scrubSummary, finish func()) (err error) {
	s, kept, err := c.openScrub(ctx)
	if err != nil {
		return term.StateAt(ctx, err, "nothing has been checked")
	}
	defer repo.Closing(s, &err)
	so := verify.StoreOptions{Rate: o.rate, Now: c.Now, Progress: new(verify.Progress), NoMark: !kept, Found: c.affected}
	if o.aged {
		so.Before = c.Now().Add(-time.Duration(o.days) * 24 * time.Hour).Unix()
	}
	stop := c.UI.Watch(ctx, func(st *term.Status) {
		st.Operation = "verify_store"
		st.BytesDone, st.BytesTotal = so.Progress.Done.Load(), so.Progress.Total.Load()
	})
	r, err := verify.Store(ctx, s, so)
	stop()
	if err != nil {
		return term.StateAt(ctx, err, scrubState(r, kept))
	}
	rec.scrubCounts = countsOfScrub(r, kept)
	if err := c.scrubDates(ctx, s, rec.scrubCounts); err != nil {
		return err
	}
	finish()
	return scrubVerdict(r, kept)
}

// countsOfScrub translates a report.
func countsOfScrub(r verify.StoreReport, kept bool) *scrubCounts {
	return &scrubCounts{
		Packs: r.Scrub.Packs, PacksSkipped: r.Scrub.PacksSkipped, PacksDamaged: r.Scrub.PacksDamaged, DamagedPacks: term.NotNil(r.Scrub.Names),
		Chunks: r.Scrub.Chunks, Bytes: r.Scrub.Bytes, Retried: r.Scrub.Retried, Snapshots: r.Snapshots, Damaged: r.Damaged,
		LostChunks: r.Lost, MissingChunks: r.Missing, DatesKept: kept,
	}
}

// scrubDates looks up when what is there was last found good.
func (c *call) scrubDates(ctx context.Context, s *datastore.Store, n *scrubCounts) error {
	list, err := s.Packs(ctx)
	if err != nil {
		return err
	}
	var oldest int64
	for _, p := range list {
		switch {
		case !p.Sealed || p.Missing:
		case p.Checked == 0:
			n.PacksUnchecked++
		case oldest == 0 || p.Checked < oldest:
			oldest = p.Checked
		}
	}
	n.OldestCheck = term.UnixTime(oldest)
	return nil
}

// scrubState says what an interrupted run has done.
func scrubState(r verify.StoreReport, kept bool) string {
	s := r.Scrub
	text := fmt.Sprintf("%s and %s of %s were read, %d of the packs are damaged", term.Plural(int64(s.Packs), "pack"),
		term.Bytes(int64(s.Bytes)), term.Bytes(int64(s.BytesTotal)), s.PacksDamaged)
	if kept {
		return text + "; that is kept, and the next run with --older-than 1 goes on there"
	}
	return text + "; the next run begins anew"
}

// affected prints an archive that cannot be restored whole.
func (c *call) affected(a verify.Affected) {
	ns := a.Snapshot.Group.NS
	rec := affectedRecord{
		MessageType: "affected", Namespace: string(ns), Snapshot: a.Name(), Deleted: a.Deleted,
		File: a.File, Chunks: a.Chunks, Message: a.Err.Error(),
	}
	what := ""
	if a.Chunks > 0 {
		rec.Chunk = a.First.String()
		what = fmt.Sprintf(": %s, the first %s", term.Plural(a.Chunks, "chunk"), a.First.Short())
	}
	if a.Deleted {
		what = " (in the trash)" + what
	}
	c.UI.Result(rec, func(w io.Writer) {
		fmt.Fprintf(w, "%s %s%s: %s\n", repo.WithNamespace(ns, rec.Snapshot), a.File, what, term.Printable(rec.Message))
	})
}

// scrubVerdict is how verify --store ends. Damaged records that nobody reads any
// more, because a backup has stored their chunks anew, are no failure.
func scrubVerdict(r verify.StoreReport, kept bool) error {
	switch {
	case !r.Whole() && !kept:
		return term.Hintf(fmt.Errorf("%w in %d of %s", repo.ErrDamage, r.Damaged, term.Plural(int64(r.Snapshots), "snapshot")),
			"run it once more when the repository is free, so that the next backup of the same data heals what is damaged")
	case !r.Whole():
		return term.Hintf(fmt.Errorf("%w in %d of %s", repo.ErrDamage, r.Damaged, term.Plural(int64(r.Snapshots), "snapshot")),
			"the next backup of the same data heals it, if the data is still there; holdfast repair looks for other copies; look at the disk, too")
	case len(r.Owners) > 0:
		return term.Hintf(fmt.Errorf("%w: the owner of %s cannot be read, and nobody can back up to it", repo.ErrDamage, term.Plural(int64(len(r.Owners)), "group")),
			"holdfast repair makes it anew; every snapshot can be restored")
	case len(r.Undated) > 0:
		return term.Hintf(fmt.Errorf("%w: it cannot be read when %s arrived", repo.ErrDamage, term.Plural(int64(len(r.Undated)), "snapshot")),
			"holdfast repair writes it down anew; every snapshot can be restored")
	case packsWorn(r):
		return term.Hintf(fmt.Errorf("%w in packs, but every snapshot can be restored", repo.ErrDamage),
			"holdfast repair rebuilds them, and holdfast gc removes what is left over; look at the disk, too")
	}
	return nil
}

// packsWorn reports whether a pack is missing, or damaged outside of its
// records, though no snapshot suffers from it yet.
func packsWorn(r verify.StoreReport) bool { return uint64(r.Scrub.PacksDamaged) > r.Scrub.Damaged }

// scrubText is the result for people.
func scrubText(w io.Writer, r scrubSummary) {
	n := r.scrubCounts
	if n == nil {
		return // the log has told it
	}
	fmt.Fprintf(w, "read %s with %s, %s in %s", term.Plural(int64(n.Packs), "pack"), term.Plural(int64(n.Chunks), "chunk"),
		term.Bytes(int64(n.Bytes)), term.Duration(term.FromSeconds(r.Seconds)))
	if n.PacksSkipped > 0 {
		fmt.Fprintf(w, "; %s left out", term.Plural(int64(n.PacksSkipped), "pack"))
	}
	fmt.Fprintf(w, "\n%s: %d damaged", term.Plural(int64(n.Snapshots), "snapshot"), n.Damaged)
	if lost := n.LostChunks + n.MissingChunks; lost > 0 {
		fmt.Fprintf(w, ", for want of %s", term.Plural(int64(lost), "chunk"))
	}
	fmt.Fprintln(w)
	if n.PacksDamaged > 0 {
		fmt.Fprintf(w, "%s with damage: %s\n", term.Plural(int64(n.PacksDamaged), "pack"), term.Printable(someOf(n.DamagedPacks)))
		if n.Damaged == 0 {
			fmt.Fprintln(w, "no snapshot needs what is damaged there")
		}
	}
	if n.Retried > 0 {
		fmt.Fprintf(w, "%s went wrong and right when done again: look at the disk\n", term.Plural(int64(n.Retried), "read"))
	}
	if n.OldestCheck != "" && n.DatesKept {
		fmt.Fprintf(w, "everything was found good since %s", n.OldestCheck)
		if n.PacksUnchecked > 0 {
			fmt.Fprintf(w, ", but for %s", term.Plural(int64(n.PacksUnchecked), "pack"))
		}
		fmt.Fprintln(w)
	}
}

// someOf names the first of some things.
func someOf(names []string) string {
	const most = 20
	if len(names) > most {
		return strings.Join(names[:most], ", ") + " and more"
	}
	return strings.Join(names, ", ")
}

// scrubElsewhere is the next step where a server has no scrub.
const scrubElsewhere = "only servers of Holdfast can, from this version on; without --store everything is read over the network"

// scrubDamaged begins the lines of a server's log that are about archives.
const scrubDamaged = "damaged: "

// scrubThere has a server verify its datastore. The log is shown as it is
// written; it is all that a server tells.
func (c *call) scrubThere(ctx context.Context, o scrubOrder, rec *scrubSummary, finish func()) error {
	s, err := c.repos.Open(ctx, repo.Write)
	if err != nil {
		return term.StateAt(ctx, err, "nothing has been checked")
	}
	defer s.Close()
	params := url.Values{"scrub": {"true"}} // a parameter of Holdfast, as the others are
	if o.aged {
		params.Set("older-than", strconv.FormatUint(uint64(o.days), 10))
	}
	if o.rate > 0 {
		params.Set("rate", strconv.FormatInt(o.rate, 10))
	}
	if err := s.Remote.Do(ctx, client.Call{Op: api.Verify, At: []string{s.Name.Datastore}, Params: params, Into: &rec.Task}); err != nil {
		return fmt.Errorf("verify %s: %w", s.Name, repo.OnlyHoldfast(err, scrubElsewhere))
	}
	err = s.Remote.FollowTask(ctx, rec.Task, c.scrubLine)
	if ctx.Err() != nil {
		return term.StateAt(ctx, err, "the server goes on; holdfast task stop "+rec.Task+" ends it")
	}
	if err == nil || verificationFailed(err) {
		finish()
	}
	if err != nil {
		return scrubEnded(fmt.Errorf("verify %s: %w", s.Name, err))
	}
	return nil
}

// scrubLine shows a line of the log: what is about archives is a result.
func (c *call) scrubLine(line string) {
	if !strings.HasPrefix(line, scrubDamaged) {
		c.UI.Notef("%s", line)
		return
	}
	repo.ShowLine(c.UI, line)
}

// verificationFailed reports whether a task has found damage.
func verificationFailed(err error) bool { return errors.Is(err, wire.ErrVerification) }

// scrubEnded recognises the end of a task that has found damage.
func scrubEnded(err error) error {
	if !verificationFailed(err) {
		return err
	}
	return term.Hintf(term.Meaning(err, repo.ErrDamage),
		"the next backup of the same data heals what is damaged; holdfast repair, on the server's machine while the server is stopped, looks for other copies")
}
