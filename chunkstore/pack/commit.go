package pack

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"holdfast/chunkstore/durable"
	"holdfast/chunkstore/pack/catalogue"
	"holdfast/chunkstore/pack/packfile"
)

// batch is what one commit brings into the catalogue.
type batch struct {
	catalogue.Changes
	pending catalogue.Table // the chunks
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
	return s.pending.Len() >= pendingMax
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
	if durable.IsFinal(err) {
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
	b.Epoch, b.pending, b.Packs = s.epoch.Number, s.pending, make(map[uint32]catalogue.PackInfo)
	s.committing, s.pending = s.pending, catalogue.NewTable()
	s.generation++
	for no := range s.dirty {
		b.Packs[no] = *s.packs[no]
	}
	for no := range s.stamped {
		if p := s.packs[no]; !p.Dropped {
			b.Packs[no] = *p
		}
	}
	seen := make(map[catalogue.Spot]bool)
	b.pending.Each(func(h catalogue.Held) {
		s.count(&b, seen, h.Spot(), packfile.Entry{Off: h.Off, Record: packfile.Record{Key: h.Key, Stored: h.Stored}})
		if h.Claimed() {
			s.count(&b, seen, h.ClaimSpot(), packfile.Entry{Off: h.ClaimOff, Record: packfile.Record{Key: h.Key, Claim: true}})
		}
	})
	for no, q := range b.Packs {
		q.Totals = q.Saved
		if q.State == packfile.StateOpen {
			q.Length = q.SavedTo
		}
		b.Packs[no] = q
	}
	return b
}

// count adds the record at a spot to what a batch brings, unless it is in the
// catalogue already and has only got a mark, or another key. s.mu is held.
func (s *Store) count(b *batch, seen map[catalogue.Spot]bool, at catalogue.Spot, e packfile.Entry) {
	p := s.packs[at.Pack]
	if e.End() <= p.SavedTo || seen[at] {
		return
	}
	seen[at] = true
	q, ok := b.Packs[at.Pack]
	if !ok {
		q = *p
	}
	q.Saved.Add(e.Record)
	q.SavedTo = max(q.SavedTo, e.End())
	b.Packs[at.Pack] = q
	b.ends[at.Pack] = q.SavedTo
}

// endBatch makes the new state known, or takes the batch back.
func (s *Store) endBatch(b batch, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !ok {
		s.committing.Each(func(h catalogue.Held) {
			if _, newer := s.pending.Get(h.Key); !newer {
				s.pending.Put(h.Key, h.Location)
			}
		})
		s.committing = catalogue.Table{}
		return
	}
	s.committing = catalogue.Table{}
	for no, q := range b.Packs {
		p := s.packs[no]
		p.Saved, p.SavedTo = q.Saved, q.SavedTo
		if p.State == q.State {
			delete(s.dirty, no)
		}
		if p.Checked == q.Checked {
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
	if b.pending.Len()+len(b.Packs) == 0 {
		return nil
	}
	b.Chunks = b.pending.Sorted()
	if err := s.commitChanges(b.Changes); err != nil {
		if !errors.Is(err, catalogue.ErrDoubt) {
			return err
		}
		if _, err := s.rebuildLocked(ctx, nil); err != nil {
			return err
		}
		if err := s.commitChanges(b.Changes); err != nil {
			return err
		}
	}
	return s.epoch.check(s.dir)
}

// commitChanges runs one transaction. commitLock is held.
func (s *Store) commitChanges(ch catalogue.Changes) error {
	if !s.sumGone {
		if err := catalogue.RemoveSum(s.disk, s.dir); err != nil {
			return fmt.Errorf("%w: %w", durable.ErrLost, err)
		}
		s.sumGone = true
	}
	s.catMu.RLock()
	defer s.catMu.RUnlock()
	return s.disk.Do("commit", filepath.Join(s.dir, catalogue.FileName), func() error {
		_, err := s.cat.Commit(ch)
		return err
	})
}
