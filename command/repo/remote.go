package repo

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"net"
	neturl "net/url"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/net/http/httpproxy"

	"holdfast/client"
	"holdfast/command/secret"
	"holdfast/command/term"
	"holdfast/datastore/wire"
)

// ServerFlags are the global flags about servers.
func ServerFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "fingerprint", Usage: "the server's certificate must have this `FINGERPRINT` (or $HOLDFAST_FINGERPRINT, $PBS_FINGERPRINT)"},
		&cli.BoolFlag{Name: "accept-new", Usage: "accept and remember the certificate of a server that is not known yet"},
		&cli.StringFlag{Name: "rate", Usage: "send and receive at most `SIZE` a second, as 20MiB or 100MB"},
		&cli.StringFlag{Name: "rate-up", Usage: "send at most `SIZE` a second"},
		&cli.StringFlag{Name: "rate-down", Usage: "receive at most `SIZE` a second"},
		&cli.DurationFlag{Name: "timeout", Usage: "give up on a server that says nothing for `DURATION` (as 90s or 10m; or $HOLDFAST_TIMEOUT; default 3m); a restore looks for one that has gone for ten minutes more"},
		&cli.StringFlag{Name: "proxy", Usage: "reach the server through the HTTP proxy `URL`, \"\" for none (or $ALL_PROXY, but for what $NO_PROXY names, and this machine)"},
	}
}

// WithDefaults completes the name of a repository on a server.
func WithDefaults(r wire.Repository) wire.Repository {
	r.AuthID = cmp.Or(r.AuthID, string(wire.RootUser))
	r.Host = cmp.Or(r.Host, "localhost")
	r.Port = cmp.Or(r.Port, wire.DefaultPort)
	return r
}

// ServerOf is the host and port of a repository.
func ServerOf(r wire.Repository) string {
	r = WithDefaults(r)
	return net.JoinHostPort(r.Host, strconv.Itoa(r.Port))
}

// Dial connects to the server of a repository.
func (n Network) Dial(ctx context.Context, r wire.Repository) (*client.Client, error) {
	d, err := n.DialOptions(r)
	if err != nil {
		return nil, err
	}
	return client.Dial(ctx, d)
}

// DialOptions gathers all that is set about a connection.
func (n Network) DialOptions(r wire.Repository) (client.Options, error) {
	r = WithDefaults(r)
	proxy, err := n.proxy(ServerOf(r))
	if err != nil {
		return client.Options{}, err
	}
	d := client.Options{
		Repository: r,
		Secret: func(ctx context.Context) (string, error) {
			p, err := n.Get(ctx, secret.Login(wire.AuthID(r.AuthID)))
			return string(p), err
		},
		Trust:     n.trust(ServerOf(r)),
		Proxy:     proxy,
		UserAgent: "holdfast/" + term.Version(),
		LockWait:  n.LockWait(),
		Log:       func(text string) { n.UI.Verbosef("%s", text) },
	}
	if path := n.ticketPath(); path != "" && !n.anew {
		d.Tickets = ticketFile{path: path, warn: n.UI.Warnf}
	}
	if d.Fingerprint, err = n.fingerprint(); err != nil {
		return d, err
	}
	if d.Silence, err = n.timeout(); err != nil {
		return d, err
	}
	d.RateUp, d.RateDown, err = n.rates()
	return d, err
}

// timeout is how long a server may say nothing, 0 if that was not set.
func (n Network) timeout() (time.Duration, error) {
	text, from := n.Env[secret.EnvTimeout], "$"+secret.EnvTimeout
	if n.given.Flags.IsSet("timeout") {
		text, from = n.given.Flags.Duration("timeout").String(), "--timeout"
	}
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < time.Second {
		return 0, term.Usagef("%s: %q: want a duration of at least 1s, as 90s or 10m", from, term.Printable(text))
	}
	return d, nil
}

// rates are the limits of both directions; --rate stands for the one that is
// not given.
func (n Network) rates() (up, down int64, err error) {
	both, err := Rate(n.given, "rate")
	if err != nil {
		return 0, 0, err
	}
	if up, err = Rate(n.given, "rate-up"); err != nil {
		return 0, 0, err
	}
	if down, err = Rate(n.given, "rate-down"); err != nil {
		return 0, 0, err
	}
	return cmp.Or(up, both), cmp.Or(down, both), nil
}

