package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"

	"github.com/urfave/cli/v2"

	"holdfast/command/repo"
	"holdfast/command/term"
	"holdfast/crypto"
	"holdfast/datastore"
	"holdfast/datastore/verify"
	"holdfast/datastore/wire"
)

// Verify is holdfast verify.
func (r Room) Verify() *cli.Command {
	return &cli.Command{
		Name: "verify", Usage: "read snapshots back and find damage", ArgsUsage: "[SNAPSHOT|GROUP]",
		Description: term.Describe(`Reads every chunk of a snapshot, of all snapshots of a group, or of everything in the
namespace and below. Without a key each chunk is compared with the sums kept beside it,
which finds any damage; with --keyfile chunks are also decrypted and compared with their
names, and the manifest's signature is checked. From a server everything is read over the
network, and without a key encrypted chunks are compared with their checksum only. Damage
ends with exit status 65.

With --store the whole repository is verified where it lies, without a key: every byte of the
packs is read once and compared with its checksum, and every reference of every snapshot, in
the trash too, is looked up. What is damaged is marked, so that the next backup of the same data
stores it anew. The dates of good checks are kept: --older-than reads only what is due, and goes
on where an interrupted run was. A server does it as a task of its own, beside all else; in
a directory backups have to wait, as holdfast --lock-wait lets them.`,
			"holdfast verify -r /srv/store",
			"holdfast verify -r /srv/store vm/100/latest --keyfile key.json",
			"holdfast verify -r 'root@pam!admin@backup.lan:tank' --store --older-than 30"),
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "keyfile", Usage: "decrypt with the key in `FILE`, too (or $HOLDFAST_KEYFILE)"},
			&cli.BoolFlag{Name: "store", Usage: "verify the whole repository: every stored byte and every reference"},
			&cli.UintFlag{Name: "older-than", Usage: "with --store: leave out the packs that were found good in the last `DAYS` days"},
			&cli.StringFlag{Name: "limit", Usage: "with --store: read at most `SIZE` a second from the disk, as 100MiB"},
		},
		Action: r.action(term.Takes(0, 1), runVerify),
	}
}

// verifyRecord is the result of one snapshot.
type verifyRecord struct {
	MessageType string `json:"message_type"` // "verified"
	Namespace   string `json:"ns"`
	Snapshot    string `json:"snapshot"`
	OK          bool   `json:"ok"`
	Archives    int    `json:"archives"`
	Chunks      int64  `json:"chunks"`
	Bytes       int64  `json:"bytes"`
	Signed      bool   `json:"signed"`
	Decrypted   bool   `json:"decrypted"`
	Problems    int64  `json:"problems"`
}

// problemRecord is one thing found.
type problemRecord struct {
	MessageType string `json:"message_type"` // "error"
	Namespace   string `json:"ns"`
	Snapshot    string `json:"snapshot"`
	File        string `json:"file,omitempty"`
	Offset      uint64 `json:"offset,omitempty"`
	Chunk       string `json:"chunk,omitempty"`
	Message     string `json:"message"`
}

// verifySummary is the last line.
type verifySummary struct {
	MessageType string  `json:"message_type"` // "summary"
	Operation   string  `json:"operation"`    // "verify"
	Snapshots   int     `json:"snapshots"`
	Damaged     int     `json:"damaged"`
	Failed      int     `json:"failed"` // could not be verified
	Chunks      int64   `json:"chunks"`
	Bytes       int64   `json:"bytes"`
	Seconds     float64 `json:"seconds"`
}

func runVerify(ctx context.Context, c *call) error {
	if c.Flags.Bool("store") {
		return c.verifyStore(ctx)
	}
	for _, name := range []string{"older-than", "limit"} {
		if c.Flags.IsSet(name) {
			return term.Usagef("--%s goes with --store", name)
		}
	}
	begin := c.Now()
	key, err := c.verifyKey(ctx)
	if err != nil {
		return err
	}
	s, err := c.repos.Open(ctx, repo.Read)
	if err != nil {
		return term.StateAt(ctx, err, "nothing has been checked")
	}
	defer s.Close()
	list, err := c.snapshotsToVerify(ctx, s)
	if err != nil {
		return err
	}
	o := verify.Options{Source: s, Key: key, Progress: &verify.Progress{}}
	stop := c.UI.Watch(ctx, verifyStatus(o.Progress))
	sum, failure := c.verifyAll(ctx, verify.New(o), list)
	stop()
	if ctx.Err() != nil {
		return term.Interrupted(fmt.Sprintf("%d of %d snapshots were checked, %d of them damaged", sum.Snapshots, len(list), sum.Damaged))
	}
	sum.Seconds = term.Seconds(c.Now().Sub(begin))
	c.verifyText(sum)
	switch {
	case sum.Damaged > 0:
		return term.Hintf(fmt.Errorf("%w in %d of %s", repo.ErrDamage, sum.Damaged, term.Plural(int64(len(list)), "snapshot")),
			"what is damaged cannot be repaired here; back up again, and look at the disk below the repository")
	case failure != nil:
		return fmt.Errorf("%d of %s could not be verified: %w", sum.Failed, term.Plural(int64(len(list)), "snapshot"), failure)
	}
	return nil
}

