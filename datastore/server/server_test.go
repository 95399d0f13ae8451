package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"holdfast/datastore"
	"holdfast/datastore/access"
	"holdfast/datastore/server/front"
	"holdfast/datastore/task"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/wiretest"
)

// The people of the tests. Each but root@pam has a token, whose secret is in
// lab.secrets.
const (
	admin  = "admin@pbs!tok"  // everything
	owner  = "owner@pbs!tok"  // Backup and Prune on tank, owns vm/100
	other  = "other@pbs!tok"  // the same, owns nothing
	audit  = "audit@pbs!tok"  // Audit everywhere
	put    = "put@pbs!tok"    // DatastorePutOnly on tank, owns vm/300
	nobody = "nobody@pbs!tok" // no rights at all
	deep   = "below@pbs!tok"  // Audit on tank's namespace a/b only
)

// testWait is how long a test waits for what must come: no bar for speed, the
// machine may be busy.
const testWait = time.Minute

// lab is a server with one datastore, on a TLS port.
type lab struct {
	t       *testing.T
	server  *Server
	access  *access.Store
	tasks   *task.Registry
	dir     string
	base    string // https://127.0.0.1:port
	client  *http.Client
	secrets map[string]string
}

func newLab(t *testing.T, o Options) *lab {
	t.Helper()
	l := labAt(t, o, t.TempDir())
	l.people()
	l.listen()
	return l
}

// labAt is a server on a directory, which may hold one already. It does not listen
// yet.
func labAt(t *testing.T, o Options, dir string) *lab {
	t.Helper()
	l := &lab{t: t, dir: dir, secrets: map[string]string{}}
	var err error
	if l.access, err = access.Open(filepath.Join(l.dir, "access.db"), access.Options{Patience: -1, PasswordMemory: cheapPassword}); err != nil {
		t.Fatal(err)
	}
	if l.tasks, err = task.Open(filepath.Join(l.dir, "tasks"), task.Options{Node: "pbs1"}); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(l.dir, "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	o.DataDir, o.Access, o.Tasks, o.Version = filepath.Join(l.dir, "data"), l.access, l.tasks, "1.2.3"
	if o.Limits.LoginDelay == 0 {
		o.Limits.LoginDelay, o.Limits.DenyDelay = -1, -1
	}
	if l.server, err = New(o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), testWait)
		defer cancel()
		if l.client != nil {
			l.client.CloseIdleConnections()
		}
		if err := l.server.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		l.access.Close()
	})
	return l
}

// people makes the users and their rights.
func (l *lab) people() {
	l.t.Helper()
	for id, acls := range map[string][]access.ACL{
		admin: {{Path: "/", Role: "Admin"}}, owner: {{Path: "/datastore/tank", Role: "DatastorePowerUser"}},
		other: {{Path: "/datastore/tank", Role: "DatastorePowerUser"}}, audit: {{Path: "/", Role: "Audit"}},
		put: {{Path: "/datastore/tank", Role: "DatastorePutOnly"}}, nobody: nil,
		deep: {{Path: "/datastore/tank/a/b", Role: "DatastoreAudit"}},
	} {
		user := wire.AuthID(id).User()
		if err := l.access.CreateUser(access.User{ID: user, Enabled: true}, ""); err != nil {
			l.t.Fatal(err)
		}
		secret, err := l.access.CreateToken(access.Token{ID: wire.AuthID(id), Enabled: true})
		if err != nil {
			l.t.Fatal(err)
		}
		l.secrets[id] = secret
		for _, a := range acls {
			for _, who := range []wire.AuthID{user, wire.AuthID(id)} {
				a.ID, a.Propagate = who, true
				if err := l.access.SetACL(a); err != nil {
					l.t.Fatal(err)
				}
			}
		}
	}
}

