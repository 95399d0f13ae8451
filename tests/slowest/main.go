// Command slowest reads what `go test -json` prints and makes it readable: the
// output of what failed as soon as its package is done, one line for each
// package, the slowest tests at the end, every test that did not run with its
// reason, and a closing line "N passed, N failed, N skipped". A test that
// passed but logged "NOT TESTED" counts as skipped.
//
// It exits with status 1 if a test failed, a package did not build, or no test
// ran at all, so that its exit status is the test run's. It imports the
// standard library only.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sort"
	"strings"
)

// slowestCount is how many tests the list at the end holds, and slowestFrom
// the seconds from which a test is worth a line.
const (
	slowestCount = 15
	slowestFrom  = 0.5
)

func main() {
	s := newSummary(os.Stdout)
	if err := s.read(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "slowest:", err)
		os.Exit(1)
	}
	if !s.finish() {
		os.Exit(1)
	}
}

// event is one line of `go test -json`; see `go doc test2json`.
type event struct {
	Action     string
	Package    string
	ImportPath string // of build output
	Test       string
	Elapsed    float64
	Output     string
}

// key names a test, or a package when test is empty.
type key struct{ pkg, test string }

// result is a test that ended.
type result struct {
	key
	seconds float64
}

type summary struct {
	out     io.Writer
	output  map[key][]string // kept until the test ends
	passed  []result
	failed  []result
	skipped []result
	reasons map[key]string // why a test was skipped
	broken  []string       // packages that failed without a failing test
	failing map[string]bool
}

func newSummary(out io.Writer) *summary {
	return &summary{out: out, output: map[key][]string{}, reasons: map[key]string{}, failing: map[string]bool{}}
}

// read takes all events. A line that is no event is passed through.
func (s *summary) read(r io.Reader) error {
	in := bufio.NewReaderSize(r, 1<<20)
	for {
		line, err := in.ReadString('\n')
		if line != "" {
			s.line(line)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read test output: %w", err)
		}
	}
}

func (s *summary) line(line string) {
	var e event
	if !strings.HasPrefix(line, "{") || json.Unmarshal([]byte(line), &e) != nil {
		fmt.Fprint(s.out, line)
		return
	}
	if e.Action == "build-output" {
		fmt.Fprint(s.out, e.Output)
		return
	}
	k := key{e.Package, e.Test}
	if e.Action == "output" {
		s.output[k] = append(s.output[k], e.Output)
		return
	}
	if e.Test == "" {
		s.packageEnds(e)
		return
	}
	s.testEnds(e, k)
}

// testEnds counts a test. Subtests are counted like tests.
func (s *summary) testEnds(e event, k key) {
	r := result{k, e.Elapsed}
	switch said := notTested(s.output[k]); {
	case e.Action == "pass" && said != "":
		s.skipped = append(s.skipped, r)
		s.reasons[k] = said
	case e.Action == "pass":
		s.passed = append(s.passed, r)
	case e.Action == "fail":
		s.failed = append(s.failed, r)
		s.failing[e.Package] = true
		fmt.Fprintf(s.out, "--- FAIL %s %s (%.2f s)\n", e.Package, e.Test, e.Elapsed)
		s.print(k)
	case e.Action == "skip":
		s.skipped = append(s.skipped, r)
		s.reasons[k] = reason(s.output[k])
	default:
		return
	}
	delete(s.output, k)
}

// print shows what a test or package said, without the lines that only frame it.
func (s *summary) print(k key) {
	for _, line := range s.output[k] {
		if t := strings.TrimSpace(line); strings.HasPrefix(t, "=== ") || strings.HasPrefix(t, "--- ") {
			continue
		}
		fmt.Fprint(s.out, line)
	}
}

// notTested is the line with which a test says that it could not do its work
// here, although it passed; "" if there is none.
func notTested(output []string) string {
	for _, line := range output {
		if strings.Contains(line, "NOT TESTED") {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

// reason is what a skipped test said last before the closing line.
func reason(output []string) string {
	said := "no reason given"
	for _, line := range output {
		t := strings.TrimSpace(line)
		if t != "" && !strings.HasPrefix(t, "=== ") && !strings.HasPrefix(t, "--- ") {
			said = t
		}
	}
	return said
}

func (s *summary) packageEnds(e event) {
	k := key{pkg: e.Package}
	switch e.Action {
	case "pass":
		fmt.Fprintf(s.out, "ok    %7.2f s  %s\n", e.Elapsed, e.Package)
	case "skip":
		fmt.Fprintf(s.out, "no tests          %s\n", e.Package)
	case "fail":
		if !s.failing[e.Package] {
			s.broken = append(s.broken, e.Package)
			s.unfinished(e.Package)
		}
		s.print(k)
		fmt.Fprintf(s.out, "FAIL  %7.2f s  %s\n", e.Elapsed, e.Package)
	default:
		return
	}
	delete(s.output, k)
}

// unfinished shows what tests said that were running when their package died:
// a panic or a time limit.
func (s *summary) unfinished(pkg string) {
	var open []string
	for k := range s.output {
		if k.pkg == pkg && k.test != "" {
			open = append(open, k.test)
		}
	}
	sort.Strings(open)
	for _, test := range open {
		fmt.Fprintf(s.out, "--- did not end: %s %s\n", pkg, test)
		s.print(key{pkg, test})
	}
}

// finish prints the lists and the closing line, and reports whether the run is
// good.
func (s *summary) finish() bool {
	s.printSlowest()
	for _, r := range s.skipped {
		fmt.Fprintf(s.out, "did not run: %s %s: %s\n", r.pkg, r.test, s.reasons[r.key])
	}
	for _, r := range s.failed {
		fmt.Fprintf(s.out, "failed: %s %s\n", r.pkg, r.test)
	}
	for _, pkg := range s.broken {
		fmt.Fprintf(s.out, "failed: %s as a whole\n", pkg)
	}
	total := len(s.passed) + len(s.failed)
	if total == 0 {
		fmt.Fprintln(s.out, "no test ran")
	}
	fmt.Fprintf(s.out, "%d passed, %d failed, %d skipped\n",
		len(s.passed), len(s.failed)+len(s.broken), len(s.skipped))
	return total > 0 && len(s.failed) == 0 && len(s.broken) == 0
}

func (s *summary) printSlowest() {
	all := append(append([]result{}, s.passed...), s.failed...)
	sort.SliceStable(all, func(i, j int) bool { return all[i].seconds > all[j].seconds })
	all = all[:min(len(all), slowestCount)]
	if len(all) == 0 || all[0].seconds < slowestFrom {
		return
	}
	fmt.Fprintln(s.out, "slowest tests:")
	for _, r := range all {
		if r.seconds >= slowestFrom {
			fmt.Fprintf(s.out, "  %7.2f s  %s %s\n", r.seconds, r.pkg, r.test)
		}
	}
}
