package lab

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"holdfast/tests/harness"
)

// firstTime is the time of snapshot 0, in seconds since 1970.
const firstTime = 1_700_000_000

// Repo is a repository on a path and the key its backups are made with.
type Repo struct {
	Path, Key string
	// Name is how commands name it: its path, or where a server offers it.
	Name string
	// Program works on it.
	Program string
	// Env is added to the environment of every command, Wrap runs it.
	Env, Wrap []string

	lab *Lab
}

// NewRepo makes an empty repository, as init does with these flags, and a key in
// keyDir.
func (l *Lab) NewRepo(path, keyDir string, flags ...string) (Repo, error) {
	r := Repo{Path: path, Name: path, Key: filepath.Join(keyDir, "key.json"), Program: l.Program, lab: l}
	if err := r.Must("key", "create", "--kdf", "none", r.Key); err != nil {
		return r, err
	}
	return r, r.Must(append(append([]string{"init"}, flags...), r.Path)...)
}

// Command is how the program is called with these arguments.
func (r Repo) Command(args ...string) harness.Command {
	return harness.Command{Args: append([]string{r.Program}, args...), Env: r.environ(), Wrap: r.Wrap}
}

// environ is the environment of every command.
func (r Repo) environ() []string { return append(r.lab.environ(), r.Env...) }

// Run runs the program as a process.
func (r Repo) Run(args ...string) (harness.Result, error) { return harness.Do(r.Command(args...)) }

// Look carries out a command that no fault is put into, and writes what it prints to
// out; nil keeps it in the result. The sound program does so without a process of
// its own.
func (r Repo) Look(out io.Writer, args ...string) (harness.Result, error) {
	if r.Program != r.lab.Program || len(r.Wrap) > 0 {
		c := r.Command(args...)
		c.Stdout = out
		return harness.Do(c)
	}
	var kept strings.Builder
	if out == nil {
		out = &kept
	}
	begin := time.Now()
	done, err := r.lab.resident.Do(out, r.environ(), args...)
	return harness.Result{
		Args: append([]string{r.Program}, args...), Code: done.Code, Out: kept.String(), Err: done.Err, Took: time.Since(begin),
	}, err
}

// Must is Look; anything but success is an error.
func (r Repo) Must(args ...string) error {
	res, err := r.Look(nil, args...)
	if err == nil && res.Code != ExitOK {
		err = fmt.Errorf("should have gone well: %s", res)
	}
	return err
}

// SnapName is the name of the n-th snapshot, made in a group.
func SnapName(group string, n int64) string {
	return group + "/" + time.Unix(firstTime+n, 0).UTC().Format("2006-01-02T15:04:05Z")
}

// BackupArgs is the command line of a backup of NAME:FILE pairs.
func (r Repo) BackupArgs(group string, n int64, sources ...string) []string {
	typ, id, _ := strings.Cut(group, "/")
	return append([]string{
		"backup", "-r", r.Name, "--json", "--no-progress", "--keyfile", r.Key,
		"--backup-type", typ, "--backup-id", id, "--backup-time", fmt.Sprint(firstTime + n),
	}, sources...)
}

// VerifyArgs is the command line that verifies everything with the key.
func (r Repo) VerifyArgs() []string {
	return []string{"verify", "-r", r.Name, "--no-progress", "--keyfile", r.Key}
}

// List returns the snapshots that are listed; with the flag --deleted those in
// the trash.
func (r Repo) List(flags ...string) ([]string, error) {
	res, err := r.Look(nil, append([]string{"snapshot", "list", "-r", r.Name, "--json"}, flags...)...)
	if err == nil && res.Code != ExitOK {
		err = fmt.Errorf("should have been listed: %s", res)
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for line := range strings.Lines(res.Out) {
		var rec struct{ Snapshot, Damage string }
		if err := json.Unmarshal([]byte(line), &rec); err != nil || rec.Snapshot == "" {
			return nil, fmt.Errorf("no snapshot in %q: %w", line, err)
		}
		if rec.Damage != "" {
			return nil, fmt.Errorf("%s is listed as damaged: %s", rec.Snapshot, rec.Damage)
		}
		names = append(names, rec.Snapshot)
	}
	return names, nil
}

// Restore reads an archive of a snapshot back and returns the SHA-256 of what
// came.
func (r Repo) Restore(snap, archive string) (harness.Result, [32]byte, error) {
	h := sha256.New()
	res, err := r.Look(h, "restore", "-r", r.Name, "--keyfile", r.Key, "--no-progress", snap, archive, "-")
	return res, [32]byte(h.Sum(nil)), err
}
