package abuse

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"holdfast/tests/harness"
)

// crowdSize is how many connections the attackers want.
const crowdSize = 2000

// crowd is connections of attackers who never come to the point.
type crowd struct {
	w    *world
	stop chan struct{}
	all  sync.WaitGroup

	refused, closed, begun atomic.Int64
	mu                     sync.Mutex
	open                   map[net.Conn]bool
}

func newCrowd(w *world) *crowd {
	return &crowd{w: w, stop: make(chan struct{}), open: map[net.Conn]bool{}}
}

// add opens a connection from an address and leaves it to act, which returns
// when the server has closed it.
func (c *crowd) add(from string, act func(*crowd, *net.TCPConn)) {
	c.all.Go(func() {
		raw, err := tcp(from, c.w.address)
		if err != nil {
			c.refused.Add(1)
			return
		}
		defer raw.Close()
		c.mu.Lock()
		c.open[raw] = true
		c.mu.Unlock()
		c.begun.Add(1)
		act(c, raw)
		c.mu.Lock()
		delete(c.open, raw)
		c.mu.Unlock()
		c.closed.Add(1)
	})
}

// left is how many connections the server has not closed yet.
func (c *crowd) left() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.open)
}

// end closes what is left.
func (c *crowd) end() {
	close(c.stop)
	c.mu.Lock()
	for o := range c.open {
		o.Close()
	}
	c.mu.Unlock()
	c.all.Wait()
}

// drip sends a byte again and again until the connection breaks.
func (c *crowd) drip(to net.Conn, b string) {
	gone := make(chan struct{})
	go func() {
		io.Copy(io.Discard, to)
		close(gone)
	}()
	for tick := time.NewTicker(500 * time.Millisecond); ; {
		select {
		case <-gone:
			tick.Stop()
			return
		case <-tick.C:
			io.WriteString(to, b)
		}
	}
}

// What attackers do with a connection.
func silent(c *crowd, raw *net.TCPConn) { io.Copy(io.Discard, raw) }

func halfHandshake(c *crowd, raw *net.TCPConn) {
	raw.Write([]byte{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3})
	c.drip(raw, "\x00")
}

func plainHead(c *crowd, raw *net.TCPConn) {
	io.WriteString(raw, "GET / HTTP/1.1\r\n")
	c.drip(raw, "x")
}

// after does something inside TLS.
func after(act func(c *crowd, s *wire)) func(*crowd, *net.TCPConn) {
	return func(c *crowd, raw *net.TCPConn) {
		if s, err := secure(raw); err == nil {
			act(c, s)
		}
	}
}

func slowHead(c *crowd, s *wire) {
	io.WriteString(s, "GET /api2/json/version HTTP/1.1\r\nHost: x\r\nX-Slow: ")
	c.drip(s, "z")
}

func slowLines(c *crowd, s *wire) {
	io.WriteString(s, "GET /api2/json/version HTTP/1.1\r\nHost: x\r\n")
	c.drip(s, "X: y\r\n")
}

func slowForm(c *crowd, s *wire) {
	io.WriteString(s, "POST /api2/json/access/ticket HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\nusername=")
	c.drip(s, "a")
}

