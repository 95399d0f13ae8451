package backup

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"holdfast/client/source"
)

// imageReader reads an image for one cutter: holes are never touched.
type imageReader struct {
	img  source.Image
	ext  source.Extent // the extent last asked for
	read *atomic.Int64
}

// fill implements reader.
func (r *imageReader) fill(off int64, p []byte) (int, bool, error) {
	for done := 0; done < len(p); {
		pos := off + int64(done)
		if err := r.find(pos); err != nil {
			return 0, false, err
		}
		part := p[done:min(len(p), done+int(r.ext.Off+r.ext.Len-pos))]
		if r.ext.Kind == source.Zero {
			if len(part) == len(p) {
				return len(p), true, nil
			}
			clear(part)
		} else if err := r.readPart(pos, part); err != nil {
			return 0, false, err
		}
		done += len(part)
	}
	return len(p), allZero(p), nil
}

// find makes ext the extent that covers pos, and cuts it to begin there.
func (r *imageReader) find(pos int64) error {
	if pos >= r.ext.Off && pos < r.ext.Off+r.ext.Len {
		return nil
	}
	ext, err := r.img.Extent(pos)
	if err != nil {
		return err
	}
	if ext.Off > pos || ext.Off+ext.Len <= pos {
		return fmt.Errorf("extent %d+%d does not cover offset %d: %w", ext.Off, ext.Len, pos, source.ErrChanged)
	}
	r.ext = ext
	return nil
}

func (r *imageReader) readPart(pos int64, p []byte) error {
	n, err := r.img.ReadAt(p, pos)
	if n < len(p) {
		if err == nil || errors.Is(err, io.EOF) {
			err = source.ErrChanged
		}
		return fmt.Errorf("read %d bytes at offset %d: %w", len(p), pos, err)
	}
	r.read.Add(int64(n))
	return nil
}

// streamReader reads standard input; fill must be called with rising offsets.
type streamReader struct {
	in   io.Reader
	read *atomic.Int64
}

// fill implements reader. Nothing but io.EOF from the source itself is its end:
// a source that says "unexpected EOF" is one that broke.
func (r *streamReader) fill(off int64, p []byte) (int, bool, error) {
	n := 0
	for n < len(p) {
		m, err := r.in.Read(p[n:])
		n += m
		if err == io.EOF {
			break
		}
		if err != nil {
			return 0, false, fmt.Errorf("read standard input at offset %d: %w", off+int64(n), err)
		}
	}
	r.read.Add(int64(n))
	return n, n > 0 && allZero(p[:n]), nil
}
