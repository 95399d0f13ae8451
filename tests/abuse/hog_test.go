package abuse

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"holdfast/tests/harness"
)

// One token that asks for as many verifications as it can, each of them long, keeps
// nobody from backing up, and the administrator collects and verifies meanwhile.
func TestTasksOfOneTokenStopNobody(t *testing.T) {
	harness.Long(t)
	t.Parallel()
	w := start(t, setup{})
	w.longArchive(t, snap{"host", "mallory", began})
	c := w.dial(t)
	var last answer
	begun := 0
	for range 1200 {
		a, err := c.say([]byte(head(w.mallory, "POST", "/admin/datastore/"+store+"/verify", "backup-type", "host", "backup-id", "mallory", "ignore-verified", "0", "verify-threads", "1") + "Content-Length: 0\r\n\r\n"))
		if err != nil {
			t.Fatal(err)
		}
		if last = a; a.status != 200 {
			break
		}
		begun++
	}
	if last.status != 429 {
		t.Errorf("after %d verifications: %s", begun, last)
	}
	w.undisturbed(t, atLeast(2))
	for _, work := range []string{"gc", "verify?backup-type=host&backup-id=honest"} {
		path, query, _ := strings.Cut(work, "?")
		kv := strings.FieldsFunc(query, func(r rune) bool { return r == '&' || r == '=' })
		if end, err := w.task(w.admin, "POST", "/admin/datastore/"+store+"/"+path, kv...); err != nil || end != "OK" {
			t.Errorf("%s of the administrator: %q %v", path, end, err)
		}
	}
	var running []any
	w.ask(t, w.admin, "GET", "/nodes/localhost/tasks", "running", "1", "limit", "0", "userfilter", "mallory").into(t, &running)
	if len(running) < begun/2 {
		t.Errorf("%d of %d verifications are still there, the test proves little", len(running), begun)
	}
}

// longArchive makes a snapshot that takes long to verify and little room.
func (w *world) longArchive(t testing.TB, s snap) {
	t.Helper()
	var few, long []chunk
	for i := range 12 {
		few = append(few, plainChunk(noise(uint64(i), chunkMax/2)))
	}
	for range 64 {
		long = append(long, few...)
	}
	if err := w.backup(w.mallory, s, archive{"big.didx", long}); err != nil {
		t.Fatal(err)
	}
}

// trickle is a body that says something and then next to nothing.
type trickle struct {
	ctx   context.Context
	first string
}

// Read implements io.Reader.
func (d *trickle) Read(p []byte) (int, error) {
	if d.first != "" {
		n := copy(p, d.first)
		d.first = d.first[n:]
		return n, nil
	}
	select {
	case <-d.ctx.Done():
		return 0, io.ErrUnexpectedEOF
	case <-time.After(20 * time.Second):
		return copy(p, " "), nil
	}
}

// Lists of entries that drip, on as many streams as there may be, keep nobody from
// appending to an index.
func TestDrippingListsStopNobody(t *testing.T) {
	harness.Long(t)
	t.Parallel()
	w := start(t, setup{})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var sessions []*session
	for i := range 8 {
		s := w.session(t, w.mallory, backupProtocol, snap{"host", fmt.Sprint("drip", i), began})
		if _, err := s.createIndex("root.pxar.didx"); err != nil {
			t.Fatal(err)
		}
		sessions = append(sessions, s)
	}
	for _, s := range sessions {
		for range 100 {
			go func() {
				r, err := http.NewRequestWithContext(ctx, "PUT", "https://localhost:8007/dynamic_index", &trickle{ctx, "{"})
				if err != nil {
					return
				}
				r.Header.Set("Content-Type", jsonType)
				if resp, err := s.h2.RoundTrip(r); err == nil {
					resp.Body.Close()
				}
			}()
		}
	}
	time.Sleep(time.Second)
	w.undisturbed(t, atLeast(2))
}

// Logs that drip in take no place for downloads from anybody.
func TestDrippingLogsStopNobody(t *testing.T) {
	harness.Long(t)
	t.Parallel()
	w := start(t, setup{})
	a := archive{"root.pxar.didx", []chunk{plainChunk(noise(1, 5000))}}
	own, theirs := snap{"host", "alice", began}, snap{"host", "mallory", began}
	if err := w.backup(w.alice, own, a); err != nil {
		t.Fatal(err)
	}
	if err := w.backup(w.mallory, theirs, a); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		c, err := dial("127.0.0.2", w.address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.reset)
		io.WriteString(c, head(w.mallory, "POST", "/admin/datastore/"+store+"/upload-backup-log", theirs.params()...)+"Content-Type: application/octet-stream\r\nContent-Length: "+strconv.Itoa(chunkMax)+"\r\n\r\n")
		c.Write(make([]byte, 100<<10))
	}
	time.Sleep(time.Second)
	for how, file := range map[string]string{"/download": manifestName, "/download-decoded": a.name} {
		w.ask(t, w.alice, "GET", "/admin/datastore/"+store+how, own.params("file-name", file)...).want(t, 200)
	}
}

