package pack

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"holdfast/chunkstore"
	"holdfast/chunkstore/durable"
	"holdfast/chunkstore/pack/catalogue"
	"holdfast/chunkstore/pack/packfile"
)

// drop forgets a pack whose chunks in use have been moved, and removes it.
func (sw *Sweep) drop(ctx context.Context, no uint32, dead []current) error {
	s := sw.s
	if err := s.lockCommit(ctx); err != nil {
		return err
	}
	defer s.unlockCommit()
	if err := s.writable(); err != nil {
		return err
	}
	if err := sw.proveUnused(ctx, no, dead); err != nil {
		return err
	}
	if err := sw.commitDrop(no, dead); err != nil {
		return err
	}
	return s.removePack(no)
}

// commitDrop lets the catalogue forget a pack and the dead records in it.
// commitLock is held.
func (sw *Sweep) commitDrop(no uint32, dead []current) error {
	s := sw.s
	ch := catalogue.Changes{Epoch: s.epoch.Number, Drop: []uint32{no}}
	for _, e := range dead {
		holders, _, err := s.cataloguedHolders(e.Key, catalogue.Spot{Pack: no, Off: e.Off})
		if err != nil {
			return err
		}
		for _, h := range holders {
			ch.Deletes = append(ch.Deletes, h.Key)
		}
	}
	if err := s.epoch.check(s.dir); err != nil {
		s.failure.set(err)
		return err
	}
	err := s.commitInParts(ch)
	if err != nil && durable.IsFinal(err) {
		s.failure.set(err)
	}
	return err
}

// commitInParts removes entries in several transactions: one that changes few
// pages needs little room. The rest of ch comes with the last of them.
func (s *Store) commitInParts(ch catalogue.Changes) error {
	for len(ch.Deletes) > sweepBatch {
		part := catalogue.Changes{Epoch: ch.Epoch, Deletes: ch.Deletes[:sweepBatch]}
		if err := s.commitChanges(part); err != nil {
			return err
		}
		ch.Deletes = ch.Deletes[sweepBatch:]
	}
	return s.commitChanges(ch)
}

// errRebuilt says that the catalogue was built anew while a pack was swept: of two
// copies of a chunk it may point to the other one now.
var errRebuilt = errors.New("the catalogue was built anew meanwhile")

// proveUnused reads the names of all records in the file, whatever the
// catalogue says: but for the dead ones, no chunk may lie in the pack, and none
// that is in use may be unknown. A catalogue that was built while packs could
// not be read knows too little; its word alone must not cost a pack. commitLock
// is held.
func (sw *Sweep) proveUnused(ctx context.Context, no uint32, dead []current) error {
	s := sw.s
	gone := make(map[int64]bool, len(dead))
	for _, e := range dead {
		gone[e.Off] = true
	}
	p := s.packNow(no)
	all, err := s.fileEntries(ctx, p)
	if err != nil {
		return fmt.Errorf("pack %s: %w: %w", p.Name(), errLeft, err)
	}
	for _, e := range all {
		holders, cat, err := s.cataloguedHolders(e.Key, catalogue.Spot{Pack: no, Off: e.Off})
		if err != nil {
			return err
		}
		if cat != sw.cat {
			return fmt.Errorf("pack %s: %w", p.Name(), errRebuilt)
		}
		if len(holders) > 0 && !gone[e.Off] {
			return fmt.Errorf("pack %s: %w: chunk %s is in use and was not moved", p.Name(), errLeft, e.Key.ID.Short())
		}
		if len(holders) > 0 || !sw.used(e.Key) {
			continue
		}
		_, pending := s.recent(e.Key)
		if _, ok, _, err := s.catalogued(e.Key); err != nil || !ok && !pending {
			return errors.Join(fmt.Errorf("pack %s: %w: chunk %s is in use and the catalogue does not know it", p.Name(), errLeft, e.Key.ID.Short()), err)
		}
	}
	return nil
}

// cataloguedHolders looks up in the catalogue only who needs the record at a spot.
func (s *Store) cataloguedHolders(k chunkstore.Key, at catalogue.Spot) (list []catalogue.Held, cat *catalogue.File, err error) {
	s.catMu.RLock()
	defer s.catMu.RUnlock()
	all, err := s.cat.Holders(k)
	for _, h := range all {
		if h.Needs(at) {
			list = append(list, h)
		}
	}
	return list, s.cat, err
}

// fileEntries lists the records of a sealed pack from its table or, if that is
// damaged, from the records, all of which must be sound then.
func (s *Store) fileEntries(ctx context.Context, p catalogue.PackInfo) ([]packfile.Entry, error) {
	f, err := durable.Open(filepath.Join(packsDir(s.dir), p.Name()))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	all, damage := packfile.ReadFooter(f, p.Size, p.ID)
	if damage == nil {
		return all, nil
	}
	sc := &packfile.Scanner{R: f, ID: p.ID, Size: p.Size, Sound: func(e packfile.Entry) error {
		all = append(all, e)
		return nil
	}}
	all = all[:0]
	if _, err := sc.Scan(ctx, packfile.HeaderSize); err != nil {
		return nil, errors.Join(damage, err)
	}
	return all, nil
}

// removePack removes the file of a pack that the catalogue has forgotten.
// commitLock is held.
func (s *Store) removePack(no uint32) error {
	path := filepath.Join(packsDir(s.dir), s.forgetPack(no))
	return s.disk.Do("remove", path, func() error { return durable.Remove(path) })
}

// forgetPack forgets here what the catalogue has forgotten of a pack, and returns
// the name of its file.
func (s *Store) forgetPack(no uint32) string {
	s.mu.Lock()
	p := s.packs[no]
	p.Dropped, p.Missing, p.Totals, p.Saved = true, true, catalogue.Totals{}, catalogue.Totals{}
	// Marks; the records they are about are going.
	s.pending.Drop(func(h catalogue.Held) bool { return h.Pack == no || h.Claimed() && h.ClaimPack == no })
	delete(s.condemned, no)
	s.letGo(no)
	s.quarantine.dropPack(p.ID)
	name, id := p.Name(), p.ID
	s.mu.Unlock()
	s.handles.forget(id)
	return name
}
