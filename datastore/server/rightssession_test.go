package server

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"testing"

	"holdfast/chunkstore"
	"holdfast/datastore/access"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/wiretest"
)

const rightsSessionsHead = `
Who may open a session of one kind or the other is in the rows of ` + "`GET /backup` and `GET /reader`" + ` above; within one every request is asked
anew who asks, what that may do, and whose the group is. So each of these answers **no** from the next request on when the token or the user is
removed, disabled or expired, when the secret or password is replaced, when the role is taken away, or when the group is given to somebody else (` + "`TestSessionsEndWithTheirRights`" + `).
`

// walker is a session that is asked everything, and what it has made so far.
type walker struct {
	*talk
	group   wire.Group
	when    int64
	entries map[string][]entry // of the index that was made last, by kind
	wid     int
}

// sessionRow is a request of a session.
type sessionRow struct {
	kind, verb, path, what string
	ask                    func(*walker) request
	words                  []string
}

func (r *sessionRow) name() string {
	name := fmt.Sprintf("%s: `%s %s`", r.kind, r.verb, r.path)
	if r.what != "" {
		name += ", " + r.what
	}
	return name
}

type sessionRows []*sessionRow

// newSessionRows are all requests that the two kinds of session know, in an order in
// which all of them can be done.
func newSessionRows() sessionRows {
	plain := func(pairs ...any) func(*walker) request {
		return func(*walker) request { return get("", pairs...) }
	}
	rows := sessionRows{
		{kind: "backup", verb: "GET", path: "/", ask: plain()},
		{kind: "backup", verb: "GET", path: "/previous_backup_time", ask: plain()},
		{kind: "backup", verb: "GET", path: "/previous", what: "the manifest", ask: plain("archive-name", wire.ManifestName)},
		{kind: "backup", verb: "GET", path: "/previous", what: "an index", ask: plain("archive-name", "disk.img.didx")},
		{kind: "backup", verb: "GET", path: "/previous", what: "another small file", ask: plain("archive-name", "note.conf.blob")},
		{kind: "backup", verb: "GET", path: wire.ResumePath, ask: plain()},
		{kind: "backup", verb: "POST", path: "/speedtest", ask: func(*walker) request { return post("") }},
	}
	for _, kind := range []string{"dynamic", "fixed"} {
		rows = append(rows,
			&sessionRow{kind: "backup", verb: "POST", path: "/" + kind + "_index", ask: func(w *walker) request { return w.create(kind) }},
			&sessionRow{kind: "backup", verb: "POST", path: "/" + kind + "_chunk", ask: func(w *walker) request { return chunkUpload(kind, w.wid, w.entries[kind][0].bit) }},
			&sessionRow{kind: "backup", verb: "PUT", path: "/" + kind + "_index", what: "a chunk of another", ask: func(w *walker) request {
				return appendOf(kind, w.wid, entry{0, w.lab.plainBit("of the victim")})
			}},
			&sessionRow{kind: "backup", verb: "PUT", path: "/" + kind + "_index", ask: func(w *walker) request { return appendOf(kind, w.wid, w.entries[kind]...) }},
			&sessionRow{kind: "backup", verb: "POST", path: "/" + kind + "_close", ask: func(w *walker) request {
				return closeOf(kind, w.wid, summaryOf(kind, w.entries[kind]...))
			}},
		)
	}
	rows = append(rows,
		&sessionRow{kind: "backup", verb: "POST", path: "/blob", ask: func(w *walker) request {
			return blobUpload(wire.ManifestName, w.lab.manifestOf(w.group.Type+"/"+w.group.ID, w.when,
				indexFile("a.didx", summaryOf("dynamic", w.entries["dynamic"]...)), indexFile("a.fidx", summaryOf("fixed", w.entries["fixed"]...))))
		}},
		&sessionRow{kind: "backup", verb: "POST", path: "/finish", ask: func(*walker) request { return post("") }},
		&sessionRow{kind: "reader", verb: "GET", path: "/", ask: plain()},
		&sessionRow{kind: "reader", verb: "GET", path: "/download", what: "the manifest", ask: plain("file-name", wire.ManifestName)},
		&sessionRow{kind: "reader", verb: "GET", path: "/download", what: "another small file", ask: plain("file-name", "note.conf.blob")},
		&sessionRow{kind: "reader", verb: "GET", path: "/chunk", what: "before its index", ask: plain("digest", idOf("hello "))},
		&sessionRow{kind: "reader", verb: "GET", path: "/download", what: "an index", ask: plain("file-name", "disk.img.didx")},
		&sessionRow{kind: "reader", verb: "GET", path: "/chunk", ask: plain("digest", idOf("hello "))},
		&sessionRow{kind: "reader", verb: "GET", path: "/chunk", what: "of another snapshot", ask: plain("digest", idOf("of the victim"))},
		&sessionRow{kind: "reader", verb: "GET", path: "/speedtest", ask: plain()},
	)
	return rows
}

