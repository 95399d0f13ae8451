package interop

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"holdfast/tests/harness"
)

// stamp is the time of a snapshot in its text form.
func (s snap) stamp() string { return time.Unix(s.time, 0).UTC().Format("2006-01-02T15:04:05Z") }

// task is an element of the task list, section 4.8.
type task struct {
	UPID      string `json:"upid"`
	Node      string `json:"node"`
	PID       int64  `json:"pid"`
	PStart    int64  `json:"pstart"`
	StartTime int64  `json:"starttime"`
	Type      string `json:"worker_type"`
	ID        string `json:"worker_id"`
	User      string `json:"user"`
	EndTime   *int64 `json:"endtime"`
	Status    string `json:"status"`
}

// state is the state of one task.
type state struct {
	UPID, Node, Type, ID, User, TokenID, Status, ExitStatus string
	PID, PStart, StartTime                                  int64
}

// upidForm is section 5.1.
var upidForm = regexp.MustCompile(`^UPID:[A-Za-z0-9][A-Za-z0-9-]*:[0-9A-F]{8}:[0-9A-F]{8,9}:[0-9A-F]{8,16}:[0-9A-F]{8}:[^\s:/]+:[A-Za-z0-9_.\\-]*:[^:\s]+:$`)

// taskPath is the path of a task, encoded as the reference client does.
func taskPath(upid string) string {
	var b strings.Builder
	for _, c := range []byte(upid) {
		if c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return "/nodes/localhost/tasks/" + b.String()
}

// await waits for the end of a task and returns how it ended.
func (w *world) await(t testing.TB, as identity, upid string) string {
	t.Helper()
	var st state
	harness.Eventually(t, "the end of "+upid, func() bool {
		st = state{}
		w.rest(as).get(t, taskPath(upid)+"/status").into(t, &st)
		return st.Status == "stopped"
	})
	return st.ExitStatus
}

// log is the answer of the task log with its members beside the data.
type log struct {
	Lines []struct {
		N int    `json:"n"`
		T string `json:"t"`
	} `json:"data"`
	Total   *int  `json:"total"`
	Active  *bool `json:"active"`
	Success any   `json:"success"`
}

func (w *world) log(t testing.TB, as identity, upid string, kv ...string) log {
	t.Helper()
	a := w.rest(as).get(t, taskPath(upid)+"/log", kv...)
	a.envelope(t)
	var l log
	decode(t, a.body, &l)
	if l.Total == nil {
		t.Fatalf("a log without total: %s", a)
	}
	return l
}

func TestTaskOfABackup(t *testing.T) {
	t.Parallel()
	s := newGroup("vm")
	b := server.backup(t, server.alice1, s)
	find := func() task {
		var all []task
		server.rest(server.alice).get(t, "/nodes/localhost/tasks", "typefilter", "backup", "limit", "0", "store", store).into(t, &all)
		for _, k := range all {
			if k.ID == store+":vm/"+s.id {
				return k
			}
		}
		t.Fatalf("no task of %s among %d", s.key(), len(all))
		return task{}
	}
	k := find()
	if !upidForm.MatchString(k.UPID) || !strings.HasSuffix(k.UPID, `:backup:tank\x3avm-`+s.id+":alice@pbs!t1:") {
		t.Errorf("the task is %s", k.UPID)
	}
	if k.User != "alice@pbs!t1" || k.Type != "backup" || k.Node == "" || k.EndTime != nil || k.Status != "" {
		t.Errorf("a running task is listed as %s", indent(k))
	}
	path := taskPath(k.UPID)
	var st state
	if server.rest(server.alice).get(t, path+"/status").into(t, &st); st.Status != "running" || st.ExitStatus != "" || st.User != "alice@pbs" || st.TokenID != "t1" ||
		st.Type != "backup" || st.ID != k.ID || st.UPID != k.UPID || st.StartTime != k.StartTime || st.PID != k.PID || st.PStart != k.PStart {
		t.Errorf("its state is %s", indent(st))
	}
	if l := server.log(t, server.alice, k.UPID, "start", "1", "limit", "500", "test-status", "true"); l.Active == nil || !*l.Active || len(l.Lines) == 0 || l.Lines[0].N != 1 {
		t.Errorf("its log is %s", indent(l))
	}
	server.rest(server.bob).get(t, path+"/status").refused(t, 403)
	server.rest(server.bob).get(t, path+"/log").refused(t, 403)
	server.rest(server.alice2).get(t, path+"/status").refused(t, 403)
	server.rest(server.bob).query(t, "DELETE", path).refused(t, 403)
	b.commit(t, b.archive(t, "root.pxar.didx", small(1)...))
	if end := server.await(t, server.alice1, k.UPID); end != "OK" {
		t.Errorf("the task ended with %q", end)
	}
	if k = find(); k.EndTime == nil || k.Status != "OK" {
		t.Errorf("an ended task is listed as %s", indent(k))
	}
	l := server.log(t, server.alice, k.UPID, "start", "0", "limit", "0")
	last := l.Lines[len(l.Lines)-1].T
	if !strings.HasSuffix(last, ": TASK OK") || last[25:27] != ": " || l.Active != nil {
		t.Errorf("the log ends with %q, active %v", last, l.Active)
	}
	if _, err := time.Parse(time.RFC3339, last[:25]); err != nil {
		t.Error(err)
	}
	server.rest(server.alice).query(t, "DELETE", path).null(t) // ended: no effect
}

// Aborting a task is like losing the connection.
func TestTaskAbort(t *testing.T) {
	harness.Long(t)
	t.Parallel()
	s := newGroup("ct")
	b := server.backup(t, server.alice, s)
	b.archive(t, "root.pxar.didx", small(1)...)
	var all []task
	server.rest(server.alice).get(t, "/nodes/localhost/tasks", "running", "true", "limit", "0").into(t, &all)
	for _, k := range all {
		if k.EndTime != nil {
			t.Errorf("listed as running: %s", indent(k))
		}
		if k.ID == store+":ct/"+s.id {
			server.rest(server.alice).query(t, "DELETE", taskPath(k.UPID)).null(t)
			if end := server.await(t, server.alice, k.UPID); end == "OK" || end == "" {
				t.Errorf("an aborted task ended with %q", end)
			}
			b.ended()
			server.gone(t, s)
			return
		}
	}
	t.Fatal("no task to abort")
}

func TestTaskList(t *testing.T) {
	t.Parallel()
	s := newGroup("host")
	for i := range int64(4) {
		server.snapshot(t, server.bob, s.later(i))
	}
	bob := server.rest(server.bob)
	page := func(kv ...string) ([]task, int) {
		a := bob.get(t, "/nodes/localhost/tasks", kv...)
		a.envelope(t)
		var got struct {
			Data  []task `json:"data"`
			Total *int   `json:"total"`
		}
		decode(t, a.body, &got)
		if got.Total == nil || got.Data == nil {
			t.Fatalf("no total or no list: %s", a)
		}
		for _, k := range got.Data {
			if !strings.HasPrefix(k.User, "bob@pbs") {
				t.Errorf("bob sees %s", k.UPID)
			}
		}
		return got.Data, *got.Total
	}
	server.idle(t, server.bob)
	all, total := page("limit", "0")
	if len(all) < 4 || total < len(all) {
		t.Fatalf("%d tasks, total %d", len(all), total)
	}
	for i := 1; i < len(all); i++ {
		if all[i-1].EndTime != nil && all[i].StartTime > all[i-1].StartTime {
			t.Error("the list is not newest first")
		}
	}
	first, total := page("start", "0", "limit", "2")
	if len(first) != 2 || total != 3 {
		t.Errorf("a full page has %d tasks, total %d", len(first), total)
	}
	if none, _ := page("start", "1000000", "limit", "2"); len(none) != 0 {
		t.Errorf("a page behind the end has %d tasks", len(none))
	}
	for filter, want := range map[string]bool{"typefilter=back": true, "typefilter=reader": false, "store=tank": true, "store=attic": false, "userfilter=bob": true,
		"userfilter=alice": false, "statusfilter=ok": true, "statusfilter=error": false, "statusfilter=ok&statusfilter=error": true, "running=true": false, "errors=1": false,
		"since=4000000000": false, "until=1000000000": false, "since=1": true, "start=0&limit=50&running=false&store=tank&userfilter=bob%40pbs": true} {
		v, err := url.ParseQuery(filter)
		if err != nil {
			t.Fatal(err)
		}
		var kv []string
		for k, many := range v {
			for _, one := range many {
				kv = append(kv, k, one)
			}
		}
		if got, _ := page(kv...); (len(got) > 0) != want && filter != "running=true" && filter != "errors=1" && filter != "statusfilter=error" {
			t.Errorf("%s: %d tasks", filter, len(got))
		}
	}
	bob.get(t, "/nodes/localhost/tasks", "statusfilter", "purple").refused(t, 400, "statusfilter")
	bob.get(t, "/nodes/localhost/tasks", "limit", "-1").refused(t, 400, "limit")
}

// idle waits until no task of an identity runs.
func (w *world) idle(t testing.TB, as identity) {
	t.Helper()
	harness.Eventually(t, "the end of all tasks of "+as.id, func() bool {
		var all []task
		w.rest(as).get(t, "/nodes/localhost/tasks", "running", "true", "userfilter", as.id).into(t, &all)
		return len(all) == 0
	})
}

// The paging of logs, with the loop of the reference client.
func TestTaskLog(t *testing.T) {
	t.Parallel()
	s := newGroup("host")
	for i := range int64(5) {
		server.snapshot(t, server.alice, s.later(i))
	}
	var upid string
	server.rest(server.alice).json(t, "POST", s.at("/verify"), map[string]any{"backup-type": s.kind, "backup-id": s.id}).into(t, &upid)
	if !upidForm.MatchString(upid) || !strings.Contains(upid, `:verify_group:tank\x3a-host-`+s.id+":alice@pbs:") {
		t.Errorf("the task is %s", upid)
	}
	if end := server.await(t, server.alice, upid); end != "OK" {
		t.Fatalf("verify ended with %q", end)
	}
	whole := server.log(t, server.alice, upid, "limit", "0", "test-status", "1")
	n := len(whole.Lines)
	if n < 3 || *whole.Total != n || whole.Active == nil || *whole.Active {
		t.Fatalf("the log is %s", indent(whole))
	}
	for i, l := range whole.Lines {
		if l.N != i+1 || strings.HasSuffix(l.T, "\n") {
			t.Errorf("line %d is %+v", i+1, l)
		}
	}
	for _, c := range []struct{ start, limit, from, lines int }{{0, 2, 1, 2}, {1, 2, 1, 2}, {2, 2, 2, 2}, {n, 500, n, 1}, {n + 1, 500, 0, 0}, {n + 100, 5, 0, 0}, {2, 0, 2, n - 1}} {
		l := server.log(t, server.alice, upid, "start", fmt.Sprint(c.start), "limit", fmt.Sprint(c.limit))
		if *l.Total != n || len(l.Lines) != c.lines || l.Lines == nil || c.lines > 0 && l.Lines[0].N != c.from {
			t.Errorf("start %d limit %d: %s", c.start, c.limit, indent(l))
		}
	}
	a := server.rest(server.alice).get(t, taskPath(upid)+"/log", "download", "1").want(t, 200)
	if !strings.Contains(a.header.Get("Content-Disposition"), "attachment") || strings.Count(string(a.body), "\n") != n || !strings.HasPrefix(a.header.Get("Content-Type"), "text/plain") {
		t.Errorf("the log as a file: %v %q", a.header, a.body)
	}
	server.rest(server.alice).get(t, taskPath(upid)+"/log", "download", "1", "limit", "5").refused(t, 400)

	unknown := "UPID:localhost:000004D2:0001A2B3:0000000F:6638B280:backup:tank\\x3avm-100:alice@pbs:"
	var st state
	if server.rest(server.alice).get(t, taskPath(unknown)+"/status").into(t, &st); st.Status != "stopped" || st.ExitStatus != "unknown" {
		t.Errorf("a task that never was: %+v", st)
	}
	server.rest(server.alice).get(t, taskPath(unknown)+"/log").refused(t, 400)
	for _, bad := range []string{"x", "UPID:", "UPID:../../etc/passwd:", strings.Replace(unknown, "tank", "../tank", 1), unknown + "x"} {
		server.rest(server.alice).get(t, taskPath(bad)+"/status").want(t, 400, 404)
		server.rest(server.alice).get(t, taskPath(bad)+"/log").want(t, 400, 404)
	}
}
