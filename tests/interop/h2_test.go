package interop

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"holdfast/tests/harness"
)

// What the reference client announces, section 2.2.
const (
	ourWindow   = 1<<31 - 2
	ourIncrease = 2147418111
	ourFrame    = 4 << 20
)

// talk is the HTTP/2 side of an upgraded connection, as a client.
type talk struct {
	conn net.Conn
	in   io.Reader

	write sync.Mutex // guards out, its header table and the order of streams
	out   *http2.Framer
	enc   *hpack.Encoder
	block bytes.Buffer
	next  uint32

	mu       sync.Mutex // guards what follows
	changed  *sync.Cond
	streams  map[uint32]*stream
	window   int64 // what may be sent on the connection
	initial  int64
	frame    int
	limit    int64 // streams at a time, negative without limit
	settings []http2.Setting
	goAway   *http2.ErrCode
	err      error
}

// stream is one request that waits for its answer.
type stream struct {
	window int64
	answer answer
	err    error
	over   bool
}

// preface is the beginning of the client's side.
func preface() []byte {
	var b bytes.Buffer
	b.WriteString(http2.ClientPreface)
	fr := http2.NewFramer(&b, nil)
	fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: ourWindow},
		http2.Setting{ID: http2.SettingMaxFrameSize, Val: ourFrame})
	fr.WriteWindowUpdate(0, ourIncrease)
	return b.Bytes()
}

// newTalk begins HTTP/2 over a connection whose preface has been sent.
func newTalk(c *wire) *talk {
	h := &talk{conn: c.Conn, in: c.in, next: 1, streams: map[uint32]*stream{}, window: 65535, initial: 65535, frame: 16384, limit: -1}
	h.changed = sync.NewCond(&h.mu)
	h.out = http2.NewFramer(c.Conn, c.in)
	h.out.SetMaxReadFrameSize(ourFrame)
	h.out.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	h.enc = hpack.NewEncoder(&h.block)
	go h.read()
	return h
}

// read takes frames until the connection ends.
func (h *talk) read() {
	var err error
	for err == nil {
		var f http2.Frame
		if f, err = h.out.ReadFrame(); err == nil {
			err = h.take(f)
		}
		var broken http2.StreamError
		if errors.As(err, &broken) {
			h.update(func() { h.end(broken.StreamID, err) })
			err = nil
		}
	}
	h.update(func() {
		h.err = err
		for id := range h.streams {
			h.end(id, err)
		}
	})
}

// update changes the state and wakes who waits for it.
func (h *talk) update(change func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	change()
	h.changed.Broadcast()
}

// end ends a stream; the state is locked.
func (h *talk) end(id uint32, err error) {
	if s := h.streams[id]; s != nil && !s.over {
		s.over, s.err = true, err
	}
}

// take handles one frame.
func (h *talk) take(f http2.Frame) error {
	switch f := f.(type) {
	case *http2.SettingsFrame:
		return h.takeSettings(f)
	case *http2.PingFrame:
		if !f.IsAck() {
			h.write.Lock()
			defer h.write.Unlock()
			return h.out.WritePing(true, f.Data)
		}
	case *http2.WindowUpdateFrame:
		h.update(func() {
			if f.StreamID == 0 {
				h.window += int64(f.Increment)
			} else if s := h.streams[f.StreamID]; s != nil {
				s.window += int64(f.Increment)
			}
		})
	case *http2.GoAwayFrame:
		h.update(func() { h.goAway = &f.ErrCode })
	case *http2.RSTStreamFrame:
		h.update(func() { h.end(f.StreamID, fmt.Errorf("stream reset: %v", f.ErrCode)) })
	case *http2.MetaHeadersFrame:
		return h.takeHeaders(f)
	case *http2.DataFrame:
		h.update(func() {
			if s := h.streams[f.StreamID]; s != nil {
				s.answer.body = append(s.answer.body, f.Data()...)
			}
			if f.StreamEnded() {
				h.end(f.StreamID, nil)
			}
		})
	}
	return nil
}

func (h *talk) takeSettings(f *http2.SettingsFrame) error {
	if f.IsAck() {
		return nil
	}
	h.update(func() {
		f.ForeachSetting(func(s http2.Setting) error {
			h.settings = append(h.settings, s)
			switch s.ID {
			case http2.SettingInitialWindowSize:
				for _, st := range h.streams {
					st.window += int64(s.Val) - h.initial
				}
				h.initial = int64(s.Val)
			case http2.SettingMaxFrameSize:
				h.frame = int(s.Val)
			case http2.SettingMaxConcurrentStreams:
				h.limit = int64(s.Val)
			}
			return nil
		})
	})
	h.write.Lock()
	defer h.write.Unlock()
	return h.out.WriteSettingsAck()
}

func (h *talk) takeHeaders(f *http2.MetaHeadersFrame) error {
	status := 0
	if s := f.PseudoValue("status"); s != "" {
		var err error
		if status, err = strconv.Atoi(s); err != nil {
			return err
		}
	}
	h.update(func() {
		s := h.streams[f.StreamID]
		if s == nil {
			return
		}
		if status >= 200 {
			s.answer.status, s.answer.header = status, http.Header{}
		}
		for _, v := range f.RegularFields() {
			s.answer.header.Add(v.Name, v.Value)
		}
		if f.StreamEnded() {
			h.end(f.StreamID, nil)
		}
	})
	return nil
}

