package secret

import (
	"bytes"
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"

	"github.com/urfave/cli/v2"

	"holdfast/command/term"
	"holdfast/crypto"
)

// Names of the files in the configuration directories.
const (
	ConfigDir     = "holdfast"
	configDirPBS  = "proxmox-backup"
	KeyFileName   = "encryption-key.json"
	MasterPubName = "master-public.pem"
	MasterKeyName = "master-private.pem"
)

// KeyfileFlag names the key of the commands that use one.
func KeyfileFlag() cli.Flag {
	return &cli.StringFlag{Name: "keyfile", Usage: "use the key in `FILE` (or $HOLDFAST_KEYFILE; default encryption-key.json in the configuration directory)"}
}

// ReadModeFlag is for commands that read, with KeyfileFlag: whether a key is needed.
func ReadModeFlag() cli.Flag {
	return &cli.StringFlag{Name: "crypt-mode", Usage: "`MODE` none uses no key and accepts what nobody signed (default: use the key if there is one)"}
}

// MasterPubkeyFlag names the public master key.
func MasterPubkeyFlag() cli.Flag {
	return &cli.StringFlag{Name: "master-pubkey-file", Usage: "wrap the key for the public master key in `FILE` (default master-public.pem in the configuration directory, if there)"}
}

// ParseMode reads a value of --crypt-mode.
func ParseMode(text string) (crypto.Mode, error) {
	err := term.OneOf("crypt-mode", text, string(crypto.ModeEncrypt), string(crypto.ModeSignOnly), string(crypto.ModeNone))
	return crypto.Mode(text), err
}

// ChooseKey picks the key file: the named one, else a default one, "" if there is none.
func (s Source) ChooseKey(given term.Given) (path string, err error) {
	if path, err = s.NamedKey(given); err != nil || path != "" {
		return path, err
	}
	return s.ExistingConfig(KeyFileName)
}

// NamedKey is the key file of --keyfile, or else of $HOLDFAST_KEYFILE, "" for none. It
// is for who has no use for a default one: a home directory that cannot be looked
// into, as where a job has got that of another user, is nothing to him.
func (s Source) NamedKey(given term.Given) (path string, err error) {
	if given.Flags.IsSet("keyfile") {
		if path = given.Flags.String("keyfile"); path == "" {
			err = term.Usagef("--keyfile: empty")
		}
		return path, err
	}
	path, ok := s.Env[envKeyfile]
	if ok && path == "" {
		err = term.Usagef("$HOLDFAST_KEYFILE is set but empty")
	}
	return path, err
}

// LoadKey reads and unlocks a key file.
func (s Source) LoadKey(ctx context.Context, path string) (*crypto.Key, *crypto.KeyFile, error) {
	f, err := s.ReadKeyFile(path)
	if err != nil {
		return nil, nil, err
	}
	k, err := s.unlock(ctx, f, path)
	if err != nil {
		return nil, nil, err
	}
	s.UI.Verbosef("using key %s from %s", k.Fingerprint().Short(), path)
	return k, f, nil
}

// ReadKeyFile reads a key file, or the text of a paper key.
func (s Source) ReadKeyFile(path string) (*crypto.KeyFile, error) {
	b, err := ReadSmall(path)
	if err != nil {
		return nil, fmt.Errorf("read key file: %w", err)
	}
	decode := crypto.DecodeKeyFile
	if bytes.Contains(b, []byte("-----BEGIN PROXMOX BACKUP KEY-----")) {
		decode = crypto.ParsePaperKey
	}
	f, err := decode(b)
	if err != nil {
		return nil, fmt.Errorf("read key file %s: %w", path, err)
	}
	if f.NeedsPassphrase() {
		s.WarnReadable("key file", path, "whoever has it needs only guess the passphrase")
	} else {
		s.WarnReadable("key file", path, "it has no passphrase")
	}
	return f, nil
}

// WarnReadable warns of a secret in a file that every user of the machine may
// read; why says what follows. The group of a file is often there for a reason.
func (s Source) WarnReadable(what, path, why string) {
	st, err := os.Stat(path)
	if err != nil || !st.Mode().IsRegular() || st.Mode().Perm()&0o004 == 0 {
		return
	}
	s.UI.Warnf("every user of this machine may read the %s %s (mode %04o), and %s; take that away with: chmod o-rwx %s", what, path, st.Mode().Perm(), why, path)
}

