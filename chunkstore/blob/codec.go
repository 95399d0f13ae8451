package blob

import (
	"fmt"
	"io"
	"runtime"
	"sync"

	"github.com/klauspost/compress/zstd"

	"holdfast/chunkstore"
	"holdfast/crypto"
)

// windowSize is how far back zstd looks, in bytes. Chunks are about this long;
// a longer window costs memory and finds nothing more.
const windowSize = 1 << 20

// Options are the settings of a Codec.
type Options struct {
	// Key opens encrypted blobs and, with Encrypt, names and encrypts. nil means
	// that only plain blobs can be read and written.
	Key *crypto.Key
	// Encrypt says which class of blob Encode makes and DecodeChunk expects.
	Encrypt bool
	// Rand is where nonces come from. It must never repeat itself. nil makes
	// them from key and content, so that all who have the key seal equal
	// contents to equal bytes.
	Rand io.Reader
	// Level is how hard to compress; zero is zstd.SpeedDefault, which on disk
	// images saves two percent over the fastest for a tenth of a backup's time.
	Level zstd.EncoderLevel
	// Workers is how many blobs can be worked on at the same time; more
	// callers wait. Zero is the number of CPUs.
	Workers int
}

// Codec encodes and decodes blobs. It is safe for concurrent use and keeps nothing
// of the slices it is given.
type Codec struct {
	key     *crypto.Key
	encrypt bool
	enc     *zstd.Encoder
	dec     *zstd.Decoder
	// scratch holds *[]byte: room for a decrypted frame on its way to the
	// decompressor.
	scratch sync.Pool

	// randMu guards rand: not every reader may be used concurrently.
	randMu sync.Mutex
	rand   io.Reader
}

// NewCodec makes a codec. Encrypt without a key is refused.
func NewCodec(o Options) (*Codec, error) {
	if o.Encrypt && o.Key == nil {
		return nil, fmt.Errorf("set up the blob codec for encryption: %w", crypto.ErrNoKey)
	}
	if o.Level == 0 {
		o.Level = zstd.SpeedDefault
	}
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	enc, err := zstd.NewWriter(nil,
		zstd.WithEncoderLevel(o.Level),
		zstd.WithEncoderConcurrency(o.Workers),
		zstd.WithWindowSize(windowSize),
		zstd.WithLowerEncoderMem(true),
		// A block without matches is still worth its Huffman code: a tenth of
		// a percent less to store on disk images, for nothing measurable.
		zstd.WithAllLitEntropyCompression(true),
		zstd.WithEncoderCRC(false))
	if err != nil {
		return nil, fmt.Errorf("set up the compressor: %w", err)
	}
	dec, err := zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(o.Workers),
		zstd.WithDecoderMaxMemory(PlainSizeMax),
		zstd.WithDecoderMaxWindow(PlainSizeMax),
		zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		return nil, fmt.Errorf("set up the decompressor: %w", err)
	}
	return &Codec{key: o.Key, encrypt: o.Encrypt, enc: enc, dec: dec, rand: o.Rand}, nil
}

// Class returns the class of the chunks that the codec makes and opens.
func (c *Codec) Class() chunkstore.Class {
	if c.encrypt {
		return chunkstore.ClassEncrypted
	}
	return chunkstore.ClassPlain
}

// Name returns the name of a chunk: keyed if the codec encrypts, the plain
// SHA-256 otherwise.
func (c *Codec) Name(p chunkstore.Plain) chunkstore.ID {
	if !c.encrypt {
		return crypto.Sum(p)
	}
	return c.key.Name(p)
}

// Encode compresses p if that makes it shorter, encrypts it if the codec does,
// and returns the blob. It is written into dst[:0] if dst has the capacity
// SizeMax(len(p)), and into a new slice otherwise; dst must not overlap p.
func (c *Codec) Encode(dst []byte, p chunkstore.Plain) (chunkstore.Blob, error) {
	buf, err := room(dst, len(p))
	if err != nil {
		return nil, err
	}
	k := kind{encrypted: c.encrypt}
	buf = c.enc.EncodeAll(p, buf[:k.head()])
	if k.compressed = len(buf)-k.head() < len(p); !k.compressed {
		buf = append(buf[:k.head()], p...)
	}
	if k.encrypted {
		if buf, err = c.encryptInPlace(buf, k); err != nil {
			return nil, err
		}
	}
	putHeader(buf, k)
	return buf, nil
}

