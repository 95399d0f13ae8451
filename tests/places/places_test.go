package places

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"holdfast/tests/harness"
)

// Exit codes of the program that the tests wait for.
const (
	exitOK      = 0
	exitError   = 1
	exitNoSpace = 69
	exitRefused = 77
)

// repo is a repository with what was backed up to it.
type repo struct {
	t       *testing.T
	env     []string
	name    string // a path, or that of a datastore
	work    string // a healthy directory
	content []byte // of the newest snapshot
	made    int    // snapshots
}

// do runs a command on the repository and waits for its end with a code.
func (r *repo) do(code int, args ...string) string {
	r.t.Helper()
	res := run(r.t, r.env, append(args, "-r", r.name)...)
	if res.code != code {
		r.t.Fatalf("%q ended with %d, want %d: %s", res.args, res.code, code, res.out)
	}
	return res.out
}

// write makes the disk that is backed up: the end of it is new each time.
func (r *repo) write() string {
	r.t.Helper()
	file := filepath.Join(r.work, "disk.raw")
	next := make([]byte, 3<<20)
	random := rand.NewChaCha8([32]byte{byte(r.made)})
	_, _ = random.Read(next)
	copy(next, r.content[:min(len(r.content), 2<<20)])
	if err := os.WriteFile(file, next, 0o600); err != nil {
		r.t.Fatal(err)
	}
	return file
}

func (r *repo) backupArgs(file string) []string {
	return []string{"backup", "--quiet", "--crypt-mode", "none", "--backup-type", "vm", "--backup-id", "Web-1", "d.img:" + file}
}

// backup makes a snapshot that must be made.
func (r *repo) backup() {
	r.t.Helper()
	file := r.write()
	r.do(exitOK, r.backupArgs(file)...)
	r.made++
	var err error
	if r.content, err = os.ReadFile(file); err != nil {
		r.t.Fatal(err)
	}
}

// reads does all that only reads, and compares what is restored.
func (r *repo) reads() {
	r.t.Helper()
	if out := r.do(exitOK, "snapshot", "list", "--json", "vm/Web-1"); strings.Count(out, `"snapshot":`) != r.made {
		r.t.Errorf("%d snapshots were made, and listed are: %s", r.made, out)
	}
	if out := r.do(exitOK, "list"); !strings.Contains(out, "vm/Web-1") {
		r.t.Errorf("listed are: %s", out)
	}
	back := filepath.Join(r.work, "back.raw")
	r.do(exitOK, "restore", "--quiet", "--overwrite", "--crypt-mode", "none", "vm/Web-1/latest", "d.img", back)
	got, err := os.ReadFile(back)
	if err != nil || !bytes.Equal(got, r.content) {
		r.t.Errorf("%d bytes were restored that are not those of the backup, %v", len(got), err)
	}
	r.do(exitOK, "verify")
	r.do(exitOK, "verify", "--store")
}

// forgets removes the oldest snapshot for good, with what only it needed.
func (r *repo) forgets() {
	r.t.Helper()
	out := r.do(exitOK, "prune", "--keep-last", "1", "vm/Web-1")
	if !strings.Contains(out, "vm/Web-1") {
		r.t.Errorf("prune: %s", out)
	}
	r.made = 1
	r.do(exitOK, "gc")
}

// TestEveryPlace goes through the life of a repository on every kind of file
// system.
func TestEveryPlace(t *testing.T) {
	for _, c := range []struct {
		name    string
		mount   func(*testing.T) string
		refused string // what init says, "" where all must go well
	}{
		{"ext4", ext4, ""},
		{"xfs", xfs, ""},
		{"btrfs", btrfs, ""},
		{"btrfs split", splitBtrfs, ""},
		{"tmpfs", tmpfs, ""},
		{"overlay", overlay, ""},
		{"ntfs-3g", ntfs, ""},
		{"bindfs without chmod", bindfs, ""},
		{"exfat", exfat, `names with ":"`},
		{"ntfs-3g folding names", foldingNTFS, "it changes names"},
		{"ext4 folding names", foldingExt4, "capital letters"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.name != "ext4" && c.refused == "" {
				harness.Long(t)
			}
			dir := c.mount(t)
			if dir == "" {
				return
			}
			r := &repo{t: t, name: filepath.Join(dir, "store"), work: memory(t)}
			if c.refused != "" {
				res := run(t, nil, "init", r.name)
				if res.code != exitRefused || !strings.Contains(res.out, c.refused) {
					t.Errorf("init ended with %d: %s", res.code, res.out)
				}
				if _, err := os.Lstat(r.name); err == nil {
					t.Errorf("init was refused and has left %s behind", r.name)
				}
				return
			}
			if res := run(t, nil, "init", r.name); res.code != exitOK {
				t.Fatalf("init: %s", res.out)
			}
			r.backup()
			r.backup()
			r.reads()
			r.forgets()
			r.do(exitOK, "repair")
			r.reads()
			if left, err := filepath.Glob(filepath.Join(r.name, ".tmp", "*")); err != nil || len(left) > 0 {
				t.Errorf("left behind: %q, %v", left, err)
			}
		})
	}
}

