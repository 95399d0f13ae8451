// Package prune decides which snapshots of a group are kept, and removes the
// others.
//
// Deciding is pure: Select looks at times and marks and touches nothing.
// Group does what Select says, one snapshot after the other, and what is not kept
// says nothing about the others, so that a run that is interrupted has only removed
// what the next run would have removed too. With
// no option given everything is kept, and a protected or damaged snapshot is
// never asked to go.
package prune

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"holdfast/datastore/wire"
)

// Keep says how many snapshots to keep, one number for each kind of period. A
// number below 1 is an option that was not given.
type Keep struct {
	Last, Hourly, Daily, Weekly, Monthly, Yearly int
}

// Any reports whether an option was given at all.
func (k Keep) Any() bool {
	return k.Last > 0 || k.Hourly > 0 || k.Daily > 0 || k.Weekly > 0 || k.Monthly > 0 || k.Yearly > 0
}

// Candidate is a snapshot that Select decides about.
type Candidate struct {
	Time      int64 // in its name, in Unix seconds
	Arrived   int64 // by the clock of its store, or 0 if that is not known
	Protected bool
	Standing  Standing
	// Damaged says that its manifest cannot be read. It is kept, and no other
	// one has to go in its place: the copy that can be restored must not give
	// way to one that cannot. Whoever has looked at it forgets it by hand.
	Damaged bool
}

// Standing is what speaks for a snapshot, the least first. One never makes another
// go that has a higher standing.
type Standing int

// The standings.
const (
	Suspect    Standing = iota // it is empty, or a verification has failed
	Ahead                      // its name has a time that had not come when it arrived
	Unverified                 // nothing speaks against it
	Verified                   // and a verification has found it good
)

// verifiedLag is how much later than the last verified snapshot another one may have
// arrived, in seconds, before Verified counts as Unverified: a group that is not
// verified any more would keep what was verified once, for ever. It is longer than a
// quarter.
const verifiedLag = 100 * 24 * 60 * 60

// Decision is what is to happen to one snapshot.
type Decision struct {
	Time      int64 // in the name, in Unix seconds
	Keep      bool
	Protected bool
	// Reason says why, in words for people: the option that keeps the
	// snapshot, or what its place was taken by.
	Reason string
}

// Reasons to keep a snapshot, beside the names of the options.
const (
	reasonAll       = "no keep option given"
	reasonProtected = "protected"
	reasonDamaged   = "damaged; it counts for nothing"
	reasonOver      = "older than all that the keep options reach"
	// reasonStanding follows another one.
	reasonStanding = "; newer ones are less proven and do not take its place"
)

// Select decides about the finished snapshots of one group, by section 4.5 of
// the protocol specification. Each counts as of the time in its name, or of its
// arrival if that was before. The periods are those of the calendar in loc; nil is
// the local time of this machine. The result has one element for every candidate,
// sorted by the time in the name, the least first; it does not depend on the order of
// list, which is left as it is.
//
// Among snapshots of one standing it is what the specification says. Otherwise that
// is done once with all of them, and once more with those of every higher standing
// and above, and what is kept by any of these is kept: a snapshot takes no place from
// one of a higher standing, however many there are of it. now, in Unix seconds, is
// for that alone: what says that it arrived later came while the clock was ahead, and
// does not make the others older.
func Select(list []Candidate, k Keep, loc *time.Location, now int64) []Decision {
	if loc == nil {
		loc = time.Local
	}
	out := choose(list, k, loc)
	for _, least := range above(list, now) {
		better := slices.DeleteFunc(slices.Clone(list), func(c Candidate) bool { return c.Standing < least })
		for _, d := range choose(better, k, loc) {
			i, found := slices.BinarySearchFunc(out, d.Time, func(d Decision, at int64) int { return cmp.Compare(d.Time, at) })
			if found && d.Keep && !out[i].Keep {
				out[i].Keep, out[i].Reason = true, d.Reason+reasonStanding
			}
		}
	}
	return out
}

// above are the standings that are higher than the lowest one in the list.
func above(list []Candidate, now int64) []Standing {
	var have []Standing
	var last, verified int64 // arrivals
	for _, c := range list {
		have = append(have, c.Standing)
		at := min(cmp.Or(c.Arrived, c.Time), now)
		last = max(last, at)
		if c.Standing == Verified {
			verified = max(verified, at)
		}
	}
	slices.Sort(have)
	have = slices.Compact(have)
	if n := len(have) - 1; n > 0 && have[n] == Verified && last-verified > verifiedLag {
		have = have[:n]
	}
	return have[min(1, len(have)):]
}

