package term

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestLogDelay(t *testing.T) {
	var at time.Duration
	for n, want := range []time.Duration{10, 30, 60, 120, 300, 600, 900, 1200} {
		at += logDelay(n)
		if at != want*time.Second {
			t.Errorf("line %d comes after %v, want %v", n, at, want*time.Second)
		}
	}
}

func TestRateMeter(t *testing.T) {
	var r rateMeter
	begin := time.Unix(1e9, 0)
	if r.perSecond() != 0 {
		t.Error("a rate without any point")
	}
	r.add(begin, 0)
	if r.perSecond() != 0 {
		t.Error("a rate from one point")
	}
	for i := 1; i <= 1000; i++ {
		r.add(begin.Add(time.Duration(i)*100*time.Millisecond), int64(i)*10)
	}
	if got := r.perSecond(); got != 100 {
		t.Errorf("rate %v, want 100", got)
	}
	if len(r.points) > 20 {
		t.Errorf("%d points are kept", len(r.points))
	}
	// After a stop the old rate fades within the window.
	for i := 1; i <= 20; i++ {
		r.add(begin.Add(100*time.Second+time.Duration(i)*time.Second), 10000)
	}
	if got := r.perSecond(); got != 0 {
		t.Errorf("rate %v after standing still, want 0", got)
	}
}

func TestStatusLine(t *testing.T) {
	n := int64(3 << 20)
	for _, tc := range []struct {
		s    Status
		rate float64
		want string
	}{
		{Status{Operation: "backup", BytesDone: 5 << 20, BytesTotal: -1, SecondsElapsed: 2}, 0, "backup: 5.00 MiB  2.0s"},
		{Status{Operation: "backup", BytesDone: 5 << 20, BytesTotal: 10 << 20, BytesNew: &n, SecondsElapsed: 2}, 1 << 20,
			"backup: 50.0 %  5.00 MiB of 10.0 MiB  3.00 MiB new  1.00 MiB/s  2.0s  5.0s left"},
		{Status{Operation: "restore", BytesDone: 12, BytesTotal: 10, BytesWritten: &n, SecondsElapsed: 90}, 0,
			"restore: 100.0 %  12 B of 10 B  3.00 MiB written  1m30s"},
		{Status{Operation: "reindex", BytesTotal: -1, Packs: &Count{3, 12}}, 0, "reindex: 25.0 %  3 of 12 packs  0.0s"},
		{Status{Operation: "reindex", BytesTotal: -1, Packs: &Count{}}, 0, "reindex: 0.0 %  0 of 0 packs  0.0s"},
		{Status{Operation: "prune", BytesTotal: -1, Groups: &Count{1, 4}}, 0, "prune: 25.0 %  1 of 4 groups  0.0s"},
	} {
		tc.s.estimate(tc.rate)
		if got := tc.s.line(tc.rate); got != tc.want {
			t.Errorf("line = %q, want %q", got, tc.want)
		}
	}
}

func TestFit(t *testing.T) {
	for _, tc := range []struct {
		width int
		want  string
	}{{0, "0123456789"}, {11, "0123456789"}, {10, "012345678"}, {5, "0123"}} {
		if got := fit("0123456789", tc.width); got != tc.want {
			t.Errorf("fit to %d = %q, want %q", tc.width, got, tc.want)
		}
	}
}

// SIGUSR1 is answered whether progress is shown or not.
func TestStateOnRequest(t *testing.T) {
	for _, asJSON := range []bool{false, true} {
		var out, errs bytes.Buffer
		poke := make(chan os.Signal, 1)
		o := New(&out, &errs, time.Now, poke)
		o.JSON, o.Progress = asJSON, false
		answered := make(chan struct{})
		stop := o.Watch(context.Background(), func(s *Status) {
			s.Operation, s.BytesDone, s.BytesTotal = "backup", 1, 4
			close(answered)
		})
		poke <- syscall.SIGUSR1
		<-answered
		stop()
		if !asJSON {
			if !strings.Contains(errs.String(), "holdfast: backup: 25.0 %") {
				t.Errorf("said %q", errs.String())
			}
			continue
		}
		var s Status
		if err := json.Unmarshal(out.Bytes(), &s); err != nil || s.MessageType != "status" || s.PercentDone != 0.25 {
			t.Errorf("%v: %q", err, out.String())
		}
	}
}

func TestNoProgressIsSilent(t *testing.T) {
	var out, errs bytes.Buffer
	o := New(&out, &errs, time.Now, nil)
	o.Progress = false
	stop := o.Watch(context.Background(), func(*Status) { t.Error("asked for the state") })
	stop()
	if s := out.String() + errs.String(); strings.TrimSpace(s) != "" {
		t.Errorf("wrote %q", s)
	}
}
