package abuse

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"strconv"

	"github.com/klauspost/compress/zstd"
)

// The first bytes of the kinds of blobs.
const (
	magicPlain      = "\x42\xab\x38\x07\xbe\x83\x70\xa1"
	magicZstd       = "\x31\xb9\x58\x42\x6f\xb6\xa3\x7f"
	magicSealed     = "\x7b\x67\x85\xbe\x22\x2d\x4c\xf0"
	magicSealedZstd = "\xe6\x59\x1b\xbf\x0b\xbf\xd8\x0b"
)

// Sizes of the protocol, in bytes.
const (
	fixedSize = 4 << 20  // of the chunks of a fixed index
	chunkMax  = 16 << 20 // of a plain chunk
)

// envelope is a blob of one kind.
func envelope(magic string, data []byte) []byte {
	b := make([]byte, 12, 12+len(data))
	copy(b, magic)
	binary.LittleEndian.PutUint32(b[8:], crc32.ChecksumIEEE(data))
	return append(b, data...)
}

// sealed is a blob that looks encrypted; nobody without the key can tell.
func sealed(magic string, data []byte) []byte {
	b := append([]byte(magic), make([]byte, 36, 36+len(data))...)
	binary.LittleEndian.PutUint32(b[8:], crc32.ChecksumIEEE(data))
	return append(b, data...)
}

// squeezed is a compressed blob.
func squeezed(data []byte) []byte {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		panic(err)
	}
	defer enc.Close()
	return envelope(magicZstd, enc.EncodeAll(data, nil))
}

// unpack takes a blob apart.
func unpack(b []byte) ([]byte, error) {
	if len(b) < 12 || crc32.ChecksumIEEE(b[12:]) != binary.LittleEndian.Uint32(b[8:]) {
		return nil, fmt.Errorf("a blob of %d bytes with a wrong checksum", len(b))
	}
	switch string(b[:8]) {
	case magicPlain:
		return b[12:], nil
	case magicZstd:
		dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, err
		}
		defer dec.Close()
		return dec.DecodeAll(b[12:], nil)
	}
	return nil, fmt.Errorf("a blob that begins %x", b[:8])
}

// digestOf names plain bytes.
func digestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// noise is n bytes that do not compress and differ for each seed.
func noise(seed uint64, n int) []byte {
	var s [32]byte
	binary.LittleEndian.PutUint64(s[:], seed)
	b := make([]byte, n)
	rand.NewChaCha8(s).Read(b)
	return b
}

// chunk is a blob with what is said about it.
type chunk struct {
	digest string
	size   int
	blob   []byte
}

// plainChunk is an honest chunk.
func plainChunk(data []byte) chunk {
	return chunk{digestOf(data), len(data), envelope(magicPlain, data)}
}

// zstdChunk is an honest compressed chunk.
func zstdChunk(data []byte) chunk { return chunk{digestOf(data), len(data), squeezed(data)} }

// archive is what an index must say.
type archive struct {
	name   string
	chunks []chunk
}

func (a archive) side() string {
	if a.name[len(a.name)-5:] == ".fidx" {
		return "fixed"
	}
	return "dynamic"
}

// records is what the index file holds after its header.
func (a archive) records() []byte {
	var all []byte
	end := uint64(0)
	for _, c := range a.chunks {
		end += uint64(c.size)
		if a.side() == "dynamic" {
			all = binary.LittleEndian.AppendUint64(all, end)
		}
		raw, err := hex.DecodeString(c.digest)
		if err != nil {
			panic(err)
		}
		all = append(all, raw...)
	}
	return all
}

func (a archive) size() (n int64) {
	for _, c := range a.chunks {
		n += int64(c.size)
	}
	return n
}

// entry is a file in a manifest.
type entry struct {
	Filename string `json:"filename"`
	Mode     string `json:"crypt-mode"`
	Size     int64  `json:"size"`
	Sum      string `json:"csum"`
}

// manifestOf describes a snapshot.
func manifestOf(s snap, files ...entry) []byte {
	if files == nil {
		files = []entry{}
	}
	b, err := json.Marshal(map[string]any{"backup-type": s.kind, "backup-id": s.id, "backup-time": s.time, "files": files,
		"signature": nil, "unprotected": map[string]any{}})
	if err != nil {
		panic(err)
	}
	return b
}

// createIndex makes a writer.
func (s *session) createIndex(name string, kv ...string) (int, error) {
	side := archive{name: name}.side()
	a, err := s.ok(message{method: "POST", path: "/" + side + "_index", kv: append([]string{"archive-name", name}, kv...)})
	if err != nil {
		return 0, err
	}
	var got struct{ Data int }
	if err := json.Unmarshal(a.body, &got); err != nil || got.Data < 1 {
		return 0, fmt.Errorf("%s is no number of a writer (%v)", a, err)
	}
	return got.Data, nil
}

