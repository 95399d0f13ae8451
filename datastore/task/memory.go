package task

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"holdfast/chunkstore"
	"holdfast/datastore/wire"
)

// memoryLogsMax is how many logs are held in memory, memoryLogMax how long each
// may be, in bytes.
const (
	memoryLogsMax = 64
	memoryLogMax  = 256 << 10
)

// memoryLog is the log of a task that the disk did not take: a file in memory.
// It is lost with the process.
type memoryLog struct {
	upid wire.UPID
	f    *os.File
}

// createMemoryLog makes a log in memory and gives up the oldest one if there are
// too many. The writer has a file of its own, so that a log can be given up
// while its task runs. r.mu is held.
func (r *Registry) createMemoryLog(u wire.UPID) (*os.File, error) {
	fd, err := unix.MemfdCreate("task-log", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create the log in memory: %w", err)
	}
	kept := os.NewFile(uintptr(fd), "task-log")
	writer, err := reopen(kept, os.O_RDWR)
	if err != nil {
		kept.Close()
		return nil, fmt.Errorf("create the log in memory: %w", err)
	}
	if len(r.memory) == memoryLogsMax {
		r.memory[0].f.Close()
		r.memory = r.memory[1:]
	}
	r.memory = append(r.memory, memoryLog{u, kept})
	return writer, nil
}

// openMemoryLog opens the log of a task for reading, or returns
// chunkstore.ErrNotExist.
func (r *Registry) openMemoryLog(u wire.UPID) (*os.File, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.memory {
		if m.upid == u {
			return reopen(m.f, os.O_RDONLY)
		}
	}
	return nil, chunkstore.ErrNotExist
}

// reopen opens a file in memory once more, with an offset of its own.
func reopen(f *os.File, flag int) (*os.File, error) {
	return os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), flag, 0)
}

// Kept reports whether what is known of the tasks is on the disk. It is not
// where the disk is full or can only be read: then it ends with the process.
func (r *Registry) Kept() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.index.f != nil && !r.index.stale
}
