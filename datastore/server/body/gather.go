package body

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

// SmallBody is what of a body is read into memory at first, in bytes; a longer one
// goes to a file.
const SmallBody = 32 << 10

// Gathered is a body that has come whole, in the account of who sent it. Only now is
// anything taken for it that others wait for, so that it may come as slowly as it
// likes.
type Gathered struct {
	small []byte
	hold  *ledger.Hold // of small
	file  *File        // nil if it is small
	Size  int64
}

// Gather reads a body of at most so many bytes; a longer one is rest.ErrBodyTooLarge. The
// caller closes what it gets.
func (k *Keep) Gather(ctx context.Context, p ledger.Payer, body io.Reader, most int64) (*Gathered, error) {
	hold, err := k.accounts.Small.Take(ctx, p, SmallBody)
	if err != nil {
		return nil, err
	}
	g := &Gathered{small: make([]byte, SmallBody), hold: hold}
	n, err := io.ReadFull(body, g.small)
	g.small, g.Size = g.small[:n], int64(n)
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF) && int64(n) < SmallBody:
		return g, nil
	case err == nil:
		err = g.spill(ctx, k, spillOf{payer: p, body: body, most: most})
	default:
		err = fmt.Errorf("read request body: %w", err)
	}
	if err != nil {
		g.Close()
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
func (g *Gathered) spill(ctx context.Context, k *Keep, o spillOf) error {
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
	n, err := f.copy(ctx, io.LimitReader(o.body, o.most-g.Size+1), g.Size)
	g.Size += n
	if err == nil && g.Size > o.most {
		err = rest.ErrBodyTooLarge
	}
	return err
}

// Load returns the body. The memory for it is the caller's affair.
func (g *Gathered) Load() ([]byte, error) {
	if g.file == nil {
		return g.small, nil
	}
	b := make([]byte, g.Size)
	return b, g.file.fetch(b)
}

// Close gives back what the body takes.
func (g *Gathered) Close() {
	g.hold.Free()
	if g.file != nil {
		g.file.Close()
	}
}

// Outbox sends what was held in memory at a place that others wait for, after it has
// left that place: by way of a file if it is large.
type Outbox struct {
	keep  *Keep
	payer ledger.Payer
	place func() (done func(), err error) // takes such a place
	file  *File
}

// NewOutbox returns one that takes places with place.
func (k *Keep) NewOutbox(payer ledger.Payer, place func() (done func(), err error)) *Outbox {
	return &Outbox{keep: k, payer: payer, place: place}
}

// Send makes some bytes at such a place and writes them to the caller.
func (o *Outbox) Send(w io.Writer, make func() ([]byte, error)) error {
	b, err := o.hold(make)
	if err != nil || o.file == nil {
		if err == nil {
			_, err = w.Write(b)
		}
		return err
	}
	_, err = io.Copy(struct{ io.Writer }{w}, o.file.Reader())
	return err
}

// hold returns small bytes, and keeps others in the file.
func (o *Outbox) hold(make func() ([]byte, error)) ([]byte, error) {
	done, err := o.place()
	if err != nil {
		return nil, err
	}
	defer done()
	b, err := make()
	if err != nil {
		return nil, err
	}
	if o.file == nil && len(b) <= SmallBody {
		return bytes.Clone(b), nil
	}
	if o.file == nil {
		if o.file, err = o.keep.SetAside(o.payer, chunkstore.BlobSizeMax); err != nil {
			return nil, err
		}
	}
	return nil, o.file.Put(b)
}

// Close gives back what the box takes.
func (o *Outbox) Close() {
	if o.file != nil {
		o.file.Close()
	}
}
