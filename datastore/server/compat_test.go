package server

import (
	"encoding/json"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"holdfast/datastore/wire"
)

// Where a Proxmox Backup Server has an answer of its own for what is not there,
// this one has the same.
func TestWhatIsNotThere(t *testing.T) {
	l := newLab(t, Options{})
	l.filled()
	const none = "backup-type=vm&backup-id=999"
	for name, tc := range map[string]struct {
		who, verb, path, params string
		code                    int
		text                    string
	}{
		"notes of a missing group":             {admin, "GET", tank + "/group-notes", none, 200, `""`},
		"protection of a missing snapshot":     {admin, "GET", tank + "/protected", none + "&backup-time=1", 200, "false"},
		"notes of a missing snapshot":          {admin, "GET", tank + "/notes", none + "&backup-time=1", 400, ""},
		"a missing namespace goes":             {admin, "DELETE", tank + "/namespace", "ns=none", 200, ""},
		"a missing namespace with its groups":  {admin, "DELETE", tank + "/namespace", "ns=none&delete-groups=1", 400, ""},
		"snapshots of a missing namespace":     {admin, "GET", tank + "/snapshots", "ns=none", 400, ""},
		"snapshots of a group in one":          {admin, "GET", tank + "/snapshots", "ns=none&" + none, 400, ""},
		"snapshots of a missing group":         {admin, "GET", tank + "/snapshots", none, 200, `"data":[]`},
		"status without any right":             {nobody, "GET", tank + "/status", "", 403, "permission check failed"},
		"status of a missing datastore":        {nobody, "GET", "/admin/datastore/missing/status", "", 400, "does not exist"},
		"a stranger's group among snapshots":   {other, "GET", tank + "/snapshots", vm100, 200, `"data":[]`},
		"the subscription that exporters want": {nobody, "GET", "/nodes/localhost/subscription", "", 200, `"status":"notfound"`},
	} {
		t.Run(name, func(t *testing.T) { l.want(l.call(tc.who, tc.verb, tc.path, tc.params), tc.code, tc.text) })
	}
	l.ok(admin, "PUT", "/config/datastore/tank", "maintenance-mode=offline")
	l.want(l.call(nobody, "GET", tank+"/status", ""), 400, "offline maintenance mode")
}

func TestInstanceID(t *testing.T) {
	l := newLab(t, Options{})
	id, _ := l.ok(nobody, "GET", "/nodes/localhost/identity", "").(map[string]any)["pbs-instance-id"].(string)
	if len(id) != 32 || strings.Trim(id, "0123456789abcdef") != "" {
		t.Errorf("%q, want 32 hex digits", id)
	}
}

// A backup that is being made is listed without a size, and only where its group
// may be seen.
func TestARunningBackupIsListedWithoutASize(t *testing.T) {
	l := newSessionLab(t)
	l.simple("alice", "vm/100", 1000)
	list := func(who, params string) []any {
		t.Helper()
		r := httptest.NewRequest("GET", "/api2/json/admin/datastore/tank/snapshots"+params, nil)
		w := httptest.NewRecorder()
		l.server.Handler().ServeHTTP(w, r.WithContext(WithIdentity(r.Context(), wire.AuthID(who+"@pbs!key"))))
		var a struct {
			Data []map[string]any `json:"data"`
		}
		l.must(json.Unmarshal(w.Body.Bytes(), &a))
		var items []any
		for _, m := range a.Data {
			items = append(items, [2]any{m["backup-time"], m["size"] != nil})
		}
		return items
	}
	k := l.begin(backupOf("alice", "vm/100", 2000))
	second := l.begin(backupOf("alice", "vm/101", 3000))
	for params, want := range map[string][]any{
		"": {[2]any{1000.0, true}, [2]any{2000.0, false}, [2]any{3000.0, false}}, "?backup-type=vm&backup-id=101": {[2]any{3000.0, false}},
	} {
		if got := list("alice", params); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %v, want %v", params, got, want)
		}
	}
	if got := list("putter", ""); len(got) > 0 {
		t.Errorf("somebody else sees %v", got)
	}
	k.conn.Close()
	second.conn.Close()
	l.endedAll("backup")
	if got := list("alice", "?backup-type=vm&backup-id=100"); !reflect.DeepEqual(got, []any{[2]any{1000.0, true}}) {
		t.Errorf("after it was broken off: %v", got)
	}
}
