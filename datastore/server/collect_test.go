package server

import (
	"context"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"holdfast/chunkstore"
	"holdfast/chunkstore/pack"
	"holdfast/datastore/task"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
)

// logOf is the log of a task.
func (l *lab) logOf(upid any) string {
	l.t.Helper()
	return l.call(admin, "GET", "/nodes/localhost/tasks/"+url.PathEscape(upid.(string))+"/log", "limit=0").text
}

func TestCollection(t *testing.T) {
	l := newLab(t, Options{})
	if err := os.MkdirAll(filepath.Join(l.dir, "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	l.filled()
	before := l.ok(admin, "GET", tank+"/gc", "").(map[string]any)
	if before["upid"] != nil || before["store"] != "tank" || before["disk-chunks"] != 0.0 || before["last-run-state"] != nil {
		t.Errorf("before: %v", before)
	}
	l.want(l.call(audit, "POST", tank+"/gc", ""), 403, "")
	l.want(l.call(owner, "GET", tank+"/gc", ""), 403, "")
	l.want(l.call(admin, "POST", tank+"/gc", "colour=red"), 400, "'colour'")

	upid := l.ok(admin, "POST", tank+"/gc", "")
	if s := l.wait(upid); s != "OK" || !strings.Contains(upid.(string), ":garbage_collection:tank:") {
		t.Errorf("%v ended: %s", upid, s)
	}
	after := l.ok(audit, "GET", tank+"/gc", "").(map[string]any)
	for name, want := range map[string]any{
		"upid": upid, "store": "tank", "last-run-state": "OK", "index-file-count": 5.0, "index-data-bytes": 55.0, "disk-chunks": 2.0,
		"removed-chunks": 0.0, "removed-bytes": 0.0, "pending-chunks": 0.0, "pending-bytes": 0.0, "removed-bad": 0.0, "still-bad": 0.0,
	} {
		if after[name] != want {
			t.Errorf("%s is %v, want %v", name, after[name], want)
		}
	}
	if n, ok := after["disk-bytes"].(float64); !ok || n <= 0 {
		t.Errorf("disk-bytes: %v", after["disk-bytes"])
	}
	if _, ok := after["duration"].(float64); !ok || after["last-run-endtime"].(float64) <= 0 {
		t.Errorf("after: %v", after)
	}
	status := l.ok(admin, "GET", tank+"/status", "verbose=1").(map[string]any)["gc-status"].(map[string]any)
	if status["upid"] != upid || status["disk-chunks"] != 2.0 {
		t.Errorf("status: %v", status)
	}
	if text := l.logOf(upid); !strings.Contains(text, "5 indexes") || !strings.Contains(text, "stored: 2 chunks of") {
		t.Errorf("log: %s", text)
	}
	for range 2 { // the second is what a restart reads
		if last := openCollections(l.server.file("collections.json"), slog.New(slog.DiscardHandler)).last("tank"); last.UPID == nil || *last.UPID != upid {
			t.Errorf("after a restart: %+v", last)
		}
	}
	// The chunks are still there.
	l.want(l.call(owner, "GET", tank+"/download-decoded", first+"&file-name=disk.img.didx"), 200, "hello world")
}

func TestCollectionRemoves(t *testing.T) {
	l := newLab(t, Options{})
	l.filled()
	// Not by way of a method: what is removed may come back, and keeps its chunks.
	for _, dir := range []string{"vm", "ns"} {
		if err := os.RemoveAll(filepath.Join(l.dir, "tank", dir)); err != nil {
			t.Fatal(err)
		}
	}
	empty := l.ok(admin, "POST", tank+"/gc", "")
	if s := l.wait(empty); !strings.Contains(s, "no snapshot was found") {
		t.Errorf("a store without snapshots: %s", s)
	}
	if text := l.logOf(empty); !strings.Contains(text, "stored: 2 chunks of") || !strings.Contains(text, "0 chunks removed: 0 packs removed whole") {
		t.Errorf("a refused collection says: %s", text)
	}
	if last := l.ok(admin, "GET", tank+"/gc", "").(map[string]any); !strings.Contains(last["last-run-state"].(string), "no snapshot was found") ||
		last["removed-chunks"] != 0.0 || last["removed-bytes"] != 0.0 || last["pending-chunks"] != 2.0 {
		t.Errorf("the state is %v", last)
	}
	refused := l.ok(admin, "GET", tank+"/gc", "").(map[string]any)["upid"]
	dry := l.ok(admin, "POST", tank+"/gc", "allow-empty=1&dry-run=1")
	if s := l.wait(dry); s != "OK" || !strings.Contains(l.logOf(dry), "would be removed") {
		t.Errorf("dry run: %s\n%s", s, l.logOf(dry))
	}
	if last := l.ok(admin, "GET", tank+"/gc", "").(map[string]any); last["upid"] != refused {
		t.Errorf("a dry run became the last collection: %v", last)
	}
	sealPacks(t, l.server, filepath.Join(l.dir, "tank"))
	if s := l.wait(l.ok(admin, "POST", tank+"/gc", "allow-empty=1")); s != "OK" {
		t.Errorf("ended: %s", s)
	}
	last := l.ok(admin, "GET", tank+"/gc", "").(map[string]any)
	if last["removed-chunks"] != 2.0 || last["removed-bytes"].(float64) <= 0 || last["disk-chunks"] != 0.0 {
		t.Errorf("removed: %v", last)
	}
	if left := l.ok(admin, "POST", tank+"/gc", "allow-empty=1"); l.wait(left) != "OK" || !strings.Contains(l.logOf(left), "stored: 0 chunks of 0 B") {
		t.Errorf("afterwards: %s", l.logOf(left))
	}
}

// TestCollectionThatFails must not tell of chunks that it has not come to.
func TestCollectionThatFails(t *testing.T) {
	l := newLab(t, Options{})
	st := l.filled()
	index := filepath.Join(st.Path(), "vm", "100", wire.Snapshot{Time: 2000}.TimeString(), "disk.img.didx")
	if err := os.Truncate(index, 100); err != nil {
		t.Fatal(err)
	}
	upid := l.ok(admin, "POST", tank+"/gc", "")
	status, text := l.wait(upid), l.logOf(upid)
	if status == "OK" || !strings.Contains(text, "no chunk was removed") || strings.Contains(text, "stored: ") || strings.Contains(text, "rewritten") {
		t.Errorf("%s\n%s", status, text)
	}
}

func TestOneCollectionAtATime(t *testing.T) {
	c := openCollections("", slog.New(slog.DiscardHandler))
	if !c.begin("a") || c.begin("a") || !c.begin("b") {
		t.Error("collections do not exclude each other by datastore")
	}
	c.end("a", nil)
	if !c.begin("a") || c.last("a").State != "" {
		t.Error("one that came to nothing left something behind")
	}
}

func TestCollectionsFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "collections.json")
	open := func() *collections { return openCollections(path, slog.New(slog.DiscardHandler)) }
	c := open()
	c.begin("a")
	c.end("a", &api.Collection{State: "OK", End: 7})
	c.end("b", &api.Collection{State: "broken", End: 8})
	if a := open().last("a"); a.State != "OK" || a.End != 7 {
		t.Errorf("read back: %+v", a)
	}
	c.forget("a")
	if a, b := open().last("a"), open().last("b"); a.State != "" || b.State != "broken" {
		t.Errorf("after forgetting: %+v, %+v", a, b)
	}
	if err := os.WriteFile(path, []byte(`{"b":7}`), 0o600); err != nil {
		t.Fatal(err)
	}
	c = open() // damage does not keep the server from starting
	if b := c.last("b"); b.State != "" {
		t.Errorf("from a damaged file: %+v", b)
	}
	c.end("b", &api.Collection{State: "OK"})
	if b := open().last("b"); b.State != "OK" {
		t.Errorf("after the damage: %+v", b)
	}
}

