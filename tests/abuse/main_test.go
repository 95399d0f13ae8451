package abuse

import (
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"holdfast/tests/harness"
)

// patience is how long anything may take before it counts as hanging.
const patience = harness.Patience

// memoryMax is what a server may hold at its worst in any of the tests, in bytes: each is
// held to it when its server ends.
const memoryMax = 400 << 20

// program is the binary under test.
var program string

func TestMain(m *testing.M) {
	// The tests wait for most of their time, each for a server of its own.
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(harness.Main("", "holdfast-abuse-", func(built, _ string) int {
		program = built
		return m.Run()
	}))
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
	server             *harness.Server

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
	serve := w.command("serve", "--json", "--config", config, "--data", w.data, "--listen", "0.0.0.0:0")
	if o.files > 0 {
		serve.Wrap = []string{"/bin/sh", "-c", fmt.Sprintf(`ulimit -n %d && exec "$@"`, o.files), "sh"}
	}
	var err error
	if w.server, err = harness.Serve(serve); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.stop(t) })
	w.address = "127.0.0.1" + w.server.Address[strings.LastIndexByte(w.server.Address, ':'):]
	if w.admin = (identity{w.server.AuthID, w.server.Secret}); w.admin.id == "" {
		t.Fatal("the server did not say who its administrator is")
	}
	w.populate(t)
	return w
}

func (w *world) write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// command is a run of the program that takes as long as it likes.
func (w *world) command(args ...string) harness.Command {
	return harness.Command{
		Args: append([]string{program}, args...), Env: harness.Environ(filepath.Join(w.dir, "home"), w.dir), Endless: true,
	}
}

// stop ends the server as an operator would.
func (w *world) stop(t testing.TB) {
	w.bounded(t)
	if err := w.server.Stop(); err != nil {
		t.Error(err)
	}
}

// cli runs the program on the data directory and returns what it prints.
func (w *world) cli(t testing.TB, args ...string) []byte {
	t.Helper()
	r, err := harness.Do(w.command(append(args, "--data", w.data)...))
	if err != nil || r.Code != 0 {
		t.Fatalf("%v: %s", err, r)
	}
	return []byte(r.Out)
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
	var made harness.Announced
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
	n, err := w.server.Peak()
	if err != nil {
		t.Errorf("how much the server has held: %v", err)
		return
	}
	t.Logf("the server held %d MiB at most", n>>20)
	if n > memoryMax {
		t.Errorf("the server held %d MiB, allowed are %d", n>>20, memoryMax>>20)
	}
}
