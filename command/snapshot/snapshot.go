package snapshot

import (
	"context"
	"fmt"
	"iter"
	"strings"

	"github.com/urfave/cli/v2"

	"holdfast/chunkstore"
	"holdfast/command/repo"
	"holdfast/command/term"
	"holdfast/datastore/wire"
)

// Command is holdfast snapshot with its subcommands.
func (r Room) Command() *cli.Command {
	return &cli.Command{
		Name: "snapshot", Usage: "list, describe, protect and remove snapshots",
		Description: term.Describe(`Works on snapshots, which are named TYPE/ID/TIME. Where one is read, TYPE/ID/latest and
TYPE/ID are the newest one of the group; a change needs the exact time.`),
		Subcommands: []*cli.Command{
			r.listCommand(),
			r.filesCommand(),
			r.forgetCommand(),
			r.restoreDeletedCommand(),
			r.notesCommand(),
			r.protectedCommand(),
			r.protectCommand("protect", true),
			r.protectCommand("unprotect", false),
		},
	}
}

// snapshotRecord describes a snapshot.
type snapshotRecord struct {
	MessageType string       `json:"message_type"` // "snapshot"
	Namespace   string       `json:"ns"`
	Snapshot    string       `json:"snapshot"`
	Group       string       `json:"group"`
	Time        string       `json:"time"`
	Size        uint64       `json:"size"`
	Files       []fileRecord `json:"files"`
	Protected   bool         `json:"protected"`
	Notes       string       `json:"notes"`
	Fingerprint string       `json:"fingerprint,omitempty"`
	Damage      string       `json:"damage,omitempty"`
	Arrived     string       `json:"arrived,omitempty"`  // by the clock of the repository
	Misdated    bool         `json:"misdated,omitempty"` // time and arrived are more than five minutes apart
	Undated     bool         `json:"undated,omitempty"`  // it is lost when it arrived
}

// fileRecord describes a file of a snapshot.
type fileRecord struct {
	Name      string `json:"name"`
	CryptMode string `json:"crypt_mode"`
	Size      uint64 `json:"size"`
}

func (r Room) listCommand() *cli.Command {
	return &cli.Command{
		Name: "list", Usage: "list snapshots", ArgsUsage: "[GROUP]",
		Description: term.Describe(`Lists the finished snapshots of a group, or of all groups of the namespace, oldest first. One whose
name has another time than that at which the repository says it arrived, by more than five minutes, is
marked: ahead-of-time counts as of its arrival, backdated as of its name, and so does undated, of which
it is lost when it arrived.`,
			"holdfast snapshot list -r /srv/store vm/100", "holdfast snapshot list -r /srv/store --deleted"),
		Flags:  []cli.Flag{deletedFlag()},
		Action: r.action(term.Takes(0, 1), snapshotList),
	}
}

func snapshotList(ctx context.Context, c *call) error {
	s, err := c.repos.Open(ctx, repo.Read)
	if err != nil {
		return err
	}
	defer s.Close()
	if c.Flags.Bool("deleted") {
		return c.listDeleted(ctx, s)
	}
	list, err := c.snapshotsToList(ctx, s)
	if err != nil {
		return err
	}
	rows := [][]string{{"snapshot", "size", "key", "marks", "files", "notes"}}
	for i, err := range list {
		if err != nil {
			return repo.About("list snapshots", i.Snapshot.Group.NS, err)
		}
		if c.UI.JSON {
			c.UI.Result(newSnapshotRecord(i), nil)
		} else {
			rows = append(rows, snapshotRow(i))
		}
	}
	c.UI.Listing(rows, "no snapshots")
	return nil
}

// snapshotsToList are those of the group that was named, or of the namespace.
func (c *call) snapshotsToList(ctx context.Context, src wire.Source) (iter.Seq2[wire.SnapshotInfo, error], error) {
	if c.Arg(0) == "" {
		ns, err := c.repos.Namespace()
		return src.AllSnapshots(ctx, ns), err
	}
	g, err := c.repos.Group(c.Arg(0))
	if err != nil {
		return nil, err
	}
	return repo.InGroup(ctx, src, g), nil
}

func newSnapshotRecord(i wire.SnapshotInfo) snapshotRecord {
	r := snapshotRecord{
		MessageType: "snapshot", Namespace: string(i.Snapshot.Group.NS), Snapshot: i.Snapshot.String(),
		Group: i.Snapshot.Group.String(), Time: i.Snapshot.TimeString(), Size: i.Size, Files: []fileRecord{},
		Protected: i.Protected, Notes: i.Notes, Fingerprint: i.Fingerprint, Damage: i.Damage,
		Misdated: i.Dated().Misdated(), Undated: i.Undated,
	}
	if !i.Undated {
		r.Arrived = term.UnixTime(i.Arrived)
	}
	for _, f := range i.Files {
		r.Files = append(r.Files, fileRecord(f))
	}
	return r
}

