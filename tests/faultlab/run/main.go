// Command run does the long run of the fault lab and writes docs/faultlab.md: every
// package of fault tests with many more faults than `go test` has, what each of them
// counted, and what was found. It exits with status 1 if anything was.
//
//	run [-out FILE] [-times N] [-jobs N] [PACKAGE ...]
//
// PACKAGE is the last word of a package's path; without any all of them run, as many
// at once as there are processors. It
// must be started as root from the directory of the module, and imports the standard
// library only.
package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// family is a package of fault tests.
type family struct {
	name  string
	scale int    // how many times as many faults as in `go test`
	what  string // goes wrong
}

// families are begun in this order: what takes long comes first.
func families() []family {
	return []family{
		{"rot", 210, "flipped bits, lost and misdirected blocks, missing and exchanged files"},
		{"schedule", 20, "interleavings of backup, prune, collection, repair, crash and restart, by the real code on an imitated disk"},
		{"power", 14, "power cuts at random moments, ext4 and XFS"},
		{"kill", 17, "kill -9 of programs, servers and clients"},
		{"blocks", 7, "reordered, lost and torn writes below ext4 and XFS"},
		{"museum", 1, "bugs that others have had"},
		{"limits", 2, "stopped clients, two servers, full disks, little memory, few descriptors"},
		{"clock", 5, "the wall clock set by up to ten years, before and during every step"},
		{"ioerr", 2, "fsync that fails once and lies then, failing writes, reads and listings"},
	}
}

// counted is what the tests count, by the names that they use.
func counted() map[string]string {
	return map[string]string{
		"museum": "bugs", "limits": "runs with a limit", "races": "races of two servers", "stopped-clients": "stopped clients",
		"full-disks": "full disks", "clock-steps": "steps of the clock", "io-errors": "I/O errors",
		"power-ext4": "power cuts, ext4", "power-xfs": "power cuts, XFS", "power-mutants": "seeded mistakes found by power cuts",
		"crash-states-ext4": "crash states, ext4", "crash-states-xfs": "crash states, XFS",
		"block-mutants": "seeded mistakes found in crash states", "kills": "kills", "corruptions": "corruptions",
		"schedules": "schedules", "schedule-steps": "steps of them", "schedule-crashes": "power cuts in them",
		"schedule-mutants": "seeded mistakes found by schedules",
	}
}

// outcome is how a family went.
type outcome struct {
	family
	command string
	counts  map[string]int
	failed  []string // tests
	output  []string // of those
	ok      bool
	took    time.Duration
}

func main() {
	out := flag.String("out", "docs/faultlab.md", "write the report to `FILE`")
	times := flag.Int("times", 1, "multiply the number of faults by `N`")
	jobs := flag.Int("jobs", runtime.NumCPU(), "run `N` packages at once")
	flag.Parse()
	if err := run(*out, *times, max(*jobs, 1), flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "faultlab:", err)
		os.Exit(1)
	}
}

func run(out string, times, jobs int, only []string) error {
	begin := time.Now()
	list := slices.DeleteFunc(families(), func(f family) bool { return len(only) > 0 && !slices.Contains(only, f.name) })
	if len(list) == 0 {
		return fmt.Errorf("there is no package %s", strings.Join(only, ", "))
	}
	all, err := runAll(list, times, jobs)
	if err != nil {
		return err
	}
	if err := os.WriteFile(out, report(begin, all), 0o644); err != nil {
		return err
	}
	if slices.ContainsFunc(all, func(o outcome) bool { return !o.ok }) {
		return fmt.Errorf("something was found; see %s", out)
	}
	return nil
}

// runAll runs families, jobs of them at once.
func runAll(list []family, times, jobs int) ([]outcome, error) {
	all, errs := make([]outcome, len(list)), make([]error, len(list))
	slots := make(chan struct{}, jobs)
	var wg sync.WaitGroup
	for i, f := range list {
		slots <- struct{}{}
		f.scale *= times
		wg.Go(func() {
			defer func() { <-slots }()
			all[i], errs[i] = f.run()
		})
	}
	wg.Wait()
	return all, errors.Join(errs...)
}

