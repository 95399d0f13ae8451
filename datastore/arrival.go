package datastore

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"

	"holdfast/chunkstore"
	"holdfast/chunkstore/durable"
	"holdfast/crypto"
	"holdfast/datastore/wire"
)

// ArrivedName is the file of a snapshot that says when it arrived. It is written
// by the session that finishes it and by nobody after that, and no name that a
// client can send is the same.
const ArrivedName = "arrived"

// arrivedMax is more than the file of an arrival has, in bytes.
const arrivedMax = 256

// arrival is when a snapshot arrived, in Unix seconds: when its session began, since
// a long backup has begun at the time in its name, too. There are two clocks that a
// store has: what the wall clock said, and what the clock of the store had
// counted since the machine was started. Each of them alone may be wrong by years:
// the wall clock after it was set by mistake, the count of a machine that was
// started with the wrong time.
type arrival struct {
	claimed int64 // in the name of the snapshot, so that no other's file is taken for it
	wall    int64
	counted int64
}

// encode also makes a file of another snapshot, or with a flipped bit, detectable.
func (a arrival) encode() []byte {
	text := fmt.Sprintf("holdfast arrived 1\nclaimed %d\nwall %d\ncounted %d\n", a.claimed, a.wall, a.counted)
	sum := crypto.Sum([]byte(text))
	return fmt.Appendf(nil, "%ssum %s\n", text, hex.EncodeToString(sum[:]))
}

// decodeArrival reads what encode has written; ok is false for anything else.
func decodeArrival(raw []byte) (a arrival, ok bool) {
	if len(raw) > arrivedMax {
		return arrival{}, false
	}
	_, err := fmt.Sscanf(string(raw), "holdfast arrived 1\nclaimed %d\nwall %d\ncounted %d\n", &a.claimed, &a.wall, &a.counted)
	if err != nil || string(a.encode()) != string(raw) {
		return arrival{}, false
	}
	return a, true
}

// at is the time of the arrival. Where the clocks differ, one of them was wrong, and
// what the name says is believed as far as it lies between them. What has not come
// yet, now being the later of what both say, was said by a clock that had been set
// forward, and does not count.
func (a arrival) at(now int64) int64 {
	low, high := min(a.wall, a.counted), max(a.wall, a.counted)
	if high-wire.SkewMax > now {
		high = low
	}
	return max(min(max(a.claimed, low), high), 1)
}

// arriving is the arrival of a snapshot whose session begins now.
func (s *Store) arriving(snap wire.Snapshot) arrival {
	wall, counted := s.clock.times()
	return arrival{claimed: snap.Time, wall: wall, counted: counted}
}

// stamp writes down when the snapshot arrived, for syncFiles to make durable.
func (ss *Session) stamp() error {
	if err := durable.WriteIn(ss.store.root, path.Join(ss.dir, ArrivedName), ss.arrived.encode(), 0o600); err != nil {
		return fmt.Errorf("write %s: %w", ArrivedName, err)
	}
	return nil
}

// ErrArrival is wrapped, with chunkstore.ErrCorrupt, where it is not known when a
// snapshot arrived.
var ErrArrival = errors.New("what says when it arrived is lost or damaged, and it counts as of the time in its name; holdfast repair writes that anew")

func (s *Store) arrival(snap wire.Snapshot) (arrival, error) {
	raw, err := s.readFile(path.Join(snapshotPath(snap), ArrivedName), arrivedMax)
	switch {
	case errors.Is(err, chunkstore.ErrNotExist):
	case errors.Is(err, chunkstore.ErrCorrupt):
	case err != nil:
		return arrival{}, fmt.Errorf("arrival of snapshot %s: %w", snap, err)
	default:
		if a, ok := decodeArrival(raw); ok && a.claimed == snap.Time {
			return a, nil
		}
	}
	return arrival{}, fmt.Errorf("snapshot %s: %w: %w", snap, ErrArrival, chunkstore.ErrCorrupt)
}

// dated returns both times of a snapshot. One whose arrival cannot be read has
// arrived at the time in its name, unless that has not come yet.
func (s *Store) dated(snap wire.Snapshot) wire.Dated {
	d, _ := s.datedBy(snap, s.now())
	return d
}

// now is the later of what the clocks say, in Unix seconds.
func (s *Store) now() int64 {
	wall, counted := s.clock.times()
	return max(wall, counted)
}

// datedBy is dated at a time; the error says why the arrival is not known.
func (s *Store) datedBy(snap wire.Snapshot, now int64) (wire.Dated, error) {
	a, err := s.arrival(snap)
	if err != nil {
		return wire.Dated{Claimed: snap.Time, Arrived: min(snap.Time, now)}, err
	}
	return wire.Dated{Claimed: snap.Time, Arrived: a.at(now)}, nil
}

// listed is a snapshot of which it has been read when it arrived.
type listed struct {
	wire.Dated
	lost bool // it cannot be told
}

// inOrder lists the snapshots of a group, oldest first.
func (s *Store) inOrder(g wire.Group) ([]listed, error) {
	times, err := s.times(g)
	if err != nil {
		return nil, err
	}
	now := s.now()
	list := make([]listed, len(times))
	for i, t := range times {
		list[i] = s.listed(wire.Snapshot{Group: g, Time: t}, now)
	}
	slices.SortFunc(list, func(a, b listed) int { return a.Compare(b.Dated) })
	return list, nil
}

func (s *Store) listed(snap wire.Snapshot, now int64) listed {
	d, err := s.datedBy(snap, now)
	return listed{d, err != nil}
}

// newest is the last one that inOrder would list of these, which times has listed.
// It reads no more arrivals than it has to.
func (s *Store) newest(g wire.Group, times []int64) (last wire.Dated) {
	now := s.now()
	for _, t := range slices.Backward(times) {
		if last.Claimed != 0 && t < last.Effective() {
			break // a snapshot is never newer than its name
		}
		if d, _ := s.datedBy(wire.Snapshot{Group: g, Time: t}, now); last.Claimed == 0 || d.Compare(last) > 0 {
			last = d
		}
	}
	return last
}

// RepairArrival writes down anew when a snapshot arrived, if that cannot be told any
// more: at the time in its name, or now if that has not come yet. What can be read is
// not touched.
func (s *Store) RepairArrival(ctx context.Context, snap wire.Snapshot) error {
	defer s.locks.edit(snap)()
	if err := s.change(ctx, nil, snap); err != nil {
		return err
	}
	if _, err := s.arrival(snap); !errors.Is(err, ErrArrival) {
		return err
	}
	at := s.dated(snap).Arrived
	a := arrival{claimed: snap.Time, wall: at, counted: at}
	if err := durable.WriteFile(filepath.Join(s.path, snapshotPath(snap), ArrivedName), a.encode(), 0o600); err != nil {
		return fmt.Errorf("snapshot %s: write %s: %w", snap, ArrivedName, noSpace(err))
	}
	return nil
}
