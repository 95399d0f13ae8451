package sim

import (
	"io/fs"
	"path"
	"strings"
	"syscall"
)

// Stat describes what a name names, as os.Lstat does. There are no links.
func Stat(name string) (fs.FileInfo, error) {
	d, err := begin("stat", name)
	if err != nil {
		return nil, pathError("stat", name, err)
	}
	n, err := d.find(path.Clean(name))
	if err != nil {
		return nil, pathError("stat", name, err)
	}
	return n.info(name), nil
}

// ReadDir lists a directory by name, sorted.
func ReadDir(name string) ([]fs.DirEntry, error) {
	d, err := begin("readdir", name)
	if err != nil {
		return nil, pathError("open", name, err)
	}
	n, err := d.find(path.Clean(name))
	if err != nil {
		return nil, pathError("open", name, err)
	}
	list, err := n.list()
	return list, pathError("readdir", name, err)
}

// Mkdir makes a directory.
func Mkdir(name string, mode fs.FileMode) error {
	d, err := begin("mkdir", name)
	if err == nil {
		err = d.mkdir(path.Clean(name), mode)
	}
	return pathError("mkdir", name, err)
}

func (d *Disk) mkdir(name string, mode fs.FileMode) error {
	dir, base, err := d.parent(name)
	if err != nil {
		return err
	}
	if dir.entries[base] != nil {
		return syscall.EEXIST
	}
	d.do(move{to: dir, toName: base, what: newDir(mode.Perm())})
	return nil
}

// MkdirAll makes a directory and those above it.
func MkdirAll(name string, mode fs.FileMode) error {
	name = path.Clean(name)
	if st, err := Stat(name); err == nil {
		if st.IsDir() {
			return nil
		}
		return pathError("mkdir", name, syscall.ENOTDIR)
	}
	if up := path.Dir(name); up != name {
		if err := MkdirAll(up, mode); err != nil {
			return err
		}
	}
	if err := Mkdir(name, mode); err != nil {
		if st, serr := Stat(name); serr != nil || !st.IsDir() {
			return err
		}
	}
	return nil
}

// Remove removes a file or an empty directory.
func Remove(name string) error {
	d, err := begin("remove", name)
	if err == nil {
		err = d.remove(path.Clean(name))
	}
	return pathError("remove", name, err)
}

func (d *Disk) remove(name string) error {
	dir, base, err := d.parent(name)
	if err != nil {
		return err
	}
	n := dir.entries[base]
	switch {
	case n == nil:
		return syscall.ENOENT
	case n.dir && len(n.entries) > 0:
		return syscall.ENOTEMPTY
	}
	n.links--
	d.do(move{from: dir, fromName: base})
	return nil
}

// RemoveAll removes a tree, one name after the other.
func RemoveAll(name string) error {
	st, err := Stat(name)
	if err != nil {
		return ignoreMissing(err)
	}
	if st.IsDir() {
		list, err := ReadDir(name)
		if err != nil {
			return ignoreMissing(err)
		}
		for _, e := range list {
			if err := RemoveAll(path.Join(name, e.Name())); err != nil {
				return err
			}
		}
	}
	return ignoreMissing(Remove(name))
}

func ignoreMissing(err error) error {
	if pe, ok := err.(*fs.PathError); ok && pe.Err == syscall.ENOENT {
		return nil
	}
	return err
}

// Rename gives a file or directory another name, as os.Rename does: a directory
// is never replaced.
func Rename(from, to string) error { return renameWith(from, to, false) }

// RenameAt is Rename as the kernel does it, and os.Root: an empty directory may
// be replaced by another.
func RenameAt(from, to string) error { return renameWith(from, to, true) }

func renameWith(from, to string, dirs bool) error {
	d, err := begin("rename", from+" -> "+to)
	if err == nil {
		err = d.rename(path.Clean(from), path.Clean(to), dirs)
	}
	return pathError("rename", from, err)
}

func (d *Disk) rename(from, to string, dirs bool) error {
	old, base, err := d.parent(from)
	if err != nil {
		return err
	}
	dir, newBase, err := d.parent(to)
	if err != nil {
		return err
	}
	n := old.entries[base]
	if n == nil {
		return syscall.ENOENT
	}
	there := dir.entries[newBase]
	if n.dir && strings.HasPrefix(to, from+"/") && (there == nil || !there.dir || dirs) {
		return syscall.EINVAL
	}
	if n == there {
		if n.dir && !dirs {
			return syscall.EEXIST
		}
		return nil
	}
	if err := mayReplace(there, n, dirs); err != nil {
		return err
	}
	if there != nil {
		there.links--
	}
	d.do(move{from: old, fromName: base, to: dir, toName: newBase, what: n})
	return nil
}

// mayReplace tells whether n may take the name of there.
func mayReplace(there, n *node, dirs bool) error {
	switch {
	case there == nil:
		return nil
	case there.dir && !dirs:
		return syscall.EEXIST
	case there.dir && !n.dir:
		return syscall.EISDIR
	case !there.dir && n.dir:
		return syscall.ENOTDIR
	case there.dir && len(there.entries) > 0:
		return syscall.ENOTEMPTY
	}
	return nil
}

// Chmod changes permissions, durably.
func Chmod(name string, mode fs.FileMode) error {
	d, err := begin("chmod", name)
	if err != nil {
		return pathError("chmod", name, err)
	}
	n, err := d.find(path.Clean(name))
	if err != nil {
		return pathError("chmod", name, err)
	}
	n.mode = mode.Perm()
	return nil
}
