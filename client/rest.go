package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strings"

	"holdfast/chunkstore"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
)

// answerMax caps every JSON answer, in bytes, and valuesMax what there may be in one: what
// is made of "{}," may take hundreds of bytes.
const (
	answerMax = 64 << 20
	valuesMax = 2 << 20
)

// Call is one request of the REST interface.
type Call struct {
	// Op is the method that is asked for, a row of the table of methods.
	Op api.Op
	// At are the values of the variables of its path, in their order.
	At []string
	// Again says that a DELETE or POST may be repeated without harm, too.
	Again bool
	// Params go into the query, for POST and PUT into a form. A list is its
	// name with several values.
	Params url.Values
	// Body, if it is not nil, is sent as it is, and Params go into the query.
	Body []byte
	// Into is a pointer that the answer's data is decoded into; nil drops it.
	Into any
	// Whole is a pointer that the whole answer is decoded into, data and what
	// stands beside it; nil drops it.
	Whole any
	// each, if it is not nil, takes the body as it comes, instead of Into and
	// Whole. It is called anew when the call is tried again.
	each func(body io.Reader) error
}

// path is what is asked for below /api2/json.
func (call *Call) path() string { return call.Op.At(call.At...) }

// String is the call as errors name it.
func (call *Call) String() string { return call.Op.Verb() + " " + call.path() }

// Do makes a call. An answer that is no success is a *StatusError. What can be
// repeated without harm (GET and PUT) is tried again when the connection breaks
// or the server is overloaded.
func (c *Client) Do(ctx context.Context, call Call) error {
	var r *reply
	err := c.authorized(ctx, func(h http.Header) (err error) {
		worth := func(error) bool { return false }
		if call.Again || call.Op.Verb() == http.MethodGet || call.Op.Verb() == http.MethodPut {
			worth = busyNow
		}
		return c.again(ctx, call.String(), worth, func() error {
			r, err = c.exchange(ctx, call, h)
			return err
		})
	})
	if err != nil {
		return err
	}
	if err := r.decode(call.Into, call.Whole); err != nil {
		return fmt.Errorf("%v: %w", &call, err)
	}
	return nil
}

// reply is a successful answer.
type reply struct {
	header http.Header
	body   []byte
}

// exchange makes one attempt at a call, with these headers.
func (c *Client) exchange(ctx context.Context, call Call, h http.Header) (*reply, error) {
	req, err := c.request(ctx, call)
	if err != nil {
		return nil, err
	}
	for name, values := range h {
		req.Header[name] = values
	}
	w := new(watch)
	defer w.stop()
	req = req.WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(i httptrace.GotConnInfo) { w.over(i.Conn) },
	}))
	explain := func(err error) error { return c.broken(ctx, w.life(), err) }
	resp, err := c.rest.RoundTrip(req)
	if err != nil {
		return nil, fmt.Errorf("%v: %w", &call, explain(err))
	}
	resp.Body = &answerBody{ReadCloser: resp.Body, explain: explain, pace: c.pace(), done: func() {}}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return nil, statusError(resp)
	}
	var body []byte
	if call.each != nil {
		err = call.each(resp.Body)
	} else {
		body, err = readMax(resp.Body, resp.ContentLength, answerMax)
	}
	if err != nil {
		return nil, fmt.Errorf("%v: %w", &call, err)
	}
	return &reply{resp.Header, body}, nil
}

