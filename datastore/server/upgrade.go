package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"holdfast/chunkstore"
	"holdfast/datastore"
	"holdfast/datastore/access"
	"holdfast/datastore/server/front"
	"holdfast/datastore/server/rest"
	"holdfast/datastore/task"
	"holdfast/datastore/wire"
)

// checkUpgrade checks that a request asks for the protocol, on a connection that
// can leave HTTP/1.1.
func checkUpgrade(r *http.Request, protocol string) error {
	switch asked := r.Header.Get("Upgrade"); {
	case asked == "":
		return rest.BadRequest("missing Upgrade header")
	case asked != protocol:
		return rest.BadRequest("invalid protocol name")
	case r.ProtoMajor != 1:
		return rest.BadRequest("only an HTTP/1.1 connection can be upgraded")
	}
	return nil
}

// session is what speaks on an upgraded connection.
type session interface {
	// methods is the table of what the session answers.
	methods() []method
	// leave is called when the connection has ended; handlers may still run.
	leave()
	// end gives back what the session holds and says how it ended. ctx is
	// that of its task.
	end(ctx context.Context) error
}

// backupUpgrade begins a backup session. The checks are those of section 2.1 of
// the protocol specification, in its order.
func (s *Server) backupUpgrade(c *call) (any, error) {
	path := access.DatastorePath(c.Str("store"), c.Namespace())
	have, err := s.o.Access.Privileges(c.auth, path)
	if err != nil {
		return nil, err
	}
	if !have.Any(c.may.Own) {
		return nil, rest.Refuse(wire.ErrPermission, "missing permissions 'Datastore.Backup' on '%s'", path)
	}
	st, err := c.writable()
	if err != nil {
		return nil, err
	}
	if err := checkUpgrade(c.Request, wire.BackupProtocol); err != nil {
		return nil, err
	}
	if _, err := st.Namespaces(c.Context(), c.Namespace()); errors.Is(err, chunkstore.ErrNotExist) {
		return nil, rest.NotFound("namespace not found")
	} else if err != nil {
		return nil, err
	}
	benchmark := c.Bool("benchmark", false)
	if err := checkBenchmark(c.Group(), benchmark); err != nil {
		return nil, err
	}
	quota, err := s.reserve(c, !benchmark)
	if err != nil {
		return nil, err
	}
	needs := rights{path: path, any: c.may.Own}
	if !benchmark {
		needs.owner = func() (wire.AuthID, error) { return st.OwnerNow(c.Group()) }
	}
	inner, err := s.beginSession(c, st, needs)
	if err != nil {
		quota.End(false)
		return nil, err
	}
	spec := task.Spec{Type: "backup", ID: c.Str("store") + ":" + c.Group().String(), Auth: c.auth}
	if benchmark {
		spec.Type = "benchmark"
	}
	return nil, s.upgrade(c, opening{
		store: st, spec: spec, protocol: wire.BackupProtocol,
		rights: needs,
		cancel: func() error {
			quota.End(false)
			return inner.Close()
		},
		start: func(v *conversation) session {
			b := newBackup(v, inner, quota)
			b.benchmark = benchmark
			b.basis = s.bases.begin(c.Str("store"), c.auth, inner)
			b.verify = v.verifyNew(c, st)
			b.announce(c)
			return b
		},
	})
}

// verifyNew returns what starts the verification of a new snapshot, nil if the
// datastore does not want that.
func (v *conversation) verifyNew(c *call, st *openStore) func() {
	d, err := v.server.o.Access.Datastore(c.Str("store"))
	if err != nil || !d.VerifyNew || c.Bool("benchmark", false) {
		return nil
	}
	g, when := c.Group(), c.Snapshot().Time
	spec := task.Spec{Type: "verify", ID: fmt.Sprintf("%s:%s/%08X", c.Str("store"), g, when), Auth: c.auth}
	job := verification{server: v.server, payer: v.payer, st: st, only: when, days: -1}
	return func() {
		if err := job.soon(spec, g); err != nil {
			v.task.Warnf("the new snapshot is not verified: %v", err)
		}
	}
}

// groupPatience is how long a new session waits for another one of its group:
// that a client has broken off its session, the server learns a moment later.
const groupPatience = 2 * time.Second

