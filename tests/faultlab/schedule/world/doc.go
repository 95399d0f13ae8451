// Package world is what happens on the machine of package sim: it makes the
// tasks of a schedule, keeps account of what they were promised, and compares
// that with what the store has after every crash and restart.
//
// What it checks, by the numbers of the design: I1 a finished snapshot reads
// back byte for byte, also from the trash; I2 nothing is listed that was not
// finished, and nothing that was removed; I3 no chunk in use is missing, and no
// chunk that a session was told it need not send; I4 every record agrees with
// its checksum; I5 nothing protected is removed, and nothing leaves the trash
// before its time, whatever the clock says; I6 opening never fails, leaves
// nothing of unfinished sessions, and the next collection removes the garbage;
// I7 the catalogue may be lost; I9 nothing is written outside the directory. I8
// is about memory and not for schedules.
//
// The package imports the store's packages and package sim.
package world
