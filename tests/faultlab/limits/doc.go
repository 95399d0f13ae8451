// Package limits holds what happens around a process: it is stopped while others
// go on, another one takes its repository, it has little memory, few descriptors or
// may write small files only, the disk is full. Nothing acknowledged is lost, and
// what is refused is refused with a reason.
//
// The package has no code of its own besides its tests.
package limits
