package faults

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"holdfast/tests/harness"
)

// point is a system call at which something happens: the n-th of its name on one
// thread, on the file path if there is one.
type point struct {
	call, path string
	n          int
}

func (p point) String() string { return fmt.Sprintf("%s %d", p.call, p.n) }

// inject is how strace is told to do something at a point.
func (p point) inject(what string) []string {
	var paths []string
	if p.path != "" {
		paths = []string{p.path}
	}
	return strace(p.call, fmt.Sprintf("%s:%s:when=%d", p.call, what, p.n), paths...)
}

// changing are the system calls that change files.
var changing = []string{
	"fsync", "fdatasync", "renameat", "rename", "renameat2", "pwrite64", "write", "ftruncate", "openat",
	"unlinkat", "mkdirat", "linkat", "fchmodat", "fchmod",
}

// points runs a command below strace and returns the changing system calls that
// it makes, on the file path if one is given, in random order: for each name as
// many as the thread has made that made most of them.
func points(t testing.TB, c command, path string) (list []point) {
	t.Helper()
	log := filepath.Join(t.TempDir(), "calls.txt")
	c.wrap = []string{"strace", "-f", "-qq", "-o", log, "-e", "trace=" + strings.Join(changing, ",")}
	if path != "" {
		c.wrap = append(c.wrap, "-P", path)
	}
	c.env = append(c.env, oneThread...)
	start(t, c).wait(t).want(t, exitOK)
	made, most := map[string]int{}, map[string]int{}
	for line := range strings.Lines(string(read(t, log))) {
		pid, rest, _ := strings.Cut(line, " ")
		call, _, ok := strings.Cut(strings.TrimSpace(rest), "(")
		if ok && slices.Contains(changing, call) {
			made[pid+call]++
			most[call] = max(most[call], made[pid+call])
		}
	}
	for _, call := range changing {
		for n := range most[call] {
			if call != "openat" || n%4 == 0 { // many of them only read
				list = append(list, point{call, path, n + 1})
			}
		}
	}
	r := rand.New(rand.NewPCG(1, 1))
	r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list
}

// smallRepo is a repository with two snapshots that can be copied quickly.
func smallRepo(t *testing.T) (r repo, image string) {
	t.Helper()
	dir := t.TempDir()
	r = newRepo(t, dir)
	image = write(t, filepath.Join(dir, "disk.raw"), mixed(150, 2<<20))
	for i := range int64(2) {
		r.backup(t, snap{"vm/1", i}, "disk0.img:"+image).want(t, exitOK)
		patch(t, image, noise(uint64(151+i), 5000), 1<<20)
	}
	return r, image
}

// clone copies the repository.
func (r repo) clone(t testing.TB) repo {
	t.Helper()
	c := r
	c.path = filepath.Join(t.TempDir(), "store")
	if err := os.CopyFS(c.path, os.DirFS(r.path)); err != nil {
		t.Fatal(err)
	}
	return c
}

// sane fails the test unless a repository works without anybody's help: listing,
// verifying, another backup.
func (r repo) sane(t testing.TB, image string) {
	t.Helper()
	r.list(t)
	r.verify(t).want(t, exitOK)
	r.backup(t, snap{"vm/9", 9}, "disk0.img:"+image).want(t, exitOK)
	r.verify(t).want(t, exitOK)
	if left := append(glob(t, r.path, ".tmp/*"), glob(t, r.path, ".chunks/.*")...); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// action is a command that changes a repository or may.
type action struct {
	name    string
	prepare func(t *testing.T, r repo)
	args    func(r repo, image string) []string
}

// actions are all commands that write, besides the backup of a known group.
func actions() []action {
	nothing := func(*testing.T, repo) {}
	plainArgs := func(args ...string) func(repo, string) []string {
		return func(r repo, _ string) []string { return append(slices.Clone(args), "-r", r.path) }
	}
	newest, oldest := snap{"vm/1", 1}.String(), snap{"vm/1", 0}.String()
	loseCatalogue := func(t *testing.T, r repo) {
		if err := os.Remove(filepath.Join(r.path, ".chunks", "catalogue.db")); err != nil {
			t.Fatal(err)
		}
	}
	return []action{
		{"first backup of a namespace", nothing, func(r repo, image string) []string {
			return r.backupArgs(snap{"ct/new", 3}, "--ns", "a/b", "disk0.img:"+image, "--notes", "text")
		}},
		{"forget", nothing, plainArgs("snapshot", "forget", newest)},
		{"forget the oldest", nothing, plainArgs("snapshot", "forget", oldest)},
		{"notes", nothing, plainArgs("snapshot", "notes", "update", newest, "a text")},
		{"protect", nothing, plainArgs("snapshot", "protect", newest)},
		{"reindex", nothing, plainArgs("reindex")},
		{"verify without catalogue", loseCatalogue, plainArgs("verify")},
		{"reindex without catalogue", loseCatalogue, plainArgs("reindex")},
	}
}

// pointsPerAction bounds how many system calls of one action are tried.
const pointsPerAction = 12

// TestKillActions kills the other commands that change something, at their
// system calls.
func TestKillActions(t *testing.T) {
	harness.Long(t)
	t.Parallel()
	base, image := smallRepo(t)
	for _, a := range actions() {
		t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			r := base.clone(t)
			a.prepare(t, r)
			list := points(t, command{args: a.args(r, image)}, "")
			for _, p := range list[:min(len(list), pointsPerAction)] {
				r := base.clone(t)
				a.prepare(t, r)
				start(t, command{args: a.args(r, image), wrap: p.inject("signal=SIGKILL"), env: oneThread}).wait(t)
				r.sane(t, image)
				if t.Failed() {
					t.Fatalf("killed at %s", p)
				}
			}
		})
	}
}

// errorsTried is how many system calls of a backup fail, at least.
const errorsTried = 60

// TestWriteErrors lets system calls of a backup fail, once or from then on, for
// lack of room or as broken disks do. It succeeds or says that it did not, and
// whatever is listed then is whole.
func TestWriteErrors(t *testing.T) {
	harness.Long(t)
	t.Parallel()
	base, image := smallRepo(t)
	s := snap{"vm/1", 5}
	list := points(t, command{args: base.clone(t).backupArgs(s, "disk0.img:"+image)}, "")
	refused, tried := 0, 0
	for i, p := range list {
		if i >= errorsTried && refused >= errorsTried/4 {
			break // as many as are wanted, and of them as many as are wanted have been met
		}
		tried++
		errno := []string{"ENOSPC", "EIO", "EDQUOT", "EROFS"}[i%4]
		r := base.clone(t)
		wrap := p.inject("error=" + errno)
		if i%3 == 0 {
			for j := range wrap {
				if strings.HasPrefix(wrap[j], "inject=") {
					wrap[j] += "+"
				}
			}
		}
		got := start(t, command{args: r.backupArgs(s, "disk0.img:"+image), wrap: wrap, env: oneThread}).wait(t)
		if isListed := slices.Contains(r.list(t), s.String()); got.Code == exitOK && !isListed {
			t.Errorf("acknowledged and not listed: %s", got)
		}
		if got.Code != exitOK {
			refused++
			if got.Err == "" && p.call != "write" { // which messages need, too
				t.Errorf("it does not say why: %s", got)
			}
		}
		r.sane(t, image)
		if t.Failed() {
			t.Fatalf("%s at %s: %s", errno, p, got)
		}
	}
	t.Logf("%d of %d backups failed", refused, tried)
	if refused < min(errorsTried, len(list))/4 {
		t.Errorf("only %d of %d backups met the error", refused, tried)
	}
}
