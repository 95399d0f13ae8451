package faults

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// firstTime is the time of snapshot 0, in seconds since 1970.
const firstTime = 1_700_000_000

// repo is a repository with the key its backups are made with.
type repo struct{ path, key string }

// newRepo makes an empty repository and a key below dir.
func newRepo(t testing.TB, dir string) repo {
	t.Helper()
	r := repo{path: filepath.Join(dir, "store"), key: filepath.Join(dir, "key.json")}
	holdfast(t, "key", "create", "--kdf", "none", r.key).want(t, exitOK)
	holdfast(t, "init", r.path).want(t, exitOK)
	return r
}

// snap names a snapshot by its group and a number that grows with its age.
type snap struct {
	group string
	n     int64
}

func (s snap) String() string {
	return s.group + "/" + time.Unix(firstTime+s.n, 0).UTC().Format("2006-01-02T15:04:05Z")
}

// backupArgs is the command line that makes the snapshot s.
func (r repo) backupArgs(s snap, more ...string) []string {
	typ, id, _ := strings.Cut(s.group, "/")
	args := []string{"backup", "-r", r.path, "--json", "--no-progress", "--backup-type", typ, "--backup-id", id,
		"--backup-time", fmt.Sprint(firstTime + s.n)}
	if !slices.Contains(more, "none") && !slices.Contains(more, "--keyfile") {
		args = append(args, "--keyfile", r.key)
	}
	return append(args, more...)
}

func (r repo) backup(t testing.TB, s snap, more ...string) result {
	t.Helper()
	return holdfast(t, r.backupArgs(s, more...)...)
}

// restore writes disk0.img or another archive of s to a target.
func (r repo) restore(t testing.TB, s snap, archive, target string, more ...string) result {
	t.Helper()
	args := []string{"restore", "-r", r.path, "--json", "--no-progress", s.String(), archive, target}
	if !slices.Contains(more, "none") {
		args = append(args, "--keyfile", r.key)
	}
	return holdfast(t, append(args, more...)...)
}

// verify verifies with the key.
func (r repo) verify(t testing.TB, more ...string) result {
	t.Helper()
	return holdfast(t, append([]string{"verify", "-r", r.path, "--no-progress", "--keyfile", r.key}, more...)...)
}

// verifyKeyless verifies without it.
func (r repo) verifyKeyless(t testing.TB) result {
	t.Helper()
	return holdfast(t, "verify", "-r", r.path, "--no-progress")
}

// record is any line of JSON that the program prints.
type record struct {
	MessageType  string `json:"message_type"`
	Snapshot     string `json:"snapshot"`
	Group        string `json:"group"`
	Damage       string `json:"damage"`
	BytesRead    int64  `json:"bytes_read"`
	BytesNew     int64  `json:"bytes_new"`
	BytesWritten int64  `json:"bytes_written"`
	BytesSame    int64  `json:"bytes_same"`
	Archives     []struct {
		Name      string `json:"name"`
		NewChunks int64  `json:"new_chunks"`
	} `json:"archives"`
}

// records reads the lines of JSON on standard output.
func (r result) records(t testing.TB) (list []record) {
	t.Helper()
	for line := range strings.Lines(r.Out) {
		var rec record
		if err := json.Unmarshal([]byte(line), &rec); err != nil || rec.MessageType == "" {
			t.Fatalf("line %q is no record (%v): %s", line, err, r)
		}
		list = append(list, rec)
	}
	return list
}

// summary is the last line of a backup or restore that went well.
func (r result) summary(t testing.TB) record {
	t.Helper()
	list := r.want(t, exitOK).records(t)
	if len(list) == 0 || list[len(list)-1].MessageType != "summary" {
		t.Fatalf("no summary: %s", r)
	}
	return list[len(list)-1]
}

// list returns the snapshots that are listed. Listing has to work, and both
// ways of it must agree.
func (r repo) list(t testing.TB) (names []string) {
	t.Helper()
	groups := map[string]bool{}
	for _, rec := range holdfast(t, "snapshot", "list", "-r", r.path, "--json").want(t, exitOK).records(t) {
		names = append(names, rec.Snapshot)
		groups[rec.Group] = true
	}
	for _, rec := range holdfast(t, "list", "-r", r.path, "--json").want(t, exitOK).records(t) {
		if !groups[rec.Group] {
			t.Errorf("group %s is listed, but none of its snapshots", rec.Group)
		}
		delete(groups, rec.Group)
	}
	if len(groups) > 0 {
		t.Errorf("groups %v have snapshots and are not listed", groups)
	}
	return names
}

// wantList fails the test unless exactly these snapshots are listed.
func (r repo) wantList(t testing.TB, want ...snap) {
	t.Helper()
	var names []string
	for _, s := range want {
		names = append(names, s.String())
	}
	got := r.list(t)
	slices.Sort(got)
	slices.Sort(names)
	if !slices.Equal(got, names) {
		t.Errorf("listed are %v, want %v", got, names)
	}
}

