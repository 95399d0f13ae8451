package restore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"holdfast/client/source"
)

// refuseInUse refuses an existing file that another program works with: one that
// QEMU has open, one that a loop device is made of, one that anybody has open for
// writing. It must be asked before the file is opened for writing here.
func refuseInUse(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrPermission) {
		return nil // whether it can be written to is found out next
	}
	if err != nil {
		return fmt.Errorf("open target: %w", err)
	}
	defer f.Close()
	if device := loopOf(f); device != "" {
		return fmt.Errorf("%s is what the loop device %s is made of; detach it first (losetup -d): %w", path, device, ErrTarget)
	}
	if err := claim(f); err != nil {
		return err
	}
	if hasWriter(f) {
		return fmt.Errorf("another program has %s open for writing: %w", path, ErrTarget)
	}
	return nil
}

// claim makes a target ours among all programs that keep to QEMU's image locks,
// until it is closed.
func claim(f *os.File) error {
	if err := source.ClaimTarget(f); err != nil {
		return fmt.Errorf("%w: %w", err, ErrTarget)
	}
	return nil
}

// hasWriter reports whether somebody is known to have the file open for
// writing: then the kernel gives nobody a lease for reading. Where it gives none
// at all nothing is known.
func hasWriter(f *os.File) bool {
	_, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK)
	if err == nil {
		_, _ = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
	}
	return errors.Is(err, unix.EAGAIN)
}

// loopOf names the loop device that is made of f, "" if none is known.
func loopOf(f *os.File) string {
	info, err := f.Stat()
	if err != nil {
		return ""
	}
	loops, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, l := range loops {
		device := "/dev/" + filepath.Base(filepath.Dir(filepath.Dir(l)))
		name, err := os.ReadFile(l)
		if err != nil {
			continue
		}
		path := string(name[:max(len(name)-1, 0)]) // without the end of the line
		if st, err := os.Stat(path); err == nil && os.SameFile(st, info) || loopHas(device, info) {
			return device
		}
	}
	return ""
}

// loopHas asks a loop device itself, which knows its file under whatever name.
// Only root may.
func loopHas(device string, info fs.FileInfo) bool {
	d, err := os.Open(device)
	if err != nil {
		return false
	}
	defer d.Close()
	status, err := unix.IoctlLoopGetStatus64(int(d.Fd()))
	st, ok := info.Sys().(*syscall.Stat_t)
	return err == nil && ok && status.Inode == st.Ino && status.Device == st.Dev
}
