package server

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"holdfast/chunkstore/blob"
	"holdfast/datastore/access"
	"holdfast/datastore/wire"
)

const (
	tank  = "/admin/datastore/tank"
	vm100 = "backup-type=vm&backup-id=100"
	first = vm100 + "&backup-time=1000"
)

func TestDatastoreListAndStatus(t *testing.T) {
	l := newLab(t, Options{})
	l.filled()
	for who, n := range map[string]int{admin: 1, owner: 1, put: 1, deep: 1, nobody: 0} {
		if list := l.ok(who, "GET", "/admin/datastore", "").([]any); len(list) != n {
			t.Errorf("%s sees %v", who, list)
		}
	}
	if list := l.ok(deep, "GET", "/admin/datastore", ""); !reflect.DeepEqual(column(list, "comment"), []any{nil}) {
		t.Errorf("comment below: %v", list)
	}
	whole := l.ok(owner, "GET", tank+"/status", "").(map[string]any)
	if whole["total"].(float64) <= 0 || whole["gc-status"] != nil || whole["counts"] != nil {
		t.Errorf("status: %v", whole)
	}
	if s := l.ok(deep, "GET", tank+"/status", "").(map[string]any); s["total"] != 0.0 || s["used"] != 0.0 || s["avail"] != 0.0 {
		t.Errorf("status for who sees something below: %v", s)
	}
	l.want(l.call(nobody, "GET", tank+"/status", ""), 403, "permission check failed")
	l.want(l.call(nobody, "GET", "/admin/datastore/nosuch/status", ""), 400, "does not exist")
	l.want(l.call(admin, "GET", "/admin/datastore/nosuch/status", ""), 400, "does not exist")
	counts := l.ok(admin, "GET", tank+"/status", "verbose=1").(map[string]any)["counts"].(map[string]any)
	want := map[string]any{
		"vm": map[string]any{"groups": 3.0, "snapshots": 4.0}, "ct": map[string]any{"groups": 1.0, "snapshots": 1.0}, "host": nil, "other": nil,
	}
	if !reflect.DeepEqual(counts, want) {
		t.Errorf("counts: %v", counts)
	}
	usage := l.ok(admin, "GET", "/status/datastore-usage", "").([]any)
	if len(usage) != 1 || usage[0].(map[string]any)["avail"] == nil {
		t.Errorf("usage: %v", usage)
	}
	if ops := l.ok(admin, "GET", tank+"/active-operations", "").(map[string]any); ops["write"] != 0.0 {
		t.Errorf("active: %v", ops)
	}
}

func TestListingsAreFiltered(t *testing.T) {
	l := newLab(t, Options{})
	l.filled()
	for who, want := range map[string][]any{admin: {"100", "200", "300"}, audit: {"100", "200", "300"}, owner: {"100"}, other: nil, put: {"300"}} {
		for _, path := range []string{"/groups", "/snapshots"} {
			got := column(l.ok(who, "GET", tank+path, "ns="), "backup-id")
			slices.SortFunc(got, func(a, b any) int { return strings.Compare(a.(string), b.(string)) })
			if got = slices.Compact(got); !reflect.DeepEqual(got, want) {
				t.Errorf("%s%s: %v, want %v", who, path, got, want)
			}
		}
	}
	l.want(l.call(deep, "GET", tank+"/groups", ""), 403, "missing Datastore.Audit|Datastore.Backup|Datastore.Put on /datastore/tank")
	if got := column(l.ok(deep, "GET", tank+"/groups", "ns=a/b"), "backup-type"); !reflect.DeepEqual(got, []any{"ct"}) {
		t.Errorf("below: %v", got)
	}
	l.want(l.call(admin, "GET", tank+"/groups", "ns=no"), 400, "not found")
	l.want(l.call(admin, "GET", tank+"/groups", "ns=../x"), 400, "'ns'")
	if a := l.call(admin, "GET", tank+"/snapshots", "backup-type=host"); !strings.Contains(a.text, `"data":[]`) {
		t.Errorf("no such type: %s", a.text)
	}
	g := l.ok(admin, "GET", tank+"/groups", "").([]any)[0].(map[string]any)
	files := fmt.Sprint(g["files"])
	if g["backup-count"] != 2.0 || g["last-backup"] != 2000.0 || g["owner"] != owner || !strings.Contains(files, "disk.img.didx") {
		t.Errorf("group: %v", g)
	}
}

