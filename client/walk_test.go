package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
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
	"holdfast/datastore/server/front"
	"holdfast/datastore/task"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
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
// network stays as it is; silent, it tells nobody that nothing arrives.
func (w *wires) passes() (ok, silent bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.writes++
	if w.fault.at == 0 || w.writes < w.fault.at {
		return true, false
	}
	if w.fault.stop != nil {
		w.fault.stop()
		return true, false
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
	return false, w.fault.kind == "silent"
}

func (e *end) Read(p []byte) (int, error) { return e.in.read(p) }

func (e *end) Write(p []byte) (int, error) {
	switch ok, silent := e.net.passes(); {
	case silent:
		return len(p), nil
	case !ok:
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
	net    *wires // to its port
	socket *wires // and to its socket
	server *server.Server
	secret string
	print  string
	image  string
	size   int64
	stamp  int64
}

func newWalkLab(t *testing.T, files string, user bool) *walkLab {
	l := &walkLab{T: t, net: newWires(), socket: newWires(), stamp: 1000}
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
	must(datastore.Create(filepath.Join(dir, "tank"), datastore.CreateOptions{TrashDays: datastore.TrashDaysDefault}))
	must(users.AddDatastore(access.Datastore{Name: "tank", Path: filepath.Join(dir, "tank")}))
	l.secret, err = users.CreateToken(access.Token{ID: "root@pam!lab", Enabled: true})
	must(err)
	must(users.SetACL(access.ACL{Path: "/", Role: "Admin", ID: "root@pam!lab", Propagate: true}))
	if user {
		must(users.CreateUser(access.User{ID: walkUser, Enabled: true}, walkPassword))
		must(users.SetACL(access.ACL{Path: "/", Role: "Admin", ID: walkUser, Propagate: true}))
	}
	cert, err := front.EnsureCertificate(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), []string{"localhost"})
	must(err)
	l.print = cert.Fingerprint()
	l.server, err = server.New(server.Options{DataDir: dir, Access: users, Tasks: tasks})
	must(err)
	served := make(chan error, 2)
	go func() { served <- l.server.Serve(context.Background(), l.net, cert.Config()) }()
	go func() { served <- l.server.ServeLocal(context.Background(), l.socket) }()
	t.Cleanup(func() {
		l.net.arm(fault{})
		l.socket.arm(fault{})
		if err := l.server.Close(); err != nil {
			t.Log(err)
		}
		<-served
		<-served
		users.Close()
	})
	content := make([]byte, 300_000)
	rand.NewChaCha8([32]byte{7}).Read(content)
	l.image, l.size = filepath.Join(files, "disk.raw"), int64(len(content))
	must(os.WriteFile(l.image, content, 0o600))
	return l
}

// walkUser logs in with walkPassword.
const walkUser, walkPassword = "alice@pbs", "a long password"

// caller is how a command reaches the server.
type caller int

const (
	byToken caller = iota
	byPassword
	bySocket
)

// wires are those that a caller uses.
func (l *walkLab) wires(as caller) *wires {
	if as == bySocket {
		return l.socket
	}
	return l.net
}

func (l *walkLab) options(as caller) Options {
	id, secret := "root@pam!lab", l.secret
	if as == byPassword {
		id, secret = walkUser, walkPassword
	}
	return Options{
		Repository:  wire.Repository{AuthID: id, Host: "127.0.0.1", Datastore: "tank"},
		Secret:      func(context.Context) (string, error) { return secret, nil },
		Fingerprint: l.print, Dial: l.net.dial, Connections: 1,
	}
}

func (l *walkLab) dial(ctx context.Context, as caller) (*Client, error) {
	if as == bySocket {
		return local(func(ctx context.Context) (net.Conn, error) { return l.socket.dial(ctx, "", "") }, 0), nil
	}
	return Dial(ctx, l.options(as))
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

func (l *walkLab) collect(ctx context.Context, c *Client) error { return l.job(ctx, c, api.StartGC) }
func (l *walkLab) verify(ctx context.Context, c *Client) error  { return l.job(ctx, c, api.Verify) }

// job begins a task and waits for its end.
func (l *walkLab) job(ctx context.Context, c *Client, op api.Op) error {
	var upid string
	call := Call{Op: op, At: []string{"tank"}, Into: &upid}
	if err := c.Do(ctx, call); err != nil {
		return err
	}
	return c.FollowTask(ctx, upid, func(string) {})
}

func (l *walkLab) list(ctx context.Context, c *Client) error {
	_, err := c.Snapshots(ctx, walkGroup)
	return err
}

func (l *walkLab) forget(ctx context.Context, c *Client) error {
	return c.Forget(ctx, wire.Snapshot{Group: walkGroup, Time: l.stamp})
}

func (l *walkLab) prune(ctx context.Context, c *Client) error {
	params := url.Values{"backup-type": {walkGroup.Type}, "backup-id": {walkGroup.ID}, "keep-last": {"1"}}
	return c.Do(ctx, Call{Op: api.PruneGroup, At: []string{"tank"}, Params: params})
}

// look fetches the certificate, as cert show does.
func (l *walkLab) look(ctx context.Context, _ *Client) error {
	cert, err := ShownCertificate(ctx, l.options(byToken))
	if err == nil && fingerprint(cert) != l.print {
		l.Errorf("another certificate: %s", fingerprint(cert))
	}
	return err
}

// exchange saves users and rights and puts them back.
func (l *walkLab) exchange(ctx context.Context, c *Client) error {
	var users json.RawMessage
	if err := c.Do(ctx, Call{Op: api.ExportAccess, Whole: &users}); err != nil {
		return err
	}
	return c.Do(ctx, Call{Op: api.ImportAccess, Body: users})
}

// times asks the server, undisturbed, for the snapshots there are.
func (l *walkLab) times() (times []int64) {
	c, err := l.dial(l.Context(), byToken)
	if err != nil {
		l.Fatal(err)
	}
	defer c.Close()
	list, err := c.Snapshots(l.Context(), walkGroup)
	if err != nil {
		l.Fatal(err)
	}
	for _, s := range list {
		times = append(times, s.Snapshot.Time)
	}
	return times
}

func (l *walkLab) count() int { return len(l.times()) }

// exists reports whether the newest snapshot was made, and is there.
func (l *walkLab) exists() bool { return slices.Contains(l.times(), l.stamp) }

// The longest that anything may take: a session that hangs is asked about for
// an hour while its server holds on to it.
const walkMost = 90 * time.Minute

// errand is something that a command asks of a server.
type errand struct {
	do func(*walkLab, context.Context, *Client) error
	// prepare is done before, undisturbed; nil is nothing.
	prepare func(*walkLab, context.Context, *Client) error
	// told looks whether an end without an error, or with ErrUnavailable, is
	// true; nil believes it.
	told func(l *walkLab, err error) bool
	as   caller
}

var errands = map[string]errand{
	"list":    {do: (*walkLab).list},
	"backup":  {do: (*walkLab).backup, told: func(l *walkLab, err error) bool { return l.exists() == (err == nil) }},
	"restore": {do: (*walkLab).restore},
	"gc":      {do: (*walkLab).collect},
	"verify":  {do: (*walkLab).verify},
	// What has ended with an error may have been done, and the error says so.
	"forget": {do: (*walkLab).forget, prepare: (*walkLab).backup, told: func(l *walkLab, err error) bool { return err != nil || !l.exists() }},
	"prune":  {do: (*walkLab).prune, prepare: (*walkLab).backup, told: func(l *walkLab, err error) bool { return err != nil || l.exists() && l.count() == 1 }},
	"login":  {do: (*walkLab).list, as: byPassword},
	"cert":   {do: (*walkLab).look},
	"socket": {do: (*walkLab).verify, as: bySocket},
	"import": {do: (*walkLab).exchange, as: bySocket},
}

// At whatever point the other end falls silent, hangs up or is gone, a command
// ends in bounded time: done, or with ErrUnavailable, and says truly whether it is
// done. With HOLDFAST_WALK=all in the environment every point is tried, otherwise
// a sample that is always the same.
func TestWalkOfLostConnections(t *testing.T) {
	for name, e := range errands {
		for _, kind := range []string{"silent", "closed", "reset", "interrupted"} {
			t.Run(name+" "+kind, func(t *testing.T) {
				t.Parallel()
				files := t.TempDir()
				synctest.Test(t, func(t *testing.T) { walk(newWalkLab(t, files, e.as == byPassword), e, kind) })
			})
		}
	}
}

// sample chooses among points that count from 1: the last ones, where things are
// done for good, and of the others some.
func sample(points int) (chosen []int) {
	const last, others = 4, 8
	step := max(1, (points-last+others-1)/others)
	for at := 1; at <= points; at++ {
		if os.Getenv("HOLDFAST_WALK") == "all" || at > points-last || at%step == 0 {
			chosen = append(chosen, at)
		}
	}
	return chosen
}

// run does an errand over a connection of its own.
func (l *walkLab) run(ctx context.Context, as caller, do func(*walkLab, context.Context, *Client) error) error {
	c, err := l.dial(ctx, as)
	if err != nil {
		return err
	}
	defer c.Close()
	return do(l, ctx, c)
}

// undisturbed does what must not fail.
func (l *walkLab) undisturbed(as caller, do func(*walkLab, context.Context, *Client) error) {
	l.Helper()
	if do == nil {
		return
	}
	if err := l.run(l.Context(), as, do); err != nil {
		l.Fatalf("without a fault: %v", err)
	}
}

// points counts the writes of an errand.
func (l *walkLab) points(e errand) int {
	l.undisturbed(byToken, e.prepare)
	line := l.wires(e.as)
	line.arm(fault{})
	l.undisturbed(e.as, e.do)
	line.mu.Lock()
	defer line.mu.Unlock()
	if line.writes < 4 {
		l.Fatalf("only %d writes", line.writes)
	}
	return line.writes
}

func walk(l *walkLab, e errand, kind string) {
	l.stamp = 999
	l.undisturbed(byToken, (*walkLab).backup)
	var failed int
	points := l.points(e)
	for _, at := range sample(points) {
		l.undisturbed(byToken, e.prepare)
		ctx, cancel := context.WithCancel(l.Context())
		f := fault{kind: kind, at: at}
		if kind == "interrupted" {
			f.stop = cancel
		}
		line := l.wires(e.as)
		line.arm(f)
		began := time.Now()
		err := l.run(ctx, e.as, e.do)
		cancel()
		if took := time.Since(began); took > walkMost {
			l.Errorf("at %d of %d: it took %v", at, points, took)
		}
		line.arm(fault{})
		if err != nil {
			failed++
		}
		if kind == "interrupted" && errors.Is(err, context.Canceled) && !errors.Is(err, wire.ErrUnknown) {
			err = ErrUnavailable // to be judged like any end without a result
		}
		l.judge(e, fmt.Sprintf("at %d of %d", at, points), err)
	}
	if failed == 0 && kind != "interrupted" {
		l.Error("nothing has failed")
	}
}

func (l *walkLab) judge(e errand, at string, err error) {
	unknown := errors.Is(err, wire.ErrUnknown)
	if err != nil && !unknown && !errors.Is(err, ErrUnavailable) || errors.Is(err, context.Canceled) {
		l.Errorf("%s: %v", at, err)
	}
	time.Sleep(time.Hour) // what the server still does has come to an end
	if e.told != nil && !unknown && !e.told(l, err) {
		l.Errorf("%s: %d snapshots, the newest exists: %v, and the client says %v", at, l.count(), l.exists(), err)
	}
}
