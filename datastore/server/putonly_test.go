package server

import (
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"holdfast/chunkstore"
	"holdfast/chunkstore/pack"
	"holdfast/datastore"
	"holdfast/datastore/access"
	"holdfast/datastore/gc"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
)

// Whoever has got hold of a token for putting only can neither read what was
// backed up nor take it away, be it the token's own.
func TestPutOnlyOverREST(t *testing.T) {
	l := newLab(t, Options{})
	l.filled()
	before := l.ok(admin, "GET", tank+"/snapshots", "")
	const group, notMine = "backup-type=vm&backup-id=300", "backup-type=vm&backup-id=100"
	for _, what := range []struct{ verb, path, params string }{
		{"GET", "/files", ""}, {"GET", "/download", "file-name=disk.img.didx"}, {"GET", "/download", "file-name=index.json.blob"},
		{"GET", "/download-decoded", "file-name=disk.img.didx"}, {"GET", "/notes", ""}, {"PUT", "/notes", "notes=x"},
		{"GET", "/protected", ""}, {"PUT", "/protected", "protected=1"}, {"DELETE", "/snapshots", ""},
	} {
		for _, g := range []string{group, notMine} {
			l.want(l.call(put, what.verb, tank+what.path, g+"&backup-time=1000&"+what.params), 403, "permission check failed")
		}
	}
	for _, what := range []struct{ verb, path, params string }{
		{"DELETE", "/groups", group}, {"DELETE", "/groups", notMine}, {"POST", "/prune", group + "&keep-last=1"}, {"POST", "/prune", notMine + "&keep-last=1"},
		{"POST", "/prune-datastore", "keep-last=1"}, {"POST", "/verify", ""}, {"POST", "/verify", group}, {"POST", "/gc", ""}, {"GET", "/gc", ""},
		{"GET", "/group-notes", group}, {"PUT", "/group-notes", group + "&notes=x"}, {"POST", "/namespace", "name=x"}, {"DELETE", "/namespace", "ns=a&delete-groups=1"},
	} {
		l.want(l.call(put, what.verb, tank+what.path, what.params), 403, "permission check failed")
	}
	for _, to := range []string{"put@pbs", put, owner} {
		if a := l.call(put, "POST", tank+"/change-owner", group+"&new-owner="+to); a.code != 403 && a.code != 401 {
			t.Errorf("owner to %s: %d %s", to, a.code, a.text)
		}
	}
	if after := l.ok(admin, "GET", tank+"/snapshots", ""); !reflect.DeepEqual(after, before) {
		t.Errorf("something has changed: %v, was %v", after, before)
	}
	l.want(l.call(put, "PUT", "/access/quota", "subject=put@pbs"), 403, "")
	l.want(l.call(put, "DELETE", "/config/datastore/tank", "destroy-data=1"), 403, "")
	l.want(l.call(put, "POST", "/access/users/put@pbs/token/more", ""), 403, "")
}

// Such a token can do all that an incremental backup needs.
func TestPutOnlyIncremental(t *testing.T) {
	l := newSessionLab(t)
	old := l.simple("putter", "vm/100", 1000)
	k := l.begin(backupOf("putter", "vm/100", 2000))
	if got := k.data(get("/previous_backup_time")); got != float64(1000) {
		t.Errorf("previous time %v", got)
	}
	k.raw(get("/previous", "archive-name", wire.ManifestName))
	k.raw(get("/previous", "archive-name", "disk.img.didx"))
	if got := k.raw(get(wire.ResumePath)); len(got) > 0 {
		t.Errorf("%d bytes to resume", len(got))
	}
	fresh := l.bitOf(77, 500)
	list := append(slices.Clone(old), entry{3000, fresh})
	k.data(post("/dynamic_index", "archive-name", "disk.img.didx"))
	k.data(chunkUpload("dynamic", 1, fresh))
	k.data(appendOf("dynamic", 1, list...))
	s := summaryOf("dynamic", list...)
	k.data(closeOf("dynamic", 1, s))
	k.data(blobUpload(wire.ManifestName, l.manifestOf("vm/100", 2000, indexFile("disk.img.didx", s))))
	k.data(post("/finish"))
	k.conn.Close()
	if status := l.ended("backup"); status != "OK" {
		t.Errorf("task: %s", status)
	}
	if got := l.times("vm/100"); !slices.Equal(got, []int64{1000, 2000}) {
		t.Errorf("snapshots: %v", got)
	}
	l.simple("alice", "vm/200", 1000)
	if code, text := l.refused(backupOf("putter", "vm/200", 2000)); code != 400 || !strings.Contains(text, "backup owner check failed") {
		t.Errorf("a backup to the group of another: %d %s", code, text)
	}
	if code, _ := l.refused(backupOf("putter", "vm/100", 2000)); code != 400 {
		t.Errorf("the same snapshot again: %d", code)
	}
	for _, group := range []string{"vm/100", "vm/200"} {
		if code, text := l.refused(readerOf("putter", group, 1000)); code != 400 || !strings.Contains(text, "no permissions") {
			t.Errorf("reading %s: %d %s", group, code, text)
		}
	}
}