// listen begins to serve on a TLS port.
func (l *lab) listen() {
	l.t.Helper()
	cert, err := front.EnsureCertificate(filepath.Join(l.dir, "cert.pem"), filepath.Join(l.dir, "key.pem"), []string{"localhost", "127.0.0.1"})
	if err != nil {
		l.t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		l.t.Fatal(err)
	}
	go l.server.Serve(context.Background(), ln, cert.Config())
	l.base = "https://" + ln.Addr().String()
	l.client = &http.Client{
		Transport:     &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// store returns a datastore for writing. It stays open until the server ends or
// the datastore is removed.
func (s *Server) store(name string) (*datastore.Store, error) {
	o, err := s.use(name)
	if err != nil {
		return nil, err
	}
	defer o.release()
	return o.Store, nil
}

// tank makes the datastore tank and returns it.
func (l *lab) tank() *datastore.Store {
	l.t.Helper()
	path := filepath.Join(l.dir, "tank")
	if err := datastore.Create(path, datastore.CreateOptions{TrashDays: datastore.TrashDaysDefault}); err != nil {
		l.t.Fatal(err)
	}
	if err := l.access.AddDatastore(access.Datastore{Name: "tank", Path: path, Comment: "main"}); err != nil {
		l.t.Fatal(err)
	}
	st, err := l.server.store("tank")
	if err != nil {
		l.t.Fatal(err)
	}
	return st
}

// filled is tank with vm/100 of owner (times 1000, 2000), vm/200 of root@pam
// (1000), vm/300 of put (1000) and, in namespace a/b, ct/1 of admin (1000).
func (l *lab) filled() *datastore.Store {
	l.t.Helper()
	st := l.tank()
	for _, ns := range []wire.Namespace{"a", "a/b"} {
		if err := st.CreateNamespace(l.t.Context(), ns); err != nil {
			l.t.Fatal(err)
		}
	}
	for _, s := range []struct {
		group wire.Group
		owner wire.AuthID
		times []int64
	}{
		{wire.Group{Type: "vm", ID: "100"}, owner, []int64{1000, 2000}},
		{wire.Group{Type: "vm", ID: "200"}, wire.RootUser, []int64{1000}},
		{wire.Group{Type: "vm", ID: "300"}, put, []int64{1000}},
		{wire.Group{NS: "a/b", Type: "ct", ID: "1"}, admin, []int64{1000}},
	} {
		for _, at := range s.times {
			wiretest.Store(l.t, st, wiretest.Content{Snapshot: wire.Snapshot{Group: s.group, Time: at}, Chunks: []string{"hello ", "world"}})
		}
		if err := st.SetOwner(l.t.Context(), s.group, s.owner); err != nil {
			l.t.Fatal(err)
		}
	}
	return st
}

// reply is an answer to a test.
type reply struct {
	code   int
	header http.Header
	text   string
	body   map[string]any // if it is JSON
	last   bool           // the server closes the connection
}

// request sends a request as it is; who is "" for nobody.
func (l *lab) request(who, verb, target string, body io.Reader, header http.Header) reply {
	l.t.Helper()
	r, err := http.NewRequest(verb, l.base+target, body)
	if err != nil {
		l.t.Fatal(err)
	}
	for k, v := range header {
		r.Header[k] = v
	}
	if who != "" {
		r.Header.Set("Authorization", "PBSAPIToken="+who+":"+l.secrets[who])
	}
	return l.send(r)
}

func (l *lab) send(r *http.Request) reply {
	l.t.Helper()
	resp, err := l.client.Do(r)
	if err != nil {
		l.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		l.t.Fatal(err)
	}
	a := reply{code: resp.StatusCode, header: resp.Header, text: string(raw), last: resp.Close}
	_ = json.Unmarshal(raw, &a.body)
	return a
}

// call sends parameters the way most clients do: in the query, or as a form for
// POST and PUT. path is relative to /api2/json; params are "a=b&c=d".
func (l *lab) call(who, verb, path, params string) reply {
	l.t.Helper()
	if verb == http.MethodPost || verb == http.MethodPut {
		return l.request(who, verb, "/api2/json"+path, strings.NewReader(params),
			http.Header{"Content-Type": {"application/x-www-form-urlencoded"}})
	}
	return l.request(who, verb, "/api2/json"+path+"?"+params, nil, nil)
}

// ok is call for what must succeed; it returns "data".
func (l *lab) ok(who, verb, path, params string) any {
	l.t.Helper()
	a := l.call(who, verb, path, params)
	data, has := a.body["data"]
	if a.code != http.StatusOK || !has {
		l.t.Fatalf("%s %s %s as %s: %d %s", verb, path, params, who, a.code, a.text)
	}
	return data
}

// want checks a status and a part of the text.
func (l *lab) want(a reply, code int, text string) {
	l.t.Helper()
	if a.code != code || !strings.Contains(a.text, text) {
		l.t.Errorf("answer %d %q, want %d with %q", a.code, a.text, code, text)
	}
}

// column picks one member of every element of a list.
func column(list any, name string) (out []any) {
	for _, e := range list.([]any) {
		out = append(out, e.(map[string]any)[name])
	}
	return out
}

// wait follows a task to its end and returns the exit status.
func (l *lab) wait(upid any) string {
	l.t.Helper()
	for deadline := time.Now().Add(testWait); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		s := l.ok(admin, "GET", "/nodes/localhost/tasks/"+url.PathEscape(upid.(string))+"/status", "").(map[string]any)
		if s["status"] == "stopped" {
			return s["exitstatus"].(string)
		}
	}
	l.t.Fatal("the task does not end")
	return ""
}

func TestRequestLine(t *testing.T) {
	l := newLab(t, Options{})
	for _, tc := range []struct {
		who, verb, target string
		code              int
		text              string
	}{
		{"", "GET", "/api2/json/ping", 200, `{"data":{"pong":true}}`},
		{"", "GET", "//api2///json/ping/", 200, `{"data":{"pong":true}}`},
		{"", "GET", "/api2/json/ping?", 200, `pong`},
		{"", "GET", "/api2/json/ping?_dc=17", 200, `pong`},
		{"", "GET", "/api2/json/p%69ng", 200, `pong`},
		{"", "GET", "/api2/json/ping?a=b", 400, "parameter verification failed - 'a': schema does not allow additional properties."},
		{"", "GET", "/api2/xml/ping", 400, "nsupported output format"},
		{"", "GET", "/api2/json/version", 401, "authentication failed"},
		{"", "GET", "/api2/json/no/such", 401, "authentication failed"},
		{nobody, "GET", "/api2/json/no/such", 404, "Path '/no/such' not found."},
		{nobody, "POST", "/api2/json/version", 404, "not found"},
		{nobody, "HEAD", "/api2/json/version", 404, ""},
		{nobody, "GET", "/api2/json/.hidden", 400, "begins with"},
		{nobody, "GET", "/api2/json/admin/%2e%2e/version", 400, "begins with"},
		{nobody, "GET", "/api2/json/access", 200, `"subdir":"acl"`},
		{nobody, "GET", "/api2/json/", 200, `"subdir":"version"`},
		{"", "GET", "/", 404, "not found"},
		{"", "GET", "/api2/json/ping?" + strings.Repeat("a", wire.URIMax), 414, ""},
		{nobody, "GET", "/api2/extjs/version", 200, `"success":1`},
		{nobody, "GET", "/api2/extjs/version?x=1", 200, `"errors":{"x":`},
		{"", "GET", "/api2/extjs/version", 401, "authentication failed"},
		{nobody, "GET", "/api2/json/admin/datastore/a/status", 400, "'store': want 3 to 32"},
		{nobody, "GET", "/api2/json/admin/datastore/%00%0a%22/status", 400, `'store'`},
		{nobody, "GET", "/api2/json/admin/datastore/tank/status?store=tank", 400, "'store': duplicate parameter."},
		{"", "GET", "/healthz", 200, "ok"},
	} {
		a := l.request(tc.who, tc.verb, tc.target, nil, nil)
		l.want(a, tc.code, tc.text)
		if a.header.Get("Request-Id") == "" {
			t.Errorf("%s: no request id", tc.target)
		}
		if tc.code == http.StatusRequestURITooLong && a.text != "" {
			t.Errorf("414 with a body: %q", a.text)
		}
	}
}

func TestBodies(t *testing.T) {
	l := newLab(t, Options{})
	const target = "/api2/json/access/quota"
	form, js := "application/x-www-form-urlencoded", "application/json"
	for name, tc := range map[string]struct {
		kind, query, body string
		code              int
		text              string
	}{
		"form":                  {form, "", "subject=root@pam&bytes-max=1", 200, `"bytes-max":1}`},
		"form without type":     {"", "", "subject=root@pam&bytes-max=2", 200, `"bytes-max":2}`},
		"query and form":        {form, "?subject=root@pam", "bytes-max=5", 200, `"bytes-max":5}`},
		"in both":               {form, "?subject=root@pam", "subject=root@pam", 400, "'subject': duplicate parameter."},
		"twice":                 {form, "", "subject=root@pam&subject=root@pam", 400, "duplicate"},
		"_dc in a form":         {form, "", "subject=root@pam&_dc=1", 400, "'_dc'"},
		"malformed form":        {form, "", "subject=%zz", 400, "malformed"},
		"JSON":                  {js + ";charset=utf-8", "", `{"subject":"root@pam","bytes-max":7}`, 200, `"bytes-max":7}`},
		"JSON hides the query":  {js, "?x=1", `{"subject":"root@pam","bytes-max":8}`, 200, `"bytes-max":8}`},
		"empty JSON":            {js, "", "", 400, "'subject': property is missing and it is not optional"},
		"JSON text for int":     {js, "", `{"subject":"root@pam","bytes-max":"7"}`, 400, "'bytes-max'"},
		"JSON null":             {js, "", `{"subject":null}`, 400, "'subject'"},
		"JSON fraction":         {js, "", `{"subject":"root@pam","bytes-max":1.5}`, 400, "'bytes-max'"},
		"JSON twice":            {js, "", `{"subject":"root@pam","subject":"root@pam"}`, 400, "duplicate"},
		"JSON unknown":          {js, "", `{"subject":"root@pam","x":{"y":[1]}}`, 400, "'x': schema does not allow additional properties"},
		"JSON array":            {js, "", `[1]`, 400, "JSON object"},
		"JSON cut off":          {js, "", `{"subject":"root@pam"`, 400, "JSON object"},
		"JSON and more":         {js, "", `{"subject":"root@pam"} x`, 400, "JSON object"},
		"JSON deep":             {js, "", strings.Repeat(`{"a":`, 20000), 400, "JSON object"},
		"several faults":        {form, "", "a=1&b=2", 400, "parameter verification failed:\n- 'a': schema does not allow additional properties.\n- 'b'"},
		"missing":               {form, "", "", 400, "parameter verification failed - 'subject': parameter is missing and it is not optional."},
		"other type":            {"text/xml", "", "x", 400, "content type"},
		"negative":              {form, "", "subject=root@pam&bytes-max=-1", 400, "'bytes-max': want 0"},
		"control character":     {form, "", "subject=a%0ab", 400, "'subject'"},
		"body too large":        {form, "", "subject=" + strings.Repeat("x", wire.ParamBodyMax), 400, "too large"},
		"not a number":          {form, "", "subject=root@pam&bytes-max=x", 400, "invalid integer"},
		"not a boolean":         {form, "", "subject=root@pam&snapshots-per-day=true", 400, "invalid integer"},
		"more than 64 bit":      {form, "", "subject=root@pam&bytes-max=99999999999999999999", 400, "invalid integer"},
		"an unknown long name":  {form, "", strings.Repeat("n", 5000) + "=1", 400, "…"},
		"hundreds of unknowns":  {form, "", manyParams(400), 400, "parameter verification failed:"},
		"other user's missing":  {form, "", "subject=no@such", 400, ""},
		"JSON with dup unknown": {js, "", `{"x":1,"x":2}`, 400, "'x'"},
	} {
		a := l.request(admin, "PUT", target+tc.query, strings.NewReader(tc.body), http.Header{"Content-Type": {tc.kind}})
		if a.code != tc.code || !strings.Contains(a.text, tc.text) {
			t.Errorf("%s: %d %.300q, want %d with %q", name, a.code, a.text, tc.code, tc.text)
		}
		if len(a.text) > 8<<10 {
			t.Errorf("%s: an answer of %d bytes", name, len(a.text))
		}
	}
	// Without a length the limit must hold as well.
	a := l.request(admin, "PUT", target, struct{ io.Reader }{bytes.NewReader(make([]byte, 2*wire.ParamBodyMax))}, nil)
	l.want(a, 400, "too large")
}

func manyParams(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString("&x" + strings.Repeat("y", i) + "=1")
	}
	return b.String()
}

