package meter

import (
	"path/filepath"
	"testing"
	"time"

	"holdfast/datastore"
	"holdfast/datastore/wire/api"
)

// The same is said for an hour, and then whatever is said of two states of a disk that
// differ by some chunks is said of both.
func TestFullnessIsRough(t *testing.T) {
	const gib = 1 << 30
	for name, total := range map[string]uint64{"4 TiB": 4096 * gib, "500 GB": 500e9, "100 GiB": 100 * gib, "10 GiB": 10 * gib, "64 MiB": 64 << 20} {
		t.Run(name, func(t *testing.T) {
			for _, used := range []uint64{0, 1, total / 3, total / 2, total - 1, total} {
				said := map[api.Usage]bool{}
				for dice := range uint64(1000) {
					u := coarse(api.Usage{Total: total, Used: used, Avail: total - used}, dice*(total/4/1000))
					if u.Used+u.Avail != u.Total || u.Total > total || u.Total < total-total/32 {
						t.Fatalf("%d of %d: %+v", used, total, u)
					}
					step := min(total/4, max(total/64, 16*gib))
					if low, high := u.Used, u.Used+step; used > high || low > used+step {
						t.Fatalf("%d of %d is said to be %+v", used, total, u)
					}
					said[u] = true
				}
				if used == total/3 && len(said) != 2 {
					t.Errorf("%d of %d: %d things are said of it, want the two nearest", used, total, len(said))
				}
			}
		})
	}
	if u := coarse(api.Usage{Total: 3, Used: 1, Avail: 2}, 7); u.Used+u.Avail != u.Total {
		t.Errorf("of a disk of 3 bytes: %+v", u)
	}
}

func TestFullnessHoldsStill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tank")
	if err := datastore.Create(path, datastore.CreateOptions{TrashDays: datastore.TrashDaysDefault}); err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	f := NewFullness(func() time.Time { return now })
	first, err := f.Of(path)
	if err != nil {
		t.Fatal(err)
	}
	mark := api.Usage{Total: 7, Used: 3, Avail: 4} // as the disk was when it was looked at
	f.told[path] = toldUsage{mark, now}
	now = now.Add(coarseFor - time.Second)
	if u, err := f.Of(path); u != mark || err != nil {
		t.Errorf("within the hour: %+v, %v", u, err)
	}
	now = now.Add(time.Second)
	if u, err := f.Of(path); u.Total != first.Total || err != nil {
		t.Errorf("after it: %+v, %v", u, err)
	}
	if _, err := f.Of(path + "x"); err == nil {
		t.Error("a disk that is away is told of")
	}
}
