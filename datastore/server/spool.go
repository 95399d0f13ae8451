package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"holdfast/datastore/wire"
)

// Bodies that there is no memory for are read all the same, into a file. A body
// that waits unread would hold a part of the connection's window (section 2.2 of
// the protocol specification), and many of them all of it: those that have
// their memory could then never get their last bytes.

// Bounds of what lies in files, in bytes, and of the time that a body waits for
// memory before it goes there.
const (
	spoolBudget = 2 << 30
	// spoolShare is the part of it that the sessions of one user may have.
	spoolShare = 512 << 20
	spoolStep  = 1 << 20
	// keptBudget is for answers that nobody has read yet, keptShare the part
	// of it of one user.
	keptBudget = 4 << 30
	keptShare  = 1 << 30
	crowdWait  = 100 * time.Millisecond
)

// errCrowded says that there was no memory in time.
var errCrowded = errors.New("there is no memory at the moment")

// acquireSoon is semaphore.Acquire that gives up with errCrowded.
func acquireSoon(ctx context.Context, s *semaphore.Weighted, n int64) error {
	if s.TryAcquire(n) {
		return nil
	}
	soon, cancel := context.WithTimeout(ctx, crowdWait)
	defer cancel()
	err := s.Acquire(soon, n)
	if err != nil && ctx.Err() == nil {
		return errCrowded
	}
	return err
}

// spool keeps bodies in files without names, which are gone with the process.
type spool struct {
	dir  string // "" is the system's directory for temporary files
	room *semaphore.Weighted
}

// shares are parts of a room, one for each user: however many sessions somebody
// opens, there is room for others.
type shares struct {
	size int64

	mu sync.Mutex
	by map[wire.AuthID]*semaphore.Weighted
}

// of returns the share of a user.
func (s *shares) of(user wire.AuthID) *semaphore.Weighted {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.by[user] == nil {
		if s.by == nil {
			s.by = make(map[wire.AuthID]*semaphore.Weighted)
		}
		s.by[user] = semaphore.NewWeighted(s.size)
	}
	return s.by[user]
}

// spooled is a body in a file.
type spooled struct {
	file *os.File
	size int64 // of the body
	held int64 // of room
	room []*semaphore.Weighted
}

// open makes a file for a body of size bytes with room for the first of them, or
// returns errCrowded. share is the user's part of the room.
func (s *spool) open(share *semaphore.Weighted, size, first int64) (*spooled, error) {
	p := &spooled{size: size, held: first}
	for _, room := range []*semaphore.Weighted{share, s.room} {
		if !room.TryAcquire(first) {
			return nil, errors.Join(errCrowded, p.close())
		}
		p.room = append(p.room, room)
	}
	f, err := os.CreateTemp(s.dir, "body-*.tmp")
	if err == nil {
		p.file = f
		err = os.Remove(f.Name())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("keep the upload in a file: %w", err), p.close())
	}
	return p, nil
}

// close gives back the room.
func (p *spooled) close() error {
	release(p.held, p.room)
	p.held = 0
	if p.file == nil {
		return nil
	}
	return p.file.Close()
}

// take reads a body, which must be as long as it was said to be. It takes room
// for what has come, not for what was promised.
func (p *spooled) take(ctx context.Context, body io.Reader) error {
	buf := make([]byte, 64<<10)
	for got := int64(0); got < p.size; {
		if got == p.held {
			if err := p.grow(ctx); err != nil {
				return err
			}
		}
		step := min(p.size, p.held) - got
		n, err := io.CopyBuffer(struct{ io.Writer }{p.file}, io.LimitReader(body, step), buf)
		switch {
		case err != nil:
			return fmt.Errorf("keep the upload in a file: %w", err)
		case n < step:
			return errBodyShort
		}
		got += n
	}
	return ended(body)
}

func (p *spooled) grow(ctx context.Context) error {
	_, err := take(ctx, spoolStep, p.room...)
	if err == nil {
		p.held += spoolStep
	}
	return err
}

// fetch reads the file back.
func (p *spooled) fetch(into []byte) error {
	if _, err := p.file.ReadAt(into, 0); err != nil {
		return fmt.Errorf("read the upload back from its file: %w", err)
	}
	return nil
}

// receive takes a body of size bytes into memory, as soon as there is some, and
// if that takes too long by way of a file.
func (v *conversation) receive(ctx context.Context, body io.Reader, size int) (*loan, error) {
	l, err := v.host.bodies.borrowSoon(ctx, v.bodies, size)
	if errors.Is(err, errCrowded) {
		p, crowded := v.host.spool.open(v.spooled, int64(size), spoolStep)
		if crowded == nil {
			return v.detour(ctx, p, body)
		}
		l, err = v.host.bodies.borrow(ctx, v.bodies, size)
	}
	if err != nil {
		return nil, err
	}
	if err := fill(l.data, body); err != nil {
		l.free()
		return nil, err
	}
	return l, nil
}

// detour takes a body by way of a file. The memory that it waits for in the end
// is held by nobody who waits for a client.
func (v *conversation) detour(ctx context.Context, p *spooled, body io.Reader) (*loan, error) {
	defer p.close()
	if err := p.take(ctx, body); err != nil {
		return nil, err
	}
	l, err := v.host.whole.borrow(ctx, nil, int(p.size))
	if err != nil {
		return nil, err
	}
	if err := p.fetch(l.data); err != nil {
		l.free()
		return nil, err
	}
	return l, nil
}
