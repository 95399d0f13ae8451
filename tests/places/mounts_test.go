package places

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"holdfast/tests/harness"
)

// memory is a directory in memory, where images are quick.
func memory(t *testing.T) string {
	t.Helper()
	base := "/dev/shm"
	if _, err := os.Stat(base); err != nil {
		base = ""
	}
	dir, err := os.MkdirTemp(base, "holdfast-places-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// image makes a file of some MiB, attaches it to a loop device and puts a file
// system on it.
func image(t *testing.T, mib int64, mkfs ...string) (device, mount string) {
	t.Helper()
	dir := memory(t)
	file := filepath.Join(dir, "image")
	mount = filepath.Join(dir, "mount")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Truncate(file, mib<<20), os.Mkdir(mount, 0o700)); err != nil {
		t.Fatal(err)
	}
	device, _ = harness.Loop(t, file)
	harness.Tool(t, append(mkfs, device)...)
	return device, mount
}

// mounted is image for what the kernel mounts.
func mounted(t *testing.T, mib int64, mkfs ...string) string {
	t.Helper()
	device, mount := image(t, mib, mkfs...)
	harness.Tool(t, "mount", device, mount)
	harness.Unmount(t, mount)
	return mount
}

// fused is image for what a program mounts.
func fused(t *testing.T, mib int64, mkfs []string, driver ...string) string {
	t.Helper()
	device, mount := image(t, mib, mkfs...)
	harness.Tool(t, append(driver, device, mount)...)
	harness.Unmount(t, mount)
	return mount
}

func ext4(t *testing.T) string { return mounted(t, 64, "mkfs.ext4", "-q", "-m", "0") }

// fewInodes is ext4 on which these run out before the blocks do.
func fewInodes(t *testing.T) string {
	return mounted(t, 64, "mkfs.ext4", "-q", "-m", "0", "-N", "1024")
}

func btrfs(t *testing.T) string { return mounted(t, 128, "mkfs.btrfs", "-q", "--mixed") }

// splitBtrfs is btrfs as it is made by default: data and metadata have room of
// their own, and either can run out.
func splitBtrfs(t *testing.T) string { return mounted(t, 256, "mkfs.btrfs", "-q") }

// limitedBtrfs is a subvolume that may take less than its file system has.
func limitedBtrfs(t *testing.T) string {
	top := splitBtrfs(t)
	dir := filepath.Join(top, "limited")
	harness.Tool(t, "btrfs", "quota", "enable", top)
	harness.Tool(t, "btrfs", "subvolume", "create", dir)
	harness.Tool(t, "btrfs", "qgroup", "limit", "64M", dir)
	return dir
}

func xfs(t *testing.T) string { return mounted(t, 320, "mkfs.xfs", "-q") }

func tmpfs(t *testing.T) string {
	dir := memory(t)
	harness.Tool(t, "mount", "-t", "tmpfs", "-o", "size=64m", "none", dir)
	harness.Unmount(t, dir)
	return dir
}

func exfat(t *testing.T) string {
	return fused(t, 64, []string{"mkfs.exfat"}, "mount.exfat-fuse", "-o", "nonempty")
}

func ntfs(t *testing.T) string {
	return fused(t, 64, []string{"mkfs.ntfs", "-q", "-Q"}, "ntfs-3g")
}

func foldingNTFS(t *testing.T) string {
	return fused(t, 64, []string{"mkfs.ntfs", "-q", "-Q"}, "lowntfs-3g", "-o", "ignore_case")
}

func bindfs(t *testing.T) string {
	from, to := tmpfs(t), memory(t) // with a bound, since it is filled
	harness.Tool(t, "bindfs", "--chmod-deny", "--chown-deny", from, to)
	harness.Unmount(t, to)
	return to
}

func overlay(t *testing.T) string {
	dir := tmpfs(t)
	var names []string
	for _, name := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		names = append(names, filepath.Join(dir, name))
	}
	harness.Tool(t, "mount", "-t", "overlay", "-o", "lowerdir="+names[0]+",upperdir="+names[1]+",workdir="+names[2], "none", names[3])
	harness.Unmount(t, names[3])
	return names[3]
}

// foldingExt4 is a directory of ext4 that does not tell cases apart, "" if the
// kernel was built without.
func foldingExt4(t *testing.T) string {
	if _, err := os.Stat("/sys/fs/ext4/features/casefold"); err != nil {
		t.Log("NOT TESTED: ext4 with casefold, which this kernel does not have")
		return ""
	}
	dir := filepath.Join(mounted(t, 64, "mkfs.ext4", "-q", "-O", "casefold"), "folding")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	harness.Tool(t, "chattr", "+F", dir)
	return dir
}

// fill takes all room of a file system.
func fill(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "ballast"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for n := 1 << 20; n >= 4096; n /= 2 {
		for err = nil; err == nil; err = f.Sync() {
			if _, err = f.Write(make([]byte, n)); err != nil {
				break
			}
		}
		if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
			t.Fatal(err)
		}
	}
}

// fillInodes makes files as long as there can be one more.
func fillInodes(t *testing.T, dir string) {
	t.Helper()
	for {
		f, err := os.CreateTemp(dir, "inode")
		if errors.Is(err, syscall.ENOSPC) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
}
