package client

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"time"

	"holdfast/datastore/wire"
)

// policy says how often and how fast something is tried again.
type policy struct {
	tries   int           // of a call or a connection, the first included
	patient int           // of a read in a Reader, which may have run for hours
	longest time.Duration // after this nothing is tried again
	base    time.Duration // the first wait is up to this, each next up to twice the last
	max     time.Duration
}

func defaultPolicy() policy {
	return policy{tries: 4, patient: 30, longest: 10 * time.Minute, base: 500 * time.Millisecond, max: 15 * time.Second}
}

// wait waits before try number n+1, n counting from 0.
func (p policy) wait(ctx context.Context, n int) error {
	d := min(p.max, p.base<<min(n, 20))
	// Half is fixed, half is chance, so that many clients of one server do
	// not come back together.
	d = d/2 + rand.N(d/2+1)
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// again runs do until it succeeds, fails for good, or has been tried often
// enough. what names it in the log.
func (c *Client) again(ctx context.Context, what string, worth func(error) bool, do func() error) error {
	began := time.Now()
	for n := 0; ; n++ {
		err := do()
		if err == nil || ctx.Err() != nil || n+1 >= c.retry.tries || time.Since(began) > c.silence() || !worth(err) {
			return err
		}
		c.log("%s: %v; trying again", what, err)
		if wait := c.retry.wait(ctx, n); wait != nil {
			return errors.Join(err, wait)
		}
	}
}

// connect opens a connection, trying again what may be passing.
func (c *Client) connect(ctx context.Context) (conn net.Conn, err error) {
	if c.dial == nil {
		return nil, errors.New("this client has no connections")
	}
	err = c.again(ctx, "connect to "+c.host, passing, func() error {
		conn, err = c.dial(ctx)
		return err
	})
	if err == nil {
		return conn, nil
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	err = fmt.Errorf("connect to %s: %w", c.host, err)
	if !settled(err) {
		err = &brokenError{err.Error(), harmless(err)}
	}
	return nil, &connectError{err}
}

// connectError marks what has been tried often enough already.
type connectError struct{ err error }

func (e *connectError) Error() string { return e.err.Error() }
func (e *connectError) Unwrap() error { return e.err }

// passing reports whether a failed connection may work a moment later. A name
// that does not exist and a certificate that is not accepted stay.
func passing(err error) bool {
	var dns *net.DNSError
	var cert *x509.CertificateInvalidError
	switch {
	case settled(err) && !errors.Is(err, ErrUnavailable):
		return false
	case errors.Is(err, ErrCertificate), errors.As(err, &cert):
		return false
	case errors.As(err, &dns):
		return dns.IsTemporary || dns.IsTimeout
	}
	return true
}

// busyNow reports whether a failed call may be repeated: the connection broke,
// or the server or something before it could not answer just now.
func busyNow(err error) bool {
	var tried *connectError
	if errors.As(err, &tried) {
		return false
	}
	var status *StatusError
	if errors.As(err, &status) {
		return statusBusy(status)
	}
	return errors.Is(err, ErrUnavailable) && !errors.Is(err, ErrSilent)
}

// sessionBusy is busyNow for a session that is to be opened. One that somebody
// has broken off, perhaps this client, keeps its locks for a moment.
func sessionBusy(err error) bool { return errors.Is(err, wire.ErrBusy) || busyNow(err) }

// lost reports whether err is the loss of a connection: nobody has answered.
func lost(ctx context.Context, err error) bool {
	return ctx.Err() == nil && errors.Is(err, ErrUnavailable)
}
