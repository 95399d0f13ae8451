package restore

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"holdfast/chunkstore"
	"holdfast/chunkstore/durable"
)

// file is a regular file. A new one is written beside its name and renamed when
// it is complete; an existing one is changed in place.
type file struct {
	f       *os.File
	path    string // where it is going to be
	temp    string // where it is until then; "" if changed in place, or there
	naming  naming
	fresh   bool // a new file, not one changed in place
	dense   bool // it cannot be made long without writing
	size    int64
	like    fs.FileInfo // what it replaces, nil if there was nothing
	touched bool
	whole   bool  // everything is written, synced and closed
	pushed  int64 // up to where the kernel has been asked to write
}

// pushSize is after how many bytes the kernel is asked to begin writing, so that
// the disk works while chunks are decoded and finish has little to wait for.
const pushSize = 16 << 20

// newFile makes a file that finish will call path, after it has found out that
// everything will succeed that can be known before the first byte.
// One that replaces another, which like describes, resembles it then.
func newFile(path string, w wanted, like fs.FileInfo) (*file, error) {
	if err := refuseSecond(path, w.warn); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(filepath.Dir(path), partialPrefix(path)+"*")
	if err != nil {
		return nil, fmt.Errorf("create target %s: %w", path, cause(err))
	}
	t := &file{f: f, path: path, temp: f.Name(), fresh: true, size: w.size, like: like}
	if like != nil {
		t.naming = byReplace
	}
	if err := t.prepare(w); err != nil {
		return nil, fmt.Errorf("%w (%s)", err, t.abort())
	}
	return t, nil
}

// prepare makes the empty file ready.
func (t *file) prepare(w wanted) error {
	if err := claim(t.f); err != nil {
		return err
	}
	// CreateTemp gives the mode too; a mask of the process could have made it less,
	// and some file systems have no modes at all.
	_ = t.f.Chmod(0o600)
	if err := t.probeNaming(); err != nil {
		return t.errorf("name", cause(err))
	}
	if err := checkRoom(t.f, t.path, w.data, w.warn); err != nil {
		return err
	}
	err := t.f.Truncate(t.size)
	if t.dense = errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM); t.dense {
		err = nil
	}
	if err != nil {
		return t.errorf("make room for", cause(err))
	}
	return nil
}

// openExisting opens a file to be changed in place into one that is wanted.
func openExisting(path string, w wanted) (*file, error) {
	if err := refuseInUse(path); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open target: %w", err)
	}
	t := &file{f: f, path: path, size: w.size}
	if err = claim(f); err == nil {
		readMedium(f)
		err = checkFormat(f, w)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return t, nil
}

// readMedium makes reading f mean reading the medium, as far as the kernel takes the
// advice. What an earlier restore has written and the disk did not take is still in
// memory, where it looks as if it were there and no fsync speaks of it again: it must
// not be taken for the same. So an error here means nothing more; those of what is
// written from now on finish gets.
func readMedium(f *os.File) {
	_ = f.Sync()
	durable.DropCache(f)
}

// resemble gives a complete file the owner and the mode of the one that it replaces, as
// far as that may be done, so that whoever was to read that reads this. Who may not give
// it to the group of the other does not let his own group at it.
func (t *file) resemble() {
	if t.like == nil {
		return
	}
	mode := t.like.Mode().Perm()
	if st, ok := t.like.Sys().(*syscall.Stat_t); ok {
		_ = t.f.Chown(int(st.Uid), -1) // for root only
		if t.f.Chown(-1, int(st.Gid)) != nil {
			const group = 0o070
			mode &^= group
		}
	}
	_ = t.f.Chmod(mode) // some file systems have no modes at all
}

