package abuse

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"holdfast/tests/harness"
)

// onDisk sums the files of the datastores, in bytes.
func (w *world) onDisk(t testing.TB) (n int64) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(w.data, "datastores"), func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil // it went meanwhile
		}
		if st, err := d.Info(); err == nil && !strings.HasPrefix(d.Name(), "catalogue") {
			n += st.Size()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// until sends messages until one is refused, at most so many.
func (s *session) until(t testing.TB, most int, next func(i int) message) (refused answer) {
	t.Helper()
	for i := range most {
		if refused = s.do(t, next(i)); refused.status != 200 {
			return refused
		}
	}
	t.Errorf("%d messages were taken", most)
	return refused
}

// A quota bounds what lies on the disk, whatever is sent and whatever becomes of it.
func TestQuotaBoundsTheDisk(t *testing.T) {
	harness.Long(t)
	t.Parallel()
	const quota = 8 << 20
	noiseAt := func(i int) chunk { return plainChunk(noise(uint64(i), 1<<20)) }
	for _, tc := range []struct {
		name string
		do   func(*testing.T, *world, identity)
	}{
		{"chunks that nothing refers to", func(t *testing.T, w *world, eve identity) {
			for n := range 4 {
				h, err := open("", w.address, upgradeRequest(eve, backupProtocol, snap{"host", fmt.Sprint("a", n), began}))
				if err != nil {
					return // over the quota
				}
				if _, err := h.createIndex("a.didx"); err != nil {
					h.Close()
					return
				}
				h.until(t, 20, func(i int) message { return chunkMessage("dynamic", 1, noiseAt(100*n+i)) })
				h.Close()
				harness.Eventually(t, "the end of the session", func() bool { return w.running(t, eve) == 0 })
			}
		}},
		{"encrypted chunks with a false size", func(t *testing.T, w *world, eve identity) {
			h := w.session(t, eve, backupProtocol, snap{"host", "b", began})
			wid, err := h.createIndex("a.didx")
			if err != nil {
				t.Fatal(err)
			}
			for i := range 20 {
				blob := sealed(magicSealed, noise(uint64(i), 1<<20))
				h.do(t, chunkMessage("dynamic", wid, chunk{digestOf(blob), 1, blob})).refused(t)
			}
		}},
		{"a benchmark", func(t *testing.T, w *world, eve identity) {
			request := []byte(head(eve, "GET", "/backup", snap{"host", "benchmark", began}.params("store", store, "benchmark", "1")...) +
				"Connection: upgrade\r\nUpgrade: " + backupProtocol + "\r\n\r\n")
			h, err := open("", w.address, request)
			if err != nil {
				t.Fatal(err)
			}
			defer h.Close()
			if _, err := h.createIndex("a.didx"); err != nil {
				t.Fatal(err)
			}
			h.until(t, 20, func(i int) message { return chunkMessage("dynamic", 1, noiseAt(i)) })
		}},
		{"entries of one byte", func(t *testing.T, w *world, eve identity) {
			h := w.session(t, eve, backupProtocol, snap{"host", "c", began})
			wid, err := h.createIndex("a.didx")
			if err != nil {
				t.Fatal(err)
			}
			one := plainChunk([]byte{1})
			h.do(t, chunkMessage("dynamic", wid, one)).want(t, 200)
			many := make([]chunk, 2000)
			for i := range many {
				many[i] = one
			}
			a := h.until(t, 200, func(i int) message { return appendAt(wid, many, i*len(many)) })
			a.want(t, 507)
		}},
		{"many small files", func(t *testing.T, w *world, eve identity) {
			tiny := plainChunk([]byte{1})
			for n := range 16 {
				s := snap{"host", "f", began + int64(n)}
				h, err := open("", w.address, upgradeRequest(eve, backupProtocol, s))
				if err != nil {
					return // over the quota
				}
				for i := range 250 {
					if a := h.do(t, blobMessage(fmt.Sprintf("f%d.blob", i), tiny.blob)); a.status != 200 {
						h.Close()
						a.want(t, 507)
						return
					}
				}
				if h.fill(s, archive{"a.didx", []chunk{tiny}}) != nil {
					h.Close()
					return
				}
				h.do(t, finishMessage()).want(t, 200)
				h.Close()
			}
			t.Error("4,000 small files were taken")
		}},
		{"the trash", func(t *testing.T, w *world, eve identity) {
			for i := range 10 {
				s := snap{"host", "d", began + int64(i)}
				if err := w.backup(eve, s, archive{"a.didx", []chunk{noiseAt(2 * i), noiseAt(2*i + 1)}}); err != nil {
					return
				}
				w.ask(t, eve, "DELETE", "/admin/datastore/"+store+"/snapshots", s.params()...).want(t, 200)
			}
			t.Error("ten snapshots were taken, all of them in the trash")
		}},
		{"logs", func(t *testing.T, w *world, eve identity) {
			for i := range 10 {
				s := snap{"host", "e", began + int64(i)}
				if err := w.backup(eve, s, archive{"a.didx", []chunk{plainChunk([]byte("tiny"))}}); err != nil {
					return
				}
				request := withBody(head(eve, "POST", "/admin/datastore/"+store+"/upload-backup-log", s.params()...), bytesType, envelope(magicPlain, noise(uint64(i), 2<<20)))
				if a := w.shoot(t, request); a.status == 507 {
					return
				}
			}
			t.Error("ten logs were taken")
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := start(t, setup{})
			eve := w.user(t, "eve")
			w.cli(t, "quota", "set", eve.id, "--bytes", strconv.Itoa(quota))
			before := w.onDisk(t)
			tc.do(t, w, eve)
			if n := w.onDisk(t) - before; n > quota*3/2 {
				t.Errorf("a quota of %d bytes let %d in", quota, n)
			}
			w.undisturbed(t, atLeast(1))
		})
	}
}

// running is how many tasks of somebody run.
func (w *world) running(t testing.TB, as identity) int {
	t.Helper()
	var list []any
	w.ask(t, as, "GET", "/nodes/localhost/tasks", "running", "1").into(t, &list)
	return len(list)
}

// appendAt puts chunks of one byte into an index behind others.
func appendAt(wid int, chunks []chunk, at int) message {
	m := appendMessage("dynamic", wid, chunks)
	var digests, offsets strings.Builder
	for i, c := range chunks {
		if i > 0 {
			digests.WriteByte(',')
			offsets.WriteByte(',')
		}
		digests.WriteString(strconv.Quote(c.digest))
		offsets.WriteString(strconv.Itoa(at + i))
	}
	m.body = fmt.Appendf(nil, `{"wid":%d,"digest-list":[%s],"offset-list":[%s]}`, wid, digests.String(), offsets.String())
	return m
}

// What an interrupted backup has left counts until the garbage has been collected, and
// no longer.
func TestQuotaComesBackWithTheCollection(t *testing.T) {
	t.Parallel()
	w := start(t, setup{})
	eve := w.user(t, "eve")
	w.cli(t, "quota", "set", eve.id, "--bytes", "3MiB")
	h := w.session(t, eve, backupProtocol, snap{"host", "a", began})
	if _, err := h.createIndex("a.didx"); err != nil {
		t.Fatal(err)
	}
	h.until(t, 5, func(i int) message { return chunkMessage("dynamic", 1, plainChunk(noise(uint64(i), 1<<20))) }).want(t, 507)
	h.Close()
	harness.Eventually(t, "the end of the session", func() bool { return w.running(t, eve) == 0 })
	s := snap{"host", "b", began}
	two := archive{"a.didx", []chunk{plainChunk(noise(100, 2<<20))}}
	if err := w.backup(eve, s, two); err == nil {
		t.Fatal("what was left did not count")
	}
	harness.Eventually(t, "the end of the session", func() bool { return w.running(t, eve) == 0 })
	if err := w.honest(0); err != nil { // or there is nothing to collect
		t.Fatal(err)
	}
	if end, err := w.task(w.admin, "POST", "/admin/datastore/"+store+"/gc"); err != nil || end != "OK" {
		t.Fatalf("gc: %q %v", end, err)
	}
	if err := w.backup(eve, s, two); err != nil {
		t.Errorf("after the collection: %v", err)
	}
}

// What is removed for good counts until its bytes have been freed: backups that are
// removed at once let nobody pass his quota.
func TestQuotaCountsWhatWasForgottenNow(t *testing.T) {
	t.Parallel()
	w := start(t, setup{})
	eve := w.user(t, "eve")
	w.cli(t, "quota", "set", eve.id, "--bytes", "3MiB")
	if err := w.honest(0); err != nil { // or there is nothing to collect
		t.Fatal(err)
	}
	at := func(i int) (snap, archive) {
		return snap{"host", "a", began + int64(i)}, archive{"a.didx", []chunk{plainChunk(noise(uint64(100+i), 2<<20))}}
	}
	first, files := at(1)
	if err := w.backup(eve, first, files); err != nil {
		t.Fatal(err)
	}
	w.ask(t, w.admin, "DELETE", "/admin/datastore/"+store+"/deleted", first.params()...).want(t, 200)
	second, files := at(2)
	if err := w.backup(eve, second, files); err == nil {
		t.Error("what lies on the disk did not count when its snapshot had gone")
	}
	harness.Eventually(t, "the end of the session", func() bool { return w.running(t, eve) == 0 })
	// A session that says nothing holds up no collection, and so no charge.
	w.session(t, eve, backupProtocol, snap{"host", "idle", began})
	if end, err := w.task(w.admin, "POST", "/admin/datastore/"+store+"/gc"); err != nil || end != "OK" {
		t.Fatalf("gc: %q %v", end, err)
	}
	third, files := at(3)
	if err := w.backup(eve, third, files); err != nil {
		t.Errorf("after the collection: %v", err)
	}
}

// A user without any rights may make some access rules for its own tokens, and leaves
// the administrator the table.
func TestRulesOfOneUserFillNoTable(t *testing.T) {
	harness.Long(t)
	t.Parallel()
	w := start(t, setup{})
	if err := os.WriteFile(filepath.Join(w.dir, "pw"), []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.cli(t, "user", "create", "nobody@pbs", "--password-file", filepath.Join(w.dir, "pw"))
	c := w.dial(t)
	body := "username=nobody%40pbs&password=" + strings.ReplaceAll(password, " ", "+")
	a, err := c.say(withBody(head(identity{}, "POST", "/access/ticket"), formType, []byte(body)))
	if err != nil {
		t.Fatal(err)
	}
	var got struct{ Ticket, CSRFPreventionToken string }
	a.into(t, &got)
	do := func(method, path, body string) answer {
		cookie := "Cookie: PBSAuthCookie=" + got.Ticket + "\r\nCSRFPreventionToken: " + got.CSRFPreventionToken + "\r\n"
		a, err := c.say(withBody(head(identity{}, method, path)+cookie, formType, []byte(body)))
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	do("POST", "/access/users/nobody@pbs/token/tok", "").want(t, 200)
	for name, next := range map[string]func(i int) answer{
		"rules": func(i int) answer {
			return do("PUT", "/access/acl", "path=/datastore/x/"+strconv.Itoa(i)+"&role=NoAccess&auth-id=nobody%40pbs%21tok")
		},
		"tokens": func(i int) answer { return do("POST", "/access/users/nobody@pbs/token/t"+strconv.Itoa(i), "") },
	} {
		n := 0
		for ; n < 200; n++ {
			if a := next(n); a.status != 200 {
				a.want(t, 429)
				break
			}
		}
		if n == 0 || n == 200 {
			t.Errorf("%s: %d were taken", name, n)
		}
	}
	w.ask(t, w.admin, "PUT", "/access/acl", "path", "/datastore/"+store, "role", "DatastoreAudit", "auth-id", "bob@pbs").want(t, 200)
}
