package backup

import (
	"crypto/rsa"
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	"holdfast/client/source"
	"holdfast/crypto"
	"holdfast/datastore/wire"
)

// Archive is one thing to back up: a name in the snapshot and where its bytes
// come from.
type Archive struct {
	// Name is the client's name, for example "disk0.img" or
	// "qemu-server.conf" (section 10 of the formats specification).
	Name string
	// Path is a file or device on this machine, "-" for standard input.
	Path string
}

var archiveSpec = regexp.MustCompile(`^([A-Za-z0-9_-]+\.([a-z]+)):(.+)$`)

// ParseArchive reads "disk0.img:/dev/vg0/vm-100".
func ParseArchive(spec string) (Archive, error) {
	m := archiveSpec.FindStringSubmatch(spec)
	if m == nil {
		return Archive{}, fmt.Errorf("archive %q: want NAME.img:SOURCE or NAME.conf:FILE: %w", spec, wire.ErrName)
	}
	switch m[2] {
	case "img", "conf", "log":
		return Archive{Name: m[1], Path: m[3]}, nil
	case "pxar":
		return Archive{}, fmt.Errorf("archive %q: file archives (.pxar) are not supported; back up the disk image as NAME.img: %w", spec, wire.ErrName)
	}
	return Archive{}, fmt.Errorf("archive %q: extension .%s is not known, use .img, .conf or .log: %w", spec, m[2], wire.ErrName)
}

// isImage tells an image from a small file that becomes a blob.
func (a Archive) isImage() bool { return strings.HasSuffix(a.Name, ".img") }

// Options says what to back up, to where and how.
type Options struct {
	Target   wire.Target
	Snapshot wire.Snapshot
	Archives []Archive
	// TimeIsNow says that the snapshot's time is the present one and not
	// somebody's choice: if the group has a snapshot of this second, the new one
	// waits for a later second and takes its time.
	TimeIsNow bool

	// Key is needed unless Mode is crypto.ModeNone.
	Key  *crypto.Key
	Mode crypto.Mode
	// Master, if set, gets the key wrapped for it stored with the snapshot;
	// KeyCreated is when the key was made.
	Master     *rsa.PublicKey
	KeyCreated time.Time

	// Fixed cuts images into chunks of 4 MiB (.fidx) instead of by content.
	Fixed bool
	// AllowBacking follows backing files of qcow2 images to anywhere.
	AllowBacking bool
	// Format is how to read images.
	Format source.Format
	// ForceShare reads images that another program has open for writing.
	ForceShare bool
	// AllowEmpty backs up images and a standard input without a byte. Without it
	// they are refused (source.ErrEmpty): a disk is never empty, but what a
	// command that failed has left is.
	AllowEmpty bool
	// Stdin is what "-" reads, until io.EOF; every other error fails the backup.
	Stdin io.Reader
	// Workers is how many goroutines compress and encrypt; 0 means one for
	// each core.
	Workers int
	// Progress, if set, is kept up to date while Run works.
	Progress *Progress
	// Now is the clock, for the wrapped key's dates and a snapshot that TimeIsNow.
	Now func() time.Time

	// region is regionSize, unless a test sets it.
	region int64
}

// Progress is what a running backup has done, in bytes. It may be read at any
// time.
type Progress struct {
	Total atomic.Int64 // of all archives; grows as they are opened
	Done  atomic.Int64 // dealt with, holes included
	Read  atomic.Int64 // read from sources
	New   atomic.Int64 // plain bytes of chunks that were not known
	Sent  atomic.Int64 // bytes of new blobs
}

// Report says what a backup did. Sizes are in bytes.
type Report struct {
	Snapshot    wire.Snapshot
	Archives    []ArchiveReport
	BytesTotal  int64 // logical size of all archives
	BytesRead   int64 // read from sources: holes are not
	BytesNew    int64 // plain size of the chunks that the store did not have
	BytesStored int64 // what those, and the blobs, take in the store
	Duration    time.Duration
	Previous    string // the snapshot that was compared with, "" if none
	// Warnings are things the user should know though the backup is complete.
	Warnings []string
}

// ArchiveReport is the share of one archive.
type ArchiveReport struct {
	Name        string
	Size        int64
	Chunks      int64
	NewChunks   int64
	NewBytes    int64
	StoredBytes int64
}
