package restore

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// A file that was replaced keeps its owner and its mode, or the program that it was made
// for cannot read it any more.
func TestOverwriteKeepsOwnerAndMode(t *testing.T) {
	m := stored(t, content(1, 1<<20))
	for _, mode := range []os.FileMode{0o600, 0o640, 0o664, 0o444} {
		t.Run(mode.String(), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "out.raw")
			if err := os.WriteFile(path, []byte("before"), 0o600); err != nil {
				t.Fatal(err)
			}
			uid, gid := os.Getuid(), os.Getgid()
			if uid == 0 {
				uid, gid = 1234, 2345
			}
			if err := os.Chown(path, uid, gid); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
			o := options(t, m, path)
			o.Overwrite = true
			if _, err := Run(t.Context(), o); err != nil {
				t.Fatal(err)
			}
			st, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			is := st.Sys().(*syscall.Stat_t)
			if st.Size() != 1<<20 || st.Mode() != mode || int(is.Uid) != uid || int(is.Gid) != gid {
				t.Errorf("%d bytes, %v of %d:%d, want %v of %d:%d", st.Size(), st.Mode(), is.Uid, is.Gid, mode, uid, gid)
			}
		})
	}
}
