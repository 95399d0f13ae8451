package server

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"holdfast/datastore/access"
	"holdfast/datastore/manifest"
	"holdfast/datastore/server/budget"
	"holdfast/datastore/server/ledger"
	"holdfast/datastore/task"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
)

// resourcesOf gives all that callers take from, by name.
func resourcesOf(a *budget.Accounts) map[string]*ledger.Resource {
	all := make(map[string]*ledger.Resource)
	v := reflect.ValueOf(a).Elem()
	for i := range v.NumField() {
		if r, ok := reflect.NewAt(v.Field(i).Type(), v.Field(i).Addr().UnsafePointer()).Elem().Interface().(*ledger.Resource); ok {
			name := v.Type().Field(i).Name
			all[strings.ToLower(name[:1])+name[1:]] = r
		}
	}
	return all
}

// greed is one caller who takes all it can of everything.
type greed struct {
	*sessionLab
	auth   wire.AuthID // "" for a stranger
	rights bool        // to back up
	payers []ledger.Payer

	client *http.Client
	held   []*ledger.Hold
	conns  []net.Conn
	over   chan struct{} // closed when it is to stop
	all    sync.WaitGroup
}

// greedyRow is what one caller can take of a row of the table in docs/server.md: of
// these resources of the ledger, or by these requests.
type greedyRow struct {
	title     string
	resources []string
	take      func(*greed)
}

// greedyRows are in the order in which they are taken: what others need comes last.
func greedyRows() []greedyRow {
	return []greedyRow{
		{title: "manifests being taken apart", take: (*greed).unfold},
		{title: "bytes on the disk, with a quota", take: (*greed).fill},
		{title: "garbage that a session keeps from a collection", take: (*greed).idle},
		{title: "groups and lists that interrupted sessions leave", take: (*greed).breakOff},
		{title: "access rules and tokens that a user makes for itself", take: (*greed).rules},
		{title: "small files of a snapshot", take: (*greed).smallFiles},
		{title: "task records and logs", take: (*greed).records},
		{title: "connections, before login", take: (*greed).standAround},
		{title: "connections, after login", take: (*greed).stay},
		{title: "requests and sessions at once", resources: []string{"requests"}},
		{title: "streams of sessions", resources: []string{"streams"}},
		{title: "what arrives and is not read", resources: []string{"windows"}},
		{title: "bodies with parameters, as they come", resources: []string{"small"}},
		{title: "lists of entries being taken apart", resources: []string{"lists"}},
		{title: "uploads in memory, downloads in memory", resources: []string{"incoming", "arrived", "outgoing"}},
		{title: "uploads and downloads in files", resources: []string{"spooled", "kept"}},
		{title: "references that sessions remember, 24 bytes each", resources: []string{"known"}},
		{title: "files that sessions and transfers keep open", resources: []string{"files"}},
		{title: "chunks being checked", resources: []string{"unpacking"}},
		{title: "places for transfers over REST", resources: []string{"heavy"}},
		{title: "tasks, running and waiting, but for sessions", resources: []string{"jobs", "verifyNew"}},
		{title: "verifications that run", resources: []string{"verifying"}},
		{title: "manifests being taken apart", take: (*greed).read},
	}
}

// elsewhere connects from another address than that of the honest.
func (g *greed) elsewhere(ctx context.Context, _, addr string) (net.Conn, error) {
	d := tls.Dialer{NetDialer: &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}, Config: &tls.Config{InsecureSkipVerify: true}}
	return d.DialContext(ctx, "tcp", addr)
}

const greedyConnections = 64

// standAround opens connections and begins a request on each that it never ends.
func (g *greed) standAround() {
	for range 2 * greedyConnections {
		if c, err := g.elsewhere(g.t.Context(), "", g.addr); err == nil { // else the house is full
			g.conns = append(g.conns, c)
			_, _ = fmt.Fprint(c, "GET /api2/json/version HTTP/1.1\r\n")
		}
	}
}