// EncodeRaw returns a blob that is neither compressed nor encrypted, whatever the
// codec does otherwise. dst is used as by Encode.
func (c *Codec) EncodeRaw(dst []byte, p chunkstore.Plain) (chunkstore.Blob, error) {
	buf, err := room(dst, len(p))
	if err != nil {
		return nil, err
	}
	buf = append(buf[:plainHead], p...)
	putHeader(buf, kind{})
	return buf, nil
}

// room returns dst[:0], or a new slice if it cannot hold a blob of that many
// plain bytes.
func room(dst []byte, plain int) ([]byte, error) {
	if plain > PlainSizeMax {
		return nil, fmt.Errorf("encode a blob: %d bytes are more than %d: %w", plain, PlainSizeMax, chunkstore.ErrInvalid)
	}
	if cap(dst) < SizeMax(plain) {
		dst = make([]byte, 0, SizeMax(plain))
	}
	return dst[:0], nil
}

// encryptInPlace turns header space and content into header, nonce, tag and
// ciphertext. The cipher appends the tag; the format wants it in front.
func (c *Codec) encryptInPlace(buf []byte, k kind) ([]byte, error) {
	iv := buf[ivOff:tagOff]
	if err := c.nonce(iv, buf[sealHead:], k); err != nil {
		return nil, fmt.Errorf("read a random nonce: %w", err)
	}
	buf = c.key.Seal(buf[:sealHead], iv, buf[sealHead:])
	end := len(buf) - crypto.TagSize
	copy(buf[tagOff:sealHead], buf[end:])
	return buf[:end], nil
}

// nonce makes the nonce that content is encrypted with. What kind it is has part in it,
// since the same bytes may be a content and another one compressed.
func (c *Codec) nonce(iv, content []byte, k kind) error {
	if c.rand == nil {
		made := c.key.Nonce(k.magic()[0], content)
		copy(iv, made[:])
		return nil
	}
	c.randMu.Lock()
	defer c.randMu.Unlock()
	_, err := io.ReadFull(c.rand, iv)
	return err
}

// Decode returns the content of a blob of at most sizeMax bytes. It is written
// into dst[:0] if its capacity suffices (a little more than the content is
// fastest, see SizeMax), into a new slice otherwise; dst must not overlap s.
// Checksum and tag are verified. Encrypted blobs need a key, or the error is
// crypto.ErrNoKey; a tag that does not fit is both chunkstore.ErrCorrupt and
// crypto.ErrTampered; everything else wraps chunkstore.ErrCorrupt.
func (c *Codec) Decode(dst []byte, s chunkstore.Blob, sizeMax int) (chunkstore.Plain, error) {
	k, err := check(s)
	if err != nil {
		return nil, err
	}
	sizeMax = min(sizeMax, PlainSizeMax)
	switch {
	case k.encrypted && c.key == nil:
		return nil, fmt.Errorf("open an encrypted blob: %w", crypto.ErrNoKey)
	case k.compressed && k.encrypted:
		return c.openFrame(dst, s, sizeMax)
	case k.compressed:
		return c.decompress(dst, s[plainHead:], sizeMax)
	}
	if n := len(s) - k.head(); n > sizeMax {
		return nil, fmt.Errorf("blob: content of %d bytes, at most %d are allowed: %w", n, sizeMax, chunkstore.ErrCorrupt)
	}
	if k.encrypted {
		return c.decrypt(dst, s)
	}
	return append(dst[:0], s[plainHead:]...), nil
}

// decrypt returns what the seal encloses, written into dst[:0].
func (c *Codec) decrypt(dst []byte, s chunkstore.Blob) ([]byte, error) {
	plain, err := c.key.Open(dst[:0], s[ivOff:tagOff], s[tagOff:sealHead], s[sealHead:])
	if err != nil {
		return nil, fmt.Errorf("blob: the tag at byte %d does not fit the key and the data: %w: %w", tagOff, chunkstore.ErrCorrupt, err)
	}
	return plain, nil
}

// openFrame decrypts into a borrowed buffer and decompresses from there.
func (c *Codec) openFrame(dst []byte, s chunkstore.Blob, sizeMax int) (chunkstore.Plain, error) {
	scratch, ok := c.scratch.Get().(*[]byte)
	if !ok {
		scratch = new([]byte)
	}
	defer c.scratch.Put(scratch)
	if need := len(s) - sealHead + crypto.TagSize; cap(*scratch) < need {
		*scratch = make([]byte, 0, need)
	}
	frame, err := c.decrypt(*scratch, s)
	if err != nil {
		return nil, err
	}
	return c.decompress(dst, frame, sizeMax)
}

