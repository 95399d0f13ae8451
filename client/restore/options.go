package restore

import (
	"io"
	"sync/atomic"
	"time"

	"holdfast/crypto"
	"holdfast/datastore/wire"
)

// Options says what to restore, and to where.
type Options struct {
	Source   wire.Source
	Snapshot wire.Snapshot
	// Archive is a name as given to backup ("disk0.img") or in full
	// ("disk0.img.didx").
	Archive string
	// Key opens encrypted archives, and checks the manifest's signature.
	Key *crypto.Key
	// AnyOrigin accepts a signed snapshot that was made for another namespace, or
	// whose file about that is damaged.
	AnyOrigin bool

	// Target is a file that does not exist yet, a block device, or "-" for
	// Out.
	Target string
	Out    io.Writer
	// Differential compares an existing target with the archive and writes
	// only what differs. Overwrite replaces an existing file as a whole.
	Differential bool
	Overwrite    bool

	// Warn, if set, is told before the first byte what may go wrong.
	Warn func(text string)

	// Workers is how many goroutines fetch and decode; 0 means one for each
	// core.
	Workers  int
	Progress *Progress
	Now      func() time.Time
}

// Progress is what a running restore has done, in bytes. It may be read at
// any time.
type Progress struct {
	Total   atomic.Int64
	Done    atomic.Int64
	Written atomic.Int64
}

// Report says what a restore did. Sizes are in bytes.
type Report struct {
	Archive      string // full name of the file in the snapshot
	Size         int64
	BytesWritten int64
	BytesZero    int64 // left as holes, or found to be zero
	BytesSame    int64 // found equal by a differential restore
	Signed       bool  // the manifest's signature was checked with a key
	Duration     time.Duration
}