// stay opens connections that have logged in.
func (g *greed) stay() {
	if g.auth == "" {
		return
	}
	for range greedyConnections {
		if c, err := g.elsewhere(g.t.Context(), "", g.addr); err == nil {
			g.conns = append(g.conns, c)
			_, _ = fmt.Fprintf(c, "GET /api2/json/version HTTP/1.1\r\nAuthorization: %s\r\n\r\n", g.tokens[g.name()])
			_, _ = c.Read(make([]byte, 1)) // or it is refused
		}
	}
}

func (g *greed) name() string { name, _, _ := strings.Cut(string(g.auth), "@"); return name }

// unfold has a manifest that is large when it is unpacked read again and again.
func (g *greed) unfold() {
	if !g.rights {
		return // no request of theirs comes as far as to a manifest
	}
	k := g.begin(backupOf(g.name(), "host/unfold", 1000))
	m := manifest.Manifest{Type: "host", ID: "unfold", Time: 1000,
		Unprotected: map[string]json.RawMessage{"x": json.RawMessage("[" + strings.Repeat("1,", 30000) + "1]")}}
	raw, err := m.Blob()
	g.must(err)
	k.data(blobUpload(wire.ManifestName, raw))
	k.data(post("/finish"))
	k.conn.Close()
	for range 4 {
		g.all.Go(func() {
			for {
				select {
				case <-g.over:
					return
				default:
				}
				r, _ := http.NewRequest(http.MethodGet, "https://"+g.addr+"/api2/json/admin/datastore/tank/snapshots", nil)
				r.Header.Set("Authorization", g.tokens[g.name()])
				if a, err := g.client.Do(r); err == nil {
					_, _ = io.Copy(io.Discard, a.Body)
					a.Body.Close()
				}
			}
		})
	}
}

// read has all turns to read manifests.
func (g *greed) read() {
	o, err := g.server.use("tank")
	g.must(err)
	defer o.release()
	g.hog(o.turns.Reading)
}

// fill sends what its quota has room for.
func (g *greed) fill() {
	if !g.rights {
		return
	}
	g.must(g.access.SetQuota(access.Quota{Subject: string(g.auth), BytesMax: 8 << 20}))
	k := g.begin(backupOf(g.name(), "host/fill", 1000))
	defer k.conn.Close()
	k.data(post("/dynamic_index", "archive-name", "a.didx"))
	for i := range 32 {
		if code, _, err := k.send(g.t.Context(), chunkUpload("dynamic", 1, g.bitOf(byte(i), 1<<20))); err != nil || code != http.StatusOK {
			if code != http.StatusInsufficientStorage {
				g.t.Errorf("a full quota: %d, %v", code, err)
			}
			return
		}
	}
	g.t.Error("a quota has no end")
}

// smallFiles sends small files until a snapshot takes no more.
func (g *greed) smallFiles() {
	if !g.rights {
		return
	}
	k := g.begin(backupOf(g.name(), "host/files", 1000))
	defer k.conn.Close()
	for i := range api.BlobsMax {
		k.data(blobUpload(fmt.Sprint("f", i, ".blob"), g.blobOf("tiny")))
	}
	k.refuses(blobUpload("more.blob", g.blobOf("tiny")), 400, "small files")
	k.data(blobUpload("f0.blob", g.blobOf("other"))) // it is there already
}

// idle opens a session, sends something and says nothing more.
func (g *greed) idle() {
	if !g.rights {
		return
	}
	g.must(g.access.RemoveQuota(string(g.auth)))
	k := g.begin(backupOf(g.name(), "host/idle", 1000))
	k.data(post("/dynamic_index", "archive-name", "a.didx"))
	k.data(chunkUpload("dynamic", 1, g.bitOf(100, 1<<20)))
	g.conns = append(g.conns, k.conn)
}

