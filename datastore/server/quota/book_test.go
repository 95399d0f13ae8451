package quota

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
	b := Open("", time.Now, slog.New(slog.DiscardHandler))
	begin := func(used uint64) *Reservation {
		t.Helper()
		r, err := b.Begin(Terms{Daily: true, Bounds: []Bound{{Quota: access.Quota{Subject: "a@pbs", BytesMax: 100}, Used: used, Settled: b.Settled("a@pbs")}}})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	first, second := begin(50), begin(50)
	steps := []struct {
		r  *Reservation
		n  int64
		ok bool
	}{{first, 30, true}, {second, 30, false}, {second, 20, true}, {first, 1, false}}
	for i, s := range steps {
		if err := s.r.Charge(s.n); errors.Is(err, wire.ErrQuota) == s.ok {
			t.Errorf("step %d: %v", i, err)
		}
	}
	first.End(true) // its 30 bytes count for the second for ever
	first.End(true)
	if err := second.Charge(1); !errors.Is(err, wire.ErrQuota) {
		t.Errorf("what another session finished does not count: %v", err)
	}
	second.Refund(20)
	if err := second.Charge(20); err != nil {
		t.Error(err)
	}
	second.End(false)
	if err := begin(80).Charge(20); err != nil {
		t.Error(err)
	}
	if err := begin(0).Charge(math.MaxInt64); !errors.Is(err, wire.ErrQuota) {
		t.Errorf("a huge size: %v", err)
	}
	var none *Reservation
	if err := none.Charge(math.MaxInt64); err != nil {
		t.Error(err)
	}
	none.Refund(1)
	none.End(true)
}

func TestQuotaBookDays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "days.json")
	now := time.Date(2026, 1, 2, 23, 0, 0, 0, time.UTC)
	clock := func() time.Time { return now }
	limit := []Bound{{Quota: access.Quota{Subject: "/datastore/tank", SnapshotsPerDay: 2}}}
	open := func() *Book { return Open(path, clock, slog.New(slog.DiscardHandler)) }
	b := open()
	take := func(ok bool) *Reservation {
		t.Helper()
		r, err := b.Begin(Terms{Bounds: limit, Daily: true})
		if (err == nil) != ok || err != nil && !errors.Is(err, wire.ErrQuota) {
			t.Fatalf("begin: %v, want %v", err, ok)
		}
		return r
	}
	first, second := take(true), take(true)
	take(false) // those under way count
	second.End(false)
	second = take(true)
	first.End(true)
	second.End(true)
	take(false)
	b = open() // after a restart
	take(false)
	now = now.Add(2 * time.Hour)
	take(true).End(true)
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
		if got := Applies(c.subject, c.auth, c.path); got != c.want {
			t.Errorf("quota of %s for %s on %s: %v", c.subject, c.auth, c.path, got)
		}
	}
}

