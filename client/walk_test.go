package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/client/backup"
	"holdfast/client/restore"
	"holdfast/crypto"
	"holdfast/datastore"
	"holdfast/datastore/access"
	"holdfast/datastore/server"
	"holdfast/datastore/task"
	"holdfast/datastore/wire"
)

// half is one direction of a connection in memory. It takes whatever is written
// to it, as the buffers of a system do.
type half struct {
	mu       sync.Mutex
	change   chan struct{} // closed and made anew with every change
	data     []byte
	err      error // after data
	deadline time.Time
}

func newHalf() *half { return &half{change: make(chan struct{})} }

// alter changes the half and wakes who waits.
func (h *half) alter(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
	close(h.change)
	h.change = make(chan struct{})
}

func (h *half) read(p []byte) (int, error) {
	for {
		h.mu.Lock()
		n := copy(p, h.data)
		h.data = h.data[n:]
		err, change, deadline := h.err, h.change, h.deadline
		h.mu.Unlock()
		left := time.Until(deadline)
		switch {
		case n > 0 || len(p) == 0:
			return n, nil
		case err != nil:
			return 0, err
		case deadline.IsZero():
			<-change
		case left <= 0:
			return 0, os.ErrDeadlineExceeded
		default:
			t := time.NewTimer(left)
			select {
			case <-change:
			case <-t.C:
			}
			t.Stop()
		}
	}
}

// fault is what happens to a connection at the at-th write of either end.
type fault struct {
	kind string // "silent", "closed", "reset" or "interrupted"
	at   int
	stop func() // for the last of them: it is not the network then
}

// wires is a network in memory with one server on it.
type wires struct {
	accept chan net.Conn
	closed chan struct{}

	mu     sync.Mutex
	fault  fault
	writes int
	all    []*end
	broken bool
}

func newWires() *wires { return &wires{accept: make(chan net.Conn), closed: make(chan struct{})} }

func (w *wires) Accept() (net.Conn, error) {
	select {
	case c := <-w.accept:
		return c, nil
	case <-w.closed:
		return nil, net.ErrClosed
	}
}
func (w *wires) Close() error   { close(w.closed); return nil }
func (w *wires) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8007} }

// end is one end of a connection.
type end struct {
	net   *wires
	in    *half
	other *end
}

func (w *wires) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	near, far := &end{net: w, in: newHalf()}, &end{net: w, in: newHalf()}
	near.other, far.other = far, near
	w.mu.Lock()
	w.all = append(w.all, near, far)
	w.mu.Unlock()
	select {
	case w.accept <- far:
		return near, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// arm sets the next fault, and hangs up what is left of the last one.
func (w *wires) arm(f fault) {
	w.mu.Lock()
	old := w.all
	w.all, w.fault, w.writes, w.broken = nil, f, 0, false
	w.mu.Unlock()
	for _, e := range old {
		e.in.alter(func() { e.in.err = io.EOF })
	}
}

// passes counts a write and tells whether it arrives. From the fault on the
// network stays as it is.
func (w *wires) passes() (ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.writes++
	if w.fault.at == 0 || w.writes < w.fault.at {
		return true
	}
	if w.fault.stop != nil {
		w.fault.stop()
		return true
	}
	if !w.broken && w.fault.kind != "silent" {
		err := io.EOF
		if w.fault.kind == "reset" {
			err = net.ErrClosed
		}
		for _, e := range w.all {
			e.in.alter(func() { e.in.err = err })
		}
	}
	w.broken = true
	return false
}

func (e *end) Read(p []byte) (int, error) { return e.in.read(p) }

func (e *end) Write(p []byte) (int, error) {
	if !e.net.passes() {
		if e.net.fault.kind == "silent" {
			return len(p), nil
		}
		return 0, errors.New("broken pipe")
	}
	e.other.in.alter(func() { e.other.in.data = append(e.other.in.data, p...) })
	return len(p), nil
}

func (e *end) Close() error {
	e.in.alter(func() { e.in.err = net.ErrClosed })
	e.net.mu.Lock()
	heard := !e.net.broken
	e.net.mu.Unlock()
	if heard {
		e.other.in.alter(func() {
			if e.other.in.err == nil {
				e.other.in.err = io.EOF
			}
		})
	}
	return nil
}
func (e *end) LocalAddr() net.Addr  { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }
func (e *end) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 2} }
func (e *end) SetDeadline(t time.Time) error {
	return e.SetReadDeadline(t)
}
func (e *end) SetReadDeadline(t time.Time) error {
	e.in.alter(func() { e.in.deadline = t })
	return nil
}
func (e *end) SetWriteDeadline(time.Time) error { return nil }

