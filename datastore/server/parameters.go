package server

import (
	"bytes"
	"errors"
	"io"

	"holdfast/datastore/server/body"
	"holdfast/datastore/server/rest"
)

// parameters reads the body of a request that carries parameters, before memory is
// taken for what becomes of it: a list of entries takes up to twice its length beside
// the body itself. done gives that back.
func (c *call) parameters(most int64) (done func(), err error) {
	if c.Body == nil || c.ContentLength == 0 {
		return func() {}, nil
	}
	if c.ContentLength > most {
		rest.Discard(c.Body)
		return nil, rest.ErrBodyTooLarge
	}
	g, err := c.server.host.keep.Gather(c.Context(), c.payer, c.Body, most)
	if err != nil {
		if errors.Is(err, rest.ErrBodyTooLarge) {
			rest.Discard(c.Body)
		}
		return nil, err
	}
	defer g.Close()
	const times = 3
	hold, err := c.server.accounts.Lists.Take(c.Context(), c.payer, times*max(g.Size, body.SmallBody))
	if err != nil {
		return nil, err
	}
	b, err := g.Load()
	if err != nil {
		hold.Free()
		return nil, err
	}
	c.Body = io.NopCloser(bytes.NewReader(b))
	c.ContentLength = int64(len(b))
	return hold.Free, nil
}
