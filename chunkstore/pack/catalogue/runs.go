package catalogue

import (
	"bufio"
	"container/heap"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"holdfast/chunkstore"
	"holdfast/chunkstore/durable"
)

// A catalogue is built in the order of its keys, so that each of its pages is written
// once. What does not fit into memory for that is sorted in parts, which lie one behind
// the other in a file beside the catalogue while it is built:
//
//	0   u8  length of the value, n
//	1   48  key, as in the catalogue
//	49  n   value, as in the catalogue
//
// The file needs no more room than a catalogue saves that is built in order.
const RunsName = ".catalogue.runs.tmp-new"

// runBuffers is how many bytes of the file are read ahead, for all runs together.
const runBuffers = 16 << 20

// Runs are rows of chunks, each in the order of compare.
type Runs struct {
	disk durable.Door
	path string
	f    *os.File // nil until there is one
	ends []int64
}

// NewRuns makes no file before there is something to add.
func NewRuns(d durable.Door, dir string) *Runs {
	return &Runs{disk: d, path: filepath.Join(dir, RunsName)}
}

// Add writes a run.
func (r *Runs) Add(list []Held) error {
	return r.disk.Do("write", r.path, func() error {
		if r.f == nil {
			f, err := durable.OpenFile(r.path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o640)
			if err != nil {
				return err
			}
			r.f = f
		}
		w := bufio.NewWriterSize(r.f, 256<<10)
		n := r.end()
		for _, h := range list {
			key := h.Key.Append(nil)
			value := encodeLocation(key, h.Location)
			n += int64(1 + len(key) + len(value))
			// The first error of a bufio.Writer is that of its Flush, too.
			_ = w.WriteByte(byte(len(value)))
			_, _ = w.Write(key)
			_, _ = w.Write(value)
		}
		r.ends = append(r.ends, n)
		return w.Flush()
	})
}

func (r *Runs) end() int64 {
	if r.Empty() {
		return 0
	}
	return r.ends[len(r.ends)-1]
}

// Empty reports whether there is no run.
func (r *Runs) Empty() bool { return len(r.ends) == 0 }

// Merge calls fn for all chunks in the order of compare.
func (r *Runs) Merge(fn func(Held) error) error {
	size := max(4<<10, min(256<<10, runBuffers/max(1, len(r.ends))))
	var q queue
	begin := int64(0)
	for _, end := range r.ends {
		one := &row{r: bufio.NewReaderSize(io.NewSectionReader(r.f, begin, end-begin), size)}
		begin = end
		if err := q.add(one); err != nil {
			return err
		}
	}
	for len(q) > 0 {
		if err := fn(q[0].first); err != nil {
			return err
		}
		if err := q.next(); err != nil {
			return err
		}
	}
	return nil
}

// Close removes the file.
func (r *Runs) Close() error {
	if r.f == nil {
		return nil
	}
	return errors.Join(r.f.Close(), durable.IgnoreMissing(os.Remove(r.path)))
}

// row is one of them that is being read.
type row struct {
	r     *bufio.Reader
	first Held // that has not been taken yet
	key   [chunkstore.KeySize]byte
	value [claimedSize + crcSize]byte
}

// read reads the next chunk, or io.EOF.
func (r *row) read() error {
	n, err := r.r.ReadByte()
	if err != nil {
		return err
	}
	if int(n) > len(r.value) {
		return fmt.Errorf("%w: value of %d bytes in %s", ErrDoubt, n, RunsName)
	}
	_, err = io.ReadFull(r.r, r.key[:])
	if err == nil {
		_, err = io.ReadFull(r.r, r.value[:n])
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", RunsName, err)
	}
	r.first, err = decodeHeld(r.key[:], r.value[:n])
	return err
}

// queue is a heap of runs by their first chunk.
type queue []*row

// Len implements heap.Interface.
func (q queue) Len() int { return len(q) }

// Less implements heap.Interface.
func (q queue) Less(i, j int) bool { return q[i].first.Compare(q[j].first) < 0 }

// Swap implements heap.Interface.
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }

// Push implements heap.Interface.
func (q *queue) Push(x any) { *q = append(*q, x.(*row)) }

// Pop implements heap.Interface.
func (q *queue) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}

// add adds a run, unless it is empty.
func (q *queue) add(r *row) error {
	err := r.read()
	if err == nil {
		heap.Push(q, r)
	}
	if err == io.EOF {
		return nil
	}
	return err
}

// next takes the first chunk of all.
func (q *queue) next() error {
	err := (*q)[0].read()
	switch err {
	case nil:
		heap.Fix(q, 0)
	case io.EOF:
		heap.Pop(q)
		return nil
	}
	return err
}
