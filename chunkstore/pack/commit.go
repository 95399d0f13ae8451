package pack

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"holdfast/chunkstore/durable"
	"holdfast/chunkstore/pack/disk"
	"holdfast/chunkstore/pack/packfile"
)

// batch is what one commit brings into the catalogue.
type batch struct {
	changes
	pending table // the chunks
	// ends says how far each pack has to be durable before.
	ends map[uint32]int64
}

// sync makes durable all that has been put, and brings it into the catalogue.
func (s *Store) sync(ctx context.Context) error {
	if err := s.lockCommit(ctx); err != nil {
		return err
	}
	defer s.unlockCommit()
	return s.syncLocked(ctx)
}

// flushIfMany syncs when the entries in memory have become too many.
func (s *Store) flushIfMany(ctx context.Context) error {
	if !s.hasMany() {
		return nil
	}
	if err := s.lockCommit(ctx); err != nil {
		return err
	}
	defer s.unlockCommit()
	if !s.hasMany() {
		return nil
	}
	return s.syncLocked(ctx)
}

func (s *Store) hasMany() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pending.len() >= pendingMax
}

// syncLocked is sync for whoever holds commitLock. An error that is final
// makes the store read-only.
func (s *Store) syncLocked(ctx context.Context) error {
	if err := s.writable(); err != nil {
		return err
	}
	b := s.takeBatch()
	err := s.commitBatch(ctx, b)
	s.endBatch(b, err == nil)
	if err == nil {
		err = s.saveQuarantine()
	}
	if disk.IsFinal(err) {
		s.failure.set(err)
	}
	return err
}

// takeBatch takes all that is pending; until endBatch it is found in
// committing. Records become pending in the order in which they lie in their
// pack, so a batch holds a pack up to some point and nothing behind it.
func (s *Store) takeBatch() batch {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := batch{ends: make(map[uint32]int64)}
	b.epoch, b.pending, b.packs = s.epoch.Number, s.pending, make(map[uint32]packInfo)
	s.committing, s.pending = s.pending, newTable()
	s.generation++
	for no := range s.dirty {
		b.packs[no] = *s.packs[no]
	}
	for no := range s.stamped {
		if p := s.packs[no]; !p.dropped {
			b.packs[no] = *p
		}
	}
	seen := make(map[spot]bool)
	b.pending.each(func(h held) {
		s.count(&b, seen, h.spot(), packfile.Entry{Off: h.off, Record: packfile.Record{Key: h.key, Stored: h.stored}})
		if h.claimed() {
			s.count(&b, seen, h.claimSpot(), packfile.Entry{Off: h.claimOff, Record: packfile.Record{Key: h.key, Claim: true}})
		}
	})
	for no, q := range b.packs {
		q.totals = q.saved
		if q.state == packfile.StateOpen {
			q.length = q.savedTo
		}
		b.packs[no] = q
	}
	return b
}

// count adds the record at a spot to what a batch brings, unless it is in the
// catalogue already and has only got a mark, or another key. s.mu is held.
func (s *Store) count(b *batch, seen map[spot]bool, at spot, e packfile.Entry) {
	p := s.packs[at.pack]
	if e.End() <= p.savedTo || seen[at] {
		return
	}
	seen[at] = true
	q, ok := b.packs[at.pack]
	if !ok {
		q = *p
	}
	q.saved.add(e.Record)
	q.savedTo = max(q.savedTo, e.End())
	b.packs[at.pack] = q
	b.ends[at.pack] = q.savedTo
}

// endBatch makes the new state known, or takes the batch back.
func (s *Store) endBatch(b batch, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !ok {
		s.committing.each(func(h held) {
			if _, newer := s.pending.get(h.key); !newer {
				s.pending.put(h.key, h.location)
			}
		})
		s.committing = table{}
		return
	}
	s.committing = table{}
	for no, q := range b.packs {
		p := s.packs[no]
		p.saved, p.savedTo = q.saved, q.savedTo
		if p.state == q.state {
			delete(s.dirty, no)
		}
		if p.checked == q.checked {
			delete(s.stamped, no)
		}
	}
}

// commitBatch does the work of a sync, in the order that makes it safe.
func (s *Store) commitBatch(ctx context.Context, b batch) error {
	for no, end := range b.ends {
		if err := ctx.Err(); err != nil {
			return err
		}
		s.mu.Lock()
		w := s.writers[no]
		s.mu.Unlock()
		if w == nil {
			continue // sealed in the meantime, or adopted: durable either way
		}
		if err := w.sync(end); err != nil {
			return err
		}
	}
	if err := s.epoch.check(s.dir); err != nil {
		return err
	}
	if b.pending.len()+len(b.packs) == 0 {
		return nil
	}
	b.chunks = b.pending.sorted()
	if err := s.commitChanges(b.changes); err != nil {
		if !errors.Is(err, errCatalogue) {
			return err
		}
		if _, err := s.rebuildLocked(ctx, nil); err != nil {
			return err
		}
		if err := s.commitChanges(b.changes); err != nil {
			return err
		}
	}
	return s.epoch.check(s.dir)
}

// commitChanges runs one transaction. commitLock is held.
func (s *Store) commitChanges(ch changes) error {
	if !s.sumGone {
		if err := removeSum(s.disk, s.dir); err != nil {
			return fmt.Errorf("%w: %w", durable.ErrLost, err)
		}
		s.sumGone = true
	}
	s.catMu.RLock()
	defer s.catMu.RUnlock()
	return s.disk.Do("commit", filepath.Join(s.dir, catalogueName), func() error {
		_, err := s.cat.commit(ch)
		return err
	})
}
