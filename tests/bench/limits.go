package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/klauspost/compress/zstd"

	"holdfast/chunkstore"
	"holdfast/chunkstore/blob"
	"holdfast/chunkstore/chunker"
	"holdfast/crypto"
)

const (
	// limitSample is how much real image data the limits are measured on.
	limitSample = 512 * mib
	// limitPiece is the unit of hashing, compressing and sealing, about the
	// size of a chunk.
	limitPiece = mib
	// limitRounds is how often each is measured; the best counts, because a
	// limit is what the machine can do.
	limitRounds = 3
)

// limits are the speeds of one core of this machine, in bytes for each second
// of wall time, over data of the image "night".
type limits struct {
	Read, Cut, Hash, Fastest, Default, Seal, Blob, Write float64
}

// measureLimits measures all of them on the images in dir.
func measureLimits(dir string) (limits, error) {
	runtime.GOMAXPROCS(1)
	f, err := os.Open(filepath.Join(dir, "night1.img"))
	if err != nil {
		return limits{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return limits{}, err
	}
	runs, err := dataRuns(f, info.Size())
	if err != nil {
		return limits{}, err
	}
	data := make([]byte, limitSample)
	read := func() error { return readRuns(f, runs, data) }
	if err := read(); err != nil {
		return limits{}, err
	}
	var l limits
	work, err := limitWork(dir, data)
	if err != nil {
		return limits{}, err
	}
	for _, w := range append(work, limitJob{"read", func(l *limits) *float64 { return &l.Read }, read}) {
		if *w.result(&l), err = best(len(data), w.do); err != nil {
			return limits{}, fmt.Errorf("measure %s: %w", w.name, err)
		}
	}
	return l, nil
}

// limitJob is one thing to measure and where its result goes.
type limitJob struct {
	name   string
	result func(*limits) *float64
	do     func() error
}

// best is the highest speed of several rounds over size bytes.
func best(size int, do func() error) (float64, error) {
	var speed float64
	for range limitRounds {
		began := time.Now()
		if err := do(); err != nil {
			return 0, err
		}
		speed = max(speed, float64(size)/time.Since(began).Seconds())
	}
	return speed, nil
}

// readRuns fills data with what the image holds.
func readRuns(f *os.File, runs []stretch, data []byte) error {
	for _, r := range runs {
		for off := r.off; off < r.off+r.len && len(data) > 0; {
			n := min(limitPiece, r.off+r.len-off, int64(len(data)))
			if _, err := f.ReadAt(data[:n], off); err != nil {
				return err
			}
			data, off = data[n:], off+n
		}
	}
	if len(data) > 0 {
		return io.ErrUnexpectedEOF
	}
	return nil
}

// limitWork is everything but reading.
func limitWork(dir string, data []byte) ([]limitJob, error) {
	key, err := crypto.NewKey(make([]byte, 32))
	if err != nil {
		return nil, err
	}
	fastest, err := encoder(zstd.SpeedFastest)
	if err != nil {
		return nil, err
	}
	usual, err := encoder(zstd.SpeedDefault)
	if err != nil {
		return nil, err
	}
	codec, err := blob.NewCodec(blob.Options{Key: key, Encrypt: true, Workers: 1})
	if err != nil {
		return nil, err
	}
	out := make([]byte, blob.SizeMax(limitPiece))
	iv := make([]byte, 16)
	each := func(do func(piece []byte) error) func() error {
		return func() error {
			for rest := data; len(rest) > 0; rest = rest[limitPiece:] {
				if err := do(rest[:limitPiece]); err != nil {
					return err
				}
			}
			return nil
		}
	}
	return []limitJob{
		{"cut", func(l *limits) *float64 { return &l.Cut }, func() error { return cutAll(data) }},
		{"hash", func(l *limits) *float64 { return &l.Hash }, each(func(p []byte) error { crypto.Sum(p); return nil })},
		{"compress", func(l *limits) *float64 { return &l.Fastest }, each(func(p []byte) error { fastest.EncodeAll(p, out[:0]); return nil })},
		{"compress", func(l *limits) *float64 { return &l.Default }, each(func(p []byte) error { usual.EncodeAll(p, out[:0]); return nil })},
		{"seal", func(l *limits) *float64 { return &l.Seal }, each(func(p []byte) error { key.Seal(out[:0], iv, p); return nil })},
		{"blob", func(l *limits) *float64 { return &l.Blob }, each(func(p []byte) error {
			_, err := codec.Encode(out[:0], chunkstore.Plain(p))
			return err
		})},
		{"write", func(l *limits) *float64 { return &l.Write }, func() error { return writeSynced(dir, data) }},
	}, nil
}

func encoder(level zstd.EncoderLevel) (*zstd.Encoder, error) {
	return zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(mib), zstd.WithEncoderCRC(false))
}

// cutAll cuts the data as a backup without a key does.
func cutAll(data []byte) error {
	c, err := chunker.New(chunker.Public, chunker.Default())
	if err != nil {
		return err
	}
	for len(data) > 0 {
		n := c.Next(data)
		if n <= 0 || n >= len(data) {
			return nil
		}
		data = data[n:]
	}
	return nil
}

// writeSynced writes a file and waits until it is on the disk.
func writeSynced(dir string, data []byte) error {
	f, err := os.CreateTemp(dir, "write-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	for rest := data; len(rest) > 0; rest = rest[limitPiece:] {
		if _, err := f.Write(rest[:limitPiece]); err != nil {
			return err
		}
	}
	return f.Sync()
}
