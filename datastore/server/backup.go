package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"

	"holdfast/chunkstore"
	"holdfast/datastore"
	"holdfast/datastore/index"
	"holdfast/datastore/manifest"
	"holdfast/datastore/server/budget"
	"holdfast/datastore/server/known"
	"holdfast/datastore/server/quota"
	"holdfast/datastore/server/rest"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
)

// phase is how far a backup session has come.
type phase int

const (
	active phase = iota
	finishing
	finished
)

// Errors of a backup session (section 2.9 of the protocol specification).
var (
	errFinished   = errors.New("backup already marked as finished")
	errFinishing  = errors.New("backup is being finished")
	errOpenWriter = errors.New("found open index writer - unable to finish backup")
	errNoFiles    = errors.New("backup does not contain valid files (file count == 0)")
	errUnfinished = errors.New("backup ended but finished flag is not set")
	errNoPrevious = errors.New("no valid previous backup")
	errNoManifest = errors.New("unable to update manifest blob")
)

// backup is one backup session: section 2 of the protocol specification.
type backup struct {
	*conversation
	session *datastore.Session
	known   *known.Chunks
	quota   *quota.Reservation
	basis   *basis // nil if there is none

	verify    func() // starts a verification of the finished snapshot; nil for none
	benchmark bool   // ends well without finish

	// storing is held shared while a blob is written, so that finish waits.
	storing sync.RWMutex

	// resuming is held while the list of an interrupted session is sent.
	resuming sync.Mutex

	mu      sync.Mutex
	phase   phase
	writers map[int64]*writer
	lastID  int64           // of a writer
	blobs   map[string]bool // names of small files
	files   int
	stats   datastore.UploadStats
	// described is set when a manifest has come, whatever is in it.
	described bool
}

func newBackup(c *conversation, session *datastore.Session, quota *quota.Reservation) *backup {
	c.lull = newLull(c.server.o.Limits.SessionIdleTime, c.idle)
	return &backup{
		conversation: c, session: session, quota: quota,
		known: known.New(c.server.accounts.Known, c.payer), writers: make(map[int64]*writer), blobs: make(map[string]bool),
	}
}

// methods is the table of the session (section 2.3 of the protocol
// specification).
func (b *backup) methods() []method {
	return bind(api.BackupRows(), handlers{
		api.UploadBlob:    b.blob,
		api.OpenDynamic:   b.createDynamic,
		api.AppendDynamic: b.appendDynamic,
		api.DynamicChunk:  b.dynamicChunk,
		api.CloseDynamic:  b.closeDynamic,
		api.OpenFixed:     b.createFixed,
		api.AppendFixed:   b.appendFixed,
		api.FixedChunk:    b.fixedChunk,
		api.CloseFixed:    b.closeFixed,
		api.Previous:      b.previous,
		api.PreviousTime:  b.previousTime,
		api.Finish:        b.finish,
		api.SendSpeed:     receiveSpeedTest,
		api.Resume:        b.resume,
	})
}

// writable returns an error once the session takes no more files.
func (b *backup) writable() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.writableLocked()
}

func (b *backup) writableLocked() error {
	switch b.phase {
	case finished:
		return errFinished
	case finishing:
		return errFinishing
	}
	return nil
}

// blob takes a small file, the manifest among them.
func (b *backup) blob(c *call) (any, error) {
	name, size := c.Str("file-name"), c.Int("encoded-size", 0)
	if err := b.writable(); err != nil {
		return nil, err
	}
	if kind, err := wire.CheckFileName(name); err != nil || kind != wire.Blob {
		return nil, rest.BadRequest("wrong blob file extension: '%s'", rest.ClipName(name))
	}
	body, err := b.payload(c, size)
	if err != nil {
		return nil, err
	}
	defer body.Free()
	counts := max(size, datastore.FileBytes)
	if err := b.quota.Charge(counts); err != nil {
		return nil, err
	}
	if err := b.store(c.Context(), name, body.Data); err != nil {
		b.quota.Refund(counts)
		return nil, err
	}
	return nil, nil
}

// nameBlob notes the name of a small file. There may be so many: whoever lists the
// snapshot has all of them in memory.
func (b *backup) nameBlob(name string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.blobs[name] && len(b.blobs) >= api.BlobsMax {
		return rest.BadRequest("the snapshot has %d small files, that is the limit", api.BlobsMax)
	}
	b.blobs[name] = true
	return nil
}

func (b *backup) store(ctx context.Context, name string, raw chunkstore.Blob) error {
	b.storing.RLock()
	defer b.storing.RUnlock()
	if err := b.writable(); err != nil {
		return err
	}
	if err := b.nameBlob(name); err != nil {
		return err
	}
	if err := b.session.Blob(ctx, name, raw); err != nil {
		return err
	}
	b.mu.Lock()
	b.files++
	b.stats.Size += uint64(len(raw))
	b.described = b.described || name == wire.ManifestName
	b.mu.Unlock()
	b.task.Logf("added %s, %d bytes", name, len(raw))
	return nil
}

// previousTime tells the time of the base snapshot, null if there is none.
func (b *backup) previousTime(*call) (any, error) {
	if base, ok := b.session.Base(); ok {
		return base.Time, nil
	}
	return nil, nil
}

