package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"holdfast/client/restore"
	"holdfast/command/repo"
	"holdfast/command/secret"
	"holdfast/command/term"
	"holdfast/crypto"
	"holdfast/datastore"
	"holdfast/datastore/wire"
)

// Command is holdfast restore.
func (r Room) Command() *cli.Command {
	return &cli.Command{
		Name: "restore", Usage: "write an archive of a snapshot back",
		ArgsUsage: "SNAPSHOT ARCHIVE TARGET",
		Description: term.Describe(`Writes ARCHIVE to TARGET: a file that does not exist yet, a block device, or "-" for standard
output. SNAPSHOT is TYPE/ID/TIME, or TYPE/ID/latest. Every chunk is checked against its
name and the archive against the manifest; with a key, the manifest must be signed by it.
A file appears under its name when it is complete. What can be known to fail fails before
the first byte: a file system that is too small, a device that is read-only, a file that QEMU,
a loop device or another program has open for writing, a file in another format.`,
			"holdfast restore -r /srv/store vm/100/latest disk0.img /dev/vg0/vm-100",
			"holdfast restore -r /srv/store vm/100/latest disk0.img disk.raw --differential",
			"holdfast restore -r /srv/store host/web/2026-11-22T02:00:00Z machine.conf -"),
		Flags: []cli.Flag{
			secret.KeyfileFlag(),
			secret.ReadModeFlag(),
			&cli.BoolFlag{Name: "any-origin", Usage: "accept a signed snapshot that was made for another namespace, or whose file about that is damaged"},
			&cli.BoolFlag{Name: "differential", Usage: "compare the existing target with the archive and write only what differs"},
			&cli.BoolFlag{Name: "overwrite", Usage: "replace an existing file"},
		},
		Action: r.action(term.Takes(3, 3), runRestore),
	}
}

func runRestore(ctx context.Context, c *call) error {
	target := c.Arg(2)
	if target == "" {
		return term.Usagef("the target is empty")
	}
	if c.Flags.Bool("differential") && c.Flags.Bool("overwrite") {
		return term.Usagef("--differential and --overwrite exclude each other")
	}
	if target == "-" {
		if term.IsTerminal(c.Out) && strings.Contains(c.Arg(1), ".img") {
			return term.Usagef("standard output is a terminal; redirect it, or name a file")
		}
		if isClosed(c.Out) {
			return term.Usagef("standard output is closed; redirect it, or name a file")
		}
		c.UI.ResultsToErr()
	}
	if err := checkOutside(target); err != nil {
		return err
	}
	s, err := c.repos.Open(ctx, repo.Read)
	if err != nil {
		return term.StateAt(ctx, err, "nothing has been done")
	}
	defer s.Close()
	snap, err := c.repos.SnapshotToRead(ctx, s, c.Arg(0))
	if err != nil {
		return err
	}
	key, err := c.Secrets.ReaderKey(ctx, c.Given)
	if err != nil {
		return err
	}
	o := restore.Options{
		Source: s, Snapshot: snap, Archive: c.Arg(1), Key: key,
		AnyOrigin: c.Flags.Bool("any-origin"), Target: target, Out: c.Out,
		Differential: c.Flags.Bool("differential"), Overwrite: c.Flags.Bool("overwrite"),
		Progress: &restore.Progress{}, Now: c.Now,
		Warn: func(text string) { c.UI.Warnf("%s", text) },
	}
	stop := c.UI.Watch(ctx, restoreStatus(o.Progress))
	report, err := restore.Run(ctx, o)
	stop()
	if !errors.Is(err, wire.ErrLocal) && (errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)) {
		err = term.Hintf(err, "make room where the restore goes to, or name another target")
	}
	if err != nil {
		return interruptedRestore(ctx, fmt.Errorf("restore of %s from %s%s: %w", o.Archive, snap, repo.Within(snap.Group.NS), err))
	}
	c.restoreSummary(o, report)
	return nil
}

