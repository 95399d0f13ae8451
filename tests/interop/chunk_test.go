package interop

import (
	"bytes"
	"strconv"
	"strings"
	"testing"
)

// uploaded is one upload of a chunk with what is said about it.
type uploaded struct {
	digest        string
	size, encoded int
	wid           string
	body          []byte
	more          []string
}

// honest says about a chunk what is so.
func honest(c chunk) uploaded {
	return uploaded{c.digest, len(c.plain), len(c.blob), "", c.blob, nil}
}

func (u uploaded) but(change func(*uploaded)) uploaded {
	change(&u)
	return u
}

// send uploads to a writer, unless the upload names another one.
func (u uploaded) send(t testing.TB, s *session, side string, wid int) answer {
	t.Helper()
	w := strconv.Itoa(wid)
	if u.wid != "" {
		w = u.wid
	}
	return s.do(t, "POST", "/"+side+"_chunk", u.body, append([]string{"wid", w, "digest", u.digest,
		"size", strconv.Itoa(u.size), "encoded-size", strconv.Itoa(u.encoded)}, u.more...)...)
}

// patched is a blob with a byte changed.
func patched(b []byte, at int) []byte {
	c := bytes.Clone(b)
	c[at] ^= 0x55
	return c
}

// retyped is a blob under another magic.
func retyped(b []byte, magic string) []byte {
	c := bytes.Clone(b)
	copy(c, magic)
	return c
}

