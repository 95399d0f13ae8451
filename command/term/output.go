package term

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

// Output is the voice of the program. All methods are safe for concurrent
// use.
type Output struct {
	out io.Writer // results
	err io.Writer // messages

	JSON     bool // everything is one JSON object per line
	Quiet    bool // no notes, and no summaries but as JSON
	Verbose  bool
	Progress bool // running work is shown without being asked for

	now  func() time.Time
	poke <-chan os.Signal // delivers the wish to see the state

	mu     sync.Mutex
	drawn  bool  // the terminal's last line is a progress line
	failed error // the first failed write of a result
	// What has become of the snapshot that the command makes, for the end of
	// its run; "" if it makes none.
	outcome, snapshot string
}

// New makes the voice of a run. Every signal on poke is answered with the
// state of the work.
func New(out, err io.Writer, now func() time.Time, poke <-chan os.Signal) *Output {
	return &Output{out: out, err: err, Progress: true, now: now, poke: poke}
}

// ResultsToErr sends results to standard error, because standard output
// carries data.
func (o *Output) ResultsToErr() { o.out = o.err }

// Result prints one result: record as a line of JSON, or what text writes.
func (o *Output) Result(record any, text func(w io.Writer)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.clear()
	o.write(record, text, false)
}

// write writes a result; done says that it is the summary of what is done. The
// lock must be held.
func (o *Output) write(record any, text func(w io.Writer), done bool) {
	w := &stickyWriter{w: o.out}
	if o.JSON {
		o.encode(w, record)
	} else {
		h := &harmless{w: w}
		text(h)
		h.flush()
	}
	if w.err != nil && (o.failed == nil || done) {
		e := OutputError{Err: w.err, Done: done}
		if done && o.outcome == OutcomeMade {
			e.made = o.snapshot
		}
		o.failed = e
	}
}

// Summary is a result that --quiet leaves out unless JSON is asked for.
func (o *Output) Summary(record any, text func(w io.Writer)) {
	if o.Quiet && !o.JSON {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.clear()
	o.write(record, text, true)
}

// Done is a summary of one line.
func (o *Output) Done(record any, format string, args ...any) {
	o.Summary(record, func(w io.Writer) { fmt.Fprintf(w, format+"\n", args...) })
}

// Listing prints rows for people, or what stands for none of them.
func (o *Output) Listing(rows [][]string, none string) {
	if o.JSON {
		return
	}
	if len(rows) == 1 {
		o.Notef("%s", none)
		return
	}
	o.Result(nil, func(w io.Writer) { Table(w, rows) })
}

// Notef tells something on standard error unless --quiet is given.
func (o *Output) Notef(format string, args ...any) {
	if !o.Quiet {
		o.message("note", "", fmt.Sprintf(format, args...))
	}
}

// Verbosef tells something only with --verbose.
func (o *Output) Verbosef(format string, args ...any) {
	if o.Verbose {
		o.message("note", "", fmt.Sprintf(format, args...))
	}
}

// Warnf tells of something that is not as it should be, though work goes on.
func (o *Output) Warnf(format string, args ...any) {
	o.message("warning", "warning: ", fmt.Sprintf(format, args...))
}

// Fail prints the error that ends the program with a code, and the next step, ""
// if none is known.
func (o *Output) Fail(err error, code int, step string) {
	if o.JSON {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.encode(o.err, ExitRecord{"exit_error", code, err.Error(), step, o.outcome, o.snapshot})
		return
	}
	o.message("", "error: ", err.Error())
	if step != "" {
		o.message("", "hint: ", step)
	}
}

// messageRecord is a message as JSON: a note or a warning.
type messageRecord struct {
	MessageType string `json:"message_type"` // "note" or "warning"
	Message     string `json:"message"`
}

// ExitRecord is the error that ends a run, as JSON.
type ExitRecord struct {
	MessageType string `json:"message_type"`
	Code        int    `json:"code"`
	Message     string `json:"message"`
	Hint        string `json:"hint,omitempty"`
	Outcome     string `json:"outcome,omitempty"`  // of a backup
	Snapshot    string `json:"snapshot,omitempty"` // that it is about
}

// message writes one message to standard error.
func (o *Output) message(kind, prefix, text string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.clear()
	if o.JSON {
		o.encode(o.err, messageRecord{kind, text})
		return
	}
	// What others have written must not look like a message of its own.
	fmt.Fprintf(o.err, "holdfast: %s%s\n", prefix, strings.ReplaceAll(Printable(text), "\n", "\n  "))
}

// encode writes record as one line of JSON. The lock must be held.
func (o *Output) encode(w io.Writer, record any) {
	e := json.NewEncoder(Escape(w))
	e.SetEscapeHTML(false)
	_ = e.Encode(record) // to standard output through a stickyWriter
}

// Unread reports whether err says only that whoever reads a list has read
// enough, as head does: nothing is lost then.
func (o *Output) Unread(err error) bool {
	var output OutputError
	return errors.As(err, &output) && output.Unread()
}

// What has become of a snapshot.
const (
	OutcomeMade    = "made"
	OutcomeNotMade = "not_made"
	OutcomeUnknown = "unknown"
)

// Became notes what has become of the snapshot that the command makes.
func (o *Output) Became(outcome, snapshot string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.outcome, o.snapshot = outcome, snapshot
}

// draw replaces the progress line on the terminal.
func (o *Output) draw(text string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	fmt.Fprintf(o.err, "\r\x1b[K%s", oneLine(text))
	o.drawn = true
}

// ClearLine removes the progress line.
func (o *Output) ClearLine() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.clear()
}

func (o *Output) clear() {
	if o.drawn {
		io.WriteString(o.err, "\r\x1b[K")
		o.drawn = false
	}
}

// WriteError returns the first error of writing a result.
func (o *Output) WriteError() error {
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

// Table prints rows of cells in columns; the first row is the heading. A cell is
// one line, whatever is in it.
func Table(w io.Writer, rows [][]string) {
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

// IsTerminal reports whether f is a file and a terminal.
func IsTerminal(f any) bool {
	d, ok := f.(interface{ Fd() uintptr })
	return ok && xterm.IsTerminal(int(d.Fd()))
}

// Bytes writes a size in IEC units with three significant digits.
func Bytes(n int64) string {
	if n < 0 {
		return "-" + Bytes(-max(n, -math.MaxInt64))
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

// Duration writes a duration as 0.4s, 12s, 3m05s or 2h03m.
func Duration(d time.Duration) string {
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

// Share writes part of whole in percent, "-" if there is no whole.
func Share(part, whole int64) string {
	if whole <= 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f %%", 100*float64(part)/float64(whole))
}

// Ratio writes how many bytes stand for one stored byte, "-" if nothing
// is stored.
func Ratio(whole, stored int64) string {
	if stored <= 0 {
		return "-"
	}
	r := float64(whole) / float64(stored)
	if r >= 100 {
		return fmt.Sprintf("%.0f:1", r)
	}
	return fmt.Sprintf("%.1f:1", r)
}

// Plural counts things: "1 chunk", "2 chunks".
func Plural(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// RFC3339 is the form of times in JSON: UTC, whole seconds.
func RFC3339(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

// UnixTime is rfc3339 of Unix seconds, "" for 0.
func UnixTime(sec int64) string {
	if sec == 0 {
		return ""
	}
	return RFC3339(time.Unix(sec, 0))
}
