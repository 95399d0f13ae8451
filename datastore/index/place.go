package index

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"holdfast/chunkstore"
)

// WriteAt puts entries of a fixed index where their offsets say, in any order;
// a later entry replaces an earlier one of the same place. The file underneath
// must also be an io.ReaderAt, since Close reads the records back. An entry
// that does not fit is chunkstore.ErrInvalid and is not written, while those
// before it are; after an error of the file nothing more can be written.
func (w *Writer) WriteAt(entries ...Entry) error {
	if _, ok := w.w.(io.ReaderAt); !ok || w.o.Kind != Fixed {
		return fmt.Errorf("write entries of a %v index in any order: %w", w.o.Kind, chunkstore.ErrInvalid)
	}
	for _, e := range entries {
		if w.err != nil {
			return w.err
		}
		if err := w.checkPlace(e); err != nil {
			return fmt.Errorf("write the entry at offset %d: %w: %w", e.Off, err, chunkstore.ErrInvalid)
		}
		w.place(e)
	}
	return w.err
}

// place buffers a record; a run of neighbours goes out in one write.
func (w *Writer) place(e Entry) {
	w.placed = true
	at := headerSize + int64(e.Off/w.layout.chunkSize)*fixedRecordSize
	if at != w.off+int64(len(w.buf)) {
		if w.flush(); w.err != nil {
			return
		}
		w.off = at
	}
	w.buf = appendRecord(w.buf, w.o.Kind, e)
	if len(w.buf)+recordSizeMax > pendingSize {
		w.flush()
	}
}

// checkPlace checks an entry against the image, which it makes larger if its
// size is not known.
func (w *Writer) checkPlace(e Entry) error {
	if err := checkEntry(e); err != nil {
		return err
	}
	if e.Off%w.layout.chunkSize != 0 {
		return fmt.Errorf("chunks begin at multiples of %d", w.layout.chunkSize)
	}
	if w.growing {
		return w.grow(e)
	}
	if e.Off >= w.layout.size {
		return fmt.Errorf("the image has %d bytes", w.layout.size)
	}
	if _, size := w.layout.at(e.Off / w.layout.chunkSize); e.Size != size {
		return fmt.Errorf("chunk of %d bytes, want %d", e.Size, size)
	}
	return nil
}

// grow takes an entry of an image whose size is not known. A short chunk is
// the last one and ends that.
func (w *Writer) grow(e Entry) error {
	end := e.Off + uint64(e.Size)
	switch {
	case uint64(e.Size) > w.layout.chunkSize:
		return fmt.Errorf("chunk of %d bytes, at most %d", e.Size, w.layout.chunkSize)
	case uint64(e.Size) == w.layout.chunkSize:
		w.layout.size = max(w.layout.size, end)
	case end < w.layout.size:
		return fmt.Errorf("short chunk of %d bytes, but the image has %d", e.Size, w.layout.size)
	default:
		w.layout.size, w.growing = end, false
	}
	return nil
}

// placedSummary reads back what WriteAt has put, in one pass, and finds the
// first place that was left out.
func (w *Writer) placedSummary() (Summary, error) {
	if w.layout.size == 0 {
		return Summary{}, fmt.Errorf("it has no entries: %w", chunkstore.ErrInvalid)
	}
	if w.flush(); w.err != nil {
		return Summary{}, w.err
	}
	count := w.layout.count()
	section := io.NewSectionReader(w.w.(io.ReaderAt), headerSize, int64(count)*fixedRecordSize)
	r, sum := bufio.NewReaderSize(section, bufferSize), NewSummer(Fixed)
	for i := range count {
		var e Entry
		e.Off, e.Size = w.layout.at(i)
		_, err := io.ReadFull(r, e.ID[:])
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return Summary{}, fmt.Errorf("read the index records back: %w", err)
		}
		if err != nil || e.ID.IsZero() {
			return Summary{}, fmt.Errorf("there is no chunk at offset %d: %w", e.Off, chunkstore.ErrInvalid)
		}
		sum.Add(e)
	}
	return sum.Summary(), nil
}
