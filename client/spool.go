package client

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"holdfast/chunkstore"
	"holdfast/datastore/index"
	"holdfast/datastore/wire"
)

// indexMax caps an index file that is kept on disk while it is read, in bytes:
// more than 400 million chunks.
const indexMax = 16 << 30

// bounds are the sizes that the manifest of a snapshot has told of its files, in bytes.
// The zero value knows none.
type bounds struct {
	mu    sync.Mutex
	sizes map[string]uint64
}

// Bound implements wire.Bounder.
func (b *bounds) Bound(sizes map[string]uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sizes = sizes
}

func (b *bounds) size(name string) (uint64, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n, ok := b.sizes[name]
	return n, ok
}

// mostBlob is the most that a blob can take.
func (b *bounds) mostBlob(name string) int {
	if n, ok := b.size(name); ok && n < chunkstore.BlobSizeMax {
		return int(n)
	}
	return chunkstore.BlobSizeMax
}

// mostIndex is the most that an index file can take: an entry is of at least one byte of
// the archive.
func (b *bounds) mostIndex(name string) int64 {
	const header, entry = 4096, 40 // section 3 of the formats specification
	if n, ok := b.size(name); ok && n < (indexMax-header)/entry {
		return header + int64(n)*entry
	}
	return indexMax
}

// indexKind checks the name of an index file.
func indexKind(name string) (index.Kind, error) {
	kind, err := wire.CheckFileName(name)
	switch {
	case err != nil:
		return 0, err
	case kind == wire.Dynamic:
		return index.Dynamic, nil
	case kind == wire.Fixed:
		return index.Fixed, nil
	}
	return 0, fmt.Errorf("%s is no index: %w", name, wire.ErrName)
}

// checkBlob checks the name of a blob.
func checkBlob(name string) error {
	kind, err := wire.CheckFileName(name)
	if err == nil && kind != wire.Blob {
		err = fmt.Errorf("%s is no blob: %w", name, wire.ErrName)
	}
	return err
}

// spool downloads an index of at most so many bytes into a file without a name and
// opens it. Where no such file can be made or filled, as on a machine that is being
// rescued, one that is not large is kept in memory.
func (c *conn) spool(ctx context.Context, q query, kind index.Kind, most int64) (*index.Reader, error) {
	idx, err := c.spoolTo(ctx, unnamedFile, q, kind, most)
	if !errors.Is(err, errLocal) || ctx.Err() != nil {
		return idx, err
	}
	c.client.log("%v; keeping it in memory", err)
	idx, second := c.spoolTo(ctx, memoryFile, q, kind, min(most, c.client.inMemory))
	if second == nil || errors.Is(second, ErrUnavailable) {
		return idx, second
	}
	return nil, err
}

// inMemoryMax caps an index that is kept in memory, in bytes: some 6 million chunks.
const inMemoryMax = 256 << 20

// unnamedFile makes a file in the directory for temporary ones.
func unnamedFile() (*os.File, error) {
	f, err := os.CreateTemp("", "holdfast-index-*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// memoryFile makes a file that lies in memory.
func memoryFile() (*os.File, error) {
	const name = "holdfast-index"
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// spoolTo is spool into a file that create makes.
func (c *conn) spoolTo(ctx context.Context, create func() (*os.File, error), q query, kind index.Kind, most int64) (*index.Reader, error) {
	f, err := create()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errLocal, err)
	}
	w := &localWriter{file: f}
	n, err := c.copy(ctx, q, w, most)
	if w.err != nil {
		err = fmt.Errorf("%w: %w", errLocal, w.err)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	idx, err := index.Open(f, n, kind)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %w", errAnswer, err), f.Close())
	}
	return idx, nil
}

// errLocal is wrapped by errors of this machine's disk. Another connection
// would not help.
var errLocal = wire.ErrLocal

// localWriter remembers that it was the disk that failed, not the network.
type localWriter struct {
	file *os.File
	err  error
}

func (w *localWriter) Write(p []byte) (int, error) {
	n, err := w.file.Write(p)
	if err != nil {
		w.err = err
	}
	return n, err
}
