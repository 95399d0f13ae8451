package interop

import (
	"net"
	"strconv"
	"testing"

	"golang.org/x/net/http2"

	"holdfast/tests/harness"
)

// over opens a backup session over a connection that is lost after cut bytes;
// no cut when negative. It is nil when the cut came before the session.
func (w *world) over(t testing.TB, s snap, cut int64) (*session, *cutter) {
	t.Helper()
	raw, err := w.tcp()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { raw.Close() })
	wire := &cutter{Conn: raw, cut: cut}
	c, err := w.connect(wire)
	if err != nil {
		return nil, wire
	}
	h, _, err := begin(c, backupRequest(w.alice, s))
	if err != nil || h == nil {
		return nil, wire
	}
	return &session{h, s}, wire
}

// script is a backup up to the request before finish. It stops at the first
// error, which is what the cut makes.
func (s *session) script(t testing.TB) error {
	chunks := small(1234)
	digests, _, ends, size := layout(chunks)
	body := []byte(`{"wid":1,"digest-list":["` + digests[0] + `","` + digests[1] + `","` + digests[2] + `"],"offset-list":[0,1000,6000]}`)
	manifest := plainBlob(manifestOf(s.snap, []entry{{"root.pxar.didx", "none", size, dynamicSum(t, digests, ends)}}).text())
	steps := []func() (answer, error){
		func() (answer, error) {
			return s.try("POST", "/dynamic_index", nil, "archive-name", "root.pxar.didx")
		},
		func() (answer, error) { return s.tryChunk("dynamic", 1, chunks[0]) },
		func() (answer, error) { return s.tryChunk("dynamic", 1, chunks[1]) },
		func() (answer, error) { return s.tryChunk("dynamic", 1, chunks[2]) },
		func() (answer, error) { return s.roundTrip("PUT", "/dynamic_index", "application/json", body) },
		func() (answer, error) {
			return s.try("POST", "/dynamic_close", nil, "wid", "1", "chunk-count", "3", "size", strconv.FormatInt(size, 10), "csum", dynamicSum(t, digests, ends))
		},
		func() (answer, error) {
			return s.try("POST", "/blob", manifest, "file-name", manifestName, "encoded-size", strconv.Itoa(len(manifest)))
		},
	}
	for _, step := range steps {
		a, err := step()
		if err != nil {
			return err
		}
		if a.status != 200 {
			t.Errorf("the script got %s", a)
		}
	}
	return nil
}

// A connection lost anywhere before finish leaves nothing, and the group can be
// used at once.
func TestLostConnection(t *testing.T) {
	t.Parallel()
	whole := newGroup("host")
	b, wire := server.over(t, whole, -1)
	if b == nil {
		t.Fatal("no session")
	}
	if err := b.script(t); err != nil {
		t.Fatal(err)
	}
	length := wire.sent
	b.finish(t).null(t)
	b.hangUp()

	s := newGroup("host")
	const cuts = 40
	for i := range int64(cuts) {
		at := length * i / cuts
		if b, _ := server.over(t, s, at); b != nil {
			b.script(t)
			b.hangUp()
		}
		if len(server.list(t, s)) > 0 {
			t.Fatalf("a connection lost after %d of %d bytes left a snapshot", at, length)
		}
		server.free(t, s).hangUp()
	}
	server.gone(t, s)
	harness.Eventually(t, "the next backup", func() bool {
		next, a := server.tryBackup(t, server.alice, s)
		if next == nil {
			a.refused(t, 400)
			return false
		}
		next.commit(t, next.archive(t, "root.pxar.didx", small(1)...))
		return true
	})
	if l := server.list(t, s); len(l) != 1 || len(l[s.time].Files) != 2 {
		t.Errorf("after all the group has %+v", l)
	}
}

// Other ways to leave without finish.
func TestLeaving(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(*session){
		"at once":           func(s *session) { s.hangUp() },
		"closing the write": func(s *session) { s.conn.(interface{ CloseWrite() error }).CloseWrite() },
		"goaway": func(s *session) {
			s.write.Lock()
			s.out.WriteGoAway(0, http2.ErrCodeNo, nil)
			s.write.Unlock()
			s.hangUp()
		},
		"in a stream": func(s *session) {
			id, st, _ := s.open("POST", target("/blob", []string{"file-name", "a.blob", "encoded-size", "5000"}), "application/octet-stream", false)
			s.pour(id, st, make([]byte, 100), false)
			s.hangUp()
		},
		"a stream reset": func(s *session) {
			id, st, _ := s.open("POST", target("/blob", []string{"file-name", "a.blob", "encoded-size", "5000"}), "application/octet-stream", false)
			s.pour(id, st, make([]byte, 100), false)
			s.write.Lock()
			s.out.WriteRSTStream(id, http2.ErrCodeCancel)
			s.write.Unlock()
			s.hangUp()
		},
		"noise": func(s *session) {
			s.write.Lock()
			s.conn.Write(noise(1, 3000))
			s.write.Unlock()
			s.ended()
			s.hangUp()
		},
		"tcp reset": func(s *session) {
			if c, ok := s.conn.(interface{ NetConn() net.Conn }); ok {
				c.NetConn().(*net.TCPConn).SetLinger(0)
				c.NetConn().Close()
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newGroup("host")
			b := server.backup(t, server.alice, s)
			b.archive(t, "root.pxar.didx", small(1)...)
			b.index(t, "open.didx")
			b.describe(t)
			leave(b)
			server.gone(t, s)
			harness.Eventually(t, "the next backup", func() bool {
				next, _ := server.tryBackup(t, server.alice, s)
				if next != nil {
					next.commit(t, next.archive(t, "root.pxar.didx", small(1)...))
				}
				return next != nil
			})
		})
	}
}

// A stream that is reset does not end the session.
func TestStreamReset(t *testing.T) {
	t.Parallel()
	s := newGroup("host")
	b := server.backup(t, server.alice, s)
	wid := b.index(t, "root.pxar.didx")
	c := newChunk(noise(5, 90000))
	for range 20 {
		id, st, err := b.open("POST", target("/dynamic_chunk", []string{"wid", strconv.Itoa(wid), "digest", c.digest, "size", "90000",
			"encoded-size", strconv.Itoa(len(c.blob))}), "application/octet-stream", false)
		if err != nil {
			t.Fatal(err)
		}
		b.pour(id, st, c.blob[:50000], false)
		b.write.Lock()
		b.out.WriteRSTStream(id, http2.ErrCodeCancel)
		b.write.Unlock()
		b.update(func() { delete(b.streams, id) })
	}
	b.put(t, "dynamic", list{wid, []string{c.digest}, []int64{0}}).refused(t, 400, "no such chunk")
	b.chunk(t, "dynamic", wid, c)
	b.put(t, "dynamic", list{wid, []string{c.digest}, []int64{0}}).null(t)
	sum := dynamicSum(t, []string{c.digest}, []uint64{90000})
	b.talk.do(t, "POST", "/dynamic_close", nil, "wid", strconv.Itoa(wid), "chunk-count", "1", "size", "90000", "csum", sum).null(t)
	b.commit(t, entry{"root.pxar.didx", "none", 90000, sum})
}