// errorf names the target and tells a full disk from other errors.
func (t *file) errorf(doing string, err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		err = fmt.Errorf("%w: %w", chunkstore.ErrNoSpace, err)
	}
	if errors.Is(err, unix.EFBIG) {
		err = fmt.Errorf("its file system, or ulimit -f, does not permit a file of %d bytes: %w: %w", t.size, err, ErrTarget)
	}
	return fmt.Errorf("%s target %s: %w", doing, t.path, err)
}

func (t *file) writeAt(p []byte, off int64) error {
	t.touched = true
	if _, err := t.f.WriteAt(p, off); err != nil {
		return t.errorf("write", err)
	}
	if end := off + int64(len(p)); end-t.pushed >= pushSize {
		// Advice: finish waits for all of it and gets the errors.
		_ = unix.SyncFileRange(int(t.f.Fd()), t.pushed, end-t.pushed, unix.SYNC_FILE_RANGE_WRITE)
		t.pushed = end
	}
	return nil
}

// zero leaves a hole in a new file and punches one into an existing file; where
// there are no holes it writes zeros.
func (t *file) zero(off, n int64) error {
	if t.fresh && !t.dense {
		return nil
	}
	t.touched = true
	err := error(unix.EOPNOTSUPP)
	if !t.fresh {
		err = unix.Fallocate(int(t.f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	}
	if err != nil {
		err = writeZeros(t.f, off, n)
	}
	if err != nil {
		return t.errorf("write zeros to", err)
	}
	return nil
}

func writeZeros(w io.WriterAt, off, n int64) error {
	nul := make([]byte, min(n, 1<<20))
	for n > 0 {
		part := nul[:min(n, int64(len(nul)))]
		if _, err := w.WriteAt(part, off); err != nil {
			return err
		}
		off, n = off+int64(len(part)), n-int64(len(part))
	}
	return nil
}

func (t *file) readAt(p []byte, off int64) (int, error) {
	n, err := t.f.ReadAt(p, off)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

func (t *file) finish() error {
	if !t.dense {
		if err := t.f.Truncate(t.size); err != nil {
			return t.errorf("set the size of", err)
		}
	}
	t.resemble()
	if err := t.f.Sync(); err != nil && !cannotSync(err) {
		return t.errorf("sync", cause(err))
	}
	// File servers may tell only now what they could not take.
	if err := t.f.Close(); err != nil {
		return t.errorf("close", cause(err))
	}
	t.whole = true
	if !t.fresh {
		return nil
	}
	if err := t.name(); err != nil {
		return t.errorf("name", cause(err))
	}
	t.temp = ""
	return durable.SyncDir(filepath.Dir(t.path))
}

// cannotSync tells a file system that has no fsync from one whose fsync fails.
func cannotSync(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS)
}

// abort leaves what is whole where it is: nobody should have to fetch it again
// because it did not get its name.
func (t *file) abort() string {
	t.f.Close() // there is an error already
	switch {
	case t.fresh && t.whole && t.temp != "":
		return fmt.Sprintf("everything was restored, to %s: give it the name that it is to have", t.temp)
	case t.whole:
		return fmt.Sprintf("%s is complete, but may not survive a power cut", t.path)
	case t.fresh && t.naming == byReplace:
		os.Remove(t.temp)
		return fmt.Sprintf("%s is as it was", t.path)
	case t.fresh:
		os.Remove(t.temp)
		return fmt.Sprintf("%s was not created", t.path)
	case !t.touched:
		return fmt.Sprintf("%s is as it was", t.path)
	}
	if _, err := os.Stat(t.path); errors.Is(err, fs.ErrNotExist) {
		return fmt.Sprintf("%s is gone", t.path)
	}
	return fmt.Sprintf("%s holds a mixture of old and restored data: do not use it; the same command with --differential goes on from here", t.path)
}

// cause strips operation and paths from an error of package os: the messages
// here name the target, and not the partial file.
func cause(err error) error {
	var p *fs.PathError
	var l *os.LinkError
	switch {
	case errors.As(err, &p):
		return p.Err
	case errors.As(err, &l):
		return l.Err
	}
	return err
}
