package budget

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Limits bounds what callers can take. A zero field means its default.
type Limits struct {
	Connections int // at once; default 1024, and no more than file descriptors allow
	PerAddress  int // of one IPv4 address or IPv6 /64 before it has logged in; default 256
	// PerToken are requests and sessions at once of one user or token;
	// default 256.
	PerToken int
	// References is how many chunks all sessions at once may refer to, those of one
	// user three fifths of that; default 10 million, at most 1<<31. Each takes some 24
	// bytes of memory.
	References int
	// ReservedFiles are file descriptors kept for datastores; default 256.
	ReservedFiles    int
	HeaderTimeout    time.Duration // for the head of a request; default 10 s
	HandshakeTimeout time.Duration // for TLS; default 10 s, or HeaderTimeout if that is longer
	IdleTimeout      time.Duration // between requests; default 2 min
	// BodyTimeout is how long a body may pause, and how long it may take
	// before BodyRate counts, if its sender has not logged in; default 30 s.
	BodyTimeout time.Duration
	// StallTimeout is the same for who has logged in, and how long nothing may
	// come of a session in the middle of an upload; default 5 min. Machines
	// are suspended, and lines are slow.
	StallTimeout time.Duration
	// BodyRate is the least that a body must bring, in bytes a second;
	// default 1024.
	BodyRate int
	// WriteTimeout is how long a peer may not read an answer; default 5 min.
	WriteTimeout time.Duration
	// SessionIdleTime is after how long without a request a backup session ends;
	// default 6 h. It keeps its group from others, and its client may have to wait
	// for what it is to send.
	SessionIdleTime time.Duration
	// FinishedTime is how long a backup session lives when its snapshot is
	// finished; default 10 min.
	FinishedTime time.Duration
	// LoginDelay and DenyDelay hold back the answers 401 and 403; default 3 s
	// and 0.5 s, negative for none.
	LoginDelay, DenyDelay time.Duration
	// DelayedAnswers is how many answers wait at once; default 64.
	DelayedAnswers int
	// LockWait is how long to wait for a datastore that another process has
	// open; default 0.
	LockWait time.Duration
}

// WithDefaults gives the fields that are zero their defaults.
func (l Limits) WithDefaults() Limits {
	for _, f := range []struct {
		field *int
		value int
	}{
		{&l.Connections, 1024}, {&l.PerAddress, 256}, {&l.PerToken, 256}, {&l.References, knownDefault}, {&l.ReservedFiles, 256}, {&l.BodyRate, 1024}, {&l.DelayedAnswers, 64},
	} {
		if *f.field <= 0 {
			*f.field = f.value
		}
	}
	for _, f := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&l.HeaderTimeout, 10 * time.Second}, {&l.HandshakeTimeout, max(10*time.Second, l.HeaderTimeout)}, {&l.IdleTimeout, 2 * time.Minute},
		{&l.BodyTimeout, 30 * time.Second}, {&l.StallTimeout, 5 * time.Minute}, {&l.WriteTimeout, 5 * time.Minute},
		{&l.SessionIdleTime, 6 * time.Hour}, {&l.FinishedTime, 10 * time.Minute},
		{&l.LoginDelay, 3 * time.Second}, {&l.DenyDelay, 500 * time.Millisecond},
	} {
		if *f.field == 0 {
			*f.field = f.value
		}
	}
	l.References = min(l.References, knownMax)
	return l
}

// WithinFiles raises the number of files that the process may open as far as
// it may, and lowers the number of connections to what is left of it.
func (l Limits) WithinFiles() (Limits, error) {
	free, err := freeFiles(l.ReservedFiles)
	if err != nil {
		return l, err
	}
	l.Connections = min(l.Connections, free)
	return l, nil
}

// freeFiles is how many files the process may open besides those that are reserved for
// datastores. It raises that as far as it may.
func freeFiles(reserved int) (int, error) {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return 0, fmt.Errorf("limit of open files: %w", err)
	}
	if r.Cur < r.Max {
		raised := unix.Rlimit{Cur: r.Max, Max: r.Max}
		if unix.Setrlimit(unix.RLIMIT_NOFILE, &raised) == nil {
			r = raised
		}
	}
	const most = 1 << 20 // the limit may be "unlimited"
	free := int(min(r.Cur, most)) - reserved
	if free < 1 {
		return 0, fmt.Errorf("limit of open files is %d, and %d are reserved for datastores", r.Cur, reserved)
	}
	return free, nil
}
