package pack

import (
	"context"
	"fmt"

	"holdfast/chunkstore/pack/packfile"
)

// move copies chunks in use to another pack and makes the copies durable. A
// record that cannot be read as it was written leaves the pack as it is:
// quarantined, not removed.
func (sw *Sweep) move(ctx context.Context, no uint32, keep []current, r *SweepReport) error {
	if len(keep) == 0 {
		return nil
	}
	se := sw.s.newSession()
	se.sweeps = true
	defer se.Close()
	for i, e := range keep {
		if i%sweepBatch == sweepBatch-1 {
			if err := se.Sync(ctx); err != nil {
				return err
			}
		}
		moved, err := se.move(ctx, no, e.Entry)
		if err != nil {
			return err
		}
		if moved {
			r.ChunksMoved++
			r.BytesMoved += uint64(e.Size())
		}
	}
	return se.Sync(ctx)
}

// move writes a record again if somebody still has it from where e says. All who do
// have it from the new place then.
func (se *session) move(ctx context.Context, no uint32, e packfile.Entry) (bool, error) {
	leave, err := se.s.enterFlight(ctx, e.Key.ID)
	if err != nil {
		return false, err
	}
	defer leave()
	at := spot{no, e.Off}
	holders, _, err := se.s.holdersOf(e.Key, at)
	if err != nil || len(holders) == 0 {
		return false, err
	}
	if e.Claim {
		err = se.moveClaim(ctx, holders[0], e)
	} else {
		err = se.moveChunk(ctx, holders, at)
	}
	if err != nil {
		return false, err
	}
	return true, se.s.flushIfMany(ctx)
}

// moveChunk writes a chunk again for those who have it from at. The record keeps the
// key it has, whether that one is among them or not: claims hold by what it is.
func (se *session) moveChunk(ctx context.Context, holders []held, at spot) error {
	l := holders[0].location
	b := make([]byte, packfile.RecordSize+int(l.stored))
	if err := se.s.read(ctx, holders[0].key, l, recordReader{buf: b, prove: true}); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("%w: %w", errLeft, err)
	}
	r, err := packfile.DecodeRecord(b[:packfile.RecordSize], se.s.packNow(at.pack).id)
	if err != nil {
		return fmt.Errorf("%w: %w", errLeft, err)
	}
	for i, h := range holders {
		if h.key == r.Key && !h.claimed() {
			r.Rank = h.rank + 1
			holders[i].rank = r.Rank
		}
	}
	return se.append(ctx, addition{Record: r, blob: b[packfile.RecordSize:], holders: holders, replaces: []spot{at}})
}

// moveClaim writes a claim again.
func (se *session) moveClaim(ctx context.Context, h held, e packfile.Entry) error {
	r := packfile.Record{Key: h.key, Stored: h.stored, Rank: h.rank + 1, Claim: true}
	f, err := se.s.claimAt(h, e)
	if err != nil {
		return fmt.Errorf("%w: %w", errLeft, err)
	}
	r.Sum = f.Sum
	return se.append(ctx, addition{Record: r, twin: h.location, replaces: []spot{h.claimSpot()}})
}

// claimAt reads the claim that a chunk is held by.
func (s *Store) claimAt(h held, e packfile.Entry) (packfile.Record, error) {
	p := s.packNow(h.claimPack)
	f, _, err := openPack(packsDir(s.dir), p.id, p.state)
	if err != nil {
		return packfile.Record{}, err
	}
	defer f.Close()
	b := make([]byte, packfile.RecordSize)
	if _, err := f.ReadAt(b, e.Off); err != nil {
		return packfile.Record{}, err
	}
	r, err := packfile.DecodeRecord(b, p.id)
	if err == nil && (!r.Claim || r.Key != h.key || r.Stored != h.stored || [sumPartSize]byte(r.Sum[:]) != h.sum) {
		err = errHeader
	}
	return r, err
}
