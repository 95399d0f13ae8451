// Package blocks looks at the states in which a power cut can leave a disk that
// reorders and tears what it has not been told to flush. The file system lies on
// an image that a FUSE server offers to a loop device; the server records every
// write and flush in order while a script of backups, removals and collections
// runs. Afterwards crash states are made from the record: everything up to a
// flush, and of what came between it and a random moment a random part, some
// writes with only some of their 512-byte sectors. Each state is mounted, so that
// the journal is replayed, and judged.
//
// Mistakes are built into the program on purpose, and have to be found. The
// package has no code of its own besides its tests.
package blocks
