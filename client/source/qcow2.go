package source

import (
	"bytes"
	"fmt"
	"slices"
)

// qcow2File is one qcow2 file of a chain: our map says where its clusters are,
// the library reads them.
type qcow2File struct {
	*file
	h       *header
	table   *table
	library *library // nil for a disk of size 0
}

// openQcow2 opens a layer over f, which stays the caller's if that fails.
func openQcow2(f *file) (*qcow2File, error) {
	q, err := newQcow2File(f)
	if err != nil {
		return nil, fmt.Errorf("qcow2 image %s: %w", f.path, err)
	}
	return q, nil
}

func newQcow2File(f *file) (*qcow2File, error) {
	h, err := parseHeader(f, f.length)
	if err != nil {
		return nil, err
	}
	q := &qcow2File{file: f, h: h}
	if q.table, err = openTable(f, h); err != nil || h.size == 0 {
		return q, err
	}
	q.library, err = openLibrary(f, h)
	return q, err
}

func (q *qcow2File) size() int64 { return q.h.size }

func (q *qcow2File) look(off, most int64) (run, error) {
	r, err := q.table.look(off, most)
	if err != nil {
		return run{}, fmt.Errorf("qcow2 image %s: %w", q.path, err)
	}
	return r, nil
}

func (q *qcow2File) readAt(p []byte, off int64) error {
	if err := q.library.readAt(p, off); err != nil {
		return fmt.Errorf("qcow2 image %s: read disk at %d: %w", q.path, off, err)
	}
	return nil
}

// verify tells also of a header or L1 table that is not what was opened: then
// another program has written to the image, and the clusters read may have
// been put to other use meanwhile.
func (q *qcow2File) verify() error {
	if err := q.file.verify(); err != nil {
		return err
	}
	fixed := make([]byte, len(q.h.fixed))
	if _, err := q.ReadAt(fixed, 0); err != nil {
		return err
	}
	l1, err := readL1(q.file, q.h)
	if err != nil {
		return err
	}
	if !bytes.Equal(fixed, q.h.fixed) || !slices.Equal(l1, q.table.l1) {
		return fmt.Errorf("qcow2 image %s: its header or L1 table was written to: %w", q.path, ErrChanged)
	}
	return nil
}
