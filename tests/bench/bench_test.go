package main

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// disk makes a sparse file with random data at the places given, in units of
// zeroBlock.
func disk(t *testing.T, blocks int64, data ...int64) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(blocks * zeroBlock); err != nil {
		t.Fatal(err)
	}
	random := rand.NewChaCha8([32]byte{1})
	for _, at := range data {
		b := make([]byte, zeroBlock)
		random.Read(b)
		if _, err := f.WriteAt(b, at*zeroBlock); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func TestDataRuns(t *testing.T) {
	f := disk(t, 20, 1, 2, 5, 19)
	if _, err := f.WriteAt(make([]byte, zeroBlock), 3*zeroBlock); err != nil { // zeros that are no hole
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{7}, 10*zeroBlock-1); err != nil { // one byte
		t.Fatal(err)
	}
	got, err := dataRuns(f, 20*zeroBlock)
	if err != nil {
		t.Fatal(err)
	}
	want := []stretch{{1, 2}, {5, 1}, {9, 1}, {19, 1}}
	if len(got) != len(want) {
		t.Fatalf("got %v", got)
	}
	for i, w := range want {
		if got[i] != (stretch{w.off * zeroBlock, w.len * zeroBlock}) {
			t.Errorf("run %d is %v, want %v blocks", i, got[i], w)
		}
	}
}

// TestCutImageKeepsEveryByte counts what arrives in the store: all data is
// random, so every chunk is new.
func TestCutImageKeepsEveryByte(t *testing.T) {
	f := disk(t, 40, 0, 1, 2, 3, 4, 5, 6, 7, 8, 20, 21, 39)
	runs, err := dataRuns(f, 40*zeroBlock)
	if err != nil {
		t.Fatal(err)
	}
	for _, set := range []cutSet{
		{min: 64 * kib, bits: 16, max: 256 * kib}, {min: 512 * kib, bits: 20, max: 4 * mib}, {fixed: zeroBlock},
	} {
		d, err := newDedup()
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := cutImage(d, f, runs, set); err != nil {
				t.Fatal(err)
			}
		}
		if d.totals.plain != 12*zeroBlock || d.totals.refs != 2*d.totals.chunks || d.totals.stored <= d.totals.plain {
			t.Errorf("%s: %+v, want %d plain bytes, each chunk twice", set, d.totals, 12*zeroBlock)
		}
	}
}

// TestCutAcrossBuffers cuts one run in small and in large pieces.
func TestCutAcrossBuffers(t *testing.T) {
	f := disk(t, 12, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11)
	set := cutSet{min: 64 * kib, bits: 16, max: 256 * kib}
	var counts []totals
	for _, size := range []int{300 * kib, cutBuffer} {
		d, err := newDedup()
		if err != nil {
			t.Fatal(err)
		}
		if err := cutRun(d, newCutter(set), stretch{0, 12 * zeroBlock}, source{f, make([]byte, size)}); err != nil {
			t.Fatal(err)
		}
		d.totals.cut = 0
		counts = append(counts, d.totals)
	}
	if counts[0] != counts[1] {
		t.Errorf("small pieces gave %+v, large ones %+v", counts[0], counts[1])
	}
}

func TestMedian(t *testing.T) {
	s := []sample{{wall: 3, rss: 1}, {wall: 1, rss: 9}, {wall: 2, rss: 5}}
	if m := median(s); m.wall != 2 || m.rss != 5 {
		t.Errorf("median of three is %+v", m)
	}
	if m := median(s[:2]); m.wall != 2 {
		t.Errorf("median of two is %+v", m)
	}
	if a, b := spread(s); a != 1 || b != 3 || peak(s) != 9 {
		t.Errorf("spread %d %d, peak %d", a, b, peak(s))
	}
}

func TestMeasure(t *testing.T) {
	dir := t.TempDir()
	s, err := measure(t.Context(), command{dir, []string{"WORD=x"}, []string{"sh", "-c", "echo $WORD > out"}})
	if err != nil {
		t.Fatal(err)
	}
	if s.wall <= 0 || s.rss <= 0 {
		t.Errorf("measured nothing: %+v", s)
	}
	if n, err := treeSize(dir); err != nil || n != 2 {
		t.Errorf("treeSize = %d, %v", n, err)
	}
	_, err = measure(t.Context(), command{dir, nil, []string{"sh", "-c", "echo the reason; exit 3"}})
	if err == nil || !strings.Contains(err.Error(), "the reason") {
		t.Errorf("a failing command gave %v", err)
	}
}

// TestBars checks that each bar can be missed.
func TestBars(t *testing.T) {
	one := func(wall time.Duration, rss, stored int64) []sample {
		return []sample{{wall: wall * time.Second, rss: rss * mib, stored: stored * mib}}
	}
	write := func(slow time.Duration, rss, stored int64) string {
		r := results{samples: map[step]map[string][]sample{}}
		for _, st := range []step{stepFull, stepSecond, stepRestore} {
			r.samples[st] = map[string][]sample{"holdfast": one(slow, rss, stored), "restic": one(40, 500, 1000)}
		}
		var d strings.Builder
		writeBars(&d, r)
		return d.String()
	}
	for _, c := range []struct {
		slow        time.Duration
		rss, stored int64
		missed      int
	}{{10, 200, 1000, 0}, {11, 200, 1000, 1}, {21, 200, 1000, 2}, {40, 200, 1000, 3}, {10, 201, 1000, 1}, {10, 200, 1001, 2}} {
		if got := strings.Count(write(c.slow, c.rss, c.stored), "**missed**"); got != c.missed {
			t.Errorf("%+v: %d bars missed, want %d", c, got, c.missed)
		}
	}
}

func TestChunkingDoc(t *testing.T) {
	row := func(set cutSet, stored int64) chunkRow {
		return chunkRow{set: set, after: []totals{{}, {}, {stored: stored}, {stored: 2 * stored, chunks: 1, cut: 1, cutBytes: 1}}}
	}
	doc := chunkingDoc([]chunkRow{row(cutSet{min: 512 * kib, bits: 20, max: 4 * mib}, 75*mib), row(cutSet{fixed: 4 * mib}, 100*mib)})
	for _, want := range []string{"| 512/20/4096 | 0 | 0 | 0 | 0 | 0 | 75 |", "| 25.0 % |", "| fixed 4096 |"} {
		if !strings.Contains(doc, want) {
			t.Errorf("the document has no %q:\n%s", want, doc)
		}
	}
}

func TestIsZero(t *testing.T) {
	for n := range 20 {
		b := make([]byte, n)
		if !isZero(b) {
			t.Errorf("%d zeros are not zero", n)
		}
		for i := range b {
			c := bytes.Clone(b)
			c[i] = 1
			if isZero(c) {
				t.Errorf("a one at %d of %d was not seen", i, n)
			}
		}
	}
}

// TestScrubBar checks that the scrub is held against the slower of disk and
// SHA-256.
func TestScrubBar(t *testing.T) {
	for _, c := range []struct {
		row   scrubRow
		share float64
	}{
		{scrubRow{onDisk: 400, disk: 500, sum: 3000}, 0.8},
		{scrubRow{onDisk: 2400, disk: 7000, sum: 3000}, 0.8},
	} {
		if got := c.row.share(); got != c.share {
			t.Errorf("%+v: %v, want %v", c.row, got, c.share)
		}
	}
}
