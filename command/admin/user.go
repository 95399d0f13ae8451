package admin

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v2"

	"holdfast/client"
	"holdfast/command/repo"
	"holdfast/command/secret"
	"holdfast/command/term"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
)

// User is holdfast user with its subcommands.
func (r Room) User() *cli.Command {
	return &cli.Command{
		Name: "user", Usage: "manage the users of a server",
		Description: term.Describe(`A user logs in with a password; what it may do is set with holdfast acl. For machines that back
up every night make a token instead.`),
		Subcommands: []*cli.Command{
			{
				Name: "create", Usage: "make a user", ArgsUsage: "NAME@REALM",
				Description: term.Describe(`Makes a user. Users with a password are in the realm pbs. The password is read from a file, from
$HOLDFAST_NEW_PASSWORD[_FILE|_FD|_CMD], or asked for.`,
					"holdfast user create anna@pbs", "holdfast user create anna@pbs --password-file anna.password"),
				Flags: []cli.Flag{repo.DataFlag(), passwordFileFlag(),
					&cli.StringFlag{Name: "comment", Usage: "keep `TEXT` with the user"},
					&cli.StringFlag{Name: "email", Usage: "keep `ADDRESS` with the user"}},
				Action: r.action(term.Takes(1, 1), userCreate),
			},
			{
				Name: "list", Usage: "list users",
				Description: term.Describe("Lists the users of a server.", "holdfast user list"),
				Flags:       []cli.Flag{repo.DataFlag()},
				Action:      r.action(term.Takes(0, 0), userList),
			},
			{
				Name: "password", Usage: "change a password", ArgsUsage: "NAME@REALM",
				Description: term.Describe(`Changes the password of a user. It is read as for user create.`, "holdfast user password anna@pbs"),
				Flags:       []cli.Flag{repo.DataFlag(), passwordFileFlag()},
				Action:      r.action(term.Takes(1, 1), userPassword),
			},
			{
				Name: "remove", Usage: "remove a user", ArgsUsage: "NAME@REALM",
				Description: term.Describe(`Removes a user with its tokens and rights. Its backup groups stay.`, "holdfast user remove anna@pbs"),
				Flags:       []cli.Flag{repo.DataFlag()},
				Action:      r.action(term.Takes(1, 1), userRemove),
			},
		},
	}
}

func passwordFileFlag() cli.Flag {
	return &cli.StringFlag{Name: "password-file", Usage: "read the new password from the first line of `FILE`"}
}

// userRecord describes a user.
type userRecord struct {
	MessageType string `json:"message_type"` // "user"
	AuthID      string `json:"auth_id"`
	Comment     string `json:"comment,omitempty"`
	Email       string `json:"email,omitempty"`
	Enabled     bool   `json:"enabled"`
	Expires     string `json:"expires,omitempty"`
}

// identityRecord tells of something that was done to a user or token.
type identityRecord struct {
	MessageType string `json:"message_type"`
	AuthID      string `json:"auth_id"`
}

// newPassword gets the password that a user is to have.
func (c *call) newPassword(ctx context.Context, id wire.AuthID) (string, error) {
	if !c.Flags.IsSet("password-file") {
		p, err := c.Secrets.Choose(ctx, secret.NewUserPassword(id))
		return string(p), err
	}
	p, err := secret.FromFile(c.Flags.String("password-file"))
	if err != nil {
		return "", fmt.Errorf("read password: %w", err)
	}
	c.Secrets.WarnReadable("password file", c.Flags.String("password-file"), "it holds the new password of "+string(id))
	if len(p) < secret.SizeMin {
		return "", term.Usagef("new password of %s: want at least %d bytes", id, secret.SizeMin)
	}
	return string(p), nil
}

func userCreate(ctx context.Context, c *call) error {
	id, err := authID(c.Arg(0), false)
	if err != nil {
		return err
	}
	password, err := c.newPassword(ctx, id)
	if err != nil {
		return err
	}
	comment, email := c.Flags.String("comment"), c.Flags.String("email")
	err = c.repos.Anew().Asking(ctx, client.Call{
		Op:     api.CreateUser,
		Params: repo.Fields("userid", string(id), "password", password, "comment", comment, "email", email),
	}, nil)
	if err != nil {
		return fmt.Errorf("make user %s: %w", id, err)
	}
	c.UI.Done(userRecord{"user", string(id), comment, email, true, ""}, "made user %s; holdfast acl set gives it rights", id)
	return nil
}

// state is how the state of a user or token is shown to people.
func state(enabled bool, expire int64) string {
	switch {
	case !enabled:
		return "disabled"
	case expire > 0:
		return "until " + term.UnixTime(expire)
	}
	return "enabled"
}

func userList(ctx context.Context, c *call) error {
	var list []api.UserItem
	if err := c.repos.Asking(ctx, client.Call{Op: api.ListUsers}, &list); err != nil {
		return fmt.Errorf("list users: %w", err)
	}
	rows := [][]string{{"user", "state", "email", "comment"}}
	for _, u := range list {
		rows = append(rows, []string{string(u.ID), state(u.Enabled, u.Expire), term.OrDash(u.Email), u.Comment})
		if c.UI.JSON {
			c.UI.Result(userRecord{"user", string(u.ID), u.Comment, u.Email, u.Enabled, term.UnixTime(u.Expire)}, nil)
		}
	}
	c.UI.Listing(rows, "no users")
	return nil
}

// confirmation is the password of the user who changes one from afar, "" if nobody has
// to give it: a token, or who is on the machine.
func (c *call) confirmation(ctx context.Context) (string, error) {
	m, err := c.repos.Managed()
	if err != nil || m.Data != "" {
		return "", err
	}
	id := wire.AuthID(repo.WithDefaults(m.Remote).AuthID)
	if _, isToken := id.Token(); isToken {
		return "", nil
	}
	p, err := c.Secrets.Get(ctx, secret.Login(id))
	return string(p), err
}

func userPassword(ctx context.Context, c *call) error {
	id, err := authID(c.Arg(0), false)
	if err != nil {
		return err
	}
	password, err := c.newPassword(ctx, id)
	if err != nil {
		return err
	}
	confirmation, err := c.confirmation(ctx)
	if err == nil {
		err = c.repos.Anew().Asking(ctx, client.Call{
			Op:     api.SetPassword,
			Params: repo.Fields("userid", string(id), "password", password, "confirmation-password", confirmation),
		}, nil)
	}
	if err != nil {
		return fmt.Errorf("change password of %s: %w", id, err)
	}
	c.UI.Done(identityRecord{"password_changed", string(id)}, "changed the password of %s", id)
	return nil
}

func userRemove(ctx context.Context, c *call) error {
	id, err := authID(c.Arg(0), false)
	if err != nil {
		return err
	}
	if err := c.repos.Asking(ctx, client.Call{Op: api.RemoveUser, At: []string{string(id)}}, nil); err != nil {
		return fmt.Errorf("remove user %s: %w", id, err)
	}
	c.UI.Done(identityRecord{"user_removed", string(id)}, "removed user %s", id)
	return nil
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