func TestShutdownRefuses(t *testing.T) {
	l := newLab(t, Options{})
	l.filled()
	if err := l.server.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	w := newMemoryWriter()
	r, _ := http.NewRequestWithContext(WithIdentity(t.Context(), wire.RootUser), "GET", "/healthz", nil)
	l.server.Handler().ServeHTTP(w, r)
	if w.code != http.StatusServiceUnavailable {
		t.Errorf("healthz: %d", w.code)
	}
	r, _ = http.NewRequestWithContext(WithIdentity(t.Context(), wire.RootUser), "GET", "/api2/json/admin/datastore/tank/groups", nil)
	r.RequestURI = r.URL.RequestURI()
	w = newMemoryWriter()
	l.server.Handler().ServeHTTP(w, r)
	if w.code != http.StatusServiceUnavailable {
		t.Errorf("groups: %d %s", w.code, w.body.String())
	}
}

// memoryWriter is a ResponseWriter without a connection.
type memoryWriter struct {
	header http.Header
	code   int
	body   bytes.Buffer
}

func newMemoryWriter() *memoryWriter { return &memoryWriter{header: http.Header{}} }

func (w *memoryWriter) Header() http.Header  { return w.header }
func (w *memoryWriter) WriteHeader(code int) { w.code = code }
func (w *memoryWriter) Write(p []byte) (int, error) {
	if w.code == 0 {
		w.code = http.StatusOK
	}
	return w.body.Write(p)
}

// What a stranger makes up fills no log: a long path, or a long name of a method, is cut.
func TestLogsAreShort(t *testing.T) {
	var log bytes.Buffer
	l := newLab(t, Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	log.Reset()
	long := strings.Repeat("x", 20_000)
	r, err := http.NewRequestWithContext(t.Context(), "GET"+long, "/"+long, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	r.RequestURI = r.URL.RequestURI()
	l.server.Handler().ServeHTTP(newMemoryWriter(), r)
	if n := log.Len(); n == 0 || n > 2000 {
		t.Errorf("%d bytes were logged", n)
	}
}
