package interop

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"hash/crc32"
	mrand "math/rand/v2"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// fixedSize is the chunk size of every fixed index, section 2.4.
const fixedSize = 4 << 20

// maxChunk is the largest plain chunk, section 2.3.
const maxChunk = 16 << 20

// The first bytes of the kinds of blobs, section 11.1.
const (
	magicPlain      = "\x42\xab\x38\x07\xbe\x83\x70\xa1"
	magicZstd       = "\x31\xb9\x58\x42\x6f\xb6\xa3\x7f"
	magicSealed     = "\x7b\x67\x85\xbe\x22\x2d\x4c\xf0"
	magicSealedZstd = "\xe6\x59\x1b\xbf\x0b\xbf\xd8\x0b"
	magicFixed      = "\x2f\x7f\x41\xed\x91\xfd\x0f\xcd"
	magicDynamic    = "\x1c\x91\x4e\xa5\x19\xba\xb3\xcd"
)

// chunk is plain bytes with the name and the envelope that they travel in.
type chunk struct {
	plain  []byte
	digest string
	blob   []byte
}

// plainBlob is the envelope without compression.
func plainBlob(data []byte) []byte {
	b := make([]byte, 12, 12+len(data))
	copy(b, magicPlain)
	binary.LittleEndian.PutUint32(b[8:], crc32.ChecksumIEEE(data))
	return append(b, data...)
}

// zstdFrame compresses; the level is the one that other writers use.
func zstdFrame(data []byte) []byte {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false))
	if err != nil {
		panic(err)
	}
	defer enc.Close()
	return enc.EncodeAll(data, nil)
}

// zstdBlob is the envelope with compression.
func zstdBlob(data []byte) []byte {
	b := plainBlob(zstdFrame(data))
	copy(b, magicZstd)
	return b
}

// sealedBlob encrypts what is already compressed or not, as magic says.
func sealedBlob(magic string, key, data []byte) []byte {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err)
	}
	gcm, err := cipher.NewGCMWithNonceSize(block, 16)
	if err != nil {
		panic(err)
	}
	b := make([]byte, 44, 44+len(data)+16)
	copy(b, magic)
	rand.Read(b[12:28])
	out := gcm.Seal(nil, b[12:28], data, nil)
	copy(b[28:44], out[len(data):])
	b = append(b, out[:len(data)]...)
	binary.LittleEndian.PutUint32(b[8:], crc32.ChecksumIEEE(b[44:]))
	return b
}

// digestOf names plain bytes.
func digestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// newChunk is a chunk in the envelope without compression.
func newChunk(data []byte) chunk { return chunk{data, digestOf(data), plainBlob(data)} }

// newZstd is a chunk in the envelope with compression.
func newZstd(data []byte) chunk { return chunk{data, digestOf(data), zstdBlob(data)} }

// newSealed is an encrypted chunk under its keyed name.
func newSealed(key, data []byte) chunk {
	id, err := pbkdf2.Key(sha256.New, string(key), []byte("_id_key"), 10, 32)
	if err != nil {
		panic(err)
	}
	return chunk{data, digestOf(append(bytes.Clone(data), id...)), sealedBlob(magicSealed, key, data)}
}

// noise is n bytes that do not compress and differ for each seed.
func noise(seed uint64, n int) []byte {
	var s [32]byte
	binary.LittleEndian.PutUint64(s[:], seed)
	b := make([]byte, n)
	mrand.NewChaCha8(s).Read(b)
	return b
}