// chunkMessage uploads a chunk.
func chunkMessage(side string, wid int, c chunk) message {
	return message{method: "POST", path: "/" + side + "_chunk", contentType: bytesType, body: c.blob, kv: []string{
		"wid", strconv.Itoa(wid), "digest", c.digest, "size", strconv.Itoa(c.size), "encoded-size", strconv.Itoa(len(c.blob))}}
}

// appendMessage puts chunks into an index, one behind the other.
func appendMessage(side string, wid int, chunks []chunk) message {
	list := struct {
		Wid     int      `json:"wid"`
		Digests []string `json:"digest-list"`
		Offsets []int64  `json:"offset-list"`
	}{wid, []string{}, []int64{}}
	at := int64(0)
	for _, c := range chunks {
		list.Digests, list.Offsets = append(list.Digests, c.digest), append(list.Offsets, at)
		at += int64(c.size)
	}
	body, err := json.Marshal(list)
	if err != nil {
		panic(err)
	}
	return message{method: "PUT", path: "/" + side + "_index", contentType: jsonType, body: body}
}

// closeMessage ends an index.
func closeMessage(wid int, a archive) message {
	return message{method: "POST", path: "/" + a.side() + "_close", kv: []string{"wid", strconv.Itoa(wid),
		"chunk-count", strconv.Itoa(len(a.chunks)), "size", strconv.FormatInt(a.size(), 10), "csum", digestOf(a.records())}}
}

// blobMessage uploads a small file.
func blobMessage(name string, blob []byte) message {
	return message{method: "POST", path: "/blob", contentType: bytesType, body: blob,
		kv: []string{"file-name", name, "encoded-size", strconv.Itoa(len(blob))}}
}

// put uploads an archive, every chunk that is not in sent once.
func (s *session) put(a archive, sent map[string]bool) (entry, error) {
	var more []string
	if a.side() == "fixed" {
		more = []string{"size", strconv.FormatInt(a.size(), 10)}
	}
	wid, err := s.createIndex(a.name, more...)
	if err != nil {
		return entry{}, err
	}
	for _, c := range a.chunks {
		if sent[c.digest] {
			continue
		}
		if _, err := s.ok(chunkMessage(a.side(), wid, c)); err != nil {
			return entry{}, err
		}
		sent[c.digest] = true
	}
	for _, m := range []message{appendMessage(a.side(), wid, a.chunks), closeMessage(wid, a)} {
		if _, err := s.ok(m); err != nil {
			return entry{}, err
		}
	}
	return entry{a.name, "none", a.size(), digestOf(a.records())}, nil
}

// fill uploads archives and their manifest: all of a backup but its end.
func (s *session) fill(of snap, archives ...archive) error {
	var files []entry
	sent := map[string]bool{}
	for _, a := range archives {
		e, err := s.put(a, sent)
		if err != nil {
			return err
		}
		files = append(files, e)
	}
	_, err := s.ok(blobMessage(manifestName, envelope(magicPlain, manifestOf(of, files...))))
	return err
}

const manifestName = "index.json.blob"

// finishMessage ends a backup.
func finishMessage() message { return message{method: "POST", path: "/finish"} }

// back reads an archive back and compares it byte for byte. The chunks of seen
// were compared before.
func (s *session) back(a archive, seen map[string]bool) error {
	const header = 4096
	got, err := s.ok(message{method: "GET", path: "/download", kv: []string{"file-name", a.name}})
	if err != nil {
		return err
	}
	if len(got.body) < header || !bytes.Equal(got.body[header:], a.records()) {
		return fmt.Errorf("the index %s came back with %d bytes and other records", a.name, len(got.body))
	}
	for _, c := range a.chunks {
		if seen[c.digest] {
			continue
		}
		got, err := s.ok(message{method: "GET", path: "/chunk", kv: []string{"digest", c.digest}})
		if err != nil {
			return err
		}
		if err := sameChunk(got.body, c); err != nil {
			return fmt.Errorf("chunk %s of %s: %w", c.digest, a.name, err)
		}
		seen[c.digest] = true
	}
	return nil
}

// sameChunk compares what was stored with what was sent: the blob itself, or
// another one of the same plain bytes.
func sameChunk(got []byte, c chunk) error {
	if bytes.Equal(got, c.blob) {
		return nil
	}
	plain, err := unpack(got)
	if err != nil {
		return err
	}
	if digestOf(plain) != c.digest || len(plain) != c.size {
		return errors.New("other bytes came back")
	}
	return nil
}
