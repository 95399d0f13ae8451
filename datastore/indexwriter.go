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
	"holdfast/chunkstore/blob"
	"holdfast/datastore/index"
	"holdfast/datastore/wire"
)

// fixedChunkSize is the size of the chunks of every .fidx, in bytes (section
// 3.1 of the formats specification).
const fixedChunkSize = 4 << 20

// indexWriter is an index being written. It implements wire.IndexWriter.
type indexWriter struct {
	session *session
	name    string

	mu   sync.Mutex
	file *os.File
	out  *index.Writer
}

// Create implements wire.Session.
func (ss *session) Create(_ context.Context, name string, size int64) (wire.IndexWriter, error) {
	kind, err := indexKind(name)
	if err != nil {
		return nil, err
	}
	if kind == index.Fixed && size < 1 {
		return nil, fmt.Errorf("create %s: a fixed index needs the size of its image: %w", name, chunkstore.ErrInvalid)
	}
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if _, ok := ss.open[name]; ok || ss.finished || ss.closed {
		return nil, fmt.Errorf("create %s: it is being written, or the session has ended: %w", name, wire.ErrBusy)
	}
	file, err := ss.store.root.OpenFile(path.Join(ss.dir, name), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", name, noSpace(err))
	}
	o := index.Options{Kind: kind, Ctime: time.Now().Unix()}
	rand.Read(o.UUID[:])
	if kind == index.Fixed {
		o.Size, o.ChunkSize = uint64(size), fixedChunkSize
	}
	out, err := index.NewWriter(file, o)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("create %s: %w", name, err), file.Close())
	}
	w := &indexWriter{session: ss, name: name, file: file, out: out}
	delete(ss.files, name)
	ss.open[name] = w
	return w, nil
}

// openIndex opens a completed index of the session.
func (ss *session) openIndex(name string) (*index.Reader, error) {
	kind, err := indexKind(name)
	if err != nil {
		return nil, err
	}
	f, err := ss.store.root.Open(path.Join(ss.dir, name))
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	idx, err := index.Open(f, st.Size(), kind)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return idx, nil
}

// PutChunk implements wire.IndexWriter.
func (w *indexWriter) PutChunk(ctx context.Context, c chunkstore.Chunk) (bool, error) {
	if err := c.Validate(); err != nil {
		return false, err
	}
	if _, err := blob.Check(c.Sealed); err != nil {
		return false, fmt.Errorf("chunk %s: %w", c.ID.Short(), err)
	}
	return w.session.puts.Put(ctx, c)
}

// Append implements wire.IndexWriter.
func (w *indexWriter) Append(_ context.Context, entries []index.Entry) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.out.Append(entries...); err != nil {
		return fmt.Errorf("write %s: %w", w.name, noSpace(err))
	}
	return nil
}

// Close implements wire.IndexWriter.
func (w *indexWriter) Close(_ context.Context, want index.Summary) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	sum, err := w.out.Close()
	if err == nil && sum != want {
		err = fmt.Errorf("%d entries, %d bytes, checksum %x… were announced as %d, %d, %x…: %w",
			sum.Count, sum.Size, sum.Csum[:4], want.Count, want.Size, want.Csum[:4], chunkstore.ErrInvalid)
	}
	err = errors.Join(err, w.file.Close())
	ss := w.session
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if ss.open[w.name] != w {
		return fmt.Errorf("close %s: it is closed: %w", w.name, chunkstore.ErrInvalid)
	}
	delete(ss.open, w.name)
	if err != nil {
		return fmt.Errorf("close %s: %w", w.name, noSpace(errors.Join(err, ss.store.root.Remove(path.Join(ss.dir, w.name)))))
	}
	ss.files[w.name] = written{size: sum.Size, csum: sum.Csum}
	return nil
}