// TestReadOnlyPlace reads a repository whose file system takes nothing any
// more; what would write is refused with a word.
func TestReadOnlyPlace(t *testing.T) {
	for name, mount := range map[string]func(*testing.T) string{
		"ext4": ext4, "btrfs": btrfs, "btrfs split": splitBtrfs, "xfs": xfs, "tmpfs": tmpfs,
	} {
		t.Run(name, func(t *testing.T) {
			if name != "ext4" {
				harness.Long(t)
			}
			dir := mount(t)
			r := &repo{t: t, name: filepath.Join(dir, "store"), work: memory(t)}
			if res := run(t, nil, "init", r.name); res.code != exitOK {
				t.Fatalf("init: %s", res.out)
			}
			r.backup()
			r.backup()
			harness.Tool(t, "mount", "-o", "remount,ro", dir)
			r.reads()
			r.do(exitOK, "repair")
			for _, args := range [][]string{r.backupArgs(r.write()), {"gc"}} {
				if out := r.do(exitRefused, args...); !strings.Contains(out, "read-only") {
					t.Errorf("%q: %s", args, out)
				}
			}
			res := run(t, nil, "init", filepath.Join(dir, "another"))
			if res.code != exitRefused || !strings.Contains(res.out, "read-only") {
				t.Errorf("init: %d, %s", res.code, res.out)
			}
		})
	}
}

// TestFullPlace reads, removes and collects where no block is free.
func TestFullPlace(t *testing.T) {
	for name, mount := range map[string]func(*testing.T) string{
		"ext4": ext4, "btrfs": btrfs, "btrfs split": splitBtrfs, "btrfs at its quota": limitedBtrfs, "xfs": xfs,
		"tmpfs": tmpfs, "overlay": overlay, "ntfs-3g": ntfs, "bindfs": bindfs,
	} {
		t.Run(name, func(t *testing.T) {
			if name != "ext4" {
				harness.Long(t)
			}
			dir := mount(t)
			r := &repo{t: t, name: filepath.Join(dir, "store"), work: memory(t)}
			if res := run(t, nil, "init", r.name); res.code != exitOK {
				t.Fatalf("init: %s", res.out)
			}
			r.backup()
			r.backup()
			r.do(exitOK, "gc") // takes the reserve
			fill(t, dir)
			r.reads()
			r.do(exitNoSpace, r.backupArgs(r.write())...)
			r.do(exitOK, "repair")
			r.forgets()
			r.reads()
		})
	}
}

// TestPlaceWithoutInodes removes and collects where no file can be made: to the
// trash with the reserve, and for good without.
func TestPlaceWithoutInodes(t *testing.T) {
	harness.Long(t)
	dir := fewInodes(t)
	r := &repo{t: t, name: filepath.Join(dir, "store"), work: memory(t)}
	if res := run(t, nil, "init", r.name); res.code != exitOK {
		t.Fatalf("init: %s", res.out)
	}
	for range 4 {
		r.backup()
	}
	fillInodes(t, dir)
	r.do(exitNoSpace, r.backupArgs(r.write())...)
	oldest := r.oldest()
	r.do(exitOK, "snapshot", "forget", oldest)
	r.do(exitOK, "prune", "--keep-last", "2", "vm/Web-1")
	r.made = 2
	if out := r.do(exitOK, "snapshot", "list", "--deleted", "--json"); strings.Count(out, `"snapshot":`) != 2 || !strings.Contains(out, oldest) {
		t.Errorf("in the trash are: %s", out)
	}
	r.do(exitOK, "gc")
	r.dropSpares()
	fillInodes(t, dir)
	for _, args := range [][]string{{"snapshot", "forget", r.oldest()}, {"prune", "--keep-last", "1", "vm/Web-1"}} {
		if out := r.do(exitNoSpace, args...); !strings.Contains(out, "--now") {
			t.Errorf("%q: %s", args, out)
		}
	}
	r.do(exitOK, "prune", "--now", "--keep-last", "1", "vm/Web-1")
	r.made = 1
	r.do(exitOK, "gc")
	r.reads()
}

// dropSpares removes the inodes that are kept in reserve.
func (r *repo) dropSpares() {
	r.t.Helper()
	chunks, err := filepath.Glob(filepath.Join(r.name, ".chunks", "reserve-*"))
	if err != nil || len(chunks) == 0 {
		r.t.Fatalf("the chunk store has %d files in reserve, %v", len(chunks), err)
	}
	for _, name := range append(chunks, filepath.Join(r.name, ".trash", "spare")) {
		if err := os.RemoveAll(name); err != nil {
			r.t.Fatal(err)
		}
	}
}

// oldest names the oldest snapshot.
func (r *repo) oldest() string {
	r.t.Helper()
	out := r.do(exitOK, "snapshot", "list", "--json", "vm/Web-1")
	var names []string
	for _, line := range strings.Split(out, "\n") {
		var rec struct {
			Snapshot string `json:"snapshot"`
		}
		if json.Unmarshal([]byte(line), &rec) == nil && rec.Snapshot != "" {
			names = append(names, rec.Snapshot)
		}
	}
	if len(names) == 0 {
		r.t.Fatalf("no snapshot is listed: %s", out)
	}
	return slices.Min(names)
}
