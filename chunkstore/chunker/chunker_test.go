package chunker

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	rabin "github.com/restic/chunker"
)

// stream is an endless deterministic reader.
type stream struct {
	label string
	n     uint64
}

func (s *stream) Read(p []byte) (int, error) {
	for done := 0; done < len(p); s.n++ {
		sum := sha256.Sum256(binary.LittleEndian.AppendUint64([]byte(s.label), s.n))
		done += copy(p[done:], sum[:])
	}
	return len(p), nil
}

func noise(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(b)
	return b
}

func lengths(t *testing.T, c *Chunker, data []byte, step int) []int {
	t.Helper()
	var out []int
	cur := 0
	for len(data) > 0 {
		piece := data[:min(step, len(data))]
		n := c.Next(piece)
		if n < 0 {
			cur += len(piece)
			data = data[len(piece):]
			continue
		}
		out = append(out, cur+n)
		cur = 0
		data = data[n:]
	}
	c.Reset()
	return append(out, cur)
}

func TestPublicIsIrreducible(t *testing.T) {
	if !rabin.Pol(Public).Irreducible() || rabin.Pol(Public).Deg() != 53 {
		t.Fatalf("%#x is no irreducible polynomial of degree 53", uint64(Public))
	}
	derived, err := Derive(&stream{label: "holdfast public chunker polynomial v1"})
	if err != nil {
		t.Fatal(err)
	}
	if derived != Public {
		t.Fatalf("Public = %#x, derived from its label %#x", uint64(Public), uint64(derived))
	}
}

func TestDeriveIsDeterministicAndKeyed(t *testing.T) {
	a, errA := Derive(&stream{label: "a"})
	b, errB := Derive(&stream{label: "a"})
	c, errC := Derive(&stream{label: "c"})
	if err := errors.Join(errA, errB, errC); err != nil {
		t.Fatal(err)
	}
	if a != b || a == c {
		t.Fatalf("derived %#x, %#x, %#x", uint64(a), uint64(b), uint64(c))
	}
	if _, err := Derive(strings.NewReader("short")); err == nil {
		t.Fatal("a short stream gave a polynomial")
	}
}

func TestCutsDoNotDependOnPieces(t *testing.T) {
	data := noise(24 << 20)
	p := Params{Min: 64 << 10, Max: 1 << 20, AvgBits: 17}
	c, err := New(Public, p)
	if err != nil {
		t.Fatal(err)
	}
	whole := lengths(t, c, data, len(data))
	for i, n := range whole[:len(whole)-1] {
		if n < p.Min || n > p.Max {
			t.Errorf("chunk %d has %d bytes, want %d..%d", i, n, p.Min, p.Max)
		}
	}
	for _, step := range []int{4096, 65537, 1 << 20} {
		got := lengths(t, c, data, step)
		if len(got) != len(whole) {
			t.Fatalf("step %d: %d chunks, want %d", step, len(got), len(whole))
		}
		for i := range got {
			if got[i] != whole[i] {
				t.Fatalf("step %d: chunk %d has %d bytes, want %d", step, i, got[i], whole[i])
			}
		}
	}
}

func TestSameBytesFromACutEndAtTheSameCut(t *testing.T) {
	data := noise(16 << 20)
	p := Params{Min: 64 << 10, Max: 1 << 20, AvgBits: 17}
	c, err := New(Public, p)
	if err != nil {
		t.Fatal(err)
	}
	all := lengths(t, c, data, len(data))
	off := 0
	for i, n := range all[:len(all)-1] {
		fresh, err := New(Public, p)
		if err != nil {
			t.Fatal(err)
		}
		if got := fresh.Next(data[off:]); got != n {
			t.Fatalf("chunk %d cut alone has %d bytes, in the stream %d", i, got, n)
		}
		off += n
	}
}

func TestKeyMovesTheCuts(t *testing.T) {
	data := noise(8 << 20)
	other, err := Derive(&stream{label: "a key"})
	if err != nil {
		t.Fatal(err)
	}
	p := Params{Min: 64 << 10, Max: 1 << 20, AvgBits: 17}
	a, errA := New(Public, p)
	b, errB := New(other, p)
	if err := errors.Join(errA, errB); err != nil {
		t.Fatal(err)
	}
	if x, y := a.Next(data), b.Next(data); x == y {
		t.Fatalf("both polynomials cut first at %d", x)
	}
}

func TestResetForgets(t *testing.T) {
	data := noise(4 << 20)
	p := Params{Min: 64 << 10, Max: 1 << 20, AvgBits: 17}
	c, err := New(Public, p)
	if err != nil {
		t.Fatal(err)
	}
	want := c.Next(data)
	c.Next(data[:70<<10])
	c.Reset()
	if got := c.Next(data); got != want {
		t.Fatalf("first cut after Reset at %d, want %d", got, want)
	}
}

func TestBadParams(t *testing.T) {
	for _, p := range []Params{{}, {Min: 64, Max: 4096, AvgBits: 10}, {Min: 4096, Max: 4095, AvgBits: 10}, {Min: 4096, Max: 8192, AvgBits: 31}} {
		if _, err := New(Public, p); !errors.Is(err, ErrParams) {
			t.Errorf("New(%v) = %v, want ErrParams", p, err)
		}
	}
	if _, err := New(7, Default()); !errors.Is(err, ErrParams) {
		t.Errorf("polynomial of degree 2: %v", err)
	}
	if !bytes.Contains([]byte(Default().String()), []byte("rabin-")) {
		t.Errorf("Default is called %q", Default())
	}
}
