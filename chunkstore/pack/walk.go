package pack

import (
	"context"
	"fmt"

	"holdfast/chunkstore"
)

// walkBatch is how many chunks one transaction of a walk reads: a long one
// would let the catalogue grow.
const walkBatch = 10_000

// Walk implements chunkstore.Walker. Chunks in missing packs and damaged ones
// are among those it names.
func (s *Store) Walk(ctx context.Context, fn func(chunkstore.ID, chunkstore.Info) error) error {
	if err := s.usable(ctx); err != nil {
		return fmt.Errorf("walk: %w", err)
	}
	// What is on its way into the catalogue now comes last, whether it has
	// arrived there by then or not.
	late := s.recentAll()
	var at chunkstore.ID
	for done := false; !done; {
		if err := s.usable(ctx); err != nil {
			return fmt.Errorf("walk: %w", err)
		}
		ids, infos := make([]chunkstore.ID, 0, walkBatch), make([]chunkstore.Info, 0, walkBatch)
		var err error
		s.catMu.RLock()
		at, done, err = s.cat.scan(at, walkBatch, func(id chunkstore.ID, l location) {
			if _, ok := late[id]; !ok {
				ids, infos = append(ids, id), append(infos, l.info())
			}
		})
		s.catMu.RUnlock()
		if err != nil {
			return fmt.Errorf("walk: %w", err)
		}
		for i, id := range ids {
			if err := fn(id, infos[i]); err != nil {
				return err
			}
		}
	}
	for id, info := range late {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("walk: %w", err)
		}
		if err := fn(id, info); err != nil {
			return err
		}
	}
	return nil
}

// recentAll returns the chunks that are not in the catalogue yet.
func (s *Store) recentAll() map[chunkstore.ID]chunkstore.Info {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[chunkstore.ID]chunkstore.Info, len(s.pending)+len(s.committing))
	for id, l := range s.committing {
		all[id] = l.info()
	}
	for id, l := range s.pending {
		all[id] = l.info()
	}
	return all
}
