package abuse

import (
	"bytes"
	"encoding/binary"
	"strconv"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"

	"holdfast/tests/harness"
)

// frame is what begins a zstd frame: the magic, a descriptor and what follows
// it.
func frame(descriptor byte, rest ...byte) []byte {
	return append([]byte{0x28, 0xb5, 0x2f, 0xfd, descriptor}, rest...)
}

// rle is a zstd block of n zeros, n below 2^21, in four bytes.
func rle(n int, last bool) []byte {
	h := uint32(n)<<3 | 1<<1
	if last {
		h |= 1
	}
	return append(binary.LittleEndian.AppendUint32(nil, h)[:3], 0)
}

// zeros is a frame of so many blocks of 128 KiB zeros.
func zeros(head []byte, blocks int) []byte {
	b := bytes.Clone(head)
	for i := range blocks {
		b = append(b, rle(128<<10, i == blocks-1)...)
	}
	return b
}

// bombs are zstd streams that become much more than they are, or say so.
func bombs(t testing.TB) map[string][]byte {
	t.Helper()
	size := func(n uint64) []byte { return binary.LittleEndian.AppendUint64(nil, n) }
	encoded := func(n int) []byte {
		enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(zstd.MaxWindowSize))
		if err != nil {
			t.Fatal(err)
		}
		defer enc.Close()
		return enc.EncodeAll(make([]byte, n), nil)
	}
	once := encoded(64 << 20)
	nested := once
	for range 3 {
		enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
		if err != nil {
			t.Fatal(err)
		}
		nested = enc.EncodeAll(nested, nil)
		enc.Close()
	}
	const window8MiB, window2GiB, windowMost = 13 << 3, 21 << 3, 0xff
	return map[string][]byte{
		"a byte too many":           encoded(chunkMax + 1),
		"64 MiB":                    once,
		"nested":                    nested,
		"2 GiB in blocks":           zeros(frame(0, window8MiB), 16384),
		"64 GiB in blocks":          zeros(frame(0, window8MiB), 1<<19),
		"a window of 2 GiB":         zeros(frame(0, window2GiB), 100),
		"the largest window":        zeros(frame(0, windowMost), 100),
		"a size of 1 TiB":           zeros(frame(0xe0, size(1<<40)...), 100),
		"the largest size":          zeros(frame(0xe0, size(1<<64-1)...), 100),
		"a size of 16 MiB and more": zeros(frame(0xe0, size(chunkMax)...), 1000),
		"a size that is too small":  zeros(frame(0x20, 10), 100),
		"a dictionary":              zeros(frame(3, append([]byte{window8MiB}, 1, 2, 3, 4)...), 100),
		"10000 frames":              bytes.Repeat(encoded(100<<10), 10000),
		"100000 empty frames":       bytes.Repeat(frame(0x20, 0, 1, 0, 0), 100000),
		"skipped frames":            bytes.Repeat([]byte{0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4}, 100000),
		"a huge skipped frame":      {0x50, 0x2a, 0x4d, 0x18, 0xff, 0xff, 0xff, 0xff, 1},
		"a block that is reserved":  append(frame(0, window8MiB), 7, 0, 0),
		"a block of 2 MiB":          append(frame(0, window8MiB), rle(1<<21-1, true)...),
		"empty blocks":              append(frame(0, window8MiB), bytes.Repeat([]byte{0, 0, 0}, 1<<20)...),
		"noise":                     noise(1, 100000),
		"noise after a head":        append(frame(0, window8MiB), noise(2, 100000)...),
		"nothing":                   {},
	}
}

// Bombs among the chunks, blobs, manifests and logs are refused within the
// memory of the server, many at once.
func TestBombs(t *testing.T) {
	harness.Long(t)
	t.Parallel()
	w := start(t, setup{})
	digest := digestOf([]byte("bomb"))
	const sessions = 3
	all := bombs(t)
	var sent sync.WaitGroup
	for i := range sessions {
		s := w.session(t, w.mallory, backupProtocol, snap{"host", "bomb" + strconv.Itoa(i), began})
		wid, err := s.createIndex("root.pxar.didx")
		if err != nil {
			t.Fatal(err)
		}
		for name, b := range all {
			blob := envelope(magicZstd, b)
			if len(blob) > chunkMax {
				t.Fatalf("the bomb %s is too large itself", name)
			}
			for _, size := range []int{1, chunkMax} {
				sent.Go(func() { s.refuse(t, name, chunkMessage("dynamic", wid, chunk{digest, size, blob})) })
			}
		}
	}
	sent.Wait()
	w.undisturbed(t, atLeast(2))
}

// refuse fails the test unless a message is refused.
func (s *session) refuse(t testing.TB, name string, m message) {
	a, err := s.try(m)
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	if a.status < 400 || a.status > 499 {
		t.Errorf("%s: %s", name, a)
	}
}

// A manifest, a small file and a log that are bombs: who lists, reads or
// downloads them decoded gets an error at most.
func TestBombsAtRest(t *testing.T) {
	harness.Long(t)
	t.Parallel()
	w := start(t, setup{})
	n := 0
	for name, b := range bombs(t) {
		n++
		of := snap{"host", "rest" + strconv.Itoa(n), began}
		blob := envelope(magicZstd, b)
		s := w.session(t, w.mallory, backupProtocol, of)
		refused := s.do(t, blobMessage(manifestName, blob))
		noServerFault(t, refused)
		noServerFault(t, s.do(t, finishMessage()))
		noServerFault(t, s.do(t, blobMessage("a.conf.blob", blob)))
		if refused.status == 200 {
			noServerFault(t, s.do(t, finishMessage()))
		}
		if err := s.fill(of); err != nil {
			t.Logf("%s: %v", name, err)
		}
		noServerFault(t, s.do(t, finishMessage()))
		s.Close()
		request := head(w.mallory, "POST", "/admin/datastore/"+store+"/upload-backup-log", of.params()...)
		noServerFault(t, w.shoot(t, withBody(request, bytesType, blob)))
		for _, file := range []string{manifestName, "a.conf.blob", "client.log.blob"} {
			for _, how := range []string{"/download", "/download-decoded"} {
				a, err := w.tryAsk("", w.mallory, "GET", "/admin/datastore/"+store+how, of.params("file-name", file)...)
				if err == nil {
					noServerFault(t, a)
				}
			}
		}
	}
	for _, path := range []string{"/snapshots", "/groups", "/status"} {
		w.ask(t, w.mallory, "GET", "/admin/datastore/"+store+path).want(t, 200)
	}
	if end, err := w.task(w.mallory, "POST", "/admin/datastore/"+store+"/verify"); err != nil {
		t.Error(err)
	} else {
		t.Logf("the verification ended with %q", end)
	}
	w.undisturbed(t, atLeast(2))
}