// What counts is what is there: a token over its quota begins nothing, and one
// that comes to it in the middle can still finish what fits.
func TestQuotaOfAToken(t *testing.T) {
	l := newSessionLab(t)
	const token = "putter@pbs!key"
	l.must(l.access.SetQuota(access.Quota{Subject: token, BytesMax: 8000 + 6*datastore.FileBytes}))
	l.simple("putter", "vm/100", 1000) // 3000 bytes and three files
	k := l.begin(backupOf("putter", "vm/100", 2000))
	list := k.archive("a.didx", 1)
	k.data(post("/dynamic_index", "archive-name", "b.didx"))
	large := l.bitOf(5, 40000)
	k.refuses(chunkUpload("dynamic", 2, large), 507, token+" may have 32576 bytes in snapshots")
	k.refuses(closeOf("dynamic", 2, summaryOf("dynamic", entry{0, large})), 400, "")
	k.data(blobUpload(wire.ManifestName, l.manifestOf("vm/100", 2000, indexFile("a.didx", summaryOf("dynamic", list...)))))
	k.data(post("/finish"))
	k.conn.Close()
	l.endedAll("backup")
	l.must(l.access.SetQuota(access.Quota{Subject: token, BytesMax: 5000}))
	if code, text := l.refused(backupOf("putter", "vm/100", 3000)); code != 507 || !strings.Contains(text, "may have 5000 bytes in snapshots") {
		t.Errorf("over the quota: %d %s", code, text)
	}
	l.simple("alice", "vm/200", 1000) // others are not meant
	l.must(l.access.SetQuota(access.Quota{Subject: token, SnapshotsPerDay: 2}))
	if code, text := l.refused(backupOf("putter", "vm/101", 1000)); code != 507 || !strings.Contains(text, token+" may add 2 snapshots a day") {
		t.Errorf("the third of the day: %d %s", code, text)
	}
	l.must(l.access.RemoveQuota(token))
	l.simple("putter", "vm/101", 1000)
}

