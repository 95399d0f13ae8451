package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"holdfast/chunkstore"
	"holdfast/datastore/wire"
)

// ErrUnavailable is wrapped by every error of a connection: the server cannot
// be reached, the connection broke, or the server said nothing for too long.
// The same command may work later. What was asked for last may have been done
// or not, unless the error says more.
var ErrUnavailable = wire.ErrUnavailable

// brokenError is how a connection failed.
type brokenError struct {
	text string
	err  error // nil if text says it all
}

func (e *brokenError) Error() string { return e.text }

func (e *brokenError) Unwrap() []error {
	if e.err == nil {
		return []error{ErrUnavailable}
	}
	return []error{ErrUnavailable, e.err}
}

// settled reports whether an error says already what happened: it is not for
// broken to explain.
func settled(err error) bool {
	var status *StatusError
	return errors.As(err, &status) || errorsIsAny(err, ErrUnavailable, ErrCertificate, errAnswer, errLocal, chunkstore.ErrInvalid)
}

func errorsIsAny(err error, sentinels ...error) bool {
	for _, s := range sentinels {
		if errors.Is(err, s) {
			return true
		}
	}
	return false
}

// broken explains an error of a connection: the only place where it becomes an
// ErrUnavailable. p is the pulse of the connection, nil if there was none. What
// the end of ctx has caused stays that.
func (c *Client) broken(ctx context.Context, p *pulse, err error) error {
	switch {
	case err == nil || settled(err):
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	case p != nil && p.fired.Load():
		return &brokenError{fmt.Sprintf("%s has said nothing for %v: the connection was given up", c.host, p.limit), ErrSilent}
	case isTimeout(err):
		return &brokenError{fmt.Sprintf("the connection to %s was given up: %v", c.host, err), ErrSilent}
	}
	return &brokenError{fmt.Sprintf("the connection to %s broke: %s", c.host, plainly(err)), harmless(err)}
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout()
}

// harmless returns err unless it would be taken for something else: that a
// request was cancelled says nothing about what the caller wanted.
func harmless(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// plainly says what broke a connection.
func plainly(err error) string {
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		return "it was closed before the answer was complete"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "it was reset by the other side"
	case strings.Contains(err.Error(), "client conn not usable"), strings.Contains(err.Error(), "client connection lost"):
		return "it has ended; the server stopped the session, or went away"
	}
	return err.Error()
}

// answerBody is the body of an answer. It knows what became of the connection
// when it ends too early, and that nobody waits any more when it is closed.
type answerBody struct {
	io.ReadCloser
	explain func(error) error
	pace    pace
	moved   func() // called for every read that brought something; may be nil
	done    func()
}

// Read implements io.Reader.
func (b *answerBody) Read(p []byte) (int, error) {
	began := time.Now()
	n, err := b.ReadCloser.Read(p)
	if n > 0 && b.moved != nil {
		b.moved()
	}
	if b.pace.add(time.Since(began), n); err == nil {
		err = b.pace.tooSlow()
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = b.explain(err)
	}
	return n, err
}

// paceMin is what a server has to send in a second of an answer, on an average and
// after a long grace, in bytes: whoever sends a byte now and then is not silent, and
// would hold the caller up for years.
const paceMin = 256

// pace tells how slowly an answer comes.
type pace struct {
	host    string
	silence time.Duration // that is allowed
	waited  time.Duration
	got     int64 // bytes
}

// add notes what a read has taken and brought. No read counts for more than the silence
// that is allowed: this process may have been stopped meanwhile.
func (p *pace) add(took time.Duration, n int) {
	p.waited += min(took, p.silence)
	p.got += int64(n)
}

// tooSlow returns an error when the answer has been waited for too long.
func (p *pace) tooSlow() error {
	if p.waited <= workFactor*p.silence+time.Duration(p.got)*(time.Second/paceMin) {
		return nil
	}
	return &brokenError{fmt.Sprintf("%s sends too slowly: %d bytes of an answer in %v", p.host, p.got, p.waited.Round(time.Second)), ErrSilent}
}

// pace is that of a new answer.
func (c *Client) pace() pace { return pace{host: c.host, silence: c.silence()} }

// Close implements io.Closer.
func (b *answerBody) Close() error {
	defer b.done()
	return b.ReadCloser.Close()
}

// watch notes which connection a call of the REST interface goes over, and
// watches over it until stop.
type watch struct {
	mu      sync.Mutex
	pulse   *pulse
	release func()
	stopped bool
}

// over is told of every connection that is tried.
func (w *watch) over(conn net.Conn) {
	l, ok := conn.(living)
	if !ok {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.release != nil {
		w.release()
	}
	w.pulse, w.release = l.life(), nil
	if !w.stopped {
		w.release = w.pulse.await()
	}
}

func (w *watch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
	if w.release != nil {
		w.release()
	}
}

// life is the pulse of the last connection, nil if there was none.
func (w *watch) life() *pulse {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pulse
}

// statusBusy tells the answers of a server, or of something before it, that has
// no time or is on its way down: the same request may work later.
func statusBusy(e *StatusError) bool { return errorsIsAny(e, wire.ErrShare, wire.ErrFull) }
