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
		r, err := b.begin([]bound{{Quota: access.Quota{Subject: "a@pbs", BytesMax: 100}, used: used, settled: b.settled("a@pbs")}})
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
		r, err := b.begin(limit)
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
