package pack

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"holdfast/chunkstore"
	"holdfast/chunkstore/durable"
	"holdfast/chunkstore/pack/catalogue"
)

// A store keeps a file of real, empty blocks, so that on a full disk a sweep
// has room to work: for the chunks of one pack that it copies, and for the pages
// of the catalogue that it writes anew. While the reserve is given up, sessions
// are told that the disk is full, so that none of them takes it.
const (
	reserveName = "reserve"
	// reserveCatalogue is the room for one transaction of a sweep, which
	// changes sweepBatch entries at most.
	reserveCatalogue = 4 << 20
	sweepBatch       = 500
	// reserveShare is the part of a file system that a reserve may be of, and
	// the packs that stores there begin if nobody says how large.
	reserveShare = 32
)

// reserve is the state of that file.
type reserve struct {
	out atomic.Int32 // how many have given it up at the moment
}

// packSizeFor chooses the size of packs for a directory: PackSizeDefault unless
// the file system is so small that copying one would need much of it.
func packSizeFor(dir string) int64 {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return PackSizeDefault
	}
	const least = 1 << 20
	return min(PackSizeDefault, max(least, int64(st.Blocks)*st.Bsize/reserveShare))
}

// reserveSize is what a sweep may need: room for the largest pack, and for what
// it writes to the catalogue, which for a small catalogue is no more than that.
func (s *Store) reserveSize() int64 {
	room := int64(256 << 10)
	if st, err := os.Stat(filepath.Join(s.dir, catalogue.FileName)); err == nil {
		room = min(reserveCatalogue, max(room, st.Size()))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var largest int64
	for _, p := range s.packs {
		if !p.Dropped && !p.Missing {
			largest = max(largest, p.Size)
		}
	}
	return room + largest
}

// freeSpace is how many bytes can be written to the file system of the store.
func (s *Store) freeSpace() (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(s.dir, &st); err != nil {
		return 0, &fs.PathError{Op: "statfs", Path: s.dir, Err: err}
	}
	return int64(st.Bavail) * st.Bsize, nil
}

// keepReserve makes the reserve as large as it should be, or as large as there
// is room for if spare bytes are to be left. It is a precaution: that it
// cannot be had is no error; that it cannot be synced is one of the disk.
func (s *Store) keepReserve(spare int64) {
	keepSpares(s.dir)
	path := filepath.Join(s.dir, reserveName)
	want := s.reserveSize()
	var have int64
	if st, err := os.Stat(path); err == nil {
		have = st.Size()
	}
	free, err := s.freeSpace()
	if err != nil {
		return
	}
	want = min(want, have+free-spare)
	// What is free is a guess where the file system copies on write or a quota
	// counts: less may be had when that much cannot.
	for tries := 0; want > have && tries < 4; tries++ {
		err := s.disk.Do("reserve", path, func() error { return allocate(path, want) })
		if durable.IsFinal(err) {
			s.failure.set(err)
		}
		if !errors.Is(err, chunkstore.ErrNoSpace) {
			return
		}
		want = have + (want-have)*3/4
	}
}

// allocate gives a file real blocks up to size, or as few as it had.
func allocate(path string, size int64) error {
	f, err := durable.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return err
	}
	before, err := durable.Size(f)
	if err == nil {
		err = unix.Fallocate(int(f.Fd()), 0, 0, size)
		if errors.Is(err, unix.EOPNOTSUPP) {
			// What is written has blocks, too; it takes a while, so it is for
			// the catalogue only: packs without use can be removed with that.
			err = writeZeros(f, before, min(size, reserveCatalogue))
		}
		if err != nil {
			err = errors.Join(err, f.Truncate(before))
		}
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// writeZeros writes zeros to a file from one offset to another.
func writeZeros(f *os.File, from, to int64) error {
	zeros := make([]byte, 256<<10)
	for from < to {
		n, err := f.WriteAt(zeros[:min(int64(len(zeros)), to-from)], from)
		if err != nil {
			return err
		}
		from += int64(n)
	}
	return nil
}

// hasRoom reports whether size more bytes can be written. The numbers of the
// file system alone do not tell: a quota, as of a btrfs subvolume, is not in
// them. So blocks are asked for and given back at once, at the end of the
// reserve.
func (s *Store) hasRoom(size int64) (bool, error) {
	free, err := s.freeSpace()
	if err != nil || free < size {
		return false, err
	}
	f, err := durable.OpenFile(filepath.Join(s.dir, reserveName), os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return false, forgiveFull(err)
	}
	defer f.Close()
	have, err := durable.Size(f)
	if err != nil {
		return false, err
	}
	err = unix.Fallocate(int(f.Fd()), 0, have, size)
	if err == nil {
		return true, f.Truncate(have)
	}
	if errors.Is(err, unix.EOPNOTSUPP) {
		return true, nil
	}
	return false, forgiveFull(errors.Join(err, f.Truncate(have)))
}

// forgiveFull drops an error that says that there is no room.
func forgiveFull(err error) error {
	if durable.IsFull(err) {
		return nil
	}
	return err
}

// FreeReserve gives blocks and inodes of the reserve back to the file system if there
// is less room than it is for, and refuses new chunks until take is called,
// which takes them again as far as there is room. A sweep does that by itself;
// who removes something else from a full disk may do it, too.
func (s *Store) FreeReserve(ctx context.Context) (take func(), err error) {
	if err := s.usable(ctx); err != nil {
		return nil, err
	}
	if err := s.writable(); err != nil {
		return nil, err
	}
	room, err := s.hasRoom(s.reserveSize())
	if err != nil {
		return nil, err
	}
	if room && s.hasInodes() {
		return func() { s.keepReserve(0) }, nil
	}
	s.reserve.out.Add(1)
	take = func() {
		if s.reserve.out.Add(-1) == 0 {
			s.keepReserve(0)
		}
	}
	if _, err = giveReserve(s.disk, s.dir); err != nil && !errors.Is(err, chunkstore.ErrNoSpace) {
		take()
		return nil, err
	}
	return take, nil
}

// giveReserve gives the blocks and inodes of the reserve of a store back to the
// file system. gave is false if it had none.
func giveReserve(d durable.Door, dir string) (gave bool, err error) {
	gave = giveSpares(dir)
	path := filepath.Join(dir, reserveName)
	st, err := os.Stat(path)
	if err != nil || st.Size() == 0 {
		return gave, durable.IgnoreMissing(err)
	}
	return true, d.Do("free", path, func() error { return durable.IgnoreMissing(empty(path)) })
}

// empty cuts a file to nothing, or removes it: at the quota of a btrfs
// subvolume a file can go, but not be cut. The sync of the whole file system
// has it give the blocks free now, and not some seconds later: one that copies
// on write keeps them until its next transaction.
func empty(path string) error {
	f, err := durable.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	err = f.Truncate(0)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if durable.IsFull(err) {
		err = os.Remove(path)
	}
	if err != nil {
		return err
	}
	dir, err := durable.OpenDir(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(dir.Fd())), dir.Close())
}
