// Package places runs the program on every kind of file system that a
// repository may be put on: each command is good there, or init refuses the
// place with a clear word before anything is written.
//
// The tests mount small images from memory and need root and FUSE.
package places
