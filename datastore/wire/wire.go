// Package wire is where client and datastore meet: the two ports that carry
// everything, and the names that cross them.
//
// A Source is read from (restore, verify, the pulling side of a sync), a
// Target is written to (backup, the pushing side of a sync). Package datastore
// implements both for a directory on this machine, package client both over
// the network; whoever uses the ports cannot tell which side it talks to.
//
// A Snapshot is named by namespace, group and time; names.go holds the one
// grammar for all of them, repository.go the one for repositories, authid.go
// the one for users and tokens, upid.go the one for tasks. protocol.go has the
// numbers that both ends of a connection must agree on.
package wire

import (
	"context"
	"iter"

	"holdfast/chunkstore"
	"holdfast/datastore/index"
)

// Source is a place snapshots are read from. Only finished snapshots are ever
// listed or opened. All methods are safe for concurrent use.
type Source interface {
	// Namespaces lists the namespaces below parent, parent first, sorted.
	Namespaces(ctx context.Context, parent Namespace) ([]Namespace, error)
	// Groups lists the groups of a namespace that have a finished snapshot,
	// sorted by type and id.
	Groups(ctx context.Context, ns Namespace) ([]GroupInfo, error)
	// Snapshots lists the finished snapshots of a group, oldest first in the
	// order of Dated. A group that does not exist is chunkstore.ErrNotExist.
	Snapshots(ctx context.Context, g Group) ([]SnapshotInfo, error)
	// AllSnapshots lists the finished snapshots of all groups of a namespace,
	// by group in the order of Groups, the oldest of each first. It costs as
	// much as there is to list and ends with the first error.
	AllSnapshots(ctx context.Context, ns Namespace) iter.Seq2[SnapshotInfo, error]
	// Open opens a finished snapshot, or returns chunkstore.ErrNotExist.
	Open(ctx context.Context, s Snapshot) (Reader, error)
}

// Reader is one open snapshot. All methods but Close are safe for concurrent
// use.
type Reader interface {
	// RefGetter hands out the chunks that the snapshot's indexes name, each of the
	// class that the manifest says its archive has.
	chunkstore.RefGetter
	// Snapshot says which snapshot this is.
	Snapshot() Snapshot
	// Blob returns the encoded bytes of a *.blob file, the manifest among
	// them. The caller owns the slice.
	Blob(ctx context.Context, name string) (chunkstore.Blob, error)
	// Index opens a *.didx or *.fidx file. The caller closes it. Nothing but
	// its structure has been checked.
	Index(ctx context.Context, name string) (*index.Reader, error)
	// Close ends the reading.
	Close() error
}

// Target is a place snapshots are written to.
type Target interface {
	// Begin starts a snapshot. It must be newer than the newest finished
	// snapshot of its group, or ErrExists is returned. If a verification has
	// found that one damaged, an older time is accepted, if it is free (section
	// 2.1 of the protocol specification). A snapshot that arrived more than SkewMax
	// before the time in its name keeps no other out. No other session may be
	// writing to the group.
	Begin(ctx context.Context, s Snapshot) (Session, error)
}

// Session is one snapshot being written. Before Finish the snapshot does not
// exist for anybody; once Finish has returned nil it is complete and durable.
type Session interface {
	// Previous opens the newest finished snapshot of the same group, or
	// returns chunkstore.ErrNotExist. The chunks of an index opened through
	// it may be appended without being sent.
	Previous(ctx context.Context) (Reader, error)
	// Create begins an index file. The extension of name decides the kind.
	// size is the size of the archive in bytes, or -1 if it is not known yet
	// (dynamic indexes only).
	Create(ctx context.Context, name string, size int64) (IndexWriter, error)
	// Blob stores a *.blob file. The manifest goes last.
	Blob(ctx context.Context, name string, raw chunkstore.Blob) error
	// Finish proves that every reference is present, of the right size and
	// durable, and then makes the snapshot exist. A *MissingError lists what
	// is not there; nothing has happened then. When it returns nil the snapshot
	// is made, even if ctx has ended; after an ErrUnknown it may exist or come
	// to exist; after any other error it does not and will not.
	Finish(ctx context.Context) error
	// Close ends the session; what was not finished is gone.
	Close() error
}

