package interop

import (
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"

	"holdfast/tests/harness"
)

// The snapshot list, section 4.3.
func TestSnapshotList(t *testing.T) {
	t.Parallel()
	s := newGroup("vm")
	key := noise(1, 32)
	b := server.backup(t, server.alice1, s)
	stream := b.archive(t, "root.pxar.didx", newSealed(key, noise(2, 3000)))
	stream.Mode = "encrypt"
	conf := b.file(t, "a.conf.blob", sealedBlob(magicSealed, key, []byte("a")))
	conf.Mode = "encrypt"
	m := manifestOf(s, []entry{stream, conf})
	signature := digestOf([]byte("not checked by a server"))
	m.Signature = &signature
	print := strings.TrimSuffix(strings.Repeat("ab:", 32), ":")
	m.Unprotected["key-fingerprint"] = print
	index := zstdBlob(m.text())
	b.file(t, manifestName, index)
	b.finish(t).null(t)
	b.hangUp()
	server.rest(server.alice).query(t, "PUT", s.at("/notes"), s.params("notes", "first line\nsecond")...).null(t)

	l := server.list(t, s)[s.time]
	if l.Owner != "alice@pbs!t1" || l.Protected == nil || *l.Protected || l.Comment == nil || *l.Comment != "first line" || l.Verification != nil ||
		l.Fingerprint == nil || *l.Fingerprint != print || l.Type != "vm" || l.ID != s.id {
		t.Errorf("the snapshot is listed as %s", indent(l))
	}
	var names []string
	sum := int64(0)
	for _, f := range l.Files {
		names = append(names, fmt.Sprintf("%s %v", f["filename"], f["crypt-mode"]))
		size, ok := f["size"].(float64)
		if !ok {
			t.Errorf("a file without size: %v", f)
		}
		sum += int64(size)
	}
	if want := []string{"root.pxar.didx encrypt", "a.conf.blob encrypt", manifestName + " sign-only"}; !slices.Equal(names, want) {
		t.Errorf("the files are %q", names)
	}
	if sum != *l.Size {
		t.Errorf("the size is %d, the files have %d", *l.Size, sum)
	}
	if got := l.Files[0]["size"]; got != 3000.0 {
		t.Errorf("the archive has size %v", got)
	}
	var files []map[string]any
	server.rest(server.alice).get(t, s.at("/files"), s.params()...).into(t, &files)
	if indent(files) != indent(l.Files) {
		t.Errorf("files says %s, snapshots %s", indent(files), indent(l.Files))
	}
	server.rest(server.alice).get(t, s.at("/files"), s.later(1).params()...).refused(t, 400)
}

// Filters of the list, and what does not exist.
func TestSnapshotFilters(t *testing.T) {
	t.Parallel()
	s := newGroup("ct")
	server.snapshot(t, server.alice, s)
	server.snapshot(t, server.alice, s.later(1))
	alice := server.rest(server.alice)
	count := func(kv ...string) int {
		var all []listed
		alice.get(t, s.at("/snapshots"), kv...).into(t, &all)
		n := 0
		for _, l := range all {
			if l.ID == s.id {
				n++
			}
		}
		return n
	}
	for _, c := range []struct {
		want int
		kv   []string
	}{{2, s.group()}, {2, []string{"backup-type", "ct"}}, {2, []string{"backup-id", s.id}}, {2, nil}, {2, s.group("ns", "")},
		{0, []string{"backup-type", "vm"}}, {0, []string{"backup-id", "none"}}, {0, []string{"backup-type", "vm", "backup-id", s.id}}} {
		if got := count(c.kv...); got != c.want {
			t.Errorf("%v: %d snapshots, want %d", c.kv, got, c.want)
		}
	}
	if d := alice.get(t, s.at("/snapshots"), "backup-id", "none").data(t); d != "[]" {
		t.Errorf("no snapshots are %s", d)
	}
	alice.get(t, s.at("/snapshots"), "ns", "no/where").want(t, 400, 403)
	server.rest(server.admin).get(t, s.at("/snapshots"), "ns", "no/where").refused(t, 400)
	server.rest(server.admin).get(t, s.at("/groups"), "ns", "no/where").refused(t, 400)
	server.rest(server.admin).get(t, "/admin/datastore/nowhere/snapshots").want(t, 400, 404)
}

