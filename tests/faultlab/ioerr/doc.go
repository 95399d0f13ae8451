// Package ioerr lets system calls fail as broken and full disks do: fsync once,
// with a second one that says all is well; writes, renames and the rest once or
// from some moment on; reads and listings once or for good. The repository lies on
// a file system that loses its power after the fault, so that what was
// acknowledged has to be on the disk and not in memory.
//
// The package has no code of its own besides its tests.
package ioerr
