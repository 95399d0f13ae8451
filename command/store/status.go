package store

import (
	"context"
	"fmt"
	"io"
	"iter"

	"github.com/urfave/cli/v2"

	"holdfast/client"
	"holdfast/command/repo"
	"holdfast/command/term"
	"holdfast/datastore"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
)

// Status is holdfast status.
func (r Room) Status() *cli.Command {
	return &cli.Command{
		Name: "status", Usage: "show how full the repository is",
		Description: term.Describe(`Counts groups, snapshots, chunks and packs in all namespaces, and shows the space they take and
what the file system has left. A server does not tell about chunks and packs.`,
			"holdfast status -r /srv/store"),
		Action: r.action(term.Takes(0, 0), runStatus),
	}
}

// repositoryRecord describes a repository.
type repositoryRecord struct {
	MessageType  string `json:"message_type"` // "repository"
	Repository   string `json:"repository"`
	Groups       int    `json:"groups"`
	Snapshots    int    `json:"snapshots"`
	Undated      int    `json:"snapshots_undated,omitempty"` // it is lost when they arrived
	LogicalBytes uint64 `json:"logical_bytes"`
	*chunkCounts
	DiskTotal uint64 `json:"disk_total"`
	DiskUsed  uint64 `json:"disk_used"`
	DiskAvail uint64 `json:"disk_avail"`
}

// chunkCounts is what can only be told beside the files of a repository.
type chunkCounts struct {
	Chunks       uint64 `json:"chunks"`
	PlainBytes   uint64 `json:"plain_bytes"`
	StoredBytes  uint64 `json:"stored_bytes"`
	Packs        int    `json:"packs"`
	MissingPacks int    `json:"missing_packs"`
}

func runStatus(ctx context.Context, c *call) error {
	s, err := c.repos.Open(ctx, repo.Read)
	if err != nil {
		return err
	}
	defer s.Close()
	r := repositoryRecord{MessageType: "repository", Repository: s.Name.String()}
	if s.Local != nil {
		err = r.fromStore(ctx, s.Local)
	} else {
		err = r.fromServer(ctx, s)
	}
	if err != nil {
		return err
	}
	c.UI.Result(r, func(w io.Writer) { statusText(w, r) })
	if r.chunkCounts != nil && r.MissingPacks > 0 {
		return term.Hintf(fmt.Errorf("packs missing: %d: %w", r.MissingPacks, repo.ErrDamage),
			"holdfast verify tells which snapshots they belong to")
	}
	return nil
}

func (r *repositoryRecord) fromStore(ctx context.Context, s *datastore.Store) error {
	st, err := s.Status(ctx)
	if err != nil {
		return err
	}
	r.Repository, r.Groups, r.Snapshots, r.LogicalBytes = st.Path, st.Groups, st.Snapshots, st.LogicalBytes
	r.Undated = st.Undated
	r.chunkCounts = &chunkCounts{st.Chunks, st.PlainBytes, st.StoredBytes, st.Packs, st.MissingPacks}
	r.DiskTotal, r.DiskUsed, r.DiskAvail = st.DiskTotal, st.DiskUsed, st.DiskAvail
	return nil
}

// fromServer counts what the server lists, and asks it about the disk.
func (r *repositoryRecord) fromServer(ctx context.Context, s *repo.Repository) error {
	var disk api.Usage
	err := s.Remote.Do(ctx, client.Call{Op: api.DatastoreState, At: []string{s.Name.Datastore}, Into: &disk})
	if err != nil {
		return fmt.Errorf("status of %s: %w", s.Name, err)
	}
	r.DiskTotal, r.DiskUsed, r.DiskAvail = disk.Total, disk.Used, disk.Avail
	spaces, err := s.Namespaces(ctx, "")
	if err != nil {
		return repo.About("list namespaces", "", err)
	}
	for _, ns := range spaces {
		if err := r.count(ns, s.AllSnapshots(ctx, ns)); err != nil {
			return err
		}
	}
	return nil
}

// count counts what a namespace lists, group by group.
func (r *repositoryRecord) count(ns wire.Namespace, list iter.Seq2[wire.SnapshotInfo, error]) error {
	var last wire.Group
	for i, err := range list {
		if err != nil {
			return repo.About("list snapshots", ns, err)
		}
		if g := i.Snapshot.Group; g != last {
			last = g
			r.Groups++
		}
		r.Snapshots++
		if i.Undated {
			r.Undated++
		}
		r.LogicalBytes += i.Size
	}
	return nil
}

// statusText is the status for people.
func statusText(w io.Writer, r repositoryRecord) {
	rows := [][]string{
		{"repository:", r.Repository},
		{"snapshots:", fmt.Sprintf("%d in %s, %s", r.Snapshots, term.Plural(int64(r.Groups), "group"), term.Bytes(int64(r.LogicalBytes)))},
	}
	if r.Undated > 0 {
		rows = append(rows, []string{"undated:", term.Plural(int64(r.Undated), "snapshot") + ", of which it is lost when they arrived; holdfast repair writes it down anew"})
	}
	if c := r.chunkCounts; c != nil {
		rows = append(rows,
			[]string{"chunks:", fmt.Sprintf("%d in %s, %s", c.Chunks, term.Plural(int64(c.Packs), "pack"), term.Bytes(int64(c.PlainBytes)))},
			[]string{"stored:", term.Bytes(int64(c.StoredBytes))},
			[]string{"ratio:", term.Ratio(int64(r.LogicalBytes), int64(c.StoredBytes))})
	}
	rows = append(rows, []string{"disk:", fmt.Sprintf("%s of %s used (%s), %s free", term.Bytes(int64(r.DiskUsed)), term.Bytes(int64(r.DiskTotal)),
		term.Share(int64(r.DiskUsed), int64(r.DiskTotal)), term.Bytes(int64(r.DiskAvail)))})
	term.Table(w, rows)
}
