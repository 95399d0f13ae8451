package server

import (
	"context"
	"encoding/hex"
	"fmt"
	"math"
	"strings"
	"sync"

	"holdfast/chunkstore"
	"holdfast/datastore"
	"holdfast/datastore/index"
	"holdfast/datastore/server/ledger"
	"holdfast/datastore/server/rest"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
)

// digest decodes what checkDigest has checked.
func digest(s string) (id chunkstore.ID) {
	_, _ = hex.Decode(id[:], []byte(s))
	return id
}

// indexSink is where the entries of an index go.
type indexSink interface {
	WriteAt(ctx context.Context, entries []index.Entry) error
	CloseWith(ctx context.Context, c datastore.Closing) error
	// Classes are those that its chunks may be of, and Narrow leaves some of them.
	Classes() chunkstore.Classes
	Narrow(chunkstore.Classes)
}

// writer is one index being written.
type writer struct {
	id   int64
	name string
	kind index.Kind
	size int64 // of the archive in bytes, -1 if it is not known before the end
	out  indexSink
	file *ledger.Hold // the index being open

	mu      sync.Mutex // one call at a time
	charged int64      // bytes that count against quotas
	closed  bool
	short   bool // the last chunk of a fixed index was sent
	stats   datastore.UploadStats
}

// declared is how many bytes the client has said the archive has.
func (w *writer) declared() int64 { return max(w.size, 0) }

func notRegistered(kind index.Kind, id int64) error {
	return rest.BadRequest("%v writer '%d' not registered", kind, id)
}

func (b *backup) createDynamic(c *call) (any, error) {
	name := c.Str("archive-name")
	if !strings.HasSuffix(name, ".didx") {
		return nil, rest.BadRequest("wrong archive extension: '%s'", rest.ClipName(name))
	}
	return b.create(&writer{name: name, kind: index.Dynamic, size: -1}, func() (wire.IndexWriter, error) {
		return b.session.Create(c.Context(), name, -1)
	})
}

func (b *backup) createFixed(c *call) (any, error) {
	name, size := c.Str("archive-name"), c.Int("size", -1)
	if !strings.HasSuffix(name, ".fidx") {
		return nil, rest.BadRequest("wrong archive extension: '%s'", rest.ClipName(name))
	}
	w := &writer{name: name, kind: index.Fixed, size: size}
	if !c.Has("reuse-csum") {
		return b.create(w, func() (wire.IndexWriter, error) { return b.session.Create(c.Context(), name, size) })
	}
	if !c.Has("size") {
		return nil, rest.BadRequest("reuse-csum needs the size of the image")
	}
	if _, ok := b.session.Base(); !ok {
		return nil, rest.Refuse(chunkstore.ErrNotExist, "cannot reuse index - no valid previous backup exists")
	}
	return b.create(w, func() (wire.IndexWriter, error) {
		return b.session.CreateReusing(c.Context(), name, size, digest(c.Str("reuse-csum")))
	})
}

// create gives a new writer its number. It holds the lock so that finish cannot
// overtake it.
func (b *backup) create(w *writer, open func() (wire.IndexWriter, error)) (any, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.writableLocked(); err != nil {
		return nil, err
	}
	if b.lastID >= api.WritersMax {
		return nil, rest.BadRequest("the session had %d index writers, that is the limit", api.WritersMax)
	}
	file, err := b.server.accounts.Files.Try(b.payer, 1)
	if err != nil {
		return nil, err
	}
	w.charged = datastore.FileBytes + min(w.declared(), math.MaxInt64-datastore.FileBytes)
	if err := b.quota.Charge(w.charged); err != nil {
		file.Free()
		return nil, err
	}
	out, err := open()
	if err != nil {
		file.Free()
		b.quota.Refund(w.charged)
		return nil, err
	}
	w.file = file
	sink, ok := out.(indexSink)
	if !ok {
		return nil, fmt.Errorf("create %s: %T takes no entries at positions: %w", w.name, out, chunkstore.ErrInvalid)
	}
	b.lastID++
	w.id, w.out = b.lastID, sink
	b.writers[w.id] = w
	b.task.Logf("created index %d: %s", w.id, w.name)
	return w.id, nil
}

// writer finds an open writer.
func (b *backup) writer(kind index.Kind, id int64) (*writer, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.writableLocked(); err != nil {
		return nil, err
	}
	w := b.writers[id]
	if w == nil || w.kind != kind {
		return nil, notRegistered(kind, id)
	}
	return w, nil
}

