package secret

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

// Source is where the secrets of a run come from: its environment, files that the
// environment names, and the user.
type Source struct {
	term.Streams
	Env map[string]string
	UI  *term.Output
}

// ErrPassphrase is returned when a passphrase is needed and there is no way to
// get one.
var ErrPassphrase = errors.New("no passphrase")

const (
	// sizeMax is the longest passphrase, in bytes.
	sizeMax = 1024
	// SizeMin is the shortest new passphrase (section 5.1 of the
	// formats specification).
	SizeMin = 5
)

// Kind says where a passphrase may come from. The first source that is
// defined counts, and of it only the first line.
type Kind struct {
	what    string // for the prompt and for errors
	sources []source
}

// source is one family: the variable itself, with _FILE, _FD and _CMD
// behind its name in the given order, and a systemd credential.
type source struct {
	variable   string
	forms      []string
	credential string
}

// forms are what stands behind the name of our variables.
func forms() []string { return []string{"", "_FILE", "_FD", "_CMD"} }

// EncryptionPassphrase is the one of a key file.
func EncryptionPassphrase() Kind {
	return Kind{"passphrase of the key", []source{
		{"HOLDFAST_ENCRYPTION_PASSWORD", forms(), "holdfast.encryption-password"},
		{"PBS_ENCRYPTION_PASSWORD", []string{"", "_FD", "_FILE", "_CMD"}, "proxmox-backup-client.encryption-password"},
	}}
}

// NewEncryptionPassphrase is the one a key file is changed to.
func NewEncryptionPassphrase() Kind {
	return Kind{"new passphrase of the key", []source{
		{"HOLDFAST_NEW_ENCRYPTION_PASSWORD", forms(), "holdfast.new-encryption-password"},
	}}
}

// MasterPassphrase is the one of a private master key.
func MasterPassphrase() Kind {
	return Kind{"passphrase of the master key", []source{
		{"HOLDFAST_MASTER_PASSWORD", forms(), "holdfast.master-password"},
	}}
}

// Login is the password of a user, or the secret of an API token.
func Login(id wire.AuthID) Kind {
	what := "password of " + string(id)
	if _, isToken := id.Token(); isToken {
		what = "secret of " + string(id)
	}
	return Kind{what, []source{
		{"HOLDFAST_PASSWORD", forms(), "holdfast.password"},
		{"PBS_PASSWORD", []string{"", "_FD", "_FILE", "_CMD"}, "proxmox-backup-client.password"},
	}}
}

// NewUserPassword is the one that a user gets.
func NewUserPassword(id wire.AuthID) Kind {
	return Kind{"new password of " + string(id), []source{
		{"HOLDFAST_NEW_PASSWORD", forms(), "holdfast.new-password"},
	}}
}

// Names lists the variables, for messages.
func (k Kind) Names() []string {
	var names []string
	for _, src := range k.sources {
		names = append(names, "$"+src.variable+"[_FILE|_FD|_CMD]")
	}
	return names
}

// Get gets an existing secret, from the environment or by asking.
func (s Source) Get(ctx context.Context, k Kind) ([]byte, error) {
	p, ok, err := s.fromEnv(ctx, k)
	if ok || err != nil {
		return p, err
	}
	return s.ask(ctx, k, k.what+": ")
}

// Choose gets a secret that is being chosen: asked for twice, and not
// too short.
func (s Source) Choose(ctx context.Context, k Kind) ([]byte, error) {
	p, ok, err := s.fromEnv(ctx, k)
	if err != nil {
		return nil, err
	}
	if !ok {
		if p, err = s.askTwice(ctx, k); err != nil {
			return nil, err
		}
	}
	if len(p) < SizeMin {
		return nil, term.Usagef("%s: want at least %d bytes", k.what, SizeMin)
	}
	return p, nil
}

// fromEnv looks through the environment and the credentials of s; ok
// says whether one was defined.
func (s Source) fromEnv(ctx context.Context, k Kind) (p []byte, ok bool, err error) {
	for _, src := range k.sources {
		p, name, err := s.fromSource(ctx, k.what, src)
		if err != nil {
			return nil, false, fmt.Errorf("%s: %s: %w", k.what, name, err)
		}
		if name == "" {
			continue
		}
		if len(p) == 0 {
			return nil, false, fmt.Errorf("%s: %s is empty: %w", k.what, name, ErrPassphrase)
		}
		s.UI.Verbosef("%s: taken from %s", k.what, name)
		return p, true, nil
	}
	return nil, false, nil
}

