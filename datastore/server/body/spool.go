package body

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"holdfast/datastore/server/ledger"
)

// Bodies that there is no memory for are read all the same, into a file. A body
// that waits unread would hold a part of the connection's window (section 2.2 of
// the protocol specification), and many of them all of it: those that have
// their memory could then never get their last bytes.

// How much room a file takes at a time, in bytes, and how long a body waits for
// memory before it goes there.
const (
	spoolStep = 1 << 20
	copyPiece = 64 << 10 // read at once
	crowdWait = 100 * time.Millisecond
)

// ErrCrowded says that there was no memory in time.
var ErrCrowded = errors.New("there is no memory at the moment")

// TakeSoon is a Take that gives up with ErrCrowded.
func TakeSoon(ctx context.Context, r *ledger.Resource, p ledger.Payer, n int64) (*ledger.Hold, error) {
	soon, cancel := context.WithTimeout(ctx, crowdWait)
	defer cancel()
	hold, err := r.Take(soon, p, n)
	if err != nil && ctx.Err() == nil {
		return nil, errors.Join(ErrCrowded, err)
	}
	return hold, err
}

// File is a body in a file.
type File struct {
	file  *os.File
	size  int64 // of the body
	held  int64 // of room
	payer ledger.Payer
	room  *ledger.Resource
	holds []*ledger.Hold
}

// open makes a file for a body of size bytes with room of an account for the first of
// them, or returns ErrCrowded if there is none for the payer. The file has no name, and
// is gone with the process.
func (k *Keep) open(room *ledger.Resource, payer ledger.Payer, size, first int64) (*File, error) {
	open, err := k.accounts.Files.Try(payer, 1)
	if err != nil {
		return nil, errors.Join(ErrCrowded, err)
	}
	hold, err := room.Try(payer, first)
	if err != nil {
		open.Free()
		return nil, errors.Join(ErrCrowded, err)
	}
	p := &File{size: size, held: first, payer: payer, room: room, holds: []*ledger.Hold{open, hold}}
	f, err := os.CreateTemp(k.dir, "body-*.tmp")
	if err == nil {
		p.file = f
		err = os.Remove(f.Name())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("keep the upload in a file: %w", err), p.Close())
	}
	return p, nil
}

// Close gives back the room.
func (p *File) Close() error {
	for _, h := range p.holds {
		h.Free()
	}
	p.holds, p.held = nil, 0
	if p.file == nil {
		return nil
	}
	return p.file.Close()
}

// take reads a body, which must be as long as it was said to be.
func (p *File) take(ctx context.Context, body io.Reader) error {
	switch n, err := p.copy(ctx, io.LimitReader(body, p.size), 0); {
	case err != nil:
		return err
	case n < p.size:
		return ErrBodyShort
	}
	return ended(body)
}

// copy reads to the end of what there is, behind the first bytes of the file. It takes
// room for what has come, not for what was promised.
func (p *File) copy(ctx context.Context, body io.Reader, at int64) (n int64, err error) {
	buf := make([]byte, copyPiece)
	for {
		got, err := body.Read(buf)
		for at+n+int64(got) > p.held {
			if err := p.grow(ctx); err != nil {
				return n, err
			}
		}
		if _, err := p.file.WriteAt(buf[:got], at+n); err != nil {
			return n, fmt.Errorf("keep the upload in a file: %w", err)
		}
		n += int64(got)
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, fmt.Errorf("keep the upload in a file: %w", err)
		}
	}
}

func (p *File) grow(ctx context.Context) error {
	hold, err := p.room.Take(ctx, p.payer, spoolStep)
	if err == nil {
		p.holds = append(p.holds, hold)
		p.held += spoolStep
	}
	return err
}

// SetAside makes a file for what goes out, with room for so many bytes, or returns
// ErrCrowded if there is none for the payer.
func (k *Keep) SetAside(payer ledger.Payer, room int64) (*File, error) {
	return k.open(k.accounts.Kept, payer, 0, room)
}

// Put makes b, for which there is room, all that the file holds.
func (p *File) Put(b []byte) error {
	p.size = int64(len(b))
	_, err := p.file.WriteAt(b, 0)
	return err
}

// Reader reads what the file holds.
func (p *File) Reader() *io.SectionReader { return io.NewSectionReader(p.file, 0, p.size) }

// fetch reads the file back.
func (p *File) fetch(into []byte) error {
	if _, err := p.file.ReadAt(into, 0); err != nil {
		return fmt.Errorf("read the upload back from its file: %w", err)
	}
	return nil
}

// Receive takes a body of size bytes into memory, as soon as there is some, and
// if that takes too long by way of a file.
func (k *Keep) Receive(ctx context.Context, payer ledger.Payer, body io.Reader, size int) (*Loan, error) {
	l, err := k.borrowSoon(ctx, k.accounts.Incoming, payer, size)
	if errors.Is(err, ErrCrowded) {
		p, crowded := k.open(k.accounts.Spooled, payer, int64(size), spoolStep)
		if crowded == nil {
			return k.detour(ctx, p, body)
		}
		l, err = k.borrow(ctx, k.accounts.Incoming, payer, size)
	}
	if err != nil {
		return nil, err
	}
	if err := fill(l.Data, body); err != nil {
		l.Free()
		return nil, err
	}
	return l, nil
}

// detour takes a body by way of a file. The memory that it waits for in the end
// is held by nobody who waits for a client.
func (k *Keep) detour(ctx context.Context, p *File, body io.Reader) (*Loan, error) {
	defer p.Close()
	if err := p.take(ctx, body); err != nil {
		return nil, err
	}
	l, err := k.borrow(ctx, k.accounts.Arrived, p.payer, int(p.size))
	if err != nil {
		return nil, err
	}
	if err := p.fetch(l.Data); err != nil {
		l.Free()
		return nil, err
	}
	return l, nil
}
