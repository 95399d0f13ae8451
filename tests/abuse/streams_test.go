package abuse

import (
	"fmt"
	"io"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"holdfast/tests/harness"
)

// Sessions that open every stream they may, each in the middle of an upload, hold
// no memory beyond the bound, and others go on.
func TestOpenStreams(t *testing.T) {
	harness.Long(t)
	t.Parallel()
	w := start(t, setup{})
	const sessions, streams = 100, 128
	var all sync.WaitGroup
	places := make(chan struct{}, 8)
	for i := range sessions {
		all.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			w.occupy(t, snap{"host", fmt.Sprintf("open%d", i), began}, streams)
		})
	}
	all.Wait()
	w.undisturbed(t, atLeast(2))
}

// occupy begins so many uploads of one session and sends a little of each.
func (w *world) occupy(t testing.TB, s snap, streams int) {
	c, f, err := deaf("127.0.0.2", w.address, upgradeRequest(w.mallory, backupProtocol, s))
	if err != nil {
		t.Error(err)
		return
	}
	t.Cleanup(c.reset)
	heard := make(chan struct{})
	go func() {
		in := http2.NewFramer(io.Discard, c)
		for once := true; ; {
			g, err := in.ReadFrame()
			if err != nil {
				return
			}
			if _, ok := g.(*http2.HeadersFrame); ok && once {
				once = false
				close(heard)
			}
		}
	}()
	h := newHeaders()
	send := func(stream uint32, path string, kv ...string) {
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, EndHeaders: true, BlockFragment: h.block("POST", path+"?"+pairs(kv))})
	}
	c.SetDeadline(time.Now().Add(patience))
	send(1, "/dynamic_index", "archive-name", "root.pxar.didx")
	f.WriteData(1, true, nil)
	select {
	case <-heard:
	case <-time.After(patience):
		t.Error("no answer")
		return
	}
	for i := range streams {
		stream := uint32(2*i + 3)
		send(stream, "/dynamic_chunk", "wid", "1", "digest", digestOf([]byte{byte(i)}), "size", strconv.Itoa(chunkMax), "encoded-size", strconv.Itoa(chunkMax+12))
		f.WriteData(stream, false, []byte{1})
	}
	c.SetDeadline(time.Time{})
}
