package backup

import (
	"bytes"
	"errors"
	"io"
	"path/filepath"
	"testing"
	"testing/iotest"

	"golang.org/x/sys/unix"

	"holdfast/client/source"
	"holdfast/crypto"
	"holdfast/datastore/wire/wiretest"
)

// refused runs a backup that must fail and leave no snapshot.
func refused(t *testing.T, o Options) error {
	t.Helper()
	m := &wiretest.Memory{}
	o.Target, o.Snapshot, o.Mode, o.region = m, snap(1000), crypto.ModeNone, testRegion
	_, err := Run(t.Context(), o)
	if err == nil {
		t.Fatal("the backup is reported as made")
	}
	if _, err := m.Open(t.Context(), snap(1000)); err == nil {
		t.Error("a snapshot was made")
	}
	return err
}

func archives(name, path string) []Archive { return []Archive{{Name: name, Path: path}} }

// A stream that breaks is not one that has come to its end, whatever the error
// is called and wherever it comes.
func TestBrokenStreams(t *testing.T) {
	wrapped := errors.Join(io.EOF)
	for _, broken := range []error{io.ErrUnexpectedEOF, wrapped, errors.New("reset")} {
		for _, n := range []int{0, 1, 511, 512, gridSize, gridSize + 1, testRegion - 1, testRegion, testRegion + 1} {
			for _, name := range []string{"disk0.img", "a.conf"} {
				in := io.MultiReader(bytes.NewReader(noise(1, n)), iotest.ErrReader(broken))
				err := refused(t, Options{Archives: archives(name, "-"), Stdin: in, AllowEmpty: true})
				if !errors.Is(err, broken) {
					t.Errorf("%s after %d bytes: error %v, want %v", name, n, err, broken)
				}
			}
		}
	}
}

// What comes in small and odd pieces is what was written.
func TestStreamsInPieces(t *testing.T) {
	want := sparse(3, 2*testRegion+777)
	for name, in := range map[string]io.Reader{
		"half": iotest.HalfReader(bytes.NewReader(want)), "data with the end": iotest.DataErrReader(bytes.NewReader(want)),
	} {
		t.Run(name, func(t *testing.T) {
			m := &wiretest.Memory{}
			backupOf(t, m, snap(1000), "-", func(o *Options) { o.Stdin = in })
			if got := readBack(t, m, snap(1000), "disk0.img", testKey(t, 1)); !bytes.Equal(got, want) {
				t.Error("what comes back differs")
			}
		})
	}
}

// A source without a byte is refused unless somebody says that it may be empty.
func TestEmptySources(t *testing.T) {
	empty := write(t, nil, false)
	for name, list := range map[string][]Archive{
		"stream": archives("disk0.img", "-"), "small stream": archives("a.conf", "-"), "file": archives("disk0.img", empty),
	} {
		t.Run(name, func(t *testing.T) {
			o := Options{Archives: list, Stdin: bytes.NewReader(nil)}
			if err := refused(t, o); !errors.Is(err, source.ErrEmpty) {
				t.Errorf("error is %v", err)
			}
			o.Target, o.Snapshot, o.Mode, o.AllowEmpty = &wiretest.Memory{}, snap(1000), crypto.ModeNone, true
			if _, err := Run(t.Context(), o); err != nil {
				t.Errorf("allowed: %v", err)
			}
		})
	}
	o := Options{Target: &wiretest.Memory{}, Snapshot: snap(1000), Mode: crypto.ModeNone, Archives: archives("a.conf", empty)}
	if _, err := Run(t.Context(), o); err != nil {
		t.Errorf("an empty small file: %v", err)
	}
}

// A stream in a format that is no disk is refused as a file is.
func TestForeignStreams(t *testing.T) {
	vhd := append(noise(2, 9<<20), make([]byte, 512)...)
	copy(vhd[9<<20:], "conectix")
	if err := refused(t, Options{Archives: archives("disk0.img", "-"), Stdin: bytes.NewReader(vhd)}); !errors.Is(err, source.ErrForeign) {
		t.Errorf("a fixed VHD: error is %v", err)
	}
	b := append([]byte("\x1f\x8b\x08\x00"), noise(1, 5000)...)
	if err := refused(t, Options{Archives: archives("disk0.img", "-"), Stdin: bytes.NewReader(b)}); !errors.Is(err, source.ErrForeign) {
		t.Errorf("error is %v", err)
	}
	m := &wiretest.Memory{}
	backupOf(t, m, snap(1000), "-", func(o *Options) { o.Stdin, o.Format = bytes.NewReader(b), source.Raw })
	if got := readBack(t, m, snap(1000), "disk0.img", testKey(t, 1)); !bytes.Equal(got, b) {
		t.Error("what comes back differs")
	}
}

// A pipe is not waited for: nobody may ever write to it.
func TestPipesAreNotSmallFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a.conf", "disk0.img"} {
		if err := refused(t, Options{Archives: archives(name, path)}); !errors.Is(err, source.ErrUnsupported) {
			t.Errorf("%s: error is %v", name, err)
		}
	}
	if err := refused(t, Options{Archives: archives("a.conf", t.TempDir())}); !errors.Is(err, source.ErrUnsupported) {
		t.Errorf("directory: error is %v", err)
	}
}