// The group list and group notes, section 4.2.
func TestGroups(t *testing.T) {
	t.Parallel()
	s := newGroup("ct")
	server.snapshot(t, server.alice, s)
	server.snapshot(t, server.alice, s.later(60))
	alice := server.rest(server.alice)
	alice.query(t, "PUT", s.at("/group-notes"), s.group("notes", "web server\nrack 3")...).null(t)
	if d := alice.get(t, s.at("/group-notes"), s.group()...).data(t); d != `"web server\nrack 3"` {
		t.Errorf("the notes are %s", d)
	}
	var all []struct {
		Type  string   `json:"backup-type"`
		ID    string   `json:"backup-id"`
		Last  int64    `json:"last-backup"`
		Count int      `json:"backup-count"`
		Files []string `json:"files"`
		Owner string   `json:"owner"`
		Note  string   `json:"comment"`
	}
	alice.get(t, s.at("/groups")).into(t, &all)
	found := false
	for _, g := range all {
		if g.ID != s.id {
			continue
		}
		found = true
		sort.Strings(g.Files)
		if g.Type != "ct" || g.Last != s.time+60 || g.Count != 2 || g.Owner != "alice@pbs" || strings.TrimSpace(g.Note) != "web server" ||
			!slices.Equal(g.Files, []string{"a.conf.blob", manifestName, "root.pxar.didx"}) {
			t.Errorf("the group is listed as %s", indent(g))
		}
	}
	if !found {
		t.Error("the group is not listed")
	}
	server.rest(server.bob).get(t, s.at("/groups")).into(t, &all)
	for _, g := range all {
		if g.Owner != "bob@pbs" && g.Owner != "bob@pbs!t1" {
			t.Errorf("bob sees a group of %s", g.Owner)
		}
	}
	server.rest(server.bob).get(t, s.at("/group-notes"), s.group()...).refused(t, 400)
	alice.get(t, s.at("/group-notes"), "backup-type", "vm", "backup-id", "none").want(t, 400, 404)

	busy := server.backup(t, server.alice, s.later(120))
	alice.query(t, "DELETE", s.at("/groups"), s.group()...).refused(t, 400)
	alice.query(t, "DELETE", s.at("/snapshots"), s.params()...).null(t) // of a busy group, but not in use
	busy.hangUp()
	server.gone(t, s.later(120))
	server.rest(server.bob).query(t, "DELETE", s.at("/groups"), s.group()...).refused(t, 403)
	alice.query(t, "PUT", s.at("/protected"), s.later(60).params("protected", "1")...).null(t)
	harness.Eventually(t, "a free group", func() bool {
		a := alice.query(t, "DELETE", s.at("/groups"), s.group()...)
		return strings.Contains(string(a.body), "protected")
	})
	alice.query(t, "PUT", s.at("/protected"), s.later(60).params("protected", "0")...).null(t)
	alice.query(t, "DELETE", s.at("/groups"), s.group("error-on-protected", "1")...).envelope(t)
	if len(server.list(t, s)) > 0 {
		t.Error("the group has not gone")
	}
	alice.query(t, "DELETE", s.at("/groups"), s.group()...).refused(t, 400)
}