// unfolding is a manifest that takes thousands of times its length when it is read.
func unfolding(s snap, files ...entry) []byte {
	const members = 30_000
	var b strings.Builder
	for i := range members {
		fmt.Fprintf(&b, `"%x":1,`, i)
	}
	return []byte(strings.Replace(string(manifestOf(s, files...)), `"unprotected":{}`, `"unprotected":{`+b.String()+`"last":1}`, 1))
}

// Who reads a snapshot whose manifest unfolds, or has it read by the server, in as many
// sessions and requests as he may have, holds no memory beyond the bound, and others
// back up meanwhile.
func TestReadersOfManifestsThatUnfold(t *testing.T) {
	harness.Long(t)
	t.Parallel()
	w := start(t, setup{})
	of, a := snap{"host", "unfold", began}, archive{"root.pxar.didx", []chunk{plainChunk(noise(1, 5000))}}
	s := w.session(t, w.mallory, backupProtocol, of)
	e, err := s.put(a, map[string]bool{})
	if err != nil {
		t.Fatal(err)
	}
	s.do(t, blobMessage(manifestName, squeezed(unfolding(of, e)))).want(t, 200)
	s.do(t, finishMessage()).want(t, 200)
	s.Close()
	const sessions, requests = 60, 20
	var open, all sync.WaitGroup
	open.Add(sessions)
	arriving := make(chan struct{}, 8)
	for range sessions {
		all.Go(func() {
			arriving <- struct{}{}
			r, err := w.reader(of)
			<-arriving
			open.Done()
			if err != nil {
				t.Error(err)
				return
			}
			defer r.Close()
			open.Wait() // all of them are there
			// On a slow machine its turn may come after it has gone.
			if got, err := r.try(message{method: "GET", path: "/download", kv: []string{"file-name", a.name}}); err == nil && got.status != 200 {
				t.Error(got)
			}
		})
	}
	open.Wait()
	for range requests {
		all.Go(func() {
			got, err := w.tryAsk("127.0.0.2", w.mallory, "GET", "/admin/datastore/"+store+"/download-decoded", of.params("file-name", a.name)...)
			if err != nil || got.status != 200 && got.status != 503 && got.status != 429 {
				t.Errorf("%s (%v)", got, err)
			}
		})
	}
	w.undisturbed(t, atLeast(1))
	all.Wait()
}

// reader begins a session of mallory that reads.
func (w *world) reader(s snap) (*session, error) {
	return open("", w.address, upgradeRequest(w.mallory, readerProtocol, s))
}

// Manifests that are small when sent and large when read cost their listing no memory
// beyond the bound, and refusing them again and again neither.
func TestManifestsThatUnfold(t *testing.T) {
	harness.Long(t)
	t.Parallel()
	w := start(t, setup{})
	nested := func(values int) []byte {
		m := manifestOf(snap{"host", "unfold", began})
		return []byte(strings.Replace(string(m), `"unprotected":{}`, `"unprotected":{"x":[`+strings.Repeat("1,", values-1)+`1]}`, 1))
	}
	s := w.session(t, w.mallory, backupProtocol, snap{"host", "unfold", began})
	s.do(t, blobMessage(manifestName, squeezed(nested(255_000)))).want(t, 200)
	for range 50 {
		s.do(t, finishMessage()).refused(t)
	}
	s.do(t, blobMessage(manifestName, squeezed(nested(30_000)))).want(t, 200)
	s.do(t, finishMessage()).want(t, 200)
	s.Close()
	answers := make(chan error, 120)
	for range cap(answers) {
		go func() {
			a, err := w.tryAsk("127.0.0.2", w.mallory, "GET", "/admin/datastore/"+store+"/snapshots")
			if err == nil && a.status != 200 && a.status != 429 {
				err = refusal{a}
			}
			answers <- err
		}()
	}
	for range cap(answers) {
		if err := <-answers; err != nil {
			t.Error(err)
		}
	}
}
