package limits

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"holdfast/tests/faultlab/lab"
)

// fulls is how many disks are filled at scale 1.
const fulls = 4

// TestDiskFull fills disks to the last byte, and to the last inode. Everything can
// be read, what frees room works without any, and then backups do again.
func TestDiskFull(t *testing.T) {
	for _, tc := range []struct {
		name    string
		options []string
		fill    func(dir string) error
	}{
		{"bytes", nil, fillBytes},
		{"inodes", []string{"-N", "160"}, fillInodes},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			for i := range fulls * here.Scale / 2 {
				if err := full(uint64(i), tc.options, tc.fill); err != nil {
					t.Fatalf("seed %d: %v", i, err)
				}
			}
			t.Attr("faultlab.full-disks", strconv.Itoa(fulls*here.Scale/2))
		})
	}
}

// full makes a repository on a disk that is full then.
func full(seed uint64, options []string, fill func(string) error) (err error) {
	dir, err := here.MkdirTemp()
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	fs := lab.Ext4()
	fs.Bytes = 40 << 20
	image := filepath.Join(dir, "disk.img")
	if err := fs.Format(image, options...); err != nil {
		return err
	}
	d, err := fs.Mount(image, filepath.Join(dir, "mount"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Unmount()) }()
	w, err := here.NewWorldWithTrash(filepath.Join(d.Dir, "store"), seed, 7*int(seed%2))
	if err != nil {
		return err
	}
	for range 2 {
		for _, g := range lab.Groups() {
			op, err := w.Backup(g)
			if err == nil {
				err = w.MustDo(op)
			}
			if err != nil {
				return err
			}
		}
	}
	if err := fill(d.Dir); err != nil {
		return err
	}
	if err := atZero(w); err != nil {
		return err
	}
	// What was freed need not be enough for a backup.
	if err := empty(d.Dir); err != nil {
		return err
	}
	return w.GoOn()
}

// empty removes what fills a disk beside the repository.
func empty(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if e.Name() != "store" {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	return err
}

// atZero works on a repository on a full disk.
func atZero(w *lab.World) error {
	if err := w.Judge(); err != nil {
		return fmt.Errorf("reading on a full disk: %w", err)
	}
	op, err := w.Backup("vm/1")
	if err != nil {
		return err
	}
	res, ok, err := w.Do(op)
	if err != nil || !ok && res.Code != lab.ExitNoSpace {
		return fmt.Errorf("a backup on a full disk: %w %s", err, res)
	}
	if err := w.Judge(); err != nil {
		return fmt.Errorf("after a backup on a full disk: %w", err)
	}
	for range 3 {
		if err := w.MustDo(w.ForgetNow(w.Any())); err != nil {
			return fmt.Errorf("removing on a full disk: %w", err)
		}
		if err := w.MustDo(w.GC()); err != nil {
			return fmt.Errorf("collecting on a full disk: %w", err)
		}
	}
	if err := w.Judge(); err != nil {
		return fmt.Errorf("after collecting on a full disk: %w", err)
	}
	return nil
}

// fillBytes writes a file until not one byte more fits.
func fillBytes(dir string) error {
	f, err := os.Create(filepath.Join(dir, "ballast"))
	if err != nil {
		return err
	}
	for n := 1 << 20; n > 0; n /= 2 {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, n))
		}
		if !errors.Is(err, syscall.ENOSPC) {
			return errors.Join(err, f.Close())
		}
	}
	return errors.Join(f.Sync(), f.Close())
}

// fillInodes makes empty files until there is no inode for one more.
func fillInodes(dir string) error {
	var names []string
	for {
		name := filepath.Join(dir, fmt.Sprint("ballast", len(names)))
		err := os.WriteFile(name, nil, 0o600)
		if errors.Is(err, syscall.ENOSPC) {
			break
		}
		if err != nil {
			return err
		}
		names = append(names, name)
	}
	if len(names) == 0 {
		return errors.New("there was no inode from the beginning")
	}
	return nil
}