// Notes and protection of snapshots.
func TestNotesAndProtection(t *testing.T) {
	t.Parallel()
	s := newGroup("host")
	server.snapshot(t, server.alice, s)
	alice := server.rest(server.alice)
	if d := alice.get(t, s.at("/notes"), s.params()...).data(t); d != `""` {
		t.Errorf("no notes are %s", d)
	}
	text := "one & two < three\nzwölf \"quoted\" \\ 💾\n"
	alice.form(t, "PUT", s.at("/notes"), s.params("notes", text)...).null(t)
	var got string
	if alice.get(t, s.at("/notes"), s.params()...).into(t, &got); got != text {
		t.Errorf("the notes came back as %q", got)
	}
	alice.form(t, "PUT", s.at("/notes"), s.params("notes", "")...).null(t)
	if d := alice.get(t, s.at("/notes"), s.params()...).data(t); d != `""` {
		t.Errorf("deleted notes are %s", d)
	}
	alice.get(t, s.at("/notes"), s.later(1).params()...).refused(t, 400)
	alice.query(t, "PUT", s.at("/notes"), s.later(1).params("notes", "x")...).refused(t, 400)

	alice.form(t, "PUT", s.at("/protected"), s.params("protected", "1")...).null(t)
	if l := server.list(t, s)[s.time]; l.Protected == nil || !*l.Protected {
		t.Errorf("protected is listed as %+v", l)
	}
	alice.query(t, "DELETE", s.at("/snapshots"), s.params()...).refused(t, 400, "protected")
	alice.form(t, "PUT", s.at("/protected"), s.params("protected", "0")...).null(t)
	server.rest(server.bob).query(t, "DELETE", s.at("/snapshots"), s.params()...).refused(t, 403)
	alice.query(t, "DELETE", s.at("/snapshots"), s.params()...).null(t)
	alice.query(t, "DELETE", s.at("/snapshots"), s.params()...).refused(t, 400)
	if len(server.list(t, s)) > 0 {
		t.Error("a deleted snapshot is listed")
	}
}

// The answer of prune, section 4.5.
func TestPrune(t *testing.T) {
	t.Parallel()
	s := newGroup("host")
	for i := range int64(4) {
		server.snapshot(t, server.alice, s.later(i*10))
	}
	alice := server.rest(server.alice)
	alice.query(t, "PUT", s.at("/protected"), s.params("protected", "1")...).null(t)
	ask := func(want string, v map[string]any) {
		t.Helper()
		v["backup-type"], v["backup-id"] = s.kind, s.id
		var got []pruned
		a := alice.json(t, "POST", s.at("/prune"), v)
		a.into(t, &got)
		text, last := "", int64(0)
		for _, p := range got {
			if p.Keep == nil || p.Protected == nil || p.Type != s.kind || p.ID != s.id || p.Time <= last {
				t.Fatalf("an element is not complete or not in order: %s", a)
			}
			last = p.Time
			text += map[bool]string{true: "k", false: "r"}[*p.Keep]
			if *p.Protected {
				text += "p"
			}
		}
		if text != want {
			t.Errorf("prune %v says %q, want %q", v, text, want)
		}
	}
	ask("kpkkk", map[string]any{"dry-run": true})
	ask("kprrk", map[string]any{"dry-run": true, "keep-last": 1})
	ask("kprkk", map[string]any{"dry-run": true, "keep-last": 2})
	ask("kprrk", map[string]any{"dry-run": true, "keep-yearly": 5})
	if n := len(server.list(t, s)); n != 4 {
		t.Fatalf("a dry run left %d snapshots", n)
	}
	ask("kprrk", map[string]any{"keep-last": 1})
	l := server.list(t, s)
	if _, ok := l[s.time+30]; !ok || len(l) != 2 {
		t.Errorf("prune left %s", indent(l))
	}
	alice.json(t, "POST", s.at("/prune"), map[string]any{"backup-type": "host", "backup-id": "none", "keep-last": 1}).refused(t, 400)
	var all []task
	alice.get(t, "/nodes/localhost/tasks", "typefilter", "prune", "limit", "0").into(t, &all)
	if !slices.ContainsFunc(all, func(k task) bool { return k.ID == "tank::host/"+s.id && k.Type == "prune" }) {
		t.Errorf("prune is no task: %s", indent(all))
	}
	var upid string
	alice.json(t, "POST", s.at("/prune"), map[string]any{"backup-type": "host", "backup-id": s.id, "keep-last": 1, "use-task": true}).into(t, &upid)
	if end := server.await(t, server.alice, upid); end != "OK" {
		t.Errorf("a prune task ended with %q", end)
	}
}

