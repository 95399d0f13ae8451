package server

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
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

func (l Limits) withDefaults() Limits {
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

// withinFiles raises the number of files that the process may open as far as
// it may, and lowers the number of connections to what is left of it.
func (l Limits) withinFiles() (Limits, error) {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return l, fmt.Errorf("limit of open files: %w", err)
	}
	if r.Cur < r.Max {
		raised := unix.Rlimit{Cur: r.Max, Max: r.Max}
		if unix.Setrlimit(unix.RLIMIT_NOFILE, &raised) == nil {
			r = raised
		}
	}
	const most = 1 << 20 // the limit may be "unlimited"
	free := int(min(r.Cur, most)) - l.ReservedFiles
	if free < 1 {
		return l, fmt.Errorf("limit of open files is %d, and %d are reserved for datastores", r.Cur, l.ReservedFiles)
	}
	l.Connections = min(l.Connections, free)
	return l, nil
}

// neighbours are the addresses that count as one.
func neighbours(a netip.Addr) netip.Prefix {
	bits := 64
	if a = a.Unmap(); a.Is4() {
		bits = 32
	}
	p, err := a.WithZone("").Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

// boundBody gives the body of a request a deadline that moves only while bytes
// flow.
func (s *Server) boundBody(w http.ResponseWriter, r *http.Request) {
	if r.Body == nil || r.Body == http.NoBody {
		return
	}
	l := &s.o.Limits
	b := &flowingBody{ReadCloser: r.Body, pause: l.BodyTimeout, rate: l.BodyRate, start: time.Now(), control: http.NewResponseController(w)}
	// For a body that no method reads: net/http reads what is left of it.
	b.extend()
	r.Body = b
}

// flowingBody is a body that ends in an error when it comes too slowly.
type flowingBody struct {
	io.ReadCloser
	pause   time.Duration
	rate    int // bytes a second
	control *http.ResponseController
	start   time.Time
	got     int64
}

// extend moves the deadline. Not every transport has one: in process there is
// none.
func (b *flowingBody) extend() {
	earned := time.Duration(float64(b.got) / float64(b.rate) * float64(time.Second))
	deadline := b.start.Add(b.pause + earned)
	if pause := time.Now().Add(b.pause); pause.Before(deadline) {
		deadline = pause
	}
	_ = b.control.SetReadDeadline(deadline)
}

// trust gives the body of a request that has been authenticated more time.
func (s *Server) trust(r *http.Request) {
	if b, ok := r.Body.(*flowingBody); ok {
		b.pause = max(b.pause, s.o.Limits.StallTimeout)
		b.extend()
	}
}

// Read implements io.Reader.
func (b *flowingBody) Read(p []byte) (int, error) {
	b.extend()
	n, err := b.ReadCloser.Read(p)
	b.got += int64(n)
	if errors.Is(err, io.EOF) {
		_ = b.control.SetReadDeadline(time.Time{})
	}
	return n, err
}
