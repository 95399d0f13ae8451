// Package verify reads snapshots, or all of a store, back and finds what is
// damaged.
//
// Without a key it proves what can be proved: that manifest, indexes and blobs
// agree with one another, that plain chunks have the content they are named
// after, and that encrypted chunks are, byte for byte, what was stored. With the
// key it also checks the manifest's signature and decrypts every chunk. It
// changes nothing, and goes on after damage so that the report is complete.
//
// A whole store is verified the other way round (Store): every byte of the packs
// is read once, in the order in which it lies there, and the indexes tell which
// snapshots need what was found damaged. Damaged chunks are quarantined, so that
// the next backup sends them again. Repair rebuilds what can be rebuilt from
// what is there. Neither removes anything.
package verify

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sync/errgroup"

	"holdfast/chunkstore"
	"holdfast/chunkstore/blob"
	"holdfast/crypto"
	"holdfast/datastore/image"
	"holdfast/datastore/index"
	"holdfast/datastore/manifest"
	"holdfast/datastore/wire"
)

// local is a Reader of a store on this machine: it compares a stored chunk with what
// was stored, without a key, and tells what the store finds it by.
type local interface {
	Check(ctx context.Context, r chunkstore.Ref) error
	Key(r chunkstore.Ref) (chunkstore.Key, error)
}

// Options says what to verify with.
type Options struct {
	// Source is where the snapshots are. Without a key encrypted chunks are compared
	// with what was stored if it is on this machine; otherwise with their own checksum
	// only.
	Source wire.Source
	// Key decrypts chunks and checks signatures. nil checks without.
	Key      *crypto.Key
	Workers  int // 0 means one for each core
	Progress *Progress
}

// Progress is what a running verification has done, in plain bytes.
type Progress struct {
	Total atomic.Int64
	Done  atomic.Int64
}

// Problem is one thing that is not as it should be.
type Problem struct {
	File string        // archive of the snapshot, or the manifest
	Off  uint64        // offset in the archive in bytes, for a chunk
	ID   chunkstore.ID // zero if it is not about a chunk
	Err  error
}

// problemsShown is how many problems a report carries at most.
const problemsShown = 1000

// Report says what was found in one snapshot.
type Report struct {
	Snapshot  wire.Snapshot
	Archives  int
	Chunks    int64 // entries of its indexes, repeated ones included
	Bytes     int64 // their plain size
	Signed    bool  // the signature was checked with the key
	Decrypted bool  // chunks were opened with the key
	Count     int64 // problems found, also those not in Problems
	Problems  []Problem
}

// OK reports whether nothing was found.
func (r *Report) OK() bool { return r.Count == 0 }

// Verifier verifies snapshots one after another, and reads a chunk that several
// of them share only once.
type Verifier struct {
	o    Options
	look openFunc      // if set, in place of reading chunks
	tell func(Problem) // if set, is told of each problem
	mu   sync.Mutex
	hash chunkstore.Hasher
	good map[chunkstore.StandIn]struct{}
	bad  map[chunkstore.Key]error
}

// New returns a Verifier.
func New(o Options) *Verifier {
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.Progress == nil {
		o.Progress = new(Progress)
	}
	return &Verifier{o: o, hash: chunkstore.NewHasher(), good: make(map[chunkstore.StandIn]struct{}), bad: make(map[chunkstore.Key]error)}
}

// check is one snapshot being verified.
type check struct {
	*Verifier
	reader wire.Reader
	mu     sync.Mutex
	report Report
}

// Snapshot verifies one snapshot. An error means that it could not be done, not
// that something was found.
func (v *Verifier) Snapshot(ctx context.Context, snap wire.Snapshot) (Report, error) {
	r, err := v.o.Source.Open(ctx, snap)
	if err != nil {
		return Report{}, fmt.Errorf("verify %s: %w", snap, err)
	}
	c := &check{Verifier: v, reader: r, report: Report{Snapshot: snap}}
	err = errors.Join(c.run(ctx), r.Close())
	if err != nil {
		return Report{}, fmt.Errorf("verify %s: %w", snap, err)
	}
	return c.report, nil
}

func (c *check) run(ctx context.Context) error {
	m, err := image.OpenManifest(ctx, c.reader, image.Trust{})
	if err != nil {
		return c.found(ctx, Problem{File: wire.ManifestName, Err: err})
	}
	switch err := c.signature(ctx, m); {
	case errors.Is(err, crypto.ErrWrongKey):
		return err // says nothing about the snapshot
	case err != nil:
		if err := c.found(ctx, Problem{File: wire.ManifestName, Err: err}); err != nil {
			return err
		}
	}
	for _, f := range m.Files {
		if err := c.file(ctx, f); err != nil {
			return err
		}
		if f.Name != manifest.OriginName {
			c.report.Archives++
		}
	}
	return ctx.Err()
}

