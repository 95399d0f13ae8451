package snapshot

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"

	"holdfast/chunkstore"
	"holdfast/client"
	"holdfast/command/repo"
	"holdfast/command/term"
	"holdfast/datastore"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
)

// trashBin is where removed snapshots stay for a while.
type trashBin interface {
	// Deleted lists them, the last one removed first. Those of a server are
	// the ones of the namespace.
	Deleted(ctx context.Context) ([]datastore.Deleted, error)
	// RestoreDeleted puts one back in its place.
	RestoreDeleted(ctx context.Context, snap wire.Snapshot) error
	// ForgetNow removes one for good, from its place or from the trash.
	ForgetNow(ctx context.Context, snap wire.Snapshot) error
}

// trash returns the trash of a repository.
func trash(s *repo.Repository, ns wire.Namespace) trashBin {
	if s.Local != nil {
		return s.Local
	}
	return remoteTrash{s, ns}
}

// remoteTrash is the trash of a datastore on a server. Only Holdfast's have one.
type remoteTrash struct {
	*repo.Repository
	ns wire.Namespace
}

// call calls the method of the trash.
func (r remoteTrash) call(ctx context.Context, op api.Op, params url.Values, into any) error {
	return r.Remote.Do(ctx, client.Call{Op: op, At: []string{r.Name.Datastore}, Params: params, Into: into})
}

func snapshotFields(s wire.Snapshot) url.Values {
	return repo.Fields("ns", string(s.Group.NS), "backup-type", s.Group.Type, "backup-id", s.Group.ID, "backup-time", strconv.FormatInt(s.Time, 10))
}

// Deleted implements trashBin.
func (r remoteTrash) Deleted(ctx context.Context) ([]datastore.Deleted, error) {
	var answer []api.DeletedItem
	if err := r.call(ctx, api.ListDeleted, repo.Fields("ns", string(r.ns)), &answer); err != nil {
		return nil, err
	}
	var list []datastore.Deleted
	for _, a := range answer {
		snap := wire.Snapshot{Group: wire.Group{NS: r.ns, Type: a.Type, ID: a.ID}, Time: a.Time}
		if err := snap.Validate(); err != nil {
			return nil, fmt.Errorf("the server's list: %w", err)
		}
		list = append(list, datastore.Deleted{
			Snapshot: snap, Owner: a.Owner, Time: a.Deleted, Left: time.Duration(a.Left) * time.Second, Protected: a.Protected,
		})
	}
	return list, nil
}

// RestoreDeleted implements trashBin.
func (r remoteTrash) RestoreDeleted(ctx context.Context, snap wire.Snapshot) error {
	return r.call(ctx, api.RestoreDeleted, snapshotFields(snap), nil)
}

// ForgetNow implements trashBin.
func (r remoteTrash) ForgetNow(ctx context.Context, snap wire.Snapshot) error {
	return r.call(ctx, api.DestroyDeleted, snapshotFields(snap), nil)
}

func (r Room) restoreDeletedCommand() *cli.Command {
	return &cli.Command{
		Name: "restore-deleted", Usage: "bring a removed snapshot back", ArgsUsage: "SNAPSHOT",
		Description: term.Describe(`Brings back a snapshot that was removed, by forget, by prune or with its group or namespace, with
its notes and the owner of its group. Snapshots that are removed stay for the trash time of the
repository, which holdfast init sets, and keep their chunks until the next holdfast gc after
that; snapshot list --deleted lists them. If several of that name were removed the last one
comes back.`,
			"holdfast snapshot restore-deleted -r /srv/store vm/100/2026-11-22T02:00:00Z"),
		Action: r.action(term.Takes(1, 1), snapshotRestoreDeleted),
	}
}

func snapshotRestoreDeleted(ctx context.Context, c *call) error {
	return c.repos.Changing(ctx, c.Arg(0), func(s *repo.Repository, snap wire.Snapshot) error {
		if err := trash(s, snap.Group.NS).RestoreDeleted(ctx, snap); err != nil {
			return fmt.Errorf("bring back%s: %w", repo.Within(snap.Group.NS), err)
		}
		c.UI.Done(changeRecord{"restored", string(snap.Group.NS), snap.String()}, "brought back %s%s", snap, repo.Within(snap.Group.NS))
		return nil
	})
}

func deletedFlag() cli.Flag {
	return &cli.BoolFlag{Name: "deleted", Usage: "list the snapshots that were removed and can be brought back"}
}

