package interop

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"holdfast/tests/harness"
)

// patience is how long anything may take before it counts as hanging.
const patience = harness.Patience

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

	// admin is the token of the first start. alice and bob may make backups
	// (alice may also prune) and have tokens, carol reads everything, dora has
	// no rights, erin may make backups in the namespace team only.
	admin, alice, bob, carol, dora, erin identity
	alice1, alice2, bob1                 identity
}

// password is what every user of the world logs in with.
const password = "correct horse; 100% + battery"

func TestMain(m *testing.M) {
	os.Exit(harness.Main("", "holdfast-interop-", func(program, dir string) int {
		code, err := run(m, program, dir)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return code
	}))
}

// run runs the tests with a server that must have ended well afterwards.
func run(m *testing.M, program, dir string) (code int, err error) {
	w := &world{program: program, home: filepath.Join(dir, "home"), data: filepath.Join(dir, "data")}
	// A busy machine may let the tests wait for longer than servers do.
	config := filepath.Join(dir, "holdfast.toml")
	if err := os.WriteFile(config, []byte("[limits]\nheader_timeout = \"3m\"\n"), 0o600); err != nil {
		return 0, err
	}
	s, err := harness.Serve(w.command("serve", "--listen", "127.0.0.1:0", "--json", "--config", config))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.Stop()) }()
	if s.Secret == "" {
		return 0, fmt.Errorf("the server did not say what its first secret is")
	}
	w.address, w.fingerprint, w.admin = s.Address, s.Fingerprint, token("root@pam!admin", s.Secret)
	if err := w.populate(); err != nil {
		return 0, fmt.Errorf("%w\n%s", err, s.Log.Tail())
	}
	server = w
	return m.Run(), nil
}

// command is a run of the program on the data directory.
func (w *world) command(args ...string) harness.Command {
	return harness.Command{Args: append(append([]string{w.program}, args...), "--data", w.data), Env: harness.Environ(w.home, os.TempDir())}
}

// cli runs the program on the data directory and returns what it prints.
func (w *world) cli(args ...string) ([]byte, error) {
	c := w.command(args...)
	c.Endless = true
	r, err := harness.Do(c)
	if err == nil && r.Code != 0 {
		err = fmt.Errorf("it should have gone well: %s", r)
	}
	return []byte(r.Out), err
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
		var made harness.Announced
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

// groups numbers the backup groups, so that no two tests share one.
var groups atomic.Int64

// began is the backup time of the first snapshot of a group.
const began = 1715000000

// newGroup names the first snapshot of a group that no other test uses.
func newGroup(kind string) snap {
	return snap{store: store, kind: kind, id: fmt.Sprintf("g%d", groups.Add(1)), time: began}
}
