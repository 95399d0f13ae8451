package abuse

import (
	"bytes"
	"encoding/binary"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"holdfast/tests/harness"
)

// headers encodes the headers of requests that no client library would send.
type headers struct {
	out bytes.Buffer
	enc *hpack.Encoder
}

func newHeaders() *headers {
	h := &headers{}
	h.enc = hpack.NewEncoder(&h.out)
	return h
}

// fields is a header block of names and values.
func (h *headers) fields(list ...string) []byte {
	h.out.Reset()
	for i := 0; i+1 < len(list); i += 2 {
		h.enc.WriteField(hpack.HeaderField{Name: list[i], Value: list[i+1]})
	}
	return bytes.Clone(h.out.Bytes())
}

// block is the header block of a request; more are names and values.
func (h *headers) block(method, path string, more ...string) []byte {
	return h.fields(append([]string{":method", method, ":scheme", "https", ":authority", "localhost", ":path", path}, more...)...)
}

// request is one whole request in a frame.
func (h *headers) request(stream uint32, method, path string, more ...string) http2.HeadersFrameParam {
	return http2.HeadersFrameParam{StreamID: stream, EndStream: true, EndHeaders: true, BlockFragment: h.block(method, path, more...)}
}

// speaker sends frames after the upgrade, wrong ones if asked to.
type speaker struct {
	io.Writer
	*http2.Framer
	*headers
}

// frame sends a frame with any header.
func (s *speaker) frame(kind, flags byte, stream uint32, payload []byte) {
	h := []byte{byte(len(payload) >> 16), byte(len(payload) >> 8), byte(len(payload)), kind, flags}
	s.Write(append(binary.BigEndian.AppendUint32(h, stream), payload...))
}

// Kinds of frames.
const (
	data, header, priority, reset, settings = 0, 1, 2, 3, 4
	push, ping, goAway, window, continued   = 5, 6, 7, 8, 9
)

