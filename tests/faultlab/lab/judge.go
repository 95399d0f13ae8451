package lab

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
)

// Judge compares the repository with what must be there: what was acknowledged
// is listed and comes back, what was not is not listed unless it is complete.
// Afterwards it is known what has become of the commands that were pending.
func (w *World) Judge() error {
	tree, err := w.List()
	if err != nil {
		return err
	}
	trash, err := w.List("--deleted")
	if err != nil {
		return err
	}
	if err := w.settle(tree, trash); err != nil {
		return err
	}
	if len(w.Snaps) == 0 {
		return nil
	}
	if err := w.Must(w.VerifyArgs()...); err != nil {
		return err
	}
	return w.restoreSome(2)
}

// place notes where the snapshot of a command is.
func (w *World) place(op *Op, where string) {
	delete(w.Snaps, op.Name)
	delete(w.Trash, op.Name)
	switch {
	case where == "tree":
		w.Snaps[op.Name] = op.snap
	case where == "trash" && w.Trash != nil:
		w.Trash[op.Name] = op.snap
	}
}

// settle compares the lists with the model. Of each command that was not
// acknowledged it learns what has become of it.
func (w *World) settle(tree, trash []string) error {
	unsure := append(w.pending, w.failed...)
	w.pending, w.failed = nil, nil
	may := map[string][]string{} // where a snapshot may be besides
	ops := map[string]*Op{}
	for _, op := range unsure {
		if op.Kind == GC || op.Kind == Notes {
			continue
		}
		ops[op.Name] = op
		may[op.Name] = append(may[op.Name], w.at(op.Name), map[string]string{
			Backup: "tree", Forget: "trash", ForgetNow: "", Undelete: "tree",
		}[op.Kind])
	}
	for name, places := range may {
		for _, where := range places {
			if isAt(name, tree, trash) == where || where == "trash" && w.Trash == nil && isAt(name, tree, trash) == "" {
				w.place(ops[name], where)
			}
		}
	}
	var err error
	for _, name := range slices.Sorted(maps.Keys(w.names(tree, trash))) {
		if is, should := isAt(name, tree, trash), w.at(name); is != should {
			err = errors.Join(err, fmt.Errorf("%s should be in %q and is in %q", name, should, is))
		}
	}
	return err
}

// names are all snapshots, those that are and those that should be.
func (w *World) names(lists ...[]string) map[string]bool {
	all := map[string]bool{}
	for _, name := range slices.Concat(lists...) {
		all[name] = true
	}
	for _, snaps := range []map[string]Snap{w.Snaps, w.Trash} {
		for name := range snaps {
			all[name] = true
		}
	}
	return all
}

// at is where a snapshot should be: in the tree, the trash, or nowhere.
func (w *World) at(name string) string {
	if _, ok := w.Snaps[name]; ok {
		return "tree"
	}
	if _, ok := w.Trash[name]; ok {
		return "trash"
	}
	return ""
}

// isAt is where a snapshot is.
func isAt(name string, tree, trash []string) (where string) {
	if slices.Contains(tree, name) {
		where = "tree"
	}
	if slices.Contains(trash, name) {
		where += "trash"
	}
	return where
}

// restoreSome reads n archives back.
func (w *World) restoreSome(n int) error {
	for range n {
		name := w.Any()
		snap := w.Snaps[name]
		list := slices.Sorted(maps.Keys(snap.Sums))
		if err := w.RestoreOne(name, list[w.random.IntN(len(list))]); err != nil {
			return err
		}
	}
	return nil
}

// RestoreOne reads an archive back and compares it.
func (w *World) RestoreOne(name, archive string) error {
	res, sum, err := w.Restore(name, archive)
	switch {
	case err != nil:
		return err
	case res.Code != ExitOK:
		return fmt.Errorf("%s of %s should have come back: %s", archive, name, res)
	case sum != w.Snaps[name].Sums[archive]:
		return fmt.Errorf("WRONG BYTES in %s of %s", archive, name)
	}
	return nil
}

// RestoreAll reads everything back and compares it, up to the first error.
func (w *World) RestoreAll() error {
	for name, snap := range w.Snaps {
		for archive := range snap.Sums {
			if err := w.RestoreOne(name, archive); err != nil {
				return err
			}
		}
	}
	return nil
}

// GoOn makes sure that the repository works on without anybody's help: a backup,
// a collection, something back from the trash, everything whole, and nothing of a
// dead session left.
func (w *World) GoOn() error {
	op, err := w.Backup(Groups()[w.random.IntN(len(Groups()))])
	if err != nil {
		return err
	}
	ops := []*Op{op, w.GC()}
	if name := w.anyDeleted(); name != "" {
		ops = append(ops, w.Undelete(name))
	}
	for _, op := range ops {
		if err := w.MustDo(op); err != nil {
			return err
		}
	}
	left, err := filepath.Glob(filepath.Join(w.Path, ".tmp", "*"))
	if err != nil {
		return err
	}
	if len(left) > 0 {
		return fmt.Errorf("left behind: %v", left)
	}
	return w.Judge()
}
