package admin

import (
	"context"
	"fmt"
	"io"
	"net/url"

	"github.com/urfave/cli/v2"

	"holdfast/client"
	"holdfast/command/repo"
	"holdfast/command/term"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
)

// Token is holdfast token with its subcommands.
func (r Room) Token() *cli.Command {
	return &cli.Command{
		Name: "token", Usage: "manage the API tokens of a server",
		Description: term.Describe(`A token belongs to a user and has a secret instead of a password. It may do what its own
rights and those of its user both allow; only root@pam has all rights by itself.`),
		Subcommands: []*cli.Command{
			{
				Name: "create", Usage: "make a token", ArgsUsage: "USER@REALM!NAME",
				Description: term.Describe(`Makes a token and prints its secret, which cannot be shown again. --role and --path give it
rights at once. The role DatastorePutOnly lets a machine add backups and nothing else: it
can neither read nor remove them.`,
					"holdfast token create 'root@pam!web' --role DatastoreBackup --path /datastore/tank",
					"holdfast token create 'root@pam!db' --role DatastorePutOnly --path /datastore/tank"),
				Flags: []cli.Flag{repo.DataFlag(),
					&cli.StringFlag{Name: "role", Usage: "give it this `ROLE` on --path"},
					&cli.StringFlag{Name: "path", Usage: "the ACL `PATH` of --role, as /datastore/tank"},
					&cli.StringFlag{Name: "comment", Usage: "keep `TEXT` with the token"}},
				Action: r.action(term.Takes(1, 1), tokenCreate),
			},
			{
				Name: "list", Usage: "list tokens", ArgsUsage: "[USER@REALM]",
				Description: term.Describe("Lists the tokens of a user, or of all users.", "holdfast token list", "holdfast token list root@pam"),
				Flags:       []cli.Flag{repo.DataFlag()},
				Action:      r.action(term.Takes(0, 1), tokenList),
			},
			{
				Name: "revoke", Usage: "remove a token", ArgsUsage: "USER@REALM!NAME",
				Description: term.Describe(`Removes a token with its rights. It is refused from the next request on; its backup groups
stay.`, "holdfast token revoke 'root@pam!web'"),
				Flags:  []cli.Flag{repo.DataFlag()},
				Action: r.action(term.Takes(1, 1), tokenRevoke),
			},
		},
	}
}

// tokenRecord describes a token. The secret is there only when it was made.
type tokenRecord struct {
	MessageType string `json:"message_type"` // "token"
	AuthID      string `json:"auth_id"`
	Secret      string `json:"secret,omitempty"`
	Role        string `json:"role,omitempty"`
	Path        string `json:"path,omitempty"`
	Comment     string `json:"comment,omitempty"`
	Enabled     bool   `json:"enabled"`
	Expires     string `json:"expires,omitempty"`
}

// ofToken are the variables of the path of a token.
func ofToken(id wire.AuthID) []string {
	name, _ := id.Token()
	return []string{string(id.User()), name}
}

func tokenCreate(ctx context.Context, c *call) error {
	id, err := authID(c.Arg(0), true)
	if err != nil {
		return err
	}
	role, path, comment := c.Flags.String("role"), c.Flags.String("path"), c.Flags.String("comment")
	if (role == "") != (path == "") {
		return term.Usagef("--role and --path belong together")
	}
	return c.repos.Anew().Managing(ctx, func(s *client.Client) error {
		var made api.NewToken
		if err := s.Do(ctx, client.Call{Op: api.CreateToken, At: ofToken(id), Params: repo.Fields("comment", comment), Into: &made}); err != nil {
			return fmt.Errorf("make token %s: %w", id, err)
		}
		undo := func(what string) {
			if err := s.Do(ctx, client.Call{Op: api.RemoveToken, At: ofToken(id)}); err != nil {
				c.UI.Warnf("the token %s is left, %s: %v", id, what, err)
			}
		}
		if role != "" {
			if err := s.Do(ctx, setACL(path, role, id)); err != nil {
				undo("without rights") // and so nobody needs the secret
				return fmt.Errorf("make token %s: give it the role %s on %s: %w", id, role, path, knownRoles(err))
			}
		}
		c.UI.Result(tokenRecord{"token", string(id), made.Secret, role, path, comment, true, ""}, func(w io.Writer) {
			fmt.Fprintf(w, "made token %s; its secret is shown this once:\n%s\n", id, made.Secret)
		})
		if err := c.UI.WriteError(); err != nil {
			undo("with a secret that nobody has seen")
			return fmt.Errorf("the token %s was not made, since its secret could not be shown: %w", id, err)
		}
		if role != "" {
			c.warnPowerless(ctx, s, id, path)
		}
		return nil
	})
}

