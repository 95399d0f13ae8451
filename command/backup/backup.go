package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"time"

	"github.com/urfave/cli/v2"

	"holdfast/client"
	"holdfast/client/backup"
	"holdfast/client/source"
	"holdfast/command/repo"
	"holdfast/command/secret"
	"holdfast/command/term"
	"holdfast/crypto"
	"holdfast/datastore/wire"
)

// Command is holdfast backup.
func (r Room) Command() *cli.Command {
	return &cli.Command{
		Name: "backup", Usage: "back up disk images and small files as a new snapshot",
		ArgsUsage: "NAME.img:SOURCE [NAME.conf:FILE ...]",
		Description: term.Describe(`Reads every SOURCE (a raw or qcow2 image, a block device, or "-" for standard input) and
stores what the repository does not have yet. The snapshot exists only once everything
is stored durably; a backup that fails or is interrupted leaves no snapshot behind.
A source that is empty, that QEMU has open for writing, or that holds a disk in another
format (VMDK, VHDX, gzip, ...) is refused; while an image is read, QEMU is kept from opening
it for writing. With --stdin-from-command, "-" is what COMMAND writes, and the backup fails if
COMMAND does; of a pipeline sh sees the last part only, unless it is
bash -o pipefail -c '...'.
Backups are encrypted: a key is needed unless --crypt-mode none is given. A public master
key, if there is one, gets a copy of the key wrapped for it into the snapshot.`,
			"holdfast backup -r /srv/store --backup-type vm --backup-id 100 disk0.img:/dev/vg0/vm-100",
			"holdfast backup -r /srv/store disk0.img:disk.qcow2 machine.conf:/etc/machine.conf",
			"holdfast backup -r ./store --backup-id web root.img:- --stdin-from-command 'ssh host cat /dev/vg0/root'"),
		Flags:  backupFlags(),
		Action: r.action(term.Takes(1, -1), runBackup),
	}
}

func backupFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "backup-type", Value: "host", Usage: "`TYPE` of the group: vm, ct or host (default host)"},
		&cli.StringFlag{Name: "backup-id", Usage: "`ID` of the group (default the name of this machine)"},
		&cli.Int64Flag{Name: "backup-time", Usage: "time of the snapshot as `SECONDS` since 1970 (default now)"},
		secret.KeyfileFlag(),
		&cli.StringFlag{Name: "crypt-mode", Value: "encrypt", Usage: "`MODE` is encrypt, sign-only or none (default encrypt)"},
		secret.MasterPubkeyFlag(),
		&cli.StringFlag{Name: "chunking", Value: "content", Usage: "cut images by `HOW`: content, or fixed for 4 MiB pieces (default content)"},
		&cli.StringFlag{Name: "source-format", Value: "auto", Usage: "read images as `FORMAT`: raw, qcow2, or auto to look, where devices and *.raw are raw and foreign formats refused (default auto)"},
		&cli.StringFlag{Name: "stdin-from-command", Usage: "run `COMMAND` with sh -c and read its output as \"-\"; if it fails no snapshot is made"},
		&cli.BoolFlag{Name: "allow-empty", Usage: "back up an empty image or standard input, which is refused otherwise"},
		&cli.BoolFlag{Name: "force-share", Usage: "read an image that QEMU has open for writing: what is stored may contradict itself"},
		&cli.BoolFlag{Name: "allow-backing-files", Usage: "read the backing files that a qcow2 image names, wherever they are"},
		&cli.StringFlag{Name: "notes", Usage: "keep `TEXT` with the snapshot"},
	}
}

