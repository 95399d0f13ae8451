package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// gcBench measures what grows with the number of chunks.
type gcBench struct {
	settings
	work, bin string
}

// gcRow is a synthetic store of one size, and what its collection took.
type gcRow struct {
	synthetic
	all []sample
}

// largeRow is what the largest store took.
type largeRow struct {
	chunks        int
	open, reindex sample
}

// compareGC measures the garbage collection and returns the document.
func compareGC(ctx context.Context, s settings) (string, error) {
	work, err := os.MkdirTemp(s.imageDir, "run-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	b := &gcBench{settings: s, work: work, bin: filepath.Join(work, "holdfast")}
	if err := buildHoldfast(ctx, b.bin); err != nil {
		return "", err
	}
	const chunks, references, snapshots, machines = 1_500_000, 30_000_000, 1000, 50
	var rows []gcRow
	for _, part := range []int{4, 2, 1} {
		row, err := b.measureGC(ctx, synthetic{chunks / part, references / part, snapshots, machines})
		if err != nil {
			return "", err
		}
		rows = append(rows, row)
	}
	large, err := b.measureLarge(ctx)
	if err != nil {
		return "", err
	}
	scrub, err := b.measureScrub(ctx)
	if err != nil {
		return "", err
	}
	m, err := describeMachine(ctx, bench{settings: s, tools: tools(b.bin)[:1]})
	if err != nil {
		return "", err
	}
	return gcDoc(m, rows, large, scrub), nil
}

// fresh makes an empty repository.
func (b *gcBench) fresh(ctx context.Context) (dir string, err error) {
	dir = filepath.Join(b.work, "synthetic")
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	_, err = measure(ctx, command{b.work, nil, []string{b.bin, "-q", "init", dir}})
	return dir, err
}

// makeSynthetic fills a repository in a second process, so that this one stays
// small.
func makeSynthetic(ctx context.Context, s synthetic, dir string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self, "-synthetic", s.encode(dir))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("make a synthetic store: %w\n%s", err, out)
	}
	return nil
}

// measureGC collects the garbage of one store as often as there are rounds;
// nothing in it is garbage, so that every round does the same.
func (b *gcBench) measureGC(ctx context.Context, s synthetic) (gcRow, error) {
	row := gcRow{synthetic: s}
	dir, err := b.fresh(ctx)
	if err != nil {
		return row, err
	}
	if err := makeSynthetic(ctx, s, dir); err != nil {
		return row, err
	}
	for range b.rounds {
		one, err := measure(ctx, command{b.work, nil, []string{b.bin, "-q", "gc", "-r", dir}})
		if err != nil {
			return row, err
		}
		row.all = append(row.all, one)
		fmt.Printf("gc of %d chunks, %d references: %.2f s, cpu %.2f s, %d MiB\n", s.chunks, s.references,
			one.wall.Seconds(), one.cpu.Seconds(), one.rss/mib)
	}
	return row, nil
}

// measureLarge opens and reindexes a store of ten million chunks.
func (b *gcBench) measureLarge(ctx context.Context) (largeRow, error) {
	row := largeRow{chunks: 10_000_000}
	dir, err := b.fresh(ctx)
	if err != nil {
		return row, err
	}
	if err := makeSynthetic(ctx, synthetic{chunks: row.chunks}, dir); err != nil {
		return row, err
	}
	if row.open, err = measure(ctx, command{b.work, nil, []string{b.bin, "-q", "status", "-r", dir}}); err != nil {
		return row, err
	}
	row.reindex, err = measure(ctx, command{b.work, nil, []string{b.bin, "-q", "--no-progress", "reindex", "-r", dir}})
	fmt.Printf("%d chunks: open %.2f s, %d MiB; reindex %.1f s, %d MiB\n", row.chunks,
		row.open.wall.Seconds(), row.open.rss/mib, row.reindex.wall.Seconds(), row.reindex.rss/mib)
	return row, err
}
