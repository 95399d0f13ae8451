package abuse

import (
	"bytes"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"holdfast/tests/harness"
)

// recorder keeps what a client says inside TLS.
type recorder struct {
	net.Conn
	mu   sync.Mutex
	said []byte
}

// Write implements net.Conn.
func (r *recorder) Write(p []byte) (int, error) {
	r.mu.Lock()
	r.said = append(r.said, p...)
	r.mu.Unlock()
	return r.Conn.Write(p)
}

func (r *recorder) length() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.said)
}

// record makes a small backup and returns what was said, up to the end and all
// of it, and what the snapshot holds.
func (w *world) record(t testing.TB, s snap) (before int, said []byte, files []archive) {
	t.Helper()
	c := w.dial(t)
	tape := &recorder{Conn: c.Conn}
	c.Conn = tape
	h, err := upgrade(c, upgradeRequest(w.mallory, backupProtocol, s))
	if err != nil {
		t.Fatal(err)
	}
	files = []archive{{"root.pxar.didx", []chunk{plainChunk(noise(1, 300)), zstdChunk(bytes.Repeat([]byte("abc"), 500))}},
		{"disk.img.fidx", []chunk{plainChunk(noise(2, 200))}}}
	if err := h.fill(s, files...); err != nil {
		t.Fatal(err)
	}
	before = tape.length()
	h.do(t, finishMessage()).want(t, 200)
	h.Close()
	return before, tape.said, files
}

// replay sends what was recorded, for another group, and loses the connection
// after cut bytes: by a reset, or by closing it.
func (w *world) replay(said []byte, id string, cut int) error {
	said = bytes.Replace(said, []byte("backup-id=cut0000"), []byte("backup-id="+id), 1)
	c, err := dial("127.0.0.3", w.address)
	if err != nil {
		return err
	}
	c.Write(said[:cut])
	if cut%2 == 0 {
		c.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
		c.in.Discard(1)
		c.Close()
		return nil
	}
	c.reset()
	return nil
}

// A recorded session that is lost after any number of bytes leaves no snapshot,
// and no group that cannot be used.
func TestCutEverywhere(t *testing.T) {
	harness.Long(t)
	t.Parallel()
	w := start(t, setup{})
	before, said, files := w.record(t, snap{"host", "cut0000", began})
	cuts := 300
	if atLength(t) {
		cuts = before
	}
	const groups = 40
	var next atomic.Int64
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for i := next.Add(1); i <= int64(cuts); i = next.Add(1) {
				at := int(i) * before / cuts
				if err := w.replay(said, fmt.Sprintf("cut%04d", 1+i%groups), at); err != nil {
					t.Errorf("after %d bytes: %v", at, err)
				}
			}
		})
	}
	all.Wait()
	t.Logf("%d cuts in %d bytes", cuts, before)
	for i := range groups {
		s := snap{"host", fmt.Sprintf("cut%04d", 1+i), began}
		if l := w.listed(t, w.mallory, s); len(l) > 0 {
			t.Errorf("cut sessions left %v in %s", l, s.id)
		}
		w.again(t, s, files)
	}
	if err := w.restore(w.mallory, snap{"host", "cut0000", began}, files...); err != nil {
		t.Error(err)
	}
}

// again makes a backup in a group whose sessions were lost. The server may need
// a moment to see that.
func (w *world) again(t testing.TB, s snap, files []archive) {
	t.Helper()
	harness.Eventually(t, "a session in "+s.id, func() bool {
		h, err := open("", w.address, upgradeRequest(w.mallory, backupProtocol, s))
		if err != nil {
			if !strings.Contains(err.Error(), "another backup is already running") {
				t.Errorf("%s: %v", s.id, err)
			}
			return false
		}
		defer h.Close()
		if err := h.fill(s, files...); err != nil {
			t.Errorf("%s: %v", s.id, err)
			return true
		}
		h.do(t, finishMessage()).want(t, 200)
		return true
	})
	if l := w.listed(t, w.mallory, s); len(l) != 1 {
		t.Errorf("%s: listed are %v", s.id, l)
	}
}

// Answers that are lost, after any number of bytes: the client goes on, the
// server too.
func TestCutAnswers(t *testing.T) {
	harness.Long(t)
	t.Parallel()
	w := start(t, setup{})
	through := newRelay(t, w.address)
	const rounds = 40
	for i := range rounds {
		s := snap{"host", "answers", began + int64(i)}
		through.loseAfter.Store(int64(1500 + 100*i))
		h, err := open("", through.address(), upgradeRequest(w.mallory, backupProtocol, s))
		if err != nil {
			continue
		}
		files := archive{"root.pxar.didx", []chunk{plainChunk(noise(uint64(i), 5000))}}
		asked := h.fill(s, files) == nil
		if asked {
			_, err = h.ok(finishMessage())
		}
		h.Close()
		listed := w.listed(t, w.mallory, s)[s.time]
		switch {
		case !asked && listed:
			t.Errorf("round %d: a backup that was not finished is listed", i)
		case asked && err == nil && !listed:
			t.Errorf("round %d: an acknowledged backup is not listed", i)
		case listed:
			if err := w.restore(w.mallory, s, files); err != nil {
				t.Errorf("round %d: %v", i, err)
			}
		}
	}
	through.loseAfter.Store(0)
	w.again(t, snap{"host", "after", began}, []archive{{"root.pxar.didx", []chunk{plainChunk(noise(1, 5000))}}})
}
