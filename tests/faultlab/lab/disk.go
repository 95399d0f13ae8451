package lab

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// FS is a kind of file system.
type FS struct {
	Name  string
	Bytes int64 // size of the image
	make  []string
	mount string // options
}

// Ext4 does nothing by itself to make a rename wait for the data.
func Ext4() FS {
	return FS{"ext4", 48 << 20, []string{"mkfs.ext4", "-q", "-m", "0", "-J", "size=4", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"},
		"noauto_da_alloc,noatime"}
}

// XFS is small, for which its makers do not vouch; its log is as they like it.
func XFS() FS {
	return FS{"xfs", 64 << 20, []string{"mkfs.xfs", "-q", "-K", "-f", "-l", "size=8m"}, "nouuid,noatime"}
}

// Format makes a file system in a new file.
func (f FS) Format(image string, options ...string) error {
	file, err := os.Create(image)
	if err != nil {
		return err
	}
	if err := errors.Join(file.Truncate(f.Bytes), file.Close()); err != nil {
		return err
	}
	args := append(append(append([]string{}, f.make[1:]...), options...), image)
	return tool(f.make[0], args...)
}

// Disk is a mounted file system.
type Disk struct {
	FS
	Image string
	Dir   string // where it is mounted

	mounted bool
}

// Mount mounts an image on dir, which is made. What a power cut has left in the
// journal comes into effect.
func (f FS) Mount(image, dir string, options ...string) (*Disk, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	all := "loop," + f.mount
	for _, o := range options {
		all += "," + o
	}
	var err error
	for range 20 { // somebody else may have taken the loop device that was free
		if err = tool("mount", "-t", f.Name, "-o", all, image, dir); err == nil {
			return &Disk{FS: f, Image: image, Dir: dir, mounted: true}, nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return nil, err
}

// Unmount unmounts; the loop device goes with it. Somebody may still be dying
// there, which takes a moment. Once it has been done it does nothing.
func (d *Disk) Unmount() error {
	if !d.mounted {
		return nil
	}
	d.mounted = false
	if err := Patiently(func() error { return unix.Unmount(d.Dir, 0) }); err != nil {
		return fmt.Errorf("unmount %s: %w", d.Dir, errors.Join(err, unix.Unmount(d.Dir, unix.MNT_DETACH)))
	}
	return nil
}

// Patiently repeats do as long as it finds something busy, for a while.
func Patiently(do func() error) error {
	var err error
	for range 500 {
		if err = do(); !errors.Is(err, unix.EBUSY) {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
	return err
}

// shutdownIoctl is _IOR('X', 125, __u32), for ext4 and XFS.
const shutdownIoctl = 0x8004587d

// How Cut ends it.
const (
	CutLogFlushed = 1 // the journal gets to the disk, and nothing else
	CutAtOnce     = 2 // nothing gets there
)

// Cut takes away the power: from now on nothing reaches the image, and whoever
// writes gets an error.
func (d *Disk) Cut(how int) error {
	dir, err := os.Open(d.Dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := unix.IoctlSetPointerInt(int(dir.Fd()), shutdownIoctl, how); err != nil {
		return fmt.Errorf("shut down %s: %w", d.Dir, err)
	}
	return nil
}

// CopySparse copies an image without its holes.
func CopySparse(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	st, err := src.Stat()
	if err != nil {
		return err
	}
	dst, err := os.Create(to)
	if err != nil {
		return err
	}
	err = dst.Truncate(st.Size())
	for off := int64(0); err == nil; {
		begin, e := src.Seek(off, unix.SEEK_DATA)
		if errors.Is(e, syscall.ENXIO) {
			break
		}
		end, e2 := src.Seek(begin, unix.SEEK_HOLE)
		if err = errors.Join(e, e2); err != nil {
			break
		}
		_, err = io.Copy(io.NewOffsetWriter(dst, begin), io.NewSectionReader(src, begin, end-begin))
		off = end
	}
	return errors.Join(err, dst.Close())
}

// CopyTree copies a directory.
func CopyTree(from, to string) error {
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		return err
	}
	// CopyFS gives what it makes the mode that the umask leaves of 0777 or 0666.
	return filepath.WalkDir(from, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		return os.Chmod(filepath.Join(to, rel), st.Mode().Perm())
	})
}