// breakOff begins groups and leaves, with nothing and with a chunk.
func (g *greed) breakOff() {
	if !g.rights {
		return
	}
	for i := range 40 {
		k := g.begin(backupOf(g.name(), fmt.Sprint("vm/broken", i), 1000))
		if i%2 == 0 {
			k.data(post("/dynamic_index", "archive-name", "a.didx"))
			k.data(chunkUpload("dynamic", 1, g.bitOf(101, 1000)))
		}
		k.conn.Close()
	}
}

// as asks in process, as a user who is logged in.
func (l *sessionLab) as(id wire.AuthID, verb, path string, v url.Values) int {
	l.t.Helper()
	r, err := http.NewRequestWithContext(WithIdentity(l.t.Context(), id), verb, "/api2/json"+path, strings.NewReader(v.Encode()))
	l.must(err)
	r.RequestURI = r.URL.RequestURI()
	w := newMemoryWriter()
	l.server.Handler().ServeHTTP(w, r)
	return w.code
}

// rules makes tokens, and access rules for one of them, until it may not.
func (g *greed) rules() {
	if g.auth == "" {
		return
	}
	user := g.auth.User()
	more := map[string]func(i int) int{
		"tokens": func(i int) int {
			return g.as(user, "POST", "/access/users/"+string(user)+"/token/"+fmt.Sprint("t", i), nil)
		},
		"rules": func(i int) int {
			return g.as(user, "PUT", "/access/acl", vals("path", fmt.Sprint("/datastore/tank/n", i), "role", "NoAccess", "auth-id", g.auth))
		},
	}
	for what, one := range more {
		i, code := 0, http.StatusOK
		for ; code == http.StatusOK && i <= 2*ownRowsMax; i++ {
			code = one(i)
		}
		if code != http.StatusTooManyRequests {
			g.t.Errorf("%d %s were made, then %d", i, what, code)
		}
	}
	if code := g.as(wire.RootUser, "PUT", "/access/acl", vals("path", "/datastore/tank", "role", "Audit", "auth-id", "alice@pbs")); code != http.StatusOK {
		g.t.Errorf("the administrator makes a rule: %d", code)
	}
}

// records makes tasks that end at once.
func (g *greed) records() {
	if g.auth == "" {
		return
	}
	for range 50 {
		one, err := g.tasks.Begin(g.t.Context(), task.Spec{Type: "verify", ID: "tank", Auth: g.auth})
		g.must(err)
		one.Logf("%s", strings.Repeat("x", 1000))
		one.End(nil)
	}
}

// hog takes all of a resource that the caller can, in all its names.
func (g *greed) hog(r *ledger.Resource) {
	g.t.Helper()
	taken := int64(0)
	for _, p := range g.payers {
		if n := r.Left(p); n > 0 {
			h, err := r.Try(p, n)
			g.must(err)
			g.held, taken = append(g.held, h), taken+n
		}
		if _, err := r.Try(p, 1); !errors.Is(err, ledger.ErrShare) && !errors.Is(err, ledger.ErrFull) {
			g.t.Errorf("%s: one more: %v", r.Limit().Name, err)
		}
	}
	if most := r.Limit().Total - r.Limit().Kept; taken >= r.Limit().Total || taken > most {
		g.t.Errorf("%s: one caller has %d of %d", r.Limit().Name, taken, r.Limit().Total)
	}
	if left := r.Left(ledger.Payer{Account: "root@pam", Admin: true}); left < 1 {
		g.t.Errorf("%s: nothing is left for the administrator", r.Limit().Name)
	}
}

