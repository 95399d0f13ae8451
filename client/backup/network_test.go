package backup

import (
	"bytes"
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"holdfast/chunkstore"
	"holdfast/client"
	"holdfast/crypto"
	"holdfast/datastore"
	"holdfast/datastore/access"
	"holdfast/datastore/server"
	"holdfast/datastore/server/front"
	"holdfast/datastore/task"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/wiretest"
)

// tap is a Target that counts what is sent, and calls cut when that is enough.
type tap struct {
	wire.Target
	cut func()

	mu     sync.Mutex
	sent   int64
	enough int64
}

func (p *tap) Begin(ctx context.Context, s wire.Snapshot) (wire.Session, error) {
	ss, err := p.Target.Begin(ctx, s)
	if err != nil {
		return nil, err
	}
	near := tapped{Session: ss, tap: p}
	near.Resumer, _ = ss.(wire.Resumer)
	if far, ok := ss.(windowed); ok {
		return struct {
			tapped
			windowed
		}{near, far}, nil
	}
	return struct {
		tapped
		wire.Asker
	}{near, ss.(wire.Asker)}, nil
}

type tapped struct {
	wire.Session
	wire.Resumer
	tap *tap
}

func (s tapped) Create(ctx context.Context, name string, size int64) (wire.IndexWriter, error) {
	w, err := s.Session.Create(ctx, name, size)
	return tappedWriter{w, s.tap}, err
}

type tappedWriter struct {
	wire.IndexWriter
	tap *tap
}

func (w tappedWriter) PutChunk(ctx context.Context, c chunkstore.Chunk) (bool, error) {
	added, err := w.IndexWriter.PutChunk(ctx, c)
	if err != nil {
		return added, err
	}
	w.tap.mu.Lock()
	defer w.tap.mu.Unlock()
	w.tap.sent += int64(len(c.Blob))
	if w.tap.cut != nil && w.tap.sent > w.tap.enough {
		w.tap.cut()
	}
	return added, nil
}

