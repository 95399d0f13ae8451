package backup

import (
	"context"
	"sync"

	"holdfast/chunkstore"
	"holdfast/datastore/index"
	"holdfast/datastore/wire"
)

// known is the set of chunks that need not be sent: those of the previous
// snapshot, those an interrupted backup had sent, and those this one has. It holds half of each ID, some 40
// bytes a chunk; that two of a backup's chunks agree in 128 bits is not going
// to happen, and the finish would refuse the snapshot if it did.
type known struct {
	mu      sync.Mutex
	stored  map[half]struct{}
	sending map[half]chan struct{} // closed when the chunk has been sent
}

type half [16]byte

func halfOf(id chunkstore.ID) half { return half(id[:16]) }

func newKnown() *known {
	return &known{stored: make(map[half]struct{}), sending: make(map[half]chan struct{})}
}

// addIndex adds the chunks of an index of the previous snapshot.
func (k *known) addIndex(r *index.Reader) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for e, err := range r.All(0) {
		if err != nil {
			return err
		}
		k.stored[halfOf(e.ID)] = struct{}{}
	}
	return nil
}

// addSizes adds chunks that are stored already.
func (k *known) addSizes(list []wire.ChunkSize) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range list {
		k.stored[halfOf(c.ID)] = struct{}{}
	}
}

// claim returns true if the caller has to send id; it must call settle then.
// Otherwise the chunk is stored: claim waits if somebody is sending it.
func (k *known) claim(ctx context.Context, id chunkstore.ID) (send bool, err error) {
	h := halfOf(id)
	for {
		k.mu.Lock()
		if _, ok := k.stored[h]; ok {
			k.mu.Unlock()
			return false, nil
		}
		wait, ok := k.sending[h]
		if !ok {
			k.sending[h] = make(chan struct{})
			k.mu.Unlock()
			return true, nil
		}
		k.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}

// forget makes id unknown: the target turned out not to have it.
func (k *known) forget(id chunkstore.ID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.stored, halfOf(id))
}

// settle ends a claim; ok says that the chunk has been stored.
func (k *known) settle(id chunkstore.ID, ok bool) {
	h := halfOf(id)
	k.mu.Lock()
	defer k.mu.Unlock()
	if ok {
		k.stored[h] = struct{}{}
	}
	close(k.sending[h])
	delete(k.sending, h)
}
