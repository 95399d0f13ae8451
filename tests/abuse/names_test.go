package abuse

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"holdfast/tests/harness"
)

// canary is what lies in files that no name may reach.
const canary = "the canary that nobody may read"

// hostileNames are what a name may not be, and some that are merely odd.
func hostileNames(w *world) []string {
	var all []string
	add := func(list ...string) { all = append(all, list...) }
	targets := []string{"canary.txt", "canary", "access.db", "holdfast.json", "etc/passwd", "home/.ssh/authorized_keys"}
	for depth := range 5 {
		for _, up := range []string{"../", "..\\", "%2e%2e%2f", "..%2f", "%252e%252e%252f", "..%c0%af", "..%ef%bc%8f", "....//", ".././", "..;/", "．．／", "..∕"} {
			add(strings.Repeat(up, depth+1) + targets[depth%len(targets)])
		}
	}
	for _, path := range []string{filepath.Join(w.dir, "canary.txt"), filepath.Join(w.dir, "made"), filepath.Join(w.data, "access.db"), "/etc/passwd", "/proc/self/environ", "/dev/null", "/dev/zero", "/"} {
		add(path, "/"+path, "file://"+path, "a/../../../../../.."+path, strings.ReplaceAll(path, "/", "\\"), path+"\x00.blob", path+"/.")
	}
	add("", ".", "..", "...", "../", "./", "..\\", "/..", "a/..", "a/.", "a/b", "a//b", "a\\b", "/a", "a/", "./a", ".a", "..a", ".hidden", ".tmp", ".trash", ".lock", ".owner", "~", "~root", "~/x")
	add("owner", "ns", "vm", "ct", "host", "notes", "index.json.blob", "client.log.blob", "holdfast.json", "reserve", "clock", "catalogue", "packs", "lock", "LOCK", "tmp", "x.tmp", "x.tmp_didx", ".chunks")
	for b := range 33 {
		add("a" + string(rune(b)) + "b"[:b%2])
	}
	for _, c := range "\x7f\"'`$&|;<>(){}[]*?!#%^=~,:@+ \t" {
		add("a" + string(c) + "b")
	}
	add("\xff\xfe", "a\xffb", "\xc0\xae\xc0\xae\xc0\xaf", "\xed\xa0\x80", "\u202egnp.exe", "a\u200bb", "\ufeffa", "é", "e\u0301", "K", "İ", "ß", "ﬁ", "💾", "\u2028", "\u0000", "a\u0085b")
	add("CON", "NUL", "COM1", "con.txt", "a.", "a ", "a::$DATA", "C:\\x", "\\\\server\\share", "LPT1.blob")
	add("-rf", "--data", "-", "--", "$(touch made)", "`touch made`", ";touch made", "|touch made", "%s%s%s%n", "%x", "{{7*7}}", "${jndi:ldap://x}", "<script>", "' OR 1=1 --", "a\r\nSet-Cookie: x=y", "a\r\n\r\nHTTP/1.1 200 OK")
	for _, n := range []int{32, 33, 64, 65, 128, 200, 201, 252, 255, 256, 257, 1000, 2500} {
		add(strings.Repeat("a", n), strings.Repeat("a/", n/2), strings.Repeat("../", n/3))
	}
	add("null", "true", "undefined", "0", "-1", "1e9", "[]", "{}", "[\"a\"]", "localhost", "root@pam", "root@pam!admin", "root@pam!", "!t", "@pbs", "a@", "a@pbs@pbs", "a@pbs!t!t", "a@evil", "../a@pbs", "a@../pbs", "a@pbs!../t")
	add("a/a/a/a/a/a/a/a/a", "a/../b", "a/./b", "a/\x00/b", "a/ /b", "a/-/b")
	slices.Sort(all)
	return slices.Compact(all)
}

// here marks where a name goes, in a path or as the value of a parameter.
const here = "@here@"

// place is a method that takes a name.
type place struct {
	method, path string
	kv           []string
}

