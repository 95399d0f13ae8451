// Package catalogue is the file that says where the chunks of a store lie and what its
// packs are, with the values in it, what goes into it in one transaction, and the runs of
// which a large one is built in order.
//
// It is a cache of what the packs say. Every doubt about it is ErrDoubt, and the answer to
// that is to build it anew: it never panics, whatever the file holds, and what a crash has
// left is walked before bbolt may trust it.
package catalogue
