package client

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// countingConn counts writes, and fails them once it is broken.
type countingConn struct {
	net.Conn
	writes atomic.Int64
	broken atomic.Bool
}

var errCut = errors.New("the cable was cut")

func (c *countingConn) Write(p []byte) (int, error) {
	c.writes.Add(1)
	if c.broken.Load() {
		return 0, errCut
	}
	return c.Conn.Write(p)
}

// securePair returns both ends of a TLS connection, both with a batcher.
func securePair(t *testing.T) (near, far *secureConn, below *countingConn) {
	t.Helper()
	f := newFake(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan *secureConn, 1)
	go func() {
		raw, err := l.Accept()
		if err != nil {
			accepted <- nil
			return
		}
		b := newBatcher(raw)
		conn := tls.Server(b, f.server.TLS)
		if conn.HandshakeContext(t.Context()) != nil {
			accepted <- nil
			return
		}
		accepted <- &secureConn{Conn: conn, raw: b}
	}()
	raw, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	below = &countingConn{Conn: raw}
	b := newBatcher(below)
	near = &secureConn{Conn: tls.Client(b, &tls.Config{InsecureSkipVerify: true}), raw: b}
	if err := near.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	if far = <-accepted; far == nil {
		t.Fatal("the handshake has failed")
	}
	t.Cleanup(func() { near.Close(); far.Close() })
	return near, far, below
}

func TestBatchesCarryEverything(t *testing.T) {
	near, far, below := securePair(t)
	r := rand.New(rand.NewPCG(1, 2))
	var want []byte
	for _, size := range []int{0, 1, recordMax, recordMax + 1, batchSize - 1, batchSize, 3*batchSize + 7, 1 << 20} {
		part := make([]byte, size)
		for i := range part {
			part[i] = byte(r.Uint32())
		}
		want = append(want, part...)
	}
	before := below.writes.Load()
	go func() {
		for rest := want; len(rest) > 0; {
			n := min(1+r.IntN(700_000), len(rest))
			if _, err := near.Write(rest[:n]); err != nil {
				t.Errorf("write: %v", err)
				return
			}
			rest = rest[n:]
		}
		near.CloseWrite()
	}()
	got, err := io.ReadAll(far)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%d bytes of %d came, %v", len(got), len(want), err)
	}
	if writes, records := below.writes.Load()-before, int64(len(want)/recordMax); writes > records/4 {
		t.Errorf("%d writes for %d records", writes, records)
	}
}

// Small writes beside large ones come through, and nothing is held back.
func TestBatchesOfManyWriters(t *testing.T) {
	near, far, _ := securePair(t)
	const writers, rounds = 6, 40
	sizes := [writers]int{1, 100, recordMax, recordMax + 9, 100_000, 300_000}
	var wg sync.WaitGroup
	total := 0
	for w := range writers {
		total += sizes[w] * rounds
		wg.Go(func() {
			p := bytes.Repeat([]byte{byte(w + 1)}, sizes[w])
			for range rounds {
				if n, err := near.Write(p); n != len(p) || err != nil {
					t.Errorf("wrote %d of %d: %v", n, len(p), err)
				}
			}
		})
	}
	counts := [writers + 1]int{}
	buf := make([]byte, 1<<16)
	for total > 0 {
		n, err := far.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range buf[:n] {
			counts[b]++
		}
		total -= n
	}
	wg.Wait()
	for w, size := range sizes {
		if counts[w+1] != size*rounds {
			t.Errorf("writer %d: %d of %d bytes", w, counts[w+1], size*rounds)
		}
	}
}

func TestBatchTellsThatTheConnectionBroke(t *testing.T) {
	near, _, below := securePair(t)
	below.broken.Store(true)
	if _, err := near.Write(make([]byte, 3*recordMax)); !errors.Is(err, errCut) {
		t.Errorf("the first write: %v", err)
	}
	if _, err := near.Write(make([]byte, 10)); err == nil {
		t.Error("the second write went well")
	}
}