// warnPowerless tells if a token was given a role that does not count, since its
// user has no rights there. A server that does not tell is not asked again.
func (c *call) warnPowerless(ctx context.Context, s *client.Client, id wire.AuthID, path string) {
	var rights map[string]map[string]any
	q := client.Call{
		Op:     api.ListPermissions,
		Params: url.Values{"auth-id": {string(id)}, "path": {path}}, Into: &rights,
	}
	if err := s.Do(ctx, q); err != nil {
		c.UI.Verbosef("rights of %s: %v", id, err)
		return
	}
	if len(rights[path]) == 0 {
		c.UI.Warnf("%s has no rights on %s, as a token has only those that its user has, too: give %s a role there", id, path, id.User())
	}
}

func tokenList(ctx context.Context, c *call) error {
	users := []string{}
	if c.Arg(0) != "" {
		id, err := authID(c.Arg(0), false)
		if err != nil {
			return err
		}
		users = append(users, string(id))
	}
	rows := [][]string{{"token", "state", "comment"}}
	err := c.repos.Managing(ctx, func(s *client.Client) error {
		if len(users) == 0 {
			var err error
			if users, err = userNames(ctx, s); err != nil {
				return err
			}
		}
		for _, u := range users {
			more, err := c.tokensOf(ctx, s, u)
			if err != nil {
				return err
			}
			rows = append(rows, more...)
		}
		return nil
	})
	if err != nil {
		return err
	}
	c.UI.Listing(rows, "no tokens")
	return nil
}

// userNames lists all users, by name only.
func userNames(ctx context.Context, s *client.Client) ([]string, error) {
	var list []api.UserItem
	if err := s.Do(ctx, client.Call{Op: api.ListUsers, Into: &list}); err != nil {
		return nil, fmt.Errorf("list users: %w", err)
	}
	var names []string
	for _, u := range list {
		names = append(names, string(u.ID))
	}
	return names, nil
}

// tokensOf returns the tokens of one user as rows, and prints them as JSON.
func (c *call) tokensOf(ctx context.Context, s *client.Client, user string) (rows [][]string, err error) {
	var list []api.TokenItem
	if err := s.Do(ctx, client.Call{Op: api.ListTokens, At: []string{user}, Into: &list}); err != nil {
		return nil, fmt.Errorf("list tokens of %s: %w", user, err)
	}
	for _, t := range list {
		rows = append(rows, []string{string(t.ID), state(t.Enabled, t.Expire), t.Comment})
		if c.UI.JSON {
			c.UI.Result(tokenRecord{MessageType: "token", AuthID: string(t.ID), Comment: t.Comment, Enabled: t.Enabled, Expires: term.UnixTime(t.Expire)}, nil)
		}
	}
	return rows, nil
}

func tokenRevoke(ctx context.Context, c *call) error {
	id, err := authID(c.Arg(0), true)
	if err != nil {
		return err
	}
	if err := c.repos.Asking(ctx, client.Call{Op: api.RemoveToken, At: ofToken(id)}, nil); err != nil {
		return fmt.Errorf("revoke token %s: %w", id, err)
	}
	c.UI.Done(identityRecord{"token_revoked", string(id)}, "revoked token %s", id)
	return nil
}

// setACL is the call that gives a role.
func setACL(path, role string, id wire.AuthID) client.Call {
	return client.Call{
		Op:     api.SetACL,
		Params: url.Values{"path": {path}, "role": {role}, "auth-id": {string(id)}},
	}
}
