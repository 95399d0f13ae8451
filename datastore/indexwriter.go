package datastore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path"
	"sync"
	"time"

	"holdfast/chunkstore"
	"holdfast/chunkstore/durable"
	"holdfast/datastore/index"
	"holdfast/datastore/manifest"
	"holdfast/datastore/wire"
)

// IndexWriter is an index being written. It implements wire.IndexWriter. All
// methods are safe for concurrent use.
type IndexWriter struct {
	session *Session
	name    string
	kind    index.Kind
	reused  bool // begun as a copy of the base's

	mu       sync.Mutex
	classes  chunkstore.Classes // that all its chunks may be of
	file     *os.File
	out      *index.Writer
	appended uint64 // entries, repeated ones as often as they came
	size     int64  // of a fixed image as announced, -1 if it was not
	end      uint64 // of the last entry of a dynamic index, the furthest of a fixed one
}

var _ wire.IndexWriter = (*IndexWriter)(nil)

// Create implements wire.Session. A fixed index of size -1 grows with its
// entries. What it returns is an *IndexWriter.
func (ss *Session) Create(_ context.Context, name string, size int64) (wire.IndexWriter, error) {
	w, err := ss.create(name, size)
	if err != nil {
		return nil, err
	}
	return w, nil
}

func (ss *Session) create(name string, size int64) (*IndexWriter, error) {
	kind, err := indexKind(name)
	if err != nil {
		return nil, err
	}
	o := index.Options{Kind: kind, Ctime: time.Now().Unix()}
	rand.Read(o.UUID[:])
	if kind == index.Fixed {
		if size == 0 || size < -1 {
			return nil, fmt.Errorf("create %s: an image of %d bytes: %w", name, size, chunkstore.ErrInvalid)
		}
		o.Size, o.ChunkSize, o.Grow = uint64(max(size, 0)), wire.FixedChunkSize, size < 0
	}
	if err := ss.running(); err != nil {
		return nil, fmt.Errorf("create %s: %w", name, err)
	}
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if err := ss.running(); err != nil {
		return nil, fmt.Errorf("create %s: %w", name, err)
	}
	if _, ok := ss.open[name]; ok {
		return nil, fmt.Errorf("create %s: it is being written: %w", name, wire.ErrBusy)
	}
	file, err := durable.OpenFileIn(ss.store.root, path.Join(ss.dir, name), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", name, noSpace(err))
	}
	out, err := index.NewWriter(file, o)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("create %s: %w", name, err), file.Close())
	}
	w := &IndexWriter{session: ss, name: name, kind: kind, file: file, out: out, size: size, classes: manifest.ClassesIn(name)}
	delete(ss.files, name)
	ss.open[name] = w
	return w, nil
}

// CreateReusing begins a fixed index as a copy of the base's index of that
// name, whose checksum and size must be those given (section 2.5 of the protocol
// specification). What is appended then replaces entries of the copy. No base,
// or no such index in it, is chunkstore.ErrNotExist, another checksum or size
// chunkstore.ErrInvalid.
func (ss *Session) CreateReusing(ctx context.Context, name string, size int64, csum [32]byte) (*IndexWriter, error) {
	if kind, err := indexKind(name); err != nil || kind != index.Fixed {
		return nil, fmt.Errorf("reuse %s: only a fixed index can be: %w", name, errors.Join(wire.ErrName, err))
	}
	if err := ss.running(); err != nil {
		return nil, fmt.Errorf("reuse %s: %w", name, err)
	}
	if ss.base == nil {
		return nil, fmt.Errorf("cannot reuse index - no valid previous backup exists: %w", chunkstore.ErrNotExist)
	}
	old, err := ss.store.openIndex(path.Join(snapshotPath(*ss.base), name))
	if err != nil {
		return nil, fmt.Errorf("reuse the index of %s: %w", ss.base, err)
	}
	defer old.Close()
	if size < 1 || old.Size() != uint64(size) || old.ChunkSize() != wire.FixedChunkSize {
		return nil, fmt.Errorf("reuse %s: the image has %d bytes, that of %s has %d: %w", name, size, ss.base, old.Size(), chunkstore.ErrInvalid)
	}
	class, err := ss.BaseClass(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("reuse %s: %w", name, err)
	}
	w, err := ss.create(name, size)
	if err != nil {
		return nil, err
	}
	if err := w.copyFrom(old, csum); err != nil {
		return nil, fmt.Errorf("reuse %s of %s: %w", name, ss.base, noSpace(errors.Join(err, w.abandon())))
	}
	w.Narrow(chunkstore.Classes(0).With(class))
	return w, nil
}

// copyFrom takes the entries of another index in one pass and compares their
// checksum.
func (w *IndexWriter) copyFrom(old *index.Reader, csum [32]byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	sum := index.NewSummer(index.Fixed)
	for e, err := range old.All(0) {
		if err != nil {
			return err
		}
		sum.Add(e)
		if err := w.out.Append(e); err != nil {
			return err
		}
	}
	if got := sum.Summary().Csum; got != csum {
		return fmt.Errorf("its checksum is %x…, not %x…: %w", got[:4], csum[:4], chunkstore.ErrInvalid)
	}
	w.reused = true
	return nil
}