// soon begins a verification as a task when its owner's turn for one has come. A night
// has more new snapshots than anybody may have tasks.
func (v *verification) soon(spec task.Spec, g wire.Group) error {
	s := v.server
	place, err := s.accounts.VerifyNew.Try(v.payer, 1)
	if err != nil {
		return err
	}
	v.st.users.Add(1)
	end := func() {
		v.st.release()
		place.Free()
	}
	go func() {
		job, err := s.accounts.Jobs.Take(s.ctx, v.payer, 1)
		if err != nil {
			end() // so does the server
			return
		}
		_, err = s.o.Tasks.Go(spec, func(t *task.Task) error {
			defer end()
			defer job.Free()
			return v.run(t, []wire.Group{g})
		})
		if err != nil {
			job.Free()
			end()
			s.o.Log.Warn("a new snapshot is not verified", "snapshot", spec.ID, "error", err)
		}
	}()
	return nil
}

// beginSession takes the steps 7 to 11 of section 2.1.
func (s *Server) beginSession(c *call, st *openStore, needs rights) (*datastore.Session, error) {
	// What was allowed when the session began may not be when it ends.
	still := &conversation{server: s, auth: c.auth, pass: c.pass, rights: needs}
	inner, err := st.BeginSession(c.Context(), datastore.SessionOptions{
		Snapshot: c.Snapshot(), Owner: c.auth, Foreign: true, Benchmark: needs.owner == nil, Patience: groupPatience,
		Allowed: func() error { _, err := still.allowed(); return err }})
	switch {
	case errors.Is(err, wire.ErrBusy):
		return nil, rest.Refuse(wire.ErrBusy, "unable to acquire lock on group %s, another backup is already running: %v", c.Group(), err)
	case errors.Is(err, datastore.ErrOwner):
		if err := c.owned(st, c.Group()); err != nil {
			return nil, err
		}
		return nil, rest.Refuse(wire.ErrOwner, "backup owner check failed")
	case errors.Is(err, wire.ErrExists):
		return nil, tooOld(err)
	case errors.Is(err, chunkstore.ErrNotExist):
		return nil, rest.NotFound("namespace not found")
	}
	return inner, err
}

// tooOld tells which of the two reasons of section 2.1 of the protocol
// specification a session was refused for: its time, or its directory.
func tooOld(reason error) error {
	if errors.Is(reason, datastore.ErrOlder) {
		return rest.Refuse(wire.ErrExists, "backup timestamp is older than last backup.")
	}
	return rest.Refuse(wire.ErrExists, "backup directory already exists.")
}

// readerUpgrade begins a reader session. The checks are those of section 3.1 of
// the protocol specification, in its order.
func (s *Server) readerUpgrade(c *call) (any, error) {
	path := access.DatastorePath(c.Str("store"), c.Namespace())
	have, err := s.o.Access.Privileges(c.auth, path)
	if err != nil {
		return nil, err
	}
	if !have.Any(c.may.Any | c.may.Own) {
		return s.metadataUpgrade(c, path, have)
	}
	st, err := c.store()
	if err != nil {
		return nil, err
	}
	if err := checkUpgrade(c.Request, wire.ReaderProtocol); err != nil {
		return nil, err
	}
	absent := rest.Refuse(chunkstore.ErrNotExist, "snapshot %s does not exist.", c.Snapshot())
	if !have.Any(c.may.Any) {
		owner, err := st.Owner(c.Group())
		if errors.Is(err, chunkstore.ErrNotExist) {
			return nil, absent
		}
		if err != nil {
			return nil, err
		}
		if !c.auth.Owns(owner) {
			return nil, rest.Refuse(wire.ErrOwner, "backup owner check failed!")
		}
	}
	snapshot, err := st.Open(c.Context(), c.Snapshot())
	if errors.Is(err, chunkstore.ErrNotExist) {
		return nil, absent
	}
	if err != nil {
		return nil, err
	}
	return nil, s.upgrade(c, opening{
		store: st, spec: readerSpec(c), protocol: wire.ReaderProtocol,
		rights: rights{path: path, any: c.may.Any | c.may.Own, all: c.may.Any,
			owner: func() (wire.AuthID, error) { return st.OwnerNow(c.Group()) }},
		cancel: snapshot.Close,
		start: func(v *conversation) session {
			v.task.Logf("reading %s from datastore '%s' for %s", c.Snapshot(), c.Str("store"), c.auth)
			return newReading(v, snapshot)
		},
	})
}

// readerSpec is the task of a reader session.
func readerSpec(c *call) task.Spec {
	return task.Spec{Type: "reader", ID: fmt.Sprintf("%s:%s/%08X", c.Str("store"), c.Group(), c.Snapshot().Time), Auth: c.auth}
}

