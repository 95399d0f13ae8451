package lab

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"holdfast/tests/harness"
)

// Snap is a snapshot that should be there: what its archives held.
type Snap struct {
	Group string
	Sums  map[string][32]byte

	seeds map[string]uint64 // of the archives
}

// World is a repository with all that is known of it from outside: which
// snapshots were acknowledged, and what the command that runs may change.
type World struct {
	Repo
	// Snaps are those that must be listed, by name, and Trash those that can be
	// brought back, nil if the repository keeps none.
	Snaps, Trash map[string]Snap

	random  *rand.Rand
	sources string                       // directory of what is backed up
	content map[string]map[string]uint64 // group -> archive -> seed of its content
	n       int64                        // counts snapshots
	pending []*Op                        // that run, in the order in which they began
	failed  []*Op                        // that ended with an error, and may have happened
}

// Groups are those that the script backs up.
func Groups() []string { return []string{"vm/1", "ct/two", "host/three"} }

// archives are what a backup holds, with the largest size of each in bytes.
func archives() map[string]int {
	return map[string]int{"a.img": 3_000, "b.img": 24_000, "c.img": 60_000, "d.img": 150_000, "e.conf": 700}
}

// NewWorld makes an empty repository at path. seed decides about the script, and
// whether what is removed stays in the trash for a while.
func (l *Lab) NewWorld(path string, seed uint64) (*World, error) {
	return l.NewWorldWithTrash(path, seed, int(seed%2)*7)
}

// NewWorldWithTrash is NewWorld with a trash time of so many days.
func (l *Lab) NewWorldWithTrash(path string, seed uint64, days int) (*World, error) {
	dir, err := l.MkdirTemp()
	if err != nil {
		return nil, err
	}
	w := &World{
		Snaps: map[string]Snap{}, random: rand.New(rand.NewPCG(seed, 1)), sources: dir,
		content: map[string]map[string]uint64{},
	}
	if days > 0 {
		w.Trash = map[string]Snap{}
	}
	w.Repo, err = l.NewRepo(path, dir, "--trash-days", fmt.Sprint(days))
	return w, err
}

// Clone is the same world around a copy of the repository. The two must not
// make backups at the same time. seed decides about the script from here on.
func (w *World) Clone(path string, seed uint64) *World {
	c := *w
	c.Path, c.Name, c.random = path, path, rand.New(rand.NewPCG(seed, 2))
	c.Snaps, c.Trash = maps.Clone(w.Snaps), maps.Clone(w.Trash)
	c.content = map[string]map[string]uint64{}
	for g, m := range w.content {
		c.content[g] = maps.Clone(m)
	}
	c.pending, c.failed = slices.Clone(w.pending), slices.Clone(w.failed)
	return &c
}

// Own gives a clone sources of its own.
func (w *World) Own() error {
	dir, err := w.lab.MkdirTemp()
	w.sources = dir
	return err
}

// Noise is n bytes that do not compress, always the same for a seed.
func Noise(seed uint64, n int) []byte {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	b := make([]byte, n)
	rand.NewChaCha8(key).Read(b)
	return b
}

// snapsMax is how many snapshots there are before old ones must go.
const snapsMax = 9

// Next chooses the next command: one that can run beside those that are pending,
// nil if there is none.
func (w *World) Next() (*Op, error) {
	idle := slices.DeleteFunc(Groups(), w.busy)
	dice := w.random.IntN(100)
	name := w.Any()
	switch {
	case len(idle) > 0 && (name == "" || len(w.Snaps) < 2 || (dice < 45 && len(w.Snaps) < snapsMax)):
		return w.Backup(idle[w.random.IntN(len(idle))])
	case name != "" && dice < 60:
		return w.Forget(name), nil
	case name != "" && dice < 70:
		return w.ForgetNow(name), nil
	case dice < 76 && w.anyDeleted() != "":
		return w.Undelete(w.anyDeleted()), nil
	case dice >= 92 && name != "":
		return w.NotesFor(name), nil
	}
	if slices.ContainsFunc(w.pending, func(op *Op) bool { return op.Kind == GC }) {
		return nil, nil // there is one at a time
	}
	return w.GC(), nil
}

// busy reports whether a backup of a group is pending, or the return or removal of
// a snapshot that a backup would build on.
func (w *World) busy(group string) bool {
	return slices.ContainsFunc(w.pending, func(op *Op) bool {
		return op.group == group && (op.Kind == Backup || op.Kind == Undelete || op.Name == w.newest(group))
	})
}

// newest is the name of the newest snapshot of a group, "" if there is none.
func (w *World) newest(group string) (name string) {
	for n, s := range w.Snaps {
		if s.Group == group {
			name = max(name, n) // they sort by time
		}
	}
	return name
}

// Any is the name of some snapshot that nobody uses, "" if there is none.
func (w *World) Any() string {
	names := slices.Sorted(maps.Keys(w.Snaps))
	names = slices.DeleteFunc(names, func(name string) bool {
		group := w.Snaps[name].Group
		return w.busy(group) && name == w.newest(group) ||
			slices.ContainsFunc(w.pending, func(op *Op) bool { return op.Name == name })
	})
	return w.oneOf(names)
}

