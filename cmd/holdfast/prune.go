package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"

	"holdfast/chunkstore"
	"holdfast/client"
	"holdfast/datastore"
	"holdfast/datastore/prune"
	"holdfast/datastore/wire"
)

func (a *app) pruneCommand() *cli.Command {
	return &cli.Command{
		Name: "prune", Usage: "remove old snapshots of a group", ArgsUsage: "GROUP",
		Description: describe(`Keeps the snapshots that the options ask for, and protected ones, and removes all others. Each
option keeps the newest snapshot of every period until it has kept N; the options count in
the order last, hourly, daily, weekly (ISO weeks), monthly, yearly, and periods that an earlier
one has covered are not counted again. On a server its local time counts. The space of chunks
that no snapshot needs any more is freed by holdfast gc.`,
			"holdfast prune -r /srv/store vm/100 --keep-daily 7 --keep-weekly 4 --keep-monthly 12 --dry-run"),
		Flags:  append(keepFlags(), &cli.BoolFlag{Name: "dry-run", Aliases: []string{"n"}, Usage: "show what would be done and remove nothing"}),
		Action: a.action(arity{1, 1}, runPrune),
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

func runPrune(ctx context.Context, c *call) (err error) {
	g, err := c.group(c.arg(0))
	if err != nil {
		return err
	}
	keep, err := c.keep()
	if err != nil {
		return err
	}
	s, err := c.openRepository(ctx, openMode(c.flags.Bool("dry-run")))
	if err != nil {
		return err
	}
	defer closing(s, &err)
	var list []prune.Decision
	if s.local != nil {
		list, err = c.pruneHere(ctx, s.local, g, keep)
	} else {
		list, err = c.pruneThere(ctx, s, g, keep)
	}
	if err == nil || len(list) > 0 {
		c.printPruned(g, list)
	}
	return stateAt(ctx, err, "some snapshots may have been removed; the next run removes the rest")
}

// keep reads the options.
func (c *call) keep() (k prune.Keep, err error) {
	for _, f := range []struct {
		name string
		to   *int
	}{
		{"last", &k.Last}, {"hourly", &k.Hourly}, {"daily", &k.Daily}, {"weekly", &k.Weekly}, {"monthly", &k.Monthly}, {"yearly", &k.Yearly},
	} {
		n := c.flags.Uint("keep-" + f.name)
		if c.flags.IsSet("keep-"+f.name) && n == 0 {
			return k, usagef("--keep-%s 0: want at least 1; leave the option out to keep none for it", f.name)
		}
		*f.to = int(min(n, 1<<31-1))
	}
	if !k.Any() {
		c.ui.warnf("no --keep option is given: everything is kept")
	}
	return k, nil
}

// errPrune is returned when a snapshot could not be removed.
var errPrune = errors.New("not everything could be removed")

// pruneHere prunes a repository that is a path.
func (c *call) pruneHere(ctx context.Context, s *datastore.Store, g wire.Group, keep prune.Keep) ([]prune.Decision, error) {
	var failed error
	list, err := prune.Group(ctx, s, g, prune.Options{
		Keep: keep, DryRun: c.flags.Bool("dry-run"), Location: time.Local,
		Warn: func(err error) {
			c.ui.warnf("%v", err)
			failed = fmt.Errorf("%w: %w", errPrune, err)
		},
	})
	return list, errors.Join(err, failed)
}

// pruneThere has a server prune, which knows what else goes on there.
func (c *call) pruneThere(ctx context.Context, s *repository, g wire.Group, keep prune.Keep) ([]prune.Decision, error) {
	params := fields("backup-type", g.Type, "backup-id", g.ID, "ns", string(g.NS))
	for i, n := range []int{keep.Last, keep.Hourly, keep.Daily, keep.Weekly, keep.Monthly, keep.Yearly} {
		if n > 0 {
			params.Set("keep-"+keepNames[i], strconv.Itoa(n))
		}
	}
	if c.flags.Bool("dry-run") {
		params.Set("dry-run", "true")
	}
	var answer []struct {
		Time      int64 `json:"backup-time"`
		Keep      bool  `json:"keep"`
		Protected bool  `json:"protected"`
	}
	path := restPath("admin", "datastore", s.name.Datastore, "prune")
	if err := s.remote.Do(ctx, client.Call{Method: http.MethodPost, Path: path, Params: params, Into: &answer}); err != nil {
		return nil, fmt.Errorf("prune %s%s: %w", g, within(g.NS), err)
	}
	var list []prune.Decision
	for _, d := range answer {
		list = append(list, prune.Decision{Time: d.Time, Keep: d.Keep, Protected: d.Protected})
	}
	if c.flags.Bool("dry-run") {
		return list, nil
	}
	return list, left(ctx, s, g, list)
}

// left finds what a server was to remove and has not: it tells that in the log
// of a task only.
func left(ctx context.Context, s wire.Source, g wire.Group, list []prune.Decision) error {
	there := make(map[int64]bool)
	infos, err := s.Snapshots(ctx, g)
	if err != nil && !errors.Is(err, chunkstore.ErrNotExist) {
		return about("list snapshots", g.NS, err)
	}
	for _, i := range infos {
		there[i.Snapshot.Time] = true
	}
	for _, d := range list {
		if !d.Keep && there[d.Time] {
			return hintf(fmt.Errorf("%w: %s is still there", errPrune, wire.Snapshot{Group: g, Time: d.Time}), "holdfast task list shows the task, and its log the reason")
		}
	}
	return nil
}

func (c *call) printPruned(g wire.Group, list []prune.Decision) {
	rows := [][]string{{"snapshot", "decision", "reason"}}
	for _, d := range list {
		name := wire.Snapshot{Group: g, Time: d.Time}.String()
		word := map[bool]string{true: "keep", false: "remove"}[d.Keep]
		reason := d.Reason
		if reason == "" && d.Protected {
			reason = "protected"
		}
		rows = append(rows, []string{withNamespace(g.NS, name), word, reason})
		if c.ui.json {
			c.ui.result(pruneRecord{"pruned", string(g.NS), name, d.Keep, d.Protected, reason, c.flags.Bool("dry-run")}, nil)
		}
	}
	c.printTable(rows, "no snapshots")
}
