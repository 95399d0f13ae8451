package schedule

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// scaleEnv multiplies the number of schedules; 1 is what go test does.
const scaleEnv = "HOLDFAST_LAB_SCALE"

// How many schedules there are at scale 1, and in how many each mutant has to
// be found.
const (
	schedules   = 50_000
	mutantsMax  = 60_000
	replays     = 300
	blockSize   = 5_000 // schedules that one process makes
	faultlabKey = "faultlab."
)

var (
	seedFlag   = flag.Uint64("seed", 0, "run this schedule only, and print what happens in it")
	mutantFlag = flag.String("mutant", "", "with -seed: break this rule")
)

// summary is what a program of schedules prints.
type summary struct {
	Schedules, Steps, Crashes, Lives uint64
	Seconds                          float64 // of the processor
	Digest                           uint64
	Seed                             uint64 // of the violation
	Violation                        string // "" if there was none
}

func (s *summary) add(o summary) {
	s.Schedules += o.Schedules
	s.Steps += o.Steps
	s.Crashes += o.Crashes
	s.Lives += o.Lives
	s.Seconds += o.Seconds
	if s.Violation == "" {
		s.Seed, s.Violation = o.Seed, o.Violation
	}
}

func moduleRoot(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// program builds the program of schedules.
func program(t *testing.T, withMutants bool) string {
	t.Helper()
	dir := t.TempDir()
	out := filepath.Join(dir, "schedules")
	if err := Build(moduleRoot(t), dir, out, withMutants); err != nil {
		t.Fatal(err)
	}
	return out
}

// scaled multiplies a number of schedules.
func scaled(t *testing.T, n uint64) uint64 {
	t.Helper()
	s := os.Getenv(scaleEnv)
	if s == "" {
		return n
	}
	by, err := strconv.ParseUint(s, 10, 32)
	if err != nil || by < 1 {
		t.Fatalf("%s=%q is no number of 1 or more", scaleEnv, s)
	}
	return n * by
}

// work runs schedules in one process, until one of them goes wrong.
func work(ctx context.Context, prog string, args ...string) (s summary, out string, err error) {
	cmd := exec.CommandContext(ctx, prog, append([]string{"-test.run=^TestWorker$", "-test.timeout=0"}, args...)...)
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	var errs strings.Builder
	cmd.Stderr = &errs
	b, err := cmd.Output()
	if err != nil {
		return s, string(b), fmt.Errorf("%s %v: %w\n%s", prog, args, err, errs.String())
	}
	text := strings.TrimSpace(string(b))
	at := strings.LastIndexByte(text, '\n') + 1
	return s, text[:at], json.Unmarshal([]byte(text[at:]), &s)
}

// seeds are the arguments for a row of schedules.
func seeds(first, count uint64) []string {
	return []string{fmt.Sprintf("-first=%d", first), fmt.Sprintf("-count=%d", count)}
}

// trace runs one schedule again and tells what happened.
func trace(t *testing.T, prog, mutant string, seed uint64) summary {
	t.Helper()
	s, out, err := work(t.Context(), prog, append(seeds(seed, 1), "-trace", "-mutant="+mutant)...)
	t.Logf("the trace of seed %d:\n%s", seed, out)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestSchedules is the lab: no schedule may break an invariant.
func TestSchedules(t *testing.T) {
	prog := program(t, *mutantFlag != "")
	if *seedFlag != 0 {
		if s := trace(t, prog, *mutantFlag, *seedFlag); s.Violation != "" {
			t.Error(s.Violation)
		}
		return
	}
	n := scaled(t, schedules)
	begin := time.Now()
	sum, err := explore(t.Context(), prog, n)
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(begin).Seconds()
	t.Logf("%d schedules in %.0f s, %.0f a second (%.0f for each second of a processor); %d steps and %.1f openings each; %d crashes",
		sum.Schedules, took, float64(sum.Schedules)/took, float64(sum.Schedules)/sum.Seconds, sum.Steps/sum.Schedules,
		1+float64(sum.Lives)/float64(sum.Schedules), sum.Crashes)
	if sum.Violation != "" {
		trace(t, prog, "", sum.Seed)
		t.Fatalf("seed %d: %s\nrun it again with: go test ./tests/faultlab/schedule -run TestSchedules -seed %d", sum.Seed, sum.Violation, sum.Seed)
	}
	if sum.Schedules != n {
		t.Errorf("%d schedules were run, not %d", sum.Schedules, n)
	}
	t.Attr(faultlabKey+"schedules", strconv.FormatUint(sum.Schedules, 10))
	t.Attr(faultlabKey+"schedule-steps", strconv.FormatUint(sum.Steps, 10))
	t.Attr(faultlabKey+"schedule-crashes", strconv.FormatUint(sum.Crashes, 10))
}

// explore runs n schedules on all processors.
func explore(ctx context.Context, prog string, n uint64) (sum summary, err error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var mu sync.Mutex
	var wg sync.WaitGroup
	next := uint64(1)
	for range runtime.NumCPU() {
		wg.Go(func() {
			for {
				mu.Lock()
				first := next
				next += blockSize
				mu.Unlock()
				if first > n {
					return
				}
				s, _, e := work(ctx, prog, seeds(first, min(blockSize, n-first+1))...)
				mu.Lock()
				if ctx.Err() == nil {
					err = errors.Join(err, e)
				}
				sum.add(s)
				if e != nil || s.Violation != "" {
					stop()
				}
				done := ctx.Err() != nil
				mu.Unlock()
				if done {
					return
				}
			}
		})
	}
	wg.Wait()
	return sum, err
}

// TestReplay runs schedules twice: the same seed must give the same steps.
func TestReplay(t *testing.T) {
	prog := program(t, false)
	first, _, err := work(t.Context(), prog, seeds(1, replays)...)
	if err != nil {
		t.Fatal(err)
	}
	again, _, err := work(t.Context(), prog, seeds(1, replays)...)
	if err != nil {
		t.Fatal(err)
	}
	if first.Digest != again.Digest || first.Steps != again.Steps {
		t.Errorf("the same seeds took %d steps with digest %x, and then %d with %x", first.Steps, first.Digest, again.Steps, again.Digest)
	}
}

// noticed searches for a schedule that notices a mutant, where a rare one was noticed
// last and then from the beginning.
func noticed(t *testing.T, prog string, m mutant) (s summary, err error) {
	broken := []string{"-mutant=" + m.name, "-tasks=" + m.tasks}
	if near := noticedNear(m.name); near > 0 {
		if s, _, err = work(t.Context(), prog, append(seeds(near, 1000), broken...)...); err != nil || s.Violation != "" {
			return s, err
		}
	}
	s, _, err = work(t.Context(), prog, append(seeds(1, scaled(t, mutantsMax)), broken...)...)
	return s, err
}

// TestMutants breaks the rules of the store one by one. The lab must notice
// each of them, and find it again by its seed.
func TestMutants(t *testing.T) {
	prog := program(t, true)
	clean, _, err := work(t.Context(), prog, seeds(1, 1000)...)
	if err != nil {
		t.Fatal(err)
	}
	if clean.Violation != "" {
		t.Fatalf("without a mutant: seed %d: %s", clean.Seed, clean.Violation)
	}
	for _, m := range mutants() {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			s, err := noticed(t, prog, m)
			if err != nil {
				t.Fatal(err)
			}
			if s.Violation == "" {
				t.Fatalf("%s: broken, and not noticed in %d schedules", m.rule, s.Schedules)
			}
			t.Logf("%s: found in schedule %d: %.300s", m.rule, s.Schedules, s.Violation)
			again, _, err := work(t.Context(), prog, append(seeds(s.Seed, 1), "-mutant="+m.name, "-tasks="+m.tasks)...)
			if err != nil || again.Violation != s.Violation {
				t.Errorf("seed %d gave %q, and then %q, %v", s.Seed, s.Violation, again.Violation, err)
			}
		})
	}
	t.Attr(faultlabKey+"schedule-mutants", strconv.Itoa(len(mutants())))
}