// places are all that take names.
func places() []place {
	const base = "/admin/datastore/" + store
	group := func(kind, id, ns string, more ...string) []string {
		return append([]string{"backup-type", kind, "backup-id", id, "ns", ns}, more...)
	}
	var all []place
	add := func(method, path string, kv ...string) { all = append(all, place{method, path, kv}) }
	// Where a group goes, each of its parts may be the hostile one.
	groups := func(method, path string, more ...string) {
		add(method, path, group(here, "a", "", more...)...)
		add(method, path, group("vm", here, "", more...)...)
		add(method, path, group("vm", "a", here, more...)...)
	}
	when := func(more ...string) []string { return append([]string{"backup-time", "1"}, more...) }
	for _, m := range []struct{ method, path string }{{"GET", "/files"}, {"GET", "/notes"}, {"GET", "/protected"}, {"DELETE", "/snapshots"}} {
		groups(m.method, base+m.path, when()...)
	}
	groups("PUT", base+"/notes", when("notes", "x")...)
	groups("PUT", base+"/protected", when("protected", "1")...)
	groups("GET", base+"/group-notes")
	groups("PUT", base+"/group-notes", "notes", "x")
	groups("DELETE", base+"/groups")
	groups("GET", base+"/snapshots")
	groups("POST", base+"/prune", "keep-last", "1")
	groups("POST", base+"/verify")
	groups("POST", base+"/change-owner", "new-owner", "alice@pbs")
	groups("GET", base+"/download", when("file-name", "a.blob")...)
	groups("GET", base+"/download-decoded", when("file-name", "a.blob")...)
	groups("POST", base+"/upload-backup-log", when()...)
	for _, file := range []string{here, here + ".blob", here + ".didx", here + ".fidx"} {
		add("GET", base+"/download", group("host", "honest", "", "backup-time", fmt.Sprint(began), "file-name", file)...)
		add("GET", base+"/download-decoded", group("host", "honest", "", "backup-time", fmt.Sprint(began), "file-name", file)...)
	}
	add("POST", base+"/change-owner", group("host", "honest", "", "new-owner", here)...)
	add("GET", base+"/groups", "ns", here)
	add("GET", base+"/namespace", "parent", here)
	add("POST", base+"/namespace", "name", here)
	add("POST", base+"/namespace", "name", "a", "parent", here)
	add("DELETE", base+"/namespace", "ns", here, "delete-groups", "1")
	add("POST", base+"/prune-datastore", "ns", here, "keep-last", "1")
	for _, path := range []string{"/status", "/groups", "/snapshots", "/namespace", "/gc", "/active-operations"} {
		add("GET", "/admin/datastore/"+here+path)
	}
	for _, path := range []string{"/gc", "/verify"} {
		add("POST", "/admin/datastore/"+here+path)
	}
	for _, method := range []string{"GET", "PUT", "DELETE"} {
		add(method, "/config/datastore/"+here)
		add(method, "/access/users/"+here)
		add(method, "/access/users/alice@pbs/token/"+here)
	}
	add("POST", "/config/datastore", "name", here)
	add("POST", "/access/users", "userid", here, "password", password)
	add("POST", "/access/users/bob@pbs/token/"+here)
	add("PUT", "/access/password", "userid", here, "password", password)
	add("PUT", "/access/acl", "path", here, "role", "DatastoreReader", "auth-id", "bob@pbs")
	add("PUT", "/access/acl", "path", "/datastore/"+here, "role", "DatastoreReader", "auth-id", "bob@pbs")
	add("PUT", "/access/acl", "path", "/datastore/"+store, "role", here, "auth-id", "bob@pbs")
	add("PUT", "/access/acl", "path", "/datastore/"+store, "role", "DatastoreReader", "auth-id", here)
	add("GET", "/access/permissions", "path", here)
	add("GET", "/access/permissions", "auth-id", here)
	add("PUT", "/access/quota", "subject", here, "bytes-max", "1000000000000")
	for _, path := range []string{"/status", "/tasks", "/identity"} {
		add("GET", "/nodes/"+here+path)
	}
	for _, upid := range []string{here, "UPID:localhost:00000001:00000001:00000001:65000000:backup:" + here + ":root@pam:", "UPID:localhost:00000001:00000001:00000001:65000000:" + here + "::root@pam:",
		"UPID:" + here + ":00000001:00000001:00000001:65000000:backup::root@pam:", "UPID:localhost:00000001:00000001:00000001:65000000:backup::" + here + ":"} {
		for _, path := range []string{"/status", "/log", ""} {
			add("GET", "/nodes/localhost/tasks/"+upid+path)
		}
		add("DELETE", "/nodes/localhost/tasks/"+upid)
	}
	add("GET", "/nodes/localhost/tasks", "store", here)
	add("GET", "/nodes/localhost/tasks", "userfilter", here, "typefilter", here)
	add("GET", "/backup", group(here, "a", "", "backup-time", "1", "store", store)...)
	add("GET", "/backup", group("vm", here, "", "backup-time", "1", "store", store)...)
	add("GET", "/backup", group("vm", "a", here, "backup-time", "1", "store", store)...)
	add("GET", "/backup", group("vm", "a", "", "backup-time", "1", "store", here)...)
	add("GET", "/reader", group("vm", here, "", "backup-time", "1", "store", store)...)
	add("GET", "/reader", group("vm", "a", here, "backup-time", "1", "store", store)...)
	add("GET", "/reader", group("vm", "a", "", "backup-time", "1", "store", here)...)
	return all
}