// garbage is what may come instead of HTTP/2, or as part of it.
func garbage() map[string]func(*speaker) {
	zeros := func(n int) []byte { return make([]byte, n) }
	plain := func(kind, flags byte, stream uint32, payload []byte) func(*speaker) {
		return func(s *speaker) { s.frame(kind, flags, stream, payload) }
	}
	flood := func(n int, one func(s *speaker, i int)) func(*speaker) {
		return func(s *speaker) {
			for i := range n {
				one(s, i)
			}
		}
	}
	all := map[string]func(*speaker){
		"noise":                      func(s *speaker) { s.Write(noise(1, 100000)) },
		"zeros":                      func(s *speaker) { s.Write(zeros(100000)) },
		"ones":                       func(s *speaker) { s.Write(bytes.Repeat([]byte{0xff}, 100000)) },
		"HTTP/1.1":                   func(s *speaker) { io.WriteString(s, strings.Repeat("GET / HTTP/1.1\r\n\r\n", 100)) },
		"a second preface":           func(s *speaker) { io.WriteString(s, http2.ClientPreface) },
		"a length without frame":     func(s *speaker) { s.Write([]byte{0xff, 0xff, 0xff, data, 0, 0, 0, 0, 1}) },
		"a frame beyond the limit":   func(s *speaker) { s.Write(append([]byte{0x50, 0, 0, data, 0, 0, 0, 0, 1}, zeros(0x500000)...)) },
		"data on no stream":          plain(data, 0, 0, zeros(10)),
		"data on an idle stream":     plain(data, 0, 99, zeros(10)),
		"data with wrong padding":    plain(data, 8, 1, []byte{200, 1}),
		"headers on no stream":       plain(header, 4, 0, zeros(5)),
		"headers on an even stream":  func(s *speaker) { s.WriteHeaders(s.request(2, "GET", "/")) },
		"headers that are noise":     plain(header, 5, 1, noise(2, 500)),
		"headers with wrong padding": plain(header, 0xd, 1, []byte{200, 1}),
		"priority on itself":         plain(priority, 0, 1, []byte{0, 0, 0, 1, 5}),
		"priority of no size":        plain(priority, 0, 1, nil),
		"a reset of an idle stream":  plain(reset, 0, 77, zeros(4)),
		"a reset of no size":         plain(reset, 0, 1, nil),
		"settings on a stream":       plain(settings, 0, 1, nil),
		"settings of 5 bytes":        plain(settings, 0, 0, zeros(5)),
		"an answer with settings":    plain(settings, 1, 0, zeros(6)),
		"settings of a huge window":  plain(settings, 0, 0, []byte{0, 4, 0xff, 0xff, 0xff, 0xff}),
		"settings of a huge frame":   plain(settings, 0, 0, []byte{0, 5, 0xff, 0xff, 0xff, 0xff}),
		"settings of a small frame":  plain(settings, 0, 0, []byte{0, 5, 0, 0, 0, 1}),
		"settings of a huge table":   plain(settings, 0, 0, []byte{0, 1, 0xff, 0xff, 0xff, 0xff}),
		"10000 settings in one":      plain(settings, 0, 0, bytes.Repeat([]byte{0, 9, 0, 0, 0, 1}, 2700)),
		"a push":                     plain(push, 4, 1, zeros(10)),
		"a ping of 7 bytes":          plain(ping, 0, 0, zeros(7)),
		"a ping on a stream":         plain(ping, 0, 1, zeros(8)),
		"a goaway of 1 byte":         plain(goAway, 0, 0, zeros(1)),
		"a goaway":                   plain(goAway, 0, 0, zeros(8)),
		"a window of nothing":        plain(window, 0, 0, zeros(4)),
		"a window of 3 bytes":        plain(window, 0, 0, zeros(3)),
		"windows beyond the limit":   flood(3, func(s *speaker, _ int) { s.frame(window, 0, 0, []byte{0x7f, 0xff, 0xff, 0xff}) }),
		"a window of an idle stream": plain(window, 0, 55, []byte{0, 0, 0, 1}),
		"a continuation of nothing":  plain(continued, 4, 1, zeros(5)),
		"an unknown kind":            flood(1000, func(s *speaker, i int) { s.frame(byte(20+i%200), byte(i), uint32(i), zeros(i)) }),
		"a continuation without end": func(s *speaker) {
			s.frame(header, 0, 1, zeros(10))
			flood(20000, func(s *speaker, _ int) { s.frame(continued, 0, 1, bytes.Repeat([]byte{0x82}, 100)) })(s)
		},
		"empty continuations": func(s *speaker) {
			s.frame(header, 0, 1, nil)
			flood(100000, func(s *speaker, _ int) { s.frame(continued, 0, 1, nil) })(s)
		},
		"a ping flood":     flood(100000, func(s *speaker, _ int) { s.frame(ping, 0, 0, zeros(8)) }),
		"a settings flood": flood(100000, func(s *speaker, _ int) { s.frame(settings, 0, 0, nil) }),
		"an empty data flood": func(s *speaker) {
			s.post(1, "/blob?file-name=a.blob&encoded-size=100")
			flood(100000, func(s *speaker, _ int) { s.frame(data, 0, 1, nil) })(s)
		},
		"a priority flood": flood(100000, func(s *speaker, i int) { s.frame(priority, 0, uint32(2*i+1), []byte{0, 0, 0, 0, 1}) }),
		"resets at once": flood(20000, func(s *speaker, i int) {
			s.WriteHeaders(s.request(uint32(2*i+1), "GET", "/previous_backup_time"))
			s.frame(reset, 0, uint32(2*i+1), []byte{0, 0, 0, 8})
		}),
		"streams without end":     flood(5000, func(s *speaker, i int) { s.post(uint32(2*i+1), "/blob?file-name=a.blob&encoded-size=16777216") }),
		"a bomb of header fields": func(s *speaker) { s.frame(header, 5, 1, s.bomb(20000)) },
		"one stream twice":        flood(2, func(s *speaker, _ int) { s.WriteHeaders(s.request(1, "GET", "/")) }),
		"streams that go down":    flood(3, func(s *speaker, i int) { s.WriteHeaders(s.request(uint32(9-2*i), "GET", "/")) }),
		"data after the end":      func(s *speaker) { s.WriteHeaders(s.request(1, "POST", "/finish")); s.frame(data, 0, 1, zeros(10)) },
		"data beyond the stream window": func(s *speaker) {
			s.post(1, "/blob?file-name=a.blob&encoded-size=16777216")
			flood(300, func(s *speaker, _ int) { s.frame(data, 0, 1, zeros(16384)) })(s)
		},
		"data beyond all windows": flood(100, func(s *speaker, i int) {
			s.post(uint32(2*i+1), "/speedtest")
			s.frame(data, 0, uint32(2*i+1), zeros(1<<20))
		}),
	}
	for name, fields := range map[string][]string{
		"no path": {":method", "GET", ":scheme", "https"}, "two paths": {":method", "GET", ":path", "/", ":path", "/", ":scheme", "https"},
		"an unknown pseudo header": {":method", "GET", ":path", "/", ":scheme", "https", ":evil", "1"}, "a pseudo header last": {":method", "GET", ":path", "/", "a", "b", ":scheme", "https"},
		"capitals": {":method", "GET", ":path", "/", ":scheme", "https", "ABC", "d"}, "a connection header": {":method", "GET", ":path", "/", ":scheme", "https", "connection", "close"},
		"a line feed": {":method", "GET", ":path", "/", ":scheme", "https", "a", "b\r\nc: d"}, "a path without slash": {":method", "GET", ":path", "x", ":scheme", "https"},
		"an empty path": {":method", "GET", ":path", "", ":scheme", "https"}, "a path of 60 KB": {":method", "GET", ":path", "/" + strings.Repeat("a", 60000), ":scheme", "https"},
		"a negative length": {":method", "POST", ":path", "/finish", ":scheme", "https", "content-length", "-1"}, "a wrong length": {":method", "POST", ":path", "/finish", ":scheme", "https", "content-length", "50"},
		"a method of odd bytes": {":method", "G T", ":path", "/", ":scheme", "https"}, "a path with dots": {":method", "GET", ":path", "/../../etc/passwd", ":scheme", "https"},
		"CONNECT": {":method", "CONNECT", ":authority", "evil:80"}, "a response": {":status", "200"}, "a bad escape": {":method", "GET", ":path", "/%zz", ":scheme", "https"},
	} {
		all["fields: "+name] = func(s *speaker) {
			s.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndStream: true, EndHeaders: true, BlockFragment: s.fields(fields...)})
		}
	}
	return all
}