// open sends the headers of a request and returns its stream.
func (h *talk) open(method, path, contentType string, empty bool) (uint32, *stream, error) {
	h.write.Lock()
	defer h.write.Unlock()
	id := h.next
	h.next += 2
	s := &stream{answer: answer{what: "h2 " + method + " " + path}}
	h.mu.Lock()
	s.window, h.streams[id] = h.initial, s
	err := h.err
	h.mu.Unlock()
	if err != nil {
		return 0, nil, err
	}
	h.block.Reset()
	fields := []string{":method", method, ":scheme", "https", ":authority", "localhost", ":path", path,
		"user-agent", "interop/1.0"}
	if contentType != "" {
		fields = append(fields, "content-type", contentType)
	}
	for i := 0; i < len(fields); i += 2 {
		h.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	block, first := h.block.Bytes(), true
	for first || len(block) > 0 { // a long path does not fit into one frame
		n := min(len(block), 16384)
		if first {
			err = h.out.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block[:n], EndStream: empty, EndHeaders: n == len(block)})
		} else {
			err = h.out.WriteContinuation(id, n == len(block), block[:n])
		}
		if err != nil {
			return id, s, err
		}
		block, first = block[n:], false
	}
	return id, s, nil
}

// budget waits until something of want bytes may be sent, and takes it. It
// gives nothing when the stream is over: the server may answer early.
func (h *talk) budget(s *stream, want int) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	for !s.over && h.err == nil && (h.window <= 0 || s.window <= 0) {
		h.changed.Wait()
	}
	if s.over || h.err != nil {
		return 0
	}
	n := min(int64(want), h.window, s.window, int64(h.frame))
	h.window, s.window = h.window-n, s.window-n
	return int(n)
}

// pour sends a body within the windows of the server.
func (h *talk) pour(id uint32, s *stream, body []byte, end bool) error {
	for len(body) > 0 {
		n := h.budget(s, len(body))
		if n == 0 {
			return nil
		}
		h.write.Lock()
		err := h.out.WriteData(id, end && n == len(body), body[:n])
		h.write.Unlock()
		if err != nil {
			return err
		}
		body = body[n:]
	}
	return nil
}

// wait waits for the end of a stream.
func (h *talk) wait(ctx context.Context, id uint32, s *stream) (answer, error) {
	stop := context.AfterFunc(ctx, func() { h.update(func() { h.end(id, ctx.Err()) }) })
	defer stop()
	h.mu.Lock()
	defer h.mu.Unlock()
	for !s.over {
		h.changed.Wait()
	}
	delete(h.streams, id)
	if s.err != nil && s.answer.status != 0 && s.answer.status >= 400 {
		return s.answer, nil // answered, then reset: the rest of the body was not wanted
	}
	if s.err != nil {
		return s.answer, fmt.Errorf("%s: %w", s.answer.what, s.err)
	}
	return s.answer, nil
}

// roundTrip sends one request and waits for its answer.
func (h *talk) roundTrip(method, path, contentType string, body []byte) (answer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	id, s, err := h.open(method, path, contentType, len(body) == 0)
	if err != nil {
		return answer{what: path}, err
	}
	if err := h.pour(id, s, body, true); err != nil {
		return answer{what: path}, err
	}
	return h.wait(ctx, id, s)
}

// target is a path with its parameters.
func target(path string, kv []string) string {
	if len(kv) == 0 {
		return path
	}
	return path + "?" + pairs(kv).Encode()
}

// try sends a request with its parameters in the query.
func (h *talk) try(method, path string, body []byte, kv ...string) (answer, error) {
	ct := "application/x-www-form-urlencoded"
	if body != nil {
		ct = "application/octet-stream"
	}
	return h.roundTrip(method, target(path, kv), ct, body)
}

// do is try for tests that need an answer.
func (h *talk) do(t testing.TB, method, path string, body []byte, kv ...string) answer {
	t.Helper()
	a, err := h.try(method, path, body, kv...)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// json sends a JSON body.
func (h *talk) json(t testing.TB, method, path string, v any) answer {
	t.Helper()
	body, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	a, err := h.roundTrip(method, path, "application/json", body)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// announced waits for the settings of the server.
func (h *talk) announced(t testing.TB) map[http2.SettingID]uint32 {
	t.Helper()
	found := map[http2.SettingID]uint32{}
	harness.Eventually(t, "the settings of the server", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		for _, s := range h.settings {
			found[s.ID] = s.Val
		}
		return h.settings != nil
	})
	return found
}

// hangUp closes the connection the way clients do, with close_notify.
func (h *talk) hangUp() { h.conn.Close() }

// ended waits for the end of the connection.
func (h *talk) ended() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for h.err == nil {
		h.changed.Wait()
	}
}

// gets waits for the end of a stream and compares the state of its answer.
func (h *talk) gets(id uint32, s *stream, status int) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	a, err := h.wait(ctx, id, s)
	if err == nil && a.status != status {
		err = fmt.Errorf("want %d: %s", status, a)
	}
	return err
}
