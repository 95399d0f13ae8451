package pack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/chunkstore"
	"holdfast/chunkstore/durable"
)

// lockPoll is how often a lock that somebody else holds is asked for again.
const lockPoll = 50 * time.Millisecond

// lockFile is the lock of a store. The kernel drops it with the process, so
// that no lock is ever left behind; what the file says is for the message
// only. It is an flock: two opens within one process exclude each other too.
type lockFile struct {
	f    *os.File // nil on a disk that has no lock file and cannot get one
	path string
}

// acquireLock takes the lock in the directory of a store, waiting at most
// wait. Shared locks exclude only exclusive ones.
func acquireLock(ctx context.Context, dir string, shared bool, wait time.Duration) (*lockFile, error) {
	l := &lockFile{path: filepath.Join(dir, "lock")}
	if err := l.open(shared); err != nil {
		return nil, err
	}
	if l.f == nil {
		return l, nil
	}
	how := unix.LOCK_EX
	if shared {
		how = unix.LOCK_SH
	}
	if err := l.wait(ctx, how, wait); err != nil {
		l.f.Close()
		return nil, err
	}
	if !shared {
		l.sign()
	}
	return l, nil
}

func (l *lockFile) open(shared bool) error {
	var err error
	l.f, err = durable.OpenFile(l.path, os.O_RDWR|os.O_CREATE, 0o640)
	if err == nil {
		return nil
	}
	if !shared || !durable.IsReadOnly(err) {
		return fmt.Errorf("lock: %w", err)
	}
	l.f, err = durable.Open(l.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("lock: %w", err)
	}
	return nil
}

func (l *lockFile) wait(ctx context.Context, how int, wait time.Duration) error {
	deadline := time.NewTimer(wait)
	defer deadline.Stop()
	for {
		err := unix.Flock(int(l.f.Fd()), how|unix.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("lock %s: %w", l.path, err)
		}
		if wait <= 0 {
			return l.refused()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("lock %s: %w", l.path, ctx.Err())
		case <-deadline.C:
			return l.refused()
		case <-time.After(lockPoll):
		}
	}
}

// refused says who holds the lock, as far as the file tells.
func (l *lockFile) refused() error {
	b := make([]byte, 256)
	n, err := l.f.ReadAt(b, 0)
	who, _, _ := strings.Cut(string(b[:n]), "\n")
	if err != nil && !errors.Is(err, io.EOF) || !strings.HasPrefix(who, "pid ") {
		who = "another process"
	}
	return fmt.Errorf("lock %s: %w by %s", l.path, chunkstore.ErrLocked, who)
}

// sign writes who holds the lock. It is a courtesy: a full disk must not keep
// the store from opening.
func (l *lockFile) sign() {
	text := fmt.Sprintf("pid %d (%s, since %s)\n", os.Getpid(), filepath.Base(os.Args[0]), time.Now().UTC().Format(time.RFC3339))
	if err := l.f.Truncate(0); err == nil {
		_, _ = l.f.WriteAt([]byte(text), 0)
	}
}

// downgrade turns an exclusive lock into a shared one.
func (l *lockFile) downgrade() error {
	_ = l.f.Truncate(0)
	if err := unix.Flock(int(l.f.Fd()), unix.LOCK_SH|unix.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return l.refused()
		}
		return fmt.Errorf("lock %s: %w", l.path, err)
	}
	return nil
}

// release gives the lock back. The file stays: removing it would let two
// processes lock two files of the same name.
func (l *lockFile) release() error {
	if l.f == nil {
		return nil
	}
	if err := l.f.Close(); err != nil {
		return fmt.Errorf("unlock %s: %w", l.path, err)
	}
	return nil
}
