package abuse

import (
	"encoding/json"
	"slices"
	"testing"
	"time"
)

// listed is what the server lists of a snapshot.
type listed struct {
	Time     int64           `json:"backup-time"`
	Arrived  int64           `json:"arrived"`
	Misdated bool            `json:"misdated"`
	Verify   json.RawMessage `json:"verification"`
}

// snapshots are those of the group vm/100, in the order of the server.
func (w *world) snapshots(t testing.TB) (list []listed) {
	t.Helper()
	w.ask(t, w.admin, "GET", "/admin/datastore/"+store+"/snapshots", "backup-type", "vm", "backup-id", "100").into(t, &list)
	return list
}

// goodNights backs up ten nights, the last of them the day before yesterday, and
// returns their times.
func (w *world) goodNights(t testing.TB, as identity) (times []int64) {
	t.Helper()
	now := time.Now().Unix()
	for i := range 10 {
		s := snap{"vm", "100", now - 86400*int64(12-i)}
		if err := w.backup(as, s, archive{"disk.img.didx", []chunk{plainChunk(noise(uint64(i), 5000))}}); err != nil {
			t.Fatal(err)
		}
		times = append(times, s.time)
	}
	return times
}

// TestForgedTimes has the credential of a machine that was taken over, which can add
// snapshots and nothing else, add as many as a prune keeps: empty ones under times to
// come, said to be verified; then full ones; then full ones of now, when the good ones
// are verified. No prune removes a good one that it would have kept without them.
func TestForgedTimes(t *testing.T) {
	t.Parallel()
	w := start(t, setup{})
	w.user(t, "eve")
	put := w.token(t, "eve", "put", "DatastorePutOnly", "/datastore/"+store)
	good := w.goodNights(t, put)
	keep := []string{"backup-type", "vm", "backup-id", "100", "keep-last", "3", "keep-daily", "7", "keep-weekly", "4", "keep-monthly", "12"}
	var plan []struct {
		Time int64 `json:"backup-time"`
		Keep bool  `json:"keep"`
	}
	w.ask(t, w.admin, "POST", "/admin/datastore/"+store+"/prune", append(keep, "dry-run", "1")...).into(t, &plan)
	var stay []int64
	for _, p := range plan {
		if p.Keep {
			stay = append(stay, p.Time)
		}
	}
	if len(plan) != len(good) || len(stay) < 7 {
		t.Fatalf("of the good ones alone %+v are kept", plan)
	}
	prune := func(when string) {
		t.Helper()
		w.ask(t, w.admin, "POST", "/admin/datastore/"+store+"/prune", keep...).want(t, 200)
		var left []int64
		for _, l := range w.snapshots(t) {
			left = append(left, l.Time)
		}
		for _, at := range stay {
			if !slices.Contains(left, at) {
				t.Errorf("after a prune with %s the good one of %d is gone; left are %v", when, at, left)
			}
		}
	}

	now := time.Now().Unix()
	for i := range int64(26) {
		w.forge(t, put, snap{"vm", "100", now + 86400*31*i + 600})
	}
	w.flagged(t, now)
	prune("empty ones of the future")

	for i := range int64(14) {
		s := snap{"vm", "100", now + 86400*31*(i+40)}
		if err := w.backup(put, s, archive{"disk.img.didx", []chunk{plainChunk(noise(uint64(i), 5000))}}); err != nil {
			t.Fatal(err)
		}
	}
	w.flagged(t, now)
	prune("full ones of the future")

	if end, err := w.task(w.admin, "POST", "/admin/datastore/"+store+"/verify"); err != nil || end != "OK" {
		t.Fatalf("verify: %q %v", end, err)
	}
	for i := range int64(14) {
		s := snap{"vm", "100", time.Now().Unix() - 1000 + i}
		if err := w.backup(put, s, archive{"disk.img.didx", []chunk{plainChunk(noise(uint64(i), 5000))}}); err != nil {
			t.Fatalf("those of the future keep one of now out: %v", err)
		}
	}
	prune("unverified ones of now")
}

// forge stores an empty snapshot whose manifest claims what only the server may say.
func (w *world) forge(t testing.TB, as identity, s snap) {
	t.Helper()
	h := w.session(t, as, backupProtocol, s)
	defer h.Close()
	m, err := json.Marshal(map[string]any{
		"backup-type": s.kind, "backup-id": s.id, "backup-time": s.time, "files": []any{}, "signature": nil,
		"arrived": s.time, "unprotected": map[string]any{
			"verify_state": map[string]any{"state": "ok", "upid": "UPID:localhost:00000001:00000001:00000001:F0000000:verify:tank:root@pam:"},
			"arrived":      s.time, "notes": "all is well", "chunk_upload_stats": map[string]any{"count": 1 << 40},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	h.do(t, blobMessage(manifestName, envelope(magicPlain, m))).want(t, 200)
	h.do(t, finishMessage()).want(t, 200)
}

// flagged makes sure that what is of the future by its name is told to be, that none of
// it is verified, and that the server dates it itself.
func (w *world) flagged(t testing.TB, now int64) {
	t.Helper()
	for _, l := range w.snapshots(t) {
		if l.Time < now {
			continue
		}
		if !l.Misdated || l.Arrived < now-86400 || l.Arrived > time.Now().Unix() || len(l.Verify) > 0 {
			t.Errorf("a forged one is listed as %+v", l)
		}
	}
}