func TestSnapshotListing(t *testing.T) {
	l := newLab(t, Options{})
	l.filled()
	list := l.ok(owner, "GET", tank+"/snapshots", vm100).([]any)
	if len(list) != 2 {
		t.Fatalf("%v", list)
	}
	s := list[0].(map[string]any)
	files := s["files"].([]any)
	last := files[len(files)-1].(map[string]any)
	if last["filename"] != "index.json.blob" || last["crypt-mode"] != "none" || last["size"].(float64) <= 0 {
		t.Errorf("manifest: %v", last)
	}
	sum := 0.0
	for _, f := range files {
		sum += f.(map[string]any)["size"].(float64)
	}
	if s["size"] != sum || s["protected"] != false || s["owner"] != owner || s["verification"] != nil {
		t.Errorf("snapshot: %v, sizes add up to %v", s, sum)
	}
	if got := l.ok(owner, "GET", tank+"/files", first); !reflect.DeepEqual(got, s["files"]) {
		t.Errorf("files: %v, want %v", got, s["files"])
	}
	l.want(l.call(other, "GET", tank+"/files", first), 400, "backup owner check failed ("+other+" is not the owner)")
	l.want(l.call(put, "GET", tank+"/files", "backup-type=vm&backup-id=300&backup-time=1000"), 403, "missing")
	l.want(l.call(owner, "GET", tank+"/files", vm100+"&backup-time=7"), 400, "not found")
	for _, bad := range []string{"backup-time=0", "backup-time=-1", "backup-time=99999999999999", "backup-id=../x", "backup-id=", "backup-type=qemu"} {
		l.want(l.call(owner, "GET", tank+"/files", bad), 400, "parameter verification failed")
	}
}

func TestNotesAndProtection(t *testing.T) {
	l := newLab(t, Options{})
	l.filled()
	if n := l.ok(owner, "GET", tank+"/notes", first); n != "" {
		t.Errorf("notes: %q", n)
	}
	l.ok(owner, "PUT", tank+"/notes", first+"&notes="+url.QueryEscape("web01\nsecond"))
	if n := l.ok(audit, "GET", tank+"/notes", first); n != "web01\nsecond" {
		t.Errorf("notes: %q", n)
	}
	if got := column(l.ok(owner, "GET", tank+"/snapshots", vm100), "comment"); !slices.Contains(got, any("web01")) {
		t.Errorf("comments: %v", got)
	}
	l.want(l.call(audit, "PUT", tank+"/notes", first+"&notes=x"), 403, "")
	l.want(l.call(other, "PUT", tank+"/notes", first+"&notes=x"), 400, "owner check failed")
	l.want(l.call(owner, "PUT", tank+"/notes", first+"&notes="+strings.Repeat("x", 64<<10+1)), 400, "'notes'")
	l.want(l.call(owner, "GET", tank+"/protected", first), 200, `{"data":false}`)
	l.want(l.call(owner, "PUT", tank+"/protected", first+"&protected=1"), 200, `{"data":null}`)
	l.want(l.call(owner, "GET", tank+"/protected", first), 200, `{"data":true}`)
	l.want(l.call(owner, "DELETE", tank+"/snapshots", first), 400, "cannot remove protected snapshot")
	l.want(l.call(owner, "DELETE", tank+"/groups", vm100), 400, "only partially deleted")
	if got := column(l.ok(owner, "GET", tank+"/snapshots", vm100), "backup-time"); !reflect.DeepEqual(got, []any{1000.0}) {
		t.Errorf("what is left: %v", got)
	}
	l.ok(owner, "DELETE", tank+"/groups", vm100+"&error-on-protected=0")
	l.ok(owner, "PUT", tank+"/protected", first+"&protected=0")
	r := l.ok(owner, "DELETE", tank+"/groups", vm100).(map[string]any)
	if r["removed-groups"] != 1.0 || r["removed-snapshots"] != 1.0 || r["protected-snapshots"] != 0.0 {
		t.Errorf("removed: %v", r)
	}
	l.ok(admin, "PUT", tank+"/group-notes", "backup-type=vm&backup-id=200&notes=group+note")
	if n := l.ok(audit, "GET", tank+"/group-notes", "backup-type=vm&backup-id=200"); n != "group note" {
		t.Errorf("group notes: %q", n)
	}
}

