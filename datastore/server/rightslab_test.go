package server

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"holdfast/chunkstore"
	"holdfast/chunkstore/blob"
	"holdfast/datastore"
	"holdfast/datastore/access"
	"holdfast/datastore/server/front"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
	"holdfast/datastore/wire/wiretest"
)

// rightsCaller is a column of docs/rights.md: who asks, and whether for what is its
// own or for what is another's.
type rightsCaller struct {
	title  string
	name   string // of the user; "" for nobody
	all    bool   // may change what is another's
	grants map[string][]string
	own    bool
	ticket bool // the user itself, with its password, and not its token
}

func onTank(role string) map[string][]string { return map[string][]string{"/datastore/tank": {role}} }

// rightsCallers are the columns.
var rightsCallers = []rightsCaller{
	{title: "stranger"},
	{title: "no rights", name: "nobody"},
	{title: "NoAccess", name: "shutout", grants: map[string][]string{"/datastore": {"DatastoreAdmin"}, "/datastore/tank": {"NoAccess"}}},
	{title: "admin of another namespace", name: "beside", grants: map[string][]string{"/datastore/tank/beside": {"DatastoreAdmin"}}},
	{title: "PutOnly, own", name: "put", grants: onTank("DatastorePutOnly"), own: true},
	{title: "PutOnly, foreign", name: "put2", grants: onTank("DatastorePutOnly")},
	{title: "Backup, own", name: "backup", grants: onTank("DatastoreBackup"), own: true},
	{title: "Backup, foreign", name: "backup2", grants: onTank("DatastoreBackup")},
	{title: "PowerUser, own", name: "power", grants: onTank("DatastorePowerUser"), own: true},
	{title: "the user itself, own", name: "self", grants: onTank("DatastorePowerUser"), own: true, ticket: true},
	{title: "PowerUser, foreign", name: "power2", grants: onTank("DatastorePowerUser")},
	{title: "DatastoreAudit", name: "looker", grants: onTank("DatastoreAudit")},
	{title: "Reader", name: "reader", grants: onTank("DatastoreReader")},
	{title: "DatastoreAdmin, own", name: "keeper", grants: onTank("DatastoreAdmin"), own: true},
	{title: "DatastoreAdmin, foreign", name: "keeper2", all: true, grants: onTank("DatastoreAdmin")},
	{title: "Audit", name: "audit", grants: map[string][]string{"/": {"Audit"}}},
	{title: "Admin, own", name: "admin", grants: map[string][]string{"/": {"Admin"}}, own: true},
	{title: "Admin, foreign", name: "admin2", all: true, grants: map[string][]string{"/": {"Admin"}}},
}

// beyond has every role that grants nothing here, on everything: it is answered as who
// has no rights.
const beyond = "beyond"

// uselessRoles are those that grant nothing that this server has.
func uselessRoles() (list []string) {
	for _, r := range api.Roles() {
		const useful = api.SysAudit | api.SysModify | api.PermissionsModify | api.DatastoreAllocate | api.DatastoreAudit |
			api.DatastoreModify | api.DatastoreRead | api.DatastoreVerify | api.DatastoreBackup | api.DatastorePrune | api.DatastorePut
		if r.Privileges != 0 && !r.Privileges.Any(useful) {
			list = append(list, r.Name)
		}
	}
	return list
}

// victim is whose everything is that is foreign.
const victim = wire.AuthID("victim@pbs!tok")

// cheapPassword is what hashing a password takes in tests, in KiB.
const cheapPassword = 64

const selfPassword = "right password"

func (c rightsCaller) token() string { return c.name + "@pbs!tok" }

// who is the name to ask with: of a token, of a user, or of nobody.
func (c rightsCaller) who() string {
	switch {
	case c.name == "":
		return ""
	case c.ticket:
		return c.name + "@pbs"
	}
	return c.token()
}

// object is a token whose things are asked for.
func (c rightsCaller) object() wire.AuthID {
	if c.own {
		return wire.AuthID(c.token())
	}
	return victim
}

