package task

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"holdfast/chunkstore"
	"holdfast/datastore/wire"
)

var zone = time.FixedZone("", 2*3600)

// clock is a time that tests move by hand.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.Date(2024, 5, 6, 12, 0, 0, 0, zone)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

var small = limits{ended: 5, running: 4, log: 16 << 10}

func openTest(t *testing.T, dir string, c *clock, l limits) *Registry {
	t.Helper()
	r, err := open(dir, Options{Node: "pbs1.example.org", Now: c.now}, l)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = r.Close(ctx)
	})
	return r
}

func begin(t *testing.T, r *Registry, s Spec) *Task {
	t.Helper()
	if s.Auth == "" {
		s.Auth = wire.RootUser
	}
	task, err := r.Begin(context.Background(), s)
	if err != nil {
		t.Fatal(err)
	}
	return task
}

// logText is the whole log of a task.
func logText(t *testing.T, r *Registry, u wire.UPID) string {
	t.Helper()
	f, err := r.OpenLog(u)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// kill leaves a registry as the end of its process would.
func kill(t *testing.T, r *Registry) {
	t.Helper()
	if err := r.release(); err != nil {
		t.Fatal(err)
	}
}

func status(t *testing.T, r *Registry, u wire.UPID) Info {
	t.Helper()
	i, err := r.Status(u)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func TestOutcomes(t *testing.T) {
	for _, tc := range []struct {
		name   string
		typ    string
		do     func(*Task)
		err    error
		status string
		log    string
	}{
		{name: "ok", do: func(*Task) {}, status: "OK", log: "TASK OK\n"},
		{name: "lines", do: func(k *Task) { k.Logf("starting %d", 7) }, status: "OK", log: "starting 7\nTASK OK\n"},
		{name: "warnings", do: func(k *Task) { k.Warnf("a"); k.Warnf("b") }, status: "WARNINGS: 2",
			log: "warning: a\nwarning: b\nTASK WARNINGS: 2\n"},
		{name: "error", do: func(k *Task) { k.Warnf("a") }, err: errors.New("disk\non fire\x1b[2J"), status: "disk on fire [2J",
			log: "warning: a\nTASK ERROR: disk on fire [2J\n"},
		{name: "an error that reads like a success", do: func(*Task) {}, err: errors.New("OK"), status: "error: OK", log: "TASK ERROR: error: OK\n"},
		{name: "an error that reads like warnings", do: func(*Task) {}, err: errors.New("WARNINGS: 0"), status: "error: WARNINGS: 0",
			log: "TASK ERROR: error: WARNINGS: 0\n"},
		{name: "an error that says nothing", do: func(*Task) {}, err: errors.New(" \n"), status: "error without a text", log: "TASK ERROR: error without a text\n"},
		{name: "a message that reads like a state", do: func(k *Task) { k.Logf("TASK OK") }, err: errors.New("x"), status: "x",
			log: " TASK OK\nTASK ERROR: x\n"},
		{name: "aborted", do: func(k *Task) { stop(t, k) }, err: context.Canceled, status: "abort requested - aborting task",
			log: "received abort request ...\nstopped by root@pam\nTASK ERROR: abort requested - aborting task\n"},
		{name: "aborted by its cause", do: func(k *Task) { stop(t, k) }, err: fmt.Errorf("copy: %w", ErrAborted),
			status: "abort requested - aborting task",
			log:    "received abort request ...\nstopped by root@pam\nTASK ERROR: abort requested - aborting task\n"},
		{name: "aborted backup", typ: "backup", do: func(k *Task) { stop(t, k); stop(t, k) }, err: fmt.Errorf("read: %w", context.Canceled), status: "task aborted",
			log: "received abort request ...\nstopped by root@pam\nTASK ERROR: task aborted\n"},
		{name: "finished in spite of it", do: func(k *Task) { stop(t, k) }, status: "OK", log: "received abort request ...\nstopped by root@pam\nTASK OK\n"},
		{name: "cancelled by nobody here", do: func(*Task) {}, err: context.Canceled, status: "context canceled", log: "TASK ERROR: context canceled\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newClock()
			r := openTest(t, t.TempDir(), c, small)
			k := begin(t, r, Spec{Type: max(tc.typ, "prune"), ID: "tank::vm/100"})
			if tc.typ != "" {
				k = begin(t, r, Spec{Type: tc.typ})
			}
			if i := status(t, r, k.UPID()); !i.Running || i.Status != "" || i.End != 0 {
				t.Errorf("while it runs: %+v", i)
			}
			tc.do(k)
			c.add(time.Second)
			k.End(tc.err)
			k.End(errors.New("a second end"))
			k.Logf("late")
			k.Warnf("late")
			if i := status(t, r, k.UPID()); i.Running || i.Status != tc.status || i.End != c.now().Unix() {
				t.Errorf("ended as %+v, want %q at %d", i, tc.status, c.now().Unix())
			}
			var plain strings.Builder
			for line := range strings.Lines(logText(t, r, k.UPID())) {
				if !strings.HasPrefix(line, "2024-05-06T12:00:0") || line[19:27] != "+02:00: " {
					t.Errorf("line %q", line)
				}
				plain.WriteString(line[27:])
			}
			if plain.String() != tc.log {
				t.Errorf("log:\n%swant:\n%s", plain.String(), tc.log)
			}
		})
	}
}

func stop(t *testing.T, k *Task) {
	t.Helper()
	if err := k.registry.Stop(k.UPID(), wire.RootUser); err != nil {
		t.Error(err)
	}
	if k.Context().Err() == nil || !errors.Is(context.Cause(k.Context()), ErrAborted) {
		t.Errorf("the context says %v", context.Cause(k.Context()))
	}
}

func TestStampOfUTC(t *testing.T) {
	r, err := Open(t.TempDir(), Options{Now: func() time.Time { return time.Unix(0, 0).UTC() }})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close(context.Background())
	k := begin(t, r, Spec{Type: "verify", ID: "tank"})
	k.End(nil)
	if got := logText(t, r, k.UPID()); got != "1970-01-01T00:00:00+00:00: TASK OK\n" {
		t.Errorf("log %q", got)
	}
}

func TestUPIDs(t *testing.T) {
	r := openTest(t, t.TempDir(), newClock(), limits{ended: 5, running: 50, log: 1 << 20})
	seen := map[wire.UPID]bool{}
	for _, id := range []string{"", "tank", "tank::vm/100", "tank:a/b:vm/100", strings.Repeat("-", 200), strings.Repeat("x", 5000), "\x00\xff\n"} {
		k := begin(t, r, Spec{Type: "prune", ID: id})
		u := k.UPID()
		back, err := wire.ParseUPID(u.String())
		if err != nil || back != u || seen[u] {
			t.Errorf("%q: %v, %v", u, back, err)
		}
		seen[u] = true
		if u.Node != "pbs1" || u.PID != uint32(os.Getpid()) || u.PStart == 0 || u.Auth != wire.RootUser || !strings.HasPrefix(id, u.ID) {
			t.Errorf("%+v", u)
		}
		k.Logf("x")
		k.End(nil)
		if !strings.HasSuffix(logText(t, r, u), "TASK OK\n") {
			t.Errorf("no log of %s", u)
		}
	}
	for _, s := range []Spec{{Type: "", Auth: "root@pam"}, {Type: "a:b", Auth: "root@pam"}, {Type: "prune", Auth: "nobody"}} {
		if _, err := r.Begin(context.Background(), s); !errors.Is(err, wire.ErrName) {
			t.Errorf("%+v: %v", s, err)
		}
	}
}

func TestNodeName(t *testing.T) {
	if got := nodeName("a-b.c"); got != "a-b" {
		t.Errorf("got %q", got)
	}
	for _, s := range []string{"", "a b", "x:y", strings.Repeat("x", 300)} {
		u := wire.UPID{Node: nodeName(s), Type: "x", Auth: wire.RootUser}
		if _, err := wire.ParseUPID(u.String()); err != nil || u.Node == s {
			t.Errorf("%q became %q: %v", s, u.Node, err)
		}
	}
}

func TestProcessStart(t *testing.T) {
	for stat, want := range map[string]uint64{
		"1 (a b) c) R" + strings.Repeat(" 9", 18) + " 4711 5": 4711,
		"1 (x) R 1 2": 0, "": 0, "1 (x) R" + strings.Repeat(" 9", 18) + " -1": 0,
		"1 (x) R" + strings.Repeat(" 9", 18) + " 68719476737": 1,
	} {
		if got := parseProcessStart(stat); got != want {
			t.Errorf("%q: %d, want %d", stat, got, want)
		}
	}
}

func TestGo(t *testing.T) {
	r := openTest(t, t.TempDir(), newClock(), small)
	for _, tc := range []struct {
		do     func(*Task) error
		status string
	}{
		{func(k *Task) error { k.Logf("working"); return nil }, "OK"},
		{func(*Task) error { return errors.New("no") }, "no"},
		{func(*Task) error { panic("at the\ndisco") }, "internal error: at the disco"},
		{func(k *Task) error { k.End(errors.New("first")); return nil }, "first"},
	} {
		done := make(chan *Task, 1)
		u, err := r.Go(Spec{Type: "verify", ID: "tank", Auth: "a@pbs!t"}, func(k *Task) error {
			done <- k
			return tc.do(k)
		})
		if err != nil {
			t.Fatal(err)
		}
		<-(<-done).done
		if i := status(t, r, u); i.Running || i.Status != tc.status {
			t.Errorf("got %+v, want %q", i, tc.status)
		}
		if strings.HasPrefix(tc.status, "internal") && !strings.Contains(logText(t, r, u), "task_test.go") {
			t.Error("the log does not tell where the panic was")
		}
	}
	if _, err := r.Go(Spec{Type: "verify", Auth: "x"}, nil); !errors.Is(err, wire.ErrName) {
		t.Errorf("got %v", err)
	}
}

func TestUnknownTask(t *testing.T) {
	r := openTest(t, t.TempDir(), newClock(), small)
	u := wire.UPID{Node: "x", Type: "backup", Auth: wire.RootUser}
	if i := status(t, r, u); i.Running || i.Status != "unknown" || i.UPID != u {
		t.Errorf("%+v", i)
	}
	_, _, lines := r.Lines(u, 0, 0)
	_, open := r.OpenLog(u)
	for _, err := range []error{lines, open, r.Stop(u, wire.RootUser)} {
		if !errors.Is(err, chunkstore.ErrNotExist) {
			t.Errorf("got %v", err)
		}
	}
	k := begin(t, r, Spec{Type: "prune"})
	k.End(nil)
	if err := r.Stop(k.UPID(), wire.RootUser); err != nil {
		t.Errorf("stop of an ended task: %v", err)
	}
}

func TestTooManyAtATime(t *testing.T) {
	r := openTest(t, t.TempDir(), newClock(), small)
	var first *Task
	for range small.running {
		first = begin(t, r, Spec{Type: "reader"})
	}
	if _, err := r.Begin(context.Background(), Spec{Type: "reader", Auth: wire.RootUser}); !errors.Is(err, wire.ErrBusy) {
		t.Errorf("got %v", err)
	}
	first.End(nil)
	begin(t, r, Spec{Type: "reader"})
}

func TestClose(t *testing.T) {
	dir := t.TempDir()
	r := openTest(t, dir, newClock(), small)
	u, err := r.Go(Spec{Type: "verify", Auth: wire.RootUser}, func(k *Task) error {
		<-k.Context().Done()
		return k.Context().Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Options{}); !errors.Is(err, chunkstore.ErrLocked) {
		t.Errorf("opened twice: %v", err)
	}
	if err := errors.Join(r.Close(context.Background()), r.Close(context.Background())); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Begin(context.Background(), Spec{Type: "verify", Auth: wire.RootUser}); !errors.Is(err, ErrClosed) {
		t.Errorf("begun after Close: %v", err)
	}
	r = openTest(t, dir, newClock(), small)
	if i := status(t, r, u); i.Status != ErrAborted.Error() {
		t.Errorf("%+v", i)
	}
}

func TestCloseDoesNotWaitForEver(t *testing.T) {
	dir := t.TempDir()
	r := openTest(t, dir, newClock(), small)
	late, never := begin(t, r, Spec{Type: "gc"}), begin(t, r, Spec{Type: "gc"})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := r.Close(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	never.Logf("still at it")
	late.End(nil)
	r = openTest(t, dir, newClock(), small)
	if got := status(t, r, late.UPID()).Status; got != "OK" {
		t.Errorf("the late one ended as %q", got)
	}
	if got := status(t, r, never.UPID()).Status; got != "unknown" {
		t.Errorf("the other one ended as %q", got)
	}
}

func TestConcurrentUse(t *testing.T) {
	l := limits{ended: 20, running: 100, log: 32 << 10}
	r := openTest(t, t.TempDir(), newClock(), l)
	var all sync.WaitGroup
	for worker := range 8 {
		all.Go(func() {
			for n := range 20 {
				k, err := r.Begin(context.Background(), Spec{Type: "reader", ID: fmt.Sprint(worker, n), Auth: wire.RootUser})
				if err != nil {
					t.Error(err)
					return
				}
				var in sync.WaitGroup
				in.Go(func() { k.Logf("one") })
				in.Go(func() { k.Warnf("two") })
				in.Go(func() { _, _, err = r.Lines(k.UPID(), 1, 0) })
				in.Go(func() { _ = r.Stop(k.UPID(), wire.RootUser) })
				in.Wait()
				k.End(nil)
				if list, lerr := r.List(Filter{}); lerr != nil || err != nil || len(list) == 0 {
					t.Error(lerr, err)
				}
			}
		})
	}
	all.Wait()
	list, err := r.List(Filter{})
	if err != nil || len(list) != l.ended {
		t.Errorf("%d tasks, %v", len(list), err)
	}
	for _, i := range list {
		if i.Running || i.Status != "WARNINGS: 1" {
			t.Errorf("%+v", i)
		}
	}
}

// logs are the names of all log files below dir.
func logs(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "??", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range names {
		names[i] = filepath.Base(names[i])
	}
	slices.Sort(names)
	return names
}

// Whoever makes the most tasks loses the oldest of its own, not those of others; the
// same goes for the bytes of their logs.
func TestTasksOfOthersStay(t *testing.T) {
	dir, c := t.TempDir(), newClock()
	l := limits{ended: 10, running: 100, log: 1 << 20, logs: 64 << 10}
	r := openTest(t, dir, c, l)
	honest := []wire.UPID{}
	for _, id := range []wire.AuthID{"root@pam!admin", "alice@pbs", "bob@pbs!t"} {
		k := begin(t, r, Spec{Type: "backup", ID: "tank:vm/1", Auth: id})
		honest = append(honest, k.UPID())
		k.End(nil)
	}
	for i := range 40 {
		k := begin(t, r, Spec{Type: "backup", ID: "tank:vm/2", Auth: wire.AuthID(fmt.Sprint("mallory@pbs!t", i%3))})
		if i == 39 {
			for range 2000 {
				k.Logf("a line of a hundred bytes %s", strings.Repeat("x", 74))
			}
		}
		k.End(nil)
	}
	if err := r.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	for _, r := range []*Registry{r, openTest(t, dir, c, l)} {
		if n := len(r.ended); n > 10 {
			t.Errorf("%d are kept", n)
		}
		for _, u := range honest {
			if i, err := r.Status(u); err != nil || i.Status != statusOK {
				t.Errorf("%s: %+v %v", u.Auth, i, err)
			}
		}
	}
}