func TestDeleteSnapshot(t *testing.T) {
	l := newLab(t, Options{})
	l.filled()
	l.want(l.call(audit, "DELETE", tank+"/snapshots", first), 403, "")
	l.want(l.call(other, "DELETE", tank+"/snapshots", first), 400, "owner check failed")
	l.want(l.call(put, "DELETE", tank+"/snapshots", "backup-type=vm&backup-id=300&backup-time=1000"), 403, "")
	l.ok(owner, "DELETE", tank+"/snapshots", first)
	l.want(l.call(owner, "DELETE", tank+"/snapshots", first), 400, "not found")
}

func TestChangeOwner(t *testing.T) {
	l := newLab(t, Options{})
	st := l.filled()
	l.want(l.call(owner, "POST", tank+"/change-owner", vm100+"&new-owner=other@pbs"), 401, "permission to change owner")
	l.want(l.call(owner, "POST", tank+"/change-owner", vm100+"&new-owner=owner@pbs"), 401, "permission to change owner") // never a token
	l.want(l.call(admin, "POST", tank+"/change-owner", vm100+"&new-owner=no@pbs"), 400, "inactive")
	l.want(l.call(admin, "POST", tank+"/change-owner", vm100+"&new-owner=owner@pbs!none"), 400, "inactive")
	l.ok(admin, "POST", tank+"/change-owner", vm100+"&new-owner="+other)
	if o, err := st.Owner(wire.Group{Type: "vm", ID: "100"}); err != nil || o != other {
		t.Errorf("owner: %v %v", o, err)
	}
	l.want(l.call(admin, "POST", tank+"/change-owner", "backup-type=vm&backup-id=999&new-owner="+other), 400, "")
}

func TestDownloads(t *testing.T) {
	l := newLab(t, Options{})
	st := l.filled()
	get := func(who, method, file string) reply {
		return l.call(who, "GET", tank+"/"+method, first+"&file-name="+file)
	}
	path := filepath.Join(st.Path(), "vm", "100", wire.Snapshot{Time: 1000}.TimeString())
	for _, name := range []string{"disk.img.didx", "index.json.blob"} {
		stored, err := os.ReadFile(filepath.Join(path, name))
		if err != nil {
			t.Fatal(err)
		}
		a := get(owner, "download", name)
		if a.code != 200 || a.text != string(stored) || a.header.Get("Content-Type") != "application/octet-stream" {
			t.Errorf("%s: %d, %d bytes of %d", name, a.code, len(a.text), len(stored))
		}
	}
	l.want(get(owner, "download-decoded", "disk.img.didx"), 200, "hello world")
	l.want(get(owner, "download-decoded", "index.json.blob"), 200, `"backup-type"`)
	for _, m := range []string{"download", "download-decoded"} {
		for _, file := range []string{"no.img.didx", "no.blob", "client.log.blob"} {
			l.want(get(owner, m, file), 400, "")
		}
		for _, file := range []string{"..%2fowner", "owner", ".protected", "a%00.blob"} {
			l.want(get(owner, m, file), 400, "'file-name'")
		}
		l.want(get(other, m, "index.json.blob"), 400, "owner check failed")
		l.want(get(put, m, "index.json.blob"), 403, "")
		l.want(get(audit, m, "index.json.blob"), 403, "")
	}
	l.want(l.call(owner, "GET", tank+"/catalog", first+"&filepath=root"), 404, "not found")
}

