package abuse

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"holdfast/tests/harness"
)

// patience is how long anything may take before it counts as hanging.
const patience = 3 * time.Minute

// memoryMax is what a server may hold at its worst in any of the tests, in bytes: each is
// held to it when its server ends.
const memoryMax = 400 << 20

// program is the binary under test.
var program string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	// The tests wait for most of their time, each for a server of its own.
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	dir, err := os.MkdirTemp("", "holdfast-abuse-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if program, err = harness.Program(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// seconds is how long the load lasts.
func seconds(t testing.TB) time.Duration {
	t.Helper()
	text := os.Getenv("HOLDFAST_ABUSE_SECONDS")
	if text == "" {
		return 20 * time.Second
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("HOLDFAST_ABUSE_SECONDS is %q", text)
	}
	return time.Duration(n) * time.Second
}

// atLength tells whether the long checks are wanted.
func atLength(t testing.TB) bool {
	t.Helper()
	return seconds(t) >= time.Minute
}

// store is the datastore of every world.
const store = "tank"

// world is a server process of one test, with the directory it lives in.
type world struct {
	dir, data, address string
	process            *exec.Cmd
	ended              chan error
	stderr             locked

	// admin may do everything. alice, bob and mallory may make backups; each
	// is the token of a user of its own.
	admin, alice, bob, mallory identity
}

// setup is how a server is started.
type setup struct {
	files     int    // limit of open files; 0 is the system's
	deadlines string // lines of the table "limits" of the configuration; "" is unhurried
}

// start runs a server that ends with the test, which fails if the server has
// crashed.
func start(t *testing.T, o setup) *world {
	t.Helper()
	dir := t.TempDir()
	w := &world{dir: dir, data: filepath.Join(dir, "data")}
	config := filepath.Join(dir, "holdfast.toml")
	w.write(t, config, "log_level = \"warn\"\n[limits]\n"+cmp.Or(o.deadlines, unhurried))
	command := "exec \"$@\""
	if o.files > 0 {
		command = fmt.Sprintf("ulimit -n %d && exec \"$@\"", o.files)
	}
	w.process = exec.Command("/bin/sh", "-c", command, "sh", program, "serve", "--json", "--config", config, "--data", w.data, "--listen", "0.0.0.0:0")
	w.process.Env = w.environment()
	t.Cleanup(func() { w.stop(t) })
	w.serve(t)
	w.populate(t)
	return w
}

func (w *world) write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (w *world) environment() []string {
	home := filepath.Join(w.dir, "home")
	return []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "XDG_CONFIG_HOME=" + home, "TMPDIR=" + w.dir}
}

// said is a line that the program prints about itself.
type said struct {
	Type    string `json:"message_type"`
	Address string `json:"address"`
	AuthID  string `json:"auth_id"`
	Secret  string `json:"secret"`
}

// serve starts the process and waits until it listens.
func (w *world) serve(t testing.TB) {
	t.Helper()
	w.process.Stderr = &w.stderr
	out, err := w.process.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.process.Start(); err != nil {
		t.Fatal(err)
	}
	lines := make(chan said, 16)
	w.ended = make(chan error, 1)
	go func() {
		for s := bufio.NewScanner(out); s.Scan(); {
			var a said
			if json.Unmarshal(s.Bytes(), &a) == nil {
				lines <- a
			}
		}
		w.ended <- w.process.Wait()
	}()
	for late := time.After(patience); w.address == "" || w.admin.id == ""; {
		select {
		case a := <-lines:
			switch a.Type {
			case "listening":
				w.address = "127.0.0.1" + a.Address[strings.LastIndexByte(a.Address, ':'):]
			case "first_start":
				w.admin = identity{a.AuthID, a.Secret}
			}
		case err := <-w.ended:
			w.ended <- err
			t.Fatalf("the server ended before it listened: %v\n%s", err, w.stderr.String())
		case <-late:
			t.Fatalf("the server does not listen\n%s", w.stderr.String())
		}
	}
}

// stop ends the server as an operator would.
func (w *world) stop(t testing.TB) {
	if w.process.Process == nil || w.ended == nil {
		return
	}
	w.bounded(t)
	w.process.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-w.ended:
		if err != nil {
			t.Errorf("the server ended with: %v\n%s", err, w.stderr.tail())
		}
	case <-time.After(2 * patience):
		w.process.Process.Signal(syscall.SIGQUIT)
		<-w.ended
		t.Errorf("the server did not end after SIGTERM\n%s", w.stderr.tail())
	}
	if s := w.stderr.String(); strings.Contains(s, "panic") || strings.Contains(s, "goroutine ") {
		t.Errorf("the server crashed:\n%s", w.stderr.tail())
	}
}

// cli runs the program on the data directory and returns what it prints.
func (w *world) cli(t testing.TB, args ...string) []byte {
	t.Helper()
	var out, errs bytes.Buffer
	c := exec.Command(program, append(args, "--data", w.data)...)
	c.Env, c.Stdout, c.Stderr = w.environment(), &out, &errs
	if err := c.Run(); err != nil {
		t.Fatalf("holdfast %s: %v\n%s%s", strings.Join(args, " "), err, out.Bytes(), errs.Bytes())
	}
	return out.Bytes()
}

// password is that of every user.
const password = "correct horse battery"

// populate makes the datastore and who uses it.
func (w *world) populate(t testing.TB) {
	t.Helper()
	w.cli(t, "datastore", "create", store)
	for name, as := range map[string]*identity{"alice": &w.alice, "bob": &w.bob, "mallory": &w.mallory} {
		*as = w.user(t, name)
	}
}

// user makes a user with a token that may make backups.
func (w *world) user(t testing.TB, name string) identity {
	t.Helper()
	file := filepath.Join(w.dir, "password")
	w.write(t, file, password+"\n")
	id := name + "@pbs"
	w.cli(t, "user", "create", id, "--password-file", file)
	w.cli(t, "acl", "set", "/datastore/"+store, "DatastorePowerUser", "--auth-id", id)
	var made said
	out := w.cli(t, "token", "create", id+"!t", "--role", "DatastorePowerUser", "--path", "/datastore/"+store, "--json")
	if err := json.Unmarshal(out, &made); err != nil || made.Secret == "" {
		t.Fatalf("token create printed %q (%v)", out, err)
	}
	return identity{id + "!t", made.Secret}
}

// alive fails the test unless the server answers.
func (w *world) alive(t testing.TB) {
	t.Helper()
	w.ask(t, w.admin, "GET", "/version").want(t, 200)
}

// bounded fails the test if the server has held too much so far.
func (w *world) bounded(t testing.TB) {
	t.Helper()
	n, err := heldBy(w.process.Process.Pid)
	if err != nil {
		t.Errorf("how much the server has held: %v", err)
		return
	}
	t.Logf("the server held %d MiB at most", n>>20)
	if n > memoryMax {
		t.Errorf("the server held %d MiB, allowed are %d", n>>20, memoryMax>>20)
	}
}

// heldBy is the most memory that a process has held so far, in bytes.
func heldBy(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		var kib int64
		if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kib); n == 1 {
			return kib << 10, nil
		}
	}
	return 0, fmt.Errorf("no VmHWM in %q", text)
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

// tail is the end of it.
func (l *locked) tail() string {
	s := l.String()
	const most = 8000
	return s[max(0, len(s)-most):]
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
