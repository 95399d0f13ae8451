// Package mem is the reference chunk store: a map behind a mutex. Tests use it
// where a store is needed, and the conformance suite uses it to show what the
// contract asks for. It promises all that chunkstore.Store does except that
// anything outlives the process.
package mem

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"holdfast/chunkstore"
)

// errClosed is returned by a store or session after its Close.
var errClosed = errors.New("chunk store is closed")

// Store implements chunkstore.Store. The zero value is not usable; see New.
type Store struct {
	mu     sync.RWMutex // guards the fields below
	chunks map[chunkstore.Key]chunk
	closed bool
}

type chunk struct {
	raw chunkstore.Blob
	sum [32]byte
}

// New returns an empty store.
func New() *Store { return &Store{chunks: make(map[chunkstore.Key]chunk)} }

// Len returns the number of chunks.
func (s *Store) Len() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.chunks)
}

// Damage changes one byte of a stored chunk, for tests. A chunk that is not
// stored stays so.
func (s *Store) Damage(k chunkstore.Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c, ok := s.chunks[k]; ok {
		// A reader may be copying the old slice.
		c.raw = bytes.Clone(c.raw)
		c.raw[len(c.raw)/2] ^= 1
		s.chunks[k] = c
	}
}

// Remove forgets a stored chunk, for tests.
func (s *Store) Remove(k chunkstore.Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.chunks, k)
}

// Get implements chunkstore.Getter.
func (s *Store) Get(ctx context.Context, k chunkstore.Key) (chunkstore.Blob, error) {
	c, err := s.find(ctx, k)
	return bytes.Clone(c.raw), err
}

// Stat implements chunkstore.Store.
func (s *Store) Stat(ctx context.Context, k chunkstore.Key) (chunkstore.Info, error) {
	c, err := s.find(ctx, k)
	if err != nil {
		return chunkstore.Info{}, err
	}
	return chunkstore.Info{StoredSize: uint32(len(c.raw)), PlainSize: k.Size}, nil
}

// Check implements chunkstore.Store.
func (s *Store) Check(ctx context.Context, k chunkstore.Key) error {
	c, err := s.find(ctx, k)
	if err != nil {
		return err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if sha256.Sum256(c.raw) != c.sum {
		return fmt.Errorf("chunk %s in memory: checksum differs: %w", k, chunkstore.ErrCorrupt)
	}
	return nil
}

// Walk calls fn for every chunk, in the order of their keys.
func (s *Store) Walk(ctx context.Context, fn func(chunkstore.Key, chunkstore.Info) error) error {
	s.mu.RLock()
	keys := slices.SortedFunc(maps.Keys(s.chunks), chunkstore.Key.Compare)
	s.mu.RUnlock()
	for _, k := range keys {
		info, err := s.Stat(ctx, k)
		if errors.Is(err, chunkstore.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := fn(k, info); err != nil {
			return err
		}
	}
	return nil
}

// Begin implements chunkstore.Store.
func (s *Store) Begin(ctx context.Context) (chunkstore.Session, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("begin session: %w", err)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return nil, fmt.Errorf("begin session: %w", errClosed)
	}
	return &session{s: s}, nil
}

// Close implements chunkstore.Store.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return nil
}

// find returns the chunk as it lies in the map; its slice is not a copy.
func (s *Store) find(ctx context.Context, k chunkstore.Key) (chunk, error) {
	if err := ctx.Err(); err != nil {
		return chunk{}, fmt.Errorf("chunk %s: %w", k, err)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return chunk{}, fmt.Errorf("chunk %s: %w", k, errClosed)
	}
	c, ok := s.chunks[k]
	if !ok {
		return chunk{}, fmt.Errorf("chunk %s: %w", k, chunkstore.ErrNotExist)
	}
	return c, nil
}

type session struct {
	s      *Store
	closed bool // guarded by s.mu
}

// Put implements chunkstore.Session. A damaged chunk is replaced.
func (se *session) Put(ctx context.Context, c chunkstore.Chunk) (bool, error) {
	if err := c.ValidateOwned(); err != nil {
		return false, err
	}
	if err := ctx.Err(); err != nil {
		return false, fmt.Errorf("put chunk %s: %w", c.ID, err)
	}
	stored := chunk{raw: bytes.Clone(c.Blob), sum: sha256.Sum256(c.Blob)}
	se.s.mu.Lock()
	defer se.s.mu.Unlock()
	if se.closed || se.s.closed {
		return false, fmt.Errorf("put chunk %s: %w", c.ID, errClosed)
	}
	old, ok := se.s.chunks[c.Key()]
	if ok && sha256.Sum256(old.raw) == old.sum {
		return false, nil
	}
	se.s.chunks[c.Key()] = stored
	return true, nil
}

// Keep implements chunkstore.Keeper. Nothing is ever removed here.
func (se *session) Keep(ctx context.Context, k chunkstore.Key) (chunkstore.Info, error) {
	return se.s.Stat(ctx, k)
}

// KeepAll implements chunkstore.Keeper.
func (se *session) KeepAll(ctx context.Context, keys []chunkstore.Key) (rest []int, err error) {
	for i, k := range keys {
		if _, err := se.Keep(ctx, k); err != nil {
			rest = append(rest, i)
		}
	}
	return rest, ctx.Err()
}

// Sync implements chunkstore.Session.
func (se *session) Sync(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	se.s.mu.RLock()
	defer se.s.mu.RUnlock()
	if se.closed || se.s.closed {
		return fmt.Errorf("sync: %w", errClosed)
	}
	return nil
}

// Close implements chunkstore.Session.
func (se *session) Close() error {
	se.s.mu.Lock()
	defer se.s.mu.Unlock()
	se.closed = true
	return nil
}
