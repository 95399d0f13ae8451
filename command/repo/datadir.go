package repo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/chunkstore"
	"holdfast/chunkstore/durable"
	"holdfast/command/term"
	"holdfast/datastore"
	"holdfast/datastore/access"
	"holdfast/datastore/task"
)

// DefaultDataDir is where a server keeps what it knows.
const DefaultDataDir = "/var/lib/holdfast"

// What a data directory holds.
const (
	dataLockName    = "holdfast.lock"
	DataSocketName  = "holdfast.sock"
	DataAccessName  = "access.db"
	dataTasksName   = "tasks"
	DataCertName    = "certificate.pem"
	DataKeyName     = "certificate-key.pem"
	DataStartedName = "started"
)

// DataDir is the data directory of a server, held by this process.
type DataDir struct {
	Access *access.Store
	Tasks  *task.Registry
	lock   *os.File
}

// MakeDataDir makes the directory if it is missing.
func MakeDataDir(path string) error {
	if err := durable.MkdirAll(path, 0o700); err != nil {
		return fmt.Errorf("make data directory %s: %w", path, err)
	}
	return nil
}

// CheckDataDir refuses a directory that is not there, and one of another user:
// files made in it would be closed to the server.
func CheckDataDir(path string) error {
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return term.Hintf(fmt.Errorf("no server keeps its data in %s: %w", path, datastore.ErrNoStore),
			"make it by starting a server: holdfast serve --data %s; or name a server elsewhere with -r REPO", path)
	}
	if err != nil {
		return fmt.Errorf("look at data directory: %w", err)
	}
	owner, ok := st.Sys().(*syscall.Stat_t)
	if !ok || int(owner.Uid) == os.Geteuid() {
		return nil
	}
	return term.Hintf(fmt.Errorf("the data directory %s belongs to user %d: %w", path, owner.Uid, fs.ErrPermission),
		"start the server, or run this as its user: sudo -u '#%d' holdfast ...", owner.Uid)
}

// CheckAccessFile refuses a directory whose users and rights are lost: a server
// that made new ones would let nobody in, and say nothing. If they are about to
// be replaced as a whole, all is well.
func CheckAccessFile(path string, replaced bool) error {
	name := filepath.Join(path, DataAccessName)
	_, err := os.Lstat(name)
	if replaced || err == nil {
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("open users and rights: %w", err)
	}
	started := filepath.Join(path, DataStartedName)
	if _, err = os.Lstat(started); errors.Is(err, fs.ErrNotExist) {
		return nil // it is new
	}
	if err != nil {
		return fmt.Errorf("look for an earlier start: %w", err)
	}
	return term.Hintf(fmt.Errorf("users and rights are lost: %s is not there, and a server has run with it: %w", name, chunkstore.ErrCorrupt),
		"put a copy of it back, or what 'holdfast access export' has written: holdfast access import --data %s FILE; to begin anew, without users, remove %s", path, started)
}

// OpenDataDir takes the directory for this process and opens what is in it.
// replaced says that users and rights are about to be replaced.
func OpenDataDir(ctx context.Context, path string, wait time.Duration, replaced bool) (_ *DataDir, err error) {
	d := new(DataDir)
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Close(ctx))
		}
	}()
	if d.lock, err = lockFile(ctx, filepath.Join(path, dataLockName), wait); err != nil {
		if errors.Is(err, chunkstore.ErrLocked) {
			err = term.Hintf(fmt.Errorf("data directory %s: %w", path, err), "a server or another command works on it; --lock-wait 10m waits for it to end")
		}
		return nil, err
	}
	if err := CheckAccessFile(path, replaced); err != nil {
		return nil, err
	}
	if d.Access, err = access.Open(filepath.Join(path, DataAccessName), access.Options{}); err != nil {
		return nil, fmt.Errorf("open users and rights: %w", err)
	}
	if d.Tasks, err = task.Open(filepath.Join(path, dataTasksName), task.Options{}); err != nil {
		return nil, err
	}
	return d, nil
}

// lockFile locks a file for this process alone and waits for others to leave.
// The kernel drops the lock with the process.
func lockFile(ctx context.Context, path string, wait time.Duration) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if errors.Is(err, unix.EROFS) {
		f, err = os.Open(path) // it can be locked all the same
	}
	if err != nil {
		return nil, err
	}
	const pause = 50 * time.Millisecond
	for deadline := time.Now().Add(wait); ; {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return f, nil
		case !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR):
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
		case !time.Now().Before(deadline):
			return nil, errors.Join(fmt.Errorf("%s: %w", path, chunkstore.ErrLocked), f.Close())
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), f.Close())
		}
	}
}

// Close gives the directory back. Tasks that still run are stopped.
func (d *DataDir) Close(ctx context.Context) error {
	var err error
	if d.Tasks != nil {
		err = d.Tasks.Close(ctx)
	}
	if d.Access != nil {
		err = errors.Join(err, d.Access.Close())
	}
	if d.lock != nil {
		err = errors.Join(err, d.lock.Close())
	}
	return err
}
