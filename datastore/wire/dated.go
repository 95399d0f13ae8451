package wire

import "cmp"

// SkewMax is how far the time in a snapshot's name may be from its arrival, in
// seconds, before it is told: clocks of two machines differ that much.
const SkewMax = 5 * 60

// Dated is when a snapshot was made, in Unix seconds: by its name, which whoever
// made it has chosen, and by who has stored it.
type Dated struct {
	// Claimed is the time in the name.
	Claimed int64
	// Arrived is when its session began by the clock of its store, or 0 if that is
	// not known.
	Arrived int64
}

// Dated returns both times of a snapshot.
func (i SnapshotInfo) Dated() Dated { return Dated{i.Snapshot.Time, i.Arrived} }

// Effective is the time that a snapshot counts as of, in lists, as "latest" and when
// groups are pruned: its name's, but never a time at which it had arrived already.
func (d Dated) Effective() int64 {
	if d.Arrived == 0 {
		return d.Claimed
	}
	return min(d.Claimed, d.Arrived)
}

// Ahead tells that the name has a time which had not come when the snapshot
// arrived.
func (d Dated) Ahead() bool { return d.Arrived != 0 && d.Claimed-SkewMax > d.Arrived }

// Misdated tells that name and arrival differ by more than SkewMax. A snapshot of
// which the arrival is not known is not.
func (d Dated) Misdated() bool {
	return d.Ahead() || d.Arrived != 0 && d.Claimed < d.Arrived-SkewMax
}

// Compare orders the snapshots of a group, the older ones first. Of those of one time
// one that is Ahead is the older.
func (d Dated) Compare(o Dated) int {
	c := cmp.Compare(d.Effective(), o.Effective())
	if c == 0 && d.Ahead() != o.Ahead() {
		if d.Ahead() {
			return -1
		}
		return 1
	}
	return cmp.Or(c, cmp.Compare(d.Claimed, o.Claimed))
}

// CheckArrived returns an arrival that another machine has told, or 0 if it is
// none that a snapshot can have.
func CheckArrived(at int64) int64 {
	if at < 1 || at > timeMax {
		return 0
	}
	return at
}
