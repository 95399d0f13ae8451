package main

import (
	"fmt"
	"strings"
	"time"
)

// The bars that a server must reach, against a path, and how much of the link
// must be used.
const (
	barNetBackup  = 0.80
	barNetRestore = 0.70
	barLink       = 0.70
)

// doc writes the document.
func (b *serverBench) doc(m machine) string {
	var d strings.Builder
	fmt.Fprintf(&d, "# What the network costs\n\nWritten by `go run ./tests/bench -server` on %s; every number is from that run.\n\n", m.date.Format("2006-01-02"))
	fmt.Fprintf(&d, "Machine: %s, %d cores, %.0f GiB of memory, %s, repositories on %s. Client, server and the imitated link share it.\n\n",
		m.cpu, m.cores, float64(m.memory)/gib, m.kernel, m.fileSystem)
	fmt.Fprintf(&d, serverConditions, b.rounds, 2*linkDelay.Milliseconds(), linkRate*8/1000/1000/1000, b.linkMeasure/1e6)
	d.WriteString("## The bars\n\n| what | must be | is | |\n|---|---|---|---|\n")
	for _, image := range []string{"night1.img", "noise.img"} {
		b.writeBar(&d, "full backup of "+image+" over loopback TLS, against a path", b.speed(image, stepFull), barNetBackup)
		b.writeBar(&d, "restore of "+image+" over loopback TLS, against a path", b.speed(image, stepRestore), barNetRestore)
	}
	b.writeBar(&d, "of the link used by a full backup of noise", b.linkShare(stepFull), barLink)
	b.writeBar(&d, "of the link used by a restore of noise", b.linkShare(stepRestore), barLink)
	d.WriteString("\n## All of it\n\n| image | step | repository | time, s | fastest–slowest | CPU of the client, s | of the server, s | memory of the client, MiB | of the server, MiB |\n" +
		"|---|---|---|---:|---|---:|---:|---:|---:|\n")
	for _, r := range b.rows {
		s, far := median(r.all), median(r.server)
		fastest, slowest := spread(r.all)
		server := fmt.Sprintf("%.2f | %d | %d", far.cpu.Seconds(), s.rss/mib, peak(r.server)/mib)
		if r.place == onPath {
			server = fmt.Sprintf("– | %d | –", s.rss/mib)
		}
		fmt.Fprintf(&d, "| %s | %s | %s | %.2f | %.2f–%.2f | %.2f | %s |\n", r.image, r.step, r.place,
			s.wall.Seconds(), fastest.Seconds(), slowest.Seconds(), s.cpu.Seconds(), server)
	}
	return d.String()
}

func (b *serverBench) writeBar(d *strings.Builder, what string, is, bar float64) {
	verdict := "met"
	if is < bar {
		verdict = "**missed**"
	}
	fmt.Fprintf(d, "| %s | at least %.0f %% | %.0f %% | %s |\n", what, 100*bar, 100*is, verdict)
}

// speed is that over loopback as a part of that on a path.
func (b *serverBench) speed(image string, st step) float64 {
	return b.wall(image, st, onPath).Seconds() / b.wall(image, st, onLoopback).Seconds()
}

// linkShare is the part of the link's rate that a step used, from the start of
// the command to its end.
func (b *serverBench) linkShare(st step) float64 {
	return noiseSize / b.wall("noise.img", st, onLink).Seconds() / linkRate
}

func (b *serverBench) wall(image string, st step, p place) time.Duration {
	return median(b.row(image, st, p).all).wall
}

const serverConditions = `Rounds: %d, the repositories taking turns within each step; the tables show medians. Every round begins with a new server
and empty repositories. Images come from the page cache; the disk is synced before each command; a restored image is
compared byte by byte, outside the measured time. Backups are encrypted. *night1* is the disk of a Debian server, *noise* 2 GiB of
random bytes, which nothing makes smaller. The memory of the server is its peak since it began.

The link has a round trip of %d ms and %d Gbit/s, imitated by toxiproxy 2.5.0, which delays, and a relay whose
connections share that rate; a plain copy of 512 MiB through it got %.0f MB/s, start and delay included. Time counts from the start of the command to its end, with all handshakes.

`
