package blob_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"strings"
	"sync"
	"testing"

	"holdfast/chunkstore"
	"holdfast/chunkstore/blob"
	"holdfast/crypto"
	"holdfast/tests/vectors"
)

// repeater is a source of nonces that tests know beforehand.
type repeater []byte

func (r repeater) Read(p []byte) (int, error) { return copy(p, r), nil }

func testKey(tb testing.TB) *crypto.Key {
	tb.Helper()
	enc := make([]byte, crypto.KeySize)
	for i := range enc {
		enc[i] = byte(i)
	}
	return newKey(tb, enc)
}

func newKey(tb testing.TB, enc []byte) *crypto.Key {
	tb.Helper()
	k, err := crypto.NewKey(enc)
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

func newCodec(tb testing.TB, o blob.Options) *blob.Codec {
	tb.Helper()
	c, err := blob.NewCodec(o)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// codecs returns one codec per class.
func codecs(tb testing.TB) map[string]*blob.Codec {
	tb.Helper()
	return map[string]*blob.Codec{
		"plain":     newCodec(tb, blob.Options{Workers: 2}),
		"encrypted": newCodec(tb, blob.Options{Workers: 2, Key: testKey(tb), Encrypt: true}),
	}
}

// contents returns contents that compress well, somewhat and not at all.
func contents() map[string][]byte {
	rnd := rand.New(rand.NewSource(1))
	random := make([]byte, 1<<18+17)
	rnd.Read(random)
	text := make([]byte, 0, 1<<18)
	for len(text) < 1<<18 {
		text = fmt.Appendf(text, "line %d of the text\n", rnd.Intn(1000))
	}
	half := append(bytes.Clone(random[:1<<17]), text[:1<<17]...)
	skewed := make([]byte, 100_000)
	for i := range skewed {
		skewed[i] = byte(rnd.Intn(11) * rnd.Intn(7))
	}
	m := map[string][]byte{
		"empty": nil, "random": random, "text": text, "half": half, "skewed": skewed,
		"zeros": make([]byte, 2<<20),
	}
	for _, n := range []int{1, 2, 15, 16, 100, 255, 256, 1024, 1025, 65535, 65536, 65537} {
		m[fmt.Sprintf("random %d", n)] = random[:n]
		m[fmt.Sprintf("text %d", n)] = text[:n]
		m[fmt.Sprintf("skewed %d", n)] = skewed[:n]
	}
	return m
}

type blobVector struct {
	Name   string
	Plain  vectors.Hex
	Blob   vectors.Hex
	Sum    vectors.Hex `json:"sha256_of_blob"`
	Digest vectors.Hex `json:"chunk_digest"`
	Key    vectors.Hex `json:"enc_key"`
	IV     vectors.Hex
	Frame  vectors.Hex
	Expect string
}

func blobVectors(tb testing.TB, section string) []blobVector {
	tb.Helper()
	var cases []blobVector
	vectors.Section(tb, section, &cases)
	if len(cases) == 0 {
		tb.Fatalf("no cases in %s", section)
	}
	return cases
}

// codecFor returns the codec that makes the blobs of v.
func codecFor(tb testing.TB, v blobVector) *blob.Codec {
	tb.Helper()
	if v.Key == nil {
		return newCodec(tb, blob.Options{})
	}
	return newCodec(tb, blob.Options{Key: newKey(tb, v.Key), Encrypt: true, Rand: repeater(v.IV)})
}

func TestVectorsDataBlobs(t *testing.T) {
	for _, v := range blobVectors(t, "data_blobs") {
		t.Run(v.Name, func(t *testing.T) {
			c := codecFor(t, v)
			if encrypted, err := blob.Check(chunkstore.Blob(v.Blob)); err != nil || encrypted != (v.Key != nil) {
				t.Errorf("check: encrypted %v, %v", encrypted, err)
			}
			id := chunkstore.ID(v.Digest)
			if got := c.Name(chunkstore.Plain(v.Plain)); got != id {
				t.Errorf("name %s, want %s", got, id)
			}
			p, err := c.DecodeChunk(nil, id, chunkstore.Blob(v.Blob), len(v.Plain))
			if err != nil || !bytes.Equal(p, v.Plain) {
				t.Errorf("open: %x, %v", p, err)
			}
			if v.Frame != nil {
				return // the bytes of a frame depend on the compressor
			}
			s, err := c.Encode(nil, chunkstore.Plain(v.Plain))
			if err != nil || !bytes.Equal(s, v.Blob) {
				t.Errorf("seal: %x, want %x, %v", s, v.Blob, err)
			}
		})
	}
}

func TestVectorsDataBlobsNegative(t *testing.T) {
	wants := map[string]string{
		"iv_flipped":          "the tag at byte 28",
		"crc_wrong":           "crc32 at byte 8",
		"too_short":           "11 bytes are too few for a header of 12",
		"encrypted_too_short": "43 bytes are too few for an encrypted header of 44",
		"unknown_magic":       "unknown magic 0000000000000000 at byte 0",
	}
	for _, v := range blobVectors(t, "data_blobs_negative") {
		want, ok := wants[v.Name]
		if !ok {
			t.Errorf("no expectation for %s (%s)", v.Name, v.Expect)
			continue
		}
		_, err := codecFor(t, v).Decode(nil, chunkstore.Blob(v.Blob), blob.PlainSizeMax)
		if !errors.Is(err, chunkstore.ErrCorrupt) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want …%s…", v.Name, err, want)
		}
		_, err = blob.Check(chunkstore.Blob(v.Blob))
		if onlyKey := v.Name == "iv_flipped"; onlyKey != (err == nil) {
			t.Errorf("%s: check: %v", v.Name, err)
		} else if onlyKey {
			_, err = codecFor(t, v).Decode(nil, chunkstore.Blob(v.Blob), blob.PlainSizeMax)
			if !errors.Is(err, crypto.ErrTampered) {
				t.Errorf("%s: %v, want ErrTampered", v.Name, err)
			}
		}
	}
}

func TestVectorsCRC(t *testing.T) {
	var cases []struct {
		Input  vectors.Hex
		CRC    uint32      `json:"crc_u32"`
		Stored vectors.Hex `json:"stored_le"`
	}
	vectors.Section(t, "crc32", &cases)
	c := newCodec(t, blob.Options{})
	for _, v := range cases {
		s, err := c.EncodeRaw(nil, chunkstore.Plain(v.Input))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(s[8:12], v.Stored) || binary.LittleEndian.Uint32(s[8:]) != v.CRC {
			t.Errorf("%q: stored crc %x, want %x", v.Input, s[8:12], v.Stored)
		}
	}
}

func TestMagics(t *testing.T) {
	var magics map[string]struct{ Hex vectors.Hex }
	vectors.Section(t, "magics", &magics)
	text := bytes.Repeat([]byte("text "), 100)
	cs := codecs(t)
	for _, c := range []struct {
		name  string
		codec *blob.Codec
		plain []byte
	}{
		{"blob_uncompressed", cs["plain"], text[:5]},
		{"blob_compressed", cs["plain"], text},
		{"blob_encrypted", cs["encrypted"], text[:5]},
		{"blob_encrypted_compressed", cs["encrypted"], text},
	} {
		s, err := c.codec.Encode(nil, c.plain)
		if err != nil || !bytes.Equal(s[:8], magics[c.name].Hex) {
			t.Errorf("%s: %x, %v", c.name, s[:8], err)
		}
	}
	for _, ancient := range []string{"\x1f\x87\xee\x29\x1c\xe0\x50\x2f", "\x7e\xa6\x0f\xbe\x91\x1f\xa9\x60"} {
		_, err := blob.Check(append([]byte(ancient), make([]byte, 50)...))
		if !errors.Is(err, chunkstore.ErrCorrupt) || !strings.Contains(err.Error(), "beta") {
			t.Errorf("%x: %v", ancient, err)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	for class, c := range codecs(t) {
		for name, p := range contents() {
			dst := make([]byte, 7, blob.SizeMax(len(p)))
			s, err := c.Encode(dst, p)
			if err != nil {
				t.Errorf("%s %s: seal: %v", class, name, err)
				continue
			}
			if &dst[0] != &s[0] {
				t.Errorf("%s %s: seal took new memory", class, name)
			}
			if len(s) > len(p)+44 {
				t.Errorf("%s %s: %d bytes became %d", class, name, len(p), len(s))
			}
			if encrypted, err := blob.Check(s); err != nil || encrypted != (class == "encrypted") {
				t.Errorf("%s %s: check: %v, %v", class, name, encrypted, err)
			}
			before := bytes.Clone(s)
			checkOpen(t, c, s, p)
			if !bytes.Equal(before, s) {
				t.Errorf("%s %s: open changed the blob", class, name)
			}
		}
	}
}

// checkOpen opens s in buffers of many capacities.
func checkOpen(t *testing.T, c *blob.Codec, s chunkstore.Blob, want []byte) {
	t.Helper()
	for _, room := range []int{0, len(want) / 2, len(want), len(want) + 16, blob.SizeMax(len(want))} {
		p, err := c.DecodeChunk(make([]byte, 0, room), c.Name(want), s, len(want))
		if err != nil || !bytes.Equal(p, want) {
			t.Errorf("open %d bytes into room for %d: %d bytes, %v", len(want), room, len(p), err)
		}
		if p, err = c.Decode(make([]byte, 0, room), s, blob.PlainSizeMax); err != nil || !bytes.Equal(p, want) {
			t.Errorf("open %d bytes into room for %d: %d bytes, %v", len(want), room, len(p), err)
		}
	}
	if len(want) == 0 {
		return
	}
	dst := make([]byte, 1, blob.SizeMax(len(want)))
	if p, err := c.Decode(dst, s, len(want)); err != nil || &p[0] != &dst[0] {
		t.Errorf("open %d bytes took new memory: %v", len(want), err)
	}
	if _, err := c.Decode(nil, s, len(want)-1); !errors.Is(err, chunkstore.ErrCorrupt) {
		t.Errorf("open %d bytes where one less is allowed: %v", len(want), err)
	}
}

func TestEncodeRaw(t *testing.T) {
	for class, c := range codecs(t) {
		p := bytes.Repeat([]byte("compressible "), 100)
		s, err := c.EncodeRaw(nil, p)
		if err != nil || len(s) != 12+len(p) || !bytes.Equal(s[12:], p) {
			t.Errorf("%s: %d bytes, %v", class, len(s), err)
		}
		if got, err := c.Decode(nil, s, len(p)); err != nil || !bytes.Equal(got, p) {
			t.Errorf("%s: open: %v", class, err)
		}
	}
}

func TestOpenChunkRefuses(t *testing.T) {
	cs := codecs(t)
	p := bytes.Repeat([]byte("content "), 100)
	plain, err := cs["plain"].Encode(nil, p)
	if err != nil {
		t.Fatal(err)
	}
	encrypted, err := cs["encrypted"].Encode(nil, p)
	if err != nil {
		t.Fatal(err)
	}
	other := newCodec(t, blob.Options{Key: newKey(t, make([]byte, 32)), Encrypt: true})
	reader := newCodec(t, blob.Options{Key: testKey(t)})
	plainID, keyedID := cs["plain"].Name(p), cs["encrypted"].Name(p)
	for _, c := range []struct {
		name  string
		codec *blob.Codec
		id    chunkstore.ID
		s     chunkstore.Blob
		size  int
		want  error
		text  string
	}{
		{"plain for encrypted", cs["encrypted"], keyedID, plain, len(p), chunkstore.ErrCorrupt, "plain where an encrypted one"},
		{"encrypted for plain", cs["plain"], plainID, encrypted, len(p), chunkstore.ErrCorrupt, "encrypted where a plain one"},
		{"encrypted for plain, with key", reader, plainID, encrypted, len(p), chunkstore.ErrCorrupt, "encrypted where a plain one"},
		{"other key", other, keyedID, encrypted, len(p), crypto.ErrTampered, "tag at byte 28"},
		{"other id", cs["plain"], keyedID, plain, len(p), chunkstore.ErrCorrupt, "has the name " + plainID.Short()},
		{"other id, encrypted", cs["encrypted"], plainID, encrypted, len(p), chunkstore.ErrCorrupt, "has the name " + keyedID.Short()},
		{"one byte less", cs["plain"], plainID, plain, len(p) - 1, chunkstore.ErrCorrupt, ""},
		{"one byte more", cs["plain"], plainID, plain, len(p) + 1, chunkstore.ErrCorrupt, "want 801"},
		{"absurd size", cs["plain"], plainID, plain, chunkstore.PlainSizeMax + 1, chunkstore.ErrInvalid, "not within"},
		{"negative size", cs["plain"], plainID, plain, -1, chunkstore.ErrInvalid, "not within"},
		{"empty", cs["plain"], plainID, nil, len(p), chunkstore.ErrCorrupt, "0 bytes are too few"},
	} {
		_, err := c.codec.DecodeChunk(nil, c.id, c.s, c.size)
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) || !strings.Contains(err.Error(), c.id.Short()) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if _, err := cs["plain"].Decode(nil, encrypted, len(p)); !errors.Is(err, crypto.ErrNoKey) {
		t.Errorf("without key: %v", err)
	}
	if got, err := reader.Decode(nil, encrypted, len(p)); err != nil || !bytes.Equal(got, p) {
		t.Errorf("with key, not encrypting: %v", err)
	}
	if _, err := cs["plain"].Decode(nil, plain, -1); !errors.Is(err, chunkstore.ErrCorrupt) {
		t.Errorf("negative limit: %v", err)
	}
}

// TestEveryFlippedBitIsFound flips each bit of small blobs. The checksum covers
// the payload, the tag the rest of an encrypted blob, the name all of it.
func TestEveryFlippedBitIsFound(t *testing.T) {
	for class, c := range codecs(t) {
		for _, p := range [][]byte{[]byte("hello world"), bytes.Repeat([]byte("hello world "), 20)} {
			s, err := c.Encode(nil, p)
			if err != nil {
				t.Fatal(err)
			}
			for bit := range 8 * len(s) {
				bad := bytes.Clone(s)
				bad[bit/8] ^= 1 << (bit % 8)
				if _, err := c.DecodeChunk(nil, c.Name(p), bad, len(p)); err == nil {
					t.Errorf("%s: flipped bit %d of byte %d was not found", class, bit%8, bit/8)
				}
			}
		}
	}
}

func TestNewCodecRefuses(t *testing.T) {
	if _, err := blob.NewCodec(blob.Options{Encrypt: true}); !errors.Is(err, crypto.ErrNoKey) {
		t.Errorf("encrypt without key: %v", err)
	}
	if _, err := blob.NewCodec(blob.Options{Level: 99}); err == nil {
		t.Error("level 99")
	}
}

func TestEncodeRefuses(t *testing.T) {
	c := newCodec(t, blob.Options{})
	big := make([]byte, blob.PlainSizeMax+1)
	if _, err := c.Encode(nil, big); !errors.Is(err, chunkstore.ErrInvalid) {
		t.Errorf("seal: %v", err)
	}
	if _, err := c.EncodeRaw(nil, big); !errors.Is(err, chunkstore.ErrInvalid) {
		t.Errorf("seal raw: %v", err)
	}
	c = newCodec(t, blob.Options{Key: testKey(t), Encrypt: true, Rand: strings.NewReader("short")})
	if _, err := c.Encode(nil, []byte("x")); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("no random bytes: %v", err)
	}
}

// Machines that share a key make the same bytes of the same content, and a nonce never
// meets two contents, not even one and the same that is compressed in one blob only.
func TestSealingIsDeterministic(t *testing.T) {
	one, other := newCodec(t, blob.Options{Key: testKey(t), Encrypt: true, Workers: 1}), newCodec(t, blob.Options{Key: testKey(t), Encrypt: true})
	stranger := newCodec(t, blob.Options{Key: newKey(t, bytes.Repeat([]byte{9}, 32)), Encrypt: true})
	nonces := make(map[string]string)
	for i := range 500 {
		plain := chunkstore.Plain(strings.Repeat(fmt.Sprint(i), 1+i%40))
		a, err := one.Encode(nil, plain)
		b, err2 := other.Encode(nil, plain)
		c, err3 := stranger.Encode(nil, plain)
		if err := errors.Join(err, err2, err3); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(a, b) {
			t.Fatalf("content %d has two seals", i)
		}
		if bytes.Equal(a[12:28], c[12:28]) {
			t.Fatalf("content %d has the same nonce with two keys", i)
		}
		if before, ok := nonces[string(a[12:28])]; ok {
			t.Fatalf("contents %q and %q have one nonce", before, plain)
		}
		nonces[string(a[12:28])] = string(plain)
	}
	key := testKey(t)
	if key.Nonce(1, []byte("x")) == key.Nonce(2, []byte("x")) {
		t.Error("two kinds have one nonce")
	}
	got := key.Nonce(1, []byte("what is encrypted"))
	if want := "ea89dbfbe5a91c90f397ff95629858e9"; hex.EncodeToString(got[:]) != want {
		t.Errorf("nonce %x, want %s: another one costs everybody his deduplication", got, want)
	}
}

func TestConcurrentUse(t *testing.T) {
	for class, c := range codecs(t) {
		var wg sync.WaitGroup
		for name, p := range contents() {
			wg.Go(func() {
				var sealed, opened []byte
				for range 3 {
					s, err := c.Encode(sealed, p)
					if err != nil {
						t.Errorf("%s %s: %v", class, name, err)
						return
					}
					got, err := c.DecodeChunk(opened, c.Name(p), s, len(p))
					if err != nil || !bytes.Equal(got, p) {
						t.Errorf("%s %s: %v", class, name, err)
					}
					sealed, opened = s, got
				}
			})
		}
		wg.Wait()
	}
}

func TestAllocations(t *testing.T) {
	if raceEnabled {
		return // pools forget under the race detector
	}
	all := contents()
	for class, c := range codecs(t) {
		for _, name := range []string{"text", "random", "half"} {
			p := all[name]
			sealed := make([]byte, 0, blob.SizeMax(len(p)))
			opened := make([]byte, 0, blob.SizeMax(len(p)))
			id := c.Name(p)
			n := testing.AllocsPerRun(20, func() {
				s, err := c.Encode(sealed, p)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := c.DecodeChunk(opened, id, s, len(p)); err != nil {
					t.Fatal(err)
				}
			})
			if n > 4 {
				t.Errorf("%s %s: %v allocations for seal and open", class, name, n)
			}
		}
	}
}

// A wrong checksum is mended in a copy and nothing else is.
func TestWithChecksum(t *testing.T) {
	key, err := crypto.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]blob.Options{"plain": {}, "encrypted": {Key: key, Encrypt: true}} {
		t.Run(name, func(t *testing.T) {
			codec, err := blob.NewCodec(o)
			if err != nil {
				t.Fatal(err)
			}
			right, err := codec.Encode(nil, chunkstore.Plain("content"))
			if err != nil {
				t.Fatal(err)
			}
			wrong := bytes.Clone(right)
			wrong[8] ^= 1
			before := bytes.Clone(wrong)
			for _, given := range []chunkstore.Blob{right, wrong} {
				got, encrypted, err := blob.WithChecksum(given)
				if err != nil || !bytes.Equal(got, right) || encrypted != o.Encrypt {
					t.Errorf("got %x, encrypted %v, %v; want %x", got, encrypted, err, right)
				}
			}
			if !bytes.Equal(wrong, before) {
				t.Error("what was given has changed")
			}
			wrong[0] ^= 1
			if _, _, err := blob.WithChecksum(wrong); !errors.Is(err, chunkstore.ErrCorrupt) {
				t.Errorf("an unknown magic: %v", err)
			}
		})
	}
}
