package blob_test

import (
	"math/rand"
	"testing"

	"holdfast/chunkstore/blob"
)

// benchData returns chunks of 1 MiB: random bytes, and words drawn from a
// dictionary, of which zstd makes about a third.
func benchData() map[string][]byte {
	rnd := rand.New(rand.NewSource(1))
	random := make([]byte, 1<<20)
	rnd.Read(random)
	words := make([][]byte, 4096)
	for i := range words {
		words[i] = make([]byte, 3+rnd.Intn(9))
		for j := range words[i] {
			words[i][j] = byte('a' + rnd.Intn(26))
		}
	}
	text := make([]byte, 0, 1<<20+16)
	for len(text) < 1<<20 {
		text = append(append(text, words[int(float64(len(words))*rnd.Float64()*rnd.Float64())]...), ' ')
	}
	return map[string][]byte{"random": random, "text": text[:1<<20]}
}

// eachCase runs a benchmark for every class and content.
func eachCase(b *testing.B, run func(b *testing.B, c *blob.Codec, p []byte)) {
	for class, c := range codecs(b) {
		for name, p := range benchData() {
			b.Run(class+"/"+name, func(b *testing.B) {
				b.SetBytes(int64(len(p)))
				b.ReportAllocs()
				run(b, c, p)
			})
		}
	}
}

func BenchmarkName(b *testing.B) {
	eachCase(b, func(b *testing.B, c *blob.Codec, p []byte) {
		for b.Loop() {
			c.Name(p)
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	eachCase(b, func(b *testing.B, c *blob.Codec, p []byte) {
		dst := make([]byte, 0, blob.SizeMax(len(p)))
		n := 0
		for b.Loop() {
			s, err := c.Encode(dst, p)
			if err != nil {
				b.Fatal(err)
			}
			n = len(s)
		}
		b.ReportMetric(float64(len(p))/float64(n), "ratio")
	})
}

func BenchmarkOpen(b *testing.B) {
	eachCase(b, func(b *testing.B, c *blob.Codec, p []byte) {
		s, err := c.Encode(nil, p)
		if err != nil {
			b.Fatal(err)
		}
		dst := make([]byte, 0, blob.SizeMax(len(p)))
		for b.Loop() {
			if _, err := c.Decode(dst, s, len(p)); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkCheck(b *testing.B) {
	eachCase(b, func(b *testing.B, c *blob.Codec, p []byte) {
		s, err := c.Encode(nil, p)
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			if _, err := blob.Check(s); err != nil {
				b.Fatal(err)
			}
		}
	})
}
