package server

import (
	"errors"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"holdfast/datastore/access"
	"holdfast/datastore/wire"
)

func TestQuotaBookBytes(t *testing.T) {
	b := openQuotaBook("", time.Now, slog.New(slog.DiscardHandler))
	begin := func(used uint64) *reservation {
		t.Helper()
		r, err := b.begin(terms{daily: true, bounds: []bound{{Quota: access.Quota{Subject: "a@pbs", BytesMax: 100}, used: used, settled: b.settled("a@pbs")}}})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	first, second := begin(50), begin(50)
	steps := []struct {
		r  *reservation
		n  int64
		ok bool
	}{{first, 30, true}, {second, 30, false}, {second, 20, true}, {first, 1, false}}
	for i, s := range steps {
		if err := s.r.charge(s.n); errors.Is(err, wire.ErrQuota) == s.ok {
			t.Errorf("step %d: %v", i, err)
		}
	}
	first.end(true) // its 30 bytes count for the second for ever
	first.end(true)
	if err := second.charge(1); !errors.Is(err, wire.ErrQuota) {
		t.Errorf("what another session finished does not count: %v", err)
	}
	second.refund(20)
	if err := second.charge(20); err != nil {
		t.Error(err)
	}
	second.end(false)
	if err := begin(80).charge(20); err != nil {
		t.Error(err)
	}
	if err := begin(0).charge(math.MaxInt64); !errors.Is(err, wire.ErrQuota) {
		t.Errorf("a huge size: %v", err)
	}
	var none *reservation
	if err := none.charge(math.MaxInt64); err != nil {
		t.Error(err)
	}
	none.refund(1)
	none.end(true)
}

func TestQuotaBookDays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "days.json")
	now := time.Date(2026, 1, 2, 23, 0, 0, 0, time.UTC)
	clock := func() time.Time { return now }
	limit := []bound{{Quota: access.Quota{Subject: "/datastore/tank", SnapshotsPerDay: 2}}}
	open := func() *quotaBook { return openQuotaBook(path, clock, slog.New(slog.DiscardHandler)) }
	b := open()
	take := func(ok bool) *reservation {
		t.Helper()
		r, err := b.begin(terms{bounds: limit, daily: true})
		if (err == nil) != ok || err != nil && !errors.Is(err, wire.ErrQuota) {
			t.Fatalf("begin: %v, want %v", err, ok)
		}
		return r
	}
	first, second := take(true), take(true)
	take(false) // those under way count
	second.end(false)
	second = take(true)
	first.end(true)
	second.end(true)
	take(false)
	b = open() // after a restart
	take(false)
	now = now.Add(2 * time.Hour)
	take(true).end(true)
	b = open()
	take(true)
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	b = open() // damage does not keep the server from starting
	take(true)
}

func TestQuotaApplies(t *testing.T) {
	for _, c := range []struct {
		subject string
		auth    wire.AuthID
		path    string
		want    bool
	}{
		{"a@pbs", "a@pbs", "/datastore/tank", true},
		{"a@pbs", "a@pbs!one", "/datastore/tank", true},
		{"a@pbs!one", "a@pbs", "/datastore/tank", false},
		{"a@pbs!one", "a@pbs!two", "/datastore/tank", false},
		{"/datastore", "a@pbs", "/datastore/tank", true},
		{"/datastore/tank", "a@pbs", "/datastore/tank/x", true},
		{"/datastore/tank/x", "a@pbs", "/datastore/tank/x/y", true},
		{"/datastore/tank/x", "a@pbs", "/datastore/tank/xy", false},
		{"/datastore/tank/x", "a@pbs", "/datastore/tank", false},
	} {
		if got := applies(c.subject, c.auth, c.path); got != c.want {
			t.Errorf("quota of %s for %s on %s: %v", c.subject, c.auth, c.path, got)
		}
	}
}

// What a session has sent counts, whatever its snapshot says; what it leaves behind
// counts, across a restart, until a collection that nothing holds up has freed it.
func TestQuotaBookCountsWhatIsLeft(t *testing.T) {
	path := filepath.Join(t.TempDir(), "quota.json")
	open := func() *quotaBook { return openQuotaBook(path, time.Now, slog.New(slog.DiscardHandler)) }
	b := open()
	begin := func(used uint64) *reservation {
		t.Helper()
		r, err := b.begin(terms{store: "tank", bounds: []bound{{Quota: access.Quota{Subject: "a@pbs", BytesMax: 100}, used: used, settled: b.settled("a@pbs")}}})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	fits := func(n int64) bool {
		t.Helper()
		r := begin(0)
		err := r.charge(n)
		_ = r.receive(0)
		r.refund(n)
		r.end(false)
		return err == nil
	}
	r := begin(0)
	for i, step := range []struct {
		logical, sent int64
		ok            bool
	}{{0, 60, true}, {50, 0, true}, {0, 50, false}, {0, -20, true}, {0, 20, true}} {
		if err := r.add(step.logical, step.sent); errors.Is(err, wire.ErrQuota) == step.ok {
			t.Errorf("step %d: %v", i, err)
		}
	}
	r.end(false)
	if fits(50) || !fits(40) {
		t.Error("what an aborted session has sent does not count")
	}
	if b = open(); fits(50) || !fits(40) {
		t.Error("after a restart it does not count")
	}
	// A session that goes on with what was left counts it once.
	r = begin(0)
	r.resume(60)
	if err := r.charge(100); err != nil {
		t.Errorf("resumed: %v", err)
	}
	r.end(false)
	if fits(50) || !fits(40) {
		t.Error("what a resumed session has taken over is gone")
	}
	// One that stays open holds up no collection, and goes on paying for its own.
	idle := begin(0)
	if err := idle.receive(10); err != nil {
		t.Fatal(err)
	}
	b.collected("tank", b.mark())
	if fits(95) || !fits(90) {
		t.Error("what a session holds that is open was given back, or more stays than that")
	}
	idle.end(false)
	b.collected("other", b.mark())
	if fits(95) {
		t.Error("the collection of another datastore gave it back")
	}
	mark := b.mark()
	late := begin(0)
	if err := late.receive(30); err != nil {
		t.Fatal(err)
	}
	late.end(false)
	b.collected("tank", mark)
	if fits(80) || !fits(70) {
		t.Error("after a collection only what came later counts")
	}
}

// A snapshot that is removed for good counts until a collection has freed it, once for
// sessions that begin before and after, and across a restart.
func TestQuotaBookCountsWhatWasRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "quota.json")
	open := func() *quotaBook { return openQuotaBook(path, time.Now, slog.New(slog.DiscardHandler)) }
	b := open()
	fits := func(r *reservation, n int64) bool {
		t.Helper()
		err := r.charge(n)
		if err == nil {
			r.refund(n)
		}
		return err == nil
	}
	begin := func(used uint64) *reservation {
		t.Helper()
		r, err := b.begin(terms{store: "tank", bounds: []bound{{Quota: access.Quota{Subject: "a@pbs", BytesMax: 100}, used: used, settled: b.settled("a@pbs")}}})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	early := begin(60)
	b.removed("a@pbs", "tank", 60)
	late := begin(0)
	for what, r := range map[string]*reservation{"early": early, "late": late} {
		if fits(r, 50) || !fits(r, 40) {
			t.Errorf("for the %s session it counts twice, or not at all", what)
		}
	}
	b = open()
	if r := begin(0); fits(r, 50) || !fits(r, 40) {
		t.Error("after a restart it does not count")
	}
	b.collected("tank", b.mark())
	if r := begin(0); !fits(r, 100) {
		t.Error("a collection has not given it back")
	}
}