// walkLab is a real server on a network in memory.
type walkLab struct {
	*testing.T
	net    *wires
	server *server.Server
	secret string
	print  string
	image  string
	size   int64
	stamp  int64
}

func newWalkLab(t *testing.T, files string) *walkLab {
	l := &walkLab{T: t, net: newWires(), stamp: 1000}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	dir := filepath.Join(files, "data")
	must(os.Mkdir(dir, 0o700))
	users, err := access.Open(filepath.Join(dir, "access"), access.Options{})
	must(err)
	tasks, err := task.Open(filepath.Join(dir, "tasks"), task.Options{Node: "lab"})
	must(err)
	must(datastore.Create(filepath.Join(dir, "tank")))
	must(users.AddDatastore(access.Datastore{Name: "tank", Path: filepath.Join(dir, "tank")}))
	l.secret, err = users.CreateToken(access.Token{ID: "root@pam!lab", Enabled: true})
	must(err)
	must(users.SetACL(access.ACL{Path: "/", Role: "Admin", ID: "root@pam!lab", Propagate: true}))
	cert, err := server.EnsureCertificate(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), []string{"localhost"})
	must(err)
	l.print = cert.Fingerprint()
	l.server, err = server.New(server.Options{DataDir: dir, Access: users, Tasks: tasks})
	must(err)
	served := make(chan error, 1)
	go func() { served <- l.server.Serve(context.Background(), l.net, cert.Config()) }()
	t.Cleanup(func() {
		l.net.arm(fault{})
		if err := l.server.Close(); err != nil {
			t.Log(err)
		}
		<-served
		users.Close()
	})
	content := make([]byte, 300_000)
	rand.NewChaCha8([32]byte{7}).Read(content)
	l.image, l.size = filepath.Join(files, "disk.raw"), int64(len(content))
	must(os.WriteFile(l.image, content, 0o600))
	return l
}

func (l *walkLab) dial(ctx context.Context) (*Client, error) {
	return Dial(ctx, Options{
		Repository:  wire.Repository{AuthID: "root@pam!lab", Host: "127.0.0.1", Datastore: "tank"},
		Secret:      func(context.Context) (string, error) { return l.secret, nil },
		Fingerprint: l.print, Dial: l.net.dial, Connections: 1,
	})
}

var walkGroup = wire.Group{Type: "vm", ID: "1"}

// backup makes the next snapshot.
func (l *walkLab) backup(ctx context.Context, c *Client) error {
	l.stamp++
	s := wire.Snapshot{Group: walkGroup, Time: l.stamp}
	_, err := backup.Run(ctx, backup.Options{
		Target: c, Snapshot: s, Mode: crypto.ModeNone, Workers: 1,
		Archives: []backup.Archive{{Name: "disk.img", Path: l.image}},
	})
	return err
}

func (l *walkLab) restore(ctx context.Context, c *Client) error {
	_, err := restore.Run(ctx, restore.Options{
		Source: c, Snapshot: wire.Snapshot{Group: walkGroup, Time: 1000}, Archive: "disk.img", Target: "-", Out: io.Discard, Workers: 1,
	})
	return err
}

