// Package sim is the machine that the schedules of the fault lab run on: a
// disk in memory that knows what has been synced, and a scheduler that lets
// one task go on at a time.
//
// It promises that a run depends on nothing but its seed. The store that runs
// on it is the real one; when the lab is built, the imports of os, sync,
// crypto/rand and a few others in the store's packages are replaced by the
// rooms below this one, and go statements and loops over maps by calls of it.
// A task can be stopped in front of every change to the disk, every look at it
// and every lock.
//
// The package imports the standard library only.
package sim
