package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/urfave/cli/v2"

	"holdfast/chunkstore"
	"holdfast/client"
	"holdfast/command/repo"
	"holdfast/command/term"
	"holdfast/datastore"
	"holdfast/datastore/prune"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
)

// Prune is holdfast prune.
func (r Room) Prune() *cli.Command {
	return &cli.Command{
		Name: "prune", Usage: "remove old snapshots of groups", ArgsUsage: "GROUP...",
		Description: term.Describe(`Keeps the snapshots that the options ask for, and protected ones, and removes all others. Each
option keeps the newest snapshot of every period until it has kept N; the options count in
the order last, hourly, daily, weekly (ISO weeks), monthly, yearly, and periods that an earlier
one has covered are not counted again. A snapshot that is empty, of a time that had not come when it
arrived, or not verified where others are, never makes a better one go.
Every group is pruned by itself. On a server its local time counts. What is removed stays in the trash for some days, unless --now says otherwise. The
space of chunks that no snapshot needs any more is freed by holdfast gc.`,
			"holdfast prune -r /srv/store vm/100 --keep-daily 7 --keep-weekly 4 --keep-monthly 12 --dry-run",
			"holdfast prune -r /srv/store --all --keep-daily 7 --keep-weekly 4"),
		Flags: append(keepFlags(),
			&cli.BoolFlag{Name: "all", Usage: "prune every group of the namespace"},
			&cli.BoolFlag{Name: "recursive", Usage: "with --all: prune the groups of the namespaces below, too"},
			&cli.BoolFlag{Name: "dry-run", Aliases: []string{"n"}, Usage: "show what would be done and remove nothing"},
			&cli.BoolFlag{Name: "now", Usage: "remove for good, without the trash: what is removed cannot be brought back"}),
		Action: r.action(term.Takes(0, -1), runPrune),
	}
}

// keepNames are the options in the order in which they count.
var keepNames = []string{"last", "hourly", "daily", "weekly", "monthly", "yearly"}

func keepFlags() []cli.Flag {
	var flags []cli.Flag
	for _, name := range keepNames {
		usage := "keep the newest snapshot of the last `N` " + map[string]string{
			"hourly": "hours", "daily": "days", "weekly": "weeks", "monthly": "months", "yearly": "years",
		}[name] + " that have one"
		if name == "last" {
			usage = "keep the last `N` snapshots"
		}
		flags = append(flags, &cli.UintFlag{Name: "keep-" + name, Usage: usage})
	}
	return flags
}

// pruneRecord is what was decided about one snapshot.
type pruneRecord struct {
	MessageType string `json:"message_type"` // "pruned"
	Namespace   string `json:"ns"`
	Snapshot    string `json:"snapshot"`
	Keep        bool   `json:"keep"`
	Protected   bool   `json:"protected"`
	Reason      string `json:"reason,omitempty"`
	DryRun      bool   `json:"dry_run"`
}

// pruned is what was decided about the snapshots of a group.
type pruned struct {
	group wire.Group
	list  []prune.Decision
}

func runPrune(ctx context.Context, c *call) (err error) {
	named, err := c.pruneArguments()
	if err != nil {
		return err
	}
	keep, err := c.keep()
	if err != nil {
		return err
	}
	mode := repo.Write
	if c.Flags.Bool("dry-run") {
		mode = repo.Read
	}
	s, err := c.repos.Open(ctx, mode)
	if err != nil {
		return err
	}
	defer repo.Closing(s, &err)
	if c.Flags.Bool("all") {
		if named, err = c.allGroups(ctx, s); err != nil {
			return err
		}
	}
	all, err := c.pruneGroups(ctx, s, named, keep)
	if err == nil || len(all) > 0 {
		c.printPruned(all)
	}
	return term.StateAt(ctx, err, "some snapshots may have been removed; the next run removes the rest")
}

