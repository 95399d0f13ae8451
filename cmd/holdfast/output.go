package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	xterm "golang.org/x/term"
)

// output is the voice of the program. All methods are safe for concurrent
// use.
type output struct {
	out io.Writer // results
	err io.Writer // messages

	json     bool
	quiet    bool
	verbose  bool
	progress bool

	now  func() time.Time
	poke <-chan os.Signal // delivers the wish to see the state

	mu     sync.Mutex
	drawn  bool  // the terminal's last line is a progress line
	failed error // the first failed write of a result
	// What has become of the snapshot that the command makes, for the end of
	// its run; "" if it makes none.
	outcome, snapshot string
}

// newOutput makes the voice of a run. Every signal on poke is answered with the
// state of the work.
func newOutput(out, err io.Writer, now func() time.Time, poke <-chan os.Signal) *output {
	return &output{out: out, err: err, progress: true, now: now, poke: poke}
}

// resultsToErr sends results to standard error, because standard output
// carries data.
func (o *output) resultsToErr() { o.out = o.err }

// result prints one result: record as a line of JSON, or what text writes.
func (o *output) result(record any, text func(w io.Writer)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.clear()
	o.write(record, text, false)
}

// write writes a result; done says that it is the summary of what is done. The
// lock must be held.
func (o *output) write(record any, text func(w io.Writer), done bool) {
	w := &stickyWriter{w: o.out}
	if o.json {
		o.encode(w, record)
	} else {
		h := &harmless{w: w}
		text(h)
		h.flush()
	}
	if w.err != nil && (o.failed == nil || done) {
		e := outputError{err: w.err, done: done}
		if done && o.outcome == outcomeMade {
			e.made = o.snapshot
		}
		o.failed = e
	}
}

// summary is a result that --quiet leaves out unless JSON is asked for.
func (o *output) summary(record any, text func(w io.Writer)) {
	if o.quiet && !o.json {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.clear()
	o.write(record, text, true)
}

// done is a summary of one line.
func (o *output) done(record any, format string, args ...any) {
	o.summary(record, func(w io.Writer) { fmt.Fprintf(w, format+"\n", args...) })
}

// notef tells something on standard error unless --quiet is given.
func (o *output) notef(format string, args ...any) {
	if !o.quiet {
		o.message("note", "", fmt.Sprintf(format, args...))
	}
}

// verbosef tells something only with --verbose.
func (o *output) verbosef(format string, args ...any) {
	if o.verbose {
		o.message("note", "", fmt.Sprintf(format, args...))
	}
}

// warnf tells of something that is not as it should be, though work goes on.
func (o *output) warnf(format string, args ...any) {
	o.message("warning", "warning: ", fmt.Sprintf(format, args...))
}

// fail prints the error that ends the program with a code, and the next step, ""
// if none is known.
func (o *output) fail(err error, code int, step string) {
	if o.json {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.encode(o.err, exitRecord{"exit_error", code, err.Error(), step, o.outcome, o.snapshot})
		return
	}
	o.message("", "error: ", err.Error())
	if step != "" {
		o.message("", "hint: ", step)
	}
}

type messageRecord struct {
	MessageType string `json:"message_type"`
	Message     string `json:"message"`
}

type exitRecord struct {
	MessageType string `json:"message_type"`
	Code        int    `json:"code"`
	Message     string `json:"message"`
	Hint        string `json:"hint,omitempty"`
	Outcome     string `json:"outcome,omitempty"`  // of a backup
	Snapshot    string `json:"snapshot,omitempty"` // that it is about
}

// message writes one message to standard error.
func (o *output) message(kind, prefix, text string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.clear()
	if o.json {
		o.encode(o.err, messageRecord{kind, text})
		return
	}
	// What others have written must not look like a message of its own.
	fmt.Fprintf(o.err, "holdfast: %s%s\n", prefix, strings.ReplaceAll(printable(text), "\n", "\n  "))
}

// encode writes record as one line of JSON. The lock must be held.
func (o *output) encode(w io.Writer, record any) {
	e := json.NewEncoder(escaping{w})
	e.SetEscapeHTML(false)
	_ = e.Encode(record) // to standard output through a stickyWriter
}

// unread reports whether err says only that whoever reads a list has read
// enough, as head does: nothing is lost then.
func (o *output) unread(err error) bool {
	var output outputError
	return errors.As(err, &output) && output.unread()
}

// What has become of a snapshot.
const (
	outcomeMade    = "made"
	outcomeNotMade = "not_made"
	outcomeUnknown = "unknown"
)

// became notes what has become of the snapshot that the command makes.
func (o *output) became(outcome, snapshot string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.outcome, o.snapshot = outcome, snapshot
}

// draw replaces the progress line on the terminal.
func (o *output) draw(text string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	fmt.Fprintf(o.err, "\r\x1b[K%s", oneLine(text))
	o.drawn = true
}

// clearLine removes the progress line.
func (o *output) clearLine() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.clear()
}

