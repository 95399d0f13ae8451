package main

import (
	"context"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"holdfast/datastore"
)

func (a *app) statusCommand() *cli.Command {
	return &cli.Command{
		Name: "status", Usage: "show how full the repository is",
		Description: describe(`Counts groups, snapshots, chunks and packs in all namespaces, and shows the space they take and
what the file system has left.`,
			"holdfast status -r /srv/store"),
		Action: a.action(arity{0, 0}, runStatus),
	}
}

// repositoryRecord describes a repository.
type repositoryRecord struct {
	MessageType  string `json:"message_type"` // "repository"
	Repository   string `json:"repository"`
	Groups       int    `json:"groups"`
	Snapshots    int    `json:"snapshots"`
	LogicalBytes uint64 `json:"logical_bytes"`
	Chunks       uint64 `json:"chunks"`
	PlainBytes   uint64 `json:"plain_bytes"`
	StoredBytes  uint64 `json:"stored_bytes"`
	Packs        int    `json:"packs"`
	MissingPacks int    `json:"missing_packs"`
	DiskTotal    uint64 `json:"disk_total"`
	DiskUsed     uint64 `json:"disk_used"`
	DiskAvail    uint64 `json:"disk_avail"`
}

func runStatus(ctx context.Context, c *call) error {
	s, err := c.openStore(ctx, readOnly)
	if err != nil {
		return err
	}
	defer s.Close()
	st, err := s.Status(ctx)
	if err != nil {
		return err
	}
	r := repositoryRecord{
		"repository", st.Path, st.Groups, st.Snapshots, st.LogicalBytes, st.Chunks, st.PlainBytes,
		st.StoredBytes, st.Packs, st.MissingPacks, st.DiskTotal, st.DiskUsed, st.DiskAvail,
	}
	c.ui.result(r, func(w io.Writer) { statusText(w, st) })
	if st.MissingPacks > 0 {
		return hintf(fmt.Errorf("packs missing: %d: %w", st.MissingPacks, errDamage),
			"holdfast verify tells which snapshots they belong to")
	}
	return nil
}

// statusText is the status for people.
func statusText(w io.Writer, st datastore.Status) {
	rows := [][]string{
		{"repository:", st.Path},
		{"snapshots:", fmt.Sprintf("%d in %s, %s", st.Snapshots, plural(int64(st.Groups), "group"), formatBytes(int64(st.LogicalBytes)))},
		{"chunks:", fmt.Sprintf("%d in %s, %s", st.Chunks, plural(int64(st.Packs), "pack"), formatBytes(int64(st.PlainBytes)))},
		{"stored:", formatBytes(int64(st.StoredBytes))},
		{"ratio:", formatRatio(int64(st.LogicalBytes), int64(st.StoredBytes))},
		{"disk:", fmt.Sprintf("%s of %s used (%s), %s free", formatBytes(int64(st.DiskUsed)), formatBytes(int64(st.DiskTotal)),
			formatShare(int64(st.DiskUsed), int64(st.DiskTotal)), formatBytes(int64(st.DiskAvail)))},
	}
	table(w, rows)
}
