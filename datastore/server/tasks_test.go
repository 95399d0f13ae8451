package server

import (
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"holdfast/datastore/task"
	"holdfast/datastore/wire"
)

// ended makes a task with a log of n lines.
func (l *lab) ended(typ, id string, auth wire.AuthID, n int, err error) string {
	l.t.Helper()
	t, beginErr := l.tasks.Begin(l.t.Context(), task.Spec{Type: typ, ID: id, Auth: auth})
	if beginErr != nil {
		l.t.Fatal(beginErr)
	}
	for i := range n {
		t.Logf("line %d", i+1)
	}
	t.End(err)
	return t.UPID().String()
}

func TestTaskListing(t *testing.T) {
	l := newLab(t, Options{})
	l.ended("backup", "tank:vm/100", owner, 1, nil)
	l.ended("backup", "tank:vm/200", other, 1, errors.New("broken"))
	l.ended("garbage_collection", "tank", "root@pam", 1, nil)
	list := func(who, params string) string {
		return fmt.Sprint(len(l.ok(who, "GET", "/nodes/localhost/tasks", params).([]any)))
	}
	for _, tc := range []struct{ who, params, want string }{
		{admin, "", "3"}, {audit, "", "3"}, {owner, "", "1"}, {nobody, "", "0"}, {admin, "limit=2", "2"}, {admin, "start=2", "1"},
		{admin, "typefilter=backup", "2"}, {admin, "userfilter=owner", "1"}, {admin, "errors=1", "1"}, {admin, "store=tank", "3"},
		{admin, "statusfilter=ok&statusfilter=error", "3"}, {admin, "statusfilter=error", "1"}, {admin, "since=99999999999", "0"},
		{admin, "start=0&limit=50&running=true&store=tank&userfilter=root", "0"}, {admin, "running=0&limit=0", "3"},
	} {
		if got := list(tc.who, tc.params); got != tc.want {
			t.Errorf("%s %s: %s, want %s", tc.who, tc.params, got, tc.want)
		}
	}
	a := l.call(admin, "GET", "/nodes/pbs1/tasks", "limit=1")
	item := a.body["data"].([]any)[0].(map[string]any)
	if a.body["total"] != 2.0 || item["node"] != "localhost" || item["worker_type"] != "garbage_collection" || item["status"] != "OK" || item["endtime"] == nil {
		t.Errorf("listing: %s", a.text)
	}
	l.want(l.call(admin, "GET", "/nodes/localhost/tasks", "statusfilter=odd"), 400, "'statusfilter'")
	l.want(l.call(admin, "GET", "/nodes/localhost/tasks", "limit=-1"), 400, "'limit'")
	l.want(l.call(admin, "GET", "/nodes/localhost/tasks", "store=../x"), 400, "'store'")
}

func TestTaskStatusAndLog(t *testing.T) {
	l := newLab(t, Options{})
	id := "/nodes/localhost/tasks/" + url.PathEscape(l.ended("backup", "tank:vm/100", owner, 9, errors.New("broken")))
	s := l.ok(owner, "GET", id+"/status", "").(map[string]any)
	if s["status"] != "stopped" || s["exitstatus"] != "broken" || s["user"] != "owner@pbs" || s["tokenid"] != "tok" || s["id"] != "tank:vm/100" || s["node"] != "pbs1" {
		t.Errorf("status: %v", s)
	}
	a := l.call(owner, "GET", id+"/log", "start=1&limit=500&test-status=true")
	lines := a.body["data"].([]any)
	if a.body["total"] != 10.0 || a.body["active"] != false || a.body["success"] != 1.0 || len(lines) != 10 {
		t.Fatalf("log: %s", a.text)
	}
	for i, line := range lines {
		if line.(map[string]any)["n"] != float64(i+1) {
			t.Errorf("line %d: %v", i+1, line)
		}
	}
	if text := lines[9].(map[string]any)["t"].(string); !strings.HasSuffix(text, ": TASK ERROR: broken") {
		t.Errorf("last line: %q", text)
	}
	a = l.call(owner, "GET", id+"/log", "start=4&limit=2")
	if got := column(a.body["data"], "n"); !reflect.DeepEqual(got, []any{4.0, 5.0}) || a.body["active"] != nil {
		t.Errorf("a page: %s", a.text)
	}
	a = l.call(owner, "GET", id+"/log", "start=99")
	if a.body["total"] != 10.0 || !strings.Contains(a.text, `"data":[]`) {
		t.Errorf("beyond the end: %s", a.text)
	}
	a = l.call(owner, "GET", id+"/log", "download=1")
	if strings.Count(a.text, "\n") != 10 || !strings.HasPrefix(a.header.Get("Content-Disposition"), "attachment") {
		t.Errorf("download: %v %q", a.header, a.text)
	}
	l.want(l.call(owner, "GET", id+"/log", "download=1&start=1"), 400, "cannot be combined")
	l.want(l.call(other, "GET", id+"/status", ""), 403, "")
	l.want(l.call(other, "GET", id+"/log", ""), 403, "")
	l.want(l.call(other, "DELETE", id, ""), 403, "")
	l.want(l.call(owner, "DELETE", id, ""), 200, "null")
	l.want(l.call(owner, "GET", id, ""), 200, "log")

	none := wire.UPID{Node: "pbs1", PID: 1, Type: "backup", ID: "x", Auth: owner}
	id = "/nodes/localhost/tasks/" + url.PathEscape(none.String())
	s = l.ok(owner, "GET", id+"/status", "").(map[string]any)
	if s["status"] != "stopped" || s["exitstatus"] != "unknown" {
		t.Errorf("a task that is not known: %v", s)
	}
	l.want(l.call(owner, "GET", id+"/log", ""), 400, "")
	l.want(l.call(owner, "GET", "/nodes/localhost/tasks/UPID:x/status", ""), 400, "'upid'")
}

func TestStopTask(t *testing.T) {
	l := newLab(t, Options{})
	upid, err := l.tasks.Go(task.Spec{Type: "verify", ID: "tank", Auth: owner}, func(t *task.Task) error {
		<-t.Context().Done()
		return t.Context().Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	id := "/nodes/localhost/tasks/" + url.PathEscape(upid.String())
	if s := l.ok(owner, "GET", id+"/status", "").(map[string]any); s["status"] != "running" || s["exitstatus"] != nil {
		t.Errorf("running: %v", s)
	}
	l.want(l.call(owner, "GET", id+"/log", "test-status=1"), 200, `"active":true`)
	l.want(l.call(audit, "DELETE", id, ""), 403, "")
	l.ok(owner, "DELETE", id, "")
	if s := l.wait(upid.String()); s != "abort requested - aborting task" {
		t.Errorf("stopped: %s", s)
	}
}

func TestNode(t *testing.T) {
	l := newLab(t, Options{Fingerprint: "ab:cd"})
	s := l.ok(audit, "GET", "/nodes/localhost/status", "").(map[string]any)
	if s["info"].(map[string]any)["fingerprint"] != "ab:cd" || len(s["loadavg"].([]any)) != 3 || s["memory"].(map[string]any)["total"].(float64) <= 0 {
		t.Errorf("status: %v", s)
	}
	l.want(l.call(nobody, "GET", "/nodes/localhost/status", ""), 403, "")
	if got := column(l.ok(audit, "GET", "/nodes", ""), "node"); !reflect.DeepEqual(got, []any{"localhost"}) {
		t.Errorf("nodes: %v", got)
	}
}
