// Package chunker decides where a stream of bytes is cut into chunks.
//
// Chunker cuts by content: restic/chunker's Rabin fingerprint over a window of
// 64 bytes, with a smallest and a largest size and a polynomial that, when the
// backup is encrypted, is derived from the key, so that the cut points tell a
// reader of the store nothing he could compare with a known file. A cut depends
// only on the bytes since the last cut: the same bytes cut from the same place
// always end at the same place. Boundary replay rests on that.
//
// Params.String names a way of cutting in one short text; two backups with the
// same text and the same key cut alike.
package chunker

import (
	"errors"
	"fmt"
	"io"

	rabin "github.com/restic/chunker"
)

// windowSize is how many bytes a cut looks back.
const windowSize = 64

// Params are the sizes of content-defined chunks, in bytes.
type Params struct {
	Min     int
	Max     int
	AvgBits int // a cut is tried every 1<<AvgBits bytes beyond Min on average
}

// Default returns the sizes that were measured to be best for disk images; the
// table is in docs/chunking.md.
func Default() Params { return Params{Min: 512 << 10, Max: 2 << 20, AvgBits: 18} }

// String names the parameters, for example "rabin-524288-18-2097152".
func (p Params) String() string { return fmt.Sprintf("rabin-%d-%d-%d", p.Min, p.AvgBits, p.Max) }

// ErrParams is returned for sizes that no chunker can work with.
var ErrParams = errors.New("bad chunker parameters")

func (p Params) validate() error {
	if p.Min < 2*windowSize || p.Max < p.Min || p.AvgBits < 8 || p.AvgBits > 30 {
		return fmt.Errorf("%s: %w", p, ErrParams)
	}
	return nil
}

// Polynomial parametrises the rolling hash. It is irreducible and of degree 53.
type Polynomial uint64

// Public is the polynomial of backups that are not encrypted: every client
// uses the same one, so that they deduplicate against each other.
const Public Polynomial = 0x23cd2d4e0d058b

// Derive computes a polynomial from a deterministic stream of bytes, such as
// one expanded from a key. The same stream gives the same polynomial.
func Derive(r io.Reader) (Polynomial, error) {
	pol, err := rabin.DerivePolynomial(r)
	if err != nil {
		return 0, fmt.Errorf("derive chunker polynomial: %w", err)
	}
	return Polynomial(pol), nil
}

// Chunker finds the cuts of one stream. It is not safe for concurrent use.
type Chunker struct {
	pol    Polynomial
	params Params
	base   *rabin.BaseChunker
	dirty  bool // bytes of an unfinished chunk have been seen
}

// New returns a Chunker at the beginning of a chunk.
func New(pol Polynomial, p Params) (*Chunker, error) {
	if err := p.validate(); err != nil {
		return nil, err
	}
	if rabin.Pol(pol).Deg() != 53 {
		return nil, fmt.Errorf("polynomial %#x is not of degree 53: %w", uint64(pol), ErrParams)
	}
	c := &Chunker{pol: pol, params: p}
	c.base = rabin.NewBase(rabin.Pol(pol), rabin.WithBaseBoundaries(uint(p.Min), uint(p.Max)), rabin.WithBaseAverageBits(p.AvgBits))
	return c, nil
}

// Next scans buf, the bytes that follow those of the last call. It returns how
// many of them belong to the current chunk if the chunk ends within buf, and -1
// if it does not. After a cut the next call begins a new chunk.
func (c *Chunker) Next(buf []byte) int {
	n := c.base.NextSplitPoint(buf)
	c.dirty = n < 0 && (c.dirty || len(buf) > 0)
	return n
}

// Reset gives up the current chunk: the next call of Next begins a new one.
func (c *Chunker) Reset() {
	if !c.dirty {
		return
	}
	c.base.Reset(rabin.Pol(c.pol), rabin.WithBaseBoundaries(uint(c.params.Min), uint(c.params.Max)), rabin.WithBaseAverageBits(c.params.AvgBits))
	c.dirty = false
}
