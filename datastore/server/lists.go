package server

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http"
	"slices"

	"holdfast/datastore"
	"holdfast/datastore/access"
	"holdfast/datastore/server/rest"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
)

// listAhead is how many bytes of a list are collected before the first of them
// is sent: what goes wrong before that is told in an answer, after that the
// connection is cut.
const listAhead = 256 << 10

// listing writes an answer that is a list, element by element, so that it takes
// no more memory than one of them and what is on the way.
type listing struct {
	call  *call
	ahead bytes.Buffer
	sent  bool
	count int
}

// streamList answers with the elements that each adds. An error ends the list:
// it is the answer if nothing has been sent yet.
func (c *call) streamList(each func(add func(any) error) error) error {
	l := &listing{call: c}
	l.ahead.WriteString(`{"data":[`)
	if err := each(l.add); err != nil {
		return l.fail(err)
	}
	l.ahead.WriteString("]")
	for _, name := range slices.Sorted(maps.Keys(c.extra)) {
		l.member(name, c.extra[name])
	}
	if c.extjs {
		l.member("status", http.StatusOK)
		l.member("success", 1)
	}
	l.ahead.WriteString("}")
	if err := l.flush(); err != nil {
		return l.fail(err)
	}
	return rest.ErrAnswered
}

// member adds a member beside the list.
func (l *listing) member(name string, v any) {
	raw, _ := json.Marshal(map[string]any{name: v}) // texts and numbers
	l.ahead.WriteByte(',')
	l.ahead.Write(raw[1 : len(raw)-1])
}

func (l *listing) add(v any) error {
	if err := l.call.Context().Err(); err != nil {
		return err
	}
	if l.count++; l.count > 1 {
		l.ahead.WriteByte(',')
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	l.ahead.Write(raw)
	if l.ahead.Len() < listAhead {
		return nil
	}
	return l.flush()
}

func (l *listing) flush() error {
	if !l.sent {
		l.sent = true
		l.call.Header().Set("Content-Type", "application/json;charset=UTF-8")
		l.call.Header().Set("Cache-Control", "no-store")
	}
	_, err := l.call.Write(l.ahead.Bytes())
	l.ahead.Reset()
	return err
}

// fail tells err, or cuts the connection so that nobody takes a part of the list
// for all of it.
func (l *listing) fail(err error) error {
	if !l.sent {
		return err
	}
	l.call.log.Warn("a list was broken off", "error", err)
	panic(http.ErrAbortHandler)
}

// visible lists the groups of the namespace of a call that the caller may see. Nothing is
// read of groups but who they belong to.
func (c *call) visible() (*openStore, []datastore.OwnedGroup, error) {
	st, err := c.store()
	if err != nil {
		return nil, nil, err
	}
	groups, err := c.visibleIn(st, c.Namespace())
	return st, groups, err
}

// visibleIn lists the groups of a namespace that the caller may see; in one that
// it may not look into there are none.
func (c *call) visibleIn(st *openStore, ns wire.Namespace) ([]datastore.OwnedGroup, error) {
	have, err := c.server.o.Access.Privileges(c.auth, access.DatastorePath(c.Str("store"), ns))
	if err != nil || !have.Any(api.ListsAll|api.ListsOwn) {
		return nil, err
	}
	groups, err := st.Owners(c.Context(), ns)
	if err != nil || have.Any(api.ListsAll) {
		return groups, err
	}
	var own []datastore.OwnedGroup
	for _, g := range groups {
		if c.auth.Owns(g.Owner) {
			own = append(own, g)
		}
	}
	return own, nil
}

// wanted tells whether the filters of a call let a group through.
func (c *call) wanted(g wire.Group) bool {
	return (!c.Has("backup-type") || g.Type == c.Str("backup-type")) && (!c.Has("backup-id") || g.ID == c.Str("backup-id"))
}
