package meter

import (
	"math/bits"
	"math/rand/v2"
	"sync"
	"time"

	"holdfast/datastore/wire/api"
)

const (
	// coarseFor is how long a caller who may not audit is told the same.
	coarseFor = time.Hour
	// coarseParts is into how many parts a disk is divided for him, each of them at
	// least coarseLeast bytes, but for disks that have no coarseFew of these.
	coarseParts = 64
	coarseFew   = 4
	coarseLeast = 16 << 30
)

// Fullness tells those who may not audit how full the disks of the datastores are:
// roughly, and the same for an hour, since by exact figures whoever sends a chunk
// would see whether somebody has it. It is safe for concurrent use.
type Fullness struct {
	now func() time.Time

	mu   sync.Mutex
	told map[string]toldUsage // by the datastore's directory
}

// toldUsage is what is said of a disk, and since when.
type toldUsage struct {
	api.Usage
	at time.Time
}

// NewFullness returns one that has told nothing yet.
func NewFullness(now func() time.Time) *Fullness {
	return &Fullness{now: now, told: make(map[string]toldUsage)}
}

// Of tells roughly how full the disk of a datastore is. That of one which is away is an
// error.
func (f *Fullness) Of(path string) (api.Usage, error) {
	u, err := OfStore(path)
	if err != nil {
		return api.Usage{}, err
	}
	now := f.now()
	f.mu.Lock()
	defer f.mu.Unlock()
	last, ok := f.told[path]
	if since := now.Sub(last.at); ok && since >= 0 && since < coarseFor {
		return last.Usage, nil
	}
	said := coarse(u, rand.Uint64())
	f.told[path] = toldUsage{said, now}
	return said, nil
}

// coarse rounds how full a disk is to one of the two nearest parts of it, to the nearer
// one more often, as dice decide: there is no edge that somebody could fill the disk up
// to, and then see his next chunk step over it.
func coarse(u api.Usage, dice uint64) api.Usage {
	// What a disk has in all moves too, on some file systems.
	unit := uint64(1) << max(0, bits.Len64(u.Total/coarseParts)-1)
	total := u.Total - u.Total%unit
	step := min(max(total/coarseParts, coarseLeast), total/coarseFew)
	if step == 0 {
		return api.Usage{Total: total, Avail: total}
	}
	// What is kept for the superuser is not there for a backup.
	used := u.Total - min(u.Total, u.Avail) + dice%step
	used = min(used-used%step, total)
	return api.Usage{Total: total, Used: used, Avail: total - used}
}
