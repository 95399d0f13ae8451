package server

import (
	"crypto/tls"
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"holdfast/datastore"
)

// noise is a chunk that nothing makes smaller.
func (l *sessionLab) noise(seed uint64, n int) bit {
	l.t.Helper()
	r := rand.New(rand.NewPCG(seed, 1))
	plain := make([]byte, n)
	for i := range plain {
		plain[i] = byte(r.Uint32())
	}
	sealed, err := l.codec.Seal(nil, plain)
	l.must(err)
	return bit{id: l.codec.Name(plain), size: n, sealed: sealed}
}

// told asks a REST method that answers with how full datastores are.
func (l *sessionLab) told(user, path string, into any) {
	l.t.Helper()
	hc := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	r, err := http.NewRequest(http.MethodGet, "https://"+l.addr+"/api2/json"+path, nil)
	l.must(err)
	r.Header.Set("Authorization", l.tokens[user])
	resp, err := hc.Do(r)
	l.must(err)
	defer resp.Body.Close()
	l.must(json.NewDecoder(resp.Body).Decode(&struct{ Data any }{into}))
}

// Who sends a chunk must not see by the free space whether somebody has it.
func TestFreeSpaceDoesNotTellWhatIsStored(t *testing.T) {
	l := newSessionLab(t)
	l.user("auditor", "DatastoreAudit")
	look := func(user string) (list [2]usage) {
		var all []usage
		l.told(user, "/admin/datastore/tank/status", &list[0])
		l.told(user, "/status/datastore-usage", &all)
		if len(all) != 1 || all[0].Total == 0 {
			t.Fatalf("%s: the usage of all is %v", user, all)
		}
		list[1] = all[0]
		return list
	}
	callers := []string{"putter", "alice"}
	before := map[string][2]usage{}
	for _, user := range callers {
		before[user] = look(user)
	}
	exact := look("auditor")
	for i, user := range callers {
		k := l.begin(backupOf(user, "host/"+user, 1000))
		k.data(post("/dynamic_index", "archive-name", "a.didx"))
		for n := range 3 {
			k.data(chunkUpload("dynamic", 1, l.noise(uint64(10*i+n), 4<<20)))
			if got := look(user); got != before[user] {
				t.Errorf("%s is told %+v after an upload, %+v before", user, got, before[user])
			}
		}
		k.conn.Close()
	}
	l.endedAll("backup")
	if got := look("auditor"); got == exact || got[0].Used == before["alice"][0].Used {
		t.Errorf("who may audit is told %+v, before 24 MiB came %+v", got, exact)
	}
	l.user("keeper", "DatastoreAdmin")
	if code := l.as("keeper@pbs", "POST", "/admin/datastore/tank/gc", nil); code != http.StatusOK {
		t.Fatal(code)
	}
	l.endedAll("garbage_collection")
	for user, want := range map[string]bool{"putter": false, "alice": false, "auditor": true} {
		var a statusAnswer
		l.told(user, "/admin/datastore/tank/status?verbose=1", &a)
		if a.GC == nil || (a.GC.UPID != nil) != want {
			t.Errorf("%s is told what the last collection has found: %v", user, a.GC)
		}
	}
}

// The same is said for an hour, and then whatever is said of two states of a disk that
// differ by some chunks is said of both.
func TestFullnessIsRough(t *testing.T) {
	const gib = 1 << 30
	for name, total := range map[string]uint64{"4 TiB": 4096 * gib, "500 GB": 500e9, "100 GiB": 100 * gib, "10 GiB": 10 * gib, "64 MiB": 64 << 20} {
		t.Run(name, func(t *testing.T) {
			for _, used := range []uint64{0, 1, total / 3, total / 2, total - 1, total} {
				said := map[usage]bool{}
				for dice := range uint64(1000) {
					u := coarse(usage{Total: total, Used: used, Avail: total - used}, dice*(total/4/1000))
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
	if u := coarse(usage{Total: 3, Used: 1, Avail: 2}, 7); u.Used+u.Avail != u.Total {
		t.Errorf("of a disk of 3 bytes: %+v", u)
	}
}

func TestFullnessHoldsStill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tank")
	if err := datastore.Create(path); err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	f := newFullness(func() time.Time { return now })
	first, err := f.of(path)
	if err != nil {
		t.Fatal(err)
	}
	mark := usage{Total: 7, Used: 3, Avail: 4} // as the disk was when it was looked at
	f.told[path] = toldUsage{mark, now}
	now = now.Add(coarseFor - time.Second)
	if u, err := f.of(path); u != mark || err != nil {
		t.Errorf("within the hour: %+v, %v", u, err)
	}
	now = now.Add(time.Second)
	if u, err := f.of(path); u.Total != first.Total || err != nil {
		t.Errorf("after it: %+v, %v", u, err)
	}
	if _, err := f.of(path + "x"); err == nil {
		t.Error("a disk that is away is told of")
	}
}
