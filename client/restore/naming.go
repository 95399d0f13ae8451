package restore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"holdfast/client/source"
)

// naming is how a finished file gets its name without replacing another one.
type naming int

const (
	byRename  naming = iota // renameat2 that refuses to replace
	byLink                  // a hard link, which refuses too
	byCreate                // an empty file that must be new, replaced at once
	byReplace               // a rename that replaces what is there, as was asked for
)

// partialMark stands between the name that a file is going to have and what makes
// the name of the partial file unique.
const partialMark = ".partial-"

// partialExtra is how many bytes a partial name has besides the target's: a dot,
// the mark, up to ten digits and what a probe adds.
const partialExtra = 1 + len(partialMark) + 10 + 1

// partialPrefix is what the names of partial files for a target begin with. A
// long name is cut: nothing but the final name may be as long as names can be.
func partialPrefix(path string) string {
	longest := int64(255)
	var st unix.Statfs_t
	if err := unix.Statfs(filepath.Dir(path), &st); err == nil && st.Namelen > 0 {
		longest = min(longest, st.Namelen)
	}
	base := filepath.Base(path)
	if keep := max(int(longest)-partialExtra, 1); len(base) > keep {
		for keep > 1 && !utf8.RuneStart(base[keep]) {
			keep--
		}
		base = base[:keep]
	}
	return "." + base + partialMark
}

// refuseSecond refuses to restore to a name that another restore, which is
// still at work, is going to give to its file. It warns of what one that was killed
// has left: nobody sees it, and it may be as large as a disk.
func refuseSecond(path string, warn func(string)) error {
	dir, prefix := filepath.Dir(path), partialPrefix(path)
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil // whether a file can be made there is found out next
	}
	for _, n := range names {
		if !strings.HasPrefix(n.Name(), prefix) || !n.Type().IsRegular() {
			continue
		}
		f, err := os.Open(filepath.Join(dir, n.Name()))
		if err != nil {
			continue
		}
		err = source.ClaimTarget(f)
		f.Close()
		if err != nil {
			return fmt.Errorf("another restore to %s is at work, in %s: %w", path, n.Name(), ErrTarget)
		}
		warn(fmt.Sprintf("%s is of an earlier restore to this name; if none is at work any more, it is in nobody's way but takes room: remove it", filepath.Join(dir, n.Name())))
	}
	return nil
}

// probeNaming finds out with the partial file, which is still empty, how it will
// get its name, and calls it something else on the way.
func (t *file) probeNaming() error {
	other := t.temp + "x"
	if t.naming != byReplace {
		err := unix.Renameat2(unix.AT_FDCWD, t.temp, unix.AT_FDCWD, other, unix.RENAME_NOREPLACE)
		if err == nil {
			t.temp, t.naming = other, byRename
			return nil
		}
		if err := os.Link(t.temp, other); err == nil {
			t.naming = byLink
			return os.Remove(other)
		}
	}
	if err := os.Rename(t.temp, other); err != nil {
		return fmt.Errorf("its file system does not rename files: %w: %w", cause(err), ErrTarget)
	}
	if t.temp = other; t.naming != byReplace {
		t.naming = byCreate
	}
	return nil
}

// name gives the finished file its name; one that has appeared meanwhile is not
// replaced unless that was asked for.
func (t *file) name() error {
	switch t.naming {
	case byRename:
		return unix.Renameat2(unix.AT_FDCWD, t.temp, unix.AT_FDCWD, t.path, unix.RENAME_NOREPLACE)
	case byLink:
		if err := os.Link(t.temp, t.path); err != nil {
			return err
		}
		return os.Remove(t.temp)
	case byCreate:
		return t.takeName()
	}
	return os.Rename(t.temp, t.path)
}

// takeName makes an empty file that must not be there yet and replaces it.
func (t *file) takeName() error {
	f, err := os.OpenFile(t.path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	ours, err := f.Stat()
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err = os.Rename(t.temp, t.path); err == nil {
		return nil
	}
	if st, statErr := os.Lstat(t.path); statErr == nil && os.SameFile(st, ours) && st.Size() == 0 {
		err = errors.Join(err, os.Remove(t.path))
	}
	return err
}

// settleLink tells where an existing target really is, so that a symbolic link
// goes on pointing to it.
func settleLink(path string) (string, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", fmt.Errorf("open target: %w", err)
	}
	return real, nil
}

// danglingLink is the error for a symbolic link to nothing, nil for all else.
func danglingLink(path string) error {
	st, err := os.Lstat(path)
	if err != nil || st.Mode()&fs.ModeSymlink == 0 {
		return nil
	}
	to, _ := os.Readlink(path)
	return fmt.Errorf("%s is a symbolic link to %s, which does not exist; name the file itself: %w", path, to, ErrTarget)
}
