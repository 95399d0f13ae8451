package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	xterm "golang.org/x/term"

	"holdfast/command/term"
	"holdfast/datastore/wire"
)

const (
	// secretSizeMax is the longest passphrase, in bytes.
	secretSizeMax = 1024
	// secretSizeMin is the shortest new passphrase (section 5.1 of the
	// formats specification).
	secretSizeMin = 5
)

// secret says where a passphrase may come from. The first source that is
// defined counts, and of it only the first line.
type secret struct {
	what    string // for the prompt and for errors
	sources []secretSource
}

// secretSource is one family: the variable itself, with _FILE, _FD and _CMD
// behind its name in the given order, and a systemd credential.
type secretSource struct {
	variable   string
	forms      []string
	credential string
}

// secretForms are what stands behind the name of our variables.
func secretForms() []string { return []string{"", "_FILE", "_FD", "_CMD"} }

// encryptionPassphrase is the one of a key file.
func encryptionPassphrase() secret {
	return secret{"passphrase of the key", []secretSource{
		{"HOLDFAST_ENCRYPTION_PASSWORD", secretForms(), "holdfast.encryption-password"},
		{"PBS_ENCRYPTION_PASSWORD", []string{"", "_FD", "_FILE", "_CMD"}, "proxmox-backup-client.encryption-password"},
	}}
}

// newEncryptionPassphrase is the one a key file is changed to.
func newEncryptionPassphrase() secret {
	return secret{"new passphrase of the key", []secretSource{
		{"HOLDFAST_NEW_ENCRYPTION_PASSWORD", secretForms(), "holdfast.new-encryption-password"},
	}}
}

// masterPassphrase is the one of a private master key.
func masterPassphrase() secret {
	return secret{"passphrase of the master key", []secretSource{
		{"HOLDFAST_MASTER_PASSWORD", secretForms(), "holdfast.master-password"},
	}}
}

// loginSecret is the password of a user, or the secret of an API token.
func loginSecret(id wire.AuthID) secret {
	what := "password of " + string(id)
	if _, isToken := id.Token(); isToken {
		what = "secret of " + string(id)
	}
	return secret{what, []secretSource{
		{"HOLDFAST_PASSWORD", secretForms(), "holdfast.password"},
		{"PBS_PASSWORD", []string{"", "_FD", "_FILE", "_CMD"}, "proxmox-backup-client.password"},
	}}
}

// newUserPassword is the one that a user gets.
func newUserPassword(id wire.AuthID) secret {
	return secret{"new password of " + string(id), []secretSource{
		{"HOLDFAST_NEW_PASSWORD", secretForms(), "holdfast.new-password"},
	}}
}

// names lists the variables, for messages.
func (s secret) names() []string {
	var names []string
	for _, src := range s.sources {
		names = append(names, "$"+src.variable+"[_FILE|_FD|_CMD]")
	}
	return names
}

// passphrase gets an existing secret, from the environment or by asking.
func (a *app) passphrase(ctx context.Context, s secret) ([]byte, error) {
	p, ok, err := a.secretFromEnv(ctx, s)
	if ok || err != nil {
		return p, err
	}
	return a.ask(ctx, s, s.what+": ")
}

// newPassphrase gets a secret that is being chosen: asked for twice, and not
// too short.
func (a *app) newPassphrase(ctx context.Context, s secret) ([]byte, error) {
	p, ok, err := a.secretFromEnv(ctx, s)
	if err != nil {
		return nil, err
	}
	if !ok {
		if p, err = a.askTwice(ctx, s); err != nil {
			return nil, err
		}
	}
	if len(p) < secretSizeMin {
		return nil, term.Usagef("%s: want at least %d bytes", s.what, secretSizeMin)
	}
	return p, nil
}

// secretFromEnv looks through the environment and the credentials of s; ok
// says whether one was defined.
func (a *app) secretFromEnv(ctx context.Context, s secret) (p []byte, ok bool, err error) {
	for _, src := range s.sources {
		p, name, err := a.fromSource(ctx, s.what, src)
		if err != nil {
			return nil, false, fmt.Errorf("%s: %s: %w", s.what, name, err)
		}
		if name == "" {
			continue
		}
		if len(p) == 0 {
			return nil, false, fmt.Errorf("%s: %s is empty: %w", s.what, name, errPassphrase)
		}
		a.ui.Verbosef("%s: taken from %s", s.what, name)
		return p, true, nil
	}
	return nil, false, nil
}

// fromSource reads one family; what is for a warning. name is the variable or credential that was
// defined, "" if none was.
func (a *app) fromSource(ctx context.Context, what string, src secretSource) (p []byte, name string, err error) {
	for _, form := range src.forms {
		name := src.variable + form
		value, ok := a.env[name]
		if !ok {
			continue
		}
		var p []byte
		var err error
		switch form {
		case "":
			p, err = firstLine(strings.NewReader(value))
		case "_FILE":
			if p, err = secretFromFile(value); err == nil {
				a.warnReadable("file", value, "it holds the "+what)
			}
		case "_FD":
			p, err = secretFromFD(value)
		case "_CMD":
			p, err = a.secretFromCommand(ctx, value)
		}
		return p, "$" + name, err
	}
	dir, ok := a.env["CREDENTIALS_DIRECTORY"]
	if !ok {
		return nil, "", nil
	}
	p, err = secretFromFile(filepath.Join(dir, src.credential))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "", nil
	}
	return p, "credential " + src.credential, err
}

func secretFromFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return firstLine(f)
}

// secretFromFD reads from an inherited descriptor. Nothing behind the line is
// consumed, so that two secrets may come through one descriptor.
func secretFromFD(value string) ([]byte, error) {
	n, err := strconv.ParseUint(value, 10, 31)
	if err != nil {
		return nil, term.Usagef("%q is not the number of a file descriptor", value)
	}
	fd, err := syscall.Dup(int(n))
	if err != nil {
		return nil, fmt.Errorf("file descriptor %d: %w", n, err)
	}
	f := os.NewFile(uintptr(fd), "fd "+value)
	defer f.Close()
	return firstLine(f)
}

// secretFromCommand runs a shell command and takes what it prints.
func (a *app) secretFromCommand(ctx context.Context, command string) ([]byte, error) {
	if strings.TrimSpace(command) == "" {
		return nil, term.Usagef("no command given")
	}
	out := limitedBuffer{left: 64 << 10}
	cmd := exec.CommandContext(ctx, "sh", "-c", command)
	cmd.Stdout, cmd.Stderr = &out, a.stderr
	err := cmd.Run()
	if out.full {
		err = errTooMuch
	}
	if err != nil {
		return nil, fmt.Errorf("run command: %w", err)
	}
	return firstLine(&out.b)
}

var errTooMuch = errors.New("it prints too much")

// limitedBuffer refuses more than left bytes.
type limitedBuffer struct {
	b    bytes.Buffer
	left int
	full bool
}

func (l *limitedBuffer) Write(p []byte) (int, error) {
	if len(p) > l.left {
		l.full = true
		return 0, errTooMuch
	}
	l.left -= len(p)
	return l.b.Write(p)
}

// firstLine reads up to the first line feed, byte by byte, and drops a
// carriage return before it.
func firstLine(r io.Reader) ([]byte, error) {
	line := make([]byte, 0, secretSizeMax+1)
	var b [1]byte
	for len(line) <= secretSizeMax {
		_, err := io.ReadFull(r, b[:])
		if errors.Is(err, io.EOF) || err == nil && b[0] == '\n' {
			return bytes.TrimSuffix(line, []byte("\r")), nil
		}
		if err != nil {
			return nil, err
		}
		line = append(line, b[0])
	}
	return nil, term.Usagef("the first line is longer than %d bytes", secretSizeMax)
}

// askTwice asks for a new secret until both answers agree.
func (a *app) askTwice(ctx context.Context, s secret) ([]byte, error) {
	p, err := a.ask(ctx, s, s.what+": ")
	if err != nil {
		return nil, err
	}
	if len(p) < secretSizeMin {
		return nil, term.Usagef("%s: want at least %d bytes", s.what, secretSizeMin)
	}
	again, err := a.ask(ctx, s, "the same again: ")
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(p, again) {
		return nil, term.Usagef("%s: the two entries differ", s.what)
	}
	return p, nil
}

// ask prompts on the terminal. Without one there is no way to go on.
func (a *app) ask(ctx context.Context, s secret, prompt string) ([]byte, error) {
	if !term.IsTerminal(a.stderr) && !term.IsTerminal(a.stdin) {
		return nil, a.noTerminal(s)
	}
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, a.noTerminal(s)
	}
	defer tty.Close()
	a.ui.ClearLine()
	if _, err := io.WriteString(tty, "holdfast: "+prompt); err != nil {
		return nil, fmt.Errorf("ask for the %s: %w", s.what, err)
	}
	p, err := readHidden(ctx, tty)
	io.WriteString(tty, "\n")
	if err != nil {
		return nil, fmt.Errorf("ask for the %s: %w", s.what, err)
	}
	return p, nil
}

func (a *app) noTerminal(s secret) error {
	return term.Hintf(fmt.Errorf("the %s is needed and there is no terminal to ask on: %w", s.what, errPassphrase),
		"set one of %s", strings.Join(s.names(), ", "))
}

// readHidden reads a line without showing it. When ctx ends it puts the
// terminal back as it was; the reader is left behind, as the program ends.
func readHidden(ctx context.Context, tty *os.File) ([]byte, error) {
	fd := int(tty.Fd())
	state, err := xterm.GetState(fd)
	if err != nil {
		return nil, err
	}
	type answer struct {
		p   []byte
		err error
	}
	got := make(chan answer, 1)
	go func() {
		p, err := xterm.ReadPassword(fd)
		got <- answer{p, err}
	}()
	select {
	case g := <-got:
		return g.p, g.err
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), xterm.Restore(fd, state))
	}
}