// rightsTemplate is a server's directory with everybody and everything there is to ask
// for, made once and copied for every test that changes something.
type rightsTemplate struct {
	dir     string
	secrets map[string]string
	tickets map[string]access.Ticket
}

// Of each column there is a group with snapshots of these times, the first of which has
// been removed, and an empty namespace.
const rightsGone, rightsOld, rightsLast = 500, 1000, 2000

func rightsGroup(column int) wire.Group {
	return wire.Group{Type: "vm", ID: fmt.Sprint(100 + column)}
}

func rightsNamespace(column int) wire.Namespace {
	return wire.Namespace(fmt.Sprint("empty", column))
}

func newRightsTemplate(t *testing.T) *rightsTemplate {
	t.Helper()
	r := &rightsTemplate{dir: t.TempDir(), secrets: map[string]string{}, tickets: map[string]access.Ticket{}}
	_, err := front.EnsureCertificate(filepath.Join(r.dir, "cert.pem"), filepath.Join(r.dir, "key.pem"), []string{"localhost", "127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	r.people(t)
	r.groups(t)
	if err := datastore.Create(filepath.Join(r.dir, "empty"), datastore.CreateOptions{TrashDays: datastore.TrashDaysDefault}); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rightsTemplate) people(t *testing.T) {
	t.Helper()
	a, err := access.Open(filepath.Join(r.dir, "access.db"), access.Options{PasswordMemory: cheapPassword})
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(err)
	everything := rightsCaller{name: beyond}
	for _, c := range append(slices.Clone(rightsCallers), rightsCaller{name: "victim"}, everything) {
		if c.name == "" {
			continue
		}
		token, password := wire.AuthID(c.token()), ""
		if c.ticket {
			password = selfPassword
		}
		must(a.CreateUser(access.User{ID: token.User(), Enabled: true}, password))
		r.secrets[string(token)], err = a.CreateToken(access.Token{ID: token, Enabled: true})
		must(err)
		must(a.SetQuota(access.Quota{Subject: string(token), BytesMax: 1 << 40}))
		grants := c.grants
		if c.name == beyond {
			grants = map[string][]string{"/": uselessRoles()}
		}
		for path, roles := range grants {
			for _, role := range roles {
				must(a.SetACL(access.ACL{Path: path, Role: role, ID: token.User(), Propagate: true}))
				must(a.SetACL(access.ACL{Path: path, Role: role, ID: token, Propagate: true}))
			}
		}
		if c.ticket {
			r.tickets[c.who()], err = a.Login(t.Context(), token.User(), password, netip.Addr{})
			must(err)
		}
	}
	must(a.Close())
}

func (r *rightsTemplate) groups(t *testing.T) {
	t.Helper()
	path := filepath.Join(r.dir, "tank")
	if err := datastore.Create(path, datastore.CreateOptions{TrashDays: datastore.TrashDaysDefault}); err != nil {
		t.Fatal(err)
	}
	st, err := datastore.Open(t.Context(), path, datastore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	namespaces := []wire.Namespace{"beside"}
	for i := range rightsCallers {
		namespaces = append(namespaces, rightsNamespace(i))
	}
	for _, ns := range namespaces {
		if err := st.CreateNamespace(t.Context(), ns); err != nil {
			t.Fatal(err)
		}
	}
	for i, c := range rightsCallers {
		g := rightsGroup(i)
		for _, at := range []int64{rightsGone, rightsOld, rightsLast} {
			wiretest.Store(t, st, wiretest.Content{Snapshot: wire.Snapshot{Group: g, Time: at},
				Chunks: []string{"hello ", "of " + g.ID}, Note: "a note of " + g.ID})
		}
		if err := st.SetOwner(t.Context(), g, c.object()); err != nil {
			t.Fatal(err)
		}
		if err := st.Forget(t.Context(), wire.Snapshot{Group: g, Time: rightsGone}); err != nil {
			t.Fatal(err)
		}
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
}

// lab is a server on a copy; its datastore is empty where nobody asks for groups.
func (r *rightsTemplate) lab(t *testing.T, store string) *rightsLab {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"access.db", "cert.pem", "key.pem"} {
		raw, err := os.ReadFile(filepath.Join(r.dir, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), raw, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.CopyFS(filepath.Join(dir, "tank"), os.DirFS(filepath.Join(r.dir, store))); err != nil {
		t.Fatal(err)
	}
	l := &rightsLab{labAt(t, Options{}, dir), r.tickets}
	l.secrets = r.secrets
	l.addTank()
	l.listen()
	return l
}

// rightsLab is a server with everybody of the table.
type rightsLab struct {
	*lab
	tickets map[string]access.Ticket
}

// sessions is the same server for those who hold sessions.
func (l *rightsLab) sessions() *sessionLab {
	l.t.Helper()
	codec, err := blob.NewCodec(blob.Options{})
	if err != nil {
		l.t.Fatal(err)
	}
	s := &sessionLab{t: l.t, dir: l.dir, server: l.server, access: l.access, tasks: l.tasks, codec: codec,
		addr: strings.TrimPrefix(l.base, "https://"), tokens: map[string]string{}}
	for id, secret := range l.secrets {
		s.tokens[id] = "PBSAPIToken=" + id + ":" + secret
	}
	for id, ticket := range l.tickets {
		s.tokens[id] = "none\r\nCookie: PBSAuthCookie=" + ticket.Ticket
	}
	return s
}

func (l *rightsLab) addTank() {
	l.t.Helper()
	if err := l.access.AddDatastore(access.Datastore{Name: "tank", Path: filepath.Join(l.dir, "tank")}); err != nil {
		l.t.Fatal(err)
	}
}

// identify says in a request who asks.
func (l *rightsLab) identify(r *http.Request, who string) {
	if ticket, ok := l.tickets[who]; ok {
		r.Header.Set("Cookie", "PBSAuthCookie="+ticket.Ticket)
		r.Header.Set("CSRFPreventionToken", ticket.CSRF)
	} else if who != "" {
		r.Header.Set("Authorization", "PBSAPIToken="+who+":"+l.secrets[who])
	}
}

// state is all that there is of a column's group, if the request is about groups.
func (l *rightsLab) state(row rightsRow, column int) string {
	l.t.Helper()
	if row.store() == "empty" || row.Verb() == http.MethodGet {
		return ""
	}
	return l.groupState(column)
}

// store is what a row is asked of: the datastore with the groups, or an empty one.
func (r rightsRow) store() string {
	if strings.HasPrefix(r.Path(), "/admin/datastore/") || r.Path() == "/backup" || r.Path() == "/reader" {
		return "tank"
	}
	return "empty"
}

// groupState is all that there is of a column's group.
func (l *rightsLab) groupState(column int) string {
	l.t.Helper()
	st, err := l.server.store("tank")
	if err != nil {
		l.t.Fatal(err)
	}
	g := rightsGroup(column)
	owner, err := st.Owner(g)
	if errors.Is(err, chunkstore.ErrNotExist) {
		return "gone"
	}
	notes, notesErr := st.GroupNotes(g)
	list, listErr := st.Snapshots(l.t.Context(), g)
	gone, goneErr := st.Deleted(l.t.Context())
	if err := errors.Join(err, notesErr, listErr, goneErr); err != nil {
		l.t.Fatal(err)
	}
	text := fmt.Sprintf("%s %q", owner, notes)
	for _, s := range list {
		text += fmt.Sprintf("; %s %q %v %+v %d %v", s.Snapshot, s.Notes, s.Protected, s.Verify, s.Size, s.Extra)
	}
	for _, d := range gone {
		if d.Snapshot.Group == g {
			text += fmt.Sprintf("; removed %s", d.Snapshot)
		}
	}
	return text
}

// settled waits for the end of a task that an answer names, if it names one.
func (l *rightsLab) settled(data any) {
	l.t.Helper()
	text, _ := data.(string)
	upid, err := wire.ParseUPID(text)
	if err != nil {
		return
	}
	for deadline := time.Now().Add(testWait); ; time.Sleep(time.Millisecond) {
		info, err := l.tasks.Status(upid)
		if err != nil || time.Now().After(deadline) {
			l.t.Fatalf("%s does not end: %v", upid, err)
		}
		if !info.Running {
			return
		}
	}
}
