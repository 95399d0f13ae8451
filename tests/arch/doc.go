// Package arch holds the tests that keep the house as it was drawn: who may
// import whom, that everything is documented, and the limits of style. It
// reads the source of the whole module with the Go parser, for every operating
// system at once, and reports offenders as file:line.
//
// The table of rooms stands in rooms_test.go. A package that is not in it
// fails the test: a new room is a decision, not an accident. The package has
// no code of its own besides its tests and imports the standard library only.
package arch
