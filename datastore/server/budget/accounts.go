package budget

import (
	"context"
	"errors"
	"runtime"
	"time"

	"holdfast/chunkstore"
	"holdfast/datastore/server/ledger"
)

// Accounts is what callers take from the server, each with what one of them may
// have and what is kept for administrators. docs/server.md has the table.
type Accounts struct {
	Requests *ledger.Resource // and sessions, at once
	Streams  *ledger.Resource // of all sessions, at once

	// Memory, in bytes but for Known.
	windows  *ledger.Resource // what has arrived and is not read
	Small    *ledger.Resource // bodies of requests that carry parameters, as they come
	Lists    *ledger.Resource // the same while they are taken apart
	Incoming *ledger.Resource // other bodies, as they come
	Arrived  *ledger.Resource // bodies that have come by way of a file
	Outgoing *ledger.Resource // what is sent
	Known    *ledger.Resource // chunks that sessions remember

	// unfolding has an element for each manifest that is being taken apart.
	unfolding chan struct{}

	// Bytes on the disk.
	Spooled *ledger.Resource // bodies that there is no memory for
	Kept    *ledger.Resource // the same for what goes out

	// Files are those that callers keep open, each for as long as it likes: indexes
	// being written, and files on their way to who may read slowly.
	Files *ledger.Resource

	Unpacking *ledger.Resource // chunks being checked, which takes a processor
	Heavy     *ledger.Resource // places of requests that hold a chunk or a blob
	Jobs      *ledger.Resource // tasks, running and waiting, that are no sessions
	Verifying *ledger.Resource // verifications that run
	VerifyNew *ledger.Resource // new snapshots that wait for their verification
}

// A stream that is open takes some 12 KiB of memory.
const streamsMax = 16384

// Bounds of memory and of files, in bytes.
const (
	windowBudget  = 128 << 20
	windowShare   = 96 << 20
	windowMin     = 128 << 10
	windowMax     = 32 << 20
	windowReserve = 48 << 20 // of a share, for windows of the least size
	incomingMax   = 6 * chunkstore.BlobSizeMax
	arrivedMax    = 3 * chunkstore.BlobSizeMax
	outgoingMax   = 6 * chunkstore.BlobSizeMax
	listsMax      = 48 << 20
	spooledMax    = 2 << 30
	keptMax       = 4 << 30
)

// How many chunks all sessions remember by default, and the part of them that those of
// one user may. That is 9 TiB in chunks of a megabyte and a half, and some 150 MB of
// memory.
const (
	knownDefault  = 10_000_000
	knownMax      = 1 << 31
	knownShareNum = 3
	knownShareDen = 5
)

// Files that callers keep open: at most filesMax, a session has up to 256 of them; with
// few file descriptors half of what connections leave, and at least filesMin.
const (
	filesMax = 8192
	filesMin = 128
)

// openFiles is how many files callers may keep open. A session has two besides its
// connection and these.
func openFiles(l Limits) int64 {
	free, err := freeFiles(l.ReservedFiles)
	if err != nil {
		return filesMin
	}
	return int64(min(max((free-3*l.Connections)/2, filesMin), filesMax))
}

// Places. A verification keeps a disk busy; a job is one task with its log.
const (
	heavyMax     = 6
	jobsMax      = 512
	verifyNewMax = 4096
	verifiersMax = 3
)

// NewAccounts opens the accounts of a server with limits that have their defaults.
func NewAccounts(l Limits) *Accounts {
	each := int64(l.PerToken)
	resource := func(name string, total, share, kept int64) *ledger.Resource {
		return ledger.New(ledger.Limit{Name: name, Total: total, Share: share, Kept: kept})
	}
	known := int64(l.References)
	const blob = chunkstore.BlobSizeMax
	files, checks := openFiles(l), int64(2*runtime.GOMAXPROCS(0)+2)
	return &Accounts{
		Requests:  ledger.New(ledger.Limit{Name: "requests and sessions", Total: max(int64(l.Connections), 3*each), Kept: each / 2, Share: 2 * each, Each: each}),
		Streams:   resource("streams", streamsMax, streamsMax*3/4, streamsMax/16),
		windows:   resource("windows of sessions", windowBudget, windowShare, windowBudget/16),
		Small:     resource("memory for requests", 32<<20, 16<<20, 2<<20),
		Lists:     resource("memory for lists", listsMax, listsMax/2, listsMax/8),
		Incoming:  resource("memory for uploads", incomingMax, 3*blob, blob),
		Arrived:   resource("memory for uploads that have come", arrivedMax, 2*blob, 0),
		Outgoing:  resource("memory for downloads", outgoingMax, 3*blob, blob),
		Known:     resource("references to chunks", known, known*knownShareNum/knownShareDen, known/16),
		unfolding: make(chan struct{}, manifestsMax),
		Spooled:   resource("files for uploads", spooledMax, spooledMax/4, spooledMax/16),
		Kept:      resource("files for downloads", keptMax, keptMax/4, keptMax/16),
		Files:     resource("open files", files, files*3/4, files/16),
		Unpacking: resource("places to check chunks", checks, checks-2, 1),
		Heavy:     resource("places for transfers", heavyMax, 2, 1),
		Jobs:      resource("tasks", jobsMax, jobsMax/4, jobsMax/8),
		Verifying: resource("places for verifications", verifiersMax, 1, 1),
		VerifyNew: resource("verifications of new snapshots", verifyNewMax, verifyNewMax/4, verifyNewMax/8),
	}
}

// Window takes the window of a session, at most windowMax bytes. Those who
// come while their owner has many get smaller ones.
func (a *Accounts) Window(p ledger.Payer) (*ledger.Hold, error) {
	const part = 4 // of what is left
	size := min(max((a.windows.Left(p)-windowReserve)/part, windowMin), windowMax)
	return a.windows.Try(p, size)
}

// TakeWithin is a Take that gives up after a time, as if there were nothing left.
func TakeWithin(ctx context.Context, r *ledger.Resource, p ledger.Payer, most time.Duration) (*ledger.Hold, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, most, &ledger.Refusal{Resource: r.Limit().Name})
	defer cancel()
	hold, err := r.Take(ctx, p, 1)
	if errors.Is(err, ledger.ErrFull) {
		err = &ledger.Refusal{Resource: r.Limit().Name}
	}
	return hold, err
}