// Asker is a Session that can look whether a chunk of the previous snapshot is
// still stored, in the size and class given, so that a chunk the store has lost is sent
// again. A session without it is trusted to have what its indexes name.
type Asker interface {
	Has(ctx context.Context, r chunkstore.Ref) (bool, error)
}

// Bounder is implemented by Readers whose files come from far away. Bound tells how
// large the files are, in bytes as a manifest counts them: a Reader takes no more
// from the other side than such a file can have.
type Bounder interface {
	Bound(sizes map[string]uint64)
}

// IndexWriter takes one archive: chunks in any order, then its entries in the
// order of their offsets.
type IndexWriter interface {
	// PutChunk stores a chunk and tells whether it was new to the store. It
	// is safe for concurrent use and keeps nothing of c after it returns.
	PutChunk(ctx context.Context, c chunkstore.Chunk) (added bool, err error)
	// Append adds entries that follow the last one without a gap. It may be
	// called for a chunk only after PutChunk has returned for it, or when the
	// chunk belongs to the previous snapshot.
	Append(ctx context.Context, entries []index.Entry) error
	// Close completes the file. want is what the writing side has counted
	// and hashed; any difference is an error and the archive is dropped.
	Close(ctx context.Context, want index.Summary) error
}

// Manager changes what is kept about a finished snapshot.
type Manager interface {
	// Forget removes a snapshot. A protected one is refused with
	// ErrProtected.
	Forget(ctx context.Context, s Snapshot) error
	// Notes returns the comment of a snapshot, "" if it has none.
	Notes(ctx context.Context, s Snapshot) (string, error)
	// SetNotes replaces the comment.
	SetNotes(ctx context.Context, s Snapshot, text string) error
	// SetProtected sets or clears the mark that keeps a snapshot from being
	// removed.
	SetProtected(ctx context.Context, s Snapshot, protected bool) error
}

// GroupInfo describes a group in a listing.
type GroupInfo struct {
	Group     Group
	Count     int   // finished snapshots
	LastTime  int64 // in the name of the newest one by Dated, in Unix seconds
	LastFiles []string
	Owner     AuthID // "" if not known
	Comment   string // first line of the group's notes
}

// SnapshotInfo describes a snapshot in a listing. Its contents come from the
// manifest as it lies there: nothing in it has been authenticated.
type SnapshotInfo struct {
	Snapshot    Snapshot
	Files       []FileInfo
	Size        uint64 // sum of the files' sizes, in bytes
	Protected   bool
	Notes       string
	Fingerprint string // of the key, in colon form; "" if there is none
	// Damage says why the manifest cannot be read, "" if it can.
	Damage string

	// Arrived is when its session began by the clock of its store, in Unix seconds,
	// or 0 if that is not told. Undated says that the store has lost it and counts
	// the snapshot as of the time in its name.
	Arrived int64
	Undated bool

	Owner AuthID // of the group, "" if not known
	// Verify is what the last verification by the server found, nil if there
	// was none.
	Verify *VerifyState
	// Signed tells that the manifest has a signature. Nobody has checked it.
	Signed bool
	// ManifestSize is the length of the manifest's blob, in bytes.
	ManifestSize uint64
	// Extra are the archives that the manifest does not name, a log for one.
	Extra []string
}

// VerifyState is the result of a verification: State is VerifyOK or
// VerifyFailed, UPID the task that found it.
type VerifyState struct {
	State string `json:"state"`
	UPID  string `json:"upid"`
}

// The states of a verification.
const (
	VerifyOK     = "ok"
	VerifyFailed = "failed"
)

// FileInfo describes one archive of a snapshot.
type FileInfo struct {
	Name      string
	CryptMode string
	Size      uint64 // bytes: logical size of an index, encoded size of a blob
}