func slowChunked(c *crowd, s *wire) {
	io.WriteString(s, "POST /api2/json/access/ticket HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
	c.drip(s, "1\r\na\r\n")
}

func idle(c *crowd, s *wire) {
	s.say([]byte(head(identity{}, "GET", "/ping") + "\r\n"))
	io.Copy(io.Discard, s)
}

// honest asks what clients ask, from an address that does nothing else, and
// makes and restores a backup. n tells its rounds apart.
func (w *world) honest(n int) error {
	if a, err := w.tryAsk("127.0.0.1", w.alice, "GET", "/version"); err != nil || a.status != 200 {
		return fmt.Errorf("an honest request got %s (%v)", a, err)
	}
	s := snap{"host", "honest", began + int64(n)}
	files := archive{"root.pxar.didx", []chunk{plainChunk(noise(uint64(n), 50000))}}
	h, err := open("127.0.0.1", w.address, upgradeRequest(w.alice, backupProtocol, s))
	if err != nil {
		return fmt.Errorf("an honest backup: %w", err)
	}
	defer h.Close()
	if err := h.fill(s, files); err != nil {
		return fmt.Errorf("an honest backup: %w", err)
	}
	if _, err := h.ok(finishMessage()); err != nil {
		return fmt.Errorf("an honest backup: %w", err)
	}
	if err := w.restore(w.alice, s, files); err != nil {
		return fmt.Errorf("an honest restore: %w", err)
	}
	return nil
}

// undisturbed fails the test unless honest clients are answered now, again and
// again until done.
func (w *world) undisturbed(t testing.TB, done func(rounds int) bool) {
	t.Helper()
	n := 0
	for ; n == 0 || !done(n); n++ {
		if err := w.honest(n); err != nil {
			t.Errorf("round %d: %v", n, err)
			break
		}
	}
	t.Logf("%d honest backups and restores", n)
}

// atLeast is enough for undisturbed.
func atLeast(least int) func(int) bool { return func(rounds int) bool { return rounds >= least } }

// Deadlines whose end a test sees. An honest client that the machine lets wait for so
// long meets them, too: they are no shorter than they must be, and those that a test
// has nothing to do with are ample.
const (
	// quick are for who says nothing.
	quick = "header_timeout = \"15s\"\nidle_timeout = \"15s\"\nbody_timeout = \"15s\"\n"
	// quickToHear are for who hears nothing.
	quickToHear = "header_timeout = \"60s\"\nbody_timeout = \"10s\"\nwrite_timeout = \"10s\"\n"
	// unhurried are for what is not about deadlines.
	unhurried = "header_timeout = \"60s\"\nidle_timeout = \"60s\"\n"
)

// Two thousand connections that never come to the point take nothing from
// honest clients, although the server may open few files, and are closed.
func TestSlowCrowd(t *testing.T) {
	harness.Long(t)
	t.Parallel()
	w := start(t, setup{files: 1024, deadlines: quick})
	acts := []func(*crowd, *net.TCPConn){silent, halfHandshake, plainHead, after(slowHead), after(slowLines), after(slowForm), after(slowChunked), after(idle)}
	c := newCrowd(w)
	defer c.end()
	const attackers = 4
	for i := range crowdSize {
		c.add(fmt.Sprintf("127.0.0.%d", 2+i%attackers), acts[i/attackers%len(acts)])
	}
	gone := func() bool { return c.closed.Load()+c.refused.Load() == crowdSize }
	w.undisturbed(t, func(int) bool { return gone() })
	harness.Eventually(t, "the end of the crowd", gone)
	t.Logf("%d connections, %d refused by the system", c.begun.Load(), c.refused.Load())
	if c.begun.Load() < crowdSize*9/10 {
		t.Error("the crowd was none")
	}
}

// A crowd from so many addresses that it takes every place: honest clients have
// to try again, and get in.
func TestFullHouse(t *testing.T) {
	harness.Long(t)
	t.Parallel()
	w := start(t, setup{files: 1024, deadlines: quick})
	c := newCrowd(w)
	defer c.end()
	acts := []func(*crowd, *net.TCPConn){silent, halfHandshake, after(slowHead), after(slowForm)}
	for i := range crowdSize {
		c.add(fmt.Sprintf("127.0.0.%d", 2+i%40), acts[i/40%len(acts)])
	}
	harness.Eventually(t, "an answer in a full house", func() bool {
		a, err := w.tryAsk("", w.admin, "GET", "/version")
		return err == nil && a.status == 200
	})
	harness.Eventually(t, "the end of the crowd", func() bool { return c.left() == 0 })
	w.undisturbed(t, atLeast(2))
}

// deaf opens a session whose answers are never read.
func deaf(from, to string, request []byte) (*wire, *http2.Framer, error) {
	c, err := dial(from, to)
	if err != nil {
		return nil, nil, err
	}
	a, err := c.say(request)
	if err == nil && a.status != http.StatusSwitchingProtocols {
		err = refusal{a}
	}
	if err != nil {
		c.Close()
		return nil, nil, err
	}
	io.WriteString(c, http2.ClientPreface)
	f := http2.NewFramer(c, c)
	f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1})
	f.WriteWindowUpdate(0, 1<<31-1-65535)
	return c, f, nil
}

// Sessions that ask for much and never read an answer hold no memory beyond the
// bound, and others go on.
func TestDeafReaders(t *testing.T) {
	harness.Long(t)
	t.Parallel()
	w := start(t, setup{deadlines: quickToHear})
	victim := snap{"host", "big", began}
	var chunks []chunk
	for i := range 4 {
		chunks = append(chunks, plainChunk(noise(uint64(i), chunkMax)))
	}
	b := w.session(t, w.mallory, backupProtocol, victim)
	big := archive{"big.img.didx", chunks}
	if err := b.fill(victim, big); err != nil {
		t.Fatal(err)
	}
	b.do(t, finishMessage()).want(t, 200)
	b.Close()

	const sessions = 60
	var all sync.WaitGroup
	for range sessions {
		all.Go(func() {
			c, f, err := deaf("127.0.0.2", w.address, upgradeRequest(w.mallory, readerProtocol, victim))
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(c.reset)
			h := newHeaders()
			stream := uint32(1)
			ask := func(path string, kv ...string) {
				f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, EndStream: true, EndHeaders: true, BlockFragment: h.block("GET", path+"?"+pairs(kv))})
				stream += 2
			}
			ask("/download", "file-name", big.name)
			time.Sleep(time.Second)
			for i := range 100 {
				ask("/chunk", "digest", chunks[i%len(chunks)].digest)
			}
		})
	}
	all.Wait()
	w.undisturbed(t, atLeast(3))
}

