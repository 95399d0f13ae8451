package key

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"holdfast/chunkstore"
	"holdfast/chunkstore/blob"
	"holdfast/chunkstore/durable"
	"holdfast/command/repo"
	"holdfast/command/secret"
	"holdfast/command/term"
	"holdfast/crypto"
	"holdfast/datastore/wire"
)

// wrappedKeyName is the file of a snapshot that holds its key, wrapped for the
// master key (section 5.5 of the formats specification).
const wrappedKeyName = "rsa-encrypted.key.blob"

// masterRecord describes a master key.
type masterRecord struct {
	MessageType string `json:"message_type"` // "master_key"
	Public      string `json:"public"`
	Private     string `json:"private,omitempty"`
	Bits        int    `json:"bits"`
	SHA256      string `json:"sha256"` // of the public key in DER form
}

func (r Room) masterCreateCommand() *cli.Command {
	return &cli.Command{
		Name: "create-master-key", Usage: "make a master key pair",
		Description: term.Describe(`Makes an RSA key pair: master-private.pem, protected by a passphrase, and master-public.pem.
Only the public half belongs on the machines that make backups; keep the private one
offline. The passphrase is taken from $HOLDFAST_MASTER_PASSWORD (or its forms _FILE, _FD and
_CMD) or asked for on the terminal.`,
			"holdfast key create-master-key --output-dir /media/usb"),
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "output-dir", Value: ".", Usage: "write both files into `DIR` (default the current directory)"},
		},
		Action: r.action(term.Takes(0, 0), masterCreate),
	}
}

func masterCreate(ctx context.Context, c *call) error {
	dir := c.Flags.String("output-dir")
	private, public := filepath.Join(dir, secret.MasterKeyName), filepath.Join(dir, secret.MasterPubName)
	if dir == "" {
		return term.Usagef("--output-dir: empty")
	}
	if err := errors.Join(secret.Absent(private), secret.Absent(public)); err != nil {
		return err
	}
	pass, err := c.Secrets.Choose(ctx, secret.MasterPassphrase())
	if err != nil {
		return err
	}
	defer clear(pass)
	c.UI.Notef("making an RSA key, this takes a few seconds")
	privatePEM, publicPEM, err := crypto.GenerateMasterKey(pass)
	if err != nil {
		return fmt.Errorf("make master key: %w", err)
	}
	pub, err := crypto.ParseMasterPublic(publicPEM)
	if err != nil {
		return fmt.Errorf("make master key: %w", err)
	}
	if err := durable.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := secret.WriteNew(private, privatePEM, 0o600); err != nil {
		return err
	}
	if err := secret.WriteNew(public, publicPEM, 0o644); err != nil {
		return err
	}
	c.UI.Notef("keep %s offline; use the public half with: holdfast key import-master-pubkey %s", private, public)
	return c.showMaster(public, private, pub)
}

func (c *call) showMaster(public, private string, pub *rsa.PublicKey) error {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return fmt.Errorf("read public master key %s: %w", public, err)
	}
	r := masterRecord{"master_key", public, private, pub.N.BitLen(), fmt.Sprintf("%x", crypto.Sum(der))}
	c.UI.Result(r, func(w io.Writer) {
		rows := [][]string{{"public:", r.Public}}
		if r.Private != "" {
			rows = append(rows, []string{"private:", r.Private})
		}
		term.Table(w, append(rows, []string{"bits:", fmt.Sprint(r.Bits)}, []string{"sha256:", r.SHA256}))
	})
	return nil
}

func (r Room) masterImportCommand() *cli.Command {
	return &cli.Command{
		Name: "import-master-pubkey", Aliases: []string{"import-master-key"},
		Usage: "use a public master key by default", ArgsUsage: "FILE",
		Description: term.Describe(`Copies a public master key to the configuration directory. From then on every encrypted backup
of this user carries its key, wrapped so that only the private master key opens it.`,
			"holdfast key import-master-pubkey master-public.pem"),
		Action: r.action(term.Takes(1, 1), masterImport),
	}
}

func masterImport(_ context.Context, c *call) error {
	from := c.Arg(0)
	b, err := secret.ReadSmall(from)
	if err != nil {
		return fmt.Errorf("read public master key: %w", err)
	}
	if strings.Contains(string(b), "PRIVATE KEY-----") {
		return term.Usagef("%s is a private key: keep it offline, and import the public half (%s)", from, secret.MasterPubName)
	}
	pub, err := crypto.ParseMasterPublic(b)
	if err != nil {
		return fmt.Errorf("read public master key %s: %w", from, err)
	}
	to, err := c.Secrets.ConfigPath(secret.MasterPubName)
	if err != nil {
		return err
	}
	if err := durable.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	if err := secret.WriteNew(to, b, 0o644); err != nil {
		return err
	}
	return c.showMaster(to, "", pub)
}

func (r Room) masterShowCommand() *cli.Command {
	return &cli.Command{
		Name: "show-master-pubkey", Usage: "show a public master key", ArgsUsage: "[FILE]",
		Description: term.Describe(`Prints size and SHA-256 of a public master key. Without FILE it is the one that backup would
use.`,
			"holdfast key show-master-pubkey"),
		Action: r.action(term.Takes(0, 1), masterShow),
	}
}

func masterShow(_ context.Context, c *call) error {
	path := c.Arg(0)
	if path == "" {
		var err error
		if path, err = c.Secrets.ExistingConfig(secret.MasterPubName); err != nil {
			return err
		}
	}
	if path == "" {
		return term.Hintf(fmt.Errorf("no public master key is in use: %w", fs.ErrNotExist),
			"make one with: holdfast key create-master-key, then holdfast key import-master-pubkey FILE")
	}
	b, err := secret.ReadSmall(path)
	if err != nil {
		return fmt.Errorf("read public master key: %w", err)
	}
	pub, err := crypto.ParseMasterPublic(b)
	if err != nil {
		return fmt.Errorf("read public master key %s: %w", path, err)
	}
	return c.showMaster(path, "", pub)
}

