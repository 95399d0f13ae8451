package main

import (
	"fmt"
	"strings"
	"time"
)

// The bars of the garbage collection and of large stores.
const (
	barGC       = 20 * time.Second
	barGCMemory = 500 * mib
	barOpen     = 2 * time.Second
	barReindex  = 10 * time.Minute
	barScrub    = 0.80
)

// gcDoc writes the document.
func gcDoc(m machine, rows []gcRow, large largeRow, scrub scrubRow) string {
	var d strings.Builder
	fmt.Fprintf(&d, "# Garbage collection, scrub and large stores\n\nWritten by `go run ./tests/bench -gc` on %s; every number is from that run.\n\n", m.date.Format("2006-01-02"))
	fmt.Fprintf(&d, "Machine: %s, %d cores, %.0f GiB of memory, %s, repositories on %s.\n\n", m.cpu, m.cores, float64(m.memory)/gib, m.kernel, m.fileSystem)
	d.WriteString(gcConditions)
	last := rows[len(rows)-1]
	wall, memory := median(last.all).wall, peak(last.all)
	d.WriteString("## The bars\n\n| what | must be | is | |\n|---|---|---|---|\n")
	bar := func(what, must, is string, met bool) {
		verdict := "met"
		if !met {
			verdict = "**missed**"
		}
		fmt.Fprintf(&d, "| %s | %s | %s | %s |\n", what, must, is, verdict)
	}
	seconds := func(t time.Duration) string { return fmt.Sprintf("%.1f s", t.Seconds()) }
	bar(fmt.Sprintf("gc of %d chunks and %d references", last.chunks, last.references), "under 20 s", seconds(wall), wall < barGC)
	bar("its memory", "under 500 MiB", fmt.Sprintf("%d MiB", memory/mib), memory < barGCMemory)
	bar(fmt.Sprintf("opening a store of %d chunks", large.chunks), "under 2 s", seconds(large.open.wall), large.open.wall < barOpen)
	bar("its reindex", "under 10 min", seconds(large.reindex.wall), large.reindex.wall < barReindex)
	what, lower := scrub.lower()
	bar("the speed of a scrub, against "+what+", the slower of disk and SHA-256", "at least 80 %", fmt.Sprintf("%.0f %%", 100*scrub.share()), scrub.share() >= barScrub)
	fmt.Fprintf(&d, scrubConditions, scrub.onDisk, lower, scrub.disk, scrub.sum, scrub.inMemory, scrub.sum, 100*scrub.inMemory/scrub.sum)
	d.WriteString("\n## All of it\n\n| work | chunks | references | time, s | fastest–slowest | CPU, s | memory, MiB | µs of CPU for 1,000 references |\n|---|---:|---:|---:|---|---:|---:|---:|\n")
	for _, r := range rows {
		s := median(r.all)
		fastest, slowest := spread(r.all)
		fmt.Fprintf(&d, "| gc | %d | %d | %.2f | %.2f–%.2f | %.2f | %d | %.0f |\n", r.chunks, r.references, s.wall.Seconds(), fastest.Seconds(), slowest.Seconds(),
			s.cpu.Seconds(), peak(r.all)/mib, float64(s.cpu.Microseconds())*1000/float64(r.references))
	}
	for _, r := range []struct {
		what string
		s    sample
	}{{"open and status", large.open}, {"reindex", large.reindex}} {
		fmt.Fprintf(&d, "| %s | %d | – | %.2f | – | %.2f | %d | – |\n", r.what, large.chunks, r.s.wall.Seconds(), r.s.cpu.Seconds(), r.s.rss/mib)
	}
	return d.String()
}

const gcConditions = `The stores are synthetic: chunks of one byte each in packs of 64 MiB, and 1,000 snapshots of 50 machines. Each snapshot refers to a window of its
machine's chunks that moves on from day to day; a third of its references are repeated. Nothing is garbage, so that every
round does the same: all indexes are read and every chunk of the catalogue is asked for. Time is that of the whole command; memory is the
peak of the resident set, memory-mapped files included.

`

const scrubConditions = `
The scrub is "verify --store" of a repository of 2 GiB of noise of which nothing is in memory: %.0f MB/s, where %.0f MB/s is the slower of what
as many plain readers of the same packs as there are cores get (%.0f MB/s) and SHA-256 of bytes in memory (%.0f MB/s). They take turns. With packs that lie in memory it
reads %.0f MB/s where SHA-256 alone does %.0f MB/s (%.0f %%): the rest is copying from the kernel.
`
