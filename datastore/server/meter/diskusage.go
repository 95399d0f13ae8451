package meter

import (
	"golang.org/x/sys/unix"

	"holdfast/datastore"
	"holdfast/datastore/wire/api"
)

// OfStore is how full the file system of a datastore is. One whose disk is
// away is an error: what its directory lies on then is another one.
func OfStore(path string) (api.Usage, error) {
	if err := datastore.Probe(path); err != nil {
		return api.Usage{}, err
	}
	return OfDisk(path)
}

// OfDisk is how full the file system of a path is.
func OfDisk(path string) (api.Usage, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return api.Usage{}, err
	}
	unit := uint64(fs.Bsize)
	return api.Usage{Total: fs.Blocks * unit, Used: (fs.Blocks - fs.Bfree) * unit, Avail: fs.Bavail * unit}, nil
}
