package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"holdfast/chunkstore"
	"holdfast/datastore/server/ledger"
	"holdfast/datastore/server/rest"
)

// smallBody is what of a body is read into memory at first, in bytes; a longer one
// goes to a file.
const smallBody = 32 << 10

// gathered is a body that has come whole, in the account of who sent it. Only now is
// anything taken for it that others wait for, so that it may come as slowly as it
// likes.
type gathered struct {
	small []byte
	hold  *ledger.Hold // of small
	file  *spooled     // nil if it is small
	size  int64
}

// gather reads a body of at most so many bytes; a longer one is rest.ErrBodyTooLarge. The
// caller closes what it gets.
func (k *keep) gather(ctx context.Context, p ledger.Payer, body io.Reader, most int64) (*gathered, error) {
	hold, err := k.accounts.Small.Take(ctx, p, smallBody)
	if err != nil {
		return nil, err
	}
	g := &gathered{small: make([]byte, smallBody), hold: hold}
	n, err := io.ReadFull(body, g.small)
	g.small, g.size = g.small[:n], int64(n)
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF) && int64(n) < smallBody:
		return g, nil
	case err == nil:
		err = g.spill(ctx, k, spillOf{payer: p, body: body, most: most})
	default:
		err = fmt.Errorf("read request body: %w", err)
	}
	if err != nil {
		g.close()
		return nil, err
	}
	return g, nil
}

// spillOf is the rest of a body.
type spillOf struct {
	payer ledger.Payer
	body  io.Reader
	most  int64
}

// spill goes on in a file.
func (g *gathered) spill(ctx context.Context, k *keep, o spillOf) error {
	f, err := k.open(k.accounts.Spooled, o.payer, o.most, spoolStep)
	if err != nil {
		return err
	}
	g.file = f
	if _, err := f.file.Write(g.small); err != nil {
		return fmt.Errorf("keep the upload in a file: %w", err)
	}
	g.small = nil
	g.hold.Free()
	n, err := f.copy(ctx, io.LimitReader(o.body, o.most-g.size+1), g.size)
	g.size += n
	if err == nil && g.size > o.most {
		err = rest.ErrBodyTooLarge
	}
	return err
}

// load returns the body. The memory for it is the caller's affair.
func (g *gathered) load() ([]byte, error) {
	if g.file == nil {
		return g.small, nil
	}
	b := make([]byte, g.size)
	return b, g.file.fetch(b)
}

// close gives back what the body takes.
func (g *gathered) close() {
	g.hold.Free()
	if g.file != nil {
		g.file.close()
	}
}

// outbox sends what was held in memory at a place that others wait for, after it has
// left that place: by way of a file if it is large.
type outbox struct {
	keep  *keep
	payer ledger.Payer
	place func() (done func(), err error) // takes such a place
	file  *spooled
}

// newOutbox returns one that takes places with place.
func (k *keep) newOutbox(payer ledger.Payer, place func() (done func(), err error)) *outbox {
	return &outbox{keep: k, payer: payer, place: place}
}

// send makes some bytes at such a place and writes them to the caller.
func (o *outbox) send(w io.Writer, make func() ([]byte, error)) error {
	b, err := o.hold(make)
	if err != nil || o.file == nil {
		if err == nil {
			_, err = w.Write(b)
		}
		return err
	}
	_, err = io.Copy(struct{ io.Writer }{w}, o.file.reader())
	return err
}

// hold returns small bytes, and keeps others in the file.
func (o *outbox) hold(make func() ([]byte, error)) ([]byte, error) {
	done, err := o.place()
	if err != nil {
		return nil, err
	}
	defer done()
	b, err := make()
	if err != nil {
		return nil, err
	}
	if o.file == nil && len(b) <= smallBody {
		return bytes.Clone(b), nil
	}
	if o.file == nil {
		if o.file, err = o.keep.setAside(o.payer, chunkstore.SealedSizeMax); err != nil {
			return nil, err
		}
	}
	return nil, o.file.put(b)
}

// close gives back what the box takes.
func (o *outbox) close() {
	if o.file != nil {
		o.file.close()
	}
}
