package abuse

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"holdfast/tests/harness"
)

// Two hundred machines back up at the same time through one token, each with
// chunks under way on several streams: all come through, and the server's memory
// is bounded, by memoryMax as in every test.
func TestNight(t *testing.T) {
	harness.Long(t)
	t.Parallel()
	w := start(t, setup{})
	const machines, uploads = 200, 2
	var open, all sync.WaitGroup
	open.Add(machines)
	arriving := make(chan struct{}, 8)
	for i := range machines {
		all.Go(func() {
			s := snap{"vm", fmt.Sprint(100 + i), began}
			arriving <- struct{}{}
			h, err := w.join(s)
			<-arriving
			open.Done()
			if err != nil {
				t.Error(err)
				return
			}
			defer h.Close()
			open.Wait() // all of them are there at once
			if err := h.night(s, uint64(i), uploads); err != nil {
				t.Errorf("machine %d: %v", i, err)
			}
		})
	}
	all.Wait()
	if t.Failed() {
		w.tellRefusals(t)
	}
}

// tellRefusals logs by what the server has sent anybody away.
func (w *world) tellRefusals(t *testing.T) {
	t.Helper()
	a, err := w.dial(t).say([]byte("GET /metrics HTTP/1.1\r\nHost: x\r\n" + w.admin.header() + "Connection: close\r\n\r\n"))
	for line := range strings.Lines(string(a.body)) {
		if strings.HasPrefix(line, "holdfast_refused_total") {
			t.Log(strings.TrimSpace(line))
		}
	}
	if err != nil {
		t.Log(err)
	}
}

// join begins a session of alice.
func (w *world) join(s snap) (*session, error) {
	return open("", w.address, upgradeRequest(w.alice, backupProtocol, s))
}

// night makes a backup whose chunks are sent beside each other.
func (s *session) night(of snap, seed uint64, uploads int) error {
	a := archive{name: "disk.img.didx"}
	for i := range uploads {
		a.chunks = append(a.chunks, plainChunk(noise(seed<<8+uint64(i), 256<<10)))
	}
	wid, err := s.createIndex(a.name)
	if err != nil {
		return err
	}
	failed := make(chan error, uploads)
	for _, c := range a.chunks {
		go func() {
			_, err := s.ok(chunkMessage("dynamic", wid, c))
			failed <- err
		}()
	}
	for range a.chunks {
		if err := <-failed; err != nil {
			return err
		}
	}
	for _, m := range []message{appendMessage("dynamic", wid, a.chunks), closeMessage(wid, a)} {
		if _, err := s.ok(m); err != nil {
			return err
		}
	}
	e := entry{a.name, "none", a.size(), digestOf(a.records())}
	if _, err := s.ok(blobMessage(manifestName, envelope(magicPlain, manifestOf(of, e)))); err != nil {
		return err
	}
	_, err = s.ok(finishMessage())
	return err
}