func masterKeyfileFlag() cli.Flag {
	return &cli.StringFlag{Name: "master-keyfile", Usage: "the private master key in `FILE`"}
}

func (r Room) importCommand() *cli.Command {
	return &cli.Command{
		Name: "import-with-master-key", Usage: "get a key back from a wrapped copy in a file", ArgsUsage: "OUT",
		Description: term.Describe(`Unwraps rsa-encrypted.key.blob of a snapshot with the private master key and writes the key to
OUT, which must not exist. The passphrase of the master key is taken from
$HOLDFAST_MASTER_PASSWORD, the one for the new key file from $HOLDFAST_ENCRYPTION_PASSWORD.`,
			"holdfast key import-with-master-key --master-keyfile master-private.pem \\",
			"        --encrypted-keyfile rsa-encrypted.key.blob key.json"),
		Flags: []cli.Flag{
			masterKeyfileFlag(),
			&cli.StringFlag{Name: "encrypted-keyfile", Usage: "the wrapped key in `FILE`"},
			kdfFlag(), hintFlag(),
		},
		Action: r.action(term.Takes(1, 1), keyImport),
	}
}

func keyImport(ctx context.Context, c *call) error {
	from := c.Flags.String("encrypted-keyfile")
	if from == "" {
		return term.Usagef("--encrypted-keyfile FILE is needed (or holdfast key recover, which reads it from a snapshot)")
	}
	b, err := secret.ReadSmall(from)
	if err != nil {
		return fmt.Errorf("read wrapped key: %w", err)
	}
	return c.unwrapTo(ctx, c.Arg(0), from, b)
}

func (r Room) recoverCommand() *cli.Command {
	return &cli.Command{
		Name: "recover", Usage: "get a key back from a snapshot", ArgsUsage: "SNAPSHOT OUT",
		Description: term.Describe(`Takes the wrapped key out of a snapshot, unwraps it with the private master key and writes it to
OUT, which must not exist. The passphrase of the master key is taken from
$HOLDFAST_MASTER_PASSWORD, the one for the new key file from $HOLDFAST_ENCRYPTION_PASSWORD.`,
			"holdfast key recover -r /srv/store vm/100/latest --master-keyfile master-private.pem key.json"),
		Flags:  []cli.Flag{masterKeyfileFlag(), kdfFlag(), hintFlag()},
		Action: r.action(term.Takes(2, 2), keyRecover),
	}
}

func keyRecover(ctx context.Context, c *call) error {
	return c.repos.Reading(ctx, c.Arg(0), func(s *repo.Repository, snap wire.Snapshot) error {
		r, err := s.Open(ctx, snap)
		if err != nil {
			return fmt.Errorf("open snapshot %s: %w", snap, err)
		}
		defer r.Close()
		b, err := r.Blob(ctx, wrappedKeyName)
		if errors.Is(err, chunkstore.ErrNotExist) {
			return fmt.Errorf("snapshot %s holds no wrapped key, it was made without a master key: %w", snap, err)
		}
		if err != nil {
			return fmt.Errorf("read wrapped key of %s: %w", snap, err)
		}
		return c.unwrapTo(ctx, c.Arg(1), snap.String(), b)
	})
}

// unwrapTo opens a wrapped key, given as an encoded blob, and writes it to a
// new key file.
func (c *call) unwrapTo(ctx context.Context, out, from string, sealed []byte) error {
	if err := secret.Absent(out); err != nil {
		return err
	}
	codec, err := blob.NewCodec(blob.Options{})
	if err != nil {
		return err
	}
	wrapped, err := codec.Decode(nil, sealed, secret.FileSizeMax)
	if err != nil {
		return fmt.Errorf("read wrapped key of %s: %w", from, err)
	}
	private, err := c.masterPrivate(ctx)
	if err != nil {
		return err
	}
	plain, err := crypto.UnwrapKey(private, wrapped)
	if err != nil {
		return fmt.Errorf("unwrap key of %s: %w", from, err)
	}
	k, err := plain.Unlock(nil)
	if err != nil {
		return fmt.Errorf("unwrap key of %s: %w", from, err)
	}
	f, err := c.protect(ctx, k, secret.EncryptionPassphrase(), crypto.KeyFileOptions{Created: plain.Created})
	if err != nil {
		return err
	}
	if err := c.writeKeyFile(out, f); err != nil {
		return err
	}
	c.showKey(out, f)
	return nil
}

// masterPrivate reads and opens the private master key.
func (c *call) masterPrivate(ctx context.Context) (*rsa.PrivateKey, error) {
	path := c.Flags.String("master-keyfile")
	if path == "" {
		return nil, term.Usagef("--master-keyfile FILE is needed: the private master key (%s)", secret.MasterKeyName)
	}
	b, err := secret.ReadSmall(path)
	if err != nil {
		return nil, fmt.Errorf("read private master key: %w", err)
	}
	defer clear(b)
	c.Secrets.WarnReadable("private master key", path, "it opens the key of every snapshot")
	var pass []byte
	if strings.Contains(string(b), "ENCRYPTED") {
		if pass, err = c.Secrets.Get(ctx, secret.MasterPassphrase()); err != nil {
			return nil, err
		}
		defer clear(pass)
	}
	private, err := crypto.ParseMasterPrivate(b, pass)
	if err != nil {
		return nil, fmt.Errorf("read private master key %s: %w", path, err)
	}
	return private, nil
}
