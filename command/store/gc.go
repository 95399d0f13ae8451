package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/urfave/cli/v2"

	"holdfast/client"
	"holdfast/command/repo"
	"holdfast/command/term"
	"holdfast/datastore"
	"holdfast/datastore/gc"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
)

// GC is holdfast gc.
func (r Room) GC() *cli.Command {
	return &cli.Command{
		Name: "gc", Usage: "free the space of chunks that no snapshot needs",
		Description: term.Describe(`Removes for good what has been in the trash for long enough, then reads the indexes of all
snapshots, those in the trash too, and removes the chunks that none of them refers to. Chunks lie in packs: one without any chunk in use is removed, one with much waste is written again without
it, one with little is left as it is. What running sessions count on stays, and so does what is
in packs that are still being filled. Backups and restores go on meanwhile. An index that cannot
be read ends the command before anything is removed. A server does it as a task, whose log is
shown; interrupting the command does not end the task. Packs that are left because they are
damaged end with exit status 65, a store without any snapshot with 77.`,
			"holdfast gc -r /srv/store --dry-run", "holdfast gc -r 'root@pam!admin@backup.lan:tank'"),
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "dry-run", Aliases: []string{"n"}, Usage: "show what would be done and remove nothing"},
			&cli.BoolFlag{Name: "allow-empty", Usage: "remove all chunks if there is no snapshot at all"},
		},
		Action: r.action(term.Takes(0, 0), runGC),
	}
}

// gcRecord is the result of a collection.
type gcRecord struct {
	MessageType string `json:"message_type"` // "summary"
	Operation   string `json:"operation"`    // "gc"
	DryRun      bool   `json:"dry_run"`
	Task        string `json:"task,omitempty"` // of a server
	*gcCounts
	*gcPacks
	Seconds float64 `json:"seconds"`
}

// gcCounts are what both kinds of repositories tell; a server does not tell
// them of a dry run. Sizes are in bytes.
type gcCounts struct {
	Archives      uint64 `json:"archives"` // whose indexes were read
	UsedChunks    uint64 `json:"used_chunks"`
	UsedBytes     uint64 `json:"used_bytes"`
	RemovedChunks uint64 `json:"removed_chunks"` // in a dry run the most it can be
	FreedBytes    uint64 `json:"freed_bytes"`
	KeptChunks    uint64 `json:"kept_chunks"` // without use, but still there
	KeptBytes     uint64 `json:"kept_bytes"`
	PacksLeft     uint64 `json:"packs_left"` // because of damage
}

// gcPacks is what can only be told beside the files of a repository.
type gcPacks struct {
	Snapshots      int      `json:"snapshots"`         // that have archives
	Deleted        int      `json:"snapshots_deleted"` // of them, those in the trash
	TrashRemoved   int      `json:"trash_removed"`     // have gone from the trash for good
	PacksRemoved   int      `json:"packs_removed"`
	PacksRewritten int      `json:"packs_rewritten"`
	WasteBytes     uint64   `json:"waste_bytes"` // of what is kept, in packs with little of it
	Left           []string `json:"left"`
}

func runGC(ctx context.Context, c *call) (err error) {
	begin := c.Now()
	s, err := c.repos.Open(ctx, repo.Write)
	if err != nil {
		return term.StateAt(ctx, err, "nothing has been removed")
	}
	defer repo.Closing(s, &err)
	rec := gcRecord{MessageType: "summary", Operation: "gc", DryRun: c.Flags.Bool("dry-run")}
	if s.Local != nil {
		err = c.gcHere(ctx, s.Local, &rec)
	} else {
		err = c.gcThere(ctx, s, &rec)
	}
	if err != nil {
		return err
	}
	rec.Seconds = term.Seconds(c.Now().Sub(begin))
	c.UI.Summary(rec, func(w io.Writer) { gcText(w, rec) })
	if rec.gcCounts != nil && rec.PacksLeft > 0 {
		return term.Hintf(fmt.Errorf("left as they are: %s: %w", term.Plural(int64(rec.PacksLeft), "pack"), repo.ErrDamage),
			"holdfast verify tells which snapshots are concerned")
	}
	return nil
}