// resourceTable are the first words of the rows in docs/server.md.
func resourceTable(t *testing.T) (titles []string) {
	t.Helper()
	page, err := os.ReadFile("../../docs/server.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "| resource | limit | who pays |")
	table, _, _ := strings.Cut(rest, "\n\n")
	for _, line := range strings.Split(table, "\n")[2:] {
		titles = append(titles, strings.TrimSpace(strings.Split(line, "|")[1]))
	}
	return titles
}

// Every row of the table of resources is walked by TestOneCallerTakesAllItCan, and every
// resource of the ledger is in a row.
func TestEveryResourceIsWalked(t *testing.T) {
	var walked, met []string
	for _, row := range greedyRows() {
		walked, met = append(walked, row.title), append(met, row.resources...)
	}
	titles := resourceTable(t)
	for _, title := range titles {
		if !slices.Contains(walked, title) {
			t.Errorf("docs/server.md has %q, which nobody takes: give it a row in greedyRows", title)
		}
	}
	for _, title := range walked {
		if !slices.Contains(titles, title) {
			t.Errorf("docs/server.md does not tell of %q", title)
		}
	}
	for name := range resourcesOf(budget.NewAccounts(budget.Limits{}.WithDefaults())) {
		if !slices.Contains(met, name) {
			t.Errorf("the resource %q of the ledger is in no row", name)
		}
	}
}

// Of everything that can be taken one caller takes all it can, and ten others still log
// in, back up and restore while it holds that; the administrator has a part of what is
// there after all of them.
func TestOneCallerTakesAllItCan(t *testing.T) {
	var names []ledger.Payer
	for i := range 8 {
		names = append(names, ledger.Payer{Account: fmt.Sprint("mallory@pbs!t", i), Holder: "mallory@pbs"})
	}
	for name, caller := range map[string]struct {
		auth   wire.AuthID
		role   string
		payers []ledger.Payer
	}{
		"before login":   {payers: []ledger.Payer{{Account: "127.0.0.2/32"}}},
		"with tokens":    {"mallory@pbs!key", "DatastorePowerUser", names},
		"without rights": {"mallory@pbs!key", "", names},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLimitedLab(t, budget.Limits{LoginDelay: -1, DenyDelay: -1, Connections: greedyConnections})
			others := l.others(10)
			g := &greed{sessionLab: l, auth: caller.auth, rights: caller.role != "", payers: caller.payers, over: make(chan struct{})}
			g.client = &http.Client{Transport: &http.Transport{DialTLSContext: g.elsewhere}}
			l.user("mallory", caller.role)
			all := resourcesOf(l.server.accounts)
			for _, row := range greedyRows() {
				if row.take != nil {
					row.take(g)
				}
				for _, r := range row.resources {
					g.hog(all[r])
				}
			}
			for i, user := range others {
				l.honest(user, fmt.Sprint("vm/", 1000+i))
			}
			close(g.over)
			g.all.Wait()
			for _, h := range g.held {
				h.Free()
			}
			for _, c := range g.conns {
				c.Close()
			}
		})
	}
}

// others are users who may back up, each with a password.
func (l *sessionLab) others(n int) (names []string) {
	l.t.Helper()
	for i := range n {
		name := fmt.Sprint("u", i)
		l.user(name, "DatastoreBackup")
		l.must(l.access.SetPassword(wire.AuthID(name+"@pbs"), selfPassword))
		names = append(names, name)
	}
	return names
}

// honest logs in, backs up and restores.
func (l *sessionLab) honest(user, group string) {
	l.t.Helper()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	defer client.CloseIdleConnections()
	a, err := client.PostForm("https://"+l.addr+"/api2/json/access/ticket", vals("username", user+"@pbs", "password", selfPassword))
	l.must(err)
	a.Body.Close()
	if a.StatusCode != http.StatusOK {
		l.t.Errorf("%s logs in: %d", user, a.StatusCode)
	}
	list := l.simple(user, group, 1000)
	k := l.begin(readerOf(user, group, 1000))
	defer k.conn.Close()
	k.raw(get("/download", "file-name", "disk.img.didx"))
	k.raw(get("/chunk", "digest", list[0].bit.id))
}
