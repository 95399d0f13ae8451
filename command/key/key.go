package key

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"holdfast/chunkstore/durable"
	"holdfast/command/secret"
	"holdfast/command/term"
	"holdfast/crypto"
)

// Command is holdfast key with its subcommands.
func (r Room) Command() *cli.Command {
	return &cli.Command{
		Name:  "key",
		Usage: "make, show and keep encryption keys",
		Description: term.Describe(`Keys encrypt and sign backups. A lost key cannot be replaced by anything:
print it on paper (holdfast key paperkey) or keep a copy wrapped for a master key
(holdfast key create-master-key) with each snapshot.`),
		Subcommands: []*cli.Command{
			r.createCommand(),
			r.showCommand(),
			r.changeCommand(),
			r.paperCommand(),
			r.masterCreateCommand(),
			r.masterImportCommand(),
			r.masterShowCommand(),
			r.importCommand(),
			r.recoverCommand(),
		},
	}
}

// keyRecord describes a key file.
type keyRecord struct {
	MessageType string `json:"message_type"` // "key"
	Path        string `json:"path"`
	KDF         string `json:"kdf"`
	Created     string `json:"created"`
	Modified    string `json:"modified"`
	Fingerprint string `json:"fingerprint,omitempty"`
	Hint        string `json:"hint,omitempty"`
}

func kdfFlag() cli.Flag {
	return &cli.StringFlag{Name: "kdf", Value: "scrypt", Usage: "how the passphrase protects the key: `KDF` is scrypt, pbkdf2, or none for a key without a passphrase (default scrypt)"}
}

func hintFlag() cli.Flag {
	return &cli.StringFlag{Name: "hint", Usage: "keep `TEXT` in the key file as a hint at the passphrase; anybody can read it"}
}

func (r Room) createCommand() *cli.Command {
	return &cli.Command{
		Name: "create", Usage: "make a new key", ArgsUsage: "[FILE]",
		Description: term.Describe(`Makes a new random key and writes it to FILE, which must not exist. Without FILE the key
goes to the configuration directory, where backup and restore find it by themselves. A
directory that is missing is made.
The passphrase is taken from $HOLDFAST_ENCRYPTION_PASSWORD (or its forms _FILE, _FD and
_CMD) or asked for on the terminal.`,
			"holdfast key create /root/backup-key.json",
			"holdfast key create --kdf none"),
		Flags:  []cli.Flag{kdfFlag(), hintFlag()},
		Action: r.action(term.Takes(0, 1), keyCreate),
	}
}

func keyCreate(ctx context.Context, c *call) error {
	path := c.Arg(0)
	if path == "" {
		var err error
		if path, err = c.Secrets.ConfigPath(secret.KeyFileName); err != nil {
			return err
		}
	}
	if err := secret.Absent(path); err != nil {
		return err
	}
	k, err := crypto.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("make key: %w", err)
	}
	f, err := c.protect(ctx, k, secret.EncryptionPassphrase(), crypto.KeyFileOptions{})
	if err != nil {
		return err
	}
	if err := c.writeKeyFile(path, f); err != nil {
		return err
	}
	c.showKey(path, f)
	c.UI.Notef("without this key the backups made with it cannot be read: keep a copy elsewhere (holdfast key paperkey %s)", path)
	return nil
}

// protect wraps a key for its file as the flags --kdf and --hint say. The
// dates in o are kept.
func (c *call) protect(ctx context.Context, k *crypto.Key, pass secret.Kind, o crypto.KeyFileOptions) (*crypto.KeyFile, error) {
	kdf, err := parseKDF(c.Flags.String("kdf"))
	if err != nil {
		return nil, err
	}
	if kdf == crypto.KDFNone && c.Flags.String("hint") != "" {
		return nil, term.Usagef("--hint makes no sense with --kdf none")
	}
	if kdf != crypto.KDFNone {
		if o.Passphrase, err = c.Secrets.Choose(ctx, pass); err != nil {
			return nil, err
		}
		defer clear(o.Passphrase)
	}
	o.KDF, o.Hint, o.Now = kdf, c.Flags.String("hint"), c.Now()
	if o.Created.IsZero() {
		o.Created = o.Now
	}
	f, err := crypto.NewKeyFile(k, o)
	if err != nil {
		return nil, fmt.Errorf("make key file: %w", err)
	}
	return f, nil
}

func parseKDF(s string) (crypto.KDF, error) {
	var words []string
	for _, k := range []crypto.KDF{crypto.KDFScrypt, crypto.KDFPBKDF2, crypto.KDFNone} {
		if s == k.String() {
			return k, nil
		}
		words = append(words, k.String())
	}
	return 0, term.OneOf("kdf", s, words...)
}

// writeKeyFile writes a new key file. A directory that is missing is made, for
// its user alone: the key is there in memory only until then.
func (c *call) writeKeyFile(path string, f *crypto.KeyFile) error {
	b, err := f.Encode()
	if err != nil {
		return fmt.Errorf("write key file: %w", err)
	}
	defer clear(b)
	if err := durable.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return secret.WriteNew(path, b, 0o600)
}

