package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// scrubRow is how fast the scrub is, all speeds in megabytes a second.
type scrubRow struct {
	onDisk, disk  float64 // of packs that are not in memory, and of only reading them
	inMemory, sum float64 // of packs in memory, and SHA-256 of the same bytes on as many cores
}

// lower is the speed that the scrub is held against.
func (r scrubRow) lower() (what string, speed float64) {
	if r.disk < r.sum {
		return "the disk", r.disk
	}
	return "SHA-256 on all cores", r.sum
}

// share is how much of that it reaches.
func (r scrubRow) share() float64 {
	_, speed := r.lower()
	return r.onDisk / speed
}

// measureScrub measures the scrub on the disk and in memory.
func (b *gcBench) measureScrub(ctx context.Context) (scrubRow, error) {
	r, err := b.scrubOnDisk(ctx)
	if err != nil {
		return r, err
	}
	r.inMemory, r.sum, err = scrubInMemory(ctx, b.rounds)
	fmt.Printf("scrub: %.0f MB/s, disk %.0f MB/s; in memory %.0f MB/s, SHA-256 %.0f MB/s\n", r.onDisk, r.disk, r.inMemory, r.sum)
	return r, err
}

// scrubOnDisk scrubs a repository of noise, in turns with a plain reading of
// its packs. Nothing of them is in memory before each.
func (b *gcBench) scrubOnDisk(ctx context.Context) (scrubRow, error) {
	image := filepath.Join(b.work, "noise.img")
	defer os.Remove(image)
	dir, err := b.fresh(ctx)
	if err != nil {
		return scrubRow{}, err
	}
	if err := makeNoise(image); err != nil {
		return scrubRow{}, err
	}
	if _, err := measure(ctx, command{b.work, nil, []string{b.bin, "-q", "--no-progress", "backup", "--crypt-mode", "none", "-r", dir, "noise.img:" + image}}); err != nil {
		return scrubRow{}, err
	}
	packs, err := filepath.Glob(filepath.Join(dir, ".chunks", "packs", "*.pack"))
	if err != nil {
		return scrubRow{}, err
	}
	var scrubs, reads []sample
	var size int64
	for range b.rounds + 1 {
		if size, err = forget(packs); err != nil {
			return scrubRow{}, err
		}
		began := time.Now()
		if err := readAll(ctx, packs); err != nil {
			return scrubRow{}, err
		}
		reads = append(reads, sample{wall: time.Since(began)})
		if _, err := forget(packs); err != nil {
			return scrubRow{}, err
		}
		one, err := measure(ctx, command{b.work, nil, []string{b.bin, "-q", "--no-progress", "verify", "--store", "-r", dir}})
		if err != nil {
			return scrubRow{}, err
		}
		scrubs = append(scrubs, one)
	}
	speed := func(all []sample) float64 { // without the first, which finds colder disks than all others
		return float64(size) / 1e6 / median(all[1:]).wall.Seconds()
	}
	return scrubRow{onDisk: speed(scrubs), disk: speed(reads)}, nil
}

// forget has the kernel give up what it has in memory of files, and says how
// large they are together.
func forget(files []string) (size int64, err error) {
	unix.Sync()
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return 0, err
		}
		st, err := f.Stat()
		if err == nil {
			size += st.Size()
			err = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return 0, err
		}
	}
	return size, nil
}

// readAll reads files from begin to end, as many at a time as the scrub does.
func readAll(ctx context.Context, files []string) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for _, name := range files {
		group.Go(func() error {
			f, err := os.Open(name)
			if err != nil {
				return err
			}
			defer f.Close()
			_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_SEQUENTIAL)
			// Not a file, so that the bytes do come into this process.
			_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{f}, make([]byte, mib))
			return errors.Join(err, ctx.Err())
		})
	}
	return group.Wait()
}

// scrubInMemory runs the benchmark of the package that scrubs, and takes the
// round in the middle.
func scrubInMemory(ctx context.Context, rounds int) (scrub, sum float64, err error) {
	out, err := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^BenchmarkScrub$", "-count", strconv.Itoa(rounds), "./chunkstore/pack").CombinedOutput()
	if err != nil {
		return 0, 0, fmt.Errorf("measure the scrub: %w\n%s", err, out)
	}
	type round struct{ scrub, sum float64 }
	var all []round
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		value := func(unit string) float64 {
			n := 0.0
			if i := slices.Index(fields, unit); i > 0 {
				n, _ = strconv.ParseFloat(fields[i-1], 64)
			}
			return n
		}
		if strings.HasPrefix(line, "BenchmarkScrub") {
			all = append(all, round{value("scrub-MB/s"), value("sha256-MB/s")})
		}
	}
	if len(all) != rounds {
		return 0, 0, fmt.Errorf("measure the scrub: %d rounds in\n%s", len(all), out)
	}
	slices.SortFunc(all, func(a, b round) int { return cmp.Compare(a.scrub/a.sum, b.scrub/b.sum) })
	middle := all[len(all)/2]
	return middle.scrub, middle.sum, nil
}
