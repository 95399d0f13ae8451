package term

import (
	"context"
	"fmt"
	"strings"
	"time"

	xterm "golang.org/x/term"
)

// Status is the state of running work: what a progress line shows, and
// a line of JSON with message_type "status".
type Status struct {
	MessageType string  `json:"message_type"`
	Operation   string  `json:"operation"`
	PercentDone float64 `json:"percent_done"` // 0..1, 0 while the total is unknown
	BytesDone   int64   `json:"bytes_done"`
	BytesTotal  int64   `json:"bytes_total"` // -1 while unknown
	// Packs counts instead of bytes where work goes by packs.
	Packs *Count `json:"packs,omitempty"`
	// Archives counts where indexes are read.
	Archives *Count `json:"archives,omitempty"`
	// Groups counts where work goes by groups.
	Groups           *Count  `json:"groups,omitempty"`
	BytesRead        *int64  `json:"bytes_read,omitempty"`
	BytesNew         *int64  `json:"bytes_new,omitempty"`
	BytesStored      *int64  `json:"bytes_stored,omitempty"`
	BytesWritten     *int64  `json:"bytes_written,omitempty"`
	SecondsElapsed   float64 `json:"seconds_elapsed"`
	SecondsRemaining float64 `json:"seconds_remaining,omitempty"`
}

// Count says how many of some things are dealt with.
type Count struct {
	Done  int64 `json:"done"`
	Total int64 `json:"total"`
}

// Rhythm of progress.
const (
	// drawEvery keeps a terminal below ten redraws a second.
	drawEvery = 110 * time.Millisecond
	// jsonEvery is the distance of status lines for a program that listens.
	jsonEvery = time.Second
	// rateWindow is the time over which the rate is averaged.
	rateWindow = 15 * time.Second
)

// logDelay is how long a log waits before its line number n (from 0): soon at
// first, so that one sees that work goes on, then ever more rarely.
func logDelay(n int) time.Duration {
	switch n {
	case 0:
		return 10 * time.Second
	case 1:
		return 20 * time.Second
	case 2:
		return 30 * time.Second
	case 3:
		return time.Minute
	case 4:
		return 3 * time.Minute
	}
	return 5 * time.Minute
}

// Watch shows progress until the returned function is called. read fills in
// the counters; it is called from one goroutine.
func (o *Output) Watch(ctx context.Context, read func(*Status)) (stop func()) {
	w := watcher{ui: o, read: read, begin: o.now()}
	w.onTerminal = IsTerminal(o.err) && !o.JSON
	w.rate.add(w.begin, 0)
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.loop(ctx)
	}()
	return func() {
		cancel()
		<-ended
		o.ClearLine()
	}
}

type watcher struct {
	ui         *Output
	read       func(*Status)
	begin      time.Time
	onTerminal bool
	shown      int // lines or records so far
	rate       rateMeter
}

// loop shows the state at each tick and each SIGUSR1.
func (w *watcher) loop(ctx context.Context) {
	t := time.NewTicker(w.delay())
	defer t.Stop()
	if !w.ui.Progress {
		t.Stop()
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.ui.poke:
			w.answer(w.sample())
		case <-t.C:
			w.show(w.sample())
			w.shown++
			t.Reset(w.delay())
		}
	}
}

// delay is the time until the next showing.
func (w *watcher) delay() time.Duration {
	switch {
	case w.ui.JSON:
		return jsonEvery
	case w.onTerminal:
		return drawEvery
	}
	return logDelay(w.shown)
}

func (w *watcher) sample() Status {
	s := Status{MessageType: "status", BytesTotal: -1}
	w.read(&s)
	now := w.ui.now()
	s.SecondsElapsed = Seconds(now.Sub(w.begin))
	w.rate.add(now, s.BytesDone)
	s.estimate(w.rate.perSecond())
	return s
}

func (w *watcher) show(s Status) {
	switch {
	case w.ui.JSON:
		w.ui.Result(s, nil)
	case w.onTerminal:
		w.ui.draw(fit(s.line(w.rate.perSecond()), terminalWidth(w.ui.err)))
	default:
		w.ui.Notef("%s", s.line(w.rate.perSecond()))
	}
}

