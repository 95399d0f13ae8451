//go:build faultlab

package world

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime/debug"
	"runtime/pprof"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/tests/faultlab/schedule/sim"
)

var (
	first  = flag.Uint64("first", 1, "the first seed")
	count  = flag.Uint64("count", 1000, "how many")
	mutant = flag.String("mutant", "", "the rule to break")
	tasks  = flag.String("tasks", "", "the tasks that schedules are made of, separated by commas")
	trace  = flag.Bool("trace", false, "print what happens")
	prof   = flag.String("prof", "", "file for a profile")
)

// Summary is what a program of schedules prints, as one line.
type Summary struct {
	Schedules, Steps, Crashes, Lives uint64
	Seconds                          float64
	Digest                           uint64
	Seed                             uint64 // of the violation
	Violation                        string
}

// TestWorker runs schedules until one goes wrong. It ends the process itself:
// tasks that nobody can wake any more may be left.
func TestWorker(t *testing.T) {
	debug.SetGCPercent(400) // it needs little memory, and this halves its time
	if *prof != "" {        // outside of the bubble, which has to come to rest
		f, err := os.Create(*prof)
		if err != nil {
			t.Fatal(err)
		}
		if err := pprof.StartCPUProfile(f); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(*testing.T) {
		s, err := work()
		pprof.StopCPUProfile()
		if err == nil {
			err = json.NewEncoder(os.Stdout).Encode(s)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			syscall.Exit(2)
		}
		syscall.Exit(0)
	})
}

func work() (s Summary, err error) {
	lab, err := NewLab()
	if err != nil {
		return s, err
	}
	sim.The().SetMutant(*mutant)
	if *tasks != "" {
		lab.Only = strings.Split(*tasks, ",")
	}
	clock := stopwatch()
	for seed := *first; seed < *first+*count; seed++ {
		var trail *os.File
		if *trace {
			trail = os.Stdout
		}
		var res Result
		if trail != nil {
			res = lab.Run(seed, trail)
		} else {
			res = lab.Run(seed, nil)
		}
		s.Schedules++
		s.Steps += uint64(res.Steps)
		s.Crashes += uint64(res.Crashes)
		s.Lives += uint64(res.Lives)
		s.Digest = s.Digest*31 + res.Digest
		if res.Err != nil {
			s.Seed, s.Violation = seed, res.Err.Error()
			break
		}
	}
	s.Seconds = clock()
	return s, nil
}

// stopwatch measures the time of the processor: that of the machine stands
// still, and others may use the processor too.
func stopwatch() func() float64 {
	now := func() time.Duration {
		var u syscall.Rusage
		syscall.Getrusage(syscall.RUSAGE_SELF, &u)
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	start := now()
	return func() float64 { return (now() - start).Seconds() }
}