// Who may give a group to whom, section 4.2.
func TestChangeOwner(t *testing.T) {
	harness.Long(t)
	t.Parallel()
	w, s := server, newGroup("host")
	w.snapshot(t, w.alice, s)
	give := func(as identity, to string) answer {
		return w.rest(as).query(t, "POST", s.at("/change-owner"), s.group("new-owner", to)...)
	}
	give(w.alice, "bob@pbs").refused(t, 401)
	give(w.bob, "bob@pbs").refused(t, 401)
	give(w.alice1, "alice@pbs!t1").refused(t, 401)
	give(w.alice, "alice@pbs!t1").null(t)
	give(w.alice1, "alice@pbs").refused(t, 401)
	give(w.alice, "alice@pbs!t2").null(t)
	w.snapshot(t, w.alice2, s.later(1))
	give(w.alice, "alice@pbs").null(t)
	give(w.admin, "nobody@pbs").refused(t, 400)
	give(w.admin, "not an id").refused(t, 400, "new-owner")
	give(w.admin, "bob@pbs").null(t)
	w.snapshot(t, w.bob, s.later(2))
	if l := w.list(t, s); l[s.time].Owner != "bob@pbs" || len(l) != 3 {
		t.Errorf("the group is %s", indent(l))
	}
}

// Namespaces, section 4.7.
func TestNamespaces(t *testing.T) {
	t.Parallel()
	w := server
	admin := w.rest(w.admin)
	base := "/admin/datastore/" + store + "/namespace"
	make := func(parent, name string) answer {
		return admin.json(t, "POST", base, map[string]string{"name": name, "parent": parent})
	}
	for _, c := range [][3]string{{"", "team", "team"}, {"team", "eu", "team/eu"}, {"team/eu", "x", "team/eu/x"}, {"", "other", "other"}, {"", "team", "team"}} {
		if d := make(c[0], c[1]).data(t); d != strconv.Quote(c[2]) {
			t.Errorf("namespace %q: %s", c[2], d)
		}
	}
	admin.json(t, "POST", base, map[string]string{"name": "lone"}).envelope(t) // parent is optional
	make("no/where", "x").refused(t, 400)
	for _, bad := range []string{"", ".", "..", "a/b", ".x", "-x", "a b", strings.Repeat("n", 33), "ü"} {
		make("", bad).refused(t, 400)
	}
	deep := ""
	for i := range 7 {
		name := fmt.Sprintf("d%d", i)
		make(deep, name).envelope(t)
		deep = strings.TrimPrefix(deep+"/"+name, "/")
	}
	make(deep, "d7").refused(t, 400)
	list := func(as identity, kv ...string) string {
		var all []struct{ NS *string }
		w.rest(as).get(t, base, kv...).into(t, &all)
		var names []string
		for _, n := range all {
			if n.NS == nil {
				t.Fatal("a namespace without ns")
			}
			names = append(names, *n.NS)
		}
		sort.Strings(names)
		return strings.Join(names, ",")
	}
	for kv, want := range map[string]string{"parent=team": "team,team/eu,team/eu/x", "parent=team&max-depth=1": "team,team/eu", "parent=team&max-depth=0": "team",
		"parent=other": "other", "parent=team/eu": "team/eu,team/eu/x"} {
		var params []string
		for _, p := range strings.Split(kv, "&") {
			k, v, _ := strings.Cut(p, "=")
			params = append(params, k, v)
		}
		if got := list(w.admin, params...); got != want {
			t.Errorf("%s lists %s", kv, got)
		}
	}
	if got := list(w.admin, "max-depth", "1"); !strings.Contains(","+got+",", ",team,") || !strings.HasPrefix(got, ",") {
		t.Errorf("the namespaces are %q", got)
	}
	if got := list(w.erin); strings.Contains(got, "other") || !strings.Contains(got, "team/eu/x") {
		t.Errorf("erin sees %q", got)
	}
	admin.get(t, base, "max-depth", "8").refused(t, 400, "max-depth")

	s := newGroup("host")
	s.ns = "team/eu"
	w.snapshot(t, w.erin, s)
	root := s
	root.ns = ""
	if len(w.list(t, root)) > 0 || len(w.list(t, s)) != 1 {
		t.Error("the snapshot is not in its namespace only")
	}
	w.snapshot(t, w.alice, root) // the same name in another namespace is another group
	w.rest(w.erin).get(t, s.at("/notes"), s.params()...).envelope(t)
	w.rest(w.erin).get(t, s.at("/notes"), root.params()...).refused(t, 403)
	r := w.reader(t, w.erin, s)
	r.do(t, "GET", "/download", nil, "file-name", "root.pxar.didx").want(t, 200)
	r.hangUp()

	admin.query(t, "DELETE", base, "ns", "team/eu").refused(t, 400)
	admin.query(t, "DELETE", base, "ns", "").refused(t, 400)
	admin.query(t, "DELETE", base).refused(t, 400, "ns")
	w.rest(w.alice).query(t, "DELETE", base, "ns", "other").refused(t, 403)
	admin.query(t, "DELETE", base, "ns", "other").envelope(t)
	harness.Eventually(t, "the end of the reader", func() bool {
		return admin.query(t, "DELETE", base, "ns", "team/eu", "delete-groups", "1").status == 200
	})
	if got := list(w.admin, "parent", "team"); got != "team" {
		t.Errorf("team has %s", got)
	}
}

