package meter

import (
	"golang.org/x/sys/unix"

	"holdfast/datastore"
)

// Usage is how full a file system is, in bytes.
type Usage struct {
	Total uint64 `json:"total"`
	Used  uint64 `json:"used"`
	Avail uint64 `json:"avail"`
}

// OfStore is how full the file system of a datastore is. One whose disk is
// away is an error: what its directory lies on then is another one.
func OfStore(path string) (Usage, error) {
	if err := datastore.Probe(path); err != nil {
		return Usage{}, err
	}
	return OfDisk(path)
}

// OfDisk is how full the file system of a path is.
func OfDisk(path string) (Usage, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return Usage{}, err
	}
	unit := uint64(fs.Bsize)
	return Usage{Total: fs.Blocks * unit, Used: (fs.Blocks - fs.Bfree) * unit, Avail: fs.Bavail * unit}, nil
}