// local is a repository in a directory.
func local(t *testing.T) *datastore.Store {
	t.Helper()
	path := filepath.Join(t.TempDir(), "store")
	if err := datastore.Create(path, datastore.CreateOptions{TrashDays: datastore.TrashDaysDefault}); err != nil {
		t.Fatal(err)
	}
	st, err := datastore.Open(t.Context(), path, datastore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	return st
}

// remote is a client of a server on the loopback device.
func remote(t *testing.T) *client.Client {
	t.Helper()
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	users, err := access.Open(filepath.Join(dir, "access"), access.Options{})
	must(err)
	t.Cleanup(func() { users.Close() })
	tasks, err := task.Open(filepath.Join(dir, "tasks"), task.Options{Node: "lab"})
	must(err)
	must(datastore.Create(filepath.Join(dir, "tank"), datastore.CreateOptions{TrashDays: datastore.TrashDaysDefault}))
	must(users.AddDatastore(access.Datastore{Name: "tank", Path: filepath.Join(dir, "tank")}))
	secret, err := users.CreateToken(access.Token{ID: "root@pam!lab", Enabled: true})
	must(err)
	must(users.SetACL(access.ACL{Path: "/", Role: "Admin", ID: "root@pam!lab", Propagate: true}))
	cert, err := front.EnsureCertificate(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), []string{"localhost"})
	must(err)
	s, err := server.New(server.Options{DataDir: dir, Access: users, Tasks: tasks})
	must(err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	go s.Serve(context.Background(), l, cert.Config())
	t.Cleanup(func() { s.Close() })
	c, err := client.Dial(t.Context(), client.Options{
		Repository:  wire.Repository{AuthID: "root@pam!lab", Host: "127.0.0.1", Port: l.Addr().(*net.TCPAddr).Port, Datastore: "tank"},
		Secret:      func(context.Context) (string, error) { return secret, nil },
		Fingerprint: cert.Fingerprint(),
	})
	must(err)
	t.Cleanup(func() { c.Close() })
	return c
}

// What an interrupted backup has sent is not sent again, whichever way the
// target is reached, and the result is as good.
func TestInterruptedBackupGoesOn(t *testing.T) {
	type target interface {
		wire.Target
		wire.Source
	}
	content := sparse(4, 28<<20)
	path := write(t, content, true)
	for name, open := range map[string]func(*testing.T) target{
		"directory": func(t *testing.T) target { return local(t) },
		"server":    func(t *testing.T) target { return remote(t) },
	} {
		t.Run(name, func(t *testing.T) {
			to := open(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			o := Options{Snapshot: snap(1000), Archives: []Archive{{"disk0.img", path}}, Mode: crypto.ModeEncrypt, Key: testKey(t, 1), region: testRegion}
			first := &tap{Target: to, cut: cancel, enough: 9 << 20}
			o.Target = first
			if _, err := Run(ctx, o); !errors.Is(err, context.Canceled) {
				t.Fatalf("the first run: %v", err)
			}
			second := &tap{Target: to}
			o.Target, o.Snapshot = second, snap(1001)
			report, err := Run(t.Context(), o)
			if err != nil || len(report.Warnings) > 0 {
				t.Fatalf("the second run: %v, %q", err, report.Warnings)
			}
			all := &tap{Target: local(t)}
			o.Target = all
			if _, err := Run(t.Context(), o); err != nil {
				t.Fatal(err)
			}
			if second.sent+first.sent > all.sent {
				t.Errorf("%d bytes were sent, then %d; there are only %d", first.sent, second.sent, all.sent)
			}
			if got := backupBytes(t, to, snap(1001)); !bytes.Equal(got, content) {
				t.Error("what comes back differs")
			}
		})
	}
}

// backupBytes reads the archive back.
func backupBytes(t *testing.T, from wire.Source, s wire.Snapshot) []byte {
	t.Helper()
	r, err := from.Open(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	return archiveBytes(t, r, "disk0.img", testKey(t, 1))
}

// brokenResumer cannot tell what was sent.
type brokenResumer struct{ wire.Session }

func (brokenResumer) Resume(context.Context) ([]wire.ChunkSize, error) {
	return nil, errors.New("it fell behind the sofa")
}

// begins is a Target that changes its sessions.
type begins struct {
	wire.Target
	change func(wire.Session) wire.Session
}

func (b begins) Begin(ctx context.Context, s wire.Snapshot) (wire.Session, error) {
	ss, err := b.Target.Begin(ctx, s)
	if err != nil {
		return nil, err
	}
	return b.change(ss), nil
}

func TestBackupDoesNotDependOnResuming(t *testing.T) {
	m := &wiretest.Memory{}
	path := write(t, noise(1, 3<<20), false)
	report := backupOf(t, m, snap(1), path, func(o *Options) {
		o.Target = begins{m, func(s wire.Session) wire.Session { return brokenResumer{s} }}
	})
	if len(report.Warnings) != 1 || !strings.Contains(report.Warnings[0], "sofa") {
		t.Errorf("warnings %q", report.Warnings)
	}
}

// farSession takes chunks only when so many are under way together.
type farSession struct {
	wire.Session
	far *far
}

// far is what all writers of a session share.
type far struct {
	pieces int
	bytes  int64

	mu              sync.Mutex
	now, most       int
	bytesNow, heavy int64
	full            chan struct{} // closed when the window has once been full
}

func (s farSession) Window() (int, int64) { return s.far.pieces, s.far.bytes }

func (s farSession) Create(ctx context.Context, name string, size int64) (wire.IndexWriter, error) {
	w, err := s.Session.Create(ctx, name, size)
	return farWriter{w, s.far}, err
}

type farWriter struct {
	wire.IndexWriter
	*far
}

func (w farWriter) PutChunk(ctx context.Context, c chunkstore.Chunk) (bool, error) {
	w.mu.Lock()
	w.now, w.bytesNow = w.now+1, w.bytesNow+int64(len(c.Blob))
	w.most, w.heavy = max(w.most, w.now), max(w.heavy, w.bytesNow)
	if w.now == w.pieces {
		select {
		case <-w.full:
		default:
			close(w.full)
		}
	}
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		w.now, w.bytesNow = w.now-1, w.bytesNow-int64(len(c.Blob))
		w.mu.Unlock()
	}()
	before := crypto.Sum(c.Blob)
	select {
	case <-w.full:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	if crypto.Sum(c.Blob) != before {
		return false, errors.New("the chunk has changed on its way")
	}
	return w.IndexWriter.PutChunk(ctx, c)
}

// As many chunks are under way as the session wants, and no more, however few
// workers there are.
func TestFarTargetsAreKeptBusy(t *testing.T) {
	content := noise(7, 20<<20)
	f := &far{pieces: 8, bytes: 16 << 20, full: make(chan struct{})}
	m := &wiretest.Memory{}
	backupOf(t, m, snap(1), write(t, content, false), func(o *Options) {
		o.Workers = 2
		o.Target = begins{m, func(s wire.Session) wire.Session { return farSession{s, f} }}
	})
	if f.most != f.pieces || f.heavy > f.bytes {
		t.Errorf("%d chunks of %d bytes were under way, want %d and at most %d", f.most, f.heavy, f.pieces, f.bytes)
	}
	if got := readBack(t, m, snap(1), "disk0.img", testKey(t, 1)); !bytes.Equal(got, content) {
		t.Error("what comes back differs")
	}
}