// previous sends a file of the base snapshot. The chunks of an index become
// known, but only if the store still has every one of them: otherwise the
// client is told that there is no such index, sends everything, and what the
// store has lost comes back.
func (b *backup) previous(c *call) (any, error) {
	name := c.Str("archive-name")
	kind, err := wire.CheckFileName(name)
	if err != nil {
		return nil, rest.BadRequest("unknown archive type: '%s'", rest.ClipName(name))
	}
	have, err := b.allowed()
	if err != nil {
		return nil, err
	}
	// Who may not read gets of the previous snapshot what deduplication needs.
	if !have.Any(api.DatastoreBackup) && kind == wire.Blob && name != wire.ManifestName {
		return nil, fmt.Errorf("read %s of the previous snapshot: %w", name, wire.ErrPermission)
	}
	if _, ok := b.session.Base(); !ok {
		return nil, noBase(errNoPrevious)
	}
	base, err := b.session.Previous(c.Context())
	if err != nil {
		return nil, noBase(fmt.Errorf("%w: %w", errNoPrevious, err))
	}
	defer base.Close()
	b.task.Logf("sending %s of the previous snapshot", name)
	take := func(ctx context.Context, idx *index.Reader) error { return b.registerIndex(ctx, name, idx) }
	if b.done() { // nothing can be referred to any more
		take = func(context.Context, *index.Reader) error { return nil }
	}
	return nil, noBase(b.sendFile(c, base, file{name, take}))
}

// noBase says of an error about the snapshot before this one that there is nothing of
// that name to build on, whatever the reason: the client sends everything. That there is
// no time, or no right, says nothing about the snapshot.
func noBase(err error) error {
	if err == nil || errors.Is(err, rest.ErrAnswered) {
		return err
	}
	refusal := rest.AsStatus(err)
	if refusal.Code != http.StatusBadRequest && refusal.Code != http.StatusNotFound {
		return err
	}
	return refusal.Meaning(chunkstore.ErrNotExist)
}

// resume sends the chunks that an interrupted session of the same group and
// owner had sent; they become known. The list may be long and its client slow: it is read
// a part at a time, once to find out and once to tell.
func (b *backup) resume(c *call) (any, error) {
	if err := b.writable(); err != nil {
		return nil, err
	}
	if !b.resuming.TryLock() {
		return nil, rest.BadRequest("the chunks of an interrupted backup are being listed already")
	}
	defer b.resuming.Unlock()
	count, total := 0, int64(0)
	err := b.session.EachResumed(c.Context(), func(refs []chunkstore.Ref) error {
		for _, r := range refs {
			fresh, err := b.known.Add(r)
			if err != nil {
				return err
			}
			if fresh { // or it is not the interrupted session that has paid for it
				count, total = count+1, total+received(r.Size, 0)
			}
		}
		return nil
	})
	b.quota.Resume(total)
	if err != nil {
		return nil, err
	}
	b.task.Logf("%d chunks of an interrupted backup are there", count)
	c.Header().Set("Content-Type", "application/octet-stream")
	err = b.session.EachListed(func(refs []chunkstore.Ref) error {
		raw := make([]byte, 0, len(refs)*wire.ChunkSizeLen)
		for _, r := range refs {
			if b.known.Of(r.ID)[r.Class] == r.Size {
				raw = wire.ChunkSize{ID: r.ID, Size: r.Size}.Append(raw)
			}
		}
		_, err := c.Write(raw)
		return err
	})
	if err != nil {
		panic(http.ErrAbortHandler) // so that the client does not take it for the end
	}
	return nil, rest.ErrAnswered
}

// finish makes the snapshot exist. The answer comes when everything is durable
// and the group is free for the next session; what happens to the connection
// after that changes nothing.
func (b *backup) finish(*call) (any, error) {
	if err := b.beginFinish(); err != nil {
		return nil, err
	}
	// A client that goes away now cannot take back what it has asked for.
	err := b.session.Finish(budget.WithPayer(b.ctx, b.payer))
	if errors.Is(err, manifest.ErrFormat) {
		err = rest.Refuse(chunkstore.ErrCorrupt, "%v - %v", errNoManifest, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err != nil {
		b.phase = active
		b.task.Logf("finish was refused: %v", err)
		return nil, err
	}
	b.phase = finished
	b.lull.finish(b.server.o.Limits.FinishedTime, b.part)
	b.quota.End(true)
	b.basis.end()
	b.task.Logf("finished: %s", describe(b.stats))
	if b.verify != nil {
		b.verify()
	}
	return nil, nil
}

func (b *backup) beginFinish() error {
	b.storing.Lock()
	defer b.storing.Unlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.writableLocked(); err != nil {
		return err
	}
	if len(b.writers) > 0 {
		return errOpenWriter
	}
	if b.files == 0 {
		return errNoFiles
	}
	if !b.described && !b.benchmark {
		return fmt.Errorf("%w - %s was not sent", errNoManifest, wire.ManifestName)
	}
	b.session.SetStats(b.stats)
	b.phase = finishing
	return nil
}

// done reports whether the snapshot exists.
func (b *backup) done() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.phase == finished
}

// announce writes the first lines of the log.
func (b *backup) announce(c *call) {
	b.task.Logf("backup of %s to datastore '%s', namespace '%s', by %s from %s", c.Snapshot(), c.Str("store"), c.Namespace(), b.auth, c.RemoteAddr)
	if base, ok := b.session.Base(); ok {
		b.task.Logf("the previous snapshot is %s", base)
		return
	}
	b.task.Logf("there is no previous snapshot to build upon")
}

// leave makes the next session of the group wait for the end of this one.
func (b *backup) leave() { b.session.Leave() }

// end gives back what the session holds, after its last handler.
func (b *backup) end(ctx context.Context) error {
	done := b.done()
	b.basis.end()
	err := b.session.Close()
	for _, w := range b.writers { // nobody asks for anything any more
		w.file.Free()
	}
	b.known.Free()
	b.quota.End(false) // unless finish has settled it
	if done || b.benchmark {
		if err != nil {
			b.task.Warnf("clean up: %v", err)
		}
		return nil
	}
	if ctx.Err() != nil {
		return interrupted(ctx)
	}
	return errors.Join(errUnfinished, err)
}
