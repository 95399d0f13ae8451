package prune

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
	_ "time/tzdata" // the tables below are about the clock changes of one place
)

func berlin(t testing.TB) *time.Location {
	t.Helper()
	loc, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	return loc
}

// candidates reads times such as "2024-05-06T12:34:56Z", one a line; a "P"
// behind one makes it protected.
func candidates(t testing.TB, lines string) []Candidate {
	t.Helper()
	var list []Candidate
	for line := range strings.Lines(lines) {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		at, err := time.Parse(time.RFC3339, fields[0])
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, Candidate{Time: at.Unix(), Protected: len(fields) > 1 && fields[1] == "P"})
	}
	return list
}

// Each line is a snapshot and, if it is kept, why: the word after "keep-" or
// "P" for protected. Nothing behind the time means that it goes.
var selections = []struct {
	name string
	keep Keep
	want string
}{
	{"last", Keep{Last: 2}, `
		2024-05-04T02:00:00Z
		2024-05-05T02:00:00Z last
		2024-05-06T02:00:00Z last`},
	{"last of fewer", Keep{Last: 5}, `
		2024-05-05T02:00:00Z last
		2024-05-06T02:00:00Z last`},
	{"several in an hour", Keep{Hourly: 2}, `
		2024-05-06T09:59:59Z
		2024-05-06T10:00:00Z
		2024-05-06T10:20:00Z
		2024-05-06T10:59:59Z hourly
		2024-05-06T11:00:00Z
		2024-05-06T11:30:00Z hourly`},
	{"last fills the hour", Keep{Last: 1, Hourly: 1}, `
		2024-05-06T09:10:00Z
		2024-05-06T09:50:00Z hourly
		2024-05-06T10:00:00Z
		2024-05-06T10:30:00Z last`},
	{"the day begins at local midnight", Keep{Daily: 2}, `
		2024-05-04T22:00:00Z
		2024-05-05T21:59:59Z daily
		2024-05-05T22:00:00Z
		2024-05-06T21:59:59Z daily`},
	{"days without a snapshot take no slot", Keep{Daily: 3}, `
		2024-01-01T12:00:00Z
		2024-02-01T12:00:00Z daily
		2024-03-01T12:00:00Z daily
		2024-05-06T12:00:00Z daily`},
	{"protected ones take no slot", Keep{Last: 2}, `
		2024-05-03T02:00:00Z
		2024-05-04T02:00:00Z last
		2024-05-05T02:00:00Z P
		2024-05-06T02:00:00Z last
		2024-05-07T02:00:00Z P`},
	{"protected ones cover no day", Keep{Daily: 1}, `
		2024-05-06T01:00:00Z P
		2024-05-06T02:00:00Z
		2024-05-06T03:00:00Z daily
		2024-05-06T04:00:00Z P`},
	{"only protected ones", Keep{Yearly: 1}, `
		2024-05-05T02:00:00Z P
		2024-05-06T02:00:00Z P`},
	// On 31 March 2024 at 01:00Z local time went from 02:00 to 03:00: the day
	// has 23 hours, from 23:00Z to 22:00Z.
	{"the short day", Keep{Daily: 3}, `
		2024-03-30T22:59:59Z daily
		2024-03-30T23:00:00Z
		2024-03-31T21:59:59Z daily
		2024-03-31T22:00:00Z daily`},
	{"the hour that is left out", Keep{Hourly: 4}, `
		2024-03-30T23:30:00Z
		2024-03-31T00:30:00Z hourly
		2024-03-31T01:00:00Z
		2024-03-31T01:30:00Z hourly
		2024-03-31T02:30:00Z hourly
		2024-03-31T03:30:00Z hourly`},
	// On 27 October 2024 at 01:00Z local time went from 03:00 back to 02:00:
	// 00:30Z and 01:30Z are both 02:30 and share the name of their hour.
	{"the hour that comes twice", Keep{Hourly: 3}, `
		2024-10-26T22:30:00Z
		2024-10-26T23:30:00Z hourly
		2024-10-27T00:30:00Z
		2024-10-27T01:30:00Z hourly
		2024-10-27T02:30:00Z hourly`},
	{"the long day", Keep{Daily: 2}, `
		2024-10-26T21:59:59Z daily
		2024-10-26T22:00:00Z
		2024-10-27T22:59:59Z daily`},
	// 30 December 2024 is the Monday of week 1 of 2025, in which 2025 begins.
	{"a week across New Year", Keep{Weekly: 2}, `
		2024-12-22T12:00:00Z
		2024-12-23T12:00:00Z
		2024-12-29T12:00:00Z weekly
		2024-12-30T12:00:00Z
		2024-12-31T12:00:00Z
		2025-01-01T12:00:00Z
		2025-01-05T12:00:00Z weekly`},
	// 1 January 2027 is a Friday of week 53 of 2026; 2020 had a week 53 too.
	{"week 53", Keep{Weekly: 3}, `
		2020-12-31T12:00:00Z weekly
		2026-12-27T12:00:00Z weekly
		2026-12-28T12:00:00Z
		2027-01-01T12:00:00Z
		2027-01-03T12:00:00Z weekly`},
	{"the same week of two years", Keep{Weekly: 2}, `
		2023-05-08T12:00:00Z weekly
		2024-05-06T12:00:00Z weekly`},
	{"months and years", Keep{Monthly: 2, Yearly: 2}, `
		2021-07-01T00:00:00Z
		2022-12-31T22:59:59Z yearly
		2022-12-31T23:00:00Z
		2023-06-30T12:00:00Z yearly
		2024-03-31T21:59:59Z
		2024-04-01T12:00:00Z
		2024-04-30T12:00:00Z monthly
		2024-05-01T12:00:00Z
		2024-05-06T12:00:00Z monthly`},
	{"all together", Keep{Last: 1, Hourly: 1, Daily: 1, Weekly: 1, Monthly: 1, Yearly: 1}, `
		2022-08-01T10:00:00Z
		2023-08-01T10:00:00Z yearly
		2024-03-01T10:00:00Z
		2024-04-01T10:00:00Z monthly
		2024-05-05T10:00:00Z
		2024-05-06T10:00:00Z
		2024-05-12T10:00:00Z weekly
		2024-05-13T10:00:00Z
		2024-05-14T10:00:00Z daily
		2024-05-15T09:00:00Z hourly
		2024-05-15T10:00:00Z
		2024-05-15T10:01:00Z last`},
	// What a pass has removed stays removed: the end of April goes with the
	// week that May takes over, and another day stands for that month.
	{"a week takes the end of a month", Keep{Weekly: 1, Monthly: 1}, `
		2024-04-28T12:00:00Z monthly
		2024-04-30T12:00:00Z
		2024-05-01T12:00:00Z weekly`},
	{"negative numbers are none", Keep{Last: -1, Hourly: -1, Daily: -1, Weekly: -1, Monthly: -1, Yearly: 1}, `
		2023-05-06T12:00:00Z
		2024-05-06T12:00:00Z yearly`},
}