func runBackup(ctx context.Context, c *call) (err error) {
	if _, err := c.repos.Name(); err != nil {
		return err
	}
	o, err := c.backupOptions(ctx)
	if err != nil {
		return err
	}
	if err := c.backupKeys(ctx, &o); err != nil {
		return err
	}
	s, err := c.repos.Open(ctx, repo.Write)
	if err != nil {
		return term.StateAt(ctx, err, "nothing has been done")
	}
	defer repo.Closing(s, &err)
	o.Target = s.Target
	if c.Flags.IsSet("stdin-from-command") {
		command := c.sourceCommand(ctx)
		defer command.Close()
		o.Stdin = command
	}
	stop := c.UI.Watch(ctx, backupStatus(o.Progress))
	report, err := backup.Run(ctx, o)
	stop()
	if err != nil {
		return c.backupError(ctx, o, err)
	}
	c.UI.Became(term.OutcomeMade, report.Snapshot.String())
	for _, w := range report.Warnings {
		c.UI.Warnf("%s", w)
	}
	var notesErr error
	if c.Flags.IsSet("notes") {
		notesErr = s.SetNotes(ctx, report.Snapshot, c.Flags.String("notes"))
	}
	c.backupSummary(report)
	if notesErr != nil {
		return fmt.Errorf("snapshot %s is complete, but its notes were not kept: %w", report.Snapshot, notesErr)
	}
	return nil
}

// backupError says what failed, what is left behind, and what to do about it.
func (c *call) backupError(ctx context.Context, o backup.Options, err error) error {
	outcome := term.OutcomeNotMade
	if errors.Is(err, wire.ErrUnknown) {
		outcome = term.OutcomeUnknown
	}
	c.UI.Became(outcome, o.Snapshot.String())
	switch {
	case errors.Is(err, wire.ErrBusy):
		err = term.Hintf(err, "an earlier run of this backup, or another machine's of the same group, is still at work; --lock-wait 6h waits for it to end")
	case errors.Is(err, client.ErrUnavailable) && !errors.Is(err, wire.ErrUnknown):
		err = term.Hintf(err, "no snapshot was made; what is stored already is used by the next backup: %s", repo.ServerHint(err))
	case !errors.Is(err, wire.ErrExists):
	case c.fromTheFuture(err) != "":
		err = term.Hintf(err, "%s is from the future: the clock of the machine that made it was wrong, or its --backup-time; look at it, then remove it with: holdfast snapshot forget, or choose another --backup-id", c.fromTheFuture(err))
	case o.TimeIsNow:
		err = term.Hintf(err, "see that the clock of this machine is right; it shows %s", term.RFC3339(c.Now()))
	default:
		err = term.Hintf(err, "leave --backup-time out, or name a time after the group's newest snapshot")
	}
	return term.StateAt(ctx, fmt.Errorf("backup of %s%s: %w", o.Snapshot, repo.Within(o.Snapshot.Group.NS), err),
		"no snapshot was made; what is stored already is used by the next backup")
}

// newestText finds the snapshot in the complaint that it is not older, of a
// directory and of a server alike.
var newestText = regexp.MustCompile(`newest snapshot (\S+/\S+/\S+) is not older`)

// aheadMax is how far a clock may be ahead of another one, before a snapshot is called one
// from the future.
const aheadMax = 5 * time.Minute

// fromTheFuture is the newest snapshot of the group that stands in the way of a
// new one, if its time has not come yet; "" if it has.
func (c *call) fromTheFuture(err error) string {
	m := newestText.FindStringSubmatch(err.Error())
	if m == nil {
		return ""
	}
	s, e := wire.ParseSnapshot("", m[1])
	if e != nil || !time.Unix(s.Time, 0).After(c.Now().Add(aheadMax)) {
		return ""
	}
	return s.String()
}