// What the server refuses of an upload, section 2.4, in one session that goes
// on after every refusal.
func TestChunkRefused(t *testing.T) {
	t.Parallel()
	b := server.backup(t, server.alice, newGroup("host"))
	wid, fixed := b.index(t, "root.pxar.didx"), b.index(t, "disk.img.fidx", "size", "4194305")
	plain, packed := newChunk(noise(1, 3000)), newZstd(bytes.Repeat([]byte("abc"), 3000))
	sealed := newSealed(noise(3, 32), noise(4, 3000))
	bomb := newZstd(make([]byte, maxChunk+1))
	if len(bomb.blob) > maxChunk {
		t.Fatal("the bomb is no bomb")
	}
	over := newChunk(noise(5, maxChunk+1))
	for name, u := range map[string]uploaded{
		"wrong digest, plain":     honest(plain).but(func(u *uploaded) { u.digest = packed.digest }),
		"wrong digest, zstd":      honest(packed).but(func(u *uploaded) { u.digest = plain.digest }),
		"digest in capitals":      honest(plain).but(func(u *uploaded) { u.digest = strings.ToUpper(u.digest) }),
		"digest too short":        honest(plain).but(func(u *uploaded) { u.digest = u.digest[2:] }),
		"size too small, plain":   honest(plain).but(func(u *uploaded) { u.size-- }),
		"size too large, plain":   honest(plain).but(func(u *uploaded) { u.size++ }),
		"size too small, zstd":    honest(packed).but(func(u *uploaded) { u.size-- }),
		"size too large, zstd":    honest(packed).but(func(u *uploaded) { u.size++ }),
		"size 0":                  honest(newChunk(nil)),
		"size 0, encoded 13":      honest(plain).but(func(u *uploaded) { u.size, u.encoded, u.body = 0, 13, u.body[:13] }),
		"size negative":           honest(plain).but(func(u *uploaded) { u.size = -1 }),
		"size over 16 MiB":        honest(over),
		"size over 16 MiB, zstd":  honest(bomb),
		"bomb":                    honest(bomb).but(func(u *uploaded) { u.size = maxChunk }),
		"small bomb":              honest(bomb).but(func(u *uploaded) { u.size = 1 }),
		"announced too much":      honest(plain).but(func(u *uploaded) { u.encoded++ }),
		"announced too little":    honest(plain).but(func(u *uploaded) { u.encoded-- }),
		"announced over 16 MiB":   honest(plain).but(func(u *uploaded) { u.encoded = maxChunk + 45 }),
		"announced 12":            honest(plain).but(func(u *uploaded) { u.encoded, u.body = 12, u.body[:12] }),
		"much more than said":     honest(plain).but(func(u *uploaded) { u.body = make([]byte, 3<<20) }),
		"no body":                 honest(plain).but(func(u *uploaded) { u.body = nil }),
		"unknown magic":           honest(plain).but(func(u *uploaded) { u.body = patched(u.body, 0) }),
		"changed data, plain":     honest(plain).but(func(u *uploaded) { u.body = patched(u.body, 100) }),
		"changed data, zstd":      honest(packed).but(func(u *uploaded) { u.body = patched(u.body, 14) }),
		"plain called zstd":       honest(plain).but(func(u *uploaded) { u.body = retyped(u.body, magicZstd) }),
		"zstd called plain":       honest(packed).but(func(u *uploaded) { u.body = retyped(u.body, magicPlain) }),
		"sealed, header cut":      honest(sealed).but(func(u *uploaded) { u.body, u.encoded = u.body[:43], 43 }),
		"no such writer":          honest(plain).but(func(u *uploaded) { u.wid = "77" }),
		"writer 0":                honest(plain).but(func(u *uploaded) { u.wid = "0" }),
		"writer 257":              honest(plain).but(func(u *uploaded) { u.wid = "257" }),
		"writer of another kind":  honest(plain).but(func(u *uploaded) { u.wid = strconv.Itoa(fixed) }),
		"unknown parameter":       honest(plain).but(func(u *uploaded) { u.more = []string{"colour", "blue"} }),
		"repeated parameter":      honest(plain).but(func(u *uploaded) { u.more = []string{"size", "3000"} }),
		"huge number":             honest(plain).but(func(u *uploaded) { u.more = []string{"size", "99999999999999999999999"} }),
		"zstd of nothing":         {digestOf(nil), 1, 13, "", append([]byte(magicZstd), 0, 0, 0, 0, 0), nil},
		"sealed, size over 16MiB": honest(sealed).but(func(u *uploaded) { u.size = maxChunk + 1 }),
	} {
		t.Run(name, func(t *testing.T) { u.send(t, b, "dynamic", wid).refused(t, 400) })
	}
	for _, c := range []chunk{plain, packed, sealed} { // nothing of this was registered
		b.put(t, "dynamic", list{wid, []string{c.digest}, []int64{0}}).refused(t, 400, "no such chunk "+c.digest)
	}
	b.chunk(t, "dynamic", wid, plain)
	b.put(t, "dynamic", list{wid, []string{plain.digest}, []int64{0}}).null(t)
}