func snapshotRow(i wire.SnapshotInfo) []string {
	var marks, files []string
	if i.Protected {
		marks = append(marks, "protected")
	}
	if i.Damage != "" {
		marks = append(marks, "damaged")
	}
	if mark := dateMark(i); mark != "" {
		marks = append(marks, mark)
	}
	for _, f := range i.Files {
		files = append(files, f.Name)
	}
	key := "-"
	if len(i.Fingerprint) >= 23 {
		key = i.Fingerprint[:23]
	}
	notes, _, _ := strings.Cut(i.Notes, "\n")
	return []string{
		repo.WithNamespace(i.Snapshot.Group.NS, i.Snapshot.String()), term.Bytes(int64(i.Size)), key,
		term.OrDash(strings.Join(marks, " ")), term.OrDash(strings.Join(files, " ")), notes,
	}
}

// dateMark tells how the time in the name of a snapshot and its arrival differ.
func dateMark(i wire.SnapshotInfo) string {
	switch d := i.Dated(); {
	case i.Undated:
		return "undated"
	case d.Ahead():
		return "ahead-of-time"
	case d.Misdated():
		return "backdated"
	}
	return ""
}

func (r Room) filesCommand() *cli.Command {
	return &cli.Command{
		Name: "files", Usage: "list the files of a snapshot", ArgsUsage: "SNAPSHOT",
		Description: term.Describe(`Lists the archives and small files that a snapshot holds, as its manifest names them.`,
			"holdfast snapshot files -r /srv/store vm/100/latest"),
		Action: r.action(term.Takes(1, 1), snapshotFiles),
	}
}

type fileLine struct {
	MessageType string `json:"message_type"` // "file"
	Snapshot    string `json:"snapshot"`
	fileRecord
}

func snapshotFiles(ctx context.Context, c *call) error {
	return c.repos.Reading(ctx, c.Arg(0), func(s *repo.Repository, snap wire.Snapshot) error {
		return c.listFiles(ctx, s, snap)
	})
}

func (c *call) listFiles(ctx context.Context, s *repo.Repository, snap wire.Snapshot) error {
	info, err := find(ctx, s, snap)
	if err != nil {
		return err
	}
	if info.Damage != "" {
		return fmt.Errorf("%w: %s", repo.ErrDamage, info.Damage)
	}
	rows := [][]string{{"file", "mode", "size"}}
	for _, f := range info.Files {
		rows = append(rows, []string{f.Name, f.CryptMode, term.Bytes(int64(f.Size))})
		if c.UI.JSON {
			c.UI.Result(fileLine{"file", snap.String(), fileRecord(f)}, nil)
		}
	}
	c.UI.Listing(rows, "no files")
	return nil
}

func (r Room) forgetCommand() *cli.Command {
	return &cli.Command{
		Name: "forget", Usage: "remove a snapshot", ArgsUsage: "SNAPSHOT",
		Description: term.Describe(`Removes a snapshot from the repository. Its exact time must be given; a protected snapshot is
refused. For the trash time of the repository it can be brought back with snapshot
restore-deleted. After that the space of chunks that no other snapshot needs is freed by
holdfast gc. With --now it is gone at once, also if it was removed before.`,
			"holdfast snapshot forget -r /srv/store vm/100/2026-11-22T02:00:00Z"),
		Flags:  []cli.Flag{nowFlag()},
		Action: r.action(term.Takes(1, 1), snapshotForget),
	}
}

type changeRecord struct {
	MessageType string `json:"message_type"` // "forgotten", "notes" or "protected"
	Namespace   string `json:"ns"`
	Snapshot    string `json:"snapshot"`
}

func snapshotForget(ctx context.Context, c *call) error {
	return c.repos.Changing(ctx, c.Arg(0), func(s *repo.Repository, snap wire.Snapshot) error { return c.forget(ctx, s, snap) })
}

// find returns what the listing says of a snapshot.
func find(ctx context.Context, src wire.Source, s wire.Snapshot) (wire.SnapshotInfo, error) {
	list, err := src.Snapshots(ctx, s.Group)
	if err != nil {
		return wire.SnapshotInfo{}, repo.About("list snapshots", s.Group.NS, err)
	}
	for _, i := range list {
		if i.Snapshot == s {
			return i, nil
		}
	}
	return wire.SnapshotInfo{}, fmt.Errorf("snapshot %s%s: %w", s, repo.Within(s.Group.NS), chunkstore.ErrNotExist)
}
