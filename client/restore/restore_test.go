package restore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"holdfast/chunkstore"
	"holdfast/client/backup"
	"holdfast/crypto"
	"holdfast/datastore/index"
	"holdfast/datastore/manifest"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/wiretest"
)

var snap = wire.Snapshot{Group: wire.Group{Type: "vm", ID: "100"}, Time: 1000}

func testKey(t testing.TB, b byte) *crypto.Key {
	t.Helper()
	k, err := crypto.NewKey(bytes.Repeat([]byte{b}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// content is an image of n bytes with data and holes.
func content(seed byte, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	for off := 1 << 20; off < n; off += 5 << 20 {
		clear(b[off:min(off+2<<20+123, n)])
	}
	return b
}

// stored returns a store that holds the content as disk0.img.
func stored(t testing.TB, b []byte, change ...func(*backup.Options)) *wiretest.Memory {
	t.Helper()
	m := &wiretest.Memory{}
	o := backup.Options{
		Target: m, Snapshot: snap, Mode: crypto.ModeEncrypt, Key: testKey(t, 1), Stdin: bytes.NewReader(b), AllowEmpty: true,
		Archives: []backup.Archive{{Name: "disk0.img", Path: "-"}},
	}
	for _, c := range change {
		c(&o)
	}
	if _, err := backup.Run(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	return m
}

func options(t testing.TB, m *wiretest.Memory, target string) Options {
	return Options{Source: m, Snapshot: snap, Archive: "disk0.img", Key: testKey(t, 1), Target: target}
}

func mustRead(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestToFile(t *testing.T) {
	for _, n := range []int{0, 1, 511, 4096, 20<<20 + 77} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			want := content(1, n)
			path := filepath.Join(t.TempDir(), "out.raw")
			report, err := Run(t.Context(), options(t, stored(t, want), path))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(mustRead(t, path), want) {
				t.Fatal("what comes back differs")
			}
			if report.Size != int64(n) || report.BytesWritten+report.BytesZero != report.Size || !report.Signed {
				t.Errorf("report is %+v", report)
			}
			if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".*")); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

func TestZerosStayHoles(t *testing.T) {
	b := make([]byte, 64<<20)
	copy(b[40<<20:], content(1, 1<<20))
	path := filepath.Join(t.TempDir(), "out.raw")
	if _, err := Run(t.Context(), options(t, stored(t, b), path)); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if used := st.Sys().(*syscall.Stat_t).Blocks * 512; used > 2<<20 {
		t.Errorf("%d bytes are allocated for 1 MiB of data", used)
	}
}

func TestToStream(t *testing.T) {
	want := content(2, 12<<20+5)
	var out bytes.Buffer
	o := options(t, stored(t, want), "-")
	o.Out = &out
	if _, err := Run(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out.Bytes(), want) {
		t.Fatal("what comes back differs")
	}
}

// full is a writer that takes only so much.
type full struct{ left int }

func (w *full) Write(p []byte) (int, error) {
	if w.left -= len(p); w.left < 0 {
		return 0, io.ErrShortWrite
	}
	return len(p), nil
}

func TestStreamErrorSaysHowFarItGot(t *testing.T) {
	o := options(t, stored(t, content(2, 12<<20)), "-")
	o.Out = &full{left: 5 << 20}
	_, err := Run(t.Context(), o)
	if !errors.Is(err, io.ErrShortWrite) || !strings.Contains(err.Error(), "not complete") {
		t.Fatalf("error is %v", err)
	}
}

func TestExistingFileIsNotTouchedUnasked(t *testing.T) {
	m := stored(t, content(3, 3<<20))
	path := filepath.Join(t.TempDir(), "out.raw")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Run(t.Context(), options(t, m, path))
	if !errors.Is(err, ErrTarget) || !strings.Contains(err.Error(), "nothing was written") {
		t.Fatalf("error is %v", err)
	}
	if string(mustRead(t, path)) != "precious" {
		t.Fatal("the file was changed")
	}
	o := options(t, m, path)
	o.Overwrite = true
	if _, err := Run(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(mustRead(t, path), content(3, 3<<20)) {
		t.Fatal("what comes back differs")
	}
}

func TestDifferentialWritesOnlyWhatDiffers(t *testing.T) {
	want := content(4, 24<<20+900)
	m := stored(t, want)
	for name, make := range map[string]func() []byte{
		"equal": func() []byte { return bytes.Clone(want) },
		"changed": func() []byte {
			b := bytes.Clone(want)
			copy(b[3<<20:], "xyz")
			copy(b[1<<20+500:], "not zero")
			return b
		},
		"shorter": func() []byte { return want[:9<<20+1] },
		"longer":  func() []byte { return append(bytes.Clone(want), content(9, 2<<20)...) },
		"empty":   func() []byte { return nil },
		"other":   func() []byte { return content(8, len(want)) },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "out.raw")
			if err := os.WriteFile(path, make(), 0o600); err != nil {
				t.Fatal(err)
			}
			o := options(t, m, path)
			o.Differential = true
			report, err := Run(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(mustRead(t, path), want) {
				t.Fatal("what comes back differs")
			}
			if sum := report.BytesWritten + report.BytesZero + report.BytesSame; sum != report.Size {
				t.Errorf("written %d + zero %d + same %d is not %d", report.BytesWritten, report.BytesZero, report.BytesSame, report.Size)
			}
			if name == "equal" && report.BytesWritten != 0 || name == "changed" && report.BytesWritten > 3*compareUnit {
				t.Errorf("%d bytes were written", report.BytesWritten)
			}
		})
	}
}

// Every way in which a store can lie must end in an error and no file.
func TestDamageIsNeverRestored(t *testing.T) {
	b := content(5, 7<<20)
	other := stored(t, content(6, 7<<20))
	entry := func(t *testing.T, m *wiretest.Memory) index.Entry {
		r, err := m.Open(t.Context(), snap)
		if err != nil {
			t.Fatal(err)
		}
		idx, err := r.Index(t.Context(), "disk0.img.didx")
		if err != nil {
			t.Fatal(err)
		}
		e, err := idx.At(3)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	sealed := func(t *testing.T, m *wiretest.Memory) chunkstore.Blob {
		r, err := m.Open(t.Context(), snap)
		if err != nil {
			t.Fatal(err)
		}
		e := entry(t, m)
		s, err := r.Get(t.Context(), chunkstore.Ref{ID: e.ID, Size: e.Size, Class: chunkstore.ClassEncrypted})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for name, c := range map[string]struct {
		damage func(t *testing.T, m *wiretest.Memory, o *Options)
		want   error
	}{
		"wrong key":     {func(t *testing.T, _ *wiretest.Memory, o *Options) { o.Key = testKey(t, 2) }, crypto.ErrWrongKey},
		"no key":        {func(_ *testing.T, _ *wiretest.Memory, o *Options) { o.Key = nil }, crypto.ErrNoKey},
		"missing chunk": {func(t *testing.T, m *wiretest.Memory, _ *Options) { m.Drop(entry(t, m).ID, nil) }, chunkstore.ErrNotExist},
		"flipped bit": {func(t *testing.T, m *wiretest.Memory, _ *Options) {
			s := sealed(t, m)
			s[len(s)/2] ^= 4
			m.Drop(entry(t, m).ID, s)
		}, chunkstore.ErrCorrupt},
		"other chunk": {func(t *testing.T, m *wiretest.Memory, _ *Options) { m.Drop(entry(t, m).ID, sealed(t, other)) }, chunkstore.ErrCorrupt},
		"short chunk": {func(t *testing.T, m *wiretest.Memory, _ *Options) {
			m.Drop(entry(t, m).ID, sealed(t, m)[:100])
		}, chunkstore.ErrCorrupt},
		"index of another image": {func(_ *testing.T, m *wiretest.Memory, _ *Options) {
			m.SetFile(snap, "disk0.img.didx", other.File(snap, "disk0.img.didx"))
		}, chunkstore.ErrCorrupt},
		"cut off index": {func(_ *testing.T, m *wiretest.Memory, _ *Options) {
			f := m.File(snap, "disk0.img.didx")
			m.SetFile(snap, "disk0.img.didx", f[:len(f)-40])
		}, chunkstore.ErrCorrupt},
		"unsigned manifest": {func(t *testing.T, m *wiretest.Memory, _ *Options) {
			change(t, m, func(mf *manifest.Manifest) { mf.Signature = "" })
		}, manifest.ErrUnsigned},
		"changed manifest": {func(t *testing.T, m *wiretest.Memory, _ *Options) {
			change(t, m, func(mf *manifest.Manifest) { mf.Files[0].Csum[3] ^= 1 })
		}, crypto.ErrTampered},
		"encryption denied": {func(t *testing.T, m *wiretest.Memory, _ *Options) {
			change(t, m, func(mf *manifest.Manifest) { mf.Files[0].CryptMode = crypto.ModeNone })
		}, crypto.ErrTampered},
		"manifest of another snapshot": {func(t *testing.T, m *wiretest.Memory, o *Options) {
			change(t, m, func(mf *manifest.Manifest) {
				mf.Time++
				if err := mf.Sign(o.Key); err != nil {
					t.Fatal(err)
				}
			})
		}, crypto.ErrTampered},
		"no such archive":  {func(_ *testing.T, _ *wiretest.Memory, o *Options) { o.Archive = "disk1.img" }, manifest.ErrNotFound},
		"no such snapshot": {func(_ *testing.T, _ *wiretest.Memory, o *Options) { o.Snapshot.Time++ }, chunkstore.ErrNotExist},
	} {
		t.Run(name, func(t *testing.T) {
			m := stored(t, b)
			path := filepath.Join(t.TempDir(), "out.raw")
			o := options(t, m, path)
			c.damage(t, m, &o)
			if _, err := Run(t.Context(), o); !errors.Is(err, c.want) {
				t.Fatalf("error is %v, want %v", err, c.want)
			}
			f := newFar(m)
			f.eager = true
			o.Source = f
			if _, err := Run(t.Context(), o); !errors.Is(err, c.want) {
				t.Fatalf("from afar the error is %v, want %v", err, c.want)
			}
			left, err := os.ReadDir(filepath.Dir(path))
			if err != nil || len(left) > 0 {
				t.Fatalf("left behind: %v %v", left, err)
			}
		})
	}
}

// change rewrites the manifest as an attacker at the store could.
func change(t *testing.T, m *wiretest.Memory, f func(*manifest.Manifest)) {
	t.Helper()
	mf, err := manifest.Open(m.File(snap, wire.ManifestName))
	if err != nil {
		t.Fatal(err)
	}
	f(mf)
	s, err := mf.Blob()
	if err != nil {
		t.Fatal(err)
	}
	m.SetFile(snap, wire.ManifestName, s)
}

func TestDamageInDifferentialRestoreSaysSo(t *testing.T) {
	b := content(5, 12<<20)
	m := stored(t, b)
	r, err := m.Open(t.Context(), snap)
	if err != nil {
		t.Fatal(err)
	}
	idx, err := r.Index(t.Context(), "disk0.img.didx")
	if err != nil {
		t.Fatal(err)
	}
	late, err := idx.At(idx.Count() - 2)
	if err != nil {
		t.Fatal(err)
	}
	m.Drop(late.ID, nil)
	path := filepath.Join(t.TempDir(), "out.raw")
	if err := os.WriteFile(path, content(6, 12<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	o := options(t, m, path)
	o.Differential = true
	if _, err := Run(t.Context(), o); !errors.Is(err, chunkstore.ErrNotExist) || !strings.Contains(err.Error(), "mixture of old and restored data") {
		t.Fatalf("error is %v", err)
	}
}

func TestInterruptedRestoreLeavesNothing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	path := filepath.Join(t.TempDir(), "out.raw")
	if _, err := Run(ctx, options(t, stored(t, content(1, 9<<20)), path)); !errors.Is(err, context.Canceled) {
		t.Fatalf("error is %v", err)
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) > 0 {
		t.Fatalf("left behind: %v", left)
	}
}

func TestRefusedTargets(t *testing.T) {
	m := stored(t, content(1, 1<<20))
	dir := t.TempDir()
	for name, o := range map[string]Options{
		"directory":           options(t, m, dir),
		"character device":    options(t, m, "/dev/null"),
		"differential stream": func() Options { o := options(t, m, "-"); o.Differential, o.Out = true, io.Discard; return o }(),
	} {
		if _, err := Run(t.Context(), o); !errors.Is(err, ErrTarget) {
			t.Errorf("%s: error is %v", name, err)
		}
	}
	if _, err := Run(t.Context(), options(t, m, filepath.Join(dir, "no", "such"))); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing directory: %v", err)
	}
}
