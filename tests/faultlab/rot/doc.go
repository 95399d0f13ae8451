// Package rot damages a repository as disks do: single bits, lost and misdirected
// blocks, files that are cut, missing or exchanged, in every kind of file. Each time
// the whole store is verified without a key and everything is read back with it.
// What comes back is right or does not come back, everything that does not was
// named by the verification before, and damage that no snapshot needs to fear is
// found as well.
//
// The package has no code of its own besides its tests, which work on the rooms of
// the module directly, for the number of faults.
package rot
