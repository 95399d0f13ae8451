package store

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/urfave/cli/v2"

	"holdfast/command/repo"
	"holdfast/command/term"
)

// Reindex is holdfast reindex.
func (r Room) Reindex() *cli.Command {
	return &cli.Command{
		Name: "reindex", Usage: "build the catalogue of chunks anew",
		Description: term.Describe(`Reads all packs and builds the catalogue, which tells where each chunk lies, anew. A missing or
damaged catalogue is rebuilt without this whenever the repository is opened. Damage in the
packs ends with exit status 65; what is sound is in the catalogue then.`,
			"holdfast reindex -r /srv/store"),
		Action: r.action(term.Takes(0, 0), runReindex),
	}
}

// reindexRecord is the last line.
type reindexRecord struct {
	MessageType    string   `json:"message_type"` // "summary"
	Operation      string   `json:"operation"`    // "reindex"
	Packs          int      `json:"packs"`
	Chunks         uint64   `json:"chunks"`
	Duplicates     uint64   `json:"duplicates"`
	FootersDamaged int      `json:"footers_damaged"`
	RecordsDamaged int      `json:"records_damaged"`
	BytesSkipped   int64    `json:"bytes_skipped"`
	Unreadable     int      `json:"packs_unreadable"`
	Names          []string `json:"damaged_files"`
	Seconds        float64  `json:"seconds"`
}

func runReindex(ctx context.Context, c *call) (err error) {
	begin := c.Now()
	s, err := c.repos.OpenLocal(ctx, repo.Write)
	if err != nil {
		return term.StateAt(ctx, err, "nothing has been done")
	}
	defer repo.Closing(s, &err)
	var done, total atomic.Int64
	stop := c.UI.Watch(ctx, func(st *term.Status) {
		st.Operation = "reindex"
		st.Packs = &term.Count{Done: done.Load(), Total: total.Load()}
	})
	r, err := s.Reindex(ctx, func(d, t int64) {
		done.Store(d)
		total.Store(t)
	})
	stop()
	if err != nil {
		return term.StateAt(ctx, err, "the old catalogue stays in use")
	}
	rec := reindexRecord{
		MessageType: "summary", Operation: "reindex",
		Packs: r.Packs, Chunks: r.Chunks, Duplicates: r.Duplicates,
		FootersDamaged: r.FootersDamaged, RecordsDamaged: r.RecordsDamaged, BytesSkipped: r.BytesSkipped,
		Unreadable: r.Unreadable, Names: term.NotNil(r.Names), Seconds: term.Seconds(c.Now().Sub(begin)),
	}
	c.UI.Done(rec, "found %s in %s, and %d further copies of them", term.Plural(int64(r.Chunks), "chunk"), term.Plural(int64(r.Packs), "pack"), r.Duplicates)
	if r.RecordsDamaged+r.Unreadable > 0 {
		return term.Hintf(fmt.Errorf("unsound places: %d, packs not readable to their end: %d (%s): %w", r.RecordsDamaged, r.Unreadable, strings.Join(r.Names, ", "), repo.ErrDamage),
			"holdfast verify tells which snapshots are concerned")
	}
	return nil
}
