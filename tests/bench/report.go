package main

import (
	"fmt"
	"strings"
)

// The bars that Holdfast must reach in the scenario "night". Ratios are
// restic's median time by Holdfast's.
const (
	barFull    = 2.0
	barSecond  = 4.0
	barRestore = 1.2
	barMemory  = 200 * mib
)

// benchDoc writes the document.
func benchDoc(m machine, all []results) string {
	var d strings.Builder
	fmt.Fprintf(&d, "# Benchmark\n\nWritten by `make bench` on %s; every number is from that run.\n\n", m.date.Format("2006-01-02"))
	fmt.Fprintf(&d, "Machine: %s, %d cores, %.0f GiB of memory, %s, repositories on %s.\n", m.cpu, m.cores,
		float64(m.memory)/gib, m.kernel, m.fileSystem)
	fmt.Fprintf(&d, "Programs: %s.\n\n", strings.Join(m.versions, "; "))
	d.WriteString(conditions(m.rounds))
	for _, r := range all {
		if r.name == "night" {
			writeBars(&d, r)
		}
	}
	for _, r := range all {
		writeScenario(&d, r)
	}
	writeLimits(&d, m, all)
	return d.String()
}

// conditions says how it was measured, for and against each program.
func conditions(rounds int) string {
	return fmt.Sprintf(`## How it was measured

Rounds: %d, the programs taking turns within each step; the tables show medians. Every round begins with empty
repositories on the same file system. Images were read once before, so they come from the page cache; the disk was
synced before each command. Time is wall time; CPU is user and system time together; memory is the peak of the resident
set, memory-mapped files included; stored is the size of all files of the repository. A restored image is compared with
the original byte by byte, outside the measured time.

All three encrypt and compress: Holdfast as it does by default (zstd, AES-256-GCM), restic with repository version 2 and
`+"`--compression auto`"+`, borg with repokey and `+"`--compression zstd,1`"+`. So that every program reads the image each
time, restic runs with `+"`--force`"+` and borg with `+"`--files-cache=disabled`"+`; for a file whose time stamp has not
changed both would otherwise skip the reading, which a block device or a fresh snapshot does not allow. Holdfast's key
file has no passphrase; restic's and borg's derivation of a key from theirs is part of their times (about half a second
for restic). Borg restores with `+"`--sparse`"+`; Debian's restic has no such option and writes holes as zeros, which costs
it time on images with holes: the full disk below shows the comparison without.

How much faster a full backup is depends on the disk: holes are never read, and reading them is much of what the others
do on a thin disk. Where there are none the distance is what the full disk below shows.

`, rounds)
}

// writeBars compares with what must be reached.
func writeBars(d *strings.Builder, r results) {
	ratio := func(st step) float64 { return wallRatio(r, st, "restic") }
	var memory int64
	for _, byTool := range r.samples {
		memory = max(memory, peak(byTool["holdfast"]))
	}
	stored := func(st step, tool string) int64 { return median(r.samples[st][tool]).stored }
	d.WriteString("## The bars\n\n| what | must be | is | |\n|---|---|---|---|\n")
	row := func(what, bar, is string, met bool) {
		verdict := "met"
		if !met {
			verdict = "**missed**"
		}
		fmt.Fprintf(d, "| %s | %s | %s | %s |\n", what, bar, is, verdict)
	}
	times := func(what string, st step, bar float64) {
		row(what, fmt.Sprintf("at least %.1f × restic", bar), fmt.Sprintf("%.1f ×", ratio(st)), ratio(st) >= bar)
	}
	times("speed of the full backup", stepFull, barFull)
	times("speed of the second backup", stepSecond, barSecond)
	times("speed of restore", stepRestore, barRestore)
	row("memory, most of all commands and rounds", fmt.Sprintf("at most %d MiB", barMemory/mib),
		fmt.Sprintf("%d MiB", memory/mib), memory <= barMemory)
	for _, st := range []step{stepFull, stepSecond} {
		mine, theirs := stored(st, "holdfast"), stored(st, "restic")
		row("stored after the "+string(st), fmt.Sprintf("at most restic's %.1f MiB", float64(theirs)/mib),
			fmt.Sprintf("%.1f MiB", float64(mine)/mib), mine <= theirs)
	}
	d.WriteString("\n")
}

// wallRatio is how many times longer the other program takes.
func wallRatio(r results, st step, other string) float64 {
	mine := median(r.samples[st]["holdfast"]).wall
	return median(r.samples[st][other]).wall.Seconds() / mine.Seconds()
}

// writeScenario is the table of one scenario.
func writeScenario(d *strings.Builder, r results) {
	fmt.Fprintf(d, "## %s\n\nDisk of %.1f GiB, of it %.2f GiB data", r.title, float64(r.imageSize)/gib, float64(r.dataSize)/gib)
	if r.next != "" {
		fmt.Fprintf(d, "; after the night %.2f GiB", float64(r.nextData)/gib)
	}
	d.WriteString(". The last column is the time against Holdfast's.\n\n" +
		"| step | program | time, s | fastest–slowest | CPU, s | memory, MiB | stored, MiB | × Holdfast |\n" +
		"|---|---|---:|---|---:|---:|---:|---:|\n")
	for _, st := range r.steps {
		for _, tool := range []string{"holdfast", "restic", "borg"} {
			s := median(r.samples[st][tool])
			fastest, slowest := spread(r.samples[st][tool])
			fmt.Fprintf(d, "| %s | %s | %.2f | %.2f–%.2f | %.2f | %d | %.1f | %.1f |\n", st, tool, s.wall.Seconds(),
				fastest.Seconds(), slowest.Seconds(), s.cpu.Seconds(), s.rss/mib, float64(s.stored)/mib, wallRatio(r, st, tool))
		}
	}
	d.WriteString("\n")
}