// answer shows the state to somebody who asked for it.
func (w *watcher) answer(s Status) {
	if w.ui.JSON {
		w.ui.Result(s, nil)
		return
	}
	w.ui.message("", "", s.line(w.rate.perSecond()))
}

// estimate fills in the fields that follow from the counters and the rate in
// bytes per second.
func (s *Status) estimate(rate float64) {
	for _, p := range []*Count{s.Packs, s.Archives, s.Groups} {
		if p != nil && p.Total > 0 {
			s.PercentDone = min(1, float64(p.Done)/float64(p.Total))
		}
	}
	if s.BytesTotal <= 0 {
		return
	}
	s.PercentDone = min(1, float64(s.BytesDone)/float64(s.BytesTotal))
	if left := s.BytesTotal - s.BytesDone; left > 0 && rate > 0 {
		s.SecondsRemaining = Seconds(time.Duration(float64(left) / rate * float64(time.Second)))
	}
}

// line is the state in words.
func (s Status) line(rate float64) string {
	parts := []string{fmt.Sprintf("%s: %s", s.Operation, Bytes(s.BytesDone))}
	if s.BytesTotal > 0 {
		parts[0] = fmt.Sprintf("%s: %.1f %%  %s of %s", s.Operation, 100*s.PercentDone, Bytes(s.BytesDone), Bytes(s.BytesTotal))
	}
	for _, of := range []struct {
		count *Count
		form  string
	}{
		{s.Packs, "%s: %.1f %%  %d of %d packs"}, {s.Archives, "%s: %.1f %%  read %d of %d archives"}, {s.Groups, "%s: %.1f %%  %d of %d groups"},
	} {
		if p := of.count; p != nil {
			parts[0] = fmt.Sprintf(of.form, s.Operation, 100*s.PercentDone, p.Done, p.Total)
		}
	}
	if s.BytesNew != nil {
		parts = append(parts, Bytes(*s.BytesNew)+" new")
	}
	if s.BytesWritten != nil {
		parts = append(parts, Bytes(*s.BytesWritten)+" written")
	}
	if rate > 0 {
		parts = append(parts, Bytes(int64(rate))+"/s")
	}
	parts = append(parts, Duration(FromSeconds(s.SecondsElapsed)))
	if s.SecondsRemaining > 0 {
		parts = append(parts, Duration(FromSeconds(s.SecondsRemaining))+" left")
	}
	return strings.Join(parts, "  ")
}

// rateMeter averages over the last rateWindow.
type rateMeter struct {
	points []ratePoint
}

type ratePoint struct {
	at   time.Time
	done int64
}

func (r *rateMeter) add(at time.Time, done int64) {
	// One point a second is enough; the newest always counts.
	if n := len(r.points); n > 1 && at.Sub(r.points[n-2].at) < time.Second {
		r.points[n-1] = ratePoint{at, done}
	} else {
		r.points = append(r.points, ratePoint{at, done})
	}
	for len(r.points) > 2 && at.Sub(r.points[0].at) > rateWindow {
		r.points = r.points[1:]
	}
}

// perSecond is the rate in bytes per second, 0 while nothing can be said.
func (r *rateMeter) perSecond() float64 {
	if len(r.points) < 2 {
		return 0
	}
	first, last := r.points[0], r.points[len(r.points)-1]
	d := last.at.Sub(first.at).Seconds()
	if d <= 0 || last.done <= first.done {
		return 0
	}
	return float64(last.done-first.done) / d
}

// fit cuts a line to the width of the terminal, so that it does not wrap.
func fit(s string, width int) string {
	if width > 1 && len(s) >= width {
		return s[:width-1]
	}
	return s
}

func terminalWidth(f any) int {
	d, ok := f.(interface{ Fd() uintptr })
	if !ok {
		return 0
	}
	width, _, err := xterm.GetSize(int(d.Fd()))
	if err != nil {
		return 0
	}
	return width
}

// Seconds rounds to milliseconds, for JSON.
func Seconds(d time.Duration) float64 {
	return float64(d.Round(time.Millisecond)/time.Millisecond) / 1000
}

// FromSeconds is the opposite of Seconds.
func FromSeconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