// run runs the tests of one family.
func (f family) run() (outcome, error) {
	o := outcome{family: f, counts: map[string]int{}}
	args := []string{"test", "-json", "-count=1", "-timeout=12h", "./tests/faultlab/" + f.name}
	o.command = fmt.Sprintf("HOLDFAST_LAB_SCALE=%d go %s", f.scale, strings.Join(args, " "))
	fmt.Println(o.command)
	cmd := exec.Command("go", args...)
	cmd.Env = append(os.Environ(), "HOLDFAST_LAB_SCALE="+strconv.Itoa(f.scale))
	cmd.Stderr = os.Stderr
	lines, err := cmd.StdoutPipe()
	if err != nil {
		return o, err
	}
	begin := time.Now()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt) // which the tests get as well
	defer signal.Stop(stop)
	if err := cmd.Start(); err != nil {
		return o, err
	}
	if err := o.read(lines); err != nil {
		return o, err
	}
	o.ok = cmd.Wait() == nil && len(o.failed) == 0
	o.took = time.Since(begin)
	fmt.Printf("%s: %s in %s\n", f.name, verdict(o.ok), o.took.Round(time.Second))
	return o, nil
}

// event is a line of `go test -json`; see `go doc test2json`.
type event struct {
	Action, Test, Output, Key, Value string
}

// read follows the tests.
func (o *outcome) read(r io.Reader) error {
	said := map[string][]string{}
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		var e event
		if json.Unmarshal(line, &e) != nil {
			o.output = append(o.output, string(line))
			continue
		}
		switch e.Action {
		case "output":
			said[e.Test] = append(said[e.Test], e.Output)
		case "attr":
			if key, ok := strings.CutPrefix(e.Key, "faultlab."); ok {
				n, err := strconv.Atoi(e.Value)
				if err != nil {
					return fmt.Errorf("%s of %s: %w", e.Key, e.Test, err)
				}
				o.counts[key] += n
			}
		case "fail":
			if e.Test != "" {
				o.failed = append(o.failed, e.Test)
			}
			o.output = append(o.output, said[e.Test]...)
			fmt.Print(strings.Join(said[e.Test], ""))
		}
	}
}

func verdict(ok bool) string {
	if ok {
		return "nothing found"
	}
	return "VIOLATIONS"
}

// report is the page.
func report(begin time.Time, all []outcome) []byte {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format, args...) }
	p("# Fault lab\n\nWritten on %s by `make faultlab` (`go run ./tests/faultlab/run`) at %s; every number is from that run,\n"+
		"which took %s on %d cores (%s).\n\n", begin.UTC().Format(time.DateOnly), revision(),
		time.Since(begin).Round(time.Minute), runtime.NumCPU(), kernel())
	p("After every fault: what was acknowledged is listed and comes back byte for byte, what was not is complete or not\n" +
		"listed, nothing in use has been removed, and the repository goes on without anybody's help. The programs are the\n" +
		"real ones, built to seal packs at 128 KiB instead of 64 MiB so that small repositories have many of them.\n\n")
	p("| what goes wrong | faults | found | time |\n|---|---|---|---|\n")
	for _, o := range all {
		p("| %s | %s | %s | %s |\n", o.what, o.countText(), verdict(o.ok), o.took.Round(time.Second))
	}
	p("\nThe commands, each of which runs alone:\n\n")
	for _, o := range all {
		p("    %s\n", o.command)
	}
	for _, o := range all {
		if o.ok {
			continue
		}
		p("\n## Found by %s\n\n%s\n\n```\n%s```\n", o.name, strings.Join(o.failed, ", "), clip(strings.Join(o.output, "")))
	}
	return []byte(b.String())
}

// countText lists what the tests have counted.
func (o *outcome) countText() string {
	var list []string
	for key, n := range o.counts {
		list = append(list, fmt.Sprintf("%d %s", n, cmp.Or(counted()[key], key)))
	}
	slices.Sort(list)
	return strings.Join(list, "; ")
}

func clip(s string) string {
	const most = 20_000
	if len(s) > most {
		return s[:most] + "…\n"
	}
	return s
}

// revision names what was tested.
func revision() string {
	out, err := exec.Command("git", "describe", "--always", "--dirty").Output()
	if err != nil {
		return "an unknown revision"
	}
	return "revision " + strings.TrimSpace(string(out))
}

func kernel() string {
	b, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return runtime.GOOS
	}
	release, _, _ := strings.Cut(strings.TrimSpace(string(b)), "-") // the rest names who built it
	return "Linux " + release
}