// anyDeleted is the name of some snapshot in the trash that nobody uses, "" if
// there is none.
func (w *World) anyDeleted() string {
	names := slices.Sorted(maps.Keys(w.Trash))
	return w.oneOf(slices.DeleteFunc(names, func(name string) bool {
		return slices.ContainsFunc(w.pending, func(op *Op) bool { return op.Name == name || op.group == w.Trash[name].Group })
	}))
}

func (w *World) oneOf(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return names[w.random.IntN(len(names))]
}

// Forget is the command that removes a snapshot.
func (w *World) Forget(name string) *Op { return w.about(Forget, name) }

// ForgetNow is the command that removes one for good.
func (w *World) ForgetNow(name string) *Op { return w.about(ForgetNow, name) }

// Undelete is the command that brings one back.
func (w *World) Undelete(name string) *Op { return w.about(Undelete, name) }

// about is a command about a snapshot.
func (w *World) about(kind, name string) *Op {
	snap, ok := w.Snaps[name]
	if !ok {
		snap = w.Trash[name]
	}
	return &Op{Request: Request{Kind: kind, Name: name}, group: snap.Group, snap: snap}
}

// NotesFor is the command that gives a snapshot a note.
func (w *World) NotesFor(name string) *Op {
	return &Op{Request: Request{Kind: Notes, Name: name, Text: fmt.Sprint("note ", w.random.IntN(100))}}
}

// GC is the command that removes garbage.
func (w *World) GC() *Op { return &Op{Request: Request{Kind: GC}} }

// Backup is the command that makes the next snapshot of a group. Some archives
// have changed; some have become again what others were once, whose chunks may
// be about to go.
func (w *World) Backup(group string) (*Op, error) {
	w.n++
	seeds := w.content[group]
	if seeds == nil {
		seeds = map[string]uint64{}
		w.content[group] = seeds
	}
	for _, name := range slices.Sorted(maps.Keys(archives())) {
		if _, ok := seeds[name]; !ok || w.random.IntN(3) == 0 {
			seeds[name] = w.random.Uint64N(12)
		}
	}
	return w.backup(group)
}

// Again is the command that backs up once more what the newest snapshot of some
// group holds.
func (w *World) Again() (*Op, error) { return w.AgainOf(w.Snaps[w.Any()].Group) }

// AgainOf is Again for a group.
func (w *World) AgainOf(group string) (*Op, error) {
	w.n++
	w.content[group] = w.Snaps[w.newest(group)].seeds
	return w.backup(group)
}

// Skip lets the next snapshots be later by some seconds.
func (w *World) Skip(seconds int64) { w.n += seconds }

// backup backs up the content that a group has now.
func (w *World) backup(group string) (*Op, error) {
	seeds := maps.Clone(w.content[group])
	op := &Op{Request: Request{Kind: Backup, Name: SnapName(group, w.n)}, group: group, n: w.n}
	op.snap = Snap{group, map[string][32]byte{}, seeds}
	for _, name := range slices.Sorted(maps.Keys(archives())) {
		b := Noise(seeds[name], archives()[name]*(1+int(seeds[name])%4)/4)
		op.snap.Sums[name] = sha256.Sum256(b)
		path := filepath.Join(w.sources, strings.ReplaceAll(group, "/", "-")+"-"+name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			return op, err
		}
		op.Sources = append(op.Sources, name+":"+path)
	}
	return op, nil
}

// Begin notes that a command runs: until Done it may have happened or not.
func (w *World) Begin(op *Op) {
	w.pending = append(w.pending, op)
	w.n = max(w.n, op.n) // the step of another world's script
}

// Done notes that a command was acknowledged.
func (w *World) Done(op *Op) {
	switch op.Kind {
	case Backup:
		w.place(op, "tree")
	case Forget:
		w.place(op, "trash")
	case ForgetNow:
		w.place(op, "")
	case Undelete:
		w.place(op, "tree")
	}
	w.pending = slices.DeleteFunc(w.pending, func(p *Op) bool { return p == op })
}

// Failed notes that a command has ended with an error: whether it has happened is
// not known until the next Judge.
func (w *World) Failed(op *Op) {
	w.pending = slices.DeleteFunc(w.pending, func(p *Op) bool { return p == op })
	w.failed = append(w.failed, op)
}

// Unsure is the kinds of the commands that were not acknowledged.
func (w *World) Unsure() (kinds []string) {
	for _, op := range append(slices.Clone(w.pending), w.failed...) {
		kinds = append(kinds, op.Kind)
	}
	return kinds
}

// Do runs a command of the script as a process. ok tells whether it was
// acknowledged.
func (w *World) Do(op *Op) (res harness.Result, ok bool, err error) { return w.doWith(op, w.Run) }

func (w *World) doWith(op *Op, run func(args ...string) (harness.Result, error)) (res harness.Result, ok bool, err error) {
	w.Begin(op)
	res, err = run(w.Args(op)...)
	if err == nil && res.Code == ExitOK {
		w.Done(op)
		return res, true, nil
	}
	w.Failed(op)
	return res, false, err
}

// MustDo carries out a command that must go well.
func (w *World) MustDo(op *Op) error {
	res, ok, err := w.doWith(op, func(args ...string) (harness.Result, error) { return w.Look(nil, args...) })
	if err == nil && !ok {
		err = fmt.Errorf("should have gone well: %s", res)
	}
	return err
}

// Step runs the next command, which must go well.
func (w *World) Step() error {
	op, err := w.Next()
	if err != nil {
		return err
	}
	return w.MustDo(op)
}