// choose is Select for snapshots that all count alike.
func choose(list []Candidate, k Keep, loc *time.Location) []Decision {
	marks := newestFirst(list)
	for i := range marks {
		switch {
		case marks[i].Protected:
			marks[i].keep(reasonProtected)
		case marks[i].aside:
			marks[i].keep(reasonDamaged)
		case !k.Any():
			marks[i].keep(reasonAll)
		}
	}
	for _, p := range passes(k, loc) {
		p.run(marks)
	}
	out := make([]Decision, 0, len(marks))
	for _, m := range slices.Backward(marks) {
		if m.Reason == "" {
			m.Reason = reasonOver
		}
		out = append(out, m.Decision)
	}
	slices.SortStableFunc(out, func(a, b Decision) int { return cmp.Compare(a.Time, b.Time) })
	return out
}

// mark is a decision in the making.
type mark struct {
	Decision
	dated wire.Dated
	aside bool // protected or damaged: it takes no place
	final bool // no later pass may change it
}

func (m *mark) keep(reason string) {
	m.Keep, m.Reason, m.final = true, reason, true
}

// newestFirst makes an undecided mark for every candidate.
func newestFirst(list []Candidate) []mark {
	marks := make([]mark, len(list))
	for i, c := range list {
		marks[i].Decision = Decision{Time: c.Time, Protected: c.Protected}
		marks[i].dated = wire.Dated{Claimed: c.Time, Arrived: c.Arrived}
		marks[i].aside = c.Protected || c.Damaged
	}
	slices.SortFunc(marks, func(a, b mark) int {
		if c := b.dated.Compare(a.dated); c != 0 || a.Protected == b.Protected {
			return c
		}
		if a.Protected {
			return -1
		}
		return 1
	})
	return marks
}

// period names a stretch of the calendar. Its numbers have a meaning only
// beside other periods of the same pass.
type period [4]int

// pass is one option at work.
type pass struct {
	name   string
	slots  int
	period func(index int, unix int64) period // index is that of the mark
}

// passes are the options in the order in which they choose. Those not given
// have no slots.
func passes(k Keep, loc *time.Location) []pass {
	calendar := func(of func(t time.Time) period) func(int, int64) period {
		return func(_ int, unix int64) period { return of(time.Unix(unix, 0).In(loc)) }
	}
	return []pass{
		{"keep-last", k.Last, func(i int, _ int64) period { return period{i} }},
		{"keep-hourly", k.Hourly, calendar(func(t time.Time) period {
			return period{t.Year(), int(t.Month()), t.Day(), t.Hour()}
		})},
		{"keep-daily", k.Daily, calendar(func(t time.Time) period {
			return period{t.Year(), int(t.Month()), t.Day()}
		})},
		{"keep-weekly", k.Weekly, calendar(func(t time.Time) period {
			year, week := t.ISOWeek()
			return period{year, week}
		})},
		{"keep-monthly", k.Monthly, calendar(func(t time.Time) period {
			return period{t.Year(), int(t.Month())}
		})},
		{"keep-yearly", k.Yearly, calendar(func(t time.Time) period {
			return period{t.Year()}
		})},
	}
}

// run lets one option choose among the marks, newest first.
func (p pass) run(marks []mark) {
	if p.slots < 1 {
		return
	}
	covered := p.covered(marks)
	selected := map[period]int64{} // times in names
	for i := range marks {
		m := &marks[i]
		if m.final {
			continue
		}
		key := p.period(i, m.dated.Effective())
		if by, ok := covered[key]; ok {
			m.Reason = p.superseded(by)
			continue
		}
		if by, ok := selected[key]; ok {
			m.Reason, m.final = p.superseded(by), true
			continue
		}
		if len(selected) >= p.slots {
			return
		}
		selected[key] = m.Time
		m.keep(p.name)
	}
}

// covered maps the periods that earlier options have kept a snapshot of to
// that snapshot. One that is aside covers nothing: it is there for its own sake.
func (p pass) covered(marks []mark) map[period]int64 {
	out := map[period]int64{}
	for i, m := range marks {
		if !m.Keep || m.aside {
			continue
		}
		key := p.period(i, m.dated.Effective())
		if _, ok := out[key]; !ok {
			out[key] = m.Time
		}
	}
	return out
}

func (p pass) superseded(by int64) string {
	return fmt.Sprintf("superseded by %s (%s)", time.Unix(by, 0).UTC().Format(time.RFC3339), p.name)
}
