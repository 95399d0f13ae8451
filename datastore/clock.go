package datastore

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"holdfast/chunkstore"
	"holdfast/chunkstore/durable"
	"holdfast/crypto"
	"holdfast/datastore/boot"
)

// clockName is the file that the clock of the trash is kept in.
const clockName = "clock"

// Limits of the clock's file, in bytes, and of what it may say, in
// milliseconds.
const (
	clockMax = 512
	markMax  = 1 << 53
)

// clockStep is how much a clock believes the wall clock at most about a time of
// which nothing else is known: a day and what a daily job may be late.
const clockStep = 25 * time.Hour

// clockPace is how far a clock may be ahead of its file.
const clockPace = time.Minute

// clock counts the time that deleted snapshots stay. Its mark only ever grows,
// and not faster than time passes:
//
//   - within one start of the machine, which the kernel names, it goes by the
//     kernel's clock of that start, from one process to the next as well. Nobody
//     can set that one;
//   - of the time before the start, or if the kernel does not tell, it believes
//     the wall clock, but only what lies above the highest time that it has
//     counted before (the high water), and of that at most clockStep.
//
// So a wall clock that is set wrong, by however much, costs a day of that time,
// once: set back and forward again, it is not above the high water any more. Nor
// does it cost anything while the machine runs. Afterwards the time in which the
// machine is off is not counted until the wall clock is above the high water
// again, and snapshots stay that much longer.
//
// A mark that could not be saved, or a file that is lost, makes the clock slow,
// never fast. Marks are in milliseconds and mean nothing outside their store.
type clock struct {
	path   string
	wall   func() int64         // milliseconds since 1970
	mono   func() time.Duration // since any fixed moment of this process
	uptime func() (string, time.Duration)

	mu    sync.Mutex
	now   clockState    // as of since
	since time.Duration // mono when that was counted
	saved clockState
}

// clockState is the content of a clock's file. Numbers are in milliseconds.
type clockState struct {
	mark int64
	wall int64  // the high water
	seen int64  // what the wall clock said last
	boot string // the start of the machine that it was written in, or ""
	up   int64  // since that start
}

// noBoot stands for a start that is not known.
const noBoot = "-"

// encode also makes a file of another state, or with a flipped bit, detectable.
func (c clockState) encode() []byte {
	text := fmt.Sprintf("holdfast clock 2\nmark %d\nwall %d\nseen %d\nboot %s\nup %d\n", c.mark, c.wall, c.seen, cmp.Or(c.boot, noBoot), c.up)
	sum := crypto.Sum([]byte(text))
	return fmt.Appendf(nil, "%ssum %s\n", text, hex.EncodeToString(sum[:]))
}

// decodeClock reads what encode has written; ok is false for anything else.
func decodeClock(raw []byte) (c clockState, ok bool) {
	if len(raw) > clockMax {
		return clockState{}, false
	}
	_, err := fmt.Sscanf(string(raw), "holdfast clock 2\nmark %d\nwall %d\nseen %d\nboot %s\nup %d\n", &c.mark, &c.wall, &c.seen, &c.boot, &c.up)
	if err != nil {
		return clockState{}, false
	}
	if c.boot == noBoot {
		c.boot = ""
	}
	if c.boot != "" && !boot.Valid(c.boot) || c.mark < 0 || c.mark > markMax || c.up < 0 || string(c.encode()) != string(raw) {
		return clockState{}, false
	}
	return c, true
}

// newClock makes a clock that reads the time from now, which is like time.Now,
// and from uptime, which is like boot.Uptime. Either may be nil; a clock that is
// given only the time knows nothing of starts of the machine.
func newClock(path string, now func() time.Time, uptime func() (string, time.Duration)) *clock {
	if uptime == nil && now != nil {
		uptime = func() (string, time.Duration) { return "", 0 }
	}
	if uptime == nil {
		uptime = boot.Uptime
	}
	if now == nil {
		now = time.Now
	}
	start := now()
	return &clock{
		path: path, uptime: uptime,
		wall: func() int64 { return now().UnixMilli() },
		mono: func() time.Duration { return now().Sub(start) },
	}
}

// start reads the file. Without one, or if it is damaged, the clock begins at
// what floor returns, a mark that it is known to have reached.
func (c *clock) start(floor func() (int64, error)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	raw, err := c.readFile()
	if err != nil {
		return fmt.Errorf("read the clock: %w", err)
	}
	wall := c.wall()
	state, ok := decodeClock(raw)
	if !ok {
		state = clockState{wall: wall, seen: wall}
		if state.mark, err = floor(); err != nil {
			return fmt.Errorf("set the clock: %w", err)
		}
	} else {
		c.saved = state
	}
	id, up := c.uptime()
	c.since = c.mono()
	if id != "" {
		c.since = up
	}
	c.now = state.after(wall, id, up.Milliseconds())
	return nil
}

// after is the state when a process finds these times.
func (c clockState) after(wall int64, id string, up int64) clockState {
	if id != "" && id == c.boot {
		return c.plus(max(up-c.up, 0))
	}
	from := c.wall
	if wall >= c.seen {
		from = max(c.wall, c.seen) // it was set forward while that was noticed
	}
	next := c.plus(passed(from, wall))
	next.wall = max(c.wall, wall) // and never again
	next.boot, next.up = id, up
	return next
}

// plus is the state after some time of which all is known.
func (c clockState) plus(ms int64) clockState {
	c.mark, c.wall = min(c.mark+ms, markMax), c.wall+ms
	if c.boot != "" {
		c.up += ms
	}
	return c
}

// passed is how long nobody looked, as far as the wall clock is believed.
func passed(from, to int64) int64 {
	if from < 0 || to <= from {
		return 0
	}
	return min(to-from, clockStep.Milliseconds())
}

// readFile returns nothing if there is no file or it is damaged.
func (c *clock) readFile() ([]byte, error) {
	raw, err := durable.ReadFile(c.path, clockMax)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, chunkstore.ErrCorrupt) {
		return nil, nil
	}
	return raw, err
}

// read returns the mark.
func (c *clock) read() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.advance()
}

// times returns what the wall clock says and the highest time counted, which is
// what it would say if it had never been set since the machine was started. Both
// are in Unix seconds.
func (c *clock) times() (wall, counted int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.advance()
	return unixSeconds(c.wall()), unixSeconds(c.now.wall)
}

func unixSeconds(ms int64) int64 { return time.UnixMilli(ms).Unix() }

func (c *clock) advance() int64 {
	now := c.mono()
	if c.now.boot != "" {
		_, now = c.uptime()
	}
	if step := (now - c.since).Milliseconds(); step > 0 {
		c.now = c.now.plus(step)
		c.since += time.Duration(step) * time.Millisecond
	}
	return c.now.mark
}

// save writes the clock down if it, or the wall clock, has moved away from the
// file.
func (c *clock) save() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	ahead := c.advance() - c.saved.mark
	drift := (c.wall() - c.saved.seen) - ahead
	if pace := clockPace.Milliseconds(); c.saved.seen != 0 && c.saved.boot == c.now.boot && ahead < pace && -pace < drift && drift < pace {
		return nil
	}
	c.now.seen = c.wall()
	if err := durable.WriteFile(c.path, c.now.encode(), 0o600); err != nil {
		return fmt.Errorf("save the clock: %w", noSpace(err))
	}
	c.saved = c.now
	return nil
}
