package blocks

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"holdfast/tests/faultlab/lab"
)

// sector is what a disk writes whole, in bytes.
const sector = 512

// event is something that happened to the disk. One without data is a flush.
type event struct {
	off  int64
	data []byte
}

// recorder is a disk in a file that remembers what happens to it.
type recorder struct {
	fs.Inode
	file *os.File // the content now

	mu     sync.Mutex
	events []event
}

var (
	_ fs.NodeGetattrer = (*recorder)(nil)
	_ fs.NodeSetattrer = (*recorder)(nil)
	_ fs.NodeOpener    = (*recorder)(nil)
	_ fs.NodeReader    = (*recorder)(nil)
	_ fs.NodeWriter    = (*recorder)(nil)
	_ fs.NodeFsyncer   = (*recorder)(nil)
	_ fs.NodeAllocater = (*recorder)(nil)
)

func (r *recorder) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	st, err := r.file.Stat()
	if err != nil {
		return syscall.EIO
	}
	out.Mode, out.Size, out.Blocks = syscall.S_IFREG|0o600, uint64(st.Size()), uint64(st.Size()/sector)
	return 0
}

// Setattr lets times be set, which mean nothing here.
func (r *recorder) Setattr(ctx context.Context, h fs.FileHandle, _ *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	return r.Getattr(ctx, h, out)
}

func (r *recorder) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_KEEP_CACHE, 0
}

func (r *recorder) Read(_ context.Context, _ fs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	n, err := r.file.ReadAt(dest, off)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, syscall.EIO
	}
	return fuse.ReadResultData(dest[:n]), 0
}

func (r *recorder) Write(_ context.Context, _ fs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, err := r.file.WriteAt(data, off); err != nil {
		return 0, syscall.EIO
	}
	r.events = append(r.events, event{off, append([]byte{}, data...)})
	return uint32(len(data)), 0
}

// Fsync is a flush of the disk.
func (r *recorder) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, event{})
	return 0
}

// Allocate makes the loop device write zeros instead.
func (r *recorder) Allocate(context.Context, fs.FileHandle, uint64, uint64, uint32) syscall.Errno {
	return syscall.EOPNOTSUPP
}

// now is how much has happened.
func (r *recorder) now() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.events)
}

// soFar is what has happened. More may come, but nothing of it changes.
func (r *recorder) soFar() []event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.events[:len(r.events):len(r.events)]
}

// folder is the directory that holds the disk.
type folder struct {
	fs.Inode
	disk *recorder
}

func (f *folder) OnAdd(ctx context.Context) {
	f.AddChild("disk", f.NewPersistentInode(ctx, f.disk, fs.StableAttr{Mode: syscall.S_IFREG}), false)
}

// offer offers the disk as dir/disk.
func (r *recorder) offer(dir string) (*fuse.Server, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	o := &fs.Options{MountOptions: fuse.MountOptions{DirectMountStrict: true, FsName: "recorder", MaxWrite: 1 << 20}}
	return fs.Mount(dir, &folder{disk: r}, o)
}

// record runs work on a file system below a recorder and returns what happened.
// work gets the disk and a clock that counts events.
func record(f lab.FS, image string, work func(d *lab.Disk, now func() int) error) (events []event, err error) {
	dir, err := here.MkdirTemp()
	if err != nil {
		return nil, err
	}
	copied := filepath.Join(dir, "disk.img")
	if err := lab.CopySparse(image, copied); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(copied, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	r := &recorder{file: file}
	server, err := r.offer(filepath.Join(dir, "fuse"))
	if err != nil {
		return nil, err
	}
	d, err := f.Mount(filepath.Join(dir, "fuse", "disk"), filepath.Join(dir, "mount"))
	if err == nil {
		err = work(d, r.now)
		events = r.soFar()
		err = errors.Join(err, d.Unmount())
	}
	return events, errors.Join(err, lab.Patiently(server.Unmount), os.RemoveAll(dir))
}

// maker makes crash states from a record, each later than the one before.
type maker struct {
	events []event
	file   *os.File // the base with all events up to done
	done   int
}

// state writes into the file image what a power cut at some moment may leave: all
// up to the last flush, and some of the rest.
func (m *maker) state(moment int, image string, random *rand.Rand) error {
	durable := moment
	for durable > 0 && m.events[durable-1].data != nil {
		durable--
	}
	for ; m.done < durable; m.done++ {
		if e := m.events[m.done]; e.data != nil {
			if _, err := m.file.WriteAt(e.data, e.off); err != nil {
				return err
			}
		}
	}
	if err := lab.CopySparse(m.file.Name(), image); err != nil {
		return err
	}
	f, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	share := random.IntN(101) // of the writes that get to the disk, in percent
	for _, e := range m.events[durable:moment] {
		switch {
		case random.IntN(100) >= share:
		case random.IntN(8) == 0:
			err = errors.Join(err, tear(f, e, random))
		default:
			_, e := f.WriteAt(e.data, e.off)
			err = errors.Join(err, e)
		}
	}
	return errors.Join(err, f.Close())
}

// tear writes some sectors only.
func tear(f *os.File, e event, random *rand.Rand) error {
	for at := 0; at < len(e.data); at += sector {
		if random.IntN(2) == 0 {
			continue
		}
		if _, err := f.WriteAt(e.data[at:min(at+sector, len(e.data))], e.off+int64(at)); err != nil {
			return err
		}
	}
	return nil
}
