package datastore

import (
	"os"
	"path/filepath"
)

// Inside tells whether the file at path lies, or would lie, in a datastore, and in
// which. What others put there stops garbage collection. Symbolic links are
// followed.
func Inside(path string) (root string, ok bool) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", false
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	} else if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		path = filepath.Join(dir, filepath.Base(path))
	}
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		if st, err := os.Stat(filepath.Join(dir, chunksDir)); err == nil && st.IsDir() {
			return dir, true
		}
		if dir == filepath.Dir(dir) {
			return "", false
		}
	}
}
