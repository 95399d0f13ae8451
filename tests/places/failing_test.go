package places

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"holdfast/tests/harness"
)

// mark is in every sector of the disk that is backed up, so that a failing disk can
// tell its content from what a file system writes about it.
const mark = "content of the disk"

// failing is a disk in a file that refuses, for a while, to take content.
type failing struct {
	fs.Inode
	file *os.File
	now  atomic.Bool
	met  atomic.Int64 // writes that it has refused
}

var (
	_ fs.NodeGetattrer = (*failing)(nil)
	_ fs.NodeSetattrer = (*failing)(nil)
	_ fs.NodeOpener    = (*failing)(nil)
	_ fs.NodeReader    = (*failing)(nil)
	_ fs.NodeWriter    = (*failing)(nil)
	_ fs.NodeFsyncer   = (*failing)(nil)
	_ fs.NodeAllocater = (*failing)(nil)
)

func (f *failing) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	st, err := f.file.Stat()
	if err != nil {
		return syscall.EIO
	}
	out.Mode, out.Size = syscall.S_IFREG|0o600, uint64(st.Size())
	return 0
}

// Setattr lets times be set, which mean nothing here.
func (f *failing) Setattr(ctx context.Context, h fs.FileHandle, _ *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	return f.Getattr(ctx, h, out)
}

func (f *failing) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO, 0
}

func (f *failing) Read(_ context.Context, _ fs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	n, err := f.file.ReadAt(dest, off)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, syscall.EIO
	}
	return fuse.ReadResultData(dest[:n]), 0
}

func (f *failing) Write(_ context.Context, _ fs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	if f.now.Load() && bytes.Contains(data, []byte(mark)) {
		f.met.Add(1)
		return 0, syscall.EIO
	}
	if _, err := f.file.WriteAt(data, off); err != nil {
		return 0, syscall.EIO
	}
	return uint32(len(data)), 0
}

func (f *failing) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno { return 0 }

// Allocate makes the loop device write zeros instead.
func (f *failing) Allocate(context.Context, fs.FileHandle, uint64, uint64, uint32) syscall.Errno {
	return syscall.EOPNOTSUPP
}

// holder is the directory that holds the disk.
type holder struct {
	fs.Inode
	disk *failing
}

func (h *holder) OnAdd(ctx context.Context) {
	h.AddChild("disk", h.NewPersistentInode(ctx, h.disk, fs.StableAttr{Mode: syscall.S_IFREG}), false)
}

// newFailing makes a disk of some MiB and a loop device for it.
func newFailing(t *testing.T, mib int64) (f *failing, device string) {
	t.Helper()
	dir := memory(t)
	file, err := os.Create(filepath.Join(dir, "image"))
	if err == nil {
		err = errors.Join(file.Truncate(mib<<20), os.Mkdir(filepath.Join(dir, "fuse"), 0o700))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	f = &failing{file: file}
	o := &fs.Options{MountOptions: fuse.MountOptions{DirectMountStrict: true, FsName: "failing", MaxWrite: 1 << 20}}
	server, err := fs.Mount(filepath.Join(dir, "fuse"), &holder{disk: f}, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		harness.Eventually(t, "the end of the failing disk", func() bool { return server.Unmount() == nil })
	})
	device, _ = harness.Loop(t, filepath.Join(dir, "fuse", "disk"))
	return f, device
}

// content is what a disk holds that is backed up.
func content(seed byte) []byte {
	b := make([]byte, 6<<20)
	random := rand.NewChaCha8([32]byte{seed})
	_, _ = random.Read(b)
	for off := 0; off < len(b); off += 512 {
		copy(b[off:], mark)
	}
	return b
}

// restores is a snapshot that is restored to a failing disk.
type restores struct {
	repo
	disk *failing
}

func newRestores(t *testing.T, disk *failing) *restores {
	t.Helper()
	r := &restores{repo{t: t, work: t.TempDir(), content: content(1)}, disk}
	r.name = filepath.Join(r.work, "repository")
	file := filepath.Join(r.work, "disk.raw")
	if err := os.WriteFile(file, r.content, 0o600); err != nil {
		t.Fatal(err)
	}
	r.do(exitOK, "init")
	r.do(exitOK, r.backupArgs(file)...)
	return r
}

// to restores while the disk fails, which must be told, and when it works again.
func (r *restores) to(target string, args ...string) {
	r.t.Helper()
	all := append([]string{"restore", "--quiet", "--crypt-mode", "none", "vm/Web-1/latest", "d.img", target}, args...)
	r.disk.now.Store(true)
	r.do(exitError, all...)
	r.disk.now.Store(false)
	if r.disk.met.Load() == 0 {
		r.t.Fatal("the disk was asked to take nothing")
	}
	r.do(exitOK, all...)
}

