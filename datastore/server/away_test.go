package server

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"holdfast/datastore"
	"holdfast/datastore/access"
	"holdfast/datastore/wire"
)

// unplugged adds a datastore whose disk is not mounted: its directory is there
// and empty.
func unplugged(t *testing.T, a *access.Store) (path string) {
	t.Helper()
	path = t.TempDir()
	if err := a.AddDatastore(access.Datastore{Name: "usb", Path: path}); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestADiskThatIsAwayStopsNoOtherBackup(t *testing.T) {
	l := newSessionLab(t)
	path := unplugged(t, l.access)
	for _, subject := range []string{"alice@pbs", "putter@pbs!key"} {
		l.must(l.access.SetQuota(access.Quota{Subject: subject, BytesMax: 100_000}))
	}
	l.simple("alice", "vm/100", 1000)
	l.simple("putter", "vm/101", 1000)

	// What it held counts as long as it is away.
	l.must(errors.Join(os.Remove(path), datastore.Create(path, datastore.CreateOptions{TrashDays: datastore.TrashDaysDefault})))
	if _, err := l.server.usedBy(t.Context(), "alice@pbs"); err != nil {
		t.Fatal(err)
	}
	l.server.host.quotas.Remember("alice@pbs", "usb", 99_000)
	l.must(errors.Join(l.server.retire("usb"), os.RemoveAll(path)))
	if used, err := l.server.usedBy(t.Context(), "alice@pbs"); err != nil || used < 99_000 {
		t.Errorf("used: %d, %v", used, err)
	}
}

func TestADiskThatIsAwayHasNoSpace(t *testing.T) {
	l := newLab(t, Options{})
	l.tank()
	unplugged(t, l.access)
	page := l.request(audit, "GET", "/metrics", nil, nil).text
	for text, want := range map[string]bool{
		`holdfast_datastore_bytes{datastore="tank",kind="total"}`: true, `holdfast_datastore_bytes{datastore="usb"`: false,
		`holdfast_datastore_up{datastore="tank"} 1`: true, `holdfast_datastore_up{datastore="usb"} 0`: true,
	} {
		if strings.Contains(page, text) != want {
			t.Errorf("/metrics has %s: %v", text, !want)
		}
	}
	for _, item := range l.ok(audit, "GET", "/status/datastore-usage", "").([]any) {
		m := item.(map[string]any)
		if away := m["store"] == "usb"; away != (m["error"] != nil) || away == (m["total"] != nil) {
			t.Errorf("usage: %v", m)
		}
	}
	l.want(l.call(audit, "GET", "/admin/datastore/usb/status", ""), 400, "no Holdfast store")
}

func TestARefusedDatastoreLeavesNothingBehind(t *testing.T) {
	l := newLab(t, Options{})
	tank := l.tank().Path()
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(tank, link); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{
		"inside":         filepath.Join(tank, "below"),
		"deep":           filepath.Join(tank, "ns", "a", "b"),
		"through a link": filepath.Join(link, "below"),
	} {
		a := l.call(admin, "POST", "/config/datastore", "name=second&path="+path)
		if a.code == 200 && l.wait(a.body["data"]) == "OK" {
			t.Errorf("%s: made", name)
		}
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s: a directory is left behind", name)
		}
		if err := datastore.Create(path, datastore.CreateOptions{TrashDays: datastore.TrashDaysDefault}); !errors.Is(err, wire.ErrExists) {
			t.Errorf("%s, without a server: %v", name, err)
		}
	}
	if list := l.ok(admin, "GET", "/config/datastore", "").([]any); len(list) != 1 {
		t.Errorf("datastores: %v", list)
	}
}