func (o *output) clear() {
	if o.drawn {
		io.WriteString(o.err, "\r\x1b[K")
		o.drawn = false
	}
}

// writeError returns the first error of writing a result.
func (o *output) writeError() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.failed
}

// stickyWriter remembers the first error.
type stickyWriter struct {
	w   io.Writer
	err error
}

func (s *stickyWriter) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	if s.err == nil {
		s.err = err
	}
	return n, err
}

// table prints rows of cells in columns; the first row is the heading. A cell is
// one line, whatever is in it.
func table(w io.Writer, rows [][]string) {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, r := range rows {
		cells := make([]string, len(r))
		for i, cell := range r {
			cells[i] = oneLine(cell)
		}
		fmt.Fprintln(t, strings.TrimRight(strings.Join(cells, "\t"), "\t"))
	}
	t.Flush()
}

// isTerminal reports whether f is a file and a terminal.
func isTerminal(f any) bool {
	d, ok := f.(interface{ Fd() uintptr })
	return ok && xterm.IsTerminal(int(d.Fd()))
}

// formatBytes writes a size in IEC units with three significant digits.
func formatBytes(n int64) string {
	if n < 0 {
		return "-" + formatBytes(-max(n, -math.MaxInt64))
	}
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v, unit := float64(n)/1024, 0
	for v >= 1023.5 && unit < len(iecUnits)-1 {
		v /= 1024
		unit++
	}
	digits := 2
	switch {
	case v >= 99.95:
		digits = 0
	case v >= 9.995:
		digits = 1
	}
	return fmt.Sprintf("%.*f %s", digits, v, iecUnits[unit])
}

var iecUnits = [...]string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}

// formatDuration writes a duration as 0.4s, 12s, 3m05s or 2h03m.
func formatDuration(d time.Duration) string {
	switch s := d.Seconds(); {
	case d < 0:
		return "0s"
	case s < 9.95:
		return fmt.Sprintf("%.1fs", s)
	case s < 59.5:
		return fmt.Sprintf("%.0fs", s)
	}
	t := int64(d.Round(time.Second) / time.Second)
	if t < 3600 {
		return fmt.Sprintf("%dm%02ds", t/60, t%60)
	}
	return fmt.Sprintf("%dh%02dm", t/3600, t/60%60)
}

// formatShare writes part of whole in percent, "-" if there is no whole.
func formatShare(part, whole int64) string {
	if whole <= 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f %%", 100*float64(part)/float64(whole))
}

// formatRatio writes how many bytes stand for one stored byte, "-" if nothing
// is stored.
func formatRatio(whole, stored int64) string {
	if stored <= 0 {
		return "-"
	}
	r := float64(whole) / float64(stored)
	if r >= 100 {
		return fmt.Sprintf("%.0f:1", r)
	}
	return fmt.Sprintf("%.1f:1", r)
}

// plural counts things: "1 chunk", "2 chunks".
func plural(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// rfc3339 is the form of times in JSON: UTC, whole seconds.
func rfc3339(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

// unixTime is rfc3339 of Unix seconds, "" for 0.
func unixTime(sec int64) string {
	if sec == 0 {
		return ""
	}
	return rfc3339(time.Unix(sec, 0))
}
