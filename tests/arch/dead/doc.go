// Package dead holds the test that finds what nothing in the program calls. It looks
// at the whole program with everything that it is linked with, which takes longer than
// the other rules of tests/arch together; that is why it has a room of its own. The
// package has no code besides its tests and imports the standard library only.
package dead
