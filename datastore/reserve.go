package datastore

import (
	"fmt"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"holdfast/chunkstore/durable"
)

// takeReserve makes the reserve anew, if there is room and one is needed. The
// store works without.
func (s *Store) takeReserve() {
	if s.trashTime == 0 {
		return
	}
	if s.root.Mkdir(trashDir, 0o700) == nil {
		_ = durable.SyncDir(s.path)
	}
	s.takeBlocks()
	s.takeSpares()
}

// takeBlocks fills the file of the reserve.
func (s *Store) takeBlocks() {
	name := path.Join(trashDir, reserveName)
	var have int64
	if st, err := s.root.Lstat(name); err == nil {
		have = st.Size()
	}
	if have == reserveSize {
		return
	}
	f, err := durable.OpenFileIn(s.root, name, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	if unix.Fallocate(int(f.Fd()), 0, 0, reserveSize) == nil {
		return
	}
	if _, err := f.WriteAt(make([]byte, reserveSize), 0); err != nil {
		_ = f.Truncate(have) // the disk is full: keep what there was
	}
}

// spareName is the path of a spare file.
func spareName(n int) string { return path.Join(trashDir, sparesName, fmt.Sprintf("%02d", n)) }

// takeSpares makes the spare files that are missing. Nothing is synced: those
// that a power cut takes are made by the next opening.
func (s *Store) takeSpares() {
	var st unix.Statfs_t
	if unix.Statfs(s.path, &st) != nil || st.Files < sparesShare*sparesCount {
		return // they are not counted, or there are too few to set some aside
	}
	dir := path.Join(trashDir, sparesName)
	_ = s.root.Mkdir(dir, 0o700) // what is wrong is told by the next line
	names, err := s.readDir(dir)
	if err != nil || len(names) >= sparesCount {
		return
	}
	for n := range sparesCount {
		f, err := durable.OpenFileIn(s.root, spareName(n), os.O_WRONLY|os.O_CREATE, 0o600)
		if err != nil {
			return
		}
		f.Close()
	}
}

// giveReserve gives up a piece of the reserve, if there is one: blocks and
// inodes, for the file system does not say what it lacks.
func (s *Store) giveReserve() bool {
	blocks, spares := s.giveBlocks(), s.giveSpares()
	return blocks || spares
}

func (s *Store) giveBlocks() bool {
	name := path.Join(trashDir, reserveName)
	st, err := s.root.Lstat(name)
	if err != nil || st.Size() == 0 {
		return false
	}
	f, err := durable.OpenFileIn(s.root, name, os.O_WRONLY, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	return f.Truncate(max(0, st.Size()-reservePiece)) == nil && f.Sync() == nil
}

// giveSpares removes spare files, from the last one on.
func (s *Store) giveSpares() bool {
	gone := 0
	for n := sparesCount - 1; n >= 0 && gone < sparesPiece; n-- {
		if s.root.Remove(spareName(n)) == nil {
			gone++
		}
	}
	return gone > 0
}
