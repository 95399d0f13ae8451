// Package faults holds the black-box tests of what can go wrong: processes
// killed at any moment, files damaged, swapped, lost or old, full disks, wrong
// keys, sources that change or fail while they are read, and two processes at
// once. They run the holdfast binary on real files and judge it by its exit
// status, its messages and the bytes that come back.
//
// Two laws are checked after every fault: a snapshot that is listed comes back
// byte for byte or with an error that says what is wrong, and nobody has to put
// anything right by hand. Tests that need loop devices and mounts fail when they
// are not run by root, unless HOLDFAST_TEST_NOROOT=1 allows them to say loudly
// that they did not run.
//
// The package has no code of its own besides its tests. They may import the
// rooms of the module that make what only an attacker would make.
package faults