// Uploads that promise much and drip hold no memory that others need.
func TestDrippingUploads(t *testing.T) {
	harness.Long(t)
	t.Parallel()
	w := start(t, setup{deadlines: quickToHear})
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	for i := range 16 {
		s := w.session(t, w.mallory, backupProtocol, snap{"host", fmt.Sprintf("drip%d", i), began})
		wid, err := s.createIndex("root.pxar.didx")
		if err != nil {
			t.Fatal(err)
		}
		for j := range 16 {
			all.Go(func() { s.drip(ctx, wid, digestOf([]byte{byte(j)})) })
		}
	}
	time.Sleep(time.Second)
	w.undisturbed(t, atLeast(3))
}

// drip uploads the largest chunk byte by byte until ctx ends.
func (s *session) drip(ctx context.Context, wid int, digest string) {
	target := "https://localhost:8007/dynamic_chunk?" + pairs([]string{"wid", strconv.Itoa(wid), "digest", digest,
		"size", strconv.Itoa(chunkMax), "encoded-size", strconv.Itoa(chunkMax + 12)})
	r, err := http.NewRequestWithContext(ctx, "POST", target, &dripping{ctx})
	if err != nil {
		return
	}
	if resp, err := s.h2.RoundTrip(r); err == nil {
		resp.Body.Close()
	}
}

// Sessions that fill every window and then stop hold no memory beyond the bound.
func TestStuffedWindows(t *testing.T) {
	harness.Long(t)
	t.Parallel()
	w := start(t, setup{deadlines: quickToHear})
	const sessions, streams = 24, 128
	var all sync.WaitGroup
	for i := range sessions {
		all.Go(func() { w.stuff(t, snap{"host", fmt.Sprintf("stuff%d", i), began}, streams) })
	}
	all.Wait()
	w.undisturbed(t, atLeast(3))
}

// stuff begins many of the largest uploads and sends as much of each as the
// server lets it.
func (w *world) stuff(t testing.TB, s snap, streams int) {
	c, f, err := deaf("127.0.0.2", w.address, upgradeRequest(w.mallory, backupProtocol, s))
	if err != nil {
		t.Error(err)
		return
	}
	t.Cleanup(c.reset)
	go io.Copy(io.Discard, c)
	h := newHeaders()
	send := func(stream uint32, path string, kv ...string) {
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, EndHeaders: true, BlockFragment: h.block("POST", path+"?"+pairs(kv))})
	}
	c.SetDeadline(time.Now().Add(patience))
	send(1, "/dynamic_index", "archive-name", "root.pxar.didx")
	f.WriteData(1, true, nil)
	time.Sleep(time.Second)
	for i := range streams {
		stream := uint32(2*i + 3)
		send(stream, "/dynamic_chunk", "wid", "1", "digest", digestOf([]byte{byte(i)}), "size", strconv.Itoa(chunkMax), "encoded-size", strconv.Itoa(chunkMax+12))
		for range 16 {
			f.WriteData(stream, false, make([]byte, 16<<10-64))
		}
	}
}

// dripping is a body that never ends.
type dripping struct{ ctx context.Context }

// Read implements io.Reader.
func (d *dripping) Read(p []byte) (int, error) {
	select {
	case <-d.ctx.Done():
		return 0, io.ErrUnexpectedEOF
	case <-time.After(200 * time.Millisecond):
		return copy(p, "x"), nil
	}
}

// Connections that do not read their answers over HTTP/1.1 are given up.
func TestDeafDownloads(t *testing.T) {
	harness.Long(t)
	t.Parallel()
	w := start(t, setup{deadlines: quickToHear})
	victim := snap{"host", "big", began}
	b := w.session(t, w.mallory, backupProtocol, victim)
	b.do(t, blobMessage("big.blob", envelope(magicPlain, noise(1, chunkMax-100)))).want(t, 200)
	if err := b.fill(victim); err != nil {
		t.Fatal(err)
	}
	b.do(t, finishMessage()).want(t, 200)
	b.Close()

	c := newCrowd(w)
	defer c.end()
	request := head(w.mallory, "GET", "/admin/datastore/"+store+"/download", victim.params("file-name", "big.blob")...) + "\r\n"
	for range 100 {
		c.add("127.0.0.2", after(func(c *crowd, s *wire) {
			io.WriteString(s, request)
			<-c.stop
		}))
	}
	time.Sleep(time.Second)
	w.undisturbed(t, atLeast(3))
	// Places come free although nobody reads and nobody goes.
	harness.Eventually(t, "a download", func() bool {
		a, err := w.tryAsk("", w.mallory, "GET", "/admin/datastore/"+store+"/download", victim.params("file-name", "big.blob")...)
		return err == nil && a.status == 200 && len(a.body) == chunkMax-88
	})
}
