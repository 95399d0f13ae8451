package abuse

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptrace"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"holdfast/tests/harness"
)

// Sessions that begin as many indexes as they may leave others the files that they need:
// who begins more than its share is told so.
func TestOpenIndexesLeaveFilesToOthers(t *testing.T) {
	harness.Long(t)
	t.Parallel()
	w := start(t, setup{files: 4096})
	const sessions, each = 20, 256
	begun := 0
	last := func() (a answer) {
		for i := range sessions {
			s := w.session(t, w.mallory, backupProtocol, snap{"host", fmt.Sprint("index", i), began})
			for j := range each {
				if a = s.do(t, message{method: "POST", path: "/dynamic_index", kv: []string{"archive-name", fmt.Sprintf("a%d.didx", j)}}); a.status != 200 {
					return a
				}
				begun++
			}
		}
		return a
	}()
	if last.status != 429 {
		t.Errorf("after %d indexes: %s", begun, last)
	}
	w.undisturbed(t, atLeast(2))
}

// What an interrupted session has sent may be a long list. To ask for it in many requests
// at once takes no memory beyond the bound.
func TestLongListsToResume(t *testing.T) {
	harness.Long(t)
	t.Parallel()
	w := start(t, setup{})
	of := snap{"host", "resume", began}
	s := w.session(t, w.mallory, backupProtocol, of)
	wid, err := s.createIndex("a.didx")
	if err != nil {
		t.Fatal(err)
	}
	s.do(t, chunkMessage("dynamic", wid, plainChunk([]byte("one of many")))).want(t, 200)
	s.Close()
	var list string
	harness.Eventually(t, "the list of the interrupted session", func() bool {
		found, err := filepath.Glob(filepath.Join(w.data, "datastores", store, ".resume", "*-*"))
		if err != nil || len(found) != 1 {
			return false
		}
		list = found[0]
		return true
	})
	const head, record, records = 48, 36, 300_000
	lengthen(t, list, head, record, records)
	s = w.session(t, w.mallory, backupProtocol, of)
	var all sync.WaitGroup
	var whole atomic.Int64
	for range 60 {
		all.Go(func() {
			a, err := s.try(message{method: "GET", path: "/holdfast/resume"})
			switch {
			case err != nil:
				t.Error(err)
			case a.status == 200 && len(a.body) >= record && len(a.body)%record == 0:
				whole.Add(1)
			case a.status != 400:
				t.Error(a.status, len(a.body))
			}
		})
	}
	all.Wait()
	if whole.Load() == 0 {
		t.Error("nobody got the list")
	}
}

// lengthen repeats the first record of a list.
func lengthen(t testing.TB, path string, head, record, records int) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(raw) != head+record {
		t.Fatalf("the list has %d bytes", len(raw))
	}
	more := strings.Repeat(string(raw[head:]), records)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err == nil {
		_, err = f.WriteString(more)
	}
	if err = errors.Join(err, f.Close()); err != nil && !errors.Is(err, fs.ErrClosed) {
		t.Fatal(err)
	}
}

// Chunks of a few bytes that take long to check keep only their own sender waiting: one
// that somebody else sends later is checked before most of them.
func TestCostlyChunksStopNobody(t *testing.T) {
	harness.Long(t)
	t.Parallel()
	w := start(t, setup{})
	const sessions, each = 4, 100
	costly := zstdChunk(make([]byte, chunkMax))
	theirs := w.session(t, w.alice, backupProtocol, snap{"host", "alice", began})
	own, err := theirs.createIndex("a.didx")
	if err != nil {
		t.Fatal(err)
	}
	var sent sync.WaitGroup
	sent.Add(sessions * each)
	var all sync.WaitGroup
	var answered atomic.Int64
	for i := range sessions {
		s := w.session(t, w.mallory, backupProtocol, snap{"host", fmt.Sprint("costly", i), began})
		wid, err := s.createIndex("a.didx")
		if err != nil {
			t.Fatal(err)
		}
		for range each {
			all.Go(func() {
				var once sync.Once
				said := func() { once.Do(sent.Done) }
				defer said()
				trace := &httptrace.ClientTrace{WroteRequest: func(httptrace.WroteRequestInfo) { said() }}
				if code, err := s.traced(trace, chunkMessage("dynamic", wid, costly)); err != nil || code != http.StatusOK {
					t.Errorf("%d, %v", code, err)
				}
				answered.Add(1)
			})
		}
	}
	sent.Wait()
	theirs.do(t, chunkMessage("dynamic", own, plainChunk([]byte("cheap")))).want(t, 200)
	before := answered.Load()
	all.Wait()
	t.Logf("%d of %d were answered before", before, sessions*each)
	if before > sessions*each*3/4 {
		t.Errorf("a cheap chunk was answered after %d of %d that had been sent before", before, sessions*each)
	}
}