// Rate reads a flag that limits a speed, in bytes per second; 0 is no limit.
func Rate(given term.Given, flag string) (int64, error) {
	if !given.Flags.IsSet(flag) {
		return 0, nil
	}
	text := strings.TrimSuffix(given.Flags.String(flag), "/s")
	n, err := term.ParseSize(text)
	if err != nil {
		return 0, term.Usagef("--%s %q: %w", flag, text, err)
	}
	return n, nil
}

// proxy is the one to go through to a server, "" for none. That of the
// environment is for servers that $NO_PROXY does not name: hosts, domains with
// what is below them, addresses and networks, each with or without a port, or "*".
func (n Network) proxy(server string) (string, error) {
	if n.given.Flags.IsSet("proxy") {
		url := n.given.Flags.String("proxy")
		return url, proxyError("--proxy", client.CheckProxy(url))
	}
	for _, name := range []string{"ALL_PROXY", "all_proxy"} {
		url := n.Env[name]
		if url == "" {
			continue
		}
		// The rules are what matters here; the proxy is parsed by who uses it.
		rules := httpproxy.Config{HTTPSProxy: "http://proxy", NoProxy: cmp.Or(n.Env["NO_PROXY"], n.Env["no_proxy"])}
		if through, err := rules.ProxyFunc()(&neturl.URL{Scheme: "https", Host: server}); err != nil || through == nil {
			return "", err
		}
		return url, proxyError("$"+name, client.CheckProxy(url))
	}
	return "", nil
}

// proxyError says where a bad address of a proxy comes from.
func proxyError(from string, err error) error {
	if err == nil {
		return nil
	}
	return term.Hintf(term.Usagef("%s: %w", from, err), "$NO_PROXY with the server's name, or --proxy \"\", goes without")
}

// checkRemote checks the values of the global flags about servers, and of the
// variables that stand for them, for commands that do not use them: who has
// set a limit of "abc" must not learn of it on the night a server is used.
func (n Network) checkRemote() error {
	if _, _, err := n.rates(); err != nil {
		return err
	}
	if n.given.Flags.IsSet("proxy") {
		if err := proxyError("--proxy", client.CheckProxy(n.given.Flags.String("proxy"))); err != nil {
			return err
		}
	}
	text, from := n.setting("fingerprint", secret.EnvFingerprint)
	if from == "" {
		return nil
	}
	if _, err := parseFingerprint(text); err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	return nil
}

// fingerprint is the one that was set for the server, "" if none was.
func (n Network) fingerprint() (string, error) {
	text, from := n.setting("fingerprint", secret.EnvFingerprint, secret.EnvFingerprintPBS)
	if from == "" {
		var err error
		if text, from, err = n.Credential("holdfast.fingerprint", "proxmox-backup-client.fingerprint"); err != nil {
			return "", err
		}
	}
	if from == "" {
		return "", nil
	}
	f, err := parseFingerprint(text)
	if err != nil {
		return "", fmt.Errorf("%s: %w", from, err)
	}
	return f, nil
}

// parseFingerprint reads 32 bytes in hexadecimal, with or without colons, and
// returns them in lower case with colons.
func parseFingerprint(text string) (string, error) {
	digits := strings.ToLower(strings.ReplaceAll(strings.TrimSpace(text), ":", ""))
	b, err := hex.DecodeString(digits)
	if err != nil || len(b) != 32 {
		return "", term.Usagef("fingerprint %q: want 32 pairs of hexadecimal digits", term.Printable(text))
	}
	return Colons(b), nil
}

// Colons writes bytes in hexadecimal with colons between them.
func Colons(b []byte) string {
	pairs := make([]string, len(b))
	for i, c := range b {
		pairs[i] = hex.EncodeToString([]byte{c})
	}
	return strings.Join(pairs, ":")
}

// LocalServer is the server that listens on a socket of this machine.
func (n Network) LocalServer(socket string) (*client.Client, error) {
	silence, err := n.timeout()
	if err != nil {
		return nil, err
	}
	return client.Local(socket, silence), nil
}