// checkOutside refuses a target among the files of a repository, which would stop
// its garbage collection.
func checkOutside(target string) error {
	if target == "-" {
		return nil
	}
	if root, ok := datastore.Inside(target); ok {
		return fmt.Errorf("target %s lies in the repository %s, where nothing but its own files may be: %w (nothing was written)", target, root, restore.ErrTarget)
	}
	return nil
}

// interruptedRestore keeps the whole message: it says in which state the
// target is.
func interruptedRestore(ctx context.Context, err error) error {
	return term.StateAt(ctx, err, err.Error())
}

func restoreStatus(p *restore.Progress) func(*term.Status) {
	return func(s *term.Status) {
		written := p.Written.Load()
		s.Operation = "restore"
		s.BytesDone, s.BytesTotal = p.Done.Load(), p.Total.Load()
		s.BytesWritten = &written
	}
}

// restoreRecord is the last line of a restore.
type restoreRecord struct {
	MessageType  string  `json:"message_type"` // "summary"
	Operation    string  `json:"operation"`    // "restore"
	Namespace    string  `json:"ns"`
	Snapshot     string  `json:"snapshot"`
	Archive      string  `json:"archive"`
	Target       string  `json:"target"`
	Size         int64   `json:"size"`
	BytesWritten int64   `json:"bytes_written"`
	BytesZero    int64   `json:"bytes_zero"`
	BytesSame    int64   `json:"bytes_same"`
	Signed       bool    `json:"signed"`
	Seconds      float64 `json:"seconds"`
}

func (c *call) restoreSummary(o restore.Options, r restore.Report) {
	rec := restoreRecord{
		MessageType: "summary", Operation: "restore",
		Namespace: string(o.Snapshot.Group.NS), Snapshot: o.Snapshot.String(), Archive: r.Archive, Target: o.Target,
		Size: r.Size, BytesWritten: r.BytesWritten, BytesZero: r.BytesZero, BytesSame: r.BytesSame,
		Signed: r.Signed, Seconds: term.Seconds(r.Duration),
	}
	c.UI.Summary(rec, func(w io.Writer) { restoreText(w, o, r) })
}

// restoreText is the summary for people.
func restoreText(w io.Writer, o restore.Options, r restore.Report) {
	to := o.Target
	if to == "-" {
		to = "standard output"
	}
	fmt.Fprintf(w, "restored %s of %s%s to %s: %s in %s\n", r.Archive, o.Snapshot, repo.Within(o.Snapshot.Group.NS), to,
		term.Bytes(r.Size), term.Duration(r.Duration))
	fmt.Fprintf(w, "%s written, %s left as holes or zero", term.Bytes(r.BytesWritten), term.Bytes(r.BytesZero))
	if o.Differential {
		fmt.Fprintf(w, ", %s the same already", term.Bytes(r.BytesSame))
	}
	fmt.Fprintf(w, "\nevery chunk was checked against its name; %s\n", signedText(r.Signed, o.Key))
}

// signedText says what is known of the manifest's origin.
func signedText(signed bool, key *crypto.Key) string {
	switch {
	case signed && key != nil:
		return "the manifest is signed by key " + key.Fingerprint().Short()
	case signed:
		return "the manifest is signed"
	}
	return "the manifest's signature was not checked, as no key was used"
}

// isClosed reports whether a standard stream was closed when the program began: Go
// then puts the null device in its place, open for both directions, which nobody who
// writes to it on purpose does.
func isClosed(stream any) bool {
	f, ok := stream.(*os.File)
	if !ok {
		return false
	}
	var st unix.Stat_t
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	if err != nil || unix.Fstat(int(f.Fd()), &st) != nil {
		return false
	}
	null := st.Mode&unix.S_IFMT == unix.S_IFCHR && unix.Major(st.Rdev) == 1 && unix.Minor(st.Rdev) == 3
	return null && flags&unix.O_ACCMODE == unix.O_RDWR
}