// traced sends a request and tells what it is answered.
func (s *session) traced(trace *httptrace.ClientTrace, m message) (code int, err error) {
	ctx, cancel := context.WithTimeout(httptrace.WithClientTrace(context.Background(), trace), patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, m.method, "https://localhost:8007"+m.path+"?"+pairs(m.kv), strings.NewReader(string(m.body)))
	if err != nil {
		return 0, err
	}
	a, err := s.h2.RoundTrip(r)
	if err != nil {
		return 0, err
	}
	return a.StatusCode, a.Body.Close()
}

// Lists and logs that are asked for and never read take no memory beyond the bound,
// however long they are.
func TestUnreadLogs(t *testing.T) {
	harness.Long(t)
	t.Parallel()
	w := start(t, setup{})
	s := w.session(t, w.mallory, backupProtocol, snap{"host", "chatter", began})
	for range 4000 {
		s.do(t, message{method: "GET", path: "/" + strings.Repeat("x", 200)}).refused(t)
	}
	var tasks []struct{ UPID string }
	w.ask(t, w.mallory, "GET", "/nodes/localhost/tasks", "running", "1").into(t, &tasks)
	if len(tasks) != 1 {
		t.Fatalf("%d tasks", len(tasks))
	}
	path := "/nodes/localhost/tasks/" + strings.ReplaceAll(tasks[0].UPID, ":", "%3A") + "/log"
	if n := len(w.ask(t, w.mallory, "GET", path, "limit", "0").want(t, 200).body); n < 512<<10 {
		t.Errorf("the log has %d bytes, the test proves little", n)
	}
	const readers = 200
	for range readers {
		c, err := dial("127.0.0.2", w.address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.reset)
		c.raw.SetReadBuffer(4 << 10)
		fmt.Fprint(c, head(w.mallory, "GET", path, "limit", "0")+"\r\n")
	}
	w.undisturbed(t, atLeast(2))
}

// Streams that are open and on which nothing moves take little memory each, whatever they
// are for.
func TestStreamsThatRest(t *testing.T) {
	harness.Long(t)
	t.Parallel()
	const sessions, streams = 96, 128
	of, a := snap{"host", "rest", began}, archive{"root.pxar.didx", nil}
	for i := range 50 {
		a.chunks = append(a.chunks, plainChunk(noise(uint64(i), 100)))
	}
	long := a
	for range 5000 / 50 {
		long.chunks = append(long.chunks, a.chunks...)
	}
	for name, tc := range map[string]struct {
		protocol, method, path string
		ahead                  []byte // of a body
	}{
		"speed tests that are sent":     {backupProtocol, "POST", "/speedtest", []byte{1}},
		"speed tests that are received": {readerProtocol, "GET", "/speedtest", nil},
		"indexes that are received":     {readerProtocol, "GET", "/download?file-name=" + a.name, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := start(t, setup{})
			if err := w.backup(w.mallory, of, long); err != nil {
				t.Fatal(err)
			}
			var all sync.WaitGroup
			places := make(chan struct{}, 8)
			for i := range sessions {
				all.Go(func() {
					places <- struct{}{}
					defer func() { <-places }()
					s := of
					if tc.protocol == backupProtocol {
						s = snap{"host", fmt.Sprint("rest", i), began}
					}
					c, f, err := deaf("127.0.0.2", w.address, upgradeRequest(w.mallory, tc.protocol, s))
					if err != nil {
						t.Error(err)
						return
					}
					t.Cleanup(c.reset)
					h := newHeaders()
					c.SetDeadline(time.Now().Add(patience))
					for i := range streams {
						stream := uint32(2*i + 1)
						f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, EndHeaders: true, EndStream: tc.ahead == nil, BlockFragment: h.block(tc.method, tc.path)})
						if tc.ahead != nil {
							f.WriteData(stream, false, tc.ahead)
						}
					}
					c.SetDeadline(time.Time{})
				})
			}
			all.Wait()
			w.undisturbed(t, atLeast(2))
		})
	}
}
