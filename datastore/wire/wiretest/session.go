package wiretest

import (
	"bytes"
	"context"
	"fmt"
	"sync"

	"holdfast/chunkstore"
	"holdfast/datastore/index"
	"holdfast/datastore/manifest"
	"holdfast/datastore/wire"
)

// session is a snapshot being written to a Memory.
type session struct {
	m     *Memory
	snap  wire.Snapshot
	mu    sync.Mutex
	files map[string][]byte
	sums  map[string]manifest.File
	open  int
	ended bool
	done  bool
}

// Begin implements wire.Target.
func (m *Memory) Begin(_ context.Context, s wire.Snapshot) (wire.Session, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for other := range m.snaps {
		if other.Group == s.Group && other.Time >= s.Time {
			return nil, fmt.Errorf("snapshot %s: %w", other, wire.ErrExists)
		}
	}
	if m.busy[s.Group] {
		return nil, fmt.Errorf("group %s: %w", s.Group, wire.ErrBusy)
	}
	if m.busy == nil {
		m.busy = make(map[wire.Group]bool)
		m.chunks = make(map[chunkstore.Ref]chunkstore.Chunk)
		m.snaps = make(map[wire.Snapshot]map[string][]byte)
	}
	m.busy[s.Group] = true
	return &session{m: m, snap: s, files: make(map[string][]byte), sums: make(map[string]manifest.File)}, nil
}

func (ss *session) Previous(ctx context.Context) (wire.Reader, error) {
	list, err := ss.m.Snapshots(ctx, ss.snap.Group)
	if err != nil {
		return nil, err
	}
	return ss.m.Open(ctx, list[len(list)-1].Snapshot)
}

// Has implements wire.Asker.
func (ss *session) Has(_ context.Context, r chunkstore.Ref) (bool, error) {
	ss.m.mu.Lock()
	defer ss.m.mu.Unlock()
	_, ok := ss.m.chunks[r]
	return ok, nil
}

// hasEntry looks for the chunk of an entry in the classes of a set.
func (ss *session) hasEntry(e index.Entry, classes chunkstore.Classes) bool {
	for c := range chunkstore.Class(chunkstore.ClassCount) {
		if !classes.Has(c) {
			continue
		}
		if ok, _ := ss.Has(context.Background(), chunkstore.Ref{ID: e.ID, Size: e.Size, Class: c}); ok {
			return true
		}
	}
	return false
}

func (ss *session) Blob(_ context.Context, name string, raw chunkstore.Blob) error {
	if kind, err := wire.CheckFileName(name); err != nil || kind != wire.Blob {
		return fmt.Errorf("%s: %w", name, wire.ErrName)
	}
	ss.mu.Lock()
	defer ss.mu.Unlock()
	ss.files[name] = bytes.Clone(raw)
	ss.sums[name] = manifest.File{Size: uint64(len(raw)), Csum: sumOf(raw)}
	return nil
}

func (ss *session) Create(_ context.Context, name string, size int64) (wire.IndexWriter, error) {
	kind, err := wire.CheckFileName(name)
	if err != nil {
		return nil, err
	}
	o := index.Options{Kind: index.Dynamic}
	switch {
	case kind == wire.Blob:
		return nil, fmt.Errorf("%s: %w", name, wire.ErrName)
	case kind == wire.Fixed && size < 1:
		return nil, fmt.Errorf("%s of unknown size: %w", name, chunkstore.ErrInvalid)
	case kind == wire.Fixed:
		o = index.Options{Kind: index.Fixed, Size: uint64(size), ChunkSize: 4 << 20}
	}
	w := &indexWriter{ss: ss, name: name}
	if w.out, err = index.NewWriter(&w.file, o); err != nil {
		return nil, err
	}
	ss.mu.Lock()
	defer ss.mu.Unlock()
	ss.open++
	return w, nil
}

