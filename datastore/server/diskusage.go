package server

import (
	"golang.org/x/sys/unix"

	"holdfast/datastore"
)

// usage is how full a file system is, in bytes.
type usage struct {
	Total uint64 `json:"total"`
	Used  uint64 `json:"used"`
	Avail uint64 `json:"avail"`
}

// storeUsage is how full the file system of a datastore is. One whose disk is
// away is an error: what its directory lies on then is another one.
func storeUsage(path string) (usage, error) {
	if err := datastore.Probe(path); err != nil {
		return usage{}, err
	}
	return diskUsage(path)
}

func diskUsage(path string) (usage, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return usage{}, err
	}
	unit := uint64(fs.Bsize)
	return usage{Total: fs.Blocks * unit, Used: (fs.Blocks - fs.Bfree) * unit, Avail: fs.Bavail * unit}, nil
}
