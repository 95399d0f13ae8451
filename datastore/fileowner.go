package datastore

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// tellOwner tells when what this process makes in the store belongs to somebody
// else than the store does, as when root writes to the repository of another user:
// who can neither read nor remove those files then, and whose next backup fails.
// A file is made to find out, since network file systems have owners of their own.
func (s *Store) tellOwner() {
	st, err := os.Stat(s.path)
	if err != nil {
		return
	}
	store, ok := ownerOf(st)
	if !ok || store == os.Geteuid() {
		return
	}
	if made, ok := s.ownerOfNew(); ok && made != store && s.opts.Notify != nil {
		s.opts.Notify(ownerNotice(s.path, store, made))
	}
}

func ownerNotice(path string, store, made int) string {
	return fmt.Sprintf("%s belongs to user %d, and what is made in it now to user %d: user %d will not be able to read that; work as that user, with: sudo -u '#%d' holdfast, and mend what was made with: chown -R --from=%d %d %s",
		path, store, made, store, store, made, store, path)
}

// ownerOfNew is who a new file in the store belongs to.
func (s *Store) ownerOfNew() (uid int, ok bool) {
	f, err := os.CreateTemp(filepath.Join(s.path, tempDir), "owner")
	if err != nil {
		return 0, false
	}
	defer os.Remove(f.Name())
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return 0, false
	}
	return ownerOf(st)
}

func ownerOf(st fs.FileInfo) (uid int, ok bool) {
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return int(sys.Uid), true
}