// writeLimits shows what one core can do, and how far a full backup is from
// what all cores could.
func writeLimits(d *strings.Builder, m machine, all []results) {
	l := m.limits
	d.WriteString("## The limits of this machine\n\nOne core, on data of the first image in pieces of 1 MiB, best of three.\n\n" +
		"| work | MB/s |\n|---|---:|\n")
	for _, row := range []struct {
		what  string
		speed float64
	}{
		{"read from the page cache", l.Read}, {"cut (restic/chunker, the default parameters)", l.Cut},
		{"SHA-256", l.Hash}, {"zstd, level fastest", l.Fastest}, {"zstd, level default", l.Default}, {"AES-256-GCM", l.Seal},
		{"seal a blob as Holdfast does: zstd, AES-256-GCM, checksum", l.Blob}, {"write and fsync", l.Write},
	} {
		fmt.Fprintf(d, "| %s | %.0f |\n", row.what, row.speed/1e6)
	}
	limit := float64(m.cores) / (1/l.Read + 1/l.Cut + 1/l.Hash + 1/l.Blob)
	fmt.Fprintf(d, "\nA full backup reads, cuts, hashes and seals every byte of data. Were that all, %d cores would do %.0f MB/s.\n\n", m.cores, limit/1e6)
	d.WriteString("| full backup of | data, MB/s | of the limit |\n|---|---:|---:|\n")
	for _, r := range all {
		speed := float64(r.dataSize) / median(r.samples[stepFull]["holdfast"]).wall.Seconds()
		fmt.Fprintf(d, "| %s | %.0f | %.0f %% |\n", r.title, speed/1e6, 100*speed/limit)
	}
}

// chunkingDoc writes the document of -chunking.
func chunkingDoc(rows []chunkRow) string {
	var d strings.Builder
	d.WriteString("# Where to cut\n\n" + chunkingHead)
	for _, row := range rows {
		fmt.Fprintf(&d, "| %s |", row.set)
		for _, t := range row.after {
			fmt.Fprintf(&d, " %d | %d |", t.plain/mib, t.stored/mib)
		}
		t := row.after[len(row.after)-1]
		speed := "–"
		if row.set.fixed == 0 {
			speed = fmt.Sprintf("%.0f", row.speed())
		}
		fmt.Fprintf(&d, " %d | %d | %s | %s |\n", t.chunks, t.plain/max(1, t.chunks)/kib, speed, saved(rows, row))
	}
	d.WriteString(chunkingTail)
	return d.String()
}

// saved is how much less a row stores than fixed chunks of 4 MiB, over the
// first three images.
func saved(rows []chunkRow, row chunkRow) string {
	const third = 2
	for _, r := range rows {
		if r.set.fixed == 4*mib && len(r.after) > third {
			return fmt.Sprintf("%.1f %%", 100*(1-float64(row.after[third].stored)/float64(r.after[third].stored)))
		}
	}
	return "–"
}

const chunkingHead = `Written by ` + "`go run ./tests/bench -chunking`" + `; every number is from one run over the images of the benchmark, backed up one
after the other into one imaginary store that keeps names and sizes only:

1. night: a Debian server (nginx, PostgreSQL with a pgbench database) on ext4;
2. + next: the same disk a night later: packages upgraded and installed, logs grown and rotated, the database written to;
3. + XFS: another server of the same administrator (Apache, MariaDB, PHP, Redis) on XFS, with the same basic packages;
4. + other: a Debian system with other software (another kernel, JDK, Go, Emacs, Samba), on XFS.

A set is named by minimum size in KiB, bits of the average, maximum size in KiB. Holes and aligned blocks of 256 KiB of
zeros are left out before cutting. Plain is the size of all different chunks, stored the same as Holdfast compresses and
encrypts them, both in MiB; cutting is measured in CPU time of one core, with what is
skipped below the minimum counted as cut. The last column compares stored after the third image with fixed chunks of 4 MiB.

| set | night plain | stored | + next plain | stored | + XFS plain | stored | + other plain | stored | chunks | average, KiB | cut, MB/s | saved |
|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|
`

const chunkingTail = `
## What was chosen

512/18/2048. Small chunks find more that is equal and compress worse. After the first night that makes half a percent for
each halving of the minimum, in favour of the large ones; after several machines it is some percent in favour of the
small. What decides between them is the work: the minimum is skipped without hashing, so that 512/18 is cut twice as
fast as 256/20; there are fewer chunks to keep in catalogue and index; and a maximum of 2 MiB halves the buffers. It
stores a fifth less than fixed chunks of 4 MiB over two nights of one machine and a second machine that shares its basic
packages. How much it is elsewhere depends on what the machines share, and on how scattered a night's changes are: with
unrelated software on the second machine it is far less.
`
