// Package mem is the reference chunk store: a map behind a mutex. Tests use it
// where a store is needed, and the conformance suite uses it to show what the
// contract asks for. It promises all that chunkstore.Store does except that
// anything outlives the process.
//
// The package imports chunkstore and the standard library only.
package mem

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"

	"holdfast/chunkstore"
)

// errClosed is returned by a store or session after its Close.
var errClosed = errors.New("chunk store is closed")

// Store implements chunkstore.Store. The zero value is not usable; see New.
type Store struct {
	mu     sync.RWMutex // guards the fields below
	chunks map[chunkstore.ID]chunk
	closed bool
}

type chunk struct {
	sealed chunkstore.Sealed
	plain  uint32
	sum    [32]byte
}

// New returns an empty store.
func New() *Store { return &Store{chunks: make(map[chunkstore.ID]chunk)} }

// Len returns the number of chunks.
func (s *Store) Len() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.chunks)
}

// Damage changes one byte of a stored chunk, for tests. A chunk that is not
// stored stays so.
func (s *Store) Damage(id chunkstore.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c, ok := s.chunks[id]; ok {
		// A reader may be copying the old slice.
		c.sealed = bytes.Clone(c.sealed)
		c.sealed[len(c.sealed)/2] ^= 1
		s.chunks[id] = c
	}
}

// Remove forgets a stored chunk, for tests.
func (s *Store) Remove(id chunkstore.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.chunks, id)
}

// Get implements chunkstore.Getter.
func (s *Store) Get(ctx context.Context, id chunkstore.ID) (chunkstore.Sealed, error) {
	c, err := s.find(ctx, id)
	return bytes.Clone(c.sealed), err
}

// Stat implements chunkstore.Store.
func (s *Store) Stat(ctx context.Context, id chunkstore.ID) (chunkstore.Info, error) {
	c, err := s.find(ctx, id)
	return chunkstore.Info{StoredSize: uint32(len(c.sealed)), PlainSize: c.plain}, err
}

// Check implements chunkstore.Store.
func (s *Store) Check(ctx context.Context, id chunkstore.ID) error {
	c, err := s.find(ctx, id)
	if err != nil {
		return err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if sha256.Sum256(c.sealed) != c.sum {
		return fmt.Errorf("chunk %s in memory: checksum differs: %w", id, chunkstore.ErrCorrupt)
	}
	return nil
}

// Walk calls fn for every chunk, in the order of their IDs.
func (s *Store) Walk(ctx context.Context, fn func(chunkstore.ID, chunkstore.Info) error) error {
	s.mu.RLock()
	ids := make([]chunkstore.ID, 0, len(s.chunks))
	for id := range s.chunks {
		ids = append(ids, id)
	}
	s.mu.RUnlock()
	slices.SortFunc(ids, func(a, b chunkstore.ID) int { return bytes.Compare(a[:], b[:]) })
	for _, id := range ids {
		info, err := s.Stat(ctx, id)
		if errors.Is(err, chunkstore.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := fn(id, info); err != nil {
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
func (s *Store) find(ctx context.Context, id chunkstore.ID) (chunk, error) {
	if err := ctx.Err(); err != nil {
		return chunk{}, fmt.Errorf("chunk %s: %w", id, err)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return chunk{}, fmt.Errorf("chunk %s: %w", id, errClosed)
	}
	c, ok := s.chunks[id]
	if !ok {
		return chunk{}, fmt.Errorf("chunk %s: %w", id, chunkstore.ErrNotExist)
	}
	return c, nil
}

type session struct {
	s      *Store
	closed bool // guarded by s.mu
}

// Put implements chunkstore.Session. A damaged chunk is replaced.
func (se *session) Put(ctx context.Context, c chunkstore.Chunk) (bool, error) {
	return se.put(ctx, c, false)
}

// Replace implements chunkstore.Replacer.
func (se *session) Replace(ctx context.Context, c chunkstore.Chunk) error {
	_, err := se.put(ctx, c, true)
	return err
}

func (se *session) put(ctx context.Context, c chunkstore.Chunk, force bool) (bool, error) {
	if err := c.Validate(); err != nil {
		return false, err
	}
	if err := ctx.Err(); err != nil {
		return false, fmt.Errorf("put chunk %s: %w", c.ID, err)
	}
	stored := chunk{sealed: bytes.Clone(c.Sealed), plain: c.PlainSize, sum: sha256.Sum256(c.Sealed)}
	se.s.mu.Lock()
	defer se.s.mu.Unlock()
	if se.closed || se.s.closed {
		return false, fmt.Errorf("put chunk %s: %w", c.ID, errClosed)
	}
	old, ok := se.s.chunks[c.ID]
	if ok && !force && sha256.Sum256(old.sealed) == old.sum {
		return false, nil
	}
	se.s.chunks[c.ID] = stored
	return true, nil
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
