package interop

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"holdfast/tests/harness"
)

// patience is how long anything may take before it counts as hanging.
const patience = 3 * time.Minute

// store is the datastore that the tests use, attic one beside it where only
// the administrator has rights.
const (
	store = "tank"
	attic = "attic"
)

// server is the child process that all tests talk to.
var server *world

// world is a running server and who may use it.
type world struct {
	program, home, data  string
	address, fingerprint string
	process              *exec.Cmd
	ended                chan error
	stderr               locked

	// admin is the token of the first start. alice and bob may make backups
	// (alice may also prune) and have tokens, carol reads everything, dora has
	// no rights, erin may make backups in the namespace team only.
	admin, alice, bob, carol, dora, erin identity
	alice1, alice2, bob1                 identity
}

// password is what every user of the world logs in with.
const password = "correct horse; 100% + battery"

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "holdfast-interop-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	w := &world{home: filepath.Join(dir, "home"), data: filepath.Join(dir, "data")}
	if err := w.start(); err != nil {
		fmt.Fprintf(os.Stderr, "%v\n%s", err, w.stderr.String())
		w.stop()
		return 1
	}
	server = w
	code := m.Run()
	if err := w.stop(); err != nil {
		fmt.Fprintf(os.Stderr, "%v\n%s", err, w.stderr.String())
		return 1
	}
	return code
}

// start builds the binary, starts the server and makes stores and users.
func (w *world) start() error {
	var err error
	if w.program, err = harness.Program(filepath.Dir(w.home)); err != nil {
		return err
	}
	secret, err := w.serve()
	if err != nil {
		return err
	}
	w.admin = token("root@pam!admin", secret)
	return w.populate()
}

// announcement is a line that the server prints about itself.
type announcement struct {
	Type        string `json:"message_type"`
	Address     string `json:"address"`
	Fingerprint string `json:"fingerprint"`
	AuthID      string `json:"auth_id"`
	Secret      string `json:"secret"`
}

// serve starts the process and returns the secret of the first start.
func (w *world) serve() (string, error) {
	// A busy machine may let the tests wait for longer than servers do.
	config := filepath.Join(filepath.Dir(w.home), "holdfast.toml")
	if err := os.WriteFile(config, []byte("[limits]\nheader_timeout = \"3m\"\n"), 0o600); err != nil {
		return "", err
	}
	w.process = w.command("serve", "--listen", "127.0.0.1:0", "--json", "--config", config)
	w.process.Stderr = &w.stderr
	out, err := w.process.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := w.process.Start(); err != nil {
		return "", err
	}
	said := make(chan announcement, 16)
	w.ended = make(chan error, 1)
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var a announcement
			if json.Unmarshal(lines.Bytes(), &a) == nil {
				said <- a
			}
		}
		w.ended <- w.process.Wait()
	}()
	secret := ""
	for late := time.After(patience); w.address == "" || secret == ""; {
		select {
		case a := <-said:
			if a.Type == "listening" {
				w.address, w.fingerprint = a.Address, a.Fingerprint
			}
			if a.Type == "first_start" {
				secret = a.Secret
			}
		case err := <-w.ended:
			w.ended <- err
			return "", fmt.Errorf("the server ended before it listened: %w", err)
		case <-late:
			return "", fmt.Errorf("the server did not say where it listens and what its first secret is")
		}
	}
	return secret, nil
}

// stop ends the server as an operator would, and reports a crash.
func (w *world) stop() error {
	if w.process == nil || w.process.Process == nil {
		return nil
	}
	w.process.Process.Signal(syscall.SIGTERM)
	var err error
	select {
	case err = <-w.ended:
	case <-time.After(patience):
		w.process.Process.Kill()
		err = fmt.Errorf("the server did not end after SIGTERM")
	}
	if s := w.stderr.String(); strings.Contains(s, "panic") || strings.Contains(s, "goroutine ") {
		return fmt.Errorf("the server crashed: %w", err)
	}
	return err
}

func (w *world) command(args ...string) *exec.Cmd {
	c := exec.Command(w.program, append(args, "--data", w.data)...)
	c.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + w.home, "XDG_CONFIG_HOME=" + w.home, "TMPDIR=" + os.TempDir()}
	return c
}

// cli runs the program on the data directory and returns what it prints.
func (w *world) cli(args ...string) ([]byte, error) {
	var out, errs bytes.Buffer
	c := w.command(args...)
	c.Stdout, c.Stderr = &out, &errs
	if err := c.Run(); err != nil {
		return nil, fmt.Errorf("holdfast %s: %w\n%s%s", strings.Join(args, " "), err, out.Bytes(), errs.Bytes())
	}
	return out.Bytes(), nil
}

// populate makes two datastores, the users with their rights, and tokens.
func (w *world) populate() error {
	file := filepath.Join(w.data, "..", "password")
	if err := os.WriteFile(file, []byte(password+"\n"), 0o600); err != nil {
		return err
	}
	commands := [][]string{{"datastore", "create", store}, {"datastore", "create", attic}}
	for _, u := range []string{"alice", "bob", "carol", "dora", "erin"} {
		commands = append(commands, []string{"user", "create", u + "@pbs", "--password-file", file})
	}
	for _, r := range [][3]string{
		{"/datastore/" + store, "DatastorePowerUser", "alice@pbs"}, {"/datastore/" + store, "DatastoreBackup", "bob@pbs"},
		{"/datastore/" + store, "DatastoreReader", "carol@pbs"}, {"/datastore/" + store + "/team", "DatastoreBackup", "erin@pbs"},
	} {
		commands = append(commands, []string{"acl", "set", r[0], r[1], "--auth-id", r[2]})
	}
	for _, c := range commands {
		if _, err := w.cli(c...); err != nil {
			return err
		}
	}
	for id, as := range map[string]*identity{"alice@pbs!t1": &w.alice1, "alice@pbs!t2": &w.alice2, "bob@pbs!t1": &w.bob1} {
		out, err := w.cli("token", "create", id, "--role", "DatastoreBackup", "--path", "/datastore/"+store, "--json")
		if err != nil {
			return err
		}
		var made announcement
		if err := json.Unmarshal(out, &made); err != nil || made.Secret == "" {
			return fmt.Errorf("token create %s printed %q (%w)", id, out, err)
		}
		*as = token(id, made.Secret)
	}
	return w.logins()
}

// logins gets a ticket for every user.
func (w *world) logins() error {
	for user, as := range map[string]*identity{"alice@pbs": &w.alice, "bob@pbs": &w.bob, "carol@pbs": &w.carol, "dora@pbs": &w.dora, "erin@pbs": &w.erin} {
		id, err := w.login(user, password)
		if err != nil {
			return err
		}
		*as = id
	}
	return nil
}

// locked is a buffer that a process writes to while tests read it.
type locked struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// eventually polls until done or patience has run out.
func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if done() {
			return
		}
	}
	t.Fatalf("waited in vain for: %s", what)
}

// groups numbers the backup groups, so that no two tests share one.
var groups atomic.Int64

// began is the backup time of the first snapshot of a group.
const began = 1715000000

// newGroup names the first snapshot of a group that no other test uses.
func newGroup(kind string) snap {
	return snap{store: store, kind: kind, id: fmt.Sprintf("g%d", groups.Add(1)), time: began}
}
