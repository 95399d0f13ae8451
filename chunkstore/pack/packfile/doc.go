// Package packfile is the bytes of packs: file header, records, table and trailer
// of the section "Pack" of docs/formats.md, the names of pack files, and a scan that
// finds the sound records of a damaged one.
//
// It promises that what it decodes has the right checksum and sizes that may be
// used for reading, and that a scan takes nothing inside a stored chunk for a
// record. It writes nothing: package pack does, in the order that makes chunks
// durable.
//
// It imports chunkstore, crypto, golang.org/x/sys and the standard library.
package packfile
