package interop

import (
	"strings"
	"testing"

	"holdfast/tests/harness"
)

// The checks before a backup session, section 2.1.
func TestUpgradeRefused(t *testing.T) {
	t.Parallel()
	w, s := server, newGroup("host")
	good := s.params("store", store)
	without := func(name string) []string {
		var kv []string
		for i := 0; i < len(good); i += 2 {
			if good[i] != name {
				kv = append(kv, good[i], good[i+1])
			}
		}
		return kv
	}
	with := func(name, value string) []string { return append(without(name), name, value) }
	for name, c := range map[string]struct {
		as    identity
		kv    []string
		want  int
		words []string
	}{
		"no store":               {w.alice, without("store"), 400, []string{"store"}},
		"no type":                {w.alice, without("backup-type"), 400, []string{"backup-type"}},
		"no id":                  {w.alice, without("backup-id"), 400, []string{"backup-id"}},
		"no time":                {w.alice, without("backup-time"), 400, []string{"backup-time"}},
		"time 0":                 {w.alice, with("backup-time", "0"), 400, []string{"backup-time"}},
		"time -1":                {w.alice, with("backup-time", "-1"), 400, []string{"backup-time"}},
		"time of another planet": {w.alice, with("backup-time", "9223372036854775807"), 400, nil},
		"time as text":           {w.alice, with("backup-time", "2024-05-06T12:00:00Z"), 400, []string{"backup-time"}},
		"other type":             {w.alice, with("backup-type", "tape"), 400, []string{"backup-type"}},
		"unknown parameter":      {w.alice, append(good, "colour", "blue"), 400, []string{"colour"}},
		"repeated parameter":     {w.alice, append(good, "backup-id", "x"), 400, []string{"backup-id"}},
		"debug maybe":            {w.alice, append(good, "debug", "maybe"), 400, []string{"debug"}},
		"nobody":                 {nobody, good, 401, []string{"authentication failed"}},
		"no rights":              {w.dora, good, 403, []string{"Datastore.Backup"}},
		"reader":                 {w.carol, good, 403, nil},
		"rights elsewhere":       {w.erin, good, 403, nil},
		"other store":            {w.alice, with("store", attic), 403, nil},
		"no such store":          {w.admin, with("store", "nowhere"), 400, nil},
		"no such namespace":      {w.alice, append(good, "ns", "no/where"), 404, []string{"namespace not found"}},
	} {
		_, a := w.session(t, s, upgrade("backup", backupProtocol, c.as, c.kv...))
		if a.status == 101 {
			t.Errorf("%s: accepted", name)
			continue
		}
		if a.refused(t, c.want, c.words...); t.Failed() {
			t.Logf("%s", name)
		}
	}
	var all []listed
	w.rest(w.admin).get(t, s.at("/snapshots"), s.group()...).into(t, &all)
	if len(all) > 0 {
		t.Errorf("a refused session left %v", all)
	}
}

// Headers of the upgrade.
func TestUpgradeHeaders(t *testing.T) {
	t.Parallel()
	s := newGroup("host")
	base := backupRequest(server.alice, s)
	base.header = server.alice.header
	for name, c := range map[string]struct {
		header []string
		want   int
		words  []string
	}{
		"nothing":              {nil, 400, []string{"missing Upgrade header"}},
		"no upgrade":           {[]string{"Connection: upgrade"}, 400, []string{"missing Upgrade header"}},
		"wrong protocol":       {[]string{"Connection: upgrade", "Upgrade: websocket"}, 400, []string{"invalid protocol name"}},
		"protocol of a reader": {[]string{"Connection: upgrade", "Upgrade: " + readerProtocol}, 400, []string{"invalid protocol name"}},
		"capitals":             {[]string{"Connection: Upgrade", "Upgrade: " + backupProtocol}, 101, nil},
		"two connection words": {[]string{"Connection: keep-alive, Upgrade", "Upgrade: " + backupProtocol}, 101, nil},
		"with a content type":  {[]string{formType, "Connection: upgrade", "Upgrade: " + backupProtocol}, 101, nil},
	} {
		t.Run(name, func(t *testing.T) {
			r := base
			r.header = append(append([]string{}, base.header...), c.header...)
			conn := server.dial(t)
			h, a, err := begin(conn, r)
			if err != nil {
				t.Fatal(err)
			}
			if h == nil {
				a.refused(t, c.want, c.words...)
				return
			}
			a.want(t, c.want)
			h.do(t, "GET", "/previous_backup_time", nil).null(t)
			h.hangUp()
			server.free(t, s).hangUp()
			server.gone(t, s)
		})
	}
	post := backupRequest(server.alice, s)
	post.method = "POST"
	server.ask(t, post).refused(t, 404)
}