func (b *backup) appendDynamic(c *call) (any, error) { return nil, b.append(c, index.Dynamic) }

func (b *backup) appendFixed(c *call) (any, error) { return nil, b.append(c, index.Fixed) }

// append adds entries. It stops at the first that is bad; those before it stay.
func (b *backup) append(c *call, kind index.Kind) error {
	w, err := b.writer(kind, c.Int("wid", 0))
	if err != nil {
		return err
	}
	ids, offs := c.Strs("digest-list"), c.Ints("offset-list")
	if len(ids) != len(offs) {
		return rest.BadRequest("offset list has wrong length (%d != %d)", len(offs), len(ids))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return notRegistered(kind, w.id)
	}
	entries, classes, bad := b.entries(w.out.Classes(), ids, offs)
	var n int64
	if w.size < 0 {
		for _, e := range entries {
			n += max(int64(e.Size), datastore.EntryBytes)
		}
		if err := b.quota.Charge(n); err != nil {
			return err
		}
	}
	w.out.Narrow(classes)
	if err := w.out.WriteAt(c.Context(), entries); err != nil {
		b.quota.Refund(n)
		return err
	}
	w.charged += n
	return bad
}

// entries looks up the sizes of chunks for an archive whose chunks may be of these
// classes, up to the first that is not known in one of them. It tells which classes are
// left then.
func (b *backup) entries(allowed chunkstore.Classes, ids []string, offs []int64) ([]index.Entry, chunkstore.Classes, error) {
	list := make([]index.Entry, 0, len(ids))
	for i, s := range ids {
		id := digest(s)
		size, left := b.known.Of(id).In(allowed)
		if left == 0 {
			return list, allowed, rest.Refuse(chunkstore.ErrNotExist, "no such chunk %s", s)
		}
		if offs[i] < 0 {
			return list, allowed, rest.BadRequest("offset %d is negative", offs[i])
		}
		allowed = left
		list = append(list, index.Entry{Off: uint64(offs[i]), Size: size, ID: id})
	}
	return list, allowed, nil
}

func (b *backup) closeDynamic(c *call) (any, error) { return nil, b.close(c, index.Dynamic) }

func (b *backup) closeFixed(c *call) (any, error) { return nil, b.close(c, index.Fixed) }

// close completes an index. Whatever comes of it, the writer is gone.
func (b *backup) close(c *call, kind index.Kind) error {
	w, err := b.writer(kind, c.Int("wid", 0))
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return notRegistered(kind, w.id)
	}
	w.closed = true
	err = w.out.CloseWith(c.Context(), datastore.Closing{
		Count: uint64(c.Int("chunk-count", 0)), Size: uint64(c.Int("size", 0)), Csum: digest(c.Str("csum"))})
	w.file.Free()
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.writers, w.id)
	if err != nil {
		b.quota.Refund(w.charged)
		b.task.Logf("index %d, %s, was dropped: %v", w.id, w.name, err)
		return err
	}
	b.files++
	merge(&b.stats, w.stats)
	b.task.Logf("closed index %d, %s: %s", w.id, w.name, describe(w.stats))
	return nil
}

// registerIndex makes the chunks of an index of the base snapshot known, if the
// store has every one of them undamaged and in that size.
func (b *backup) registerIndex(ctx context.Context, name string, idx *index.Reader) error {
	class, err := b.session.BaseClass(ctx, name)
	if err != nil {
		return err
	}
	for entries, err := range idx.Distinct() {
		if err == nil {
			err = b.stored(ctx, entries, class)
		}
		if err != nil {
			return fmt.Errorf("index of the previous snapshot: %w", err)
		}
	}
	for e, err := range idx.All(0) {
		if err == nil {
			_, err = b.known.Add(chunkstore.Ref{ID: e.ID, Size: e.Size, Class: class})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// stored is an error unless the store has all these chunks.
func (b *backup) stored(ctx context.Context, entries []index.Entry, class chunkstore.Class) error {
	refs := make([]chunkstore.Ref, len(entries))
	for i, e := range entries {
		refs[i] = chunkstore.Ref{ID: e.ID, Size: e.Size, Class: class}
	}
	missing, err := b.session.HasAll(ctx, refs)
	if err == nil && len(missing) > 0 {
		e := entries[missing[0]]
		err = fmt.Errorf("chunk %s at %d is not stored any more", e.ID.Short(), e.Off)
	}
	return err
}