func TestSelect(t *testing.T) {
	loc := berlin(t)
	for _, tc := range selections {
		list := candidates(t, tc.want)
		got := Select(list, tc.keep, loc, math.MaxInt64)
		var lines, want []string
		for _, d := range got {
			line := time.Unix(d.Time, 0).UTC().Format(time.RFC3339)
			switch {
			case d.Protected && d.Reason == "protected":
				line += " P"
			case d.Keep:
				line += " " + strings.TrimPrefix(d.Reason, "keep-")
			}
			if d.Protected && !d.Keep || d.Reason == "" {
				t.Errorf("%s: %+v", tc.name, d)
			}
			lines = append(lines, line)
		}
		for line := range strings.Lines(tc.want) {
			if line = strings.TrimSpace(line); line != "" {
				want = append(want, line)
			}
		}
		if !slices.Equal(lines, want) {
			t.Errorf("%s: got\n%s\nwant\n%s", tc.name, strings.Join(lines, "\n"), strings.Join(want, "\n"))
		}
	}
}

func TestNoOptionKeepsEverything(t *testing.T) {
	list := candidates(t, "2024-05-06T02:00:00Z\n2024-05-05T02:00:00Z P\n2024-05-05T02:00:01Z")
	for _, k := range []Keep{{}, {Last: -1, Daily: -5}} {
		got := Select(list, k, time.UTC, math.MaxInt64)
		if len(got) != 3 || !slices.IsSortedFunc(got, func(a, b Decision) int { return int(a.Time - b.Time) }) {
			t.Fatalf("%+v", got)
		}
		for _, d := range got {
			if !d.Keep || d.Protected != (d.Reason == "protected") {
				t.Errorf("%+v", d)
			}
		}
	}
	if got := Select(nil, Keep{Last: 1}, nil, math.MaxInt64); len(got) != 0 {
		t.Errorf("of nothing: %+v", got)
	}
}

