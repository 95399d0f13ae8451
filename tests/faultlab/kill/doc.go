// Package kill kills the program at system calls of backups, removals and garbage
// collections, and a process that does several of them at once at random moments.
// After each kill everything acknowledged is there and what was not is complete or
// not listed; the work goes on without anybody's help, and nothing is left behind.
//
// The package has no code of its own besides its tests.
package kill