// post begins a request with a body.
func (s *speaker) post(stream uint32, path string) {
	s.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, EndHeaders: true, BlockFragment: s.block("POST", path)})
}

// bomb is a header block that becomes much longer than it is: one large field in
// the table, again and again.
func (s *speaker) bomb(n int) []byte {
	b := s.block("GET", "/", "x-large", strings.Repeat("a", 3900))
	return append(b, bytes.Repeat([]byte{0x80 | 62}, min(n, 16000-len(b)))...)
}

// Frames of garbage after the upgrade end the session, or a stream, and nothing
// else. What was not finished is not listed.
func TestGarbageFrames(t *testing.T) {
	harness.Long(t)
	t.Parallel()
	w := start(t, setup{})
	var all sync.WaitGroup
	slots := make(chan struct{}, 8)
	n := 0
	for _, act := range garbage() {
		for _, preface := range []bool{false, true} {
			n++
			s := snap{"host", "g" + strconv.Itoa(n), began}
			all.Go(func() {
				slots <- struct{}{}
				defer func() { <-slots }()
				w.attack(t, s, preface, act)
			})
		}
	}
	all.Wait()
	w.undisturbed(t, atLeast(2))
	var list []struct {
		ID   string `json:"backup-id"`
		Size *int64 `json:"size"`
	}
	w.ask(t, w.admin, "GET", "/admin/datastore/"+store+"/snapshots").into(t, &list)
	for _, l := range list {
		if l.ID != "honest" && l.Size != nil {
			t.Errorf("a session of garbage has left %s", l.ID)
		}
	}
	harness.Eventually(t, "the end of all sessions", func() bool {
		var running []struct{ UPID string }
		w.ask(t, w.admin, "GET", "/nodes/localhost/tasks", "running", "1").into(t, &running)
		return len(running) == 0
	})
}

// attack begins a session, with the preface or without, and sends garbage. It
// reads what comes for a while and then goes away.
func (w *world) attack(t testing.TB, s snap, preface bool, act func(*speaker)) {
	c, err := dial("127.0.0.2", w.address)
	if err != nil {
		t.Error(err)
		return
	}
	defer c.reset()
	a, err := c.say(upgradeRequest(w.mallory, backupProtocol, s))
	if err != nil || a.status != http.StatusSwitchingProtocols {
		t.Errorf("%s (%v)", a, err)
		return
	}
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if preface {
		io.WriteString(c, http2.ClientPreface)
		http2.NewFramer(c, c).WriteSettings()
	}
	gone := make(chan struct{})
	go func() {
		io.Copy(io.Discard, c)
		close(gone)
	}()
	act(&speaker{c, http2.NewFramer(c, nil), newHeaders()})
	select {
	case <-gone:
	case <-time.After(300 * time.Millisecond):
	}
}