// holds compares what is on the medium.
func (r *restores) holds(target string) {
	r.t.Helper()
	got, err := os.ReadFile(target)
	if err != nil || !bytes.Equal(got[:min(len(got), len(r.content))], r.content) {
		r.t.Errorf("on the disk is not what was restored, %v", err)
	}
}

// What a disk did not take is in memory still, where a second restore must not take it
// for the same as what is wanted.
func TestRestoreAgainAfterTheDiskHasFailed(t *testing.T) {
	for name, mkfs := range map[string][]string{"ext4": {"mkfs.ext4", "-q", "-m", "0"}, "xfs": {"mkfs.xfs", "-q"}} {
		t.Run(name, func(t *testing.T) {
			disk, device := newFailing(t, 320)
			harness.Tool(t, append(mkfs, device)...)
			mount := memory(t)
			harness.Tool(t, "mount", device, mount)
			harness.Unmount(t, mount)
			r, target := newRestores(t, disk), filepath.Join(mount, "disk.raw")
			if err := os.WriteFile(target, content(2), 0o600); err != nil {
				t.Fatal(err)
			}
			harness.Tool(t, "sync", target)
			r.to(target, "--differential")
			harness.Tool(t, "umount", mount)
			harness.Tool(t, "mount", device, mount)
			r.holds(target)
		})
	}
	t.Run("device", func(t *testing.T) {
		disk, device := newFailing(t, 8)
		other, err := os.Open(device) // as long as it is open, its pages stay
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		r := newRestores(t, disk)
		r.to(device, "--differential")
		harness.Tool(t, "blockdev", "--flushbufs", device)
		r.holds(device)
	})
}

// late is a directory whose files say only when they are closed that they could not
// take what was written.
type late struct{ *fs.LoopbackNode }

var (
	_ fs.NodeFlusher     = (*late)(nil)
	_ fs.NodeWrapChilder = (*late)(nil)
)

func (l *late) Flush(context.Context, fs.FileHandle) syscall.Errno { return syscall.EIO }

// WrapChild makes what is in the directory late, too.
func (l *late) WrapChild(_ context.Context, child fs.InodeEmbedder) fs.InodeEmbedder {
	if node, ok := child.(*fs.LoopbackNode); ok {
		return &late{node}
	}
	return child
}

func newLate(t *testing.T) (mount, below string) {
	t.Helper()
	mount, below = memory(t), memory(t)
	var st syscall.Stat_t
	if err := syscall.Stat(below, &st); err != nil {
		t.Fatal(err)
	}
	data := &fs.LoopbackRoot{Path: below, Dev: st.Dev}
	root := &late{&fs.LoopbackNode{RootData: data}}
	data.RootNode = root
	server, err := fs.Mount(mount, root, &fs.Options{MountOptions: fuse.MountOptions{DirectMountStrict: true, FsName: "late"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		harness.Eventually(t, "the end of the file server", func() bool { return server.Unmount() == nil })
	})
	return mount, below
}

// A file server may tell at the close that it has not taken a file.
func TestRestoreToAServerThatTellsLate(t *testing.T) {
	mount, below := newLate(t)
	r := newRestores(t, nil)
	args := []string{"restore", "--quiet", "--crypt-mode", "none", "vm/Web-1/latest", "d.img"}
	if out := r.do(exitError, append(args, filepath.Join(mount, "disk.raw"))...); strings.Contains(out, "everything was restored") {
		t.Errorf("it said: %s", out)
	}
	if left, err := os.ReadDir(below); err != nil || len(left) > 0 {
		t.Errorf("left are %v, %v", left, err)
	}
	out, err := os.Create(filepath.Join(mount, "redirected.raw"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	c := command(r.env, append(args, "-", "-r", r.name)...)
	c.Stdout = out
	if res, err := harness.Do(c); err != nil || res.Code != exitError {
		t.Errorf("redirected: %v, %v", res, err)
	}
}

// The errors of a file or device that standard output goes to come to nobody but who
// waits for its disk.
func TestRestoreToARedirectedFailingDisk(t *testing.T) {
	disk, device := newFailing(t, 8)
	r := newRestores(t, disk)
	for _, fails := range []bool{true, false} {
		out, err := os.OpenFile(device, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		disk.now.Store(fails)
		c := command(r.env, "restore", "--quiet", "--crypt-mode", "none", "-r", r.name, "vm/Web-1/latest", "d.img", "-")
		c.Stdout = out
		res, err := harness.Do(c)
		disk.now.Store(false)
		if err := errors.Join(err, out.Close()); err != nil {
			t.Fatal(err)
		}
		if want := map[bool]int{true: exitError, false: exitOK}[fails]; res.Code != want {
			t.Errorf("the disk fails: %v, and it ended with %d: %s", fails, res.Code, res.Err)
		}
	}
	r.holds(device)
}