// snapshotCounter is a store that counts the snapshots whose indexes it lists.
type snapshotCounter struct {
	*datastore.Store
	snapshots, deleted int
}

// Indexes implements gc.Store.
func (s *snapshotCounter) Indexes(ctx context.Context) ([]datastore.IndexFile, error) {
	list, err := s.Store.Indexes(ctx)
	there, deleted := make(map[wire.Snapshot]bool), make(map[wire.Snapshot]bool)
	for _, f := range list {
		if f.Deleted {
			deleted[f.Snapshot] = true
		} else if f.Snapshot != (wire.Snapshot{}) {
			there[f.Snapshot] = true
		}
	}
	s.snapshots, s.deleted = len(there)+len(deleted), len(deleted)
	return list, err
}

// gcHere collects in a repository that is a path.
func (c *call) gcHere(ctx context.Context, s *datastore.Store, rec *gcRecord) error {
	counter := &snapshotCounter{Store: s}
	o := gc.Options{DryRun: rec.DryRun, AllowEmpty: c.Flags.Bool("allow-empty"), Progress: new(gc.Progress)}
	stop := c.UI.Watch(ctx, gcStatus(o.Progress))
	r, err := gc.Collect(ctx, counter, o)
	stop()
	if err != nil {
		return term.StateAt(ctx, err, "what has been removed is gone, nothing in use is; the next run goes on")
	}
	rec.gcCounts = countsOf(r)
	rec.gcPacks = &gcPacks{
		Snapshots: counter.snapshots, Deleted: counter.deleted, TrashRemoved: r.TrashRemoved,
		PacksRemoved: r.PacksRemoved, PacksRewritten: r.PacksRewritten, WasteBytes: r.GarbageBytes, Left: term.NotNil(r.Left),
	}
	return nil
}

// countsOf translates a report. What is kept is what was without use and was
// not freed: exactly for chunks that were removed, and but for the heads of
// records for bytes.
func countsOf(r gc.Report) *gcCounts {
	n := &gcCounts{
		Archives: uint64(r.Indexes), UsedChunks: r.UsedChunks, UsedBytes: r.UsedBytes,
		RemovedChunks: r.ChunksRemoved, FreedBytes: less(r.BytesRemoved, r.BytesMoved),
		KeptChunks: less(r.Chunks-r.UsedChunks, r.ChunksRemoved), PacksLeft: uint64(len(r.Left)),
	}
	n.KeptBytes = less(r.StoredBytes-r.UsedBytes, n.FreedBytes)
	if n.KeptChunks == 0 && r.PacksDone == r.PacksTotal {
		n.KeptBytes = 0
	}
	return n
}

// less is a-b, and 0 where b is more.
func less(a, b uint64) uint64 { return a - min(a, b) }

func gcStatus(p *gc.Progress) func(*term.Status) {
	return func(s *term.Status) {
		s.Operation = "gc"
		s.Archives = &term.Count{Done: p.IndexesRun.Load(), Total: p.Indexes.Load()}
		if n := p.Packs.Load(); n > 0 {
			s.Archives, s.Packs = nil, &term.Count{Done: p.PacksDone.Load(), Total: n}
		}
	}
}

// gcThere has a server collect. Its log is shown as it is written; after a dry
// run that is all that a server tells.
func (c *call) gcThere(ctx context.Context, s *repo.Repository, rec *gcRecord) error {
	params := url.Values{}
	for _, flag := range []string{"dry-run", "allow-empty"} { // parameters of Holdfast
		if c.Flags.Bool(flag) {
			params.Set(flag, "true")
		}
	}
	if err := s.Remote.Do(ctx, client.Call{Op: api.StartGC, At: []string{s.Name.Datastore}, Params: params, Into: &rec.Task}); err != nil {
		return fmt.Errorf("collect garbage of %s: %w", s.Name, gcRunning(err))
	}
	show := func(line string) { c.UI.Notef("%s", line) }
	if rec.DryRun {
		show = func(line string) { repo.ShowLine(c.UI, line) }
	}
	if err := s.Remote.FollowTask(ctx, rec.Task, show); err != nil {
		err = fmt.Errorf("collect garbage of %s: %w", s.Name, err)
		return term.StateAt(ctx, err, "the server goes on; holdfast task stop "+rec.Task+" ends it")
	}
	if rec.DryRun {
		return nil
	}
	return c.gcTold(ctx, s, rec)
}