// open takes a blob apart as a reader has to, section 1.6 of the formats.
func openBlob(t testing.TB, b []byte) []byte {
	t.Helper()
	if len(b) < 12 {
		t.Fatalf("a blob of %d bytes", len(b))
	}
	if crc32.ChecksumIEEE(b[12:]) != binary.LittleEndian.Uint32(b[8:]) {
		t.Fatalf("a blob with a wrong checksum: % x", b[:12])
	}
	switch string(b[:8]) {
	case magicPlain:
		return b[12:]
	case magicZstd:
		dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
		if err != nil {
			t.Fatal(err)
		}
		defer dec.Close()
		data, err := dec.DecodeAll(b[12:], nil)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	t.Fatalf("a blob that begins % x", b[:8])
	return nil
}

// raw is a digest as bytes.
func raw(t testing.TB, digest string) []byte {
	t.Helper()
	b, err := hex.DecodeString(digest)
	if err != nil || len(b) != 32 {
		t.Fatalf("not a digest: %q", digest)
	}
	return b
}

// fixedSum is the checksum of a fixed index, section 2.8.
func fixedSum(t testing.TB, digests []string) string {
	t.Helper()
	var all []byte
	for _, d := range digests {
		all = append(all, raw(t, d)...)
	}
	return digestOf(all)
}

// dynamicSum is the checksum of a dynamic index: end offsets and digests.
func dynamicSum(t testing.TB, digests []string, ends []uint64) string {
	t.Helper()
	var all []byte
	for i, d := range digests {
		all = binary.LittleEndian.AppendUint64(all, ends[i])
		all = append(all, raw(t, d)...)
	}
	return digestOf(all)
}

// checkFixed compares an index file with what it must say.
func checkFixed(t testing.TB, file []byte, size int64, digests []string) {
	t.Helper()
	if len(file) != 4096+32*len(digests) || string(file[:8]) != magicFixed {
		t.Fatalf("a fixed index of %d chunks has %d bytes and begins % x", len(digests), len(file), file[:min(8, len(file))])
	}
	if got := binary.LittleEndian.Uint64(file[64:]); got != uint64(size) {
		t.Errorf("the index has size %d, want %d", got, size)
	}
	if got := binary.LittleEndian.Uint64(file[72:]); got != fixedSize {
		t.Errorf("the index has chunk size %d", got)
	}
	if got := hex.EncodeToString(file[32:64]); got != digestOf(file[4096:]) {
		t.Errorf("the checksum in the header is %s", got)
	}
	if digestOf(file[4096:]) != fixedSum(t, digests) {
		t.Error("the index has other digests")
	}
	if !bytes.Equal(file[80:4096], make([]byte, 4016)) {
		t.Error("the header does not end with zeros")
	}
}

// checkDynamic compares an index file with what it must say.
func checkDynamic(t testing.TB, file []byte, digests []string, ends []uint64) {
	t.Helper()
	if len(file) != 4096+40*len(digests) || string(file[:8]) != magicDynamic {
		t.Fatalf("a dynamic index of %d chunks has %d bytes and begins % x", len(digests), len(file), file[:min(8, len(file))])
	}
	if got := hex.EncodeToString(file[32:64]); got != digestOf(file[4096:]) {
		t.Errorf("the checksum in the header is %s", got)
	}
	if digestOf(file[4096:]) != dynamicSum(t, digests, ends) {
		t.Error("the index has other records")
	}
	if !bytes.Equal(file[64:4096], make([]byte, 4032)) {
		t.Error("the header does not end with zeros")
	}
}

// entry is a file in a manifest.
type entry struct {
	Filename string `json:"filename"`
	Mode     string `json:"crypt-mode"`
	Size     int64  `json:"size"`
	Sum      string `json:"csum"`
}

// manifest is the description of a snapshot, section 11.6.
type manifest struct {
	Type        string         `json:"backup-type"`
	ID          string         `json:"backup-id"`
	Time        int64          `json:"backup-time"`
	Files       []entry        `json:"files"`
	Signature   *string        `json:"signature"`
	Unprotected map[string]any `json:"unprotected"`
}

// manifestOf describes a snapshot with these files.
func manifestOf(s snap, files []entry) manifest {
	if files == nil {
		files = []entry{}
	}
	return manifest{Type: s.kind, ID: s.id, Time: s.time, Files: files, Unprotected: map[string]any{}}
}

func (m manifest) text() []byte {
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		panic(err)
	}
	return b
}

// parseManifest reads the manifest out of its blob.
func parseManifest(t testing.TB, blob []byte) manifest {
	t.Helper()
	var m manifest
	if err := json.Unmarshal(openBlob(t, blob), &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// decode reads JSON.
func decode(t testing.TB, b []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatalf("%v: %q", err, b)
	}
}
