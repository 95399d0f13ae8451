package interop

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"holdfast/tests/harness"
)

// The checks before a reader session, section 3.1.
func TestReaderRefused(t *testing.T) {
	t.Parallel()
	w, s := server, newGroup("host")
	w.snapshot(t, w.alice, s)
	in := func(ns string) snap { o := s; o.ns = ns; return o }
	of := func(id string) snap { o := s; o.id = id; return o }
	for name, c := range map[string]struct {
		as    identity
		snap  snap
		more  []string
		want  int
		words []string
	}{
		"nobody":            {nobody, s, nil, 401, []string{"authentication failed"}},
		"no rights":         {w.dora, s, nil, 400, []string{"no permissions on"}},
		"another owner":     {w.bob, s, nil, 400, []string{"backup owner check failed"}},
		"benchmark":         {w.alice, s, []string{"benchmark", "false"}, 400, []string{"benchmark"}},
		"unknown parameter": {w.alice, s, []string{"colour", "blue"}, 400, []string{"colour"}},
		"no such time":      {w.alice, s.later(1), nil, 400, nil},
		"no such group":     {w.carol, of("nothing"), nil, 400, nil},
		"no such namespace": {w.carol, in("no/where"), nil, 400, nil},
		"hostile group":     {w.alice, of("../" + s.id), nil, 400, []string{"backup-id"}},
	} {
		_, a := w.tryReader(t, c.as, c.snap, c.more...)
		if a.refused(t, c.want, c.words...); t.Failed() {
			t.Logf("%s", name)
		}
	}
	_, a := w.session(t, s, upgrade("reader", backupProtocol, w.alice, s.params("store", store)...))
	a.refused(t, 400, "invalid protocol name")
	running := w.backup(t, w.alice, s.later(1))
	_, a = w.tryReader(t, w.alice, s.later(1))
	a.refused(t, 400)
	running.hangUp()
}

// What a reader may get, section 3.2.
func TestReaderEndpoints(t *testing.T) {
	harness.Long(t)
	t.Parallel()
	s := newGroup("vm")
	b := server.backup(t, server.alice, s)
	files := []chunk{newZstd(make([]byte, fixedSize)), newChunk(noise(31, fixedSize)), newChunk(noise(32, 1))}
	other := small(33)
	b.commit(t, b.archive(t, "disk.img.fidx", files...), b.archive(t, "root.pxar.didx", other...), b.file(t, "a.conf.blob", plainBlob([]byte("a"))))

	r := server.reader(t, server.alice, s)
	r.do(t, "GET", "/download", nil, "file-name", "none.blob").refused(t, 404)
	r.do(t, "GET", "/download", nil, "file-name", "none.fidx").refused(t, 400)
	r.do(t, "GET", "/download", nil, "file-name", "none.didx").refused(t, 400)
	for _, name := range []string{"owner", "../owner", "..", ".blob", "a/b.blob", "a.conf", "../" + s.id + "/a.conf.blob", "root.pxar.tmp_didx"} {
		r.do(t, "GET", "/download", nil, "file-name", name).refused(t, 400)
	}
	r.do(t, "GET", "/download", nil).refused(t, 400, "file-name")
	r.do(t, "GET", "/chunk", nil, "digest", strings.ToUpper(digestOf(nil))).refused(t, 400, "digest")
	r.do(t, "GET", "/chunk", nil).refused(t, 400, "digest")
	r.do(t, "GET", "/no_such_thing", nil).refused(t, 404)
	r.do(t, "POST", "/finish", nil).refused(t, 404)
	if a := r.do(t, "GET", "/speedtest", nil).want(t, 200); !bytes.Equal(a.body, bytes.Repeat([]byte("A"), 1<<20)) {
		t.Errorf("the speed test sent %d bytes", len(a.body))
	}
	r.do(t, "GET", "/download", nil, "file-name", "disk.img.fidx").want(t, 200)
	r.do(t, "GET", "/chunk", nil, "digest", other[0].digest).refused(t, 401, "not allowed") // of another archive
	r.do(t, "GET", "/chunk", nil, "digest", digestOf([]byte("nowhere"))).refused(t, 401)

	var all sync.WaitGroup
	for range 20 { // as a pull does
		for _, c := range files {
			all.Go(func() {
				a, err := r.try("GET", "/chunk", nil, "digest", c.digest)
				if err != nil || a.status != 200 || digestOf(openBlob(t, a.body)) != c.digest {
					t.Errorf("%v %s", err, a)
				}
			})
		}
	}
	all.Wait()
	second := server.reader(t, server.carol, s) // two readers at a time
	second.do(t, "GET", "/download", nil, "file-name", manifestName).want(t, 200)
	server.rest(server.alice).query(t, "DELETE", s.at("/snapshots"), s.params()...).refused(t, 400)
	r.hangUp()
	second.hangUp()
	harness.Eventually(t, "the end of the readers", func() bool {
		return server.rest(server.alice).query(t, "DELETE", s.at("/snapshots"), s.params()...).status == 200
	})
}