// backupOptions reads everything about a backup but its keys.
func (c *call) backupOptions(ctx context.Context) (backup.Options, error) {
	o := backup.Options{
		AllowBacking: c.Flags.Bool("allow-backing-files"),
		AllowEmpty:   c.Flags.Bool("allow-empty"),
		ForceShare:   c.Flags.Bool("force-share"),
		Stdin:        patient(ctx, c.In),
		Progress:     &backup.Progress{},
		Now:          c.Now,
		TimeIsNow:    !c.Flags.IsSet("backup-time"),
	}
	const content, fixed = "content", "fixed"
	how := c.Flags.String("chunking")
	if err := term.OneOf("chunking", how, content, fixed); err != nil {
		return o, err
	}
	o.Fixed = how == fixed
	if n := len(c.Flags.String("notes")); n > wire.NotesSizeMax {
		return o, term.Usagef("--notes: a text of %d bytes, want at most %d", n, wire.NotesSizeMax)
	}
	var err error
	if o.Format, err = source.ParseFormat(c.Flags.String("source-format")); err != nil {
		return o, term.Usagef("--source-format %q: want auto, raw or qcow2", c.Flags.String("source-format"))
	}
	if err := c.backupArchives(&o); err != nil {
		return o, err
	}
	o.Snapshot, err = c.newSnapshot()
	return o, err
}

func (c *call) backupArchives(o *backup.Options) error {
	command, stream := c.Flags.IsSet("stdin-from-command"), false
	if command && c.Flags.String("stdin-from-command") == "" {
		return term.Usagef("--stdin-from-command names no command")
	}
	for _, spec := range c.Args {
		archive, err := backup.ParseArchive(spec)
		if err != nil {
			return err
		}
		if archive.Path == "-" && !command && term.IsTerminal(c.In) {
			return term.Usagef("standard input is a terminal; pipe or redirect the data into it")
		}
		stream = stream || archive.Path == "-"
		o.Archives = append(o.Archives, archive)
	}
	if command && !stream {
		return term.Usagef("--stdin-from-command needs an archive that reads it, as in root.img:-")
	}
	return nil
}

// newSnapshot names the snapshot to be made.
func (c *call) newSnapshot() (wire.Snapshot, error) {
	ns, err := c.repos.Namespace()
	if err != nil {
		return wire.Snapshot{}, err
	}
	id := c.Flags.String("backup-id")
	if !c.Flags.IsSet("backup-id") {
		if id, err = os.Hostname(); err != nil {
			return wire.Snapshot{}, term.Hintf(fmt.Errorf("name of this machine: %w", err), "choose one with --backup-id ID")
		}
	}
	s := wire.Snapshot{Group: wire.Group{NS: ns, Type: c.Flags.String("backup-type"), ID: id}, Time: c.Now().Unix()}
	if c.Flags.IsSet("backup-time") {
		s.Time = c.Flags.Int64("backup-time")
	}
	if err := s.Validate(); err != nil {
		return s, err
	}
	if ahead := time.Unix(s.Time, 0); ahead.After(c.Now().Add(24 * time.Hour)) {
		c.UI.Warnf("--backup-time %d is in the future (%s; it counts seconds): Holdfast takes the snapshot for one of its arrival, other servers take no backup of the group without one until then", s.Time, term.RFC3339(ahead))
	}
	return s, nil
}

// backupKeys chooses the mode and loads what it needs.
func (c *call) backupKeys(ctx context.Context, o *backup.Options) error {
	mode, err := secret.ParseMode(c.Flags.String("crypt-mode"))
	if err != nil {
		return err
	}
	o.Mode = mode
	if mode == crypto.ModeNone {
		if c.Flags.IsSet("keyfile") || c.Flags.IsSet("master-pubkey-file") {
			return term.Usagef("a key and --crypt-mode none contradict each other")
		}
		return nil
	}
	path, err := c.Secrets.ChooseKey(c.Given)
	if err != nil {
		return err
	}
	if path == "" {
		return term.Hintf(fmt.Errorf("%w to encrypt the backup with", crypto.ErrNoKey),
			"make a key with: holdfast key create FILE, and name it with --keyfile FILE; or store in the clear with --crypt-mode none")
	}
	key, file, err := c.Secrets.LoadKey(ctx, path)
	if err != nil {
		return err
	}
	o.Key, o.KeyCreated = key, file.Created
	o.Master, err = c.Secrets.MasterPublic(c.Given)
	return err
}