// verifyKey loads the key if one was named; a default key is not used, since
// verifying needs none.
func (c *call) verifyKey(ctx context.Context) (*crypto.Key, error) {
	path, err := c.Secrets.NamedKey(c.Given)
	if err != nil || path == "" {
		return nil, err
	}
	key, _, err := c.Secrets.LoadKey(ctx, path)
	return key, err
}

// snapshotsToVerify is the snapshot or group that was named, or everything.
func (c *call) snapshotsToVerify(ctx context.Context, s *repo.Repository) ([]wire.Snapshot, error) {
	var list []wire.Snapshot
	collect := func(ns wire.Namespace, infos iter.Seq2[wire.SnapshotInfo, error]) error {
		for i, err := range infos {
			if err != nil {
				return repo.About("list snapshots", ns, err)
			}
			if i.Undated {
				c.UI.Warnf("snapshot %s: %v", repo.WithNamespace(ns, i.Snapshot.String()), datastore.ErrArrival)
			}
			list = append(list, i.Snapshot)
		}
		return nil
	}
	switch name := c.Arg(0); strings.Count(name, "/") {
	case 0:
		if name != "" {
			_, err := c.repos.Group(name)
			return nil, err
		}
		spaces, err := c.repos.Namespaces(ctx, s, true)
		if err != nil {
			return nil, err
		}
		for _, ns := range spaces {
			if err := collect(ns, s.AllSnapshots(ctx, ns)); err != nil {
				return nil, err
			}
		}
		return list, nil
	case 1:
		g, err := c.repos.Group(name)
		if err != nil {
			return nil, err
		}
		err = collect(g.NS, repo.InGroup(ctx, s, g))
		return list, err
	}
	snap, err := c.repos.SnapshotToRead(ctx, s, c.Arg(0))
	return []wire.Snapshot{snap}, err
}

// verifyAll goes through the list to its end whatever it finds. failure is the
// first reason why a snapshot could not be verified.
func (c *call) verifyAll(ctx context.Context, v *verify.Verifier, list []wire.Snapshot) (sum verifySummary, failure error) {
	sum.MessageType, sum.Operation = "summary", "verify"
	for i, snap := range list {
		r, err := v.Snapshot(ctx, snap)
		if ctx.Err() != nil {
			return sum, ctx.Err()
		}
		if errors.Is(err, wire.ErrUnavailable) { // each other one would wait as long
			sum.Failed += len(list) - i
			return sum, errors.Join(failure, err)
		}
		if err != nil {
			sum.Failed++
			failure = errors.Join(failure, err)
			c.problem(snap, verify.Problem{Err: err})
			continue
		}
		sum.Snapshots++
		sum.Chunks += r.Chunks
		sum.Bytes += r.Bytes
		if !r.OK() {
			sum.Damaged++
		}
		c.verified(r)
	}
	return sum, failure
}

// verified prints the result of one snapshot.
func (c *call) verified(r verify.Report) {
	for _, p := range r.Problems {
		c.problem(r.Snapshot, p)
	}
	ns := r.Snapshot.Group.NS
	rec := verifyRecord{
		"verified", string(ns), r.Snapshot.String(), r.OK(), r.Archives,
		r.Chunks, r.Bytes, r.Signed, r.Decrypted, r.Count,
	}
	c.UI.Result(rec, func(w io.Writer) {
		verdict := "ok"
		if !r.OK() {
			verdict = "DAMAGED, " + term.Plural(r.Count, "problem")
		}
		how := "checked without a key"
		if r.Decrypted {
			how = "decrypted"
		}
		if r.Signed {
			how += ", signed"
		}
		fmt.Fprintf(w, "%s: %s (%s, %s, %s; %s)\n", repo.WithNamespace(ns, r.Snapshot.String()), verdict,
			term.Plural(int64(r.Archives), "archive"), term.Plural(r.Chunks, "chunk"), term.Bytes(r.Bytes), how)
	})
}

// problem prints one thing found.
func (c *call) problem(s wire.Snapshot, p verify.Problem) {
	rec := problemRecord{"error", string(s.Group.NS), s.String(), p.File, p.Off, "", p.Err.Error()}
	where := repo.WithNamespace(s.Group.NS, s.String())
	if p.File != "" {
		where += " " + p.File
	}
	if !p.ID.IsZero() {
		rec.Chunk = p.ID.String()
		where += fmt.Sprintf(" at %d, chunk %s", p.Off, p.ID.Short())
	}
	c.UI.Result(rec, func(w io.Writer) { fmt.Fprintf(w, "%s: %s\n", where, term.Printable(p.Err.Error())) })
}

func (c *call) verifyText(sum verifySummary) {
	c.UI.Done(sum, "verified %s: %d damaged, %d not verified; %s, %s in %s", term.Plural(int64(sum.Snapshots), "snapshot"),
		sum.Damaged, sum.Failed, term.Plural(sum.Chunks, "chunk"), term.Bytes(sum.Bytes), term.Duration(term.FromSeconds(sum.Seconds)))
}

func verifyStatus(p *verify.Progress) func(*term.Status) {
	return func(s *term.Status) {
		s.Operation = "verify"
		s.BytesDone, s.BytesTotal = p.Done.Load(), p.Total.Load()
	}
}
