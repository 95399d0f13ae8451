package serve

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"holdfast/client"
	"holdfast/command/repo"
	"holdfast/command/secret"
	"holdfast/command/term"
	"holdfast/datastore"
	"holdfast/datastore/wire"
)

// Cert is holdfast cert with its subcommand.
func (r Room) Cert() *cli.Command {
	return &cli.Command{
		Name: "cert", Usage: "show the certificate of a server",
		Description: term.Describe("A server without a certificate of an authority is recognised by the fingerprint of its own one."),
		Subcommands: []*cli.Command{{
			Name: "show", Usage: "print the certificate and its fingerprint",
			Description: term.Describe(`Prints the certificate of the server on this machine, which is what to compare others with; or,
with -r, what a server elsewhere shows, whoever that is.`,
				"holdfast cert show", "holdfast cert show -r backup.lan:tank"),
			Flags: []cli.Flag{repo.DataFlag(),
				&cli.StringFlag{Name: "config", Usage: "the configuration `FILE` of the server (default " + defaultConfigFile + " if there)"}},
			Action: r.action(term.Takes(0, 0), certShow),
		}},
	}
}

// certRecord describes a certificate.
type certRecord struct {
	MessageType string   `json:"message_type"` // "certificate"
	Fingerprint string   `json:"fingerprint"`
	Subject     string   `json:"subject"`
	Names       []string `json:"names"`
	NotBefore   string   `json:"not_before"`
	NotAfter    string   `json:"not_after"`
	Path        string   `json:"path,omitempty"`
	Server      string   `json:"server,omitempty"`
}

func certShow(ctx context.Context, c *call) error {
	m, err := c.repos.Managed()
	if err != nil {
		return err
	}
	var cert *x509.Certificate
	rec := certRecord{MessageType: "certificate"}
	if m.Data != "" {
		if rec.Path, err = c.certificatePath(m.Data); err == nil {
			cert, err = readCertificate(rec.Path)
		}
	} else {
		rec.Server = repo.ServerOf(m.Remote)
		cert, err = c.shownBy(ctx, m.Remote)
	}
	if err != nil {
		return err
	}
	sum := sha256.Sum256(cert.Raw)
	rec.Fingerprint, rec.Subject = repo.Colons(sum[:]), cert.Subject.String()
	rec.Names = term.NotNil(cert.DNSNames)
	for _, ip := range cert.IPAddresses {
		rec.Names = append(rec.Names, ip.String())
	}
	rec.NotBefore, rec.NotAfter = term.RFC3339(cert.NotBefore), term.RFC3339(cert.NotAfter)
	c.UI.Result(rec, func(w io.Writer) {
		term.Table(w, [][]string{
			{"fingerprint:", rec.Fingerprint}, {"subject:", rec.Subject}, {"names:", strings.Join(rec.Names, " ")},
			{"valid:", rec.NotBefore + " to " + rec.NotAfter}, {"from:", rec.Path + rec.Server},
		})
	})
	return nil
}

// certificatePath is the file with the certificate of a server on this
// machine. What the configuration says counts only if it is of that server.
func (c *call) certificatePath(dir string) (string, error) {
	conf, err := c.configFile()
	if err != nil {
		return "", err
	}
	same := conf.Data == dir || conf.Data == "" && dir == repo.DefaultDataDir
	if conf.Certificate != "" && (same || c.Flags.IsSet("config")) {
		return conf.Certificate, nil
	}
	return filepath.Join(dir, repo.DataCertName), nil
}

func readCertificate(path string) (*x509.Certificate, error) {
	b, err := secret.ReadSmall(path)
	if errors.Is(err, fs.ErrNotExist) && filepath.Base(path) == repo.DataCertName {
		return nil, term.Hintf(fmt.Errorf("no certificate in %s: %w", filepath.Dir(path), datastore.ErrNoStore), "the first start of a server makes it: holdfast serve --data %s", filepath.Dir(path))
	}
	if err != nil {
		return nil, fmt.Errorf("read certificate: %w", err)
	}
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, fmt.Errorf("read certificate %s: it does not begin with one in PEM form", path)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read certificate %s: %w", path, err)
	}
	return cert, nil
}

// shownBy fetches the certificate that a server shows.
func (c *call) shownBy(ctx context.Context, r wire.Repository) (*x509.Certificate, error) {
	o, err := c.repos.DialOptions(r)
	if err != nil {
		return nil, err
	}
	return client.ShownCertificate(ctx, o)
}
