package main

import (
	"bytes"
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"

	"github.com/urfave/cli/v2"

	"holdfast/chunkstore/durable"
	"holdfast/command/term"
	"holdfast/crypto"
)

// keyFileSizeMax caps what is read as a key file or PEM file, in bytes.
const keyFileSizeMax = 64 << 10

// Names of the files in the configuration directories.
const (
	configDir     = "holdfast"
	configDirPBS  = "proxmox-backup"
	keyFileName   = "encryption-key.json"
	masterPubName = "master-public.pem"
	masterKeyName = "master-private.pem"
)

// keyfileFlag names the key of the commands that use one.
func keyfileFlag() cli.Flag {
	return &cli.StringFlag{Name: "keyfile", Usage: "use the key in `FILE` (or $HOLDFAST_KEYFILE; default encryption-key.json in the configuration directory)"}
}

// keyChoice is the key file that was chosen, "" if there is none.
type keyChoice struct {
	path     string
	explicit bool // by --keyfile
	found    bool // a default that happened to be there
}

// chooseKey picks the key file: --keyfile, then $HOLDFAST_KEYFILE, then the
// default files.
func (c *call) chooseKey() (keyChoice, error) {
	if c.flags.IsSet("keyfile") {
		path := c.flags.String("keyfile")
		if path == "" {
			return keyChoice{}, term.Usagef("--keyfile: empty")
		}
		return keyChoice{path: path, explicit: true}, nil
	}
	if path, ok := c.env[envKeyfile]; ok {
		if path == "" {
			return keyChoice{}, term.Usagef("$HOLDFAST_KEYFILE is set but empty")
		}
		return keyChoice{path: path}, nil
	}
	path, err := c.existingConfig(keyFileName)
	return keyChoice{path: path, found: path != ""}, err
}

// loadKey reads and unlocks a key file.
func (a *app) loadKey(ctx context.Context, path string) (*crypto.Key, *crypto.KeyFile, error) {
	f, err := a.readKeyFile(path)
	if err != nil {
		return nil, nil, err
	}
	k, err := a.unlock(ctx, f, path)
	if err != nil {
		return nil, nil, err
	}
	a.ui.Verbosef("using key %s from %s", k.Fingerprint().Short(), path)
	return k, f, nil
}

// readKeyFile reads a key file, or the text of a paper key.
func (a *app) readKeyFile(path string) (*crypto.KeyFile, error) {
	b, err := readSmall(path)
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
		a.warnReadable("key file", path, "whoever has it needs only guess the passphrase")
	} else {
		a.warnReadable("key file", path, "it has no passphrase")
	}
	return f, nil
}

// warnReadable warns of a secret in a file that every user of the machine may
// read; why says what follows. The group of a file is often there for a reason.
func (a *app) warnReadable(what, path, why string) {
	st, err := os.Stat(path)
	if err != nil || !st.Mode().IsRegular() || st.Mode().Perm()&0o004 == 0 {
		return
	}
	a.ui.Warnf("every user of this machine may read the %s %s (mode %04o), and %s; take that away with: chmod o-rwx %s", what, path, st.Mode().Perm(), why, path)
}

// unlock asks for the passphrase if the key file has one.
func (a *app) unlock(ctx context.Context, f *crypto.KeyFile, path string) (*crypto.Key, error) {
	var pass []byte
	if f.NeedsPassphrase() {
		if f.Hint != "" {
			a.ui.Verbosef("passphrase hint: %s", f.Hint)
		}
		var err error
		if pass, err = a.passphrase(ctx, encryptionPassphrase()); err != nil {
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

// readerKey loads the key that a reading command uses, nil if there is none
// or --crypt-mode none asks for none.
func (c *call) readerKey(ctx context.Context) (*crypto.Key, error) {
	choice, err := c.chooseKey()
	if err != nil {
		return nil, err
	}
	if mode := c.flags.String("crypt-mode"); mode != "" {
		m, err := crypto.ParseMode(mode)
		switch {
		case err != nil:
			return nil, term.Usagef("--crypt-mode %q: want encrypt, sign-only or none", mode)
		case m == crypto.ModeNone && choice.explicit:
			return nil, term.Usagef("--keyfile and --crypt-mode none contradict each other")
		case m == crypto.ModeNone:
			return nil, nil
		case choice.path == "":
			return nil, fmt.Errorf("--crypt-mode %s: %w", mode, crypto.ErrNoKey)
		}
	}
	if choice.path == "" {
		return nil, nil
	}
	k, _, err := c.loadKey(ctx, choice.path)
	return k, err
}

// masterPublic loads the public master key: --master-pubkey-file, or the
// default one if it is there. nil means none.
func (c *call) masterPublic() (*rsa.PublicKey, error) {
	path := c.flags.String("master-pubkey-file")
	if path == "" {
		var err error
		if path, err = c.existingConfig(masterPubName); path == "" || err != nil {
			return nil, err
		}
	}
	b, err := readSmall(path)
	if err != nil {
		return nil, fmt.Errorf("read public master key: %w", err)
	}
	pub, err := crypto.ParseMasterPublic(b)
	if err != nil {
		return nil, fmt.Errorf("read public master key %s: %w", path, err)
	}
	c.ui.Verbosef("the key goes with the snapshot, wrapped for the master key %s", path)
	return pub, nil
}

// configPath is where a file of our configuration belongs.
func (a *app) configPath(name string) (string, error) {
	base := a.configBase()
	if base == "" {
		return "", term.Usagef("neither $XDG_CONFIG_HOME nor $HOME says where the configuration is; name the file")
	}
	return filepath.Join(base, configDir, name), nil
}

// existingConfig finds a configuration file in our directory or in that of
// proxmox-backup-client, "" if it is in neither. A file that cannot be looked
// at is an error: encryption must not be lost by that.
func (a *app) existingConfig(name string) (string, error) {
	base := a.configBase()
	if base == "" {
		return "", nil
	}
	for _, dir := range []string{configDir, configDirPBS} {
		path := filepath.Join(base, dir, name)
		_, err := os.Stat(path)
		if err == nil {
			return path, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("look for a default key: %w", err)
		}
	}
	return "", nil
}

// configBase is $XDG_CONFIG_HOME or $HOME/.config, "" if neither is there.
// Relative values are ignored as the XDG specification asks.
func (a *app) configBase() string {
	if dir := a.env["XDG_CONFIG_HOME"]; filepath.IsAbs(dir) {
		return dir
	}
	if home := a.env["HOME"]; filepath.IsAbs(home) {
		return filepath.Join(home, ".config")
	}
	return ""
}

// readSmall reads a file of at most keyFileSizeMax bytes.
func readSmall(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, keyFileSizeMax+1))
	if err != nil {
		return nil, err
	}
	if len(b) > keyFileSizeMax {
		return nil, fmt.Errorf("%s is larger than %d bytes: %w", path, keyFileSizeMax, crypto.ErrFormat)
	}
	return b, nil
}

// writeNew writes a file that must not exist yet, durably. On error nothing
// is left of it.
func writeNew(path string, data []byte, mode fs.FileMode) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if errors.Is(err, fs.ErrExist) {
		return existsAlready(path)
	}
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(path)
		}
	}()
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return durable.SyncDir(filepath.Dir(path))
}
