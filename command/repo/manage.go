package repo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"holdfast/client"
	"holdfast/command/secret"
	"holdfast/command/term"
	"holdfast/datastore"
	"holdfast/datastore/server"
	"holdfast/datastore/wire"
)

// DataFlag names the server that a management command works on, if it is one
// of this machine.
func DataFlag() cli.Flag {
	return &cli.StringFlag{Name: "data", Usage: "manage the server with the data directory `DIR` on this machine, running or not (or $HOLDFAST_DATA; default " + DefaultDataDir + "), unless -r names one elsewhere"}
}

// StoreFlag names the datastore, which -r names otherwise.
func StoreFlag() cli.Flag {
	return &cli.StringFlag{Name: "datastore", Usage: "the `NAME` of the datastore, with --data"}
}

// Managed is the server that a management command works on.
type Managed struct {
	Data   string          // directory on this machine, or
	Remote wire.Repository // a server elsewhere
}

// Managed finds the server: what is given on the command line counts before
// the environment.
func (o Opener) Managed() (Managed, error) {
	m, err := o.chooseManaged()
	if err == nil && m.Data != "" {
		m.Data, err = filepath.Abs(m.Data) // datastores in it are named by it
	}
	return m, err
}

func (o Opener) chooseManaged() (Managed, error) {
	switch data, repo := o.given.Flags.IsSet("data"), o.given.Flags.IsSet("repository"); {
	case data && repo:
		return Managed{}, term.Usagef("--data and --repository exclude each other")
	case data:
		if o.given.Flags.String("data") == "" {
			return Managed{}, term.Usagef("--data: empty")
		}
		return Managed{Data: o.given.Flags.String("data")}, nil
	case repo:
		r, err := o.Name()
		if err == nil && r.IsPath() {
			err = term.Hintf(term.Usagef("%s manages a server, and %s is a path", o.given.Flags.Command.HelpName, r), "name the server with -r or its data directory with --data")
		}
		return Managed{Remote: r}, err
	}
	if dir := o.Env[secret.EnvData]; dir != "" {
		return Managed{Data: dir}, nil
	}
	if _, from := o.setting("repository", secret.EnvRepository, secret.EnvRepositoryPBS); from != "" {
		r, err := o.Name()
		if err != nil || !r.IsPath() {
			return Managed{Remote: r}, err
		}
	}
	return Managed{Data: DefaultDataDir}, nil
}

// Managing calls do with a conversation with the server that the command
// manages: over the network, over the socket of a server that runs here, or
// with its handler in this process.
func (o Opener) Managing(ctx context.Context, do func(*client.Client) error) error {
	m, err := o.Managed()
	if err != nil {
		return err
	}
	if m.Data != "" {
		return o.ManagingHere(ctx, m.Data, do)
	}
	s, err := o.Dial(ctx, m.Remote)
	if err != nil {
		return err
	}
	defer s.Close()
	return do(s)
}

// ManagingHere works on a server of this machine.
func (o Opener) ManagingHere(ctx context.Context, dir string, do func(*client.Client) error) error {
	socket := filepath.Join(dir, DataSocketName)
	runs, err := Answers(socket)
	if err != nil {
		return err
	}
	if runs {
		s, err := o.LocalServer(socket)
		if err != nil {
			return err
		}
		defer s.Close()
		return do(s)
	}
	return o.inProcess(ctx, dir, do)
}

// Answers tells whether somebody listens on a socket.
func Answers(socket string) (bool, error) {
	conn, err := net.DialTimeout("unix", socket, 10*time.Second)
	switch {
	case err == nil:
		return true, conn.Close()
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOTDIR):
		return false, nil
	case errors.Is(err, fs.ErrPermission):
		return false, term.Hintf(fmt.Errorf("reach the server: %w", err), "run this as root or as the user of the server, or name the server with -r REPO")
	}
	return false, fmt.Errorf("reach the server: %w", err)
}

// inProcess works on the data directory of a server that does not run.
func (o Opener) inProcess(ctx context.Context, dir string, do func(*client.Client) error) (err error) {
	if err := CheckDataDir(dir); err != nil {
		return err
	}
	data, err := OpenDataDir(ctx, dir, o.LockWait(), false)
	if err != nil {
		return err
	}
	closing := context.WithoutCancel(ctx)
	defer func() { err = errors.Join(err, data.Close(closing)) }()
	s, err := server.New(server.Options{DataDir: dir, Access: data.Access, Tasks: data.Tasks, Version: term.Version()})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Shutdown(closing)) }()
	handler := s.Handler()
	conversation := client.InProcess(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handler.ServeHTTP(w, r.WithContext(server.WithIdentity(r.Context(), wire.RootUser)))
	}))
	defer conversation.Close()
	return do(conversation)
}

// Asking makes one call of the REST interface and reads its result into into,
// unless that is nil.
func (o Opener) Asking(ctx context.Context, q client.Call, into any) error {
	q.Into = into
	return o.Managing(ctx, func(s *client.Client) error { return s.Do(ctx, q) })
}

// Fields collects parameters; those without a value are left out.
func Fields(pairs ...string) url.Values {
	v := make(url.Values)
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			v.Set(pairs[i], pairs[i+1])
		}
	}
	return v
}

// OnDatastore finds what a command about one datastore works on: a path, for
// which here is called, or a server's datastore, for which there is called with
// its name.
func (o Opener) OnDatastore(ctx context.Context, here func(wire.Repository) error, there func(*client.Client, string) error) error {
	name := o.given.Flags.String("datastore")
	if !o.given.Flags.IsSet("data") && name == "" {
		r, err := o.Name()
		switch {
		case err != nil:
			return err
		case r.IsPath():
			return here(r)
		}
		s, err := o.Dial(ctx, r)
		if err != nil {
			return err
		}
		defer s.Close()
		return there(s, r.Datastore)
	}
	if name == "" {
		return term.Usagef("--data needs --datastore NAME")
	}
	return o.Managing(ctx, func(s *client.Client) error { return there(s, name) })
}

// ChangingPath calls do with a repository that is a path, opened for writing.
func (o Opener) ChangingPath(ctx context.Context, do func(*datastore.Store) error) func(wire.Repository) error {
	return func(r wire.Repository) (err error) {
		s, err := o.OpenPath(ctx, r, Write)
		if err != nil {
			return err
		}
		defer Closing(s, &err)
		return do(s)
	}
}
