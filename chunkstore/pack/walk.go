package pack

import (
	"context"
	"fmt"

	"holdfast/chunkstore"
	"holdfast/chunkstore/pack/catalogue"
)

// walkBatch is how many chunks one transaction of a walk reads: a long one
// would let the catalogue grow.
const walkBatch = 10_000

// Walk implements chunkstore.Walker. Chunks in missing packs and damaged ones
// are among those it names.
func (s *Store) Walk(ctx context.Context, fn func(chunkstore.Key, chunkstore.Info) error) error {
	if err := s.usable(ctx); err != nil {
		return fmt.Errorf("walk: %w", err)
	}
	// What is on its way into the catalogue now comes last, whether it has
	// arrived there by then or not.
	late := s.recentAll()
	var at chunkstore.Key
	for done := false; !done; {
		if err := s.usable(ctx); err != nil {
			return fmt.Errorf("walk: %w", err)
		}
		keys, infos := make([]chunkstore.Key, 0, walkBatch), make([]chunkstore.Info, 0, walkBatch)
		var err error
		s.catMu.RLock()
		at, done, err = s.cat.Scan(at, walkBatch, func(k chunkstore.Key, l catalogue.Location) {
			if _, ok := late[k]; !ok {
				keys, infos = append(keys, k), append(infos, l.Info(k))
			}
		})
		s.catMu.RUnlock()
		if err != nil {
			return fmt.Errorf("walk: %w", err)
		}
		for i, k := range keys {
			if err := fn(k, infos[i]); err != nil {
				return err
			}
		}
	}
	for k, info := range late {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("walk: %w", err)
		}
		if err := fn(k, info); err != nil {
			return err
		}
	}
	return nil
}

// recentAll returns the chunks that are not in the catalogue yet.
func (s *Store) recentAll() map[chunkstore.Key]chunkstore.Info {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[chunkstore.Key]chunkstore.Info, s.pending.Len()+s.committing.Len())
	note := func(h catalogue.Held) { all[h.Key] = h.Info(h.Key) }
	s.committing.Each(note)
	s.pending.Each(note)
	return all
}
