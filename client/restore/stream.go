package restore

import (
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"holdfast/chunkstore"
)

// stream is standard output: bytes in order, zeros written out.
type stream struct {
	out  io.Writer
	next int64
	nul  []byte
	lost bool // its disk has not taken all of it
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

// finish waits for the disk of a file or a device that standard output was redirected
// to: the shell does not, and an error would come to nobody.
func (s *stream) finish() error {
	f, ok := s.out.(*os.File)
	if !ok || !onDisk(f) {
		return nil
	}
	err := f.Sync()
	if err == nil || cannotSync(err) {
		err = flush(f)
	}
	if err != nil {
		s.lost = true
		return fmt.Errorf("sync standard output: %w", cause(err))
	}
	return nil
}

// flush asks a file server for the errors that it keeps for the end: f is closed by
// the end of the process, which nobody is told of.
func flush(f *os.File) error {
	fd, err := unix.Dup(int(f.Fd()))
	if err != nil {
		return nil // it was not asked, but has synced
	}
	return unix.Close(fd)
}

// onDisk reports whether f is a regular file or a block device.
func onDisk(f *os.File) bool {
	st, err := f.Stat()
	return err == nil && (st.Mode().IsRegular() || st.Mode()&fs.ModeDevice != 0 && st.Mode()&fs.ModeCharDevice == 0)
}

func (s *stream) abort() string {
	if s.lost {
		return fmt.Sprintf("standard output got %d bytes, and its disk has not taken all of them: do not use it", s.next)
	}
	return fmt.Sprintf("standard output got %d bytes and is not complete: do not use it", s.next)
}