// The rules of benchmarks, section 2.10.
func TestBenchmark(t *testing.T) { // not parallel: there is one such group
	s := snap{store: store, kind: "host", id: "benchmark", time: began}
	ask := func(as identity, s snap, flag string) (*session, answer) {
		return server.session(t, s, upgrade("backup", backupProtocol, as, s.params("store", store, "benchmark", flag)...))
	}
	_, a := ask(server.alice, s, "false")
	a.refused(t, 400, "benchmark")
	_, a = server.session(t, s, upgrade("backup", backupProtocol, server.alice, s.params("store", store)...))
	a.refused(t, 400, "benchmark")
	_, a = ask(server.alice, newGroup("host"), "true")
	a.refused(t, 400, "benchmark")
	vm := s
	vm.kind = "vm"
	_, a = ask(server.alice, vm, "true")
	a.refused(t, 400, "benchmark")

	for _, as := range []identity{server.alice, server.bob, server.alice} { // the owner does not matter
		var b *session
		harness.Eventually(t, "the last benchmark", func() bool {
			b, a = ask(as, s, "true")
			return b != nil
		})
		var all sync.WaitGroup
		for i := range 10 {
			body := make([]byte, i*500_000)
			all.Go(func() {
				a, err := b.try("POST", "/speedtest", body)
				if err != nil || a.status != 200 {
					t.Errorf("%v %s", err, a)
				}
			})
		}
		all.Wait()
		b.do(t, "POST", "/speedtest", []byte("x"), "colour", "blue").refused(t, 400)
		b.hangUp()
	}
	harness.Eventually(t, "an empty group", func() bool {
		var all []listed
		server.rest(server.admin).get(t, s.at("/snapshots"), s.group()...).into(t, &all)
		return len(all) == 0
	})
	var tasks []task
	harness.Eventually(t, "a benchmark that ended well", func() bool {
		server.rest(server.admin).get(t, "/nodes/localhost/tasks", "typefilter", "benchmark", "limit", "1").into(t, &tasks)
		return len(tasks) == 1 && tasks[0].Status == "OK"
	})
}

// Damage in the store is found by verify, and a snapshot that failed is no
// base, section 2.1 step 9.
func TestFailedVerify(t *testing.T) {
	t.Parallel()
	s := newGroup("host")
	server.snapshot(t, server.alice, s)
	server.snapshot(t, server.alice, s.later(10))
	good := server.verify(t, s)
	if good != "OK" {
		t.Fatalf("verify of good snapshots says %q", good)
	}
	if v := server.list(t, s)[s.time+10].Verification; v["state"] != "ok" || !strings.HasPrefix(v["upid"], "UPID:") {
		t.Errorf("verified is listed as %v", v)
	}
	server.damage(t, s.later(10), "a.conf.blob")
	if text := server.verify(t, s); !strings.Contains(text, "verification failed") {
		t.Errorf("verify of a damaged snapshot says %q", text)
	}
	l := server.list(t, s)
	if v := l[s.time+10].Verification; v["state"] != "failed" {
		t.Errorf("damaged is listed as %v", v)
	}
	if v := l[s.time].Verification; v["state"] != "ok" {
		t.Errorf("good is listed as %v", v)
	}
	b := server.backup(t, server.alice, s.later(5)) // older than the last one, which does not count
	b.do(t, "GET", "/previous_backup_time", nil).null(t)
	b.do(t, "GET", "/previous", nil, "archive-name", manifestName).refused(t, 400, "no valid previous backup")
}

// verify runs a verification of a group and returns how it ended.
func (w *world) verify(t testing.TB, s snap) string {
	t.Helper()
	var upid string
	w.rest(w.admin).json(t, "POST", s.at("/verify"), map[string]any{"backup-type": s.kind, "backup-id": s.id, "ignore-verified": false}).into(t, &upid)
	return w.await(t, w.admin, upid)
}

// damage changes a byte in a file of a snapshot, behind the back of the server.
func (w *world) damage(t testing.TB, s snap, name string) {
	t.Helper()
	found := 0
	filepath.WalkDir(w.data, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() != name || !strings.Contains(path, "/"+s.id+"/") {
			return nil
		}
		if stamp := filepath.Base(filepath.Dir(path)); stamp != s.stamp() {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)-1] ^= 1
		os.Chmod(path, 0o600)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		found++
		return nil
	})
	if found != 1 {
		t.Fatalf("%d files %s of %s/%s in the data directory", found, name, s.key(), s.stamp())
	}
}

// indent shows a value for messages.
func indent(v any) string {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(b)
}
