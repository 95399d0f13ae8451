// Package pack is the chunk store on disk: append-only packs of chunks, and a
// catalogue that says where each chunk lies.
//
// A store is a directory:
//
//	packs/<16 hex digits>.open   a pack being filled: it only grows
//	packs/<16 hex digits>.pack   a sealed pack: it never changes again
//	catalogue.db                 chunk -> pack, offset, sizes (a cache)
//	catalogue.sum                size and checksum of catalogue.db, while it is at rest
//	quarantine                   records that were found damaged (a hint)
//	reserve                      empty blocks: the room that a sweep of a full disk has
//	epoch                        who opened the store for writing last
//	lock                         held while the store is open
//
// What it promises: a chunk is durable when Sync has returned nil. The order
// that makes it so is record, fsync of the pack, transaction of the catalogue.
// The packs are the truth: the catalogue may be lost or damaged at any time and
// is then rebuilt from them without being asked. A failed write or fsync makes
// the store read-only until it is opened anew; a full disk only fails the
// session that met it. Damage is an error that names the file, never wrong
// sizes or another chunk's bytes.
//
// Chunks leave the store by a Sweep only (sweep.go), which may run beside all
// else and removes nothing that an open session has put or counts on.
//
// A Scrub (scrub.go) reads every byte there is. What is damaged is quarantined:
// it does not count as stored any more, so that the next session that has the
// chunk stores it anew, and nothing of it is removed while it is in use.
//
// Who may run beside whom: any number of Get, Stat, Check, Walk and Scrub beside
// anything. Put beside everything, except that it waits while 100,000 entries
// are on their way into the catalogue. Sync, Reindex and Close one at a time,
// and one Sweep.
// The locks, in the order they are taken: Store.commitLock, session.mu,
// writer.mu, Store.catMu, Store.mu. Store.mu is never held across a system
// call.
//
// The package imports chunkstore, chunkstore/durable, chunkstore/pack/packfile, crypto, bbolt,
// golang.org/x/sync, golang.org/x/sys and the standard library.
package pack