// signature checks a manifest that should have one: it names a key, or an
// archive that was made with one. What is signed must also lie where it was made
// for, and come after the snapshot that it was made after.
func (c *check) signature(ctx context.Context, m *manifest.Manifest) error {
	_, keyed, err := m.KeyFingerprint()
	if err != nil {
		return err
	}
	for _, f := range m.Files {
		keyed = keyed || f.CryptMode != crypto.ModeNone
	}
	if !keyed || c.o.Key == nil {
		return nil
	}
	if err = m.Verify(c.o.Key); err != nil {
		return err
	}
	c.report.Signed = true
	return c.origin(ctx, m)
}

// origin checks what a signed snapshot says of its place. One that was moved by
// somebody who may do that says from where; whether that is well is for people to
// tell.
func (c *check) origin(ctx context.Context, m *manifest.Manifest) error {
	o, ok, err := image.CheckOrigin(ctx, c.reader, m, c.o.Key)
	if err != nil || !ok || o.Previous == 0 {
		return err
	}
	g := c.reader.Snapshot().Group
	return c.follows(ctx, wire.Snapshot{Group: g, Time: o.Previous}, o.PreviousDigest)
}

// follows checks that the snapshot which this one was made after, if it is still
// there, is the one that was there then.
func (c *check) follows(ctx context.Context, prev wire.Snapshot, want [32]byte) error {
	r, err := c.o.Source.Open(ctx, prev)
	if errors.Is(err, chunkstore.ErrNotExist) {
		return nil // removed since
	}
	if err != nil {
		return err
	}
	defer r.Close()
	m, err := image.OpenManifest(ctx, r, image.Trust{})
	if err != nil {
		return nil // damage there is found when it is its turn
	}
	switch got, err := m.Digest(); {
	case err != nil:
		return err
	case got != want:
		return fmt.Errorf("it was made after a snapshot %s that is not the one which is there now: %w", prev, crypto.ErrTampered)
	}
	return nil
}

// prevented reports whether an error says only that there was no looking: the
// connection broke, the store is in use, somebody may not look or has stopped it,
// or this machine or the server lacks the means. It tells nothing of what is stored.
func prevented(err error) bool {
	for _, end := range []error{
		wire.ErrUnavailable, chunkstore.ErrLocked, chunkstore.ErrFenced, wire.ErrBusy, wire.ErrStopped, wire.ErrPermission,
		wire.ErrUnauthenticated, wire.ErrLocal, fs.ErrPermission, syscall.ENOMEM, context.Canceled, context.DeadlineExceeded,
		syscall.ESTALE, syscall.ENOTCONN, syscall.EHOSTDOWN, syscall.ECONNABORTED, // a mount from afar has gone
	} {
		if errors.Is(err, end) {
			return true
		}
	}
	var passing interface{ Temporary() bool } // EMFILE and ENFILE, too
	return errors.As(err, &passing) && passing.Temporary()
}

// found adds a problem, unless it is only that there was no looking.
func (c *check) found(ctx context.Context, p Problem) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if prevented(p.Err) {
		return p.Err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tell != nil {
		c.tell(p)
	}
	c.report.Count++
	if len(c.report.Problems) < problemsShown {
		c.report.Problems = append(c.report.Problems, p)
	}
	return nil
}

func (c *check) file(ctx context.Context, f manifest.File) error {
	kind, err := wire.CheckFileName(f.Name)
	if err == nil && kind != wire.Blob {
		return c.index(ctx, f)
	}
	if err == nil {
		err = c.blob(ctx, f)
	}
	if err != nil {
		return c.found(ctx, Problem{File: f.Name, Err: err})
	}
	return nil
}

func (c *check) blob(ctx context.Context, f manifest.File) error {
	raw, err := image.CheckBlob(ctx, c.reader, f)
	if err != nil {
		return err
	}
	encrypted, err := blob.Check(raw)
	if err != nil || encrypted && c.o.Key == nil {
		return err
	}
	_, err = image.ReadBlob(ctx, c.reader, f, c.o.Key)
	return err
}

// index verifies an index and every chunk it names.
func (c *check) index(ctx context.Context, f manifest.File) error {
	idx, err := image.OpenIndex(ctx, c.reader, f)
	if err != nil {
		return c.found(ctx, Problem{File: f.Name, Err: err})
	}
	defer idx.Close()
	// Its content can be restored all the same, and is looked at.
	if err := idx.CheckStated(f.Csum); err != nil {
		if err := c.found(ctx, Problem{File: f.Name, Err: err}); err != nil {
			return err
		}
	}
	c.o.Progress.Total.Add(int64(idx.Size()))
	open, err := c.opener(f)
	if err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(c.o.Workers)
	for e, err := range idx.All(0) {
		if err != nil {
			return errors.Join(c.found(ctx, Problem{File: f.Name, Err: err}), g.Wait())
		}
		if gctx.Err() != nil {
			break
		}
		c.report.Chunks++
		c.report.Bytes += int64(e.Size)
		if c.look == nil {
			g.Go(func() error { return c.entry(gctx, f, e, open) })
		} else if err := c.entry(gctx, f, e, open); err != nil {
			return errors.Join(err, g.Wait())
		}
	}
	return g.Wait()
}

