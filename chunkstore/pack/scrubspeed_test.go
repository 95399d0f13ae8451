package pack

import (
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/chunkstore"
	"holdfast/chunkstore/storetest"
	"holdfast/crypto"
)

// speedChunks are as many chunks of 1 MiB as one pass reads.
const speedChunks = 512

func speedStore(b testing.TB) (*Store, []chunkstore.Chunk) {
	b.Helper()
	s := openAt(b, create(b), Options{})
	cs := make([]chunkstore.Chunk, speedChunks)
	for i := range cs {
		cs[i] = storetest.Chunk(uint64(i), 1<<20)
	}
	fill(b, s, cs)
	return s, cs
}

// cpuTime is what this process has used of the processors.
func cpuTime(b testing.TB) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkScrub compares a scrub with the plain SHA-256 of the same bytes on
// as many cores, by the clock and by the time of the processors. The store lies
// in memory where there is a file system for that, so that no disk is measured.
func BenchmarkScrub(b *testing.B) {
	s, cs := speedStore(b)
	defer s.Close()
	var scrubbed, summed, scrubCPU, sumCPU time.Duration
	for b.Loop() {
		begin, cpu := time.Now(), cpuTime(b)
		r, err := s.Scrub(bg, ScrubOptions{})
		if err != nil || r.Chunks != speedChunks {
			b.Fatal(r, err)
		}
		scrubbed, scrubCPU = scrubbed+time.Since(begin), scrubCPU+cpuTime(b)-cpu
		begin, cpu = time.Now(), cpuTime(b)
		sumAll(cs)
		summed, sumCPU = summed+time.Since(begin), sumCPU+cpuTime(b)-cpu
		b.SetBytes(int64(r.Bytes))
	}
	bytes := float64(b.N) * speedChunks * (1 << 20)
	b.ReportMetric(bytes/scrubbed.Seconds()/1e6, "scrub-MB/s")
	b.ReportMetric(bytes/summed.Seconds()/1e6, "sha256-MB/s")
	b.ReportMetric(100*summed.Seconds()/scrubbed.Seconds(), "%-by-clock")
	b.ReportMetric(100*sumCPU.Seconds()/scrubCPU.Seconds(), "%-by-cpu")
}

// sumAll hashes all chunks on all cores.
func sumAll(cs []chunkstore.Chunk) {
	var wg sync.WaitGroup
	workers := runtime.GOMAXPROCS(0)
	for w := range workers {
		wg.Go(func() {
			for i := w; i < len(cs); i += workers {
				crypto.Sum(cs[i].Blob)
			}
		})
	}
	wg.Wait()
}