// showKey prints what may be known about a key.
func (c *call) showKey(path string, f *crypto.KeyFile) {
	r := keyRecord{
		MessageType: "key", Path: path, KDF: f.KDF.String(),
		Created: term.RFC3339(f.Created), Modified: term.RFC3339(f.Modified), Hint: f.Hint,
	}
	if f.Fingerprint != (crypto.Fingerprint{}) {
		r.Fingerprint = f.Fingerprint.String()
	}
	c.UI.Result(r, func(w io.Writer) {
		rows := [][]string{{"path:", r.Path}, {"kdf:", r.KDF}, {"created:", r.Created}, {"modified:", r.Modified}}
		if r.Fingerprint != "" {
			rows = append(rows, []string{"fingerprint:", r.Fingerprint})
		}
		if r.Hint != "" {
			rows = append(rows, []string{"hint:", r.Hint})
		}
		term.Table(w, rows)
	})
}

func (r Room) showCommand() *cli.Command {
	return &cli.Command{
		Name: "show", Usage: "show what a key file says about its key", ArgsUsage: "[FILE]",
		Description: term.Describe(`Prints the protection, the dates, the fingerprint and the hint of a key file. No passphrase
is needed. Without FILE it is the key that backup would use. The first 8 bytes of the
fingerprint stand in listings of snapshots.`,
			"holdfast key show",
			"holdfast key show /root/backup-key.json"),
		Flags:  []cli.Flag{secret.KeyfileFlag()},
		Action: r.action(term.Takes(0, 1), keyShow),
	}
}

func keyShow(_ context.Context, c *call) error {
	path, err := c.keyArgument()
	if err != nil {
		return err
	}
	f, err := c.Secrets.ReadKeyFile(path)
	if err != nil {
		return err
	}
	c.showKey(path, f)
	return nil
}

// keyArgument is the key file named by the first argument, or the one that
// would be used without it.
func (c *call) keyArgument() (string, error) {
	if path := c.Arg(0); path != "" {
		return path, nil
	}
	path, err := c.Secrets.ChooseKey(c.Given)
	if err == nil && path == "" {
		err = noKey("there is no key at the default place")
	}
	return path, err
}

// noKey is the error of a command that needs a key, with the way out.
func noKey(what string) error {
	return term.Hintf(fmt.Errorf("%s: %w", what, crypto.ErrNoKey), "make a key with: holdfast key create FILE, or name one with --keyfile FILE")
}

func (r Room) changeCommand() *cli.Command {
	return &cli.Command{
		Name: "change-passphrase", Usage: "protect a key with another passphrase", ArgsUsage: "[FILE]",
		Description: term.Describe(`Opens the key in FILE with its passphrase and writes the file anew with another one. The key
and its fingerprint stay as they are; copies of the old file still open with the old
passphrase. The new passphrase is taken from $HOLDFAST_NEW_ENCRYPTION_PASSWORD (or its
forms _FILE, _FD and _CMD) or asked for on the terminal.`,
			"holdfast key change-passphrase /root/backup-key.json",
			"holdfast key change-passphrase --kdf none /root/backup-key.json"),
		Flags:  []cli.Flag{kdfFlag(), hintFlag(), secret.KeyfileFlag()},
		Action: r.action(term.Takes(0, 1), keyChange),
	}
}

func keyChange(ctx context.Context, c *call) error {
	path, err := c.keyArgument()
	if err != nil {
		return err
	}
	// The file itself is replaced, not a link to it.
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return fmt.Errorf("read key file: %w", err)
	}
	k, old, err := c.Secrets.LoadKey(ctx, path)
	if err != nil {
		return err
	}
	f, err := c.protect(ctx, k, secret.NewEncryptionPassphrase(), crypto.KeyFileOptions{Created: old.Created})
	if err != nil {
		return err
	}
	b, err := f.Encode()
	if err != nil {
		return fmt.Errorf("write key file: %w", err)
	}
	defer clear(b)
	if err := durable.WriteFile(path, b, 0o600); err != nil {
		return fmt.Errorf("write key file: %w", err)
	}
	c.showKey(path, f)
	return nil
}

func (r Room) paperCommand() *cli.Command {
	return &cli.Command{
		Name: "paperkey", Usage: "print a key for safe keeping on paper", ArgsUsage: "[FILE]",
		Description: term.Describe(`Prints the key file as text and as a QR code. A key with a passphrase stays protected by it
on paper. To use a paper key again, type or scan the text into a file, markers included,
and name that file with --keyfile.`,
			"holdfast key paperkey /root/backup-key.json | lpr",
			"holdfast key paperkey --output-format html --subject \"key of host elsa\" > key.html"),
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "subject", Usage: "print `TEXT` above the key"},
			&cli.StringFlag{Name: "output-format", Value: "text", Usage: "`FORMAT` is text or html (default text)"},
			secret.KeyfileFlag(),
		},
		Action: r.action(term.Takes(0, 1), keyPaper),
	}
}

type paperRecord struct {
	MessageType string `json:"message_type"` // "paperkey"
	Format      string `json:"format"`
	Text        string `json:"text"`
}

func keyPaper(_ context.Context, c *call) error {
	format := c.Flags.String("output-format")
	const text, html = "text", "html"
	if err := term.OneOf("output-format", format, text, html); err != nil {
		return err
	}
	render := crypto.PaperKeyText
	if format == html {
		render = crypto.PaperKeyHTML
	}
	path, err := c.keyArgument()
	if err != nil {
		return err
	}
	f, err := c.Secrets.ReadKeyFile(path)
	if err != nil {
		return err
	}
	paper, err := render(f, c.Flags.String("subject"))
	if err != nil {
		return fmt.Errorf("paper key of %s: %w", path, err)
	}
	c.UI.Result(paperRecord{"paperkey", format, paper}, func(w io.Writer) { io.WriteString(w, paper) })
	return nil
}
