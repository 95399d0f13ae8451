package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"holdfast/client"
	"holdfast/command/repo"
	"holdfast/command/secret"
	"holdfast/command/term"
	"holdfast/datastore/access"
	"holdfast/datastore/wire/api"
)

// Access is holdfast access with its subcommands.
func (r Room) Access() *cli.Command {
	return &cli.Command{
		Name: "access", Usage: "save and restore the users and rights of a server",
		Description: term.Describe(`Works on everything about access: users, tokens, roles, quotas and the list of datastores.
Passwords and the secrets of tokens are in it as hashes, but the key that signs tickets is in
it, too: keep the file to yourself. Works on this machine only.`),
		Subcommands: []*cli.Command{
			{
				Name: "export", Usage: "write users and rights to a file", ArgsUsage: "[FILE]",
				Description: term.Describe("Writes users and rights as JSON to a new FILE, or to standard output.", "holdfast access export access.json"),
				Flags:       []cli.Flag{repo.DataFlag()},
				Action:      r.action(term.Takes(0, 1), accessExport),
			},
			{
				Name: "import", Usage: "replace users and rights by those of a file", ArgsUsage: "FILE",
				Description: term.Describe("Replaces all users and rights by those of a file that export has written.", "holdfast access import access.json"),
				Flags:       []cli.Flag{repo.DataFlag()},
				Action:      r.action(term.Takes(1, 1), accessImport),
			},
		},
	}
}

// accessFileMax caps what import reads, in bytes.
const accessFileMax = 64 << 20

// accessFileRecord names the file that was written or read.
type accessFileRecord struct {
	MessageType string `json:"message_type"` // "access_exported" or "access_imported"
	Path        string `json:"path"`
}

// dataHere is the data directory of a server on this machine: what is not on
// the network is done beside it.
func (c *call) dataHere() (string, error) {
	m, err := c.repos.Managed()
	if err == nil && m.Data == "" {
		err = term.Usagef("%s works beside the data of the server only: name its directory with --data", c.Flags.Command.HelpName)
	}
	return m.Data, err
}

func accessExport(ctx context.Context, c *call) error {
	path := c.Arg(0)
	if path != "" && path != "-" {
		if err := secret.Absent(path); err != nil {
			return err
		}
	}
	dir, err := c.dataHere()
	if err != nil {
		return err
	}
	var exported json.RawMessage
	q := client.Call{Op: api.ExportAccess, Whole: &exported}
	if err := c.repos.ManagingHere(ctx, dir, func(s *client.Client) error { return s.Do(ctx, q) }); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	exported = bytes.TrimSpace(exported)
	if path == "" || path == "-" {
		if _, err := fmt.Fprintf(c.Out, "%s\n", term.EscapeJSON(exported)); err != nil {
			return term.Written(err)
		}
		return nil
	}
	if err := secret.WriteNew(path, append(exported, '\n'), 0o600); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	c.UI.Done(accessFileRecord{"access_exported", path}, "wrote users and rights to %s", path)
	return nil
}

func accessImport(ctx context.Context, c *call) error {
	dir, err := c.dataHere()
	if err != nil {
		return err
	}
	b, err := readAccessFile(c.Arg(0))
	if err == nil {
		err = c.importInto(ctx, dir, b)
	}
	if err != nil {
		return fmt.Errorf("import: %w", err)
	}
	c.UI.Done(accessFileRecord{"access_imported", c.Arg(0)}, "replaced users and rights by those of %s", c.Arg(0))
	return nil
}

// importInto gives the file to the server that runs, or puts it into the
// directory of one that does not.
func (c *call) importInto(ctx context.Context, dir string, b []byte) error {
	socket := filepath.Join(dir, repo.DataSocketName)
	runs, err := repo.Answers(socket)
	if err != nil {
		return err
	}
	if runs {
		s, err := c.repos.LocalServer(socket)
		if err != nil {
			return err
		}
		defer s.Close()
		return s.Do(ctx, client.Call{Op: api.ImportAccess, Body: b})
	}
	if err := repo.CheckDataDir(dir); err != nil {
		return err
	}
	// Before the directory gets users and rights of its own, if it has none.
	if err := access.CheckExport(bytes.NewReader(b)); err != nil {
		return err
	}
	data, err := repo.OpenDataDir(ctx, dir, c.repos.LockWait(), true)
	if err != nil {
		return err
	}
	return errors.Join(data.Access.Import(bytes.NewReader(b)), data.Close(context.WithoutCancel(ctx)))
}

// readAccessFile reads what export has written.
func readAccessFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, accessFileMax+1))
	if err == nil && len(b) > accessFileMax {
		err = term.Usagef("%s is larger than %s", path, term.Bytes(accessFileMax))
	}
	return b, err
}
