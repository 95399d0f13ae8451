package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"golang.org/x/sync/semaphore"

	"holdfast/chunkstore"
	"holdfast/datastore/access"
	"holdfast/datastore/index"
	"holdfast/datastore/server/body"
	"holdfast/datastore/server/budget"
	"holdfast/datastore/server/ledger"
	"holdfast/datastore/server/quota"
	"holdfast/datastore/server/rest"
	"holdfast/datastore/task"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
)

// sessionHost is what the sessions of a server share.
type sessionHost struct {
	keep   *body.Keep // for bodies
	quotas *quota.Book
}

func newSessionHost(dir string, a *budget.Accounts, quotas *quota.Book) *sessionHost {
	return &sessionHost{
		keep:   body.New(dir, a),
		quotas: quotas,
	}
}

// conversation is what both kinds of session have.
type conversation struct {
	server   *Server
	host     *sessionHost
	task     *task.Task
	auth     wire.AuthID
	pass     access.Pass // what the session was opened with
	payer    ledger.Payer
	verbose  bool
	patience *body.Patience
	lull     *lull
	// ctx ends with the task, and when the server ends the session.
	ctx    context.Context
	cancel context.CancelCauseFunc
	given  func() <-chan struct{} // closed when a group has got another owner
	rights rights
	window *ledger.Hold // bytes that may arrive before they are read

	// spare is for one answer by way of a file, so that those who read slowly
	// keep nobody waiting.
	spare *semaphore.Weighted
}

func (s *Server) newConversation(c *call, t *task.Task) *conversation {
	v := &conversation{
		server: s, host: s.host, task: t, auth: c.auth, pass: c.pass, payer: c.payer, verbose: c.Bool("debug", false), patience: body.NewPatience(s.o.Limits.StallTimeout),
		spare: semaphore.NewWeighted(chunkstore.BlobSizeMax),
	}
	v.within(t.Context())
	v.lull = newLull(0, func() {})
	return v
}

// handler answers the requests of the session from its table.
func (v *conversation) handler(table []method) http.Handler {
	tree := &rest.Tree[*call]{}
	for _, m := range table {
		tree.Add(&m)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		stream, err := v.server.accounts.Streams.Try(v.payer, 1)
		if err != nil {
			// Nothing of the body is read, nothing else is kept of it.
			e := rest.AsStatus(err)
			e.Head(w)
			_, _ = w.Write([]byte(e.Text))
			return
		}
		defer stream.Free()
		v.lull.begin()
		defer v.lull.end()
		body := v.patience.Watch(w, r.Body)
		defer body.Stop()
		r.Body = body
		r = r.WithContext(budget.WithPayer(r.Context(), v.payer))
		c := &call{ResponseWriter: w, Request: r, server: v.server, auth: v.auth, pass: v.pass, payer: v.payer, log: v.server.o.Log}
		data, err := v.run(tree, c)
		if why := v.stopped(); why != nil && err != nil && !errors.Is(err, rest.ErrAnswered) {
			err = why // whatever it has led to
		}
		if err != nil && !errors.Is(err, rest.ErrAnswered) {
			drain(r)
		}
		v.note(c, err)
		v.answer(c, data, err)
	})
}

// note writes down what was refused and, if asked for, every request that is not
// about a single chunk.
func (v *conversation) note(c *call, err error) {
	refused := err != nil && !errors.Is(err, rest.ErrAnswered)
	switch {
	case refused && c.Context().Err() == nil:
		v.task.Logf("refused %s %s: %v", c.Method, rest.ClipName(c.URL.Path), err)
	case v.verbose && !refused && c.Method != http.MethodPut && !strings.HasSuffix(c.URL.Path, "chunk"):
		v.task.Logf("%s %s", c.Method, rest.ClipName(c.URL.Path))
	}
}

// rights are what a session needs: any of the privileges on the path, and to be
// the owner of the group where those are not enough.
type rights struct {
	path string
	any  api.Privilege
	// all is enough for the groups of others; 0 if nothing is.
	all   api.Privilege
	owner func() (wire.AuthID, error) // of the group; nil if it does not matter
	// still is what else must be so for who needs the owner; nil for nothing.
	still func() error
}