// pruneArguments are the groups that the command names.
func (c *call) pruneArguments() ([]wire.Group, error) {
	switch all := c.Flags.Bool("all"); {
	case all && len(c.Args) > 0:
		return nil, term.Usagef("--all and names of groups exclude each other")
	case !all && len(c.Args) == 0:
		return nil, term.Hintf(term.Usagef("no group given"), "name groups as vm/100, or prune every one with --all")
	case !all && c.Flags.Bool("recursive"):
		return nil, term.Usagef("--recursive goes with --all")
	}
	var list []wire.Group
	for _, text := range c.Args {
		g, err := c.repos.Group(text)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(list, g) {
			list = append(list, g)
		}
	}
	return list, nil
}

// allGroups are the groups of the namespace, and of those below if asked for.
func (c *call) allGroups(ctx context.Context, src wire.Source) ([]wire.Group, error) {
	infos, err := c.repos.Groups(ctx, src, c.Flags.Bool("recursive"))
	var list []wire.Group
	for _, g := range infos {
		list = append(list, g.Group)
	}
	return list, err
}

// pruneGroups prunes groups and shows how far it is.
func (c *call) pruneGroups(ctx context.Context, s *repo.Repository, groups []wire.Group, keep prune.Keep) ([]pruned, error) {
	var done atomic.Int64
	stop := c.UI.Watch(ctx, func(st *term.Status) {
		st.Operation, st.Groups = "prune", &term.Count{Done: done.Load(), Total: int64(len(groups))}
	})
	defer stop()
	return eachGroup(ctx, groups, func(g wire.Group) ([]prune.Decision, error) {
		defer done.Add(1)
		return c.pruneGroup(ctx, s, g, keep)
	})
}

// eachGroup prunes one group after the other. One that fails does not keep the
// others from being pruned, unless they would fail alike.
func eachGroup(ctx context.Context, groups []wire.Group, do func(wire.Group) ([]prune.Decision, error)) (all []pruned, failed error) {
	for _, g := range groups {
		if ctx.Err() != nil {
			return all, errors.Join(failed, ctx.Err())
		}
		list, err := do(g)
		if err == nil || len(list) > 0 {
			all = append(all, pruned{g, list})
		}
		failed = errors.Join(failed, err)
		if repo.Unreachable(err) || errors.Is(err, wire.ErrUnauthenticated) {
			break
		}
	}
	return all, failed
}

func (c *call) pruneGroup(ctx context.Context, s *repo.Repository, g wire.Group, keep prune.Keep) ([]prune.Decision, error) {
	if s.Local != nil {
		return c.pruneHere(ctx, s.Local, g, keep)
	}
	return c.pruneThere(ctx, s, g, keep)
}

// keep reads the options.
func (c *call) keep() (k prune.Keep, err error) {
	for _, f := range []struct {
		name string
		to   *int
	}{
		{"last", &k.Last}, {"hourly", &k.Hourly}, {"daily", &k.Daily}, {"weekly", &k.Weekly}, {"monthly", &k.Monthly}, {"yearly", &k.Yearly},
	} {
		n := c.Flags.Uint("keep-" + f.name)
		if c.Flags.IsSet("keep-"+f.name) && n == 0 {
			return k, term.Usagef("--keep-%s 0: want at least 1; leave the option out to keep none for it", f.name)
		}
		*f.to = int(min(n, 1<<31-1))
	}
	if !k.Any() {
		c.UI.Warnf("none of --keep-last and the like is given: everything is kept")
	}
	return k, nil
}

// errPrune is returned when a snapshot could not be removed.
var errPrune = errors.New("not everything could be removed")

// pruneHere prunes a repository that is a path.
func (c *call) pruneHere(ctx context.Context, s *datastore.Store, g wire.Group, keep prune.Keep) ([]prune.Decision, error) {
	var failed error
	from := prune.Store(s)
	if c.Flags.Bool("now") {
		from = prune.ForGood(s)
	}
	list, err := prune.Group(ctx, from, g, prune.Options{
		Keep: keep, DryRun: c.Flags.Bool("dry-run"), Location: time.Local, Now: c.Now(),
		Warn: func(err error) {
			c.UI.Warnf("%v", err)
			failed = fmt.Errorf("%w: %w", errPrune, err)
		},
	})
	if errors.Is(err, chunkstore.ErrNoSpace) {
		err = nil // it has been told of
	}
	return list, c.noTrash(errors.Join(err, failed))
}