// opening is a session that has passed all checks.
type opening struct {
	store    *openStore
	spec     task.Spec
	protocol string
	rights   rights
	start    func(*conversation) session
	// cancel gives back what the session holds if it does not start.
	cancel func() error
}

// upgrade begins the task of a session, takes the connection out of HTTP/1.1 and
// leaves the rest to a goroutine.
func (s *Server) upgrade(c *call, o opening) (err error) {
	done, ok := s.track()
	if !ok {
		err = rest.Refuse(wire.ErrFull, "server is shutting down")
		return errors.Join(err, o.cancel())
	}
	window, err := s.accounts.Window(c.payer)
	if err != nil {
		done()
		return errors.Join(err, o.cancel())
	}
	t, err := s.o.Tasks.Begin(s.ctx, o.spec)
	if err != nil {
		window.Free()
		done()
		return errors.Join(err, o.cancel())
	}
	u, err := front.Hijack(c.ResponseWriter)
	if err != nil {
		err = errors.Join(rest.BadRequest("the connection cannot be upgraded: %v", err), o.cancel())
		window.Free()
		t.End(err)
		done()
		return err
	}
	o.store.users.Add(1) // the call holds it until it returns
	leave := c.takePlace()
	v := s.newConversation(c, t)
	v.rights, v.window = o.rights, window
	v.given = o.store.OwnersChanged
	running := o.start(v)
	go func() {
		defer done()
		defer leave()
		defer v.window.Free()
		defer u.Close()
		ended := s.metrics.Session(o.spec.Type)
		last, err := v.converse(u, running, o.protocol)
		t.End(err)
		ended()
		o.store.release()
		if last != nil {
			until, cancel := context.WithTimeout(s.ctx, farewell)
			defer cancel()
			last.Linger(until)
		}
	}()
	return rest.ErrAnswered
}

// answerWait is how long the client may take to read the 101.
const answerWait = time.Minute

// farewell is how long the connection of a session that was stopped stays open, so
// that a client in the middle of its work is told why it gets nothing more. It keeps
// its place in the account of whoever opened it meanwhile.
const farewell = 10 * time.Second

// converse answers the upgrade and runs the session to its end. The connection may
// still be open then: nil if it never spoke HTTP/2.
func (v *conversation) converse(u *front.Upgraded, running session, protocol string) (last *front.Line, err error) {
	ctx := v.ctx
	defer v.lull.stop()
	defer v.guarded()()
	_ = u.SetDeadline(time.Now().Add(answerWait))
	_, err = fmt.Fprintf(u, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: %s\r\n%s: %s\r\n\r\n",
		protocol, wire.ExtensionHeader, wire.ExtensionVersion)
	if err == nil {
		_ = u.SetDeadline(time.Time{})
		l := &v.server.o.Limits
		last = front.ServeH2(ctx, u, v.handler(running.methods()), front.H2Options{Window: int(v.window.Size()), Gone: running.leave, Heard: v.patience.Heard,
			Late: func() bool { return v.stopped() != nil }, Refuse: v.refuse,
			Log: slog.NewLogLogger(v.server.o.Log.Handler(), slog.LevelDebug), Stall: l.WriteTimeout, Answer: l.StallTimeout})
	}
	return last, running.end(ctx)
}

// stopped is what a client is told whose session somebody has stopped, or the server
// has ended, nil if nobody has.
func (v *conversation) stopped() error {
	cause := context.Cause(v.ctx)
	var by *task.StopError
	if errors.As(cause, &by) {
		return rest.Refuse(wire.ErrStopped, "the session was %v: %v", by, wire.ErrStopped)
	}
	var ended *endedError
	if errors.As(cause, &ended) {
		return ended.why
	}
	return nil
}

// refuse answers a request that comes after the session has ended.
func (v *conversation) refuse(w http.ResponseWriter, r *http.Request) {
	err := v.stopped()
	if err == nil {
		panic(http.ErrAbortHandler) // the connection has ended
	}
	v.answer(&call{ResponseWriter: w, Request: r, server: v.server}, nil, err)
}

// interrupted is why a session whose context was cancelled has ended.
func interrupted(ctx context.Context) error {
	cause := context.Cause(ctx)
	if errors.Is(cause, task.ErrAborted) || errors.As(cause, new(*endedError)) {
		return cause
	}
	return errors.New("the server has ended")
}