func TestReasons(t *testing.T) {
	list := candidates(t, `
		2024-05-04T02:00:00Z
		2024-05-06T02:00:00Z
		2024-05-06T02:30:00Z
		2024-05-06T03:00:00Z`)
	for _, tc := range []struct {
		keep Keep
		want []string
	}{
		{Keep{Last: 1}, []string{reasonOver, reasonOver, reasonOver, "keep-last"}},
		{Keep{Daily: 1}, []string{
			reasonOver, "superseded by 2024-05-06T03:00:00Z (keep-daily)", "superseded by 2024-05-06T03:00:00Z (keep-daily)", "keep-daily",
		}},
		{Keep{Hourly: 2, Daily: 1}, []string{"keep-daily", "superseded by 2024-05-06T02:30:00Z (keep-hourly)", "keep-hourly", "keep-hourly"}},
		{Keep{Last: 1, Daily: 1}, []string{
			"keep-daily", "superseded by 2024-05-06T03:00:00Z (keep-daily)", "superseded by 2024-05-06T03:00:00Z (keep-daily)", "keep-last",
		}},
	} {
		var got []string
		for _, d := range Select(list, tc.keep, time.UTC, math.MaxInt64) {
			got = append(got, d.Reason)
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%+v: got %q, want %q", tc.keep, got, tc.want)
		}
	}
}

// some makes a list of snapshots that are close together, with a few
// protected ones.
func some(rnd *rand.Rand) []Candidate {
	spans := []int64{2 * 3600, 3 * 86400, 40 * 86400, 900 * 86400}
	span := spans[rnd.IntN(len(spans))]
	list := make([]Candidate, 1+rnd.IntN(60))
	for i := range list {
		list[i] = Candidate{Time: 1_700_000_000 + rnd.Int64N(span), Protected: rnd.IntN(10) == 0}
	}
	return list
}

func someKeep(rnd *rand.Rand) Keep {
	n := func() int { return max(0, rnd.IntN(9)-4) }
	return Keep{n(), n(), n(), n(), n(), n()}
}

// more raises a random option.
func more(rnd *rand.Rand, k Keep) Keep {
	options := []*int{&k.Last, &k.Hourly, &k.Daily, &k.Weekly, &k.Monthly, &k.Yearly}
	*options[rnd.IntN(len(options))] += 1 + rnd.IntN(3)
	return k
}

// nested reports whether every period of k that is used lies within one of
// the next longer kind. Weeks do not lie within months and years.
func nested(k Keep) bool { return k.Weekly == 0 || k.Monthly == 0 && k.Yearly == 0 }

// TestProperties checks what holds of every selection: it does not depend on
// the order of the list, the newest snapshot stays, and asking to keep more
// never removes what was kept before. The last one does not hold between weeks
// and months: there a longer list of weeks can take the last day of a month
// away, and the table above has the example.
func TestProperties(t *testing.T) {
	rnd := rand.New(rand.NewPCG(4, 5))
	loc := berlin(t)
	compared := 0
	for range 4000 {
		list, k := some(rnd), someKeep(rnd)
		got := Select(list, k, loc, math.MaxInt64)
		if len(got) != len(list) {
			t.Fatalf("%d decisions about %d snapshots", len(got), len(list))
		}
		shuffled := slices.Clone(list)
		rnd.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		if again := Select(shuffled, k, loc, math.MaxInt64); !slices.Equal(got, again) {
			t.Fatalf("%+v of %+v depends on the order:\n%+v\n%+v", k, list, got, again)
		}
		if !got[len(got)-1].Keep {
			t.Fatalf("%+v removes the newest of %+v", k, list)
		}
		raised := more(rnd, k)
		if !k.Any() || !nested(raised) {
			continue
		}
		compared++
		for i, d := range Select(list, raised, loc, math.MaxInt64) {
			if got[i].Keep && !d.Keep {
				t.Fatalf("%+v keeps %d, %+v does not: %s", k, d.Time, raised, d.Reason)
			}
		}
	}
	if compared < 500 {
		t.Errorf("only %d selections were compared", compared)
	}
}
