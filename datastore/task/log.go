package task

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"holdfast/chunkstore"
	"holdfast/chunkstore/durable"
	"holdfast/datastore/wire"
)

// Bounds of a log line, in bytes.
const (
	// messageMax is the longest message.
	messageMax = 4 << 10
	// statusMax is the longest exit string; many of them are held in memory.
	statusMax = 1 << 10
	// logReserve is what is left free in a full log for the lines that are
	// always written: that it is full, that an abort was requested, the state.
	logReserve = 4 << 10
	// stampRoom is more than what a line has beside its message.
	stampRoom = 64
)

// stampLayout is RFC 3339 with a numeric offset even for UTC.
const stampLayout = "2006-01-02T15:04:05-07:00"

// logWriter writes the log of one task. Lines that cannot be written are
// dropped and counted: the work goes on.
type logWriter struct {
	f    *os.File // nil if there was no room for a log, and after last
	now  func() time.Time
	max  int64 // bytes
	size int64
	full bool
	lost int // lines, since one was last written
}

// line writes a message unless the log is full.
func (w *logWriter) line(text string) {
	switch {
	case w.full:
	case w.size+int64(min(len(text), messageMax))+stampRoom > w.max-logReserve:
		w.full = true
		w.always(fmt.Sprintf("the log is full at %d KiB, more was dropped", w.max>>10))
	default:
		w.always(text)
	}
}

// always writes a message even to a log that is full.
func (w *logWriter) always(text string) {
	if w.f == nil {
		return
	}
	stamp := w.now().Format(stampLayout)
	out := stamp + ": " + clean(text, messageMax) + "\n"
	if w.lost > 0 {
		out = fmt.Sprintf("%s: %d lines could not be written\n", stamp, w.lost) + out
	}
	if _, err := w.f.WriteAt([]byte(out), w.size); err != nil {
		w.lost++
		_ = w.f.Truncate(w.size) // half a line would spoil the next one
		return
	}
	w.size += int64(len(out))
	w.lost = 0
}

// last writes the state and closes the log.
func (w *logWriter) last(text string) {
	w.always(text)
	if w.f != nil {
		// Without the sync the state is lost if the power fails now, and the
		// task will be "unknown": no reason to fail it.
		_ = durable.SyncFile(w.f)
		w.f.Close()
	}
	w.f = nil
}

// clean makes foreign text fit for one line of at most most bytes: what does
// not print becomes a space, and what is no UTF-8 a question mark.
func clean(s string, most int) string {
	if len(s) > most {
		for most > 0 && !utf8.RuneStart(s[most]) {
			most--
		}
		s = s[:most]
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r == utf8.RuneError:
			return '?'
		case !unicode.IsPrint(r):
			return ' '
		}
		return r
	}, s)
}

// takesNothing reports whether err says that the disk is full, or can only be
// read. Tasks go on there: reading and making room never need a log.
func takesNothing(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EROFS)
}

// logPrefix begins the name of every log file.
const logPrefix = "UPID:"

// logName is the path of a log within the registry's directory. A UPID can be
// longer than a file name may be; its tail is replaced by its hash then.
func logName(u wire.UPID) string {
	const most, kept = 255, 180
	name := u.String()
	sum := sha256.Sum256([]byte(name))
	if len(name) > most {
		name = name[:kept] + "-" + hex.EncodeToString(sum[:])
	}
	return path.Join(hex.EncodeToString(sum[:1]), name)
}

func createLog(root *os.Root, u wire.UPID) (*os.File, error) {
	name := logName(u)
	if err := root.MkdirAll(path.Dir(name), 0o700); err != nil {
		return nil, fmt.Errorf("create the log: %w", err)
	}
	f, err := durable.OpenFileIn(root, name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create the log: %w", err)
	}
	return f, nil
}

func (r *Registry) knows(u wire.UPID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.running[u] != nil || r.known[u] != nil
}

// OpenLog opens the log of a task for reading; the caller closes it. A task
// that is not known, or has no log, is chunkstore.ErrNotExist.
func (r *Registry) OpenLog(u wire.UPID) (*os.File, error) {
	if !r.knows(u) {
		return nil, fmt.Errorf("log of task %s: %w", u, chunkstore.ErrNotExist)
	}
	f, err := durable.OpenIn(r.root, logName(u))
	if errors.Is(err, fs.ErrNotExist) {
		f, err = r.openMemoryLog(u)
	}
	if err != nil {
		return nil, fmt.Errorf("log of task %s: %w", u, err)
	}
	return f, nil
}

// Lines returns limit lines of a task's log, without their line ends, from
// line start on; the first line is 1, and 0 means it too. A limit of 0 is all
// that follow. total is how many lines the log has now. A task that is not
// known is chunkstore.ErrNotExist; one whose log found no room on the disk has
// no lines.
//
// Who wants to know whether more lines will come asks Status first: the last
// line of a task that did not run then is there.
func (r *Registry) Lines(u wire.UPID, start, limit int) (lines []string, total int, err error) {
	total, err = r.EachLine(u, start, limit, func(line string) error {
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		return nil, 0, err
	}
	return lines, total, nil
}

// EachLine visits what Lines returns, one line at a time. The log is open meanwhile.
func (r *Registry) EachLine(u wire.UPID, start, limit int, visit func(line string) error) (total int, err error) {
	r.mu.Lock()
	t := r.running[u]
	r.mu.Unlock()
	size := r.limits.log
	if t != nil {
		size = t.logSize() // what is being written now is not a line yet
	}
	f, err := r.OpenLog(u)
	if errors.Is(err, chunkstore.ErrNotExist) && r.knows(u) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if total, err = readLines(io.LimitReader(f, size), start, limit, visit); err != nil {
		return 0, fmt.Errorf("log of task %s: %w", u, err)
	}
	return total, nil
}

func (t *Task) logSize() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.log.size
}

// readLines is EachLine on an open log. A line longer than any that is written
// here counts as several.
func readLines(from io.Reader, start, limit int, visit func(string) error) (total int, err error) {
	in := bufio.NewReaderSize(from, 2*messageMax)
	start = max(start, 1)
	for {
		b, err := in.ReadSlice('\n')
		ended := errors.Is(err, io.EOF)
		if err != nil && !ended && !errors.Is(err, bufio.ErrBufferFull) {
			return 0, err
		}
		if len(b) > 0 {
			total++
			if total >= start && (limit <= 0 || total < start+limit) {
				if err := visit(strings.TrimSuffix(string(b), "\n")); err != nil {
					return 0, err
				}
			}
		}
		if ended {
			return total, nil
		}
	}
}