// noTrash adds the next step where a disk is too full for the trash.
func (c *call) noTrash(err error) error {
	if errors.Is(err, chunkstore.ErrNoSpace) && !c.Flags.Bool("now") {
		err = term.Hintf(err, repo.NoTrashRoom)
	}
	return err
}

// pruneThere has a server prune, which knows what else goes on there.
func (c *call) pruneThere(ctx context.Context, s *repo.Repository, g wire.Group, keep prune.Keep) ([]prune.Decision, error) {
	params := repo.Fields("backup-type", g.Type, "backup-id", g.ID, "ns", string(g.NS))
	for i, n := range []int{keep.Last, keep.Hourly, keep.Daily, keep.Weekly, keep.Monthly, keep.Yearly} {
		if n > 0 {
			params.Set("keep-"+keepNames[i], strconv.Itoa(n))
		}
	}
	if c.Flags.Bool("dry-run") {
		params.Set("dry-run", "true")
	}
	if c.Flags.Bool("now") {
		params.Set("now", "true")
	}
	var answer []api.PruneItem
	if err := s.Remote.Do(ctx, client.Call{Op: api.PruneGroup, At: []string{s.Name.Datastore}, Params: params, Into: &answer}); err != nil {
		return nil, c.noTrash(repo.OnlyHoldfast(fmt.Errorf("prune %s%s: %w", g, repo.Within(g.NS), err), pruneNowElsewhere))
	}
	var list []prune.Decision
	for _, d := range answer {
		list = append(list, prune.Decision{Time: d.Time, Keep: d.Keep, Protected: d.Protected})
	}
	if c.Flags.Bool("dry-run") {
		return list, nil
	}
	return list, left(ctx, s, g, list)
}

// pruneNowElsewhere is the next step where a server has no prune for good.
const pruneNowElsewhere = "only servers of Holdfast can, from this version on; run it without --now"

// left finds what a server was to remove and has not: it tells that in the log
// of a task only.
func left(ctx context.Context, s wire.Source, g wire.Group, list []prune.Decision) error {
	there := make(map[int64]bool)
	infos, err := s.Snapshots(ctx, g)
	if err != nil && !errors.Is(err, chunkstore.ErrNotExist) {
		return repo.About("list snapshots", g.NS, err)
	}
	for _, i := range infos {
		there[i.Snapshot.Time] = true
	}
	for _, d := range list {
		if !d.Keep && there[d.Time] {
			return term.Hintf(fmt.Errorf("%w: %s is still there", errPrune, wire.Snapshot{Group: g, Time: d.Time}), "holdfast task list shows the task, and its log the reason")
		}
	}
	return nil
}

func (c *call) printPruned(all []pruned) {
	rows := [][]string{{"snapshot", "decision", "reason"}}
	for _, p := range all {
		for _, d := range p.list {
			rows = append(rows, c.prunedRow(p.group, d))
		}
	}
	c.UI.Listing(rows, "no snapshots")
}

// prunedRow is the row of a snapshot, which has been printed if it is to be
// printed as JSON.
func (c *call) prunedRow(g wire.Group, d prune.Decision) []string {
	name := wire.Snapshot{Group: g, Time: d.Time}.String()
	word := map[bool]string{true: "keep", false: "remove"}[d.Keep]
	reason := d.Reason
	if reason == "" && d.Protected {
		reason = "protected"
	}
	if c.UI.JSON {
		c.UI.Result(pruneRecord{"pruned", string(g.NS), name, d.Keep, d.Protected, reason, c.Flags.Bool("dry-run")}, nil)
	}
	return []string{repo.WithNamespace(g.NS, name), word, reason}
}
