package places

import (
	"cmp"

	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"crypto/tls"

	"holdfast/tests/harness"
)

// server is a running holdfast serve.
type server struct {
	*harness.Server
	env []string // what a client needs to know
}

// serve starts a server. password is that of an earlier start, "" if this is
// the first one.
func serve(t *testing.T, data, password string) (*server, string) {
	t.Helper()
	s, err := harness.Serve(command(nil, "serve", "--data", data, "--listen", "127.0.0.1:0", "--json"))
	if err != nil {
		t.Fatal(err)
	}
	password = cmp.Or(s.Secret, password)
	made := &server{s, []string{"HOLDFAST_FINGERPRINT=" + s.Fingerprint, "HOLDFAST_PASSWORD=" + password}}
	t.Cleanup(func() { made.stop(t) })
	return made, password
}

// stop ends the server, unless it has ended.
func (s *server) stop(t *testing.T) {
	t.Helper()
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
}

// use lets a repository be a datastore of the server.
func (s *server) use(r *repo) {
	r.env, r.name = s.env, "root@pam!admin@"+s.Address+":tank"
}

// newTank starts a server with a datastore and two snapshots in it.
func newTank(t *testing.T, data, store string) (*server, *repo, string) {
	t.Helper()
	s, password := serve(t, data, "")
	if res := run(t, nil, "datastore", "create", "tank", store, "--data", data); res.code != exitOK {
		t.Fatalf("%s", res.out)
	}
	r := &repo{t: t, work: memory(t)}
	s.use(r)
	r.backup()
	r.backup()
	return s, r, password
}

// TestServerOfAReadOnlyDatastore restores from it, and writes to it again as
// soon as that is possible, without a restart.
func TestServerOfAReadOnlyDatastore(t *testing.T) {
	dir, data := ext4(t), filepath.Join(memory(t), "data")
	s, r, password := newTank(t, data, filepath.Join(dir, "tank"))
	s.stop(t)
	harness.Tool(t, "mount", "-o", "remount,ro", dir)
	s, _ = serve(t, data, password)
	s.use(r)
	r.reads()
	for _, args := range [][]string{r.backupArgs(r.write()), {"gc"}} {
		if out := r.do(exitRefused, args...); !strings.Contains(out, "can only be read") {
			t.Errorf("%q: %s", args, out)
		}
	}
	r.reads()
	harness.Tool(t, "mount", "-o", "remount,rw", dir)
	r.backup()
	r.reads()
	s.stop(t)
}

// TestServerOfAFullDatastore restores from it, and makes room.
func TestServerOfAFullDatastore(t *testing.T) {
	harness.Long(t)
	for name, mount := range map[string]func(*testing.T) string{"ext4": ext4, "btrfs": btrfs} {
		t.Run(name, func(t *testing.T) {
			dir, data := mount(t), filepath.Join(memory(t), "data")
			s, r, password := newTank(t, data, filepath.Join(dir, "tank"))
			r.do(exitOK, "gc") // takes the reserve
			s.stop(t)
			fill(t, dir)
			s, _ = serve(t, data, password)
			s.use(r)
			r.reads()
			r.do(exitNoSpace, r.backupArgs(r.write())...)
			r.forgets()
			r.reads()
			s.stop(t)
		})
	}
}

// TestServerWithAReadOnlyDataDirectory starts, knows its users, restores from a
// healthy datastore and keeps the logs of its tasks in memory.
func TestServerWithAReadOnlyDataDirectory(t *testing.T) {
	dir, store := ext4(t), filepath.Join(memory(t), "tank")
	data := filepath.Join(dir, "data")
	s, r, password := newTank(t, data, store)
	s.stop(t)
	harness.Tool(t, "mount", "-o", "remount,ro", dir)
	s, _ = serve(t, data, password)
	s.use(r)
	r.reads()
	if out := r.do(exitOK, "task", "list", "--json"); !strings.Contains(out, "reader") {
		t.Errorf("the tasks are not remembered: %s", out)
	}
	web := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	answer, err := web.Get("https://" + s.Address + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if text, err := io.ReadAll(answer.Body); err != nil || answer.StatusCode != http.StatusOK || !strings.Contains(string(text), "memory") {
		t.Errorf("healthz: %d %q, %v", answer.StatusCode, text, err)
	}
	if res := run(t, r.env, "user", "create", "ann@pbs", "-r", r.name); res.code == exitOK {
		t.Errorf("a user was made: %s", res.out)
	}
	s.stop(t)
}
