package server

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strings"

	"holdfast/datastore/access"
	"holdfast/datastore/server/body"
	"holdfast/datastore/server/budget"
	"holdfast/datastore/server/front"
	"holdfast/datastore/server/ledger"
	"holdfast/datastore/server/rest"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
)

// call is one request on its way through a method.
type call struct {
	http.ResponseWriter
	*http.Request
	server      *Server
	auth        wire.AuthID // "" in a public method
	pass        access.Pass // of auth
	may         api.May     // what the row of the method says
	payer       ledger.Payer
	rest.Values                // its parameters
	extra       map[string]any // more members of the answer beside "data"
	log         *slog.Logger
	held        []*openStore // released when the method returns
	leave       func()       // gives back the caller's place
	ask         func() error // whether what is being sent may still be; nil if it is short
	extjs       bool         // the answer is for the web page
}

// Header implements http.ResponseWriter: it is the header of the answer.
func (c *call) Header() http.Header { return c.ResponseWriter.Header() }

// Write implements http.ResponseWriter.
func (c *call) Write(p []byte) (int, error) { return c.ResponseWriter.Write(p) }

// top adds a member to the answer beside "data".
func (c *call) top(name string, v any) {
	if c.extra == nil {
		c.extra = make(map[string]any)
	}
	c.extra[name] = v
}

// answer is what a request comes to.
type answer struct {
	data  any
	extra map[string]any
	err   error
	extjs bool
	// bare answers have no body: section 1.2 of the protocol specification.
	bare int
}

// api answers a request below /api2.
func (s *Server) api(w http.ResponseWriter, r *http.Request, log *slog.Logger) answer {
	if len(strings.Replace(r.RequestURI, "?", "", 1)) > wire.URIMax {
		return answer{bare: http.StatusRequestURITooLong}
	}
	parts, err := rest.PathOf(r)
	if err != nil {
		return answer{err: err}
	}
	if len(parts) < 2 || parts[0] != "api2" {
		return answer{err: rest.NotFound("Path '/%s' not found.", rest.ClipName(strings.Join(parts, "/")))}
	}
	if parts[1] != "json" && parts[1] != "extjs" {
		return answer{err: rest.BadRequest("Unsupported output format '%s'.", rest.ClipName(parts[1]))}
	}
	c := &call{ResponseWriter: w, Request: r, server: s, log: log, extjs: parts[1] == "extjs"}
	data, err := s.invoke(c, parts[2:])
	return answer{data: data, extra: c.extra, err: err, extjs: c.extjs}
}

// invoke finds the method, asks who calls, reads the parameters and runs it.
func (s *Server) invoke(c *call, parts []string) (any, error) {
	defer c.release()
	place, uri := s.tree.Lookup(parts)
	m := place.Of(c.Method)
	local, err := s.identify(c, m)
	if err != nil {
		return nil, err
	}
	if c.auth != "" {
		c.Request = c.WithContext(budget.WithPayer(c.Context(), c.payer))
	}
	if !local && c.auth != "" {
		if err := c.enter(); err != nil {
			return nil, err
		}
	}
	if m == nil && place != nil && c.Method == http.MethodGet && len(place.Subdirs()) > 0 {
		return place.Subdirs(), nil
	}
	if m == nil || m.May.Who == api.Local && !local {
		return nil, rest.NotFound("Path '/%s' not found.", rest.ClipName(strings.Join(parts, "/")))
	}
	if !m.Raw {
		most := int64(wire.ParamBodyMax)
		if c.auth == "" {
			// A stranger has a name and a password to say.
			most = body.SmallBody
			c.payer = ledger.Payer{Account: front.Neighbours(from(c.Request)).String()}
		}
		done, err := c.parameters(most)
		if err != nil {
			return nil, err
		}
		defer done()
	}
	c.Values, err = rest.Parse(m.Params, rest.Source{Request: c.Request, URI: uri, Raw: m.Raw})
	if err != nil {
		return nil, err
	}
	// A body that comes slowly outlives nothing that was taken away meanwhile.
	if err := c.still(); err != nil {
		return nil, err
	}
	if err := c.permit(m.May); err != nil {
		return nil, err
	}
	return m.Do(c)
}

// enter takes a place for the caller, which the call has until it returns, or
// the session that it has begun until that ends.
func (c *call) enter() error {
	hold, err := c.server.accounts.Requests.Try(c.payer, 1)
	if err != nil {
		c.server.metrics.Refused("token")
		return err
	}
	c.leave = hold.Free
	return nil
}

// takePlace takes the caller's place over from the call, which does not give it back
// then. A local caller has none.
func (c *call) takePlace() (leave func()) {
	leave, c.leave = c.leave, nil
	if leave == nil {
		return func() {}
	}
	return leave
}

// release gives back the datastores that the call has used, and its place.
func (c *call) release() {
	c.takePlace()()
	for _, o := range c.held {
		o.release()
	}
	c.held = nil
}

// respond writes an answer.
func (s *Server) respond(w http.ResponseWriter, r *http.Request, a answer) {
	switch {
	case errors.Is(a.err, rest.ErrAnswered):
	case a.bare != 0:
		w.WriteHeader(a.bare)
	case a.err != nil:
		s.respondError(w, r, a)
	case a.extjs:
		s.respondJSON(w, envelope(a, map[string]any{"success": 1, "status": http.StatusOK}))
	default:
		s.respondJSON(w, envelope(a, map[string]any{}))
	}
}

func envelope(a answer, body map[string]any) map[string]any {
	body["data"] = a.data
	for name, v := range a.extra {
		body[name] = v
	}
	return body
}

// respondJSON writes a body with status 200.
func (s *Server) respondJSON(w http.ResponseWriter, body map[string]any) {
	raw, err := json.Marshal(body)
	if err != nil {
		s.o.Log.Error("answer cannot be encoded", "error", err)
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json;charset=UTF-8")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(raw) // a caller that has gone is told nothing
}

// respondError writes an error: plain text, or the form of the web page.
func (s *Server) respondError(w http.ResponseWriter, r *http.Request, a answer) {
	e := rest.AsStatus(a.err)
	if !s.holdBack(r.Context(), e.Delay) {
		w.Header().Set("Connection", "close")
	}
	if wait := retryAfter(a.err); wait != "" {
		w.Header().Set("Retry-After", wait)
	}
	if errors.Is(a.err, rest.ErrBodyTooLarge) || e.Code == http.StatusRequestTimeout {
		w.Header().Set("Connection", "close")
	}
	if a.extjs && e.Code != http.StatusUnauthorized {
		w.Header().Set(wire.FailureHeader, e.Failures())
		body := map[string]any{"success": 0, "status": e.Code, "message": e.Text, "data": nil}
		var faults rest.ParamError
		if errors.As(a.err, &faults) {
			body["errors"] = faults.ByName()
		}
		s.respondJSON(w, body)
		return
	}
	w.Header().Set("X-Content-Type-Options", "nosniff")
	e.Head(w)
	_, _ = w.Write([]byte(e.Text))
}