func TestGCStatusOf(t *testing.T) {
	for name, c := range map[string]struct {
		report gc.Report
		want   api.GCStatus
	}{
		"nothing": {},
		"all in use": {gc.Report{Indexes: 2, IndexBytes: 9000, References: 5, SweepReport: pack.SweepReport{Chunks: 3, StoredBytes: 700, UsedChunks: 3, UsedBytes: 700}},
			api.GCStatus{IndexFileCount: 2, IndexDataBytes: 9000, DiskChunks: 3, DiskBytes: 700}},
		"some goes, some stays": {gc.Report{SweepReport: pack.SweepReport{Chunks: 10, StoredBytes: 1000, UsedChunks: 4, UsedBytes: 400,
			ChunksRemoved: 5, BytesRemoved: 900, BytesMoved: 400, Left: []string{"a pack"}}},
			api.GCStatus{DiskChunks: 4, DiskBytes: 400, RemovedChunks: 5, RemovedBytes: 500, PendingChunks: 1, PendingBytes: 100, StillBad: 1}},
		"more written than removed": {gc.Report{SweepReport: pack.SweepReport{Chunks: 2, StoredBytes: 100, UsedChunks: 1, UsedBytes: 90,
			ChunksRemoved: 1, BytesRemoved: 50, BytesMoved: 90}}, api.GCStatus{DiskChunks: 1, DiskBytes: 90, RemovedChunks: 1}},
	} {
		if got := gcStatusOf(c.report); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

// The calls about the base go on when the snapshot is finished (section 2.9 of
// the protocol specification).
func TestPreviousAfterFinish(t *testing.T) {
	l := newSessionLab(t)
	l.simple("alice", "vm/100", 1000)
	k := l.begin(backupOf("alice", "vm/100", 2000))
	list := k.archive("disk.img.didx", 9)
	k.data(blobUpload(wire.ManifestName, l.manifestOf("vm/100", 2000, indexFile("disk.img.didx", summaryOf("dynamic", list...)))))
	k.data(post("/finish"))
	if got := k.data(get("/previous_backup_time")); got != float64(1000) {
		t.Errorf("previous time: %v", got)
	}
	k.raw(get("/previous", "archive-name", wire.ManifestName))
	if raw := k.raw(get("/previous", "archive-name", "disk.img.didx")); len(raw) <= 4096 {
		t.Errorf("an index of %d bytes", len(raw))
	}
}

// A connection that is cut gives everything free without waiting for anything.
func TestVanishedConnection(t *testing.T) {
	l := newSessionLab(t)
	l.simple("alice", "vm/100", 1000)
	base := wire.Snapshot{Group: wire.Group{Type: "vm", ID: "100"}, Time: 1000}
	k := l.begin(backupOf("alice", "vm/100", 2000))
	r := l.begin(readerOf("alice", "vm/100", 1000))
	k.data(post("/dynamic_index", "archive-name", "a.didx"))
	r.raw(get("/download", "file-name", "disk.img.didx"))
	answers := make([]chan string, 5)
	for i := range answers {
		answer, cut := k.stalledUpload(chunkstore.BlobSizeMax / 2)
		defer cut()
		answers[i] = answer
	}
	if err := l.store().Forget(t.Context(), base); err == nil {
		t.Fatal("a base that is read was removed")
	}
	for _, c := range []*talk{k, r} {
		c.conn.(*ahead).cut()
	}
	for _, a := range answers {
		<-a
	}
	l.endedAll("backup")
	l.endedAll("reader")
	l.simple("alice", "vm/100", 2000)
	l.endedAll("backup") // it builds on the base
	l.must(l.store().Forget(t.Context(), base))
	if n := l.server.accounts.Known.Used(); n != 0 {
		t.Errorf("%d chunks are still remembered", n)
	}
}

// What is taken away from a token counts for the sessions it has open.
func TestRevokedWhileASessionRuns(t *testing.T) {
	l := newSessionLab(t)
	l.simple("alice", "vm/200", 1000)
	k, r := l.begin(backupOf("putter", "vm/100", 1000)), l.begin(readerOf("alice", "vm/200", 1000))
	k.archive("a.didx", 1)
	r.raw(get("/download", "file-name", wire.ManifestName))
	l.must(l.access.RevokeToken("putter@pbs!key"))
	l.must(l.access.RevokeToken("alice@pbs!key"))
	k.refuses(post("/dynamic_index", "archive-name", "b.didx"), 403, "taken away")
	k.refuses(post("/finish"), 403, "taken away")
	r.refuses(get("/download", "file-name", wire.ManifestName), 403, "taken away")
	k.conn.Close()
	l.endedAll("backup")
	if got := l.times("vm/100"); len(got) != 0 {
		t.Errorf("snapshots: %v", got)
	}
}

// Who owns a group is told to who may list it, and to nobody else who tries to write to
// it, take it over, read it or go on with it.
func TestOwnerIsNamedToWhoMayAudit(t *testing.T) {
	l := newSessionLab(t)
	l.user("powerful", "DatastoreAdmin")
	l.simple("alice", "vm/100", 1000)
	for who, named := range map[string]bool{"putter": false, "bob": false, "powerful": true} {
		code, text := l.refused(backupOf(who, "vm/100", 2000))
		if code != 400 || !strings.Contains(text, "backup owner check failed ("+who+"@pbs!key ") || strings.Contains(text, "alice") != named {
			t.Errorf("%s is told %d %s", who, code, text)
		}
	}
	k := l.begin(backupOf("bob", "vm/200", 1000))
	l.must(l.store().SetOwner(t.Context(), wire.Group{Type: "vm", ID: "200"}, "alice@pbs!key"))
	_, answer, err := k.send(t.Context(), get("/previous_backup_time"))
	if text := string(answer); err != nil || strings.Contains(text, "alice") || !strings.Contains(text, "owner check failed") {
		t.Errorf("in a session: %s, %v", text, err)
	}
	k.conn.Close()
	l.endedAll("backup")
	refusals := 0
	l.must(filepath.WalkDir(filepath.Join(l.dir, "tasks"), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		for line := range strings.Lines(string(raw)) {
			if strings.Contains(line, "owner check failed") {
				refusals++
				if strings.Contains(line, "alice") {
					t.Errorf("a log of bob's: %s", line)
				}
			}
		}
		return err
	}))
	if refusals == 0 {
		t.Error("no log tells of the refusal")
	}
}
