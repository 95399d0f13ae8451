package restore

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"holdfast/chunkstore"
)

// checkRoom refuses a file system on which need bytes of data find no room. One
// that may compress them, or does not say what it has, is only warned of.
func checkRoom(f *os.File, path string, need int64, warn func(string)) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil || st.Blocks == 0 {
		return nil // it does not say; writing will
	}
	blocks := st.Bavail
	if os.Geteuid() == 0 {
		blocks = st.Bfree
	}
	unit := st.Frsize
	if unit == 0 {
		unit = st.Bsize
	}
	if unit <= 0 || blocks >= uint64(need)/uint64(unit) {
		return nil
	}
	says := fmt.Sprintf("%d bytes of data are to be written to %s, and its file system has room for %d", need, path, blocks*uint64(unit))
	if keepsAsItIs(uint32(st.Type)) {
		return fmt.Errorf("%s: %w", says, chunkstore.ErrNoSpace)
	}
	warn(says)
	return nil
}

// keepsAsItIs reports whether a type of file system is known to store bytes
// without making them fewer.
func keepsAsItIs(magic uint32) bool {
	switch magic {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.TMPFS_MAGIC, unix.MSDOS_SUPER_MAGIC, unix.EXFAT_SUPER_MAGIC:
		return true
	}
	return false
}