// What it takes, and that it comes back; chunks are stored with the right CRC
// whatever came, section 2.4 point 3.
func TestChunkAccepted(t *testing.T) {
	t.Parallel()
	s := newGroup("host")
	b := server.backup(t, server.alice, s)
	// The chunks of an archive are all plain or all encrypted.
	archives := map[bool]string{false: "root.pxar.didx", true: "sealed.pxar.didx"}
	modes := map[bool]string{false: "none", true: "encrypt"}
	key := noise(9, 32)
	half := noise(10, 4000)
	frames := chunk{plain: half, digest: digestOf(half)}
	frames.blob = plainBlob(append(zstdFrame(half[:1000]), zstdFrame(half[1000:])...))
	copy(frames.blob, magicZstd)
	text := bytes.Repeat([]byte("text "), 4000)
	sealedZstd := newSealed(key, text)
	sealedZstd.blob = sealedBlob(magicSealedZstd, key, zstdFrame(text))
	chunks := map[string]chunk{
		"one byte": newChunk([]byte{7}), "one byte, zstd": newZstd([]byte{8}), "16 MiB": newChunk(noise(11, maxChunk)),
		"16 MiB of zeros": newZstd(make([]byte, maxChunk)), "sealed": newSealed(key, half), "sealed, one byte": newSealed(key, []byte{7}),
		"zstd in two frames": frames, "sealed zstd": sealedZstd,
		"zstd that did not help": newZstd(noise(12, 5000)),
	}
	wrong := map[string]bool{"one byte": true, "sealed": true, "sealed zstd": true, "zstd in two frames": true}
	var entries []entry
	read := map[string]func(t *testing.T, body []byte){}
	for encrypted, archive := range archives {
		wid := b.index(t, archive)
		var order []chunk
		for name, c := range chunks {
			if strings.HasPrefix(name, "sealed") != encrypted {
				continue
			}
			order = append(order, c)
			sendTwice(t, b, wid, name, c, wrong[name])
		}
		digests, starts, ends, size := layout(order)
		b.put(t, "dynamic", list{wid, digests, starts}).null(t)
		sum := dynamicSum(t, digests, ends)
		b.end(t, "dynamic", wid, len(order), size, sum).null(t)
		entries = append(entries, entry{archive, modes[encrypted], size, sum})
		read[archive] = func(t *testing.T, body []byte) { checkDynamic(t, body, digests, ends) }
	}
	b.commit(t, entries...)

	r := server.reader(t, server.alice, s)
	for archive, check := range read {
		check(t, r.do(t, "GET", "/download", nil, "file-name", archive).want(t, 200).body)
	}
	for name, c := range chunks {
		got := r.do(t, "GET", "/chunk", nil, "digest", c.digest).want(t, 200).body
		if !bytes.Equal(got, c.blob) && !sameContent(t, got, c) {
			t.Errorf("%s came back as another blob of %d bytes, sent %d", name, len(got), len(c.blob))
		}
	}
}

// sendTwice uploads a chunk, and again, which is the same. wrong puts a CRC of 0 into
// it, as a client may send.
func sendTwice(t *testing.T, b *session, wid int, name string, c chunk, wrong bool) {
	t.Helper()
	u := honest(c)
	if wrong {
		u.body = bytes.Clone(u.body)
		copy(u.body[8:12], make([]byte, 4))
	}
	for range 2 {
		var digest string
		a := u.send(t, b, "dynamic", wid)
		if a.status != 200 {
			t.Fatalf("%s: %s", name, a)
		}
		if a.into(t, &digest); digest != c.digest {
			t.Errorf("%s: %s", name, a)
		}
	}
}

// TestArchiveOfTwoClasses: what nobody could read back is refused when it is sent.
func TestArchiveOfTwoClasses(t *testing.T) {
	t.Parallel()
	b := server.backup(t, server.alice, newGroup("host"))
	wid := b.index(t, "root.pxar.didx")
	order := []chunk{newChunk(noise(21, 4000)), newSealed(noise(22, 32), noise(23, 4000))}
	for _, c := range order {
		honest(c).send(t, b, "dynamic", wid).want(t, 200)
	}
	digests, starts, _, _ := layout(order)
	b.put(t, "dynamic", list{wid, digests, starts}).refused(t, 400)
}

// sameContent allows the server to keep another envelope of the same plain
// chunk; a sealed one it cannot open must come back as it was.
func sameContent(t testing.TB, blob []byte, c chunk) bool {
	magic := string(blob[:min(8, len(blob))])
	return (magic == magicPlain || magic == magicZstd) && bytes.Equal(openBlob(t, blob), c.plain)
}

