// Package interop holds a black-box suite of the protocol. It was written from
// the protocol and format specifications alone, as a stranger would write a
// client: TLS and the HTTP/1.1 upgrade by hand, HTTP/2 frame by frame, blobs,
// indexes, checksums and manifests from the byte tables. It runs against a
// server started as a child process from the built binary and judges it by
// what comes back over the connection only.
//
// The tests named Acceptance walk through section 14 of the protocol
// specification point by point, the tests named Recorded play the sequences of
// sections 15.3 to 15.7, and the others lean on one rule each.
//
// The package has no code of its own besides its tests. They may import the
// standard library, the frames of HTTP/2 and a zstd encoder, and no room of the
// module but tests/harness, which builds and runs the binary: a mistake shared with the server
// would hide itself.
package interop