// gcTold asks a server for the numbers of the collection that has ended. If
// another has begun since there are none.
func (c *call) gcTold(ctx context.Context, s *repo.Repository, rec *gcRecord) error {
	var a api.Collection
	if err := s.Remote.Do(ctx, client.Call{Op: api.LastGC, At: []string{s.Name.Datastore}, Into: &a}); err != nil {
		return fmt.Errorf("result of the garbage collection: %w", err)
	}
	if a.UPID == nil || *a.UPID != rec.Task {
		return nil
	}
	rec.gcCounts = &gcCounts{
		Archives: a.IndexFileCount, UsedChunks: a.DiskChunks, UsedBytes: a.DiskBytes, RemovedChunks: a.RemovedChunks,
		FreedBytes: a.RemovedBytes, KeptChunks: a.PendingChunks, KeptBytes: a.PendingBytes, PacksLeft: a.StillBad,
	}
	return nil
}

// gcRunning recognises that another collection is running there.
func gcRunning(err error) error {
	if errors.Is(err, wire.ErrBusy) {
		return term.Hintf(err, "holdfast task list --running shows it")
	}
	return err
}

// gcText is the result for people.
func gcText(w io.Writer, r gcRecord) {
	if r.gcCounts == nil {
		return // the log has told it
	}
	if r.gcPacks != nil && r.TrashRemoved > 0 {
		fmt.Fprintf(w, "removed %s for good from the trash\n", term.Plural(int64(r.TrashRemoved), "snapshot"))
	}
	removed, packs := "removed ", ""
	if r.DryRun {
		removed = "would remove up to "
	}
	if p := r.gcPacks; p != nil {
		packs = fmt.Sprintf(": %s removed, %d rewritten", term.Plural(int64(p.PacksRemoved), "pack"), p.PacksRewritten)
	}
	fmt.Fprintf(w, "%s%s and free%s %s%s\n", removed, term.Plural(int64(r.RemovedChunks), "chunk"),
		map[bool]string{false: "d"}[r.DryRun], term.Bytes(int64(r.FreedBytes)), packs)
	by := term.Plural(int64(r.Archives), "archive")
	if r.gcPacks != nil { // nobody else works on it
		by += " of " + term.Plural(int64(r.Snapshots), "snapshot")
		if r.Deleted > 0 {
			by += fmt.Sprintf(" (%d in the trash)", r.Deleted)
		}
	} else {
		by += " or running sessions"
	}
	fmt.Fprintf(w, "in use by %s: %s, %s\n", by, term.Plural(int64(r.UsedChunks), "chunk"), term.Bytes(int64(r.UsedBytes)))
	gcKeptText(w, r)
	if r.gcPacks != nil {
		for _, why := range r.Left {
			fmt.Fprintf(w, "left as it is: %s\n", term.Printable(why))
		}
	}
}

// gcKeptText says what is kept though nothing needs it, and why.
func gcKeptText(w io.Writer, r gcRecord) {
	if r.KeptChunks == 0 && r.KeptBytes == 0 {
		return
	}
	var parts []string
	if r.KeptChunks > 0 {
		parts = append(parts, term.Plural(int64(r.KeptChunks), "chunk"))
	}
	if r.KeptBytes > 0 {
		parts = append(parts, "about "+term.Bytes(int64(r.KeptBytes)))
	}
	why := "in packs with little waste, or still being filled"
	if p := r.gcPacks; p != nil {
		switch {
		case p.WasteBytes == 0:
			why = "in packs that are still being filled"
		case p.WasteBytes >= r.KeptBytes:
			why = "in packs with little waste"
		default:
			why = term.Bytes(int64(p.WasteBytes)) + " in packs with little waste, the rest in packs still being filled"
		}
	}
	fmt.Fprintf(w, "kept without use: %s, %s\n", strings.Join(parts, ", "), why)
}
