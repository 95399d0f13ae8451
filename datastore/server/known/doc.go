// Package known is what one session may refer to: the chunks that it has sent or
// inherited, those of each class for itself, each with its size.
//
// What it promises: what was never added is not known, and memory is taken from the
// account of who pays for the session.
package known
