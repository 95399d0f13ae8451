package server

import (
	"crypto/tls"
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"testing"

	"holdfast/datastore/wire/api"
)

// noise is a chunk that nothing makes smaller.
func (l *sessionLab) noise(seed uint64, n int) bit {
	l.t.Helper()
	r := rand.New(rand.NewPCG(seed, 1))
	plain := make([]byte, n)
	for i := range plain {
		plain[i] = byte(r.Uint32())
	}
	raw, err := l.codec.Encode(nil, plain)
	l.must(err)
	return bit{id: l.codec.Name(plain), size: n, raw: raw}
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
	look := func(user string) (list [2]api.Usage) {
		var all []api.Usage
		l.told(user, "/admin/datastore/tank/status", &list[0])
		l.told(user, "/status/datastore-usage", &all)
		if len(all) != 1 || all[0].Total == 0 {
			t.Fatalf("%s: the usage of all is %v", user, all)
		}
		list[1] = all[0]
		return list
	}
	callers := []string{"putter", "alice"}
	before := map[string][2]api.Usage{}
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
		var a api.DatastoreStatus
		l.told(user, "/admin/datastore/tank/status?verbose=1", &a)
		if a.GC == nil || (a.GC.UPID != nil) != want {
			t.Errorf("%s is told what the last collection has found: %v", user, a.GC)
		}
	}
}