// Classes returns the classes that the chunks of the index may be of: all of them are
// of one, which the manifest will tell.
func (w *IndexWriter) Classes() chunkstore.Classes {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.classes
}

// Narrow says that the chunks of the index are of no other classes than these.
func (w *IndexWriter) Narrow(classes chunkstore.Classes) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.classes &= classes
}

// PutChunk implements wire.IndexWriter.
func (w *IndexWriter) PutChunk(ctx context.Context, c chunkstore.Chunk) (bool, error) {
	put, err := w.session.PutChunk(ctx, w.name, c)
	return put.Added, err
}

// Append implements wire.IndexWriter. In an index that was begun by
// CreateReusing, or that grows, entries come in any order.
func (w *IndexWriter) Append(_ context.Context, entries []index.Entry) error {
	return w.write(entries, w.reused)
}

// WriteAt adds entries, those of a fixed index in any order and also again; the
// last one of a place stays. Those before the first that does not fit, which is
// chunkstore.ErrInvalid, are added.
func (w *IndexWriter) WriteAt(_ context.Context, entries []index.Entry) error {
	return w.write(entries, w.kind == index.Fixed)
}

func (w *IndexWriter) write(entries []index.Entry, anywhere bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	add := w.out.Append
	if anywhere {
		add = w.out.WriteAt
	}
	for _, e := range entries {
		if err := add(e); err != nil {
			return fmt.Errorf("write %s: %w", w.name, noSpace(err))
		}
		w.appended++
		w.end = max(w.end, e.Off+uint64(e.Size))
	}
	return nil
}

// Close implements wire.IndexWriter.
func (w *IndexWriter) Close(_ context.Context, want index.Summary) error {
	return w.complete(func(sum index.Summary) error {
		if sum == want {
			return nil
		}
		return fmt.Errorf("%d entries, %d bytes, checksum %x… were announced as %d, %d, %x…: %w",
			sum.Count, sum.Size, sum.Csum[:4], want.Count, want.Size, want.Csum[:4], chunkstore.ErrInvalid)
	}, nil)
}

// Closing is what the sender says of an index at its end: how many entries it
// has appended, repeated ones included, how many bytes the archive has, and the
// checksum. For a reused index Size says nothing.
type Closing struct {
	Count uint64
	Size  uint64
	Csum  [32]byte
}

// CloseWith completes the file if it is as announced, by the rules of section
// 2.8 of the protocol specification and in their order. Any difference is
// chunkstore.ErrInvalid, and the archive is dropped.
func (w *IndexWriter) CloseWith(_ context.Context, c Closing) error {
	return w.complete(func(sum index.Summary) error {
		if sum.Csum == c.Csum {
			return nil
		}
		return fmt.Errorf("checksum %x…, announced was %x…: %w", sum.Csum[:4], c.Csum[:4], chunkstore.ErrInvalid)
	}, &c)
}

// checkCounts compares the counts that were announced with what was appended.
func (w *IndexWriter) checkCounts(c Closing) error {
	if c.Count != w.appended {
		return fmt.Errorf("%d chunks were appended, announced were %d: %w", w.appended, c.Count, chunkstore.ErrInvalid)
	}
	size := w.end
	switch {
	case w.reused:
		return nil
	case w.kind == index.Fixed && w.size >= 0:
		size = uint64(w.size)
	}
	if chunks := (size + wire.FixedChunkSize - 1) / wire.FixedChunkSize; w.kind == index.Fixed && c.Count != chunks {
		return fmt.Errorf("%d chunks were appended, the image has %d: %w", c.Count, chunks, chunkstore.ErrInvalid)
	}
	if c.Size != size {
		return fmt.Errorf("%d bytes, announced were %d: %w", size, c.Size, chunkstore.ErrInvalid)
	}
	return nil
}

// complete closes the file and makes it one of the session's, if check agrees
// with what it holds and, unless announced is nil, the counts fit.
func (w *IndexWriter) complete(check func(index.Summary) error, announced *Closing) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	ss := w.session
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if ss.open[w.name] != w {
		return fmt.Errorf("close %s: it is closed: %w", w.name, chunkstore.ErrInvalid)
	}
	var sum index.Summary
	var err error
	if announced != nil {
		err = w.checkCounts(*announced)
	}
	if err == nil {
		sum, err = w.out.Close()
	}
	if err == nil {
		err = check(sum)
	}
	if err != nil {
		return fmt.Errorf("close %s: %w", w.name, noSpace(errors.Join(err, w.drop())))
	}
	delete(ss.open, w.name)
	if err := w.file.Close(); err != nil {
		return fmt.Errorf("close %s: %w", w.name, noSpace(errors.Join(err, ss.store.root.Remove(path.Join(ss.dir, w.name)))))
	}
	ss.files[w.name] = written{size: sum.Size, csum: sum.Csum, classes: w.classes}
	return nil
}

// abandon gives up a writer that nobody has.
func (w *IndexWriter) abandon() error {
	w.session.mu.Lock()
	defer w.session.mu.Unlock()
	return w.drop()
}

// drop removes the file. The caller has the session's lock.
func (w *IndexWriter) drop() error {
	ss := w.session
	if ss.open[w.name] != w {
		return nil // the session has ended
	}
	delete(ss.open, w.name)
	return errors.Join(w.file.Close(), ss.store.root.Remove(path.Join(ss.dir, w.name)))
}