func TestUploadLog(t *testing.T) {
	l := newLab(t, Options{})
	l.filled()
	codec, err := blob.NewCodec(blob.Options{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := codec.Encode(nil, []byte("what happened"))
	if err != nil {
		t.Fatal(err)
	}
	send := func(who, params, body string) reply {
		return l.request(who, "POST", "/api2/json"+tank+"/upload-backup-log?"+params, strings.NewReader(body), nil)
	}
	l.want(send(admin, first, string(raw)), 400, "owner check failed")
	l.want(send(audit, first, string(raw)), 403, "")
	l.want(send(owner, first, "garbage, and more of it"), 400, "")
	l.want(send(owner, first, string(raw[:len(raw)-1])+"x"), 400, "")
	l.want(send(owner, vm100+"&backup-time=77", string(raw)), 400, "")
	l.want(send(owner, first, string(raw)), 200, `{"data":null}`)
	l.want(send(owner, first, string(raw)), 400, "already contains a log")
	l.want(l.call(owner, "GET", tank+"/download-decoded", first+"&file-name=client.log.blob"), 200, "what happened")
	l.want(l.call(owner, "GET", tank+"/files", first), 200, `{"filename":"client.log.blob"}`)
}

func TestNamespaces(t *testing.T) {
	l := newLab(t, Options{})
	l.filled()
	list := func(who, params string) string {
		return fmt.Sprint(column(l.ok(who, "GET", tank+"/namespace", params), "ns"))
	}
	for _, tc := range []struct{ who, params, want string }{
		{admin, "", "[ a a/b]"}, {admin, "max-depth=1", "[ a]"}, {admin, "parent=a", "[a a/b]"}, {admin, "parent=a&max-depth=0", "[a]"},
		{deep, "", "[a/b]"}, {admin, "parent=", "[ a a/b]"}, {admin, "parent=none", "[]"},
	} {
		if got := list(tc.who, tc.params); got != tc.want {
			t.Errorf("%s %s: %s, want %s", tc.who, tc.params, got, tc.want)
		}
	}
	l.want(l.call(nobody, "GET", tank+"/namespace", ""), 403, "")
	if ns := l.ok(admin, "POST", tank+"/namespace", "name=eu&parent="); ns != "eu" {
		t.Errorf("created: %v", ns)
	}
	if ns := l.ok(admin, "POST", tank+"/namespace", "name=b&parent=a"); ns != "a/b" {
		t.Errorf("created again: %v", ns)
	}
	l.want(l.call(owner, "POST", tank+"/namespace", "name=x"), 403, "missing Datastore.Modify")
	l.want(l.call(admin, "POST", tank+"/namespace", "name=x&parent=none"), 400, "")
	l.want(l.call(admin, "POST", tank+"/namespace", "name=x&parent=1/2/3/4/5/6/7"), 400, "too deep")
	for _, bad := range []string{"", "..", "a/b", strings.Repeat("x", 33), "%00"} {
		l.want(l.call(admin, "POST", tank+"/namespace", "name="+bad), 400, "'name'")
	}
	l.want(l.call(admin, "DELETE", tank+"/namespace", "ns="), 400, "root namespace")
	l.want(l.call(admin, "DELETE", tank+"/namespace", "ns=a"), 400, "")
	l.want(l.call(owner, "DELETE", tank+"/namespace", "ns=eu"), 403, "")
	l.ok(admin, "DELETE", tank+"/namespace", "ns=eu")
	r := l.ok(admin, "DELETE", tank+"/namespace", "ns=a&delete-groups=1").(map[string]any)
	if r["removed-groups"] != 1.0 || list(admin, "") != "[]" {
		t.Errorf("removed: %v, left %s", r, list(admin, ""))
	}
}

func TestPrune(t *testing.T) {
	l := newLab(t, Options{})
	l.filled()
	got := l.ok(owner, "POST", tank+"/prune", vm100+"&keep-last=1&dry-run=1")
	want := fmt.Sprint([]any{
		map[string]any{"backup-type": "vm", "backup-id": "100", "backup-time": 1000.0, "keep": false, "protected": false},
		map[string]any{"backup-type": "vm", "backup-id": "100", "backup-time": 2000.0, "keep": true, "protected": false},
	})
	if fmt.Sprint(got) != want {
		t.Errorf("dry run: %v", got)
	}
	if n := len(l.ok(owner, "GET", tank+"/snapshots", vm100).([]any)); n != 2 {
		t.Errorf("a dry run left %d", n)
	}
	l.want(l.call(other, "POST", tank+"/prune", vm100+"&keep-last=1"), 400, "owner check failed")
	l.want(l.call(audit, "POST", tank+"/prune", vm100+"&keep-last=1"), 403, "")
	l.want(l.call(owner, "POST", tank+"/prune", vm100+"&keep-last=0"), 400, "'keep-last'")
	l.want(l.call(admin, "POST", tank+"/prune", "backup-type=vm&backup-id=999&keep-last=1"), 400, "")
	l.ok(owner, "POST", tank+"/prune", vm100+"&keep-last=1")
	if got := column(l.ok(owner, "GET", tank+"/snapshots", vm100), "backup-time"); !reflect.DeepEqual(got, []any{2000.0}) {
		t.Errorf("left: %v", got)
	}
	if ids := column(l.ok(owner, "GET", "/nodes/x/tasks", "typefilter=prune"), "worker_id"); !reflect.DeepEqual(ids, []any{"tank::vm/100"}) {
		t.Errorf("tasks: %v", ids)
	}
	if s := l.wait(l.ok(owner, "POST", tank+"/prune", vm100+"&keep-last=1&use-task=1")); s != "OK" {
		t.Errorf("as a task: %s", s)
	}
	l.want(l.call(audit, "POST", tank+"/prune-datastore", "keep-last=1"), 403, "")
	upid := l.ok(admin, "POST", tank+"/prune-datastore", "keep-last=1&dry-run=1")
	if s := l.wait(upid); s != "OK" || !strings.Contains(upid.(string), `:prune:tank\x3a:`) {
		t.Errorf("datastore: %s %v", s, upid)
	}
}

// What is pruned for good is not in the trash, and only who may empty the trash
// may do so.
func TestPruneNow(t *testing.T) {
	l := newLab(t, Options{})
	l.filled()
	l.want(l.call(owner, "POST", tank+"/prune", vm100+"&keep-last=1&now=1"), 403, "")
	l.want(l.call(owner, "POST", tank+"/prune-datastore", "keep-last=1&now=1"), 403, "")
	if n := len(l.ok(owner, "GET", tank+"/snapshots", vm100).([]any)); n != 2 {
		t.Errorf("refused, and left are %d", n)
	}
	l.ok(admin, "POST", tank+"/prune", vm100+"&keep-last=1&now=1&dry-run=1")
	l.ok(admin, "POST", tank+"/prune", vm100+"&keep-last=1&now=1")
	if got := column(l.ok(owner, "GET", tank+"/snapshots", vm100), "backup-time"); !reflect.DeepEqual(got, []any{2000.0}) {
		t.Errorf("left: %v", got)
	}
	if s := l.wait(l.ok(admin, "POST", tank+"/prune-datastore", "keep-last=1&now=1")); s != "OK" {
		t.Errorf("of the datastore: %s", s)
	}
	if trash := l.ok(admin, "GET", tank+"/deleted", "").([]any); len(trash) != 0 {
		t.Errorf("in the trash: %v", trash)
	}
}

func TestVerify(t *testing.T) {
	l := newLab(t, Options{})
	st := l.filled()
	upid := l.ok(owner, "POST", tank+"/verify", first).(string)
	if s := l.wait(upid); s != "OK" || !strings.Contains(upid, `:verify_snapshot:tank\x3a-vm-100-000003E8:`) {
		t.Errorf("%s %s", s, upid)
	}
	states := column(l.ok(owner, "GET", tank+"/snapshots", vm100), "verification")
	if !reflect.DeepEqual(states, []any{map[string]any{"state": "ok", "upid": upid}, nil}) {
		t.Errorf("states: %v", states)
	}
	l.want(l.call(other, "POST", tank+"/verify", vm100), 400, "owner check failed")
	l.want(l.call(put, "POST", tank+"/verify", ""), 403, "")
	l.want(l.call(admin, "POST", tank+"/verify", "backup-type=vm"), 400, "do not specify")
	l.want(l.call(admin, "POST", tank+"/verify", "backup-time=5"), 400, "do not specify")
	if s := l.wait(l.ok(admin, "POST", tank+"/verify", "backup-type=vm&backup-id=999")); s != "OK" {
		t.Errorf("a group that is not there: %s", s)
	}
	// All that are left, and all of them again.
	upid = l.ok(admin, "POST", tank+"/verify", "").(string)
	if s := l.wait(upid); s != "OK" {
		t.Errorf("all: %s", s)
	}
	states = column(l.ok(owner, "GET", tank+"/snapshots", vm100), "verification")
	if states[0].(map[string]any)["upid"] == upid || states[1].(map[string]any)["upid"] != upid {
		t.Errorf("verified again: %v", states)
	}
	index := filepath.Join(st.Path(), "vm", "100", wire.Snapshot{Time: 2000}.TimeString(), "disk.img.didx")
	if err := os.Truncate(index, 100); err != nil {
		t.Fatal(err)
	}
	if s := l.wait(l.ok(owner, "POST", tank+"/verify", vm100+"&ignore-verified=0")); !strings.HasPrefix(s, "verification failed") {
		t.Errorf("damaged: %s", s)
	}
	states = column(l.ok(owner, "GET", tank+"/snapshots", vm100), "verification")
	if states[1].(map[string]any)["state"] != "failed" {
		t.Errorf("damaged: %v", states)
	}
}

func TestDatastoreConfiguration(t *testing.T) {
	l := newLab(t, Options{})
	l.want(l.call(owner, "POST", "/config/datastore", "name=new"), 403, "")
	l.want(l.call(admin, "POST", "/config/datastore", "name=new&path=relative"), 400, "'path'")
	l.want(l.call(admin, "POST", "/config/datastore", "name=new&gc-schedule=daily"), 400, "'gc-schedule'")
	if s := l.wait(l.ok(admin, "POST", "/config/datastore", "name=new&comment=c")); s != "OK" {
		t.Fatalf("create: %s", s)
	}
	path := filepath.Join(l.dir, "data", "datastores", "new")
	conf := l.ok(admin, "GET", "/config/datastore/new", "").(map[string]any)
	if conf["path"] != path || conf["comment"] != "c" {
		t.Errorf("configuration: %v", conf)
	}
	l.want(l.call(admin, "POST", "/config/datastore", "name=new"), 400, "already exists")
	// Neither in the directory of another nor in one below or above it, and
	// nothing is made to find that out.
	for _, other := range []string{path, filepath.Join(path, "below"), filepath.Dir(path)} {
		l.want(l.call(admin, "POST", "/config/datastore", "name=new2&path="+other), 400, "already exists")
	}
	if _, err := os.Stat(filepath.Join(path, "below")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a datastore that was refused has left something: %v", err)
	}
	l.ok(admin, "PUT", "/config/datastore/new", "maintenance-mode=offline&delete=comment")
	l.want(l.call(admin, "GET", "/admin/datastore/new/groups", ""), 400, "offline maintenance mode")
	l.ok(admin, "PUT", "/config/datastore/new", "maintenance-mode=read-only")
	l.ok(admin, "GET", "/admin/datastore/new/groups", "")
	l.want(l.call(admin, "POST", "/admin/datastore/new/namespace", "name=x"), 400, "read-only maintenance mode")
	l.ok(admin, "PUT", "/config/datastore/new", "delete=maintenance-mode")
	l.ok(admin, "POST", "/admin/datastore/new/namespace", "name=x")
	l.want(l.call(admin, "PUT", "/config/datastore/no1", "comment=x"), 404, "")
	l.ok(admin, "DELETE", "/config/datastore/new", "")
	l.want(l.call(admin, "GET", "/config/datastore/new", ""), 404, "")
	if _, err := os.Stat(filepath.Join(path, "holdfast.json")); err != nil {
		t.Errorf("unregistering has removed it: %v", err)
	}
	l.wait(l.ok(admin, "POST", "/config/datastore", "name=new&reuse-datastore=1&path="+path))
	l.ok(admin, "GET", "/admin/datastore/new/groups", "ns=x")
	if s := l.wait(l.ok(admin, "DELETE", "/config/datastore/new", "destroy-data=1")); s != "OK" {
		t.Errorf("destroy: %s", s)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("it is still there: %v", err)
	}
}

func TestDestroyKeepsWhatIsProtectedOrInUse(t *testing.T) {
	l := newLab(t, Options{})
	l.filled()
	l.ok(owner, "PUT", tank+"/protected", first+"&protected=1")
	l.want(l.call(admin, "DELETE", "/config/datastore/tank", "destroy-data=1"), 400, "protected")
	o, err := l.server.use("tank")
	if err != nil {
		t.Fatal(err)
	}
	l.want(l.call(admin, "DELETE", "/config/datastore/tank", ""), 400, "in use")
	l.ok(owner, "GET", tank+"/groups", "")
	o.release()
	if _, err := l.access.Datastore("tank"); err != nil {
		t.Errorf("it has left the list: %v", err)
	}
}

func TestMaintenanceText(t *testing.T) {
	for _, tc := range []struct {
		mode  string
		write bool
		ok    bool
	}{
		{"", true, true}, {"read-only", false, true}, {"read-only", true, false}, {"offline", false, false}, {"offline,message=x", false, false},
	} {
		if err := maintenance(access.Datastore{Name: "tank", Maintenance: tc.mode}, tc.write); (err == nil) != tc.ok {
			t.Errorf("%q, write %v: %v", tc.mode, tc.write, err)
		}
	}
}
