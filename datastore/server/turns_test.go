package server

import (
	"crypto/tls"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"holdfast/datastore"
	"holdfast/datastore/access"
	"holdfast/datastore/server/budget"
	"holdfast/datastore/wire"
)

// list asks for the snapshots of a user and returns the status of the answer.
func (l *sessionLab) list(user string) int {
	r, err := http.NewRequest(http.MethodGet, "https://"+l.addr+"/api2/json/admin/datastore/tank/snapshots", nil)
	l.must(err)
	r.Header.Set("Authorization", l.tokens[user])
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	resp, err := client.Do(r)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	var body struct{ Data []json.RawMessage }
	if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
		return 0
	}
	return resp.StatusCode
}

// stuck has a user read as many manifests of the datastore as he may, until release is
// called. reading tells how many everybody reads.
func (l *sessionLab) stuck(user string) (reading func() int64, release func()) {
	l.t.Helper()
	o, err := l.server.use("tank")
	l.must(err)
	p, err := l.server.payer(wire.AuthID(user + "@pbs!key"))
	l.must(err)
	var ends []func()
	for range o.turns.Reading.Limit().Share {
		done, err := o.turns.Read(budget.WithPayer(l.t.Context(), p))
		l.must(err)
		ends = append(ends, done)
	}
	return o.turns.Reading.Used, func() {
		for _, done := range ends {
			done()
		}
		o.release()
	}
}

// One user whose manifests take for ever to be read has all that he can have, and
// others list, back up and restore as if he were not there.
func TestManifestsOfOneOwnerStopNobody(t *testing.T) {
	l := newSessionLab(t)
	l.simple("alice", "vm/100", 1000)
	l.simple("bob", "vm/200", 1000)
	l.ended("backup")
	reading, release := l.stuck("alice")
	const requests = 12
	answers := make(chan int, requests)
	for range requests {
		go func() { answers <- l.list("alice") }()
	}
	for within := time.Now().Add(testWait); l.server.accounts.Requests.Used() < requests && time.Now().Before(within); {
		time.Sleep(time.Millisecond)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if code := l.list("bob"); code != http.StatusOK {
			t.Errorf("bob's list: %d", code)
		}
		l.simple("bob", "vm/200", 2000)
		k := l.begin(readerOf("bob", "vm/200", 2000))
		k.raw(get("/download", "file-name", "disk.img.didx"))
		k.conn.Close()
	}()
	select {
	case <-done:
	case <-time.After(testWait):
		t.Error("bob waits for alice")
	}
	if len(answers) > 0 {
		t.Error("alice has an answer, and so more than one user may have")
	}
	release()
	for range requests {
		if code := <-answers; code != http.StatusOK {
			t.Errorf("alice's list in the end: %d", code)
		}
	}
	<-done
	if n := reading(); n != 0 {
		t.Errorf("%d turns are taken in the end", n)
	}
}

// Whoever has gone waits no longer.
func TestTurnsEndWithTheirCaller(t *testing.T) {
	l := newSessionLab(t)
	l.simple("alice", "vm/100", 1000)
	alice := func() int64 { return l.server.accounts.Requests.Used() }
	until := func(n int64) {
		t.Helper()
		for within := time.Now().Add(testWait); alice() != n && time.Now().Before(within); {
			time.Sleep(time.Millisecond)
		}
		if got := alice(); got != n {
			t.Fatalf("%d requests are there, want %d", got, n)
		}
	}
	until(0) // her backup has ended
	_, release := l.stuck("alice")
	defer release()
	const requests = 6
	conns := make([]*tls.Conn, requests)
	for i := range conns {
		conn, err := tls.Dial("tcp", l.addr, &tls.Config{InsecureSkipVerify: true})
		l.must(err)
		_, err = conn.Write([]byte("GET /api2/json/admin/datastore/tank/snapshots HTTP/1.1\r\nHost: x\r\nAuthorization: " + l.tokens["alice"] + "\r\n\r\n"))
		l.must(err)
		conns[i] = conn
	}
	until(requests)
	for _, c := range conns {
		c.Close()
	}
	until(0)
}

// A session that begins under a quota reads no snapshot that was read before, and counts
// them all.
func TestBeginCountsNoSnapshotAgain(t *testing.T) {
	l := newSessionLab(t)
	const sets = 3
	for i := range sets {
		l.simple("alice", "vm/100", int64(1000*(i+1)))
	}
	used := func() uint64 {
		n, err := l.server.usedBy(t.Context(), "alice@pbs")
		l.must(err)
		return n
	}
	before := used()
	l.must(l.access.SetQuota(access.Quota{Subject: "alice@pbs", BytesMax: before + 2*datastore.FileBytes}))
	// Who looks again does not find what was there.
	gone := 0
	l.must(filepath.WalkDir(filepath.Join(l.dir, "tank", "vm", "100"), func(path string, _ os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".didx") {
			gone++
			err = os.Truncate(path, 0)
		}
		return err
	}))
	if gone != sets {
		t.Fatalf("%d indexes were emptied", gone)
	}
	if after := used(); after != before {
		t.Errorf("%d bytes count, %d did before", after, before)
	}
	if code, text := l.refused(backupOf("alice", "vm/101", 1000)); code != http.StatusSwitchingProtocols {
		t.Errorf("a session within the quota: %d %s", code, text)
	}
	l.ended("backup")
	l.must(l.access.SetQuota(access.Quota{Subject: "alice@pbs", BytesMax: before - 1}))
	if code, text := l.refused(backupOf("alice", "vm/101", 1000)); code != 507 {
		t.Errorf("a session beyond the quota: %d %s", code, text)
	}
}
