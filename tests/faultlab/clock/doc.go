// Package clock sets the wall clock wrong, by a second or by ten years, forward and
// back, before, between and while things are done. Nothing that is in use goes, and
// nothing leaves the trash before its time. The programs are the real ones, built
// with another time.Now; the monotonic clock goes on as it does on a machine whose
// clock is set.
//
// The package has no code of its own besides its tests.
package clock