// entry verifies one chunk, unless that has been done.
func (c *check) entry(ctx context.Context, f manifest.File, e index.Entry, open openFunc) error {
	defer c.o.Progress.Done.Add(int64(e.Size))
	w := wanted{ref: chunkstore.Ref{ID: e.ID, Size: e.Size, Class: f.Class()}}
	var err error
	if w.key, err = c.key(w.ref); err != nil {
		return c.found(ctx, Problem{File: f.Name, Off: e.Off, ID: e.ID, Err: err})
	}
	done, err := c.seen(w.key)
	if !done {
		err = open(ctx, w)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil || !prevented(err) {
			c.remember(w.key, err)
		}
	}
	if err == nil {
		return nil
	}
	return c.found(ctx, Problem{File: f.Name, Off: e.Off, ID: e.ID, Err: err})
}

// key returns what a chunk of the snapshot is remembered by. Of a store that is far
// away it is not known which groups read the same copies of encrypted chunks.
func (c *check) key(ref chunkstore.Ref) (chunkstore.Key, error) {
	if l, ok := c.reader.(local); ok {
		return l.Key(ref)
	}
	g := c.reader.Snapshot().Group
	return ref.Key(chunkstore.OwnerOf(string(g.NS) + "\n" + g.String())), nil
}

func (v *Verifier) seen(k chunkstore.Key) (bool, error) {
	short := v.hash.Of(k)
	v.mu.Lock()
	defer v.mu.Unlock()
	if err, ok := v.bad[k]; ok {
		return true, err
	}
	_, ok := v.good[short]
	return ok, nil
}

func (v *Verifier) remember(k chunkstore.Key, err error) {
	short := v.hash.Of(k)
	v.mu.Lock()
	defer v.mu.Unlock()
	if err != nil {
		v.bad[k] = err
		return
	}
	v.good[short] = struct{}{}
}

// wanted is a chunk that a snapshot needs.
type wanted struct {
	ref chunkstore.Ref
	key chunkstore.Key
}

// openFunc proves one chunk as far as can be.
type openFunc func(ctx context.Context, w wanted) error

// opener returns how the chunks of an archive are proven.
func (c *check) opener(f manifest.File) (openFunc, error) {
	if c.look != nil {
		return c.look, nil
	}
	encrypted := f.CryptMode == crypto.ModeEncrypt
	if encrypted && c.o.Key == nil {
		return c.checkSealed, nil
	}
	codec, err := blob.NewCodec(blob.Options{Key: c.o.Key, Encrypt: encrypted, Workers: c.o.Workers})
	if err != nil {
		return nil, err
	}
	c.report.Decrypted = c.report.Decrypted || encrypted
	buffers := sync.Pool{New: func() any { return new([]byte) }}
	return func(ctx context.Context, w wanted) error {
		size := int(w.ref.Size)
		raw, err := c.reader.Get(ctx, w.ref)
		if err != nil {
			return err
		}
		buf := buffers.Get().(*[]byte)
		defer buffers.Put(buf)
		if cap(*buf) < blob.SizeMax(size) {
			*buf = make([]byte, 0, blob.SizeMax(size))
		}
		if _, err = codec.DecodeChunk(*buf, w.ref.ID, raw, size); err == nil {
			return nil
		}
		return c.locate(ctx, w.ref, err)
	}, nil
}

// checkSealed proves what needs no key.
func (c *check) checkSealed(ctx context.Context, w wanted) error {
	if l, ok := c.reader.(local); ok {
		return l.Check(ctx, w.ref)
	}
	raw, err := c.reader.Get(ctx, w.ref)
	if err != nil {
		return err
	}
	if raw.Class().Encrypted() != w.ref.Class.Encrypted() {
		return fmt.Errorf("chunk %s is %s where the manifest says %s: %w", w.ref.ID.Short(), raw.Class(), w.ref.Class, chunkstore.ErrCorrupt)
	}
	if n, ok := blob.ContentSize(raw); ok && n != int(w.ref.Size) {
		return fmt.Errorf("chunk %s has %d bytes where the index says %d: %w", w.ref.ID.Short(), n, w.ref.Size, chunkstore.ErrCorrupt)
	}
	_, err = blob.Check(raw)
	return err
}

// locate adds to an error where the store says the damage lies.
func (c *check) locate(ctx context.Context, ref chunkstore.Ref, err error) error {
	if l, ok := c.reader.(local); ok {
		return errors.Join(err, l.Check(ctx, ref))
	}
	return err
}
