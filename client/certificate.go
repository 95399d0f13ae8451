package client

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"holdfast/chunkstore"
)

// ErrCertificate is wrapped by errors about a server whose certificate was not
// accepted. Nothing has been sent to it.
var ErrCertificate = errors.New("certificate not trusted")

// fingerprint names a certificate as section 1.1 of the protocol specification
// prints it.
func fingerprint(cert *x509.Certificate) string {
	return fingerprintText(sha256.Sum256(cert.Raw))
}

func fingerprintText(sum [32]byte) string {
	pairs := make([]string, len(sum))
	for i, b := range sum {
		pairs[i] = hex.EncodeToString([]byte{b})
	}
	return strings.Join(pairs, ":")
}

// parseFingerprint reads what fingerprint prints, in any case.
func parseFingerprint(s string) (sum [32]byte, err error) {
	bad := fmt.Errorf("fingerprint of a certificate: want 32 hex pairs joined by colons: %w", chunkstore.ErrInvalid)
	pairs := strings.Split(strings.TrimSpace(s), ":")
	if len(pairs) != len(sum) {
		return sum, bad
	}
	for i, p := range pairs {
		b, err := hex.DecodeString(p)
		if err != nil || len(b) != 1 {
			return sum, bad
		}
		sum[i] = b[0]
	}
	return sum, nil
}

// secure runs the TLS handshake and decides about the certificate before
// anything else is sent. Who calls it closes raw if it fails.
func (c *Client) secure(ctx context.Context, raw net.Conn, p *pulse) (net.Conn, error) {
	below := newBatcher(raw)
	conn := tls.Client(below, &tls.Config{
		MinVersion: tls.VersionTLS12,
		ServerName: c.host,
		// The certificate is checked below, in the order of the
		// specification, which the standard check cannot express.
		InsecureSkipVerify: true,
	})
	began := time.Now()
	err := within(ctx, raw, min(handshakeTimeout, p.limit), func() error { return conn.HandshakeContext(ctx) })
	if err != nil {
		return nil, fmt.Errorf("tls handshake: %w", err)
	}
	c.met(time.Since(began))
	if err := c.accept(ctx, conn.ConnectionState().PeerCertificates); err != nil {
		return nil, err
	}
	return &secureConn{Conn: conn, raw: below, pulse: p}, nil
}

// accept decides by the configured fingerprint alone if there is one, else by the
// platform, else by whoever can be asked.
func (c *Client) accept(ctx context.Context, chain []*x509.Certificate) error {
	if len(chain) == 0 {
		return fmt.Errorf("%s sent no certificate: %w", c.host, ErrCertificate)
	}
	leaf := chain[0]
	if c.shown != nil {
		c.shown(leaf)
		return nil
	}
	got := fingerprint(leaf)
	if c.opts.Fingerprint != "" {
		// Whoever names a certificate means that one, not any that some
		// authority has signed.
		return c.compare(leaf, got)
	}
	// No certificate knows the zone of an address, which only this machine does.
	name, _, _ := strings.Cut(c.host, "%")
	o := x509.VerifyOptions{DNSName: name, Roots: c.roots, Intermediates: x509.NewCertPool()}
	for _, cert := range chain[1:] {
		o.Intermediates.AddCert(cert)
	}
	_, why := leaf.Verify(o)
	if why == nil {
		return nil
	}
	if c.opts.Trust == nil {
		return fmt.Errorf("%s has the certificate %s: %w (%w)", c.host, got, ErrCertificate, why)
	}
	if err := c.opts.Trust(ctx, c.host, got); err != nil {
		return fmt.Errorf("%s has the certificate %s: %w (%w)", c.host, got, ErrCertificate, err)
	}
	return nil
}

// ShownCertificate fetches the certificate that the server of o shows, whoever that
// is, for people to compare. Nothing is sent to it, and nothing of o but how to
// reach the server counts.
func ShownCertificate(ctx context.Context, o Options) (*x509.Certificate, error) {
	c, err := newClient(o)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	var leaf *x509.Certificate
	c.shown = func(cert *x509.Certificate) { leaf = cert }
	conn, err := c.connect(ctx)
	if err != nil {
		return nil, err
	}
	_ = conn.Close() // what was to be seen has been seen
	return leaf, nil
}

// compare holds the certificate against the configured fingerprint.
func (c *Client) compare(leaf *x509.Certificate, got string) error {
	want, err := parseFingerprint(c.opts.Fingerprint)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(leaf.Raw)
	if subtle.ConstantTimeCompare(sum[:], want[:]) != 1 {
		return fmt.Errorf("%s has the certificate %s, which is not the expected one: %w", c.host, got, ErrCertificate)
	}
	return nil
}
