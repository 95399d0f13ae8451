package admin

import (
	"context"
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"holdfast/client"
	"holdfast/command/repo"
	"holdfast/command/term"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
)

// Login is holdfast login.
func (r Room) Login() *cli.Command {
	return &cli.Command{
		Name: "login", Usage: "log in to a server for some time",
		Description: term.Describe(`Exchanges the password of the user in the repository's name for a ticket, which other commands use
for up to two hours, and longer while they are used. It is kept in $XDG_RUNTIME_DIR. A token
needs no login; its secret is tried.`,
			"holdfast login -r anna@pbs@backup.lan:tank"),
		Action: r.action(term.Takes(0, 0), runLogin),
	}
}

// Logout is holdfast logout.
func (r Room) Logout() *cli.Command {
	return &cli.Command{
		Name: "logout", Usage: "forget the ticket of a login",
		Description: term.Describe("Forgets the ticket that login has kept.", "holdfast logout -r anna@pbs@backup.lan:tank"),
		Action:      r.action(term.Takes(0, 0), runLogout),
	}
}

// loginRecord tells who is logged in or out, and where.
type loginRecord struct {
	MessageType string `json:"message_type"` // "logged_in" or "logged_out"
	AuthID      string `json:"auth_id"`
	Server      string `json:"server"`
}

// serverRepository is the repository, which must be on a server.
func (c *call) serverRepository() (wire.Repository, error) {
	r, err := c.repos.Name()
	if err == nil && r.IsPath() {
		err = term.Hintf(term.Usagef("%s is about servers, and %s is a path", c.Flags.Command.HelpName, r), "name a server with -r [[user@realm[!token]@]host[:port]:]datastore")
	}
	return repo.WithDefaults(r), err
}

// forgetful is a ticket cache that keeps tickets but knows none.
type forgetful struct{ client.TicketCache }

// Load finds nothing.
func (forgetful) Load(string) (client.Ticket, bool) { return client.Ticket{}, false }

func runLogin(ctx context.Context, c *call) error {
	r, err := c.serverRepository()
	if err != nil {
		return err
	}
	o, err := c.repos.DialOptions(r)
	if err != nil {
		return err
	}
	if _, isToken := wire.AuthID(r.AuthID).Token(); !isToken {
		if o.Tickets == nil {
			return term.Hintf(errors.New("there is no place to keep a ticket"), "set $XDG_RUNTIME_DIR to a directory of your own, or set $HOLDFAST_PASSWORD_FILE and do without a login")
		}
		o.Tickets = forgetful{o.Tickets}
	}
	s, err := client.Dial(ctx, o)
	if err != nil {
		return err
	}
	defer s.Close()
	// Any method will do to see whether the ticket or token is accepted.
	if err := s.Do(ctx, client.Call{Op: api.Version}); err != nil {
		return fmt.Errorf("log in to %s as %s: %w", repo.ServerOf(r), r.AuthID, err)
	}
	c.UI.Done(loginRecord{"logged_in", r.AuthID, repo.ServerOf(r)}, "logged in to %s as %s", repo.ServerOf(r), r.AuthID)
	return nil
}

// errLoggedOut stops a conversation that would begin with a login.
var errLoggedOut = errors.New("not logged in")

func runLogout(ctx context.Context, c *call) error {
	r, err := c.serverRepository()
	if err != nil {
		return err
	}
	o, err := c.repos.DialOptions(r)
	if err != nil {
		return err
	}
	o.Secret = func(context.Context) (string, error) { return "", errLoggedOut }
	s, err := client.Dial(ctx, o)
	if err != nil && !errors.Is(err, errLoggedOut) {
		return err
	}
	if err == nil {
		defer s.Close()
		if err := s.Logout(ctx); err != nil {
			return fmt.Errorf("log out of %s: %w", repo.ServerOf(r), err)
		}
	}
	c.UI.Done(loginRecord{"logged_out", r.AuthID, repo.ServerOf(r)}, "logged out of %s as %s", repo.ServerOf(r), r.AuthID)
	return nil
}