// allowed asks for the credential and the rights of the session, and who owns its
// group, anew, so that what is taken away ends with the next request. It returns the
// privileges that there are now.
func (v *conversation) allowed() (api.Privilege, error) {
	if err := v.server.o.Access.Holds(v.pass); err != nil {
		return 0, &rest.StatusError{Code: http.StatusForbidden, Text: "permission check failed - the rights of the session were taken away, with the credential that it was opened with"}
	}
	have, err := v.server.o.Access.Privileges(v.auth, v.rights.path)
	if err == nil && !have.Any(v.rights.any) {
		err = &rest.StatusError{Code: http.StatusForbidden, Text: "permission check failed - the rights of the session were taken away"}
	}
	if err != nil || v.rights.owner == nil || have.Any(v.rights.all) {
		return have, err
	}
	owner, err := v.rights.owner()
	if err == nil && !v.auth.Owns(owner) {
		err = v.server.notOwner(v.auth, owner, v.rights.path)
	}
	if err == nil && v.rights.still != nil {
		err = v.rights.still()
	}
	return have, err
}

func (v *conversation) run(tree *rest.Tree[*call], c *call) (any, error) {
	if _, err := v.allowed(); err != nil {
		return nil, err
	}
	parts, err := rest.PathOf(c.Request)
	if err != nil {
		return nil, err
	}
	place, _ := tree.Lookup(parts)
	if place == tree && c.Method == http.MethodGet {
		return place.Subdirs(), nil
	}
	m := place.Of(c.Method)
	if m == nil {
		return nil, rest.NotFound("Path '%s' not found.", rest.ClipName(c.URL.Path))
	}
	if !m.Raw {
		done, err := c.parameters(wire.ParamBodyMax)
		if err != nil {
			return nil, err
		}
		defer done()
	}
	if c.Values, err = rest.Parse(m.Params, rest.Source{Request: c.Request, Raw: m.Raw}); err != nil {
		return nil, err
	}
	return m.Do(c)
}

// answer writes an answer. An error ends the stream and nothing else.
func (v *conversation) answer(c *call, data any, err error) {
	if errors.Is(err, rest.ErrAnswered) {
		return
	}
	if err == nil {
		raw, _ := json.Marshal(map[string]any{"data": data}) // numbers, texts and lists of them
		c.Header().Set("Content-Type", "application/json;charset=UTF-8")
		_, _ = c.Write(raw)
		return
	}
	e := rest.AsStatus(err)
	v.server.holdBack(c.Context(), e.Delay)
	e.Head(c)
	_, _ = c.Write([]byte(e.Text))
}

// payload waits for memory and reads the body of a request, which must have size
// bytes, into it. The caller frees the loan.
func (v *conversation) payload(c *call, size int64) (*body.Loan, error) {
	if n := c.ContentLength; n > size {
		return nil, body.ErrBodyLong
	} else if n >= 0 && n < size {
		return nil, body.ErrBodyShort
	}
	l, err := v.host.keep.Receive(c.Context(), v.payer, c.Body, int(size))
	if err == nil {
		v.server.metrics.Moved("in", int(size))
	}
	return l, err
}

// drain reads what is left of a body that was refused, so that the client sees
// the answer and not a broken stream.
func drain(r *http.Request) {
	_, _ = pass(io.Discard, io.LimitReader(r.Body, chunkstore.BlobSizeMax+1))
}

// file is a file to be sent. take gets an index before its first byte is sent
// and may refuse it.
type file struct {
	name string
	take func(context.Context, *index.Reader) error
}

// sendFile streams a file of a snapshot as it lies there.
func (v *conversation) sendFile(c *call, from wire.Reader, f file) error {
	kind, err := wire.CheckFileName(f.name)
	if err != nil {
		return rest.BadRequest("unknown archive type: '%s'", rest.ClipName(f.name))
	}
	if kind == wire.Blob {
		err := v.lend(c, func() (borrowed, error) {
			raw, err := from.Blob(c.Context(), f.name)
			return borrowed{Blob: raw}, err
		})
		if errors.Is(err, chunkstore.ErrNotExist) {
			return rest.NotFound("%v", err)
		}
		return err
	}
	open, err := v.server.accounts.Files.Try(v.payer, 1)
	if err != nil {
		return err
	}
	defer open.Free()
	idx, err := from.Index(c.Context(), f.name)
	if err != nil {
		return fmt.Errorf("unable to open index: %w", err)
	}
	defer idx.Close()
	if err := f.take(c.Context(), idx); err != nil {
		return err
	}
	c.Header().Set("Content-Type", "application/octet-stream")
	n, err := pass(c.ResponseWriter, idx.Raw())
	v.server.metrics.Moved("out", int(n))
	if err != nil && c.Context().Err() == nil {
		panic(http.ErrAbortHandler) // so that the client does not take it for the end
	}
	return rest.ErrAnswered
}