// DecodeChunk decodes a blob that must be the chunk id of exactly size plain bytes.
// Besides what Decode checks, the class must be the one the codec makes, so that
// a plain blob cannot stand in for an encrypted one, and the content must have
// the name. The errors are those of Decode and name the chunk.
func (c *Codec) DecodeChunk(dst []byte, id chunkstore.ID, s chunkstore.Blob, size int) (chunkstore.Plain, error) {
	p, err := c.openChunk(dst, id, s, size)
	if err != nil {
		return nil, fmt.Errorf("open chunk %s: %w", id.Short(), err)
	}
	return p, nil
}

func (c *Codec) openChunk(dst []byte, id chunkstore.ID, s chunkstore.Blob, size int) (chunkstore.Plain, error) {
	k, err := kindOf(s)
	if err != nil {
		return nil, err
	}
	switch {
	case c.encrypt && !k.encrypted:
		return nil, fmt.Errorf("the blob is plain where an encrypted one is expected: %w", chunkstore.ErrCorrupt)
	case !c.encrypt && k.encrypted:
		return nil, fmt.Errorf("the blob is encrypted where a plain one is expected: %w", chunkstore.ErrCorrupt)
	case size < 0 || size > chunkstore.PlainSizeMax:
		return nil, fmt.Errorf("size %d is not within 0..%d: %w", size, chunkstore.PlainSizeMax, chunkstore.ErrInvalid)
	}
	if k.compressed && cap(dst) < size {
		dst = make([]byte, 0, size+frameSlack)
	}
	p, err := c.Decode(dst, s, size)
	if err != nil {
		return nil, err
	}
	if len(p) != size {
		return nil, fmt.Errorf("content of %d bytes, want %d: %w", len(p), size, chunkstore.ErrCorrupt)
	}
	if got := c.Name(p); got != id {
		return nil, fmt.Errorf("the content has the name %s: %w", chunkstore.ID(got).Short(), chunkstore.ErrCorrupt)
	}
	return p, nil
}

// Decompression.
const (
	// frameSlack is the room behind the content with which the decompressor
	// needs no careful mode near the end, in bytes.
	frameSlack = 64
	// guessSize is where decompression of an unknown size begins, in bytes.
	guessSize = 64 << 10
	// guessFactor is by how much the room grows when it was not enough.
	guessFactor = 4
)

// decompress returns the content of zstd frames, written into dst[:0] if it has
// the capacity. A frame need not say how long its content is, and several may
// follow each other, so that the size is found by trying: the decompressor
// stops at the capacity it is given.
func (c *Codec) decompress(dst, frames []byte, sizeMax int) ([]byte, error) {
	if len(frames) == 0 {
		return nil, fmt.Errorf("blob: no zstd frame behind the header: %w", chunkstore.ErrCorrupt)
	}
	need, err := firstContentSize(frames)
	if err != nil {
		return nil, err
	}
	if need > uint64(max(sizeMax, 0)) {
		return nil, fmt.Errorf("blob: zstd content size %d, at most %d bytes are allowed: %w", need, sizeMax, chunkstore.ErrCorrupt)
	}
	if size := max(int(need), 1); cap(dst) < size {
		if need == 0 { // it does not say
			size = max(min(sizeMax, guessSize), 1)
		}
		dst = make([]byte, 0, size+frameSlack)
	}
	for {
		out, err := c.dec.DecodeAll(frames, dst[:0])
		if err == nil && len(out) <= sizeMax {
			return out, nil
		}
		if err == nil {
			err = zstd.ErrDecoderSizeExceeded
		}
		// Too little room shows as one of several errors, some of which
		// damaged frames have too.
		if cap(dst) >= sizeMax {
			return nil, fmt.Errorf("blob: decompress into at most %d bytes: %w: %w", sizeMax, chunkstore.ErrCorrupt, err)
		}
		dst = make([]byte, 0, min(sizeMax, guessFactor*cap(dst))+frameSlack)
	}
}

// firstContentSize returns the content size in the header of the first frame, 0
// if it has none.
func firstContentSize(frames []byte) (uint64, error) {
	var h zstd.Header
	if err := h.Decode(frames); err != nil {
		return 0, fmt.Errorf("blob: zstd frame header: %w: %w", chunkstore.ErrCorrupt, err)
	}
	if !h.HasFCS {
		return 0, nil
	}
	return h.FrameContentSize, nil
}