// fromSource reads one family; what is for a warning. name is the variable or credential that was
// defined, "" if none was.
func (s Source) fromSource(ctx context.Context, what string, src source) (p []byte, name string, err error) {
	for _, form := range src.forms {
		name := src.variable + form
		value, ok := s.Env[name]
		if !ok {
			continue
		}
		var p []byte
		var err error
		switch form {
		case "":
			p, err = FirstLine(strings.NewReader(value))
		case "_FILE":
			if p, err = FromFile(value); err == nil {
				s.WarnReadable("file", value, "it holds the "+what)
			}
		case "_FD":
			p, err = fromFD(value)
		case "_CMD":
			p, err = s.fromCommand(ctx, value)
		}
		return p, "$" + name, err
	}
	dir, ok := s.Env["CREDENTIALS_DIRECTORY"]
	if !ok {
		return nil, "", nil
	}
	p, err = FromFile(filepath.Join(dir, src.credential))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "", nil
	}
	return p, "credential " + src.credential, err
}

// FromFile reads a secret from the first line of a file.
func FromFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return FirstLine(f)
}

// fromFD reads from an inherited descriptor. Nothing behind the line is
// consumed, so that two secrets may come through one descriptor.
func fromFD(value string) ([]byte, error) {
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
	return FirstLine(f)
}

// fromCommand runs a shell command and takes what it prints.
func (s Source) fromCommand(ctx context.Context, command string) ([]byte, error) {
	if strings.TrimSpace(command) == "" {
		return nil, term.Usagef("no command given")
	}
	out := limitedBuffer{left: 64 << 10}
	cmd := exec.CommandContext(ctx, "sh", "-c", command)
	cmd.Stdout, cmd.Stderr = &out, s.Err
	err := cmd.Run()
	if out.full {
		err = errTooMuch
	}
	if err != nil {
		return nil, fmt.Errorf("run command: %w", err)
	}
	return FirstLine(&out.b)
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

// FirstLine reads up to the first line feed, byte by byte, and drops a
// carriage return before it.
func FirstLine(r io.Reader) ([]byte, error) {
	line := make([]byte, 0, sizeMax+1)
	var b [1]byte
	for len(line) <= sizeMax {
		_, err := io.ReadFull(r, b[:])
		if errors.Is(err, io.EOF) || err == nil && b[0] == '\n' {
			return bytes.TrimSuffix(line, []byte("\r")), nil
		}
		if err != nil {
			return nil, err
		}
		line = append(line, b[0])
	}
	return nil, term.Usagef("the first line is longer than %d bytes", sizeMax)
}

// askTwice asks for a new secret until both answers agree.
func (s Source) askTwice(ctx context.Context, k Kind) ([]byte, error) {
	p, err := s.ask(ctx, k, k.what+": ")
	if err != nil {
		return nil, err
	}
	if len(p) < SizeMin {
		return nil, term.Usagef("%s: want at least %d bytes", k.what, SizeMin)
	}
	again, err := s.ask(ctx, k, "the same again: ")
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(p, again) {
		return nil, term.Usagef("%s: the two entries differ", k.what)
	}
	return p, nil
}

// ask prompts on the terminal. Without one there is no way to go on.
func (s Source) ask(ctx context.Context, k Kind, prompt string) ([]byte, error) {
	tty, err := s.Terminal()
	if err != nil {
		return nil, s.noTerminal(k)
	}
	defer tty.Close()
	s.UI.ClearLine()
	if _, err := io.WriteString(tty, "holdfast: "+prompt); err != nil {
		return nil, fmt.Errorf("ask for the %s: %w", k.what, err)
	}
	p, err := readHidden(ctx, tty)
	io.WriteString(tty, "\n")
	if err != nil {
		return nil, fmt.Errorf("ask for the %s: %w", k.what, err)
	}
	return p, nil
}

func (s Source) noTerminal(k Kind) error {
	return term.Hintf(fmt.Errorf("the %s is needed and there is no terminal to ask on: %w", k.what, ErrPassphrase),
		"set one of %s", strings.Join(k.Names(), ", "))
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