func (l *walkLab) collect(ctx context.Context, c *Client) error {
	var upid string
	call := Call{Method: "POST", Path: "/admin/datastore/tank/gc", Into: &upid}
	if err := c.Do(ctx, call); err != nil {
		return err
	}
	return c.FollowTask(ctx, upid, func(string) {})
}

func (l *walkLab) list(ctx context.Context, c *Client) error {
	_, err := c.Snapshots(ctx, walkGroup)
	return err
}

// exists looks on the disk whether the newest snapshot was made.
func (l *walkLab) exists() bool {
	c, err := l.dial(l.Context())
	if err != nil {
		l.Fatal(err)
	}
	defer c.Close()
	list, err := c.Snapshots(l.Context(), walkGroup)
	if err != nil {
		l.Fatal(err)
	}
	return list[len(list)-1].Snapshot.Time == l.stamp
}

// The longest that anything may take: a session that hangs is asked about for
// an hour while its server holds on to it.
const walkMost = 90 * time.Minute

// At whatever point the other end falls silent, hangs up or is gone, a command
// ends in bounded time: done, or with ErrUnavailable, and a backup says truly
// whether the snapshot was made.
func TestWalkOfLostConnections(t *testing.T) {
	for _, name := range []string{"list", "backup", "restore", "gc"} {
		for _, kind := range []string{"silent", "closed", "reset", "interrupted"} {
			t.Run(name+" "+kind, func(t *testing.T) {
				files := t.TempDir()
				synctest.Test(t, func(t *testing.T) { walk(newWalkLab(t, files), name, kind) })
			})
		}
	}
}

func walk(l *walkLab, name, kind string) {
	do := map[string]func(context.Context, *Client) error{
		"list": l.list, "backup": l.backup, "restore": l.restore, "gc": l.collect,
	}[name]
	run := func(ctx context.Context) error {
		c, err := l.dial(ctx)
		if err != nil {
			return err
		}
		defer c.Close()
		return do(ctx, c)
	}
	l.stamp = 999
	c, err := l.dial(l.Context())
	if err != nil {
		l.Fatal(err)
	}
	if err := l.backup(l.Context(), c); err != nil {
		l.Fatal(err)
	}
	c.Close()
	l.net.arm(fault{})
	if err := run(l.Context()); err != nil {
		l.Fatalf("without a fault: %v", err)
	}
	l.net.mu.Lock()
	points := l.net.writes
	l.net.mu.Unlock()
	if points < 4 {
		l.Fatalf("only %d writes", points)
	}
	var failed int
	for at := 1; at <= points; at++ {
		ctx, cancel := context.WithCancel(l.Context())
		f := fault{kind: kind, at: at}
		if kind == "interrupted" {
			f.stop = cancel
		}
		l.net.arm(f)
		began := time.Now()
		err := run(ctx)
		cancel()
		if took := time.Since(began); took > walkMost {
			l.Errorf("at %d of %d: it took %v", at, points, took)
		}
		l.net.arm(fault{})
		if err != nil {
			failed++
		}
		if kind == "interrupted" && errors.Is(err, context.Canceled) && !errors.Is(err, wire.ErrUnknown) {
			err = ErrUnavailable // to be judged like any end without a snapshot
		}
		l.judge(name, fmt.Sprintf("at %d of %d", at, points), err)
	}
	if failed == 0 && kind != "interrupted" {
		l.Error("nothing has failed")
	}
}

func (l *walkLab) judge(name, at string, err error) {
	unknown := errors.Is(err, wire.ErrUnknown)
	if err != nil && !unknown && !errors.Is(err, ErrUnavailable) || errors.Is(err, context.Canceled) {
		l.Errorf("%s: %v", at, err)
	}
	time.Sleep(time.Hour) // what the server still does has come to an end
	if name != "backup" {
		return
	}
	if made := l.exists(); !unknown && made != (err == nil) {
		l.Errorf("%s: the snapshot exists: %v, and the client says %v", at, made, err)
	}
}
