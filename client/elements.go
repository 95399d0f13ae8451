package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"

	"holdfast/datastore/wire/api"
)

// Limits of an answer that is a list, in bytes: of all of it, and of one of its
// elements. It is decoded as it comes, so that only what is made of it takes
// memory; what is made of two bytes may take hundreds, so that there may be
// elementsMax of them and no more.
const (
	listMax     = 256 << 20
	elementMax  = 4 << 20
	elementsMax = 1 << 20
)

// elements asks for a list of the datastore and hands over one element after the
// other. begin is called before the first, and once more each time the call is
// tried again.
func elements[T any](ctx context.Context, c *Client, op api.Op, params url.Values, begin func() (take func(T))) error {
	return c.doInStore(ctx, Call{Op: op, Params: params, each: func(body io.Reader) error {
		return decodeElements(body, begin())
	}})
}

// decodeElements reads the envelope of section 1.4 of the protocol
// specification, whose data is a list. An empty body, and a data of null, is an
// empty one.
func decodeElements[T any](body io.Reader, take func(T)) error {
	d := &listDecoder[T]{capped: cappedReader{r: body}, take: take}
	d.Decoder = json.NewDecoder(&d.capped)
	t, err := d.Token()
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err == nil && t != json.Delim('{') {
		err = fmt.Errorf("%w: it is no object", errAnswer)
	}
	for err == nil && d.More() {
		err = d.member()
	}
	if err == nil {
		_, err = d.Token() // the closing brace
	}
	if err != nil {
		return unusable(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: something follows it", errAnswer)
	}
	return nil
}

// listDecoder takes one answer apart.
type listDecoder[T any] struct {
	*json.Decoder
	capped cappedReader
	take   func(T)
}

// member reads one member of the envelope.
func (d *listDecoder[T]) member() error {
	d.capped.part = 0
	name, err := d.Token()
	if err != nil {
		return err
	}
	if name == "data" {
		return d.list()
	}
	var other json.RawMessage
	return d.Decode(&other)
}

func (d *listDecoder[T]) list() error {
	t, err := d.Token()
	if err != nil || t == nil {
		return err
	}
	if t != json.Delim('[') {
		return fmt.Errorf("%w: the data are no list", errAnswer)
	}
	for n := 0; d.More(); n++ {
		if n == elementsMax {
			return fmt.Errorf("%w: more than %d elements", errAnswer, elementsMax)
		}
		d.capped.part = 0
		var e T
		if err := d.Decode(&e); err != nil {
			return err
		}
		d.take(e)
	}
	_, err = d.Token() // the closing bracket
	return err
}

// unusable marks errors that are about what was sent and not about how it came.
func unusable(err error) error {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	if errors.As(err, &syntax) || errors.As(err, &kind) {
		return fmt.Errorf("%w: %w", errAnswer, err)
	}
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// cappedReader ends in an error when more is read than may come: of all, or
// since part was last set to 0. A decoder reads ahead as much again as it has.
type cappedReader struct {
	r         io.Reader
	all, part int64
}

// Read implements io.Reader.
func (c *cappedReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.all += int64(n)
	c.part += int64(n)
	if c.all > listMax {
		return 0, fmt.Errorf("%w: more than %d bytes", errAnswer, listMax)
	}
	if c.part > 2*elementMax {
		return 0, fmt.Errorf("%w: an element of more than %d bytes", errAnswer, elementMax)
	}
	return n, err
}
