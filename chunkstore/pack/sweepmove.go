package pack

import (
	"context"
	"fmt"

	"holdfast/chunkstore/pack/catalogue"
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
	at := catalogue.Spot{Pack: no, Off: e.Off}
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
func (se *session) moveChunk(ctx context.Context, holders []catalogue.Held, at catalogue.Spot) error {
	l := holders[0].Location
	b := make([]byte, packfile.RecordSize+int(l.Stored))
	if err := se.s.read(ctx, holders[0].Key, l, recordReader{buf: b, prove: true}); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("%w: %w", errLeft, err)
	}
	r, err := packfile.DecodeRecord(b[:packfile.RecordSize], se.s.packNow(at.Pack).ID)
	if err != nil {
		return fmt.Errorf("%w: %w", errLeft, err)
	}
	for i, h := range holders {
		if h.Key == r.Key && !h.Claimed() {
			r.Rank = h.Rank + 1
			holders[i].Rank = r.Rank
		}
	}
	return se.append(ctx, addition{Record: r, blob: b[packfile.RecordSize:], holders: holders, replaces: []catalogue.Spot{at}})
}

// moveClaim writes a claim again.
func (se *session) moveClaim(ctx context.Context, h catalogue.Held, e packfile.Entry) error {
	r := packfile.Record{Key: h.Key, Stored: h.Stored, Rank: h.Rank + 1, Claim: true}
	f, err := se.s.claimAt(h, e)
	if err != nil {
		return fmt.Errorf("%w: %w", errLeft, err)
	}
	r.Sum = f.Sum
	return se.append(ctx, addition{Record: r, twin: h.Location, replaces: []catalogue.Spot{h.ClaimSpot()}})
}

// claimAt reads the claim that a chunk is held by.
func (s *Store) claimAt(h catalogue.Held, e packfile.Entry) (packfile.Record, error) {
	p := s.packNow(h.ClaimPack)
	f, _, err := openPack(packsDir(s.dir), p.ID, p.State)
	if err != nil {
		return packfile.Record{}, err
	}
	defer f.Close()
	b := make([]byte, packfile.RecordSize)
	if _, err := f.ReadAt(b, e.Off); err != nil {
		return packfile.Record{}, err
	}
	r, err := packfile.DecodeRecord(b, p.ID)
	if err == nil && (!r.Claim || r.Key != h.Key || r.Stored != h.Stored || [catalogue.SumSize]byte(r.Sum[:]) != h.Sum) {
		err = errHeader
	}
	return r, err
}
