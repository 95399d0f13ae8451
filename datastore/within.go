package datastore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"holdfast/datastore/wire"
)

// Probe looks whether the directory of a store is there. It opens nothing: the
// error wraps ErrNoStore where a disk is not mounted, for one.
func Probe(path string) error {
	_, err := readConfig(path)
	return err
}

// checkOutside returns wire.ErrExists if path, which need not exist, lies within
// a store: what that one takes for foreign, or moves, is not for another to lose.
func checkOutside(path string) error {
	abs, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	real, err := filepath.EvalSymlinks(abs)
	above := filepath.Dir(real)
	for dir := filepath.Dir(abs); errors.Is(err, fs.ErrNotExist); dir = filepath.Dir(dir) {
		real, err = filepath.EvalSymlinks(dir)
		above = real // it is a parent itself
	}
	if err != nil {
		return err
	}
	for {
		if _, err := os.Lstat(filepath.Join(above, configName)); err == nil {
			return fmt.Errorf("%s lies within the store %s: %w", path, above, wire.ErrExists)
		}
		if above == filepath.Dir(above) {
			return nil
		}
		above = filepath.Dir(above)
	}
}