func (ss *session) Finish(context.Context) error {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if ss.open > 0 || ss.ended {
		return fmt.Errorf("%d indexes are open, ended %v: %w", ss.open, ss.ended, chunkstore.ErrInvalid)
	}
	mf, err := manifest.Open(ss.files[wire.ManifestName])
	if err != nil {
		return err
	}
	if g := ss.snap.Group; mf.Type != g.Type || mf.ID != g.ID || mf.Time != ss.snap.Time {
		return fmt.Errorf("the manifest is another snapshot's: %w", chunkstore.ErrInvalid)
	}
	for _, f := range mf.Files {
		sum, ok := ss.sums[f.Name]
		if !ok || sum.Size != f.Size || sum.Csum != f.Csum {
			return fmt.Errorf("manifest and %s differ: %w", f.Name, chunkstore.ErrInvalid)
		}
	}
	if err := ss.prove(mf); err != nil {
		return err
	}
	ss.m.mu.Lock()
	defer ss.m.mu.Unlock()
	ss.m.snaps[ss.snap] = ss.files
	ss.done, ss.ended = true, true
	return nil
}

func (ss *session) prove(mf *manifest.Manifest) error {
	missing := &wire.MissingError{}
	for name, b := range ss.files {
		kind, err := indexKind(name)
		if err != nil {
			continue // a blob
		}
		idx, err := index.Open(bytes.NewReader(b), int64(len(b)), kind)
		if err != nil {
			return err
		}
		class := mf.ClassOf(name)
		for e, err := range idx.All(0) {
			if err != nil {
				return err
			}
			if !ss.hasEntry(e, chunkstore.Classes(0).With(class)) {
				missing.Count++
				missing.Refs = append(missing.Refs, wire.MissingRef{File: name, Off: e.Off, ID: e.ID, Why: chunkstore.ErrNotExist})
			}
		}
	}
	if missing.Count > 0 {
		return missing
	}
	return nil
}

func indexKind(name string) (index.Kind, error) {
	kind, err := wire.CheckFileName(name)
	if err == nil && kind == wire.Dynamic {
		return index.Dynamic, nil
	}
	if err == nil && kind == wire.Fixed {
		return index.Fixed, nil
	}
	return 0, fmt.Errorf("%s: %w", name, wire.ErrName)
}

func (ss *session) Close() error {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	ss.ended = true
	ss.m.mu.Lock()
	defer ss.m.mu.Unlock()
	delete(ss.m.busy, ss.snap.Group)
	return nil
}

// indexWriter is one index of a session.
type indexWriter struct {
	ss   *session
	name string
	mu   sync.Mutex
	file memFile
	out  *index.Writer
}

func (w *indexWriter) PutChunk(ctx context.Context, c chunkstore.Chunk) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	c.Owner = chunkstore.OwnerOf("everybody")
	if err := c.Validate(); err != nil {
		return false, err
	}
	ref := c.Ref()
	ref.Class = manifest.ClassIn(w.name, ref.Class)
	m := w.ss.m
	if m.PutChunk != nil {
		if err := m.PutChunk(c); err != nil {
			return false, err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.chunks[ref]; ok {
		return false, nil
	}
	c.Blob = bytes.Clone(c.Blob)
	m.chunks[ref] = c
	return true, nil
}

// Append implements wire.IndexWriter. It is strict about what the port leaves to
// the caller: a chunk is appended only after it has been put.
func (w *indexWriter) Append(_ context.Context, entries []index.Entry) error {
	for _, e := range entries {
		if !w.ss.hasEntry(e, manifest.ClassesIn(w.name)) {
			return fmt.Errorf("append chunk %s before it was put: %w", e.ID.Short(), chunkstore.ErrNotExist)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.out.Append(entries...)
}

func (w *indexWriter) Close(_ context.Context, want index.Summary) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ss.mu.Lock()
	defer w.ss.mu.Unlock()
	w.ss.open--
	sum, err := w.out.Close()
	if err != nil {
		return err
	}
	if sum != want {
		return fmt.Errorf("%s is not what was announced: %w", w.name, chunkstore.ErrInvalid)
	}
	w.ss.files[w.name] = w.file.b
	w.ss.sums[w.name] = manifest.File{Size: sum.Size, Csum: sum.Csum}
	return nil
}

// memFile is a growing file in memory.
type memFile struct{ b []byte }

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	if end := int(off) + len(p); end > len(f.b) {
		f.b = append(f.b, make([]byte, end-len(f.b))...)
	}
	return copy(f.b[off:], p), nil
}
