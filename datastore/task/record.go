package task

import (
	"bufio"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strconv"
	"strings"

	"holdfast/datastore/wire"
)

// record is a line of the index:
//
//	CRC32C of the rest, 8 hex digits | " B " | UPID                            a task begins
//	CRC32C of the rest, 8 hex digits | " E " | end | " " | UPID | " " | status   a task has ended
//
// where end is in Unix seconds, decimal. The line end is not part of the sum.
type record struct {
	upid   wire.UPID
	ended  bool
	end    int64
	status string
}

// recordMax is the longest line, in bytes, with room to spare.
const recordMax = upidMax + statusMax + 64

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encode returns the line, its end included.
func (r record) encode() string {
	rest := "B " + r.upid.String()
	if r.ended {
		rest = fmt.Sprintf("E %d %s %s", r.end, r.upid, r.status)
	}
	return fmt.Sprintf("%08x %s\n", crc32.Checksum([]byte(rest), castagnoli), rest)
}

// errRecord is what decodeRecord says of a line that was not written here; the
// line is passed over.
var errRecord = errors.New("damaged line of the task index")

// decodeRecord reads a line without its end.
func decodeRecord(line string) (record, error) {
	sum, rest, ok := strings.Cut(line, " ")
	if !ok || sum != fmt.Sprintf("%08x", crc32.Checksum([]byte(rest), castagnoli)) {
		return record{}, errRecord
	}
	var r record
	kind, rest, _ := strings.Cut(rest, " ")
	upid := rest
	switch kind {
	case "B":
	case "E":
		end, rest, _ := strings.Cut(rest, " ")
		upid, r.status, _ = strings.Cut(rest, " ")
		r.ended = true
		var err error
		if r.end, err = strconv.ParseInt(end, 10, 64); err != nil || !validStatus(r.status) {
			return record{}, errRecord
		}
	default:
		return record{}, errRecord
	}
	var err error
	if r.upid, err = wire.ParseUPID(upid); err != nil || r.encode() != line+"\n" {
		return record{}, errRecord
	}
	return r, nil
}

// contents is what an index says.
type contents struct {
	ended   []*entry // in the order of the file
	open    map[wire.UPID]bool
	known   map[wire.UPID]bool // those in ended
	lines   int
	damaged bool // a line was passed over
	most    int  // ended ones to keep; no more than twice as many are held
}

// readIndex reads an index of any length in bounded memory: of the tasks that
// have ended it holds the last ones, of those that have not at most as many.
// Only an error of the reader is one.
func readIndex(from io.Reader, most int) (*contents, error) {
	c := &contents{open: map[wire.UPID]bool{}, known: map[wire.UPID]bool{}, most: most}
	in := bufio.NewReaderSize(from, recordMax)
	for whole := true; ; {
		b, err := in.ReadSlice('\n')
		switch {
		case err == nil && whole:
			c.line(string(b[:len(b)-1]))
		case err == nil, errors.Is(err, bufio.ErrBufferFull):
			c.damaged = true
		case errors.Is(err, io.EOF):
			c.damaged = c.damaged || len(b) > 0 // torn by the end of the process
			return c, nil
		default:
			return nil, fmt.Errorf("read the index: %w", err)
		}
		whole = err == nil
	}
}

// line takes one line.
func (c *contents) line(s string) {
	c.lines++
	r, err := decodeRecord(s)
	switch {
	case err != nil || c.known[r.upid]:
		c.damaged = true
	case r.ended:
		delete(c.open, r.upid)
		c.known[r.upid] = true
		c.ended = append(c.ended, &entry{upid: r.upid, end: r.end, status: r.status})
		c.trim()
	case len(c.open) < c.most:
		c.open[r.upid] = true
	default:
		c.damaged = true
	}
}

// trim lets go of the oldest half when there are twice as many as wanted.
func (c *contents) trim() {
	if len(c.ended) < 2*c.most {
		return
	}
	old := len(c.ended) - c.most
	for _, e := range c.ended[:old] {
		delete(c.known, e.upid)
	}
	c.ended = append([]*entry(nil), c.ended[old:]...)
}
