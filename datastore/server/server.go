package server

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"holdfast/chunkstore"
	"holdfast/datastore"
	"holdfast/datastore/access"
	"holdfast/datastore/server/budget"
	"holdfast/datastore/server/front"
	"holdfast/datastore/server/meter"
	"holdfast/datastore/server/quota"
	"holdfast/datastore/server/rest"
	"holdfast/datastore/task"
	"holdfast/datastore/wire"
)

// Options says what a server serves.
type Options struct {
	// DataDir is where datastores without a path of their own are made.
	DataDir string
	Access  *access.Store
	Tasks   *task.Registry
	Log     *slog.Logger // nil logs nothing
	Limits  budget.Limits
	// Version is what GET /version tells as "holdfast".
	Version string
	// Fingerprint of the certificate, for GET /nodes/localhost/status.
	Fingerprint string
	Now         func() time.Time // nil is time.Now
	// OpenMetrics answers /metrics without credentials to callers on this
	// machine.
	OpenMetrics bool
}

// Server answers for the datastores of one access.Store. All methods are safe
// for concurrent use.
type Server struct {
	o        Options
	tree     *rest.Tree[*call]
	front    *front.Door
	metrics  *meter.Metrics
	delays   chan struct{} // one element for each answer that is held back
	accounts *budget.Accounts
	gc       *collections
	fullness *meter.Fullness
	host     *sessionHost
	bases    bases
	rows     sync.Mutex // held while a user adds a row to a table of its own

	// ctx ends with Shutdown or Close; sessions and openings of stores live
	// within it.
	ctx    context.Context
	cancel context.CancelFunc

	mu      sync.Mutex
	closing bool
	stores  map[string]*openStore
	servers map[*http.Server]struct{}
	open    sync.WaitGroup // upgraded connections
}

// New returns a server. It opens no datastore before one is asked for.
func New(o Options) (*Server, error) {
	if o.Access == nil || o.Tasks == nil {
		return nil, fmt.Errorf("make server: access and tasks are needed: %w", chunkstore.ErrInvalid)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Limits = o.Limits.WithDefaults()
	s := &Server{
		o: o, tree: &rest.Tree[*call]{}, delays: make(chan struct{}, o.Limits.DelayedAnswers),
		stores: make(map[string]*openStore), servers: make(map[*http.Server]struct{}),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.accounts = budget.NewAccounts(o.Limits)
	s.metrics = meter.New(meter.From{Connections: func() int { return s.front.Connections() }, Stores: o.Access.Datastores})
	s.front = front.New(front.Options{Limits: o.Limits, Log: o.Log, Handler: s.Handler(), Refused: s.metrics.Refused})
	s.host = newSessionHost(o.DataDir, s.accounts, quota.Open(s.file("quota-today.json"), o.Now, o.Log))
	s.fullness = meter.NewFullness(o.Now)
	s.gc = openCollections(s.file("collections.json"), o.Log)
	for _, m := range methods() {
		s.tree.Add(&m)
	}
	return s, nil
}

// file is where the server keeps a file of its own, "" if it has no place.
func (s *Server) file(name string) string {
	if s.o.DataDir == "" {
		return ""
	}
	return filepath.Join(s.o.DataDir, name)
}

// Handler answers requests in process; who asks is what WithIdentity has put
// into the context of a request, or what its credentials say.
func (s *Server) Handler() http.Handler { return http.HandlerFunc(s.serve) }

// serve answers one request.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	rec := &recorder{ResponseWriter: w}
	id := requestID()
	log := s.o.Log.With("request", id)
	rec.Header().Set("Request-Id", id)
	start := time.Now()
	answered := s.metrics.Begin()
	defer func() {
		answered()
		if p := recover(); p != nil {
			s.panicked(rec, log, p)
		}
		took := time.Since(start)
		s.metrics.Request(r.Method, rec.status(), took)
		log.Info("request", "method", logged(r.Method), "path", logged(r.URL.Path), "from", r.RemoteAddr, "status", rec.status(), "took", took)
	}()
	front.BoundBody(rec, r, s.o.Limits)
	if g := front.PlaceOf(r.Context()); g != nil && g.Overdue(s.o.Limits.IdleTimeout) {
		rec.Header().Set("Connection", "close")
	}
	switch r.URL.Path {
	case "/healthz":
		s.health(rec, r)
	case "/metrics":
		s.respond(rec, r, s.metricsPage(rec, r))
	default:
		a := s.api(rec, r, log)
		if a.err != nil && !errors.Is(a.err, rest.ErrAnswered) {
			log.Debug("refused", "error", a.err)
		}
		s.respond(rec, r, a)
	}
}

// logged is what the log says of a text that a stranger may make up: a path may have
// 32 KiB, and nobody pays for the disk that the log lies on.
func logged(s string) string {
	const most = 256 // bytes
	if len(s) > most {
		s = s[:most] + "…"
	}
	return s
}

// panicked answers for a fault of the program; the connection ends if the
// answer had begun.
func (s *Server) panicked(w *recorder, log *slog.Logger, p any) {
	if p == http.ErrAbortHandler {
		panic(p)
	}
	log.Error("panic", "value", fmt.Sprint(p), "stack", string(debug.Stack()))
	if w.code != 0 || w.hijacked {
		panic(http.ErrAbortHandler)
	}
	http.Error(w, "internal error", http.StatusInternalServerError)
}

// health tells whether requests are still taken.
func (s *Server) health(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	closing := s.closing
	s.mu.Unlock()
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if closing {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = w.Write([]byte("shutting down\n"))
		return
	}
	// The first word is what monitors look for.
	text := "ok\n"
	if !s.o.Tasks.Kept() {
		text = "ok, but tasks are only kept in memory: the data directory is full or can only be read\n"
	}
	_, _ = w.Write([]byte(text))
}

// requestID returns 16 random hex digits.
func requestID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// Serve answers connections of a TCP listener, with TLS inside, until ctx ends
// or Shutdown is called. It closes the listener.
func (s *Server) Serve(ctx context.Context, ln net.Listener, conf *tls.Config) error {
	return s.run(ctx, s.front.Listen(s.ctx, ln, conf), nil)
}

// ServeLocal answers connections of a unix socket; all of them are root@pam. It
// closes the listener.
func (s *Server) ServeLocal(ctx context.Context, ln net.Listener) error {
	return s.run(ctx, s.front.Listen(s.ctx, ln, nil), func(base context.Context) context.Context {
		return WithIdentity(base, wire.RootUser)
	})
}

// run serves a listener until the end of ctx or of the server.
func (s *Server) run(ctx context.Context, ln net.Listener, identity func(context.Context) context.Context) error {
	srv := s.front.HTTPServer(identity)
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return errors.Join(fmt.Errorf("serve: %w", http.ErrServerClosed), ln.Close())
	}
	s.servers[srv] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.servers, srv)
		s.mu.Unlock()
	}()
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	err := srv.Serve(ln)
	if errors.Is(err, http.ErrServerClosed) || ctx.Err() != nil && errors.Is(err, net.ErrClosed) {
		return nil
	}
	return fmt.Errorf("serve %s: %w", ln.Addr(), err)
}

