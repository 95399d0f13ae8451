package backup

import (
	"context"
	"sync"

	"holdfast/chunkstore"
	"holdfast/datastore/index"
	"holdfast/datastore/wire"
)

// settled is the set of chunks that need not be sent: those of the previous
// snapshot, those an interrupted backup had sent, and those this one has. It takes some
// 40 bytes a chunk.
type settled struct {
	hasher  chunkstore.Hasher
	mu      sync.Mutex
	stored  map[chunkstore.StandIn]struct{}
	sending map[chunkstore.StandIn]chan struct{} // closed when the chunk has been sent
}

func newSettled() *settled {
	return &settled{
		hasher: chunkstore.NewHasher(),
		stored: make(map[chunkstore.StandIn]struct{}), sending: make(map[chunkstore.StandIn]chan struct{}),
	}
}

// addIndex adds the chunks of an index of the previous snapshot.
func (s *settled) addIndex(r *index.Reader) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for e, err := range r.All(0) {
		if err != nil {
			return err
		}
		s.stored[s.hasher.OfID(e.ID)] = struct{}{}
	}
	return nil
}

// addSizes adds chunks that are stored already.
func (s *settled) addSizes(list []wire.ChunkSize) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range list {
		s.stored[s.hasher.OfID(c.ID)] = struct{}{}
	}
}

// claim returns true if the caller has to send id; it must call settle then.
// Otherwise the chunk is stored: claim waits if somebody is sending it.
func (s *settled) claim(ctx context.Context, id chunkstore.ID) (send bool, err error) {
	h := s.hasher.OfID(id)
	for {
		s.mu.Lock()
		if _, ok := s.stored[h]; ok {
			s.mu.Unlock()
			return false, nil
		}
		wait, ok := s.sending[h]
		if !ok {
			s.sending[h] = make(chan struct{})
			s.mu.Unlock()
			return true, nil
		}
		s.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}

// forget makes id unknown: the target turned out not to have it.
func (s *settled) forget(id chunkstore.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.stored, s.hasher.OfID(id))
}

// settle ends a claim; ok says that the chunk has been stored.
func (s *settled) settle(id chunkstore.ID, ok bool) {
	h := s.hasher.OfID(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if ok {
		s.stored[h] = struct{}{}
	}
	close(s.sending[h])
	delete(s.sending, h)
}
