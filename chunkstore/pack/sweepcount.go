package pack

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"

	"holdfast/chunkstore"
	"holdfast/chunkstore/durable"
	"holdfast/chunkstore/pack/catalogue"
	"holdfast/chunkstore/pack/packfile"
)

// census counts use and garbage by pack, from the catalogue in its order.
type census struct {
	inUse, listed map[uint32]uint64
	r             *SweepReport
	used          func(chunkstore.Key) bool
	held          extents          // by sessions, when the counting began
	same          []catalogue.Held // chunks of one name and size that have been seen last
}

func (c *census) add(k chunkstore.Key, l catalogue.Location) {
	if len(c.same) > 0 && catalogue.NameOf(c.same[0].Key) != catalogue.NameOf(k) {
		c.flush()
	}
	c.same = append(c.same, catalogue.Held{Key: k, Location: l})
}

// flush counts every record once that the last chunks lie in, in use if one of them
// is, and every claim.
func (c *census) flush() {
	for i, h := range c.same {
		used := c.used(h.Key)
		if h.Claimed() {
			c.listed[h.ClaimPack]++
			if used || c.held.has(h.ClaimSpot()) {
				c.inUse[h.ClaimPack] += packfile.RecordSize
			}
		}
		there := func(o catalogue.Held) bool { return o.SamePlace(h.Location) }
		if slices.ContainsFunc(c.same[:i], there) {
			continue
		}
		c.record(h.Location, used || c.held.has(h.Spot()) || slices.ContainsFunc(c.same[i+1:], func(o catalogue.Held) bool { return there(o) && c.used(o.Key) }))
	}
	c.same = c.same[:0]
}

func (c *census) record(l catalogue.Location, used bool) {
	c.r.Chunks++
	c.r.StoredBytes += uint64(l.Stored)
	c.listed[l.Pack]++
	if used {
		c.r.UsedChunks++
		c.r.UsedBytes += uint64(l.Stored)
		c.inUse[l.Pack] += uint64(l.End() - l.Off)
	}
}

// current is a record that the catalogue points to, and who has it. A claim has one
// holder.
type current struct {
	packfile.Entry
	holders []catalogue.Held
}

func (c current) used(used func(chunkstore.Key) bool) bool {
	return slices.ContainsFunc(c.holders, func(h catalogue.Held) bool { return used(h.Key) })
}

// currentEntries lists the records of a sealed pack that the catalogue points
// to. If the table of the pack is damaged, or does not have all of them because
// the pack was cut once, the catalogue knows them, too.
func (s *Store) currentEntries(ctx context.Context, v victim, p catalogue.PackInfo) ([]current, error) {
	no := v.no
	f, err := durable.Open(filepath.Join(packsDir(s.dir), p.Name()))
	if err != nil {
		return nil, fmt.Errorf("pack %s: %w: %w", p.Name(), errLeft, err)
	}
	all, err := packfile.ReadFooter(f, p.Size, p.ID)
	f.Close()
	if err != nil {
		return s.scanCurrent(ctx, no)
	}
	var list []current
	for _, e := range all {
		holders, _, err := s.holdersOf(e.Key, catalogue.Spot{Pack: no, Off: e.Off})
		if err != nil {
			return nil, err
		}
		if len(holders) > 0 {
			list = append(list, current{e, holders})
		}
	}
	if uint64(len(list)) < v.listed {
		return s.scanCurrent(ctx, no)
	}
	return list, nil
}

// scanCurrent is currentEntries from the catalogue alone.
func (s *Store) scanCurrent(ctx context.Context, no uint32) ([]current, error) {
	entries, err := s.scanEntries(ctx, no)
	list := make([]current, 0, len(entries))
	for _, e := range entries {
		if err != nil {
			break
		}
		var holders []catalogue.Held
		holders, _, err = s.holdersOf(e.Key, catalogue.Spot{Pack: no, Off: e.Off})
		list = append(list, current{e, holders})
	}
	return list, err
}

// scanEntries lists the records that the catalogue has in a pack. Their sums are not
// known, and a record that serves several owners has the key of one of them.
func (s *Store) scanEntries(ctx context.Context, no uint32) ([]packfile.Entry, error) {
	var list []packfile.Entry
	seen := make(map[int64]bool)
	err := s.eachLocation(ctx, func(k chunkstore.Key, l catalogue.Location) {
		r := packfile.Record{Key: k, Stored: l.Stored, Rank: l.Rank}
		if l.Pack == no && !seen[l.Off] {
			seen[l.Off] = true
			list = append(list, packfile.Entry{Record: r, Off: l.Off})
		}
		if l.Claimed() && l.ClaimPack == no {
			r.Claim = true
			list = append(list, packfile.Entry{Record: r, Off: l.ClaimOff})
		}
	})
	return list, err
}