// backupStatus reads the counters of a running backup.
func backupStatus(p *backup.Progress) func(*term.Status) {
	return func(s *term.Status) {
		read, fresh, sent := p.Read.Load(), p.New.Load(), p.Sent.Load()
		s.Operation = "backup"
		s.BytesDone, s.BytesTotal = p.Done.Load(), p.Total.Load()
		s.BytesRead, s.BytesNew, s.BytesStored = &read, &fresh, &sent
	}
}

// backupRecord is the last line of a backup.
type backupRecord struct {
	MessageType string          `json:"message_type"` // "summary"
	Operation   string          `json:"operation"`    // "backup"
	Namespace   string          `json:"ns"`
	Snapshot    string          `json:"snapshot"`
	Previous    string          `json:"previous,omitempty"`
	Archives    []archiveRecord `json:"archives"`
	BytesTotal  int64           `json:"bytes_total"`
	BytesRead   int64           `json:"bytes_read"`
	BytesNew    int64           `json:"bytes_new"`
	BytesStored int64           `json:"bytes_stored"`
	Started     string          `json:"started"`
	Finished    string          `json:"finished"`
	Seconds     float64         `json:"seconds"`
	Warnings    []string        `json:"warnings,omitempty"`
}

type archiveRecord struct {
	Name        string `json:"name"`
	Size        int64  `json:"size"`
	Chunks      int64  `json:"chunks"`
	NewChunks   int64  `json:"new_chunks"`
	NewBytes    int64  `json:"new_bytes"`
	StoredBytes int64  `json:"stored_bytes"`
}

func (c *call) backupSummary(r backup.Report) {
	end := c.Now()
	rec := backupRecord{
		MessageType: "summary", Operation: "backup",
		Namespace: string(r.Snapshot.Group.NS), Snapshot: r.Snapshot.String(), Previous: r.Previous,
		BytesTotal: r.BytesTotal, BytesRead: r.BytesRead, BytesNew: r.BytesNew, BytesStored: r.BytesStored,
		Started: term.RFC3339(end.Add(-r.Duration)), Finished: term.RFC3339(end), Seconds: term.Seconds(r.Duration),
		Warnings: r.Warnings,
	}
	for _, a := range r.Archives {
		rec.Archives = append(rec.Archives, archiveRecord(a))
	}
	c.UI.Summary(rec, func(w io.Writer) { backupText(w, r) })
}

// backupText is the summary for people.
func backupText(w io.Writer, r backup.Report) {
	rows := [][]string{{"archive", "size", "chunks", "new chunks", "new data", "stored"}}
	for _, a := range r.Archives {
		rows = append(rows, []string{
			a.Name, term.Bytes(a.Size), fmt.Sprint(a.Chunks), fmt.Sprint(a.NewChunks),
			term.Bytes(a.NewBytes), term.Bytes(a.StoredBytes),
		})
	}
	term.Table(w, rows)
	fmt.Fprintf(w, "%s in %s: read %s, new %s (%s), stored %s", term.Bytes(r.BytesTotal), term.Duration(r.Duration),
		term.Bytes(r.BytesRead), term.Bytes(r.BytesNew), term.Share(r.BytesNew, r.BytesTotal), term.Bytes(r.BytesStored))
	if s := r.Duration.Seconds(); s >= 1 && r.BytesTotal > 0 {
		fmt.Fprintf(w, ", %s/s", term.Bytes(int64(float64(r.BytesTotal)/s)))
	}
	fmt.Fprintf(w, ", ratio %s\n", term.Ratio(r.BytesTotal, r.BytesStored))
	if r.Previous != "" {
		fmt.Fprintf(w, "compared with %s\n", r.Previous)
	}
	fmt.Fprintf(w, "snapshot %s%s\n", r.Snapshot, repo.Within(r.Snapshot.Group.NS))
}
