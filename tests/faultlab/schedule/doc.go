// Package schedule explores the orders in which backups, deduplication, prune,
// garbage collection, checks, crashes and restarts can meet in one store.
//
// A schedule is one seeded run. It takes the real packages pack, datastore and
// gc, with bbolt below them, built so that they run on the machine of package
// sim: a disk in memory that knows what was synced, and a scheduler that lets
// one task go on at a time and stops it in front of changes of the disk, looks
// at it and locks. A crash kills all tasks at some step and leaves of what was
// not synced what chance will. After each life the store is opened again and
// must keep the invariants of the design; package world says how.
//
// The same seed gives the same run: go test -run TestSchedules -seed N prints
// its trace.
//
// The lab is tested by mutants: the table in mutants.go breaks the store's
// rules one at a time, and a test fails when the lab does not notice.
//
// Rewriting the source (build.go) is done with an overlay of the go command, so
// that nothing of it is in the store. Its sizes are made small at the same
// place (tuning.go): packs of a few records, a catalogue of small pages.
//
// The package imports the standard library only.
package schedule
