package faults

import (
	"bytes"
	"crypto/sha256"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"holdfast/tests/harness"
)

// How often TestKill kills.
const (
	killRounds    = 200
	killsBySystem = 80 // of them at exact system calls
	killsMin      = 80 // fewer that really hit would prove nothing
	verifyEvery   = 20
)

// killer is a repository that is killed again and again, and the disk that is
// backed up into it.
type killer struct {
	repo
	t       *testing.T
	image   string
	content []byte
	random  *rand.Rand
	sums    map[string][32]byte // of the image, for every snapshot that was tried
	listed  []string
	full    time.Duration // how long a backup takes that is left alone
	hits    int
}

// TestKill kills backups at moments spread over their whole length and at exact
// system calls. Whatever the moment, the next command finds a repository that
// needs nobody's help and lists complete snapshots only.
func TestKill(t *testing.T) {
	harness.Long(t)
	t.Parallel()
	k := newKiller(t)
	points := k.killPoints()
	for i := range killRounds {
		s := snap{"vm/1", int64(i + 10)}
		k.change()
		k.sums[s.String()] = sha256.Sum256(k.content)
		var done bool
		if every := killRounds / killsBySystem; i%every == 0 && i/every < len(points) {
			done = k.killAt(s, points[i/every])
		} else {
			done = k.killAfter(s, float64(i*7%killRounds)/killRounds*1.1)
		}
		k.check(s, done)
		if i%verifyEvery == verifyEvery-1 {
			k.verify(t).want(t, exitOK)
			k.verifyKeyless(t).want(t, exitOK)
		}
	}
	t.Logf("%d of %d backups were killed before their end, %d snapshots are there", k.hits, killRounds, len(k.listed))
	if k.hits < killsMin {
		t.Errorf("only %d backups were killed before their end", k.hits)
	}
	k.conclude()
}

// newKiller makes a repository with two snapshots and measures a backup.
func newKiller(t *testing.T) *killer {
	dir := t.TempDir()
	k := &killer{
		repo: newRepo(t, dir), t: t, image: filepath.Join(dir, "disk.raw"), content: mixed(1, 24<<20),
		random: rand.New(rand.NewPCG(1, 2)), sums: map[string][32]byte{},
	}
	write(t, k.image, k.content)
	for i := range 2 {
		s := snap{"vm/1", int64(i)}
		k.change()
		k.sums[s.String()] = sha256.Sum256(k.content)
		k.full = start(t, command{args: k.backupArgs(s, "disk0.img:"+k.image)}).wait(t).want(t, exitOK).Took
		k.listed = append(k.listed, s.String())
	}
	k.wantList(t, snap{"vm/1", 0}, snap{"vm/1", 1})
	return k
}

// change writes something new to a few places of the disk.
func (k *killer) change() {
	for range 2 {
		b := noise(k.random.Uint64()%1e6, 50_000)
		off := k.random.IntN(len(k.content) - len(b))
		copy(k.content[off:], b)
		patch(k.t, k.image, b, int64(off))
	}
}

// killPoints picks system calls to die at from all that a backup makes, the
// catalogue's own calls among them.
func (k *killer) killPoints() []point {
	catalogue := filepath.Join(k.path, ".chunks", "catalogue.db")
	own := k.pointsOf(snap{"vm/1", 2}, catalogue)
	all := k.pointsOf(snap{"vm/1", 3}, "")
	own = own[:min(len(own), killsBySystem/4)]
	return append(own, all[:min(len(all), killsBySystem-len(own))]...)
}

// pointsOf makes one more snapshot and returns its system calls.
func (k *killer) pointsOf(s snap, path string) []point {
	k.t.Helper()
	k.change()
	k.sums[s.String()] = sha256.Sum256(k.content)
	k.listed = append(k.listed, s.String())
	return points(k.t, command{args: k.backupArgs(s, "disk0.img:"+k.image)}, path)
}

// killAt kills a backup at a system call. done reports that it had come to its
// end before.
func (k *killer) killAt(s snap, p point) (done bool) {
	k.t.Helper()
	return k.ended(start(k.t, command{
		args: k.backupArgs(s, "disk0.img:"+k.image), wrap: p.inject("signal=SIGKILL"), env: oneThread,
	}).wait(k.t))
}

// killAfter kills a backup after a share of the time that a full one takes.
func (k *killer) killAfter(s snap, share float64) (done bool) {
	k.t.Helper()
	p := start(k.t, command{args: k.backupArgs(s, "disk0.img:"+k.image)})
	time.Sleep(time.Duration(share * float64(k.full)))
	_ = p.Signal(syscall.SIGKILL)
	r := p.wait(k.t)
	// The machine may have become busier or less so.
	if done = k.ended(r); done {
		k.full = (3*k.full + r.Took) / 4
	} else if share >= 1 {
		k.full += k.full / 8
	}
	return done
}

func (k *killer) ended(r result) (done bool) {
	k.t.Helper()
	if r.Code == exitKilled {
		k.hits++
		return false
	}
	r.want(k.t, exitOK)
	return true
}

// check looks at the list after a kill: what was there still is, and the new
// snapshot, if it is there, is whole.
func (k *killer) check(s snap, done bool) {
	k.t.Helper()
	got := k.list(k.t)
	isNew := len(got) > 0 && got[len(got)-1] == s.String()
	if done && !isNew {
		k.t.Fatalf("%s was acknowledged and is not listed", s)
	}
	if isNew {
		k.listed = append(k.listed, s.String())
		if !done {
			k.verify(k.t, s.String()).want(k.t, exitOK)
			k.restored(k.t, s, "disk0.img", k.sums[s.String()])
		}
	}
	if !slices.Equal(got, k.listed) {
		k.t.Fatalf("after %s listed are\n%v\nwant\n%v", s, got, k.listed)
	}
	// What is left of one session at most: the next one clears it away.
	if left := glob(k.t, k.path, ".tmp/*"); len(left) > 1 {
		k.t.Errorf("several killed sessions have left something: %v", left)
	}
}

// conclude makes one more backup, undisturbed, and restores everything.
func (k *killer) conclude() {
	t := k.t
	s := snap{"vm/1", killRounds + 10}
	k.backup(t, s, "disk0.img:"+k.image).want(t, exitOK)
	if left := glob(t, k.path, ".tmp/*"); len(left) > 0 {
		t.Errorf("killed sessions have left %v", left)
	}
	files, err := os.ReadDir(filepath.Join(k.path, ".chunks"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if strings.HasPrefix(f.Name(), ".") {
			t.Errorf("killed sessions have left %s", f.Name())
		}
	}
	k.verify(t).want(t, exitOK)
	target := filepath.Join(t.TempDir(), "restored.raw")
	k.restore(t, s, "disk0.img", target).want(t, exitOK)
	if !bytes.Equal(read(t, target), k.content) {
		t.Error("the last snapshot came back different")
	}
	for i := range int64(killRounds + 10) {
		s := snap{"vm/1", i}
		if slices.Contains(k.listed, s.String()) {
			k.restored(t, s, "disk0.img", k.sums[s.String()])
		}
	}
}