// with is a request for a name at the place, in the query.
func (p place) with(name string, as identity) []byte {
	text := head(as, p.method, strings.ReplaceAll(p.path, here, escapePath(name)), p.values(name)...)
	for path, protocol := range map[string]string{"/backup": backupProtocol, "/reader": readerProtocol} {
		if p.path == path {
			text += "Connection: upgrade\r\nUpgrade: " + protocol + "\r\n"
		}
	}
	return []byte(text + "\r\n")
}

func (p place) values(name string) []string {
	var kv []string
	for _, v := range p.kv {
		kv = append(kv, strings.ReplaceAll(v, here, name))
	}
	return kv
}

// withBody is the same in a body, as JSON.
func (p place) withBody(name string, as identity) []byte {
	members := map[string]string{}
	for kv := p.values(name); len(kv) > 0; kv = kv[2:] {
		members[kv[0]] = kv[1]
	}
	body, err := json.Marshal(members)
	if err != nil {
		panic(err)
	}
	return withBody(head(as, p.method, strings.ReplaceAll(p.path, here, escapePath(name))), jsonType, body)
}

// client is a connection that is opened again when it has ended.
type client struct {
	w *world
	*wire
}

func (c *client) say(request []byte) (answer, error) {
	for try := 0; ; try++ {
		if c.wire == nil {
			var err error
			if c.wire, err = dial("", c.w.address); err != nil {
				return answer{}, err
			}
		}
		a, err := c.wire.say(request)
		if err != nil || a.status == http.StatusSwitchingProtocols || a.header.Get("Connection") == "close" {
			c.wire.Close()
			c.wire = nil
		}
		if err == nil || try == 1 {
			return a, err
		}
	}
}

