package ioerr

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"holdfast/tests/faultlab/lab"
)

var here *lab.Lab

func TestMain(m *testing.M) { os.Exit(lab.Run(m, &here)) }

// base is a repository on a file system that is not mounted, to be copied.
type base struct {
	fs    lab.FS
	image string
	world *lab.World
}

// newBase makes a repository with snapshots and garbage.
func newBase(fs lab.FS, seed uint64) (*base, error) {
	dir, err := here.MkdirTemp()
	if err != nil {
		return nil, err
	}
	b := &base{fs: fs, image: filepath.Join(dir, "disk.img")}
	if err := fs.Format(b.image); err != nil {
		return nil, err
	}
	d, err := fs.Mount(b.image, filepath.Join(dir, "mount"))
	if err != nil {
		return nil, err
	}
	if b.world, err = here.NewWorld(filepath.Join(d.Dir, "store"), seed); err == nil {
		err = b.fill()
	}
	return b, errors.Join(err, d.Unmount())
}

// fill makes three snapshots of each group and removes one, so that there is
// something to collect.
func (b *base) fill() error {
	var first []string
	for range 3 {
		for _, g := range lab.Groups() {
			op, err := b.world.Backup(g)
			if err == nil {
				err = b.world.MustDo(op)
			}
			if err != nil {
				return err
			}
			first = append(first, op.Name)
		}
	}
	for _, name := range first[:3] {
		if err := b.world.MustDo(b.world.Forget(name)); err != nil {
			return err
		}
	}
	return nil
}

// bench is a copy of a base, mounted.
type bench struct {
	*lab.World
	disk *lab.Disk
	dir  string
}

func (b *base) mount(seed uint64) (*bench, error) {
	dir, err := here.MkdirTemp()
	if err != nil {
		return nil, err
	}
	image := filepath.Join(dir, "disk.img")
	if err := lab.CopySparse(b.image, image); err != nil {
		return nil, err
	}
	d, err := b.fs.Mount(image, filepath.Join(dir, "mount"))
	if err != nil {
		return nil, err
	}
	w := b.world.Clone(filepath.Join(d.Dir, "store"), seed)
	return &bench{w, d, dir}, w.Own()
}

func (b *bench) close() error { return errors.Join(b.disk.Unmount(), os.RemoveAll(b.dir)) }

// powerCycle takes the power away and gives it back.
func (b *bench) powerCycle() error {
	if err := errors.Join(b.disk.Cut(lab.CutAtOnce), b.disk.Unmount()); err != nil {
		return err
	}
	d, err := b.disk.Mount(b.disk.Image, b.disk.Dir)
	if err != nil {
		return err
	}
	b.disk = d
	return nil
}

// afterCut judges what is left after a power cut, and whether the work goes on.
func (b *bench) afterCut() error {
	if err := b.powerCycle(); err != nil {
		return err
	}
	if err := b.Judge(); err != nil {
		return err
	}
	return b.GoOn()
}

// steps are those that a fault is put into.
func steps() map[string]func(*bench) (*lab.Op, error) {
	return map[string]func(*bench) (*lab.Op, error){
		"backup":       func(b *bench) (*lab.Op, error) { return b.Backup(lab.Groups()[0]) },
		"first backup": func(b *bench) (*lab.Op, error) { return b.Backup("vm/new") },
		"forget": func(b *bench) (*lab.Op, error) {
			name := b.Any()
			if name == "" {
				return nil, fmt.Errorf("there is nothing to forget")
			}
			return b.Forget(name), nil
		},
		"gc":    func(b *bench) (*lab.Op, error) { return b.GC(), nil },
		"notes": func(b *bench) (*lab.Op, error) { return b.NotesFor(b.Any()), nil },
	}
}