// Status, garbage collection and the statistics of a store.
func TestStatus(t *testing.T) {
	t.Parallel()
	s := newGroup("vm")
	server.snapshot(t, server.alice, s)
	var st struct {
		Total, Used, Avail *int64
		Counts             map[string]*struct{ Groups, Snapshots int }
		GC                 map[string]any `json:"gc-status"`
	}
	server.rest(server.alice).get(t, s.at("/status"), "verbose", "1").into(t, &st)
	if st.Total == nil || *st.Total <= 0 || st.Counts["vm"] == nil || st.Counts["vm"].Groups < 1 || st.GC == nil {
		t.Errorf("the status is %s", indent(st))
	}
	var plain map[string]any
	if server.rest(server.alice).get(t, s.at("/status")).into(t, &plain); plain["counts"] != nil || plain["gc-status"] != nil {
		t.Errorf("the short status is %v", plain)
	}
	if server.rest(server.erin).get(t, s.at("/status")).into(t, &plain); plain["total"] != 0.0 {
		t.Errorf("erin sees %v", plain)
	}
	var upid string
	server.rest(server.admin).query(t, "POST", s.at("/gc")).into(t, &upid)
	if end := server.await(t, server.admin, upid); end != "OK" {
		t.Errorf("the collection ended with %q", end)
	}
	var gc map[string]any
	server.rest(server.admin).get(t, s.at("/gc")).into(t, &gc)
	for _, k := range []string{"index-file-count", "index-data-bytes", "disk-bytes", "disk-chunks", "removed-bytes", "removed-chunks", "pending-bytes", "pending-chunks", "removed-bad", "still-bad"} {
		if n, ok := gc[k].(float64); !ok || n != float64(int64(n)) {
			t.Errorf("%s is %v", k, gc[k])
		}
	}
	if gc["upid"] != upid {
		t.Errorf("the last collection was %v, want %s", gc["upid"], upid)
	}
	r := server.reader(t, server.alice, s) // and nothing was lost
	r.do(t, "GET", "/download", nil, "file-name", "root.pxar.didx").want(t, 200)
	for _, c := range small(uint64(s.time)) {
		r.do(t, "GET", "/chunk", nil, "digest", c.digest).want(t, 200)
	}
	var usage []map[string]any
	server.rest(server.alice).get(t, "/status/datastore-usage").into(t, &usage)
	if len(usage) != 1 || usage[0]["store"] != store || usage[0]["total"] == nil {
		t.Errorf("the usage is %s", indent(usage))
	}
}
