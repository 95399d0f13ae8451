package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"

	"holdfast/chunkstore"
	"holdfast/client"
	"holdfast/datastore/access"
	"holdfast/datastore/server/rest"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
)

// failing is a session in which everything fails for the reason that cause has at the time.
type failing struct {
	rows  []api.Method
	cause *error
}

func (f failing) methods() (list []method) {
	for _, row := range f.rows {
		list = append(list, method{Method: row, Do: func(*call) (any, error) { return nil, *f.cause }})
	}
	return list
}

func (f failing) leave()                    {}
func (f failing) end(context.Context) error { return nil }

// failingLab is a server of which a method, backup sessions and readers fail for the reason
// that cause has at the time, and a client of it.
type failingLab struct {
	*sessionLab
	cause  error
	client *client.Client
	again  func() // called before the client tries anything again
}

func newFailingLab(t *testing.T) *failingLab {
	t.Helper()
	l := &failingLab{sessionLab: newSessionLab(t), again: func() {}}
	upgrade := func(protocol string, rows []api.Method) func(*call) (any, error) {
		return func(c *call) (any, error) {
			st, err := c.store()
			if err != nil {
				return nil, err
			}
			return nil, l.server.upgrade(c, opening{
				store: st, spec: readerSpec(c), protocol: protocol, cancel: func() error { return nil },
				rights: rights{path: access.DatastorePath("tank", ""), any: api.DatastoreBackup},
				start:  func(*conversation) session { return failing{rows, &l.cause} },
			})
		}
	}
	for _, m := range bind(api.Methods(), handlers{
		api.Version:       func(*call) (any, error) { return nil, l.cause },
		api.BackupUpgrade: upgrade(wire.BackupProtocol, api.BackupRows()),
		api.ReaderUpgrade: upgrade(wire.ReaderProtocol, api.ReaderRows()),
	}) {
		l.server.tree.Add(&m)
	}
	host, port, err := net.SplitHostPort(l.addr)
	l.must(err)
	number, err := strconv.Atoi(port)
	l.must(err)
	name, secret, _ := strings.Cut(strings.TrimPrefix(l.tokens["alice"], "PBSAPIToken="), ":")
	l.client, err = client.Dial(t.Context(), client.Options{
		Repository:  wire.Repository{AuthID: name, Host: host, Port: number, Datastore: "tank"},
		Secret:      func(context.Context) (string, error) { return secret, nil },
		Trust:       func(context.Context, string, string) error { return nil },
		Connections: 1, Log: func(string) { l.again() },
	})
	l.must(err)
	t.Cleanup(func() { l.must(l.client.Close()) })
	return l
}

// ways are those on which an answer comes to a client.
func (l *failingLab) ways() map[string]func(context.Context) error {
	ctx := l.t.Context()
	snap := wire.Snapshot{Group: wire.Group{Type: "vm", ID: "100"}, Time: 1000}
	session, err := l.client.Begin(ctx, snap)
	l.must(err)
	l.t.Cleanup(func() { l.must(session.Close()) })
	reader, err := l.client.Open(ctx, snap)
	l.must(err)
	l.t.Cleanup(func() { l.must(reader.Close()) })
	return map[string]func(context.Context) error{
		"method": func(ctx context.Context) error {
			return l.client.Do(ctx, client.Call{Op: api.Version})
		},
		"backup session": session.Finish,
		"reader": func(ctx context.Context) error {
			_, err := reader.Blob(ctx, "machine.conf.blob")
			return err
		},
	}
}

// Whatever of the table of failures a server meets, its client finds the same with
// errors.Is, and nothing else, however it asks; and a client that does not read names finds
// it in status and text.
func TestFailuresReachTheClient(t *testing.T) {
	l := newFailingLab(t)
	for way, ask := range l.ways() {
		for _, row := range api.Failures() {
			for _, cause := range append(row.Like, row.Is) {
				t.Run(fmt.Sprintf("%s/%s/%v", way, row.Name, cause), func(t *testing.T) {
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					l.cause, l.again = fmt.Errorf("do a thing: %w", cause), cancel
					err := ask(ctx)
					var status *client.StatusError
					if !errors.As(err, &status) {
						t.Fatalf("the client got %v", err)
					}
					if status.Code != row.Status || status.Text != l.cause.Error() {
						t.Errorf("answered with %d %q, want %d %q", status.Code, status.Text, row.Status, l.cause)
					}
					for _, other := range api.Failures() {
						if want := errors.Is(row.Is, other.Is); errors.Is(err, other.Is) != want {
							t.Errorf("%v (%v): is it %q? want %v", err, status.Names, other.Name, want)
						}
					}
					if plain := (&client.StatusError{Code: status.Code, Text: status.Text}); cause == row.Is && !errors.Is(plain, row.Is) {
						t.Errorf("%d %q means nothing to a client that reads no names", status.Code, status.Text)
					}
				})
			}
		}
	}
}

// What is not in the table is named so, and the client does not take its words for
// anything else.
func TestOtherFailuresReachTheClient(t *testing.T) {
	l := newFailingLab(t)
	for way, ask := range l.ways() {
		t.Run(way, func(t *testing.T) {
			l.cause = errors.New("the file named busy: not found")
			err := ask(t.Context())
			var status *client.StatusError
			if !errors.As(err, &status) || len(status.Names) != 1 || status.Names[0] != api.FailureOther {
				t.Fatalf("the client got %+v", status)
			}
			for _, row := range api.Failures() {
				if errors.Is(err, row.Is) {
					t.Errorf("%v is taken for %q", err, row.Name)
				}
			}
		})
	}
}

// Texts that the protocol prescribes go with the name of what they are about.
func TestRefusalsAreNamed(t *testing.T) {
	for _, tc := range []struct {
		refusal *rest.StatusError
		want    string
	}{
		{rest.Refuse(wire.ErrOwner, "backup owner check failed"), "400 owner,permission"},
		{rest.Refuse(wire.ErrNoDatastore, "datastore 'tank' does not exist"), "400 no-datastore,not-found"},
		{rest.Refuse(wire.ErrFull, "server is shutting down"), "503 full"},
		{rest.NotFound("Path '/x' not found."), "404 not-found"},
		{rest.BadRequest("unsupported content type"), "400 other"},
		{rest.AsStatus(fmt.Errorf("a: %w", rest.NotFound("b"))), "404 not-found"},
		{rest.AsStatus(&wire.MissingError{Count: 1}), "400 chunks-missing"},
	} {
		if got := fmt.Sprintf("%d %s", tc.refusal.Code, tc.refusal.Failures()); got != tc.want {
			t.Errorf("%q goes with %s, want %s", tc.refusal.Text, got, tc.want)
		}
	}
}

// That there is no previous snapshot the client believes of a server that says so, or has no
// time to say; not of one that refuses.
func TestRefusalIsNoMissingPrevious(t *testing.T) {
	l := newFailingLab(t)
	session, err := l.client.Begin(t.Context(), wire.Snapshot{Group: wire.Group{Type: "vm", ID: "100"}, Time: 1000})
	l.must(err)
	defer session.Close()
	for _, tc := range []struct {
		cause  error
		absent bool
	}{{chunkstore.ErrNotExist, true}, {wire.ErrShare, true}, {wire.ErrPermission, false}} {
		l.cause = tc.cause
		_, err := session.Previous(t.Context())
		if errors.Is(err, chunkstore.ErrNotExist) != tc.absent || !tc.absent && !errors.Is(err, tc.cause) {
			t.Errorf("%v: the client got %v", tc.cause, err)
		}
	}
}