// restored restores an archive to standard output and compares its bytes.
func (r repo) restored(t testing.TB, s snap, archive string, want [32]byte, more ...string) {
	t.Helper()
	h := sha256.New()
	args := append([]string{"restore", "-r", r.path, "--keyfile", r.key, "--no-progress", s.String(), archive, "-"}, more...)
	holdfastTo(t, h, args...).want(t, exitOK)
	if [32]byte(h.Sum(nil)) != want {
		t.Errorf("%s of %s came back different", archive, s)
	}
}

// packs returns the sizes of the pack files by name.
func (r repo) packs(t testing.TB) map[string]int64 {
	t.Helper()
	sizes := map[string]int64{}
	for _, p := range glob(t, r.path, ".chunks/packs/*") {
		st, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		sizes[filepath.Base(p)] = st.Size()
	}
	return sizes
}

// glob finds files below dir, largest last.
func glob(t testing.TB, dir, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(names, func(a, b string) int { return int(size(t, a) - size(t, b)) })
	return names
}

func size(t testing.TB, path string) int64 {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return st.Size()
}

// noise is n bytes that do not compress.
func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)}).Read(b)
	return b
}

// text is n bytes that do.
func text(seed uint64, n int) []byte {
	line := fmt.Appendf(nil, "%08d the same words again and again\n", seed)
	return bytes.Repeat(line, n/len(line)+1)[:n]
}

// mixed is n bytes of noise, text, zeros and repetition, as a disk has them.
func mixed(seed uint64, n int) []byte {
	b := make([]byte, n)
	choose := rand.New(rand.NewPCG(seed, 1))
	const piece = 256 << 10
	for off := 0; off < n; off += piece {
		part := b[off:min(off+piece, n)]
		switch choose.IntN(4) {
		case 0, 1:
			copy(part, noise(choose.Uint64(), len(part)))
		case 2:
			copy(part, text(choose.Uint64()%1e8, len(part)))
		}
	}
	return b
}

// write makes a file, without holes.
func write(t testing.TB, path string, b []byte) string {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// patch writes b into an existing file at off.
func patch(t testing.TB, path string, b []byte, off int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt(b, off)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// gone fails the test for a target that is there, or parts of it.
func gone(t testing.TB, target string) {
	t.Helper()
	names, err := os.ReadDir(filepath.Dir(target))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if strings.Contains(n.Name(), filepath.Base(target)) {
			t.Errorf("%s is left of %s", n.Name(), target)
		}
	}
}

// sameFile compares two files without reading what is a hole in both.
func sameFile(t testing.TB, a, b string) {
	t.Helper()
	if x, y := size(t, a), size(t, b); x != y {
		t.Fatalf("%s has %d bytes, %s %d", a, x, b, y)
	}
	fa, err := os.Open(a)
	if err != nil {
		t.Fatal(err)
	}
	defer fa.Close()
	fb, err := os.Open(b)
	if err != nil {
		t.Fatal(err)
	}
	defer fb.Close()
	pa, pb := make([]byte, 1<<20), make([]byte, 1<<20)
	for off := int64(0); ; off += int64(len(pa)) {
		if off = min(nextData(t, fa, off), nextData(t, fb, off)); off == noData {
			return
		}
		n, _ := fa.ReadAt(pa, off)
		m, _ := fb.ReadAt(pb, off)
		if !bytes.Equal(pa[:n], pb[:m]) {
			t.Fatalf("%s and %s differ in the MiB at %d", a, b, off)
		}
	}
}

// noData is where data begins that is not there: behind all that is.
const noData = int64(1) << 62

// nextData finds the first data of f from off on.
func nextData(t testing.TB, f *os.File, off int64) int64 {
	t.Helper()
	const seekData = 3
	at, err := f.Seek(off, seekData)
	switch {
	case errors.Is(err, syscall.ENXIO):
		return noData
	case err != nil:
		t.Fatal(err)
	}
	return at
}

// allocated is how many bytes of a file take room on the disk.
func allocated(t testing.TB, path string) int64 {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return st.Sys().(*syscall.Stat_t).Blocks * 512
}

// sparse makes a file of n bytes with data at some offsets.
func sparse(t testing.TB, path string, n int64, data map[int64][]byte) string {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	err = f.Truncate(n)
	for off, b := range data {
		_, e := f.WriteAt(b, off)
		err = errors.Join(err, e)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return path
}

// copyFile copies a file, sharing its blocks where the file system can.
func copyFile(t testing.TB, from, to string) {
	t.Helper()
	src, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	dst, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(dst, src)
	if err := errors.Join(err, dst.Close()); err != nil {
		t.Fatal(err)
	}
}