// The limits of a fixed writer, section 2.4 point 5.
func TestFixedChunkSizes(t *testing.T) {
	t.Parallel()
	b := server.backup(t, server.alice, newGroup("vm"))
	wid := b.index(t, "disk.img.fidx", "size", strconv.Itoa(2*fixedSize+100))
	large, full, short, other := newChunk(noise(1, fixedSize+1)), newZstd(make([]byte, fixedSize)), newChunk(noise(2, 100)), newChunk(noise(3, 100))
	honest(large).send(t, b, "fixed", wid).refused(t, 400)
	b.chunk(t, "fixed", wid, full)
	b.chunk(t, "fixed", wid, full)
	b.chunk(t, "fixed", wid, short)
	honest(other).send(t, b, "fixed", wid).refused(t, 400, "multiple end chunks")
	honest(short).send(t, b, "fixed", wid).refused(t, 400, "multiple end chunks")
	digests := []string{full.digest, full.digest, short.digest}
	b.put(t, "fixed", list{wid, digests, []int64{0, fixedSize, 2 * fixedSize}}).null(t)
	b.end(t, "fixed", wid, 3, 2*fixedSize+100, fixedSum(t, digests)).null(t)

	// Each writer has its own short chunk.
	wid = b.index(t, "efi.img.fidx", "size", "100")
	b.chunk(t, "fixed", wid, other)
	b.put(t, "fixed", list{wid, []string{other.digest}, []int64{0}}).null(t)
	b.end(t, "fixed", wid, 1, 100, fixedSum(t, []string{other.digest})).null(t)

	// A chunk of another writer may be appended.
	wid = b.index(t, "copy.img.fidx", "size", "100")
	b.put(t, "fixed", list{wid, []string{short.digest}, []int64{0}}).null(t)
	b.end(t, "fixed", wid, 1, 100, fixedSum(t, []string{short.digest})).null(t)
}

// The rules of blobs, section 2.9.
func TestBlobs(t *testing.T) {
	t.Parallel()
	s := newGroup("host")
	b := server.backup(t, server.alice, s)
	good, sealed := plainBlob([]byte("hello")), sealedBlob(magicSealed, noise(1, 32), []byte("hello"))
	over := plainBlob(noise(3, maxChunk+33))
	for name, c := range map[string]struct {
		file string
		size int
		body []byte
	}{
		"wrong extension": {"a.conf", len(good), good}, "index extension": {"a.fidx", len(good), good},
		"only the extension": {".blob", len(good), good}, "path": {"a/b.blob", len(good), good}, "way up": {"../b.blob", len(good), good},
		"said too much": {"a.blob", len(good) + 1, good}, "said too little": {"a.blob", len(good) - 1, good},
		"wrong crc": {"a.blob", len(good), patched(good, 9)}, "changed": {"a.blob", len(good), patched(good, len(good)-1)},
		"sealed, wrong crc": {"a.blob", len(sealed), patched(sealed, 9)}, "unknown magic": {"a.blob", len(good), patched(good, 0)},
		"11 bytes": {"a.blob", 11, good[:11]}, "sealed, header cut": {"a.blob", 43, sealed[:43]}, "over 16 MiB + 44": {"a.blob", len(over), over},
	} {
		t.Run(name, func(t *testing.T) {
			b.do(t, "POST", "/blob", c.body, "file-name", c.file, "encoded-size", strconv.Itoa(c.size)).refused(t, 400)
		})
	}
	b.do(t, "POST", "/blob", good, "file-name", "a.blob", "encoded-size", strconv.Itoa(len(good)), "colour", "blue").refused(t, 400, "colour")
	b.do(t, "POST", "/blob", good, "file-name", "a.blob").refused(t, 400, "encoded-size")
	b.file(t, "a.conf.blob", good)
	files := []entry{
		b.file(t, "a.conf.blob", zstdBlob([]byte("again, and this one counts"))), b.file(t, "empty.conf.blob", plainBlob(nil)),
		b.file(t, "key.blob", sealed), b.archive(t, "root.pxar.didx", small(1)...),
	}
	files[2].Mode = "encrypt"
	b.commit(t, files...)
	r := server.reader(t, server.alice, s)
	for _, f := range files[:3] {
		got := r.do(t, "GET", "/download", nil, "file-name", f.Filename).want(t, 200)
		if digestOf(got.body) != f.Sum {
			t.Errorf("%s came back as %q", f.Filename, got.body)
		}
	}
}
