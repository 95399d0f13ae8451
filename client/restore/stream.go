package restore

import (
	"fmt"
	"io"

	"holdfast/chunkstore"
)

// stream is standard output: bytes in order, zeros written out.
type stream struct {
	out  io.Writer
	next int64
	nul  []byte
}

func (s *stream) writeAt(p []byte, off int64) error {
	if off != s.next {
		return fmt.Errorf("write standard output: at offset %d, want %d: %w", s.next, off, chunkstore.ErrInvalid)
	}
	n, err := s.out.Write(p)
	s.next += int64(n)
	if err != nil {
		return fmt.Errorf("write standard output at offset %d: %w", s.next, err)
	}
	return nil
}

func (s *stream) zero(off, n int64) error {
	if s.nul == nil {
		s.nul = make([]byte, 64<<10)
	}
	for n > 0 {
		part := s.nul[:min(n, int64(len(s.nul)))]
		if err := s.writeAt(part, off); err != nil {
			return err
		}
		off, n = off+int64(len(part)), n-int64(len(part))
	}
	return nil
}

func (s *stream) readAt([]byte, int64) (int, error) {
	return 0, fmt.Errorf("read standard output: %w", ErrTarget)
}

func (s *stream) finish() error { return nil }

func (s *stream) abort() string {
	return fmt.Sprintf("standard output got %d bytes and is not complete: do not use it", s.next)
}