// What newer clients send, and what may be left out.
func TestUpgradeAccepted(t *testing.T) {
	t.Parallel()
	for name, more := range map[string][]string{
		"nothing more": nil, "empty namespace": {"ns", ""}, "no cache": {"no-cache", "true"}, "debug off": {"debug", "0"}, "benchmark off": {"benchmark", "false"},
	} {
		s := newGroup("vm")
		b, a := server.session(t, s, upgrade("backup", backupProtocol, server.alice, s.params(append([]string{"store", store}, more...)...)...))
		if a.status != 101 {
			t.Errorf("%s: %s", name, a)
			continue
		}
		b.commit(t, b.archive(t, "root.pxar.didx", small(1)...))
		if _, ok := server.list(t, s)[s.time]; !ok {
			t.Errorf("%s: the snapshot is not listed", name)
		}
	}
}

// The owner of a group, section 2.1 step 8 and section 3.1.
func TestOwnerRule(t *testing.T) {
	t.Parallel()
	w := server
	for name, c := range map[string]struct {
		owner    identity
		may, not []identity
		read     []identity
		unread   []identity
	}{
		"group of a user":  {w.alice, []identity{w.alice}, []identity{w.alice1, w.bob, w.admin}, []identity{w.alice, w.carol, w.admin}, []identity{w.alice1, w.bob}},
		"group of a token": {w.alice1, []identity{w.alice1, w.alice}, []identity{w.alice2, w.bob, w.bob1, w.admin}, []identity{w.alice1, w.alice, w.carol}, []identity{w.alice2, w.bob}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newGroup("host")
			w.snapshot(t, c.owner, s)
			for i, as := range c.may {
				w.snapshot(t, as, s.later(int64(i+1)))
			}
			for _, as := range c.not {
				_, a := w.tryBackup(t, as, s.later(100))
				a.refused(t, 400, "backup owner check failed ("+as.id+" ", ")")
			}
			for _, as := range c.read {
				r := w.reader(t, as, s)
				r.do(t, "GET", "/download", nil, "file-name", manifestName).want(t, 200)
				r.hangUp()
			}
			for _, as := range c.unread {
				_, a := w.tryReader(t, as, s)
				a.refused(t, 400, "backup owner check failed")
			}
			for _, l := range w.list(t, s) {
				if l.Owner != c.owner.id {
					t.Errorf("the owner became %s", l.Owner)
				}
			}
		})
	}
}

// The first session of a group owns it, also when it is aborted.
func TestOwnerOfAnAbortedGroup(t *testing.T) {
	t.Parallel()
	s := newGroup("host")
	server.backup(t, server.alice, s).hangUp()
	harness.Eventually(t, "the end of the session", func() bool {
		_, a := server.tryBackup(t, server.bob, s)
		a.refused(t, 400)
		return strings.Contains(string(a.body), "owner check failed")
	})
	server.free(t, s).hangUp()
}

// A snapshot is younger than the last one that was finished.
func TestTimeMovesOn(t *testing.T) {
	t.Parallel()
	s := newGroup("host")
	server.snapshot(t, server.alice, s)
	for name, seconds := range map[string]int64{"the same": 0, "a second before": -1, "a year before": -365 * 86400} {
		if _, a := server.tryBackup(t, server.alice, s.later(seconds)); a.status != 400 || !strings.Contains(string(a.body), "older than last backup") && seconds != 0 {
			t.Errorf("%s: %s", name, a)
		}
	}
	b := server.backup(t, server.alice, s.later(100)) // aborted: does not count
	b.hangUp()
	server.gone(t, s.later(100))
	server.snapshot(t, server.alice, s.later(1))
	b = server.backup(t, server.alice, s.later(2))
	var last int64
	if b.do(t, "GET", "/previous_backup_time", nil).into(t, &last); last != s.time+1 {
		t.Errorf("the previous backup time is %d, want %d", last, s.time+1)
	}
	server.snapshot(t, server.alice, newGroup("ct").later(-1600000000)) // long ago, but the first of its group
}

// Two sessions of one group exclude each other, two groups do not.
func TestTwoSessions(t *testing.T) {
	t.Parallel()
	s, other := newGroup("host"), newGroup("host")
	first, second := server.backup(t, server.alice, s), server.backup(t, server.bob, other)
	_, a := server.tryBackup(t, server.alice, s)
	a.refused(t, 400)
	_, a = server.tryBackup(t, server.alice, s.later(5))
	a.refused(t, 400)
	c := newChunk(noise(99, 4000))
	w1, w2 := first.index(t, "root.pxar.didx"), second.index(t, "root.pxar.didx")
	if w1 != 1 || w2 != 1 {
		t.Errorf("the first writers are %d and %d", w1, w2)
	}
	first.chunk(t, "dynamic", w1, c)
	second.put(t, "dynamic", list{w2, []string{c.digest}, []int64{0}}).refused(t, 400, "no such chunk "+c.digest)
	second.chunk(t, "dynamic", w2, c)
	for _, b := range []*session{first, second} {
		b.put(t, "dynamic", list{1, []string{c.digest}, []int64{0}}).null(t)
		b.end(t, "dynamic", 1, 1, 4000, dynamicSum(t, []string{c.digest}, []uint64{4000})).null(t)
		b.commit(t, entry{"root.pxar.didx", "none", 4000, dynamicSum(t, []string{c.digest}, []uint64{4000})})
	}
}
