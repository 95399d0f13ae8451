package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/chunkstore"
	"holdfast/client/source"
	"holdfast/crypto"
	"holdfast/datastore/image"
	"holdfast/datastore/index"
	"holdfast/datastore/manifest"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/wiretest"
)

// testRegion is small, so that small images have several regions.
const testRegion = 8 << 20

func testKey(t testing.TB, b byte) *crypto.Key {
	t.Helper()
	k, err := crypto.NewKey(bytes.Repeat([]byte{b}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func snap(time int64) wire.Snapshot {
	return wire.Snapshot{Group: wire.Group{Type: "vm", ID: "100"}, Time: time}
}

func noise(seed byte, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// sparse returns n bytes in which data and holes of many lengths alternate.
func sparse(seed byte, n int) []byte {
	b := noise(seed, n)
	r := rand.New(rand.NewPCG(uint64(seed), 1))
	for off := 0; off < n; {
		data := 1 + r.IntN(3<<20)
		hole := 1 + r.IntN(1<<(10+r.IntN(14)))
		off = min(off+data, n)
		clear(b[off:min(off+hole, n)])
		off += hole
	}
	return b
}

// write puts content into a file, as a sparse one if asked.
func write(t testing.TB, content []byte, holes bool) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.raw")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(int64(len(content))); err != nil {
		t.Fatal(err)
	}
	const block = 4096
	for off := 0; off < len(content); off += block {
		part := content[off:min(off+block, len(content))]
		if holes && allZero(part) {
			continue
		}
		if _, err := f.WriteAt(part, int64(off)); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func backupOf(t testing.TB, m *wiretest.Memory, s wire.Snapshot, path string, change ...func(*Options)) Report {
	t.Helper()
	o := Options{Target: m, Snapshot: s, Archives: []Archive{{"disk0.img", path}}, Mode: crypto.ModeEncrypt, Key: testKey(t, 1), region: testRegion}
	for _, c := range change {
		c(&o)
	}
	r, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// readBack returns the archive through the door for reading.
func readBack(t testing.TB, m *wiretest.Memory, s wire.Snapshot, name string, key *crypto.Key) []byte {
	t.Helper()
	r, err := m.Open(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return archiveBytes(t, r, name, key)
}

// archiveBytes is the content of an archive of an open snapshot.
func archiveBytes(t testing.TB, r wire.Reader, name string, key *crypto.Key) []byte {
	t.Helper()
	mf, err := image.OpenManifest(t.Context(), r, image.Trust{Key: key})
	if err != nil {
		t.Fatal(err)
	}
	f, err := mf.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasSuffix(f.Name, ".blob") {
		b, err := image.ReadBlob(t.Context(), r, f, key)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	img, err := image.Open(t.Context(), image.Options{Reader: r, File: f, Key: key, Workers: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	var b []byte
	for e, err := range img.Index().All(0) {
		if err != nil {
			t.Fatal(err)
		}
		plain, err := img.Chunk(t.Context(), e, nil)
		if err != nil {
			t.Fatal(err)
		}
		b = append(b, plain...)
	}
	return b
}

func entries(t testing.TB, m *wiretest.Memory, s wire.Snapshot, name string) []index.Entry {
	t.Helper()
	r, err := m.Open(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	idx, err := r.Index(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	defer idx.Close()
	var list []index.Entry
	for e, err := range idx.All(0) {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, e)
	}
	return list
}

func TestRoundTrip(t *testing.T) {
	hole := make([]byte, 40<<20)
	copy(hole[30<<20:], noise(9, 300_000))
	images := map[string][]byte{
		"empty":        {},
		"one byte":     {7},
		"odd size":     noise(1, 3<<20+511),
		"all zeros":    make([]byte, 9<<20+5),
		"sparse":       sparse(2, 18<<20+12345),
		"mostly hole":  hole,
		"small region": noise(3, testRegion+1),
	}
	modes := []crypto.Mode{crypto.ModeEncrypt, crypto.ModeSignOnly, crypto.ModeNone}
	for name, content := range images {
		for i, fixed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s fixed=%v", name, fixed), func(t *testing.T) {
				mode := modes[(len(name)+i)%len(modes)]
				key := testKey(t, 1)
				if mode == crypto.ModeNone {
					key = nil
				}
				m := &wiretest.Memory{}
				report := backupOf(t, m, snap(1000), write(t, content, true), func(o *Options) { o.Mode, o.Key, o.Fixed, o.AllowEmpty = mode, key, fixed, true })
				if report.BytesTotal < int64(len(content)) {
					t.Errorf("report says %d bytes, want %d", report.BytesTotal, len(content))
				}
				if got := readBack(t, m, snap(1000), "disk0.img", key); !bytes.Equal(got, content) {
					t.Fatal("what comes back differs")
				}
			})
		}
	}
}

func TestHolesAreNotRead(t *testing.T) {
	content := make([]byte, 60<<20)
	copy(content[35<<20:], noise(1, 10<<20))
	report := backupOf(t, &wiretest.Memory{}, snap(1), write(t, content, true))
	if report.BytesRead > 11<<20 {
		t.Errorf("read %d bytes of an image with 10 MiB of data", report.BytesRead)
	}
}

// The content decides the chunks: not whether zeros are holes, how many cores
// there are, or whether it came through a pipe.
func TestCutsDependOnContentOnly(t *testing.T) {
	content := sparse(5, 18<<20+777)
	var want []index.Entry
	for i, c := range []struct {
		holes   bool
		workers int
		stdin   bool
	}{{true, 1, false}, {false, 4, false}, {true, 8, true}} {
		m := &wiretest.Memory{}
		path := write(t, content, c.holes)
		backupOf(t, m, snap(1), path, func(o *Options) {
			o.Workers = c.workers
			if c.stdin {
				o.Archives[0].Path, o.Stdin = "-", bytes.NewReader(content)
			}
		})
		got := entries(t, m, snap(1), "disk0.img.didx")
		if i == 0 {
			want = got
		}
		if !slices.Equal(got, want) {
			t.Fatalf("case %d: %d chunks, not the same as the %d of case 0", i, len(got), len(want))
		}
	}
}

// Boundary replay must not change the result.
func TestReplayEqualsCuttingAnew(t *testing.T) {
	for seed := range byte(8) {
		r := rand.New(rand.NewPCG(uint64(seed), 7))
		old := sparse(seed, 13<<20+int(seed)*99_999)
		m := &wiretest.Memory{}
		backupOf(t, m, snap(1), write(t, old, true))
		content := change(r, old)
		backupOf(t, m, snap(2), write(t, content, true))
		fresh := &wiretest.Memory{}
		backupOf(t, fresh, snap(2), write(t, content, true))
		got, want := entries(t, m, snap(2), "disk0.img.didx"), entries(t, fresh, snap(2), "disk0.img.didx")
		if !slices.Equal(got, want) {
			for i := range want {
				if i >= len(got) || got[i] != want[i] {
					t.Fatalf("seed %d: chunk %d of %d is %v with replay, %v without", seed, i, len(want), got[min(i, len(got)-1)], want[i])
				}
			}
			t.Fatalf("seed %d: %d chunks with replay, %d without", seed, len(got), len(want))
		}
		if back := readBack(t, m, snap(2), "disk0.img", testKey(t, 1)); !bytes.Equal(back, content) {
			t.Fatalf("seed %d: what comes back differs", seed)
		}
	}
}

// change returns an image after a night: overwritten, zeroed and filled ranges,
// at odd places and on the grid, and a new size.
func change(r *rand.Rand, old []byte) []byte {
	size := len(old)
	switch r.IntN(3) {
	case 0:
		size += r.IntN(9 << 20)
	case 1:
		size -= r.IntN(9 << 20)
	}
	b := make([]byte, size)
	copy(b, old)
	for range 12 {
		off := r.IntN(size)
		n := 1 + r.IntN(1<<(4+r.IntN(18)))
		if r.IntN(2) == 0 {
			off, n = off/gridSize*gridSize, (n/gridSize+1)*gridSize
		}
		part := b[off:min(off+n, size)]
		if r.IntN(2) == 0 {
			clear(part)
			continue
		}
		copy(part, noise(byte(r.IntN(256)), len(part)))
	}
	return b
}

func TestUnchangedImageStoresNothing(t *testing.T) {
	m := &wiretest.Memory{}
	path := write(t, sparse(3, 20<<20), true)
	backupOf(t, m, snap(1), path)
	chunks := m.Chunks()
	report := backupOf(t, m, snap(2), path)
	if report.BytesNew != 0 || report.BytesStored != 0 || m.Chunks() != chunks {
		t.Errorf("second backup stored %d bytes in %d chunks", report.BytesStored, m.Chunks()-chunks)
	}
	if report.Previous != snap(1).String() || report.BytesRead == 0 {
		t.Errorf("previous %q, read %d bytes", report.Previous, report.BytesRead)
	}
}

func TestLostChunkIsSentAgain(t *testing.T) {
	m := &wiretest.Memory{}
	content := sparse(4, 25<<20)
	path := write(t, content, true)
	for _, fixed := range []bool{false, true} {
		group := wire.Group{Type: "vm", ID: fmt.Sprint(fixed)}
		first, second := wire.Snapshot{Group: group, Time: 1}, wire.Snapshot{Group: group, Time: 2}
		backupOf(t, m, first, path, func(o *Options) { o.Fixed = fixed })
		name := "disk0.img.didx"
		if fixed {
			name = "disk0.img.fidx"
		}
		m.Drop(entries(t, m, first, name)[3].ID, nil)
		report := backupOf(t, m, second, path, func(o *Options) { o.Fixed = fixed })
		if report.Archives[0].NewChunks != 1 {
			t.Errorf("fixed=%v: %d chunks sent, want the lost one", fixed, report.Archives[0].NewChunks)
		}
		if !bytes.Equal(readBack(t, m, first, "disk0.img", testKey(t, 1)), content) {
			t.Errorf("fixed=%v: the first snapshot is not whole again", fixed)
		}
	}
}

func TestPreviousIsUsedOnlyWhenItMay(t *testing.T) {
	path := write(t, noise(1, 9<<20), false)
	for name, c := range map[string]struct {
		first, second func(*Options)
		damage        func(m *wiretest.Memory)
		reused        bool
		warning       bool
	}{
		"same key":           {reused: true},
		"other key":          {second: func(o *Options) { o.Key = testKey(t, 2) }, warning: true},
		"encrypt after none": {first: func(o *Options) { o.Mode = crypto.ModeNone }},
		"sign-only after none": {
			first:  func(o *Options) { o.Mode = crypto.ModeNone },
			second: func(o *Options) { o.Mode = crypto.ModeSignOnly },
			reused: true,
		},
		"fixed after content": {second: func(o *Options) { o.Fixed = true }},
		"damaged manifest": {
			damage:  func(m *wiretest.Memory) { m.File(snap(1), wire.ManifestName)[20] ^= 1 },
			warning: true,
		},
		"damaged index": {
			damage:  func(m *wiretest.Memory) { m.File(snap(1), "disk0.img.didx")[4096+50] ^= 1 },
			warning: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := &wiretest.Memory{}
			set := func(f func(*Options)) func(*Options) {
				if f == nil {
					return func(*Options) {}
				}
				return f
			}
			backupOf(t, m, snap(1), path, set(c.first))
			if c.damage != nil {
				c.damage(m)
			}
			report := backupOf(t, m, snap(2), path, set(c.second))
			sameNames := report.BytesNew == 0
			if sent := m.Chunks(); c.reused != sameNames && name != "damaged manifest" && name != "damaged index" {
				t.Errorf("%d new bytes, %d chunks stored; reused should be %v", report.BytesNew, sent, c.reused)
			}
			if (len(report.Warnings) > 0) != c.warning {
				t.Errorf("warnings: %q", report.Warnings)
			}
		})
	}
}

func TestManifest(t *testing.T) {
	m := &wiretest.Memory{}
	conf := filepath.Join(t.TempDir(), "vm.conf")
	if err := os.WriteFile(conf, []byte("cores: 2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	backupOf(t, m, snap(5), write(t, noise(1, 5<<20), false), func(o *Options) {
		o.Archives = append(o.Archives, Archive{"qemu-server.conf", conf})
	})
	mf, err := manifest.Open(m.File(snap(5), wire.ManifestName))
	if err != nil {
		t.Fatal(err)
	}
	if err := mf.Verify(testKey(t, 1)); err != nil {
		t.Error(err)
	}
	if mf.Type != "vm" || mf.ID != "100" || mf.Time != 5 || len(mf.Files) != 3 ||
		mf.Files[1].Name != "qemu-server.conf.blob" || mf.Files[2].Name != manifest.OriginName {
		t.Errorf("manifest is %+v", mf)
	}
	if got := readBack(t, m, snap(5), "qemu-server.conf", testKey(t, 1)); string(got) != "cores: 2\n" {
		t.Errorf("configuration is %q", got)
	}
}

// failing is an image that misbehaves when told to.
type failing struct {
	source.Image
	readErr, verifyErr error
	reads              atomic.Int64
}

func (f *failing) ReadAt(p []byte, off int64) (int, error) {
	if f.reads.Add(1) > 20 && f.readErr != nil {
		return 0, f.readErr
	}
	return f.Image.ReadAt(p, off)
}

func (f *failing) Verify() error { return errors.Join(f.verifyErr, f.Image.Verify()) }

func TestSourceErrorsLeaveNoSnapshot(t *testing.T) {
	broken := errors.New("input/output error")
	for name, wrap := range map[string]func(source.Image) source.Image{
		"read":   func(i source.Image) source.Image { return &failing{Image: i, readErr: broken} },
		"verify": func(i source.Image) source.Image { return &failing{Image: i, verifyErr: broken} },
	} {
		t.Run(name, func(t *testing.T) {
			m := &wiretest.Memory{}
			o := Options{Target: m, Snapshot: snap(1), Archives: []Archive{{"disk0.img", "x"}}, Mode: crypto.ModeNone}
			if err := o.prepare(); err != nil {
				t.Fatal(err)
			}
			img, err := source.Open(write(t, noise(1, 30<<20), false), source.Options{})
			if err != nil {
				t.Fatal(err)
			}
			ins := &inputs{list: []input{{img: wrap(img), size: img.Size()}}}
			defer ins.close()
			j, err := newJob(&o)
			if err != nil {
				t.Fatal(err)
			}
			if err := j.run(t.Context(), ins); !errors.Is(err, broken) {
				t.Fatalf("error is %v, want %v", err, broken)
			}
			if _, err := m.Snapshots(t.Context(), snap(1).Group); !errors.Is(err, chunkstore.ErrNotExist) {
				t.Errorf("a snapshot is listed: %v", err)
			}
		})
	}
}

func TestErrorsLeaveNoSnapshot(t *testing.T) {
	path := write(t, noise(1, 10<<20), false)
	broken := errors.New("no")
	for name, c := range map[string]struct {
		change func(*Options, *wiretest.Memory)
		want   error
	}{
		"missing source":   {func(o *Options, _ *wiretest.Memory) { o.Archives[0].Path += "x" }, fs.ErrNotExist},
		"missing file":     {func(o *Options, _ *wiretest.Memory) { o.Archives = append(o.Archives, Archive{"a.conf", path + "x"}) }, fs.ErrNotExist},
		"no key":           {func(o *Options, _ *wiretest.Memory) { o.Key = nil }, crypto.ErrNoKey},
		"nothing to do":    {func(o *Options, _ *wiretest.Memory) { o.Archives = nil }, wire.ErrName},
		"same name twice":  {func(o *Options, _ *wiretest.Memory) { o.Archives = append(o.Archives, o.Archives[0]) }, wire.ErrName},
		"fixed from stdin": {func(o *Options, _ *wiretest.Memory) { o.Fixed, o.Archives[0].Path = true, "-" }, wire.ErrName},
		"put fails": {func(_ *Options, m *wiretest.Memory) {
			m.PutChunk = func(chunkstore.Chunk) error { return broken }
		}, broken},
	} {
		t.Run(name, func(t *testing.T) {
			m := &wiretest.Memory{}
			o := Options{Target: m, Snapshot: snap(1), Archives: []Archive{{"disk0.img", path}}, Mode: crypto.ModeEncrypt, Key: testKey(t, 1)}
			c.change(&o, m)
			if _, err := Run(t.Context(), o); !errors.Is(err, c.want) {
				t.Fatalf("error is %v, want %v", err, c.want)
			}
			if _, err := m.Snapshots(t.Context(), snap(1).Group); !errors.Is(err, chunkstore.ErrNotExist) {
				t.Errorf("a snapshot is listed: %v", err)
			}
		})
	}
}

func TestInterruptedBackupLeavesNoSnapshot(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var puts atomic.Int64
	m := &wiretest.Memory{PutChunk: func(chunkstore.Chunk) error {
		if puts.Add(1) == 10 {
			cancel()
		}
		return nil
	}}
	_, err := Run(ctx, Options{Target: m, Snapshot: snap(1), Mode: crypto.ModeNone,
		Archives: []Archive{{"disk0.img", write(t, noise(1, 25<<20), false)}}})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("error is %v, want canceled", err)
	}
	if _, err := m.Snapshots(t.Context(), snap(1).Group); !errors.Is(err, chunkstore.ErrNotExist) {
		t.Errorf("a snapshot is listed: %v", err)
	}
}

// A bit that flips between reading and sending must be seen.
func TestFlippedBitIsCaughtBeforeSending(t *testing.T) {
	m := &wiretest.Memory{}
	o := Options{Target: m, Snapshot: snap(1), Archives: []Archive{{"disk0.img", "x"}}, Mode: crypto.ModeEncrypt, Key: testKey(t, 1)}
	if err := o.prepare(); err != nil {
		t.Fatal(err)
	}
	j, err := newJob(&o)
	if err != nil {
		t.Fatal(err)
	}
	if j.session, err = m.Begin(t.Context(), snap(1)); err != nil {
		t.Fatal(err)
	}
	w, err := j.session.Create(t.Context(), "disk0.img.didx", -1)
	if err != nil {
		t.Fatal(err)
	}
	s := newSender(j.codec, 1, 1, 4<<20)
	s.progress = o.Progress
	for i := range 1000 {
		plain := noise(byte(i), 5000+i)
		buf, err := s.buffers.Get(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		copy(buf, plain)
		p := piece{size: len(plain), buf: buf, sum: s.sum(plain)}
		buf[rand.IntN(len(plain))] ^= 1 << rand.IntN(8)
		if _, err := s.store(t.Context(), p, &archive{writer: w}); !errors.Is(err, errMemory) {
			t.Fatalf("flip %d: error is %v", i, err)
		}
	}
	if m.Chunks() != 0 {
		t.Errorf("%d chunks were sent", m.Chunks())
	}
}

func TestParseArchive(t *testing.T) {
	for spec, want := range map[string]Archive{
		"disk0.img:/dev/sda":   {"disk0.img", "/dev/sda"},
		"a-b_1.conf:x:y":       {"a-b_1.conf", "x:y"},
		"stream.img:-":         {"stream.img", "-"},
		"disk0.img":            {},
		"disk0.img:":           {},
		"../x.img:/a":          {},
		"disk.img.fidx:/a":     {},
		"root.pxar:/":          {},
		"disk0.qcow2:/a.qcow2": {},
		"":                     {},
	} {
		got, err := ParseArchive(spec)
		if got != want || (err == nil) != (want != Archive{}) {
			t.Errorf("ParseArchive(%q) = %v, %v; want %v", spec, got, err, want)
		}
		if err != nil && !errors.Is(err, wire.ErrName) {
			t.Errorf("ParseArchive(%q): %v does not wrap ErrName", spec, err)
		}
	}
}

// TestNow makes snapshots that are called after the present, of a group that has
// one of this second, of the next, and of the far future.
func TestNow(t *testing.T) {
	for _, ahead := range []int64{-1, 0, 1, 2, 3600} {
		synctest.Test(t, func(t *testing.T) {
			m := new(wiretest.Memory)
			now := time.Now().Unix()
			path := write(t, noise(1, 4096), false)
			backupOf(t, m, snap(now+ahead), path)

			o := Options{Target: m, Snapshot: snap(now), Archives: []Archive{{"disk0.img", path}}, Mode: crypto.ModeNone}
			if _, err := Run(t.Context(), o); (err == nil) != (ahead < 0) || err != nil && !errors.Is(err, wire.ErrExists) {
				t.Fatalf("newest %+d s, a time that somebody chose: %v", ahead, err)
			}
			if ahead < 0 {
				return
			}
			o.TimeIsNow = true
			r, err := Run(t.Context(), o)
			if ahead > 1 {
				if !errors.Is(err, wire.ErrExists) {
					t.Fatalf("newest %+d s: %v", ahead, err)
				}
				return
			}
			if err != nil || r.Snapshot != snap(now+ahead+1) {
				t.Fatalf("newest %+d s: %v, %v", ahead, r.Snapshot, err)
			}
			readBack(t, m, r.Snapshot, "disk0.img", nil)
		})
	}
}