// idOf is the name of a plain chunk.
func idOf(content string) chunkstore.ID { return chunkstore.ID(sha256.Sum256([]byte(content))) }

// plainBit is a chunk of plain content.
func (l *sessionLab) plainBit(content string) bit {
	return bit{id: idOf(content), size: len(content), raw: l.blobOf(content)}
}

// blobOf is plain content in its envelope.
func (l *sessionLab) blobOf(content string) chunkstore.Blob {
	l.t.Helper()
	raw, err := l.codec.Encode(nil, []byte(content))
	l.must(err)
	return raw
}

// create is the request for a new index, of one chunk.
func (w *walker) create(kind string) request {
	w.wid++
	b := w.lab.bitOf(byte(w.wid), 1000)
	w.entries[kind] = []entry{{0, b}}
	if kind == "fixed" {
		return post("/fixed_index", "archive-name", "a.fidx", "size", b.size)
	}
	return post("/dynamic_index", "archive-name", "a.didx")
}

// open begins a session of a kind for a column, nil if that is refused.
func (l *sessionLab) open(kind string, column int, when int64) *walker {
	l.t.Helper()
	c, g := rightsCallers[column], rightsGroup(column)
	u := backupOf(c.who(), g.String(), when)
	if kind == "reader" {
		u = readerOf(c.who(), g.String(), rightsLast)
	}
	resp, conn := l.ask(u)
	if resp.StatusCode != http.StatusSwitchingProtocols {
		conn.Close()
		return nil
	}
	return &walker{talk: l.over(conn), group: g, when: when, entries: map[string][]entry{}}
}

// gone is the word of a session that has ended.
const gone = "gone"

// word asks a row and says what came of it.
func (w *walker) word(row *sessionRow) string {
	w.lab.t.Helper()
	q := row.ask(w)
	q.verb, q.path = row.verb, row.path
	code, body, err := w.send(context.Background(), q)
	if err != nil {
		return gone
	}
	word := rightsWord(code, string(body))
	if word == "past the check" {
		w.lab.t.Logf("%s as %s: %d %.200q", row.name(), w.group, code, body)
	}
	return word
}

// walk asks every row as everybody.
func (rows sessionRows) walk(l *rightsLab) {
	l.t.Helper()
	s := l.sessions()
	wiretest.Store(l.t, s.store(), wiretest.Content{Snapshot: wire.Snapshot{Group: wire.Group{Type: "vm", ID: "1"}, Time: 1000}, Chunks: []string{"of the victim"}})
	for column := range rightsCallers {
		for _, kind := range []string{"backup", "reader"} {
			w := s.open(kind, column, 5000)
			for _, row := range rows {
				switch {
				case row.kind != kind:
				case w == nil:
					row.words = append(row.words, "no")
				default:
					row.words = append(row.words, w.word(row))
				}
			}
			if w != nil {
				w.conn.Close()
			}
		}
	}
}

// Every request that a session knows has a row.
func TestEverySessionRequestHasARow(t *testing.T) {
	rows := newSessionRows()
	for kind, table := range map[string][]method{"backup": (&backup{}).methods(), "reader": (&reading{}).methods()} {
		for _, m := range table {
			if !slices.ContainsFunc(rows, func(r *sessionRow) bool { return r.kind == kind && r.verb == m.Verb() && r.path == m.Path() }) {
				t.Errorf("%s %s of a %s session has no row", m.Verb(), m.Path(), kind)
			}
		}
	}
}

// prepare does everything in a backup session but its end.
func (w *walker) prepare(rows sessionRows) {
	w.lab.t.Helper()
	for _, row := range rows {
		if row.kind == "backup" && row.path != "/finish" && row.what == "" {
			if got := w.word(row); got != "yes" {
				w.lab.t.Fatalf("%s: %q", row.name(), got)
			}
		}
	}
}

// loss is an end of what somebody may do.
type loss struct {
	name  string
	whose string // "token" or "user" if it is of no matter to the other, "group" if to who reads everything
	take  func(l *rightsLab, who wire.AuthID, g wire.Group) error
}

