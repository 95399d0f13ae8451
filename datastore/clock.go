package datastore

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"holdfast/chunkstore/durable"
	"holdfast/crypto"
)

// clockName is the file that the clock of the trash is kept in.
const clockName = "clock"

// Limits of the clock's file, in bytes, and of what it may say, in
// milliseconds.
const (
	clockMax = 512
	markMax  = 1 << 53
)

// clockStep is how much a clock believes the wall clock at most about the time
// in which no process had the store open: a day and what a daily job may be
// late.
const clockStep = 25 * time.Hour

// clockPace is how far a clock may be ahead of its file.
const clockPace = time.Minute

// clock counts the time that deleted snapshots stay. Its mark only ever grows,
// and not faster than time passes: while a process has the store open by the
// monotonic clock of the kernel, otherwise by the wall clock, but at most by
// clockStep from one process to the next. So a wall clock that is set wrong, by
// however much, costs a day of that time once, and set back, nothing.
//
// A mark that could not be saved, or a file that is lost, makes the clock slow,
// never fast. Marks are in milliseconds and mean nothing outside their store.
type clock struct {
	path string
	wall func() int64         // milliseconds since 1970
	mono func() time.Duration // since any fixed moment of this process

	mu    sync.Mutex
	mark  int64
	since time.Duration // mono when mark was counted
	saved clockState
}

// clockState is the content of a clock's file.
type clockState struct{ mark, wall int64 }

// encode also makes a file of another state, or with a flipped bit, detectable.
func (c clockState) encode() []byte {
	text := fmt.Sprintf("holdfast clock 1\nmark %d\nwall %d\n", c.mark, c.wall)
	sum := crypto.Sum([]byte(text))
	return fmt.Appendf(nil, "%ssum %s\n", text, hex.EncodeToString(sum[:]))
}

// decodeClock reads what encode has written; ok is false for anything else.
func decodeClock(raw []byte) (c clockState, ok bool) {
	if len(raw) > clockMax {
		return clockState{}, false
	}
	if _, err := fmt.Sscanf(string(raw), "holdfast clock 1\nmark %d\nwall %d\n", &c.mark, &c.wall); err != nil {
		return clockState{}, false
	}
	if c.mark < 0 || c.mark > markMax || string(c.encode()) != string(raw) {
		return clockState{}, false
	}
	return c, true
}

// newClock makes a clock that reads the time from now, which is like time.Now.
func newClock(path string, now func() time.Time) *clock {
	if now == nil {
		now = time.Now
	}
	start := now()
	return &clock{
		path: path,
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
	now := c.wall()
	state, ok := decodeClock(raw)
	if !ok {
		state = clockState{wall: now}
		if state.mark, err = floor(); err != nil {
			return fmt.Errorf("set the clock: %w", err)
		}
	} else {
		c.saved = state
	}
	c.since = c.mono()
	c.mark = state.mark + passed(state.wall, now)
	return nil
}

// passed is how long nobody looked, in milliseconds.
func passed(from, to int64) int64 {
	if from < 0 || to <= from {
		return 0
	}
	return min(to-from, clockStep.Milliseconds())
}

func (c *clock) readFile() ([]byte, error) {
	f, err := os.Open(c.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() > clockMax {
		return nil, nil // damaged
	}
	return readCapped(f, clockMax)
}

// read returns the mark.
func (c *clock) read() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.advance()
}

func (c *clock) advance() int64 {
	now := c.mono()
	if step := (now - c.since).Milliseconds(); step > 0 {
		c.mark = min(c.mark+step, markMax)
		c.since += time.Duration(step) * time.Millisecond
	}
	return c.mark
}

// save writes the mark down if it, or the wall clock, has moved away from the
// file.
func (c *clock) save() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	state := clockState{mark: c.advance(), wall: c.wall()}
	ahead, drift := state.mark-c.saved.mark, (state.wall-c.saved.wall)-(state.mark-c.saved.mark)
	if pace := clockPace.Milliseconds(); c.saved.wall != 0 && ahead < pace && -pace < drift && drift < pace {
		return nil
	}
	if err := durable.WriteFile(c.path, state.encode(), 0o600); err != nil {
		return fmt.Errorf("save the clock: %w", noSpace(err))
	}
	c.saved = state
	return nil
}
