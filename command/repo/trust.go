package repo

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"holdfast/client"
	"holdfast/command/secret"
	"holdfast/command/term"
)

// knownServersName is the file with the certificates of the servers that were
// accepted: lines of host:port and fingerprint. Of several lines for one server
// the last one counts.
const knownServersName = "fingerprints"

// trust decides about the certificate of a server for which neither the
// system's authorities nor a fingerprint that was set vouch: the server must be
// known, or somebody must accept it now.
func (n Network) trust(server string) client.TrustFunc {
	return func(ctx context.Context, _, fingerprint string) error {
		path, err := n.ConfigPath(knownServersName)
		if err != nil {
			path = "" // nothing is remembered then
		}
		known, err := knownServer(path, server)
		switch {
		case err != nil:
			return err
		case known == fingerprint:
			return nil
		case known != "":
			return changedServer(path, server, known)
		}
		if err := n.acceptServer(ctx, server, fingerprint); err != nil {
			return err
		}
		return n.rememberServer(path, server, fingerprint)
	}
}

// changedServer refuses a server that was known by another certificate.
func changedServer(path, server, known string) error {
	return term.Hintf(fmt.Errorf("%s was known by %s and now shows another one", server, known),
		"somebody may be in between; if the certificate was renewed, compare it with what holdfast cert show prints on the server, and remove the line of %s from %s", server, path)
}

// acceptServer asks for a new server to be accepted, unless --accept-new says
// so already.
func (n Network) acceptServer(ctx context.Context, server, fingerprint string) error {
	if n.given.Flags.Bool("accept-new") {
		return nil
	}
	refused := term.Hintf(fmt.Errorf("the server %s is not known", server),
		"compare the fingerprint with what holdfast cert show prints on the server, then run the command once with --accept-new, or with --fingerprint %s", fingerprint)
	tty, err := n.Terminal()
	if err != nil {
		return refused
	}
	defer tty.Close()
	n.UI.ClearLine()
	question := fmt.Sprintf("holdfast: the server %s is not known; its certificate has the fingerprint\n%s\nholdfast: accept and remember it? (y/N) ", server, fingerprint)
	answer, err := askLine(ctx, tty, question)
	if err != nil {
		return fmt.Errorf("ask about the server %s: %w", server, err)
	}
	switch strings.ToLower(answer) {
	case "y", "yes":
		return nil
	}
	return refused
}

// askLine asks a question and reads a line. When ctx ends the reader is left
// behind, as the program ends.
func askLine(ctx context.Context, tty io.ReadWriter, question string) (string, error) {
	if _, err := io.WriteString(tty, question); err != nil {
		return "", err
	}
	type answer struct {
		text []byte
		err  error
	}
	got := make(chan answer, 1)
	go func() {
		text, err := secret.FirstLine(tty)
		got <- answer{text, err}
	}()
	select {
	case g := <-got:
		return strings.TrimSpace(string(g.text)), g.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// knownServer looks a server up, "" if it is not known.
func knownServer(path, server string) (string, error) {
	if path == "" {
		return "", nil
	}
	b, err := secret.ReadSmall(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read known servers: %w", err)
	}
	found := ""
	lines := bufio.NewScanner(bytes.NewReader(b))
	for n := 1; lines.Scan(); n++ {
		text := strings.TrimSpace(lines.Text())
		if text == "" || text[0] == '#' {
			continue
		}
		name, fingerprint, _ := strings.Cut(text, " ")
		if name != server {
			continue
		}
		if found, err = parseFingerprint(fingerprint); err != nil {
			return "", fmt.Errorf("%s, line %d: %w", path, n, err)
		}
	}
	return found, lines.Err()
}

// rememberServer adds a line.
func (n Network) rememberServer(path, server, fingerprint string) error {
	if path == "" {
		n.UI.Warnf("%s is accepted but not remembered, as neither $XDG_CONFIG_HOME nor $HOME says where", server)
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("remember server %s: %w", server, err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("remember server %s: %w", server, err)
	}
	// One write, so that two programs that do this at once do not mix lines.
	_, err = fmt.Fprintf(f, "%s %s\n", server, fingerprint)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("remember server %s in %s: %w", server, path, err)
	}
	n.UI.Notef("%s is known from now on by the fingerprint %s", server, fingerprint)
	return nil
}