// What a session has sent counts, whatever its snapshot says; what it leaves behind
// counts, across a restart, until a collection that nothing holds up has freed it.
func TestQuotaBookCountsWhatIsLeft(t *testing.T) {
	path := filepath.Join(t.TempDir(), "quota.json")
	open := func() *Book { return Open(path, time.Now, slog.New(slog.DiscardHandler)) }
	b := open()
	begin := func(used uint64) *Reservation {
		t.Helper()
		r, err := b.Begin(Terms{Store: "tank", Bounds: []Bound{{Quota: access.Quota{Subject: "a@pbs", BytesMax: 100}, Used: used, Settled: b.Settled("a@pbs")}}})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	fits := func(n int64) bool {
		t.Helper()
		r := begin(0)
		err := r.Charge(n)
		_ = r.Receive(0)
		r.Refund(n)
		r.End(false)
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
	r.End(false)
	if fits(50) || !fits(40) {
		t.Error("what an aborted session has sent does not count")
	}
	if b = open(); fits(50) || !fits(40) {
		t.Error("after a restart it does not count")
	}
	// A session that goes on with what was left counts it once.
	r = begin(0)
	r.Resume(60)
	if err := r.Charge(100); err != nil {
		t.Errorf("resumed: %v", err)
	}
	r.End(false)
	if fits(50) || !fits(40) {
		t.Error("what a resumed session has taken over is gone")
	}
	// One that stays open holds up no collection, and goes on paying for its own.
	idle := begin(0)
	if err := idle.Receive(10); err != nil {
		t.Fatal(err)
	}
	b.Collected("tank", b.Mark())
	if fits(95) || !fits(90) {
		t.Error("what a session holds that is open was given back, or more stays than that")
	}
	idle.End(false)
	b.Collected("other", b.Mark())
	if fits(95) {
		t.Error("the collection of another datastore gave it back")
	}
	mark := b.Mark()
	late := begin(0)
	if err := late.Receive(30); err != nil {
		t.Fatal(err)
	}
	late.End(false)
	b.Collected("tank", mark)
	if fits(80) || !fits(70) {
		t.Error("after a collection only what came later counts")
	}
}

// A snapshot that is removed for good counts until a collection has freed it, once for
// sessions that begin before and after, and across a restart.
func TestQuotaBookCountsWhatWasRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "quota.json")
	open := func() *Book { return Open(path, time.Now, slog.New(slog.DiscardHandler)) }
	b := open()
	fits := func(r *Reservation, n int64) bool {
		t.Helper()
		err := r.Charge(n)
		if err == nil {
			r.Refund(n)
		}
		return err == nil
	}
	begin := func(used uint64) *Reservation {
		t.Helper()
		r, err := b.Begin(Terms{Store: "tank", Bounds: []Bound{{Quota: access.Quota{Subject: "a@pbs", BytesMax: 100}, Used: used, Settled: b.Settled("a@pbs")}}})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	early := begin(60)
	b.Removed("a@pbs", "tank", 60)
	late := begin(0)
	for what, r := range map[string]*Reservation{"early": early, "late": late} {
		if fits(r, 50) || !fits(r, 40) {
			t.Errorf("for the %s session it counts twice, or not at all", what)
		}
	}
	b = open()
	if r := begin(0); fits(r, 50) || !fits(r, 40) {
		t.Error("after a restart it does not count")
	}
	b.Collected("tank", b.Mark())
	if r := begin(0); !fits(r, 100) {
		t.Error("a collection has not given it back")
	}
}

// Who sends waits for no disk on which the book of all is being written.
func TestChargesDoNotWaitForTheDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "quota-today.json")
	b := Open(path, time.Now, slog.New(slog.DiscardHandler))
	terms := Terms{Store: "tank", Bounds: []Bound{{Quota: access.Quota{Subject: "a@pbs"}}}}
	first, err := b.Begin(terms)
	if err != nil {
		t.Fatal(err)
	}
	second, err := b.Begin(terms)
	if err != nil {
		t.Fatal(err)
	}
	b.disk.Lock() // the file is being written
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := second.Receive(10); err != nil {
			t.Error(err)
		}
		second.End(false) // waits for it
	}()
	if err := first.Receive(saveStep / 2); err != nil {
		t.Error(err)
	}
	b.disk.Unlock()
	<-ended
	if got := Open(path, time.Now, slog.New(slog.DiscardHandler)).tally("a@pbs").remains(); got < 10 {
		t.Errorf("%d bytes are left by the file", got)
	}
}

// What could not be written is written with the next that ends.
func TestBookIsWrittenWhenThereIsRoomAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "later")
	path := filepath.Join(dir, "quota-today.json")
	b := Open(path, time.Now, slog.New(slog.DiscardHandler))
	b.Removed("a@pbs", "tank", 60)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	r, err := b.Begin(Terms{Store: "tank"})
	if err != nil {
		t.Fatal(err)
	}
	r.End(true)
	if got := Open(path, time.Now, slog.New(slog.DiscardHandler)).tally("a@pbs").remains(); got != 60 {
		t.Errorf("%d bytes are left by the file", got)
	}
}
