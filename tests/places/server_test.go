package places

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"crypto/tls"
)

// server is a running holdfast serve.
type server struct {
	address string
	env     []string // what a client needs to know
	stop    func()
}

// line is what the server says when it begins.
type line struct {
	Type        string `json:"message_type"`
	Address     string `json:"address"`
	Fingerprint string `json:"fingerprint"`
	Secret      string `json:"secret"`
}

// serve starts a server. password is that of an earlier start, "" if this is
// the first one.
func serve(t *testing.T, data, password string) (*server, string) {
	t.Helper()
	cmd := command(t.Context(), nil, "serve", "--data", data, "--listen", "127.0.0.1:0", "--json")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(memory(t), "log")
	if cmd.Stderr, err = os.Create(log); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &server{}
	ended := false
	s.stop = func() {
		if !ended {
			ended = true
			_ = cmd.Process.Signal(syscall.SIGTERM)
			_ = cmd.Wait()
		}
	}
	t.Cleanup(s.stop)
	var listening line
	for in := bufio.NewScanner(out); listening.Address == "" && in.Scan(); {
		var l line
		if err := json.Unmarshal(in.Bytes(), &l); err != nil {
			t.Fatalf("%s: %v", in.Text(), err)
		}
		if l.Secret != "" {
			password = l.Secret
		}
		if l.Type == "listening" {
			listening = l
		}
	}
	if listening.Address == "" {
		s.stop()
		text, _ := os.ReadFile(log)
		t.Fatalf("the server does not start: %s", text)
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	s.address = listening.Address
	s.env = []string{"HOLDFAST_FINGERPRINT=" + listening.Fingerprint, "HOLDFAST_PASSWORD=" + password}
	return s, password
}

// use lets a repository be a datastore of the server.
func (s *server) use(r *repo) {
	r.env, r.name = s.env, "root@pam!admin@"+s.address+":tank"
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
	s.stop()
	must(t, "mount", "-o", "remount,ro", dir)
	s, _ = serve(t, data, password)
	s.use(r)
	r.reads()
	for _, args := range [][]string{r.backupArgs(r.write()), {"gc"}} {
		if out := r.do(exitRefused, args...); !strings.Contains(out, "can only be read") {
			t.Errorf("%q: %s", args, out)
		}
	}
	r.reads()
	must(t, "mount", "-o", "remount,rw", dir)
	r.backup()
	r.reads()
	s.stop()
}

// TestServerOfAFullDatastore restores from it, and makes room.
func TestServerOfAFullDatastore(t *testing.T) {
	for name, mount := range map[string]func(*testing.T) string{"ext4": ext4, "btrfs": btrfs} {
		t.Run(name, func(t *testing.T) {
			dir, data := mount(t), filepath.Join(memory(t), "data")
			s, r, password := newTank(t, data, filepath.Join(dir, "tank"))
			r.do(exitOK, "gc") // takes the reserve
			s.stop()
			fill(t, dir)
			s, _ = serve(t, data, password)
			s.use(r)
			r.reads()
			r.do(exitNoSpace, r.backupArgs(r.write())...)
			r.forgets()
			r.reads()
			s.stop()
		})
	}
}

// TestServerWithAReadOnlyDataDirectory starts, knows its users, restores from a
// healthy datastore and keeps the logs of its tasks in memory.
func TestServerWithAReadOnlyDataDirectory(t *testing.T) {
	dir, store := ext4(t), filepath.Join(memory(t), "tank")
	data := filepath.Join(dir, "data")
	s, r, password := newTank(t, data, store)
	s.stop()
	must(t, "mount", "-o", "remount,ro", dir)
	s, _ = serve(t, data, password)
	s.use(r)
	r.reads()
	if out := r.do(exitOK, "task", "list", "--json"); !strings.Contains(out, "reader") {
		t.Errorf("the tasks are not remembered: %s", out)
	}
	web := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	answer, err := web.Get("https://" + s.address + "/healthz")
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
	s.stop()
}