// unlock asks for the passphrase if the key file has one.
func (s Source) unlock(ctx context.Context, f *crypto.KeyFile, path string) (*crypto.Key, error) {
	var pass []byte
	if f.NeedsPassphrase() {
		if f.Hint != "" {
			s.UI.Verbosef("passphrase hint: %s", f.Hint)
		}
		var err error
		if pass, err = s.Get(ctx, EncryptionPassphrase()); err != nil {
			return nil, fmt.Errorf("key file %s: %w", path, err)
		}
		defer clear(pass)
	}
	k, err := f.Unlock(pass)
	if pass != nil { // the table that it needs is larger than all that comes after it
		debug.FreeOSMemory()
	}
	if err != nil {
		return nil, fmt.Errorf("key file %s: %w", path, err)
	}
	return k, nil
}

// ReaderKey loads the key that a reading command uses, nil if there is none
// or --crypt-mode none asks for none.
func (s Source) ReaderKey(ctx context.Context, given term.Given) (*crypto.Key, error) {
	mode := given.Flags.String("crypt-mode")
	if mode != "" {
		m, err := ParseMode(mode)
		switch {
		case err != nil:
			return nil, err
		case m == crypto.ModeNone && given.Flags.IsSet("keyfile"):
			return nil, term.Usagef("--keyfile and --crypt-mode none contradict each other")
		case m == crypto.ModeNone:
			return nil, nil
		}
	}
	path, err := s.ChooseKey(given)
	switch {
	case err != nil:
		return nil, err
	case path == "" && mode != "":
		return nil, fmt.Errorf("--crypt-mode %s: %w", mode, crypto.ErrNoKey)
	case path == "":
		return nil, nil
	}
	k, _, err := s.LoadKey(ctx, path)
	return k, err
}

// MasterPublic loads the public master key: --master-pubkey-file, or the
// default one if it is there. nil means none.
func (s Source) MasterPublic(given term.Given) (*rsa.PublicKey, error) {
	path := given.Flags.String("master-pubkey-file")
	if path == "" {
		var err error
		if path, err = s.ExistingConfig(MasterPubName); path == "" || err != nil {
			return nil, err
		}
	}
	b, err := ReadSmall(path)
	if err != nil {
		return nil, fmt.Errorf("read public master key: %w", err)
	}
	pub, err := crypto.ParseMasterPublic(b)
	if err != nil {
		return nil, fmt.Errorf("read public master key %s: %w", path, err)
	}
	s.UI.Verbosef("the key goes with the snapshot, wrapped for the master key %s", path)
	return pub, nil
}

// ConfigPath is where a file of our configuration belongs.
func (s Source) ConfigPath(name string) (string, error) {
	base := s.configBase()
	if base == "" {
		return "", term.Usagef("neither $XDG_CONFIG_HOME nor $HOME says where the configuration is; name the file")
	}
	return filepath.Join(base, ConfigDir, name), nil
}

// ExistingConfig finds a configuration file in our directory or in that of
// proxmox-backup-client, "" if it is in neither. A file that cannot be looked
// at is an error: encryption must not be lost by that.
func (s Source) ExistingConfig(name string) (string, error) {
	base := s.configBase()
	if base == "" {
		return "", nil
	}
	for _, dir := range []string{ConfigDir, configDirPBS} {
		path := filepath.Join(base, dir, name)
		_, err := os.Stat(path)
		if err == nil {
			return path, nil
		}
		// The home of a user that has none may be /dev/null.
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
			return "", fmt.Errorf("look for a default key: %w", err)
		}
	}
	return "", nil
}

// configBase is $XDG_CONFIG_HOME or $HOME/.config, "" if neither is there.
// Relative values are ignored as the XDG specification asks.
func (s Source) configBase() string {
	if dir := s.Env["XDG_CONFIG_HOME"]; filepath.IsAbs(dir) {
		return dir
	}
	if home := s.Env["HOME"]; filepath.IsAbs(home) {
		return filepath.Join(home, ".config")
	}
	return ""
}
