package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"holdfast/client"
	"holdfast/command/secret"
	"holdfast/command/term"
	"holdfast/datastore/server"
	"holdfast/datastore/wire"
)

// dataFlag names the server that a management command works on, if it is one
// of this machine.
func dataFlag() cli.Flag {
	return &cli.StringFlag{Name: "data", Usage: "manage the server with the data directory `DIR` on this machine, running or not (or $HOLDFAST_DATA; default " + defaultDataDir + "), unless -r names one elsewhere"}
}

// storeFlag names the datastore, which -r names otherwise.
func storeFlag() cli.Flag {
	return &cli.StringFlag{Name: "datastore", Usage: "the `NAME` of the datastore, with --data"}
}

// managed is the server that a management command works on.
type managed struct {
	data   string          // directory on this machine, or
	remote wire.Repository // a server elsewhere
}

// managed finds the server: what is given on the command line counts before
// the environment.
func (c *call) managed() (managed, error) {
	m, err := c.chooseManaged()
	if err == nil && m.data != "" {
		m.data, err = filepath.Abs(m.data) // datastores in it are named by it
	}
	return m, err
}

func (c *call) chooseManaged() (managed, error) {
	switch data, repo := c.Flags.IsSet("data"), c.Flags.IsSet("repository"); {
	case data && repo:
		return managed{}, term.Usagef("--data and --repository exclude each other")
	case data:
		if c.Flags.String("data") == "" {
			return managed{}, term.Usagef("--data: empty")
		}
		return managed{data: c.Flags.String("data")}, nil
	case repo:
		r, err := c.repository()
		if err == nil && r.IsPath() {
			err = term.Hintf(term.Usagef("%s manages a server, and %s is a path", c.Flags.Command.HelpName, r), "name the server with -r or its data directory with --data")
		}
		return managed{remote: r}, err
	}
	if dir := c.env[secret.EnvData]; dir != "" {
		return managed{data: dir}, nil
	}
	if _, from := c.secrets.Setting(c.Given, "repository", secret.EnvRepository, secret.EnvRepositoryPBS); from != "" {
		r, err := c.repository()
		if err != nil || !r.IsPath() {
			return managed{remote: r}, err
		}
	}
	return managed{data: defaultDataDir}, nil
}

// managing calls do with a conversation with the server that the command
// manages: over the network, over the socket of a server that runs here, or
// with its handler in this process.
func (c *call) managing(ctx context.Context, do func(*client.Client) error) error {
	m, err := c.managed()
	if err != nil {
		return err
	}
	if m.data != "" {
		return c.managingHere(ctx, m.data, do)
	}
	s, err := c.dial(ctx, m.remote)
	if err != nil {
		return err
	}
	defer s.Close()
	return do(s)
}

// managingHere works on a server of this machine.
func (c *call) managingHere(ctx context.Context, dir string, do func(*client.Client) error) error {
	socket := filepath.Join(dir, dataSocketName)
	runs, err := answers(socket)
	if err != nil {
		return err
	}
	if runs {
		s, err := c.localServer(socket)
		if err != nil {
			return err
		}
		defer s.Close()
		return do(s)
	}
	return c.inProcess(ctx, dir, do)
}

// localServer is the server that listens on a socket of this machine.
func (c *call) localServer(socket string) (*client.Client, error) {
	silence, err := c.timeout()
	if err != nil {
		return nil, err
	}
	return client.Local(socket, silence), nil
}

// answers tells whether somebody listens on a socket.
func answers(socket string) (bool, error) {
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
func (c *call) inProcess(ctx context.Context, dir string, do func(*client.Client) error) (err error) {
	if err := checkDataDir(dir); err != nil {
		return err
	}
	data, err := openDataDir(ctx, dir, c.Flags.Duration("lock-wait"), false)
	if err != nil {
		return err
	}
	closing := context.WithoutCancel(ctx)
	defer func() { err = errors.Join(err, data.close(closing)) }()
	s, err := server.New(server.Options{DataDir: dir, Access: data.access, Tasks: data.tasks, Version: version})
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

// asking makes one call of the REST interface and reads its result into into,
// unless that is nil.
func (c *call) asking(ctx context.Context, q client.Call, into any) error {
	q.Into = into
	return c.managing(ctx, func(s *client.Client) error { return s.Do(ctx, q) })
}

// askingAnew is asking for what a server gives to those only who have logged in lately:
// a ticket that is kept does not do.
func (c *call) askingAnew(ctx context.Context, q client.Call, into any) error {
	c.anew = true
	return c.asking(ctx, q, into)
}

// restPath joins parts of a path, each of which is one component.
func restPath(parts ...string) string {
	var b strings.Builder
	for _, p := range parts {
		b.WriteString("/" + url.PathEscape(p))
	}
	return b.String()
}

// fields collects parameters; those without a value are left out.
func fields(pairs ...string) url.Values {
	v := make(url.Values)
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			v.Set(pairs[i], pairs[i+1])
		}
	}
	return v
}

// authID reads a user or a token.
func authID(text string, token bool) (wire.AuthID, error) {
	id, err := wire.ParseAuthID(text)
	if err != nil {
		return "", err
	}
	if _, is := id.Token(); is != token {
		if token {
			return "", term.Usagef("%q is a user; a token is USER@REALM!NAME", text)
		}
		return "", term.Usagef("%q is a token; want a user, NAME@REALM", text)
	}
	return id, nil
}

// deletion is printed for what was removed.
type deletion struct {
	MessageType string `json:"message_type"`
	Name        string `json:"name"`
}