// track notes an upgraded connection, which Shutdown then waits for. ok is
// false when the server is ending. The context of the session is s.ctx.
func (s *Server) track() (done func(), ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return nil, false
	}
	s.open.Add(1)
	return s.open.Done, true
}

// Shutdown takes no more requests, lets those that run come to their end, ends
// sessions and tasks, and closes the datastores. If ctx ends before, datastores
// that are still used stay open and the error says so.
func (s *Server) Shutdown(ctx context.Context) error {
	servers := s.stop()
	var err error
	for _, srv := range servers {
		err = errors.Join(err, srv.Shutdown(ctx))
	}
	s.cancel()
	err = errors.Join(err, s.o.Tasks.Close(ctx), s.waitSessions(ctx))
	return errors.Join(err, s.closeStores(ctx))
}

// Close ends everything at once: connections are cut.
func (s *Server) Close() error {
	var err error
	for _, srv := range s.stop() {
		err = errors.Join(err, srv.Close())
	}
	s.cancel()
	const grace = 10 * time.Second // for sessions to notice
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	err = errors.Join(err, s.o.Tasks.Close(ctx), s.waitSessions(ctx))
	return errors.Join(err, s.closeStores(ctx))
}

// stop marks the server as ending.
func (s *Server) stop() (servers []*http.Server) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing = true
	for srv := range s.servers {
		servers = append(servers, srv)
	}
	return servers
}

func (s *Server) waitSessions(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		s.open.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("sessions are still open: %w", ctx.Err())
	}
}

// openDatastore opens a datastore; it stays open.
func (s *Server) openDatastore(d access.Datastore, t *budget.Turns, readOnly bool) (*datastore.Store, error) {
	log := s.o.Log.With("datastore", d.Name)
	return datastore.Open(s.ctx, d.Path, datastore.Options{
		ReadOnly: readOnly,
		LockWait: s.o.Limits.LockWait,
		Turns:    t,
		Notify:   func(message string) { log.Warn(message) },
	})
}
