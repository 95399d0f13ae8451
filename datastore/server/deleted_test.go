package server

import (
	"reflect"
	"testing"
)

func TestDeletedSnapshots(t *testing.T) {
	l := newLab(t, Options{})
	l.filled()
	const path = tank + "/deleted"
	if list := l.ok(admin, "GET", path, "").([]any); len(list) != 0 {
		t.Errorf("at first: %v", list)
	}
	l.ok(admin, "DELETE", tank+"/snapshots", first)
	for who, want := range map[string][]any{admin: {1000.0}, audit: {1000.0}, owner: {1000.0}, other: nil} {
		list := l.ok(who, "GET", path, "").([]any)
		if got := column(list, "backup-time"); !reflect.DeepEqual(got, want) {
			t.Errorf("%s sees %v", who, list)
		}
	}
	item := l.ok(admin, "GET", path, "").([]any)[0].(map[string]any)
	if left := item["left"].(float64); left < 6*24*3600 || item["backup-id"] != "100" || item["deleted"].(float64) == 0 {
		t.Errorf("%v", item)
	}
	l.want(l.call(nobody, "GET", path, ""), 403, "permission check failed")
	for _, who := range []string{audit, owner, put, nobody} {
		l.want(l.call(who, "POST", path, first), 403, "permission check failed")
		l.want(l.call(who, "DELETE", path, first), 403, "permission check failed")
	}
	l.ok(admin, "POST", path, first)
	l.want(l.call(admin, "POST", path, first), 400, "not in the trash")
	if list := l.ok(admin, "GET", path, "").([]any); len(list) != 0 {
		t.Errorf("after it came back: %v", list)
	}
	l.ok(admin, "DELETE", tank+"/snapshots", first)
	l.ok(admin, "DELETE", path, first)
	if list := l.ok(admin, "GET", path, "").([]any); len(list) != 0 {
		t.Errorf("after it went for good: %v", list)
	}
}