func rightsLosses() []loss {
	token := func(l *rightsLab, who wire.AuthID, change func(*access.Token)) error {
		t, err := l.access.Token(who)
		change(&t)
		return errors.Join(err, l.access.SetToken(t))
	}
	user := func(l *rightsLab, who wire.AuthID, change func(*access.User)) error {
		return l.access.ChangeUser(who.User(), func(u *access.User) error { change(u); return nil })
	}
	role := func(l *rightsLab, who wire.AuthID) (err error) {
		all, err := l.access.ACLs()
		for _, a := range all {
			if a.ID == who {
				err = errors.Join(err, l.access.RemoveACL(a))
			}
		}
		return err
	}
	return []loss{
		{"token removed", "token", func(l *rightsLab, who wire.AuthID, _ wire.Group) error { return l.access.RevokeToken(who) }},
		{"token made anew", "token", func(l *rightsLab, who wire.AuthID, _ wire.Group) error {
			_, err := l.access.RegenerateToken(who)
			return err
		}},
		{"password changed", "user", func(l *rightsLab, who wire.AuthID, _ wire.Group) error {
			return l.access.SetPassword(who, "another password")
		}},
		{"token disabled", "token", func(l *rightsLab, who wire.AuthID, _ wire.Group) error {
			return token(l, who, func(t *access.Token) { t.Enabled = false })
		}},
		{"token expired", "token", func(l *rightsLab, who wire.AuthID, _ wire.Group) error {
			return token(l, who, func(t *access.Token) { t.Expire = 1 })
		}},
		{"role of the token taken", "token", func(l *rightsLab, who wire.AuthID, _ wire.Group) error { return role(l, who) }},
		{"user removed", "", func(l *rightsLab, who wire.AuthID, _ wire.Group) error { return l.access.RemoveUser(who.User()) }},
		{"user disabled", "", func(l *rightsLab, who wire.AuthID, _ wire.Group) error {
			return user(l, who, func(u *access.User) { u.Enabled = false })
		}},
		{"user expired", "", func(l *rightsLab, who wire.AuthID, _ wire.Group) error {
			return user(l, who, func(u *access.User) { u.Expire = 1 })
		}},
		{"role of the user taken", "", func(l *rightsLab, who wire.AuthID, _ wire.Group) error { return role(l, who.User()) }},
		{"group given to another", "group", func(l *rightsLab, _ wire.AuthID, g wire.Group) error {
			st, err := l.server.store("tank")
			if err != nil {
				return err
			}
			return st.SetOwner(l.t.Context(), g, victim)
		}},
	}
}

// Whatever ends the rights of a session's caller ends them for every request of the
// session, and what it has prepared does not come to be.
func TestSessionsEndWithTheirRights(t *testing.T) {
	template := newRightsTemplate(t)
	for _, loss := range rightsLosses() {
		t.Run(loss.name, func(t *testing.T) {
			t.Parallel()
			l := template.lab(t, "tank")
			for column, c := range rightsCallers {
				// One of each kind of caller that has sessions.
				who := wire.AuthID(c.who())
				_, isToken := who.Token()
				matters := map[string]bool{"token": isToken, "user": !isToken, "group": c.name != "reader", "": true}[loss.whose]
				if slices.Contains([]string{"put", "backup", "self", "keeper", "reader"}, c.name) && matters {
					l.lose(loss, column)
				}
			}
		})
	}
}

// lose opens sessions of both kinds for a column, takes its rights away and asks
// everything.
func (l *rightsLab) lose(loss loss, column int) {
	l.t.Helper()
	c, s, rows := rightsCallers[column], l.sessions(), newSessionRows()
	open := map[string]*walker{"backup": s.open("backup", column, 5000), "reader": s.open("reader", column, 0)}
	if w := open["backup"]; w != nil {
		w.prepare(rows)
	}
	if err := loss.take(l, wire.AuthID(c.who()), rightsGroup(column)); err != nil {
		l.t.Fatal(err)
	}
	before := l.groupState(column)
	for _, row := range rows {
		w := open[row.kind]
		if w == nil || loss.whose == "group" && row.kind == "reader" && c.name == "keeper" { // who reads everything
			continue
		}
		if got := w.word(row); got != "no" && got != gone {
			l.t.Errorf("%s, %s: %q", c.title, row.name(), got)
		}
	}
	for _, w := range open {
		if w != nil {
			w.conn.Close()
		}
	}
	if after := l.groupState(column); after != before {
		l.t.Errorf("%s: the group has changed from\n%s to\n%s", c.title, before, after)
	}
}
