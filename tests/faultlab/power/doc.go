// Package power cuts the power at random moments. A repository lies on a small
// ext4 or XFS file system in memory, a script of backups, removals and garbage
// collections runs on it through the real program, and at some moment the file
// system is shut down: what has not reached the disk then never does. After the
// next mount everything that was acknowledged must be there, what was not must be
// complete or not listed, and the work goes on without anybody's help.
//
// Mistakes are built into the program on purpose, and have to be found. The
// package has no code of its own besides its tests.
package power
