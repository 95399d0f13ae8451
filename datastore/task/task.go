// Package task keeps account of the work that a server does: each piece of it
// has a name (a UPID), a log and, in the end, a state (section 5 of the
// protocol specification).
//
// The directory of a Registry holds one log file for each task, in one of 256
// directories, and an index, to which a line is appended when a task begins
// and another when it ends. The log is synced when its task ends and tells
// the state too, so the index may lose its last lines in a power cut: what it
// does not know is found again from the logs. A task that has no state, since
// the process died, ends as "unknown".
//
// A full disk keeps no task from running: prune and garbage collection are
// tasks, and they are what makes room again. Their log is incomplete then.
package task

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/chunkstore"
	"holdfast/chunkstore/durable"
	"holdfast/datastore/wire"
)

// Options say how a Registry names its tasks.
type Options struct {
	// Node is the host name within every UPID, cut at its first dot. If it is
	// "", or cannot stand in a UPID, the name of this machine is taken, and if
	// that cannot either, "localhost".
	Node string
	// Now is the clock; nil is time.Now. The location of its times is that of
	// the stamps in the logs.
	Now func() time.Time
}

// limits bound what a Registry keeps.
type limits struct {
	ended   int   // tasks whose log is kept
	running int   // tasks at a time
	log     int64 // bytes of one log
	session int64 // bytes of the log of a session, whose client makes the lines; 0 is log
	logs    int64 // bytes of the logs of tasks that have ended; 0 is no limit
}

var defaultLimits = limits{ended: 10_000, running: 2000, log: 16 << 20, session: 1 << 20, logs: 1 << 30}

// ErrClosed is returned for a task that begins after Close.
var ErrClosed = errors.New("task registry is closed")

// Registry runs tasks and remembers those that have ended. All methods are
// safe for concurrent use.
type Registry struct {
	dir    string
	root   *os.Root
	lock   *os.File
	now    func() time.Time
	limits limits
	self   wire.UPID // node and process

	mu      sync.Mutex // guards what follows
	closed  bool
	counter uint64
	running map[wire.UPID]*Task
	ended   []*entry // oldest end first
	held    map[wire.AuthID]holding
	known   map[wire.UPID]*entry
	index   indexFile
	memory  []memoryLog // of tasks whose logs the disk did not take, oldest first
}

// Open opens the registry in a directory, which is made if it is missing. It
// is chunkstore.ErrLocked if a process has it open already.
func Open(dir string, o Options) (*Registry, error) {
	return open(dir, o, defaultLimits)
}

func open(dir string, o Options, l limits) (*Registry, error) {
	r := &Registry{dir: dir, now: o.Now, limits: l, running: map[wire.UPID]*Task{}, known: map[wire.UPID]*entry{}, held: map[wire.AuthID]holding{}}
	if r.now == nil {
		r.now = time.Now
	}
	r.self = wire.UPID{Node: nodeName(o.Node), PID: uint32(os.Getpid()), PStart: processStart()}
	if err := durable.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open the tasks: %w", err)
	}
	var err error
	if r.lock, err = lockDir(dir); err != nil {
		return nil, err
	}
	if r.root, err = os.OpenRoot(dir); err != nil {
		r.lock.Close()
		return nil, fmt.Errorf("open the tasks: %w", err)
	}
	if err := r.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("open the tasks in %s: %w", dir, err), r.release())
	}
	return r, nil
}

// lockDir keeps other processes out. The kernel drops the lock with the
// process.
func lockDir(dir string) (*os.File, error) {
	f, err := durable.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if errors.Is(err, unix.EROFS) {
		f, err = durable.Open(filepath.Join(dir, "lock")) // it can be locked all the same
	}
	if err != nil {
		return nil, fmt.Errorf("lock the tasks: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = fmt.Errorf("%w by another process", chunkstore.ErrLocked)
	}
	return nil, fmt.Errorf("lock the tasks in %s: %w", dir, err)
}

// nodeName chooses the host name for UPIDs.
func nodeName(want string) string {
	host, _ := os.Hostname()
	for _, s := range []string{want, host} {
		s, _, _ = strings.Cut(s, ".")
		u := wire.UPID{Node: s, Type: "x", Auth: wire.RootUser}
		if _, err := wire.ParseUPID(u.String()); err == nil {
			return s
		}
	}
	return "localhost"
}

// Close cancels what runs and waits until it has ended or ctx has. A task
// that goes on after that will be "unknown" at the next Open, unless it ends
// before the process does.
func (r *Registry) Close(ctx context.Context) error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return nil
	}
	r.closed = true
	var tasks []*Task
	for _, t := range r.running {
		tasks = append(tasks, t)
	}
	r.mu.Unlock()
	for _, t := range tasks {
		t.abort(ErrAborted)
	}
	left := 0
	for _, t := range tasks {
		select {
		case <-t.done:
		case <-ctx.Done():
			left++
		}
	}
	err := r.release()
	if left > 0 {
		err = errors.Join(fmt.Errorf("close the tasks: %d still running: %w", left, ctx.Err()), err)
	}
	return err
}

// release gives back what Open took.
func (r *Registry) release() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.memory {
		m.f.Close()
	}
	r.memory = nil
	if err := errors.Join(r.index.close(), r.root.Close(), r.lock.Close()); err != nil {
		return fmt.Errorf("close the tasks: %w", err)
	}
	return nil
}