// sweepAll removes every chunk that no session counts on. begin is called when
// the sweep has begun, before it looks.
func (l *sessionLab) sweepAll(begin func()) {
	l.t.Helper()
	sw, err := l.store().BeginSweep(context.Background())
	l.must(err)
	defer sw.Close()
	begin()
	_, err = sw.Run(context.Background(), func(chunkstore.Key) bool { return false }, pack.SweepOptions{Waste: 0.01})
	l.must(err)
}

// stored counts those of a list that the store has.
func (l *sessionLab) stored(list []entry) (n int) {
	for _, e := range list {
		if l.store().Check(context.Background(), e.bit.key("alice@pbs")) == nil {
			n++
		}
	}
	return n
}

// What a session has been told it may refer to is safe from a sweep that does
// not know its snapshot, whichever of the two was first.
func TestKnownChunksAreKept(t *testing.T) {
	for name, first := range map[string]string{"registered before the sweep": "session", "registered during the sweep": "sweep"} {
		t.Run(name, func(t *testing.T) {
			l := newSessionLab(t)
			list, others := l.simple("alice", "vm/100", 1000), l.simple("bob", "vm/200", 1001)
			l.endedAll("backup")
			sealPacks(t, l.server, filepath.Join(l.dir, "tank"))
			k := l.begin(backupOf("alice", "vm/100", 2000))
			register := func() { k.raw(get("/previous", "archive-name", "disk.img.didx")) }
			if first == "session" {
				register()
				l.sweepAll(func() {})
			} else {
				l.sweepAll(register)
			}
			if n := l.stored(list); n != len(list) {
				t.Errorf("%d of %d chunks are left that the session counts on", n, len(list))
			}
			if n := l.stored(others); n != 0 {
				t.Errorf("%d chunks of others were not swept: the test proves nothing", n)
			}
			k.data(post("/dynamic_index", "archive-name", "disk.img.didx"))
			k.data(appendOf("dynamic", 1, list...))
			s := summaryOf("dynamic", list...)
			k.data(closeOf("dynamic", 1, s))
			k.data(blobUpload(wire.ManifestName, l.manifestOf("vm/100", 2000, indexFile("disk.img.didx", s))))
			k.data(post("/finish"))
		})
	}
}

