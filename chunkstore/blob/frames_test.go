package blob_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"runtime"
	"testing"

	"github.com/klauspost/compress/zstd"

	"holdfast/chunkstore"
	"holdfast/chunkstore/blob"
)

// compressed wraps zstd frames in a plain blob with the right checksum.
func compressed(frames []byte) chunkstore.Blob {
	s := append([]byte("\x31\xb9\x58\x42\x6f\xb6\xa3\x7f\x00\x00\x00\x00"), frames...)
	binary.LittleEndian.PutUint32(s[8:], crc32.ChecksumIEEE(frames))
	return s
}

// streamed compresses without content size in the frame.
func streamed(tb testing.TB, p []byte, o ...zstd.EOption) []byte {
	tb.Helper()
	var buf bytes.Buffer
	w, err := zstd.NewWriter(&buf, append([]zstd.EOption{zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1 << 20)}, o...)...)
	if err != nil {
		tb.Fatal(err)
	}
	// Two writes and a flush keep the encoder from knowing the size.
	for _, part := range [][]byte{p[:len(p)/2], p[len(p)/2:]} {
		if _, err := w.Write(part); err != nil {
			tb.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			tb.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	var h zstd.Header
	if err := h.Decode(buf.Bytes()); err != nil || h.HasFCS && len(p) > 0 {
		tb.Fatalf("frame has a content size: %v, %v", h.HasFCS, err)
	}
	return buf.Bytes()
}

// TestForeignFrames opens what other writers may have made: frames without
// content size, several frames, large windows, checksums, skippable frames.
func TestForeignFrames(t *testing.T) {
	c := newCodec(t, blob.Options{})
	all, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	skip := "\x50\x2a\x4d\x18\x03\x00\x00\x00abc"
	for name, p := range contents() {
		if len(p) == 0 {
			continue
		}
		a, b := p[:len(p)/3], p[len(p)/3:]
		cases := map[string][]byte{
			"without size":     streamed(t, p),
			"two with size":    append(all.EncodeAll(a, nil), all.EncodeAll(b, nil)...),
			"two without size": append(streamed(t, a), streamed(t, b)...),
			"mixed":            append(all.EncodeAll(a, nil), streamed(t, b)...),
			"mixed, reversed":  append(streamed(t, a), all.EncodeAll(b, nil)...),
			"skippable first":  append([]byte(skip), all.EncodeAll(p, nil)...),
			"skippable last":   append(all.EncodeAll(p, nil), skip...),
		}
		if name == "text" {
			cases["large window"] = streamed(t, p, zstd.WithWindowSize(128<<20), zstd.WithLowerEncoderMem(true))
		}
		for kind, frames := range cases {
			t.Run(kind+"/"+name, func(t *testing.T) { checkOpen(t, c, compressed(frames), p) })
		}
	}
}

func TestBadFrames(t *testing.T) {
	c := newCodec(t, blob.Options{})
	good := streamed(t, bytes.Repeat([]byte("text "), 1000))
	for name, frames := range map[string][]byte{
		"nothing":        nil,
		"not zstd":       []byte("hello world, hello world"),
		"cut":            good[:len(good)-3],
		"header only":    good[:6],
		"one byte more":  append(bytes.Clone(good), 0),
		"rubbish behind": append(bytes.Clone(good), "rubbish"...),
		// A window descriptor of 256 MiB.
		"window": {0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x90, 0x01, 0x00, 0x00},
		// A content size of 2^63, in a single segment.
		"absurd size": {0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0, 0, 0, 0, 0, 0x80, 0x01, 0x00, 0x00},
		"dictionary":  {0x28, 0xb5, 0x2f, 0xfd, 0x21, 0x07, 0x05, 0x01, 0x00, 0x00},
	} {
		if _, err := c.Decode(nil, compressed(frames), blob.PlainSizeMax); !errors.Is(err, chunkstore.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestBombs opens small blobs that claim or unfold to far more than allowed,
// and looks at how much memory that takes.
func TestBombs(t *testing.T) {
	c := newCodec(t, blob.Options{Workers: 1})
	all, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		t.Fatal(err)
	}
	zeros := make([]byte, 160<<20)
	sized := all.EncodeAll(zeros[:32<<20], nil)
	part := all.EncodeAll(zeros[:1<<20], nil)
	for name, frames := range map[string][]byte{
		"with size":    sized,
		"without size": streamed(t, zeros),
		"many frames":  bytes.Repeat(part, 200),
	} {
		const limit = 1 << 20
		s := compressed(frames)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := c.Decode(nil, s, limit)
		runtime.ReadMemStats(&after)
		if !errors.Is(err, chunkstore.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
		if got := after.TotalAlloc - before.TotalAlloc; got > 8*limit {
			t.Errorf("%s: %d bytes of memory for a limit of %d", name, got, limit)
		}
	}
}

func FuzzOpen(f *testing.F) {
	for _, section := range []string{"data_blobs", "data_blobs_negative"} {
		for _, v := range blobVectors(f, section) {
			f.Add([]byte(v.Blob), uint32(len(v.Plain)), false)
			if v.Frame != nil {
				f.Add([]byte(v.Frame), uint32(len(v.Plain)), true)
			}
		}
	}
	c := newCodec(f, blob.Options{Key: testKey(f), Workers: 1})
	f.Fuzz(func(t *testing.T, raw []byte, limit uint32, frame bool) {
		s := chunkstore.Blob(raw)
		if frame {
			s = compressed(raw) // past the checksum, into the decompressor
		}
		sizeMax := int(limit % (4 << 20))
		p, err := c.Decode(nil, s, sizeMax)
		if err != nil {
			if !errors.Is(err, chunkstore.ErrCorrupt) {
				t.Fatalf("error without ErrCorrupt: %v", err)
			}
			return
		}
		if len(p) > sizeMax {
			t.Fatalf("%d bytes where %d are allowed", len(p), sizeMax)
		}
		if _, err := blob.Check(s); err != nil {
			t.Fatalf("opened, but check says %v", err)
		}
		again, err := c.Decode(make([]byte, 0, sizeMax), s, sizeMax)
		if err != nil || !bytes.Equal(again, p) {
			t.Fatalf("opened anew: %v", err)
		}
	})
}

func FuzzEncode(f *testing.F) {
	for _, v := range blobVectors(f, "data_blobs") {
		f.Add([]byte(v.Plain))
	}
	cs := map[string]*blob.Codec{
		"plain": newCodec(f, blob.Options{Workers: 1}),
		// Coverage must not depend on chance.
		"encrypted": newCodec(f, blob.Options{Workers: 1, Key: testKey(f), Encrypt: true, Rand: repeater("0123456789abcdef")}),
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		for class, c := range cs {
			s, err := c.Encode(nil, p)
			if err != nil {
				t.Fatalf("%s: %v", class, err)
			}
			got, err := c.DecodeChunk(nil, c.Name(p), s, len(p))
			if err != nil || !bytes.Equal(got, p) {
				t.Fatalf("%s: %v", class, err)
			}
		}
	})
}