// outside is everything in the world but what belongs to the server, and the
// names at the top of the data directory.
func (w *world) outside(t testing.TB) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(w.dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // the server writes beside us
		}
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(w.dir, path)
		if strings.Count(name, "/") > 1 && strings.HasPrefix(name, "data/") {
			return filepath.SkipDir
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		all[name] = info.Mode().String()
		if info.Mode().IsRegular() && !strings.HasPrefix(name, "data/") {
			content, err := os.ReadFile(path)
			all[name] += string(content)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// tidyName is what a file of the server may be called.
var tidyName = regexp.MustCompile(`^[A-Za-z0-9_.@:!+~\\-]{1,255}$`)

// tidy fails the test for files of the server with odd names, or that are links.
func (w *world) tidy(t testing.TB) {
	t.Helper()
	err := filepath.WalkDir(w.data, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // of a session that has just ended
		}
		if err != nil {
			return err
		}
		if !tidyName.MatchString(d.Name()) || d.Type()&fs.ModeSymlink != 0 {
			t.Errorf("the server has made %q, a %v", path, d.Type())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Hostile names at every place that takes a name write and read nothing outside,
// and no answer blames the server.
func TestHostileNames(t *testing.T) {
	harness.Long(t)
	t.Parallel()
	w := start(t, setup{})
	for _, name := range []string{"canary.txt", "canary", "canary.blob"} {
		w.write(t, filepath.Join(w.dir, name), canary)
		w.write(t, filepath.Join(w.data, name), canary)
	}
	if err := w.honest(0); err != nil {
		t.Fatal(err)
	}
	before := w.outside(t)
	names := hostileNames(w)
	t.Logf("%d names, %d places", len(names), len(places()))
	if len(names) < 300 {
		t.Error("too few names")
	}
	work := make(chan place)
	var all sync.WaitGroup
	for range 6 {
		all.Go(func() {
			c := &client{w: w}
			for p := range work {
				for _, name := range names {
					c.name(t, p, name)
				}
			}
			if c.wire != nil {
				c.wire.Close()
			}
		})
	}
	all.Go(func() { w.namesInSession(t, names) })
	for _, p := range places() {
		work <- p
	}
	close(work)
	all.Wait()

	w.alive(t)
	w.tidy(t)
	after := w.outside(t)
	for name := range maps.Keys(after) {
		if before[name] != after[name] && !slices.Contains([]string{"data/collections.json", "data/quota-today.json", "data/datastores"}, name) {
			t.Errorf("%q is %.100q, was %.100q", name, after[name], before[name])
		}
	}
	for name := range maps.Keys(before) {
		if _, ok := after[name]; !ok {
			t.Errorf("%q has gone", name)
		}
	}
}

// name sends a name to a place, in the query or in the body.
func (c *client) name(t testing.TB, p place, name string) {
	request := p.with(name, c.w.admin)
	if inBody := len(name)%3 > 0; inBody && (p.method == "POST" || p.method == "PUT") {
		request = p.withBody(name, c.w.admin)
	}
	a, err := c.say(request)
	if err != nil {
		t.Errorf("%s %s with %q: %v", p.method, p.path, name, err)
		return
	}
	c.w.harmless(t, a)
}

// harmless fails the test for an answer that blames the server, tells a secret
// or repeats a line break of a name in its head.
func (w *world) harmless(t testing.TB, a answer) {
	noServerFault(t, a)
	if bytes.Contains(a.body, []byte(canary)) || bytes.Contains(a.body, []byte("root:x:0:0")) {
		t.Errorf("a file from outside: %s", a)
	}
	if a.header.Get("Set-Cookie") != "" {
		t.Errorf("a header of the name's: %s", a)
	}
}

// namesInSession sends names to the places inside sessions.
func (w *world) namesInSession(t testing.TB, names []string) {
	// In a group that nobody gives away meanwhile, which would end the sessions.
	own := snap{"host", "inside", began}
	if err := w.backup(w.alice, own, victim()); err != nil {
		t.Error(err)
		return
	}
	b, err := open("", w.address, upgradeRequest(w.alice, backupProtocol, snap{own.kind, own.id, began + 1000}))
	if err != nil {
		t.Error(err)
		return
	}
	defer b.Close()
	r, err := open("", w.address, upgradeRequest(w.alice, readerProtocol, own))
	if err != nil {
		t.Error(err)
		return
	}
	defer r.Close()
	blob := envelope(magicPlain, []byte("x"))
	for _, name := range names {
		for _, end := range []string{"", ".blob", ".didx", ".fidx", ".img.fidx", ".pxar.didx"} {
			full := name + end
			for s, list := range map[*session][]message{b: {
				{method: "POST", path: "/dynamic_index", kv: []string{"archive-name", full}},
				{method: "POST", path: "/fixed_index", kv: []string{"archive-name", full, "size", "1"}},
				blobMessage(full, blob),
				{method: "GET", path: "/previous", kv: []string{"archive-name", full}},
			}, r: {{method: "GET", path: "/download", kv: []string{"file-name", full}}}} {
				for _, m := range list {
					a, err := s.try(m)
					if err != nil {
						t.Errorf("%s %s with %q: %v", m.method, m.path, full, err)
						return
					}
					w.harmless(t, a)
				}
			}
		}
	}
}