// The chunks of an interrupted session are garbage until the next one resumes.
func TestResumedChunksAreKept(t *testing.T) {
	l := newSessionLab(t)
	k := l.begin(backupOf("alice", "vm/100", 1000))
	list := k.archive("a.didx", 1)
	k.conn.Close()
	l.endedAll("backup")
	sealPacks(t, l.server, filepath.Join(l.dir, "tank"))
	k = l.begin(backupOf("alice", "vm/100", 2000))
	l.sweepAll(func() { k.raw(get(wire.ResumePath)) })
	if n := l.stored(list); n != len(list) {
		t.Errorf("%d of %d chunks are left", n, len(list))
	}
	k.conn.Close()
	l.endedAll("backup")
	l.sweepAll(func() {})
	if n := l.stored(list); n != 0 {
		t.Errorf("%d chunks stay for a session that has ended", n)
	}
}

// sealPacks closes the datastore tank in dir as if its process had been killed:
// the pack that was being written is sealed when it is opened again, and may be
// swept.
func sealPacks(t *testing.T, s *Server, dir string) {
	t.Helper()
	err := s.retire("tank")
	for deadline := time.Now().Add(testWait); err != nil && time.Now().Before(deadline); err = s.retire("tank") {
		time.Sleep(5 * time.Millisecond)
	}
	if err == nil {
		err = os.Remove(filepath.Join(dir, ".chunks", "epoch"))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// endedAll waits until no task of a type runs.
func (l *sessionLab) endedAll(kind string) {
	l.t.Helper()
	for deadline := time.Now().Add(testWait); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		list, err := l.tasks.List(task.Filter{Type: kind, Running: true})
		l.must(err)
		if len(list) == 0 {
			return
		}
	}
	l.t.Fatalf("%s tasks do not end", kind)
}
