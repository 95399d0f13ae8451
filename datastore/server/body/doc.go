// Package body is how the bodies of requests and answers are kept: in memory while there
// is some for who pays, in files without names otherwise, and how long a client may be
// silent in the middle of one.
//
// What it promises: memory and files are charged before they are taken, nobody who sends
// or reads slowly holds what others wait for, and a body is as long as it was said to be.
package body
