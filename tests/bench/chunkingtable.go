package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// chunkImages are the images of the chunking table in the order in which they
// are backed up.
func chunkImages() []string { return []string{"night1.img", "night2.img", "xfs.img", "other.img"} }

// chunkRow is what one set of parameters came to after each image.
type chunkRow struct {
	set   cutSet
	after []totals
}

// chunkingTable measures every set over the images in dir. Progress, one line
// for each set, goes to log.
func chunkingTable(dir string, log io.Writer) ([]chunkRow, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var files []*os.File
	var runs [][]stretch
	for _, name := range chunkImages() {
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return nil, err
		}
		r, err := dataRuns(f, info.Size())
		if err != nil {
			return nil, err
		}
		files, runs = append(files, f), append(runs, r)
		fmt.Fprintf(log, "%s: %d runs, %.2f GiB of data\n", name, len(r), float64(runBytes(r))/gib)
	}
	var rows []chunkRow
	for _, set := range cutSets() {
		row, err := measureSet(set, files, runs)
		if err != nil {
			return nil, err
		}
		rows = append(rows, row)
		fmt.Fprintln(log, row)
	}
	return rows, nil
}

func runBytes(runs []stretch) (n int64) {
	for _, r := range runs {
		n += r.len
	}
	return n
}

// measureSet backs the images up one after the other into one imaginary store.
func measureSet(set cutSet, files []*os.File, runs [][]stretch) (chunkRow, error) {
	d, err := newDedup()
	if err != nil {
		return chunkRow{}, err
	}
	row := chunkRow{set: set}
	for i, f := range files {
		if err := cutImage(d, f, runs[i], set); err != nil {
			return chunkRow{}, err
		}
		row.after = append(row.after, d.totals)
	}
	return row, nil
}

// speed is how fast the set cuts, in MB/s of CPU time; 0 if there is nothing
// to cut.
func (r chunkRow) speed() float64 {
	t := r.after[len(r.after)-1]
	if t.cut == 0 {
		return 0
	}
	return float64(t.cutBytes) / float64(t.cut) * 1e3
}

// String is one line of the plain table.
func (r chunkRow) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-14s", r.set)
	for _, t := range r.after {
		fmt.Fprintf(&b, " | plain %6d stored %6d MiB n %6d avg %5d KiB",
			t.plain/mib, t.stored/mib, t.chunks, t.plain/max(1, t.chunks)/kib)
	}
	fmt.Fprintf(&b, " | cut %4.0f MB/s", r.speed())
	return b.String()
}