func (c *Client) request(ctx context.Context, call Call) (*http.Request, error) {
	verb, path := call.Op.Verb(), call.path()
	if !strings.HasPrefix(path, "/") || strings.ContainsAny(path, "?#{") {
		return nil, fmt.Errorf("call %q: want a path: %w", path, chunkstore.ErrInvalid)
	}
	target, params := c.base+path, call.Params.Encode()
	kind := "application/x-www-form-urlencoded"
	var body io.Reader
	switch {
	case call.Body != nil:
		body, kind = bytes.NewReader(call.Body), "application/octet-stream"
		if params != "" {
			target += "?" + params
		}
	case verb == http.MethodPost || verb == http.MethodPut:
		body = strings.NewReader(params)
	case params != "":
		target += "?" + params
	}
	if len(target)-len(c.base) > wire.URIMax-len(apiRoot) {
		return nil, fmt.Errorf("call %s: path and parameters are longer than %d bytes: %w", path, wire.URIMax, chunkstore.ErrInvalid)
	}
	req, err := http.NewRequestWithContext(ctx, verb, target, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", c.opts.UserAgent)
	req.Header.Set("Content-Type", kind)
	return req, nil
}

// readMax reads a body of at most most bytes. announced is its length if that
// is known, else -1.
func readMax(body io.Reader, announced int64, most int) ([]byte, error) {
	return readInto(nil, body, announced, most)
}

// readInto is readMax that uses the capacity of room first.
func readInto(room []byte, body io.Reader, announced int64, most int) ([]byte, error) {
	if announced > int64(most) {
		return nil, fmt.Errorf("%w: more than %d bytes", errAnswer, most)
	}
	b := slices.Grow(room[:0], int(max(announced, 0))+bytes.MinRead)
	for {
		n, err := body.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if len(b) > most {
			return nil, fmt.Errorf("%w: more than %d bytes", errAnswer, most)
		}
		if errors.Is(err, io.EOF) {
			return b, nil
		}
		if err != nil {
			return nil, err
		}
		if len(b) == cap(b) {
			b = slices.Grow(b, bytes.MinRead)
		}
	}
}

// decode reads the envelope of section 1.4 of the protocol specification. An
// empty body is a data of null.
func (r *reply) decode(into, whole any) error {
	if len(bytes.TrimSpace(r.body)) == 0 {
		return nil
	}
	if bytes.Count(r.body, []byte{','})+bytes.Count(r.body, []byte{':'}) > valuesMax {
		return fmt.Errorf("%w: it holds more than %d values", errAnswer, valuesMax)
	}
	var envelope struct {
		Data json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(r.body, &envelope); err != nil {
		return fmt.Errorf("%w: %w", errAnswer, err)
	}
	if into != nil && envelope.Data != nil {
		if err := json.Unmarshal(envelope.Data, into); err != nil {
			return fmt.Errorf("%w: %w", errAnswer, err)
		}
	}
	if whole != nil {
		if err := json.Unmarshal(r.body, whole); err != nil {
			return fmt.Errorf("%w: %w", errAnswer, err)
		}
	}
	return nil
}

// handlerTransport answers requests by a handler of this process.
type handlerTransport struct{ handler http.Handler }

// RoundTrip implements http.RoundTripper.
func (t handlerTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := req.Context().Err(); err != nil {
		return nil, err
	}
	in := req.Clone(req.Context())
	in.RequestURI = req.URL.RequestURI()
	in.RemoteAddr = "127.0.0.1:0"
	if in.Body == nil {
		in.Body = http.NoBody
	}
	in.Host = req.URL.Host
	w := &recorder{header: make(http.Header), code: http.StatusOK}
	if err := serveHere(t.handler, w, in); err != nil {
		return nil, err
	}
	if w.err != nil {
		return nil, w.err
	}
	return &http.Response{
		Status: http.StatusText(w.code), StatusCode: w.code, Header: w.header, Request: req,
		ProtoMajor: 1, ProtoMinor: 1, ContentLength: int64(w.body.Len()), Body: io.NopCloser(&w.body),
	}, nil
}

// serveHere calls a handler, which can break off its answer as a server cuts a
// connection.
func serveHere(h http.Handler, w http.ResponseWriter, r *http.Request) (err error) {
	defer func() {
		if p := recover(); p == http.ErrAbortHandler {
			err = io.ErrUnexpectedEOF
		} else if p != nil {
			panic(p)
		}
	}()
	h.ServeHTTP(w, r)
	return nil
}

// recorder keeps an answer in memory.
type recorder struct {
	header http.Header
	code   int
	wrote  bool
	body   bytes.Buffer
	err    error
}

func (w *recorder) Header() http.Header { return w.header }

func (w *recorder) WriteHeader(code int) {
	if !w.wrote && code >= 200 {
		w.code, w.wrote = code, true
	}
}

func (w *recorder) Write(p []byte) (int, error) {
	w.wrote = true
	if w.body.Len()+len(p) > answerMax {
		w.err = fmt.Errorf("%w: more than %d bytes", errAnswer, answerMax)
		return 0, w.err
	}
	return w.body.Write(p)
}
