package task

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"holdfast/chunkstore"
	"holdfast/datastore/wire"
)

// listed makes eight tasks, one a minute, of which the last two run, and one
// that began first and runs too. Their names are the last part of the ID.
func listed(t *testing.T) (*Registry, *clock) {
	c := newClock()
	r := openTest(t, t.TempDir(), c, limits{ended: 100, running: 100, log: 1 << 20})
	begin(t, r, Spec{Type: "garbage_collection", ID: "tank:0"})
	for _, s := range []struct {
		typ, id string
		auth    wire.AuthID
		err     error
		warn    bool
	}{
		{"backup", "tank:vm/1", "root@pam", nil, false},
		{"backup", "other:vm/2", "root@pam!pve", nil, true},
		{"prune", "tank::vm/3", "alice@pbs", errors.New("no"), false},
		{"syncjob", "far:away:tank::4", "root@pam", errors.New("unknown"), false},
		{"verify", "tanker:5", "alice@pbs!x", nil, false},
	} {
		c.add(time.Minute)
		k := begin(t, r, Spec{Type: s.typ, ID: s.id, Auth: s.auth})
		if s.warn {
			k.Warnf("careful")
		}
		k.End(s.err)
	}
	for _, id := range []string{"tank:vm/6", "other:7"} {
		c.add(time.Minute)
		begin(t, r, Spec{Type: "reader", ID: id, Auth: "alice@pbs"})
	}
	return r, c
}

func TestList(t *testing.T) {
	r, c := listed(t)
	now := c.now().Unix()
	minute := func(n int64) int64 { return now - (7-n)*60 }
	for _, tc := range []struct {
		name string
		f    Filter
		want string
	}{
		{"all", Filter{}, "760 54321"},
		{"running", Filter{Running: true}, "760 "},
		{"errors and running", Filter{Errors: true}, "760 432"},
		{"running errors", Filter{Errors: true, Running: true}, "760 "},
		{"store", Filter{Store: "tank"}, "60 431"},
		{"another store", Filter{Store: "other"}, "7 2"},
		{"no store", Filter{Store: "far"}, " "},
		{"user", Filter{User: "alice"}, "76 53"},
		{"user with tokens", Filter{User: "root@pam"}, "0 421"},
		{"type", Filter{Type: "ba"}, "0 21"},
		{"since", Filter{Since: minute(3)}, "76 543"},
		{"until", Filter{Until: minute(2)}, "0 21"},
		{"between", Filter{Since: minute(2), Until: minute(6)}, "6 5432"},
		{"ok", Filter{States: []string{"ok"}}, " 51"},
		{"warning", Filter{States: []string{"warning"}}, " 2"},
		{"error", Filter{States: []string{"error"}}, " 43"},
		{"unknown", Filter{States: []string{"unknown"}}, " "},
		{"two states", Filter{States: []string{"warning", "ok"}}, " 521"},
		{"a state of what runs", Filter{States: []string{"ok"}, Running: true}, " "},
		{"limit", Filter{Limit: 4}, "760 5"},
		{"page", Filter{Start: 2, Limit: 3}, "0 54"},
		{"last page", Filter{Start: 6, Limit: 50}, " 21"},
		{"beyond", Filter{Start: 8, Limit: 50}, " "},
		{"negative", Filter{Start: -1, Limit: -1}, "760 54321"},
		{"page of the visible", Filter{Start: 1, Limit: 3, Visible: func(u wire.UPID) bool { return u.Auth == wire.RootUser }}, " 41"},
		{"what the client asks", Filter{Limit: 50, Running: true, Store: "tank", User: "alice@pbs"}, "6 "},
	} {
		list, err := r.List(tc.f)
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
		}
		running, ended := "", ""
		for _, i := range list {
			name := i.UPID.ID[len(i.UPID.ID)-1:]
			if i.Running {
				running += name
			} else {
				ended += name
			}
			if i.Running && ended != "" || i.Running != (i.Status == "") || i.Running != (i.End == 0) {
				t.Errorf("%s: %+v", tc.name, i)
			}
		}
		if got := running + " " + ended; got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.name, got, tc.want)
		}
	}
	if _, err := r.List(Filter{States: []string{"ok", "fine"}}); !errors.Is(err, chunkstore.ErrInvalid) {
		t.Errorf("got %v", err)
	}
}

func TestListOrdersOneSecond(t *testing.T) {
	r := openTest(t, t.TempDir(), newClock(), limits{ended: 100, running: 100, log: 1 << 20})
	var tasks []*Task
	for range 4 {
		tasks = append(tasks, begin(t, r, Spec{Type: "prune"}))
	}
	for _, i := range []int{2, 0, 3, 1} { // the order of their ends does not matter
		tasks[i].End(nil)
	}
	list, err := r.List(Filter{})
	if err != nil || len(list) != 4 {
		t.Fatalf("%d tasks, %v", len(list), err)
	}
	for n, i := range list {
		if i.UPID != tasks[3-n].UPID() {
			t.Errorf("place %d has task %d", n, i.UPID.TaskID)
		}
	}
}

func TestDatastoreOf(t *testing.T) {
	for _, tc := range [][3]string{
		{"backup", "tank:vm/100", "tank"}, {"prune", "tank::vm/100", "tank"}, {"prune", "tank:", "tank"}, {"garbage_collection", "tank", "tank"},
		{"verificationjob", "tank:a/b:job", "tank"}, {"syncjob", "-:x:tank:a:job", "tank"}, {"syncjob", "x", ""}, {"sync", "tank", "tank"},
		{"aptupdate", "", ""},
	} {
		if got := datastoreOf(wire.UPID{Type: tc[0], ID: tc[1]}); got != tc[2] {
			t.Errorf("%s %q: %q", tc[0], tc[1], got)
		}
	}
}

func TestVisibleMayAskTheRegistry(t *testing.T) {
	r, _ := listed(t)
	list, err := r.List(Filter{Visible: func(u wire.UPID) bool {
		i, err := r.Status(u)
		return err == nil && i.Running
	}})
	if err != nil || len(list) != 3 {
		t.Errorf("%d tasks, %v", len(list), err)
	}
	if err := r.Close(cancelled()); err == nil || !strings.Contains(err.Error(), "3 still running") {
		t.Errorf("got %v", err)
	}
}

func cancelled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}
