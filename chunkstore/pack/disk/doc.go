// Package disk is the one door through which a chunk store changes files. A test can let
// each change fail there. It also knows what the errors of a disk mean: that there is no
// room, that what is read is damaged, that nothing may be written any more.
package disk
