package pack

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"holdfast/chunkstore/durable"
)

// Beside the blocks of the reserve there are empty files, which give up their
// inodes where those run out first: as many as a sweep makes files at a time.
const (
	sparePrefix = "reserve-"
	spareFiles  = 8
	// spareShare is the part of the inodes of a file system that they may be of.
	spareShare = 16
)

func spareFile(dir string, n int) string {
	return filepath.Join(dir, fmt.Sprintf("%s%d", sparePrefix, n))
}

// keepSpares makes the spare files that are missing, as far as that can be. A
// power cut may take them: they are nothing but room.
func keepSpares(dir string) {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil || st.Files < spareShare*spareFiles {
		return // they are not counted, or there are too few to set some aside
	}
	for n := range spareFiles {
		f, err := durable.OpenFile(spareFile(dir, n), os.O_WRONLY|os.O_CREATE, 0o640)
		if err != nil {
			return
		}
		f.Close()
	}
}

// giveSpares removes the spare files.
func giveSpares(dir string) (gave bool) {
	for n := range spareFiles {
		gave = os.Remove(spareFile(dir, n)) == nil || gave
	}
	return gave
}

// hasInodes reports whether the file system can take as many files as there are
// spare ones. Those that do not count inodes say that they have none at all.
func (s *Store) hasInodes() bool {
	var st unix.Statfs_t
	return unix.Statfs(s.dir, &st) != nil || st.Files == 0 || st.Ffree >= spareFiles
}