// deletedRecord is a snapshot that was removed.
type deletedRecord struct {
	MessageType string `json:"message_type"` // "deleted"
	Namespace   string `json:"ns"`
	Snapshot    string `json:"snapshot"`
	Group       string `json:"group"`
	Time        string `json:"time"`
	Owner       string `json:"owner,omitempty"`
	Deleted     string `json:"deleted"`      // when, by the clock of then
	LeftSeconds int64  `json:"left_seconds"` // it stays at least so long
	Protected   bool   `json:"protected"`
	Damage      string `json:"damage,omitempty"`
}

// listDeleted lists what is in the trash of a namespace, or of one group of it.
func (c *call) listDeleted(ctx context.Context, s *repo.Repository) error {
	ns, err := c.repos.Namespace()
	if err != nil {
		return err
	}
	var only wire.Group
	if c.Arg(0) != "" {
		if only, err = c.repos.Group(c.Arg(0)); err != nil {
			return err
		}
	}
	list, err := trash(s, ns).Deleted(ctx)
	if err != nil {
		return repo.About("list deleted snapshots", ns, err)
	}
	rows := [][]string{{"snapshot", "removed", "stays", "owner"}}
	for _, d := range list {
		if d.Damage != "" {
			c.UI.Warnf("a removed snapshot cannot be brought back: %s", d.Damage)
			continue
		}
		if g := d.Snapshot.Group; g.NS != ns || c.Arg(0) != "" && g != only {
			continue
		}
		rows = append(rows, c.deletedRow(d))
	}
	c.UI.Listing(rows, "no deleted snapshots")
	return nil
}

func (c *call) deletedRow(d datastore.Deleted) []string {
	name, when := d.Snapshot.String(), time.Unix(d.Time, 0).UTC().Format(time.RFC3339)
	if c.UI.JSON {
		c.UI.Result(deletedRecord{
			MessageType: "deleted", Namespace: string(d.Snapshot.Group.NS), Snapshot: name, Group: d.Snapshot.Group.String(),
			Time: d.Snapshot.TimeString(), Owner: string(d.Owner), Deleted: when, LeftSeconds: int64(d.Left / time.Second), Protected: d.Protected,
		}, nil)
	}
	stays := "until the next gc"
	switch {
	case d.Protected:
		stays = "protected"
	case d.Left > 0:
		stays = formatDays(d.Left)
	}
	return []string{repo.WithNamespace(d.Snapshot.Group.NS, name), when, stays, term.OrDash(string(d.Owner))}
}

// formatDays writes a time of the trash: days, or what is less.
func formatDays(d time.Duration) string {
	if days := int64((d + 30*time.Minute) / (24 * time.Hour)); days > 0 {
		return term.Plural(days, "day")
	}
	return term.Duration(d)
}

func nowFlag() cli.Flag {
	return &cli.BoolFlag{Name: "now", Usage: "remove it for good, from the trash too: it cannot be brought back"}
}

// forgottenRecord tells for how long a snapshot can be brought back; 0 is not
// at all, or not known.
type forgottenRecord struct {
	changeRecord
	RestorableSeconds int64 `json:"restorable_seconds"`
}

// forget removes a snapshot, for good if --now says so.
func (c *call) forget(ctx context.Context, s *repo.Repository, snap wire.Snapshot) error {
	bin := trash(s, snap.Group.NS)
	if c.Flags.Bool("now") {
		if err := bin.ForgetNow(ctx, snap); err != nil {
			return fmt.Errorf("forget%s: %w", repo.Within(snap.Group.NS), err)
		}
	} else if err := s.Forget(ctx, snap); err != nil {
		err = fmt.Errorf("forget%s: %w", repo.Within(snap.Group.NS), err)
		if errors.Is(err, chunkstore.ErrNoSpace) {
			return term.Hintf(err, repo.NoTrashRoom)
		}
		return err
	}
	rec := forgottenRecord{changeRecord: changeRecord{"forgotten", string(snap.Group.NS), snap.String()}}
	left := c.restorable(ctx, bin, snap)
	rec.RestorableSeconds = int64(left / time.Second)
	c.UI.Done(rec, "forgot %s%s", snap, repo.Within(snap.Group.NS))
	if left > 0 {
		c.UI.Notef("holdfast snapshot restore-deleted brings it back within %s", formatDays(left))
	}
	return nil
}

// restorable is how long a snapshot that was removed can be brought back. A
// server that is not Holdfast's has no answer, which is no error.
func (c *call) restorable(ctx context.Context, bin trashBin, snap wire.Snapshot) time.Duration {
	list, err := bin.Deleted(ctx)
	if err != nil {
		return 0
	}
	for _, d := range list { // the last one first
		if d.Snapshot == snap {
			return d.Left
		}
	}
	return 0
}
