package server

import (
	"bytes"
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"

	"holdfast/datastore/task"
	"holdfast/datastore/wire"
)

func TestReaderUpgradeChecks(t *testing.T) {
	l := newSessionLab(t)
	l.simple("alice", "vm/100", 1000)
	unfinished := l.begin(backupOf("alice", "vm/100", 2000))
	defer unfinished.conn.Close()
	good := readerOf("alice", "vm/100", 1000)
	other := good
	other.protocol = wire.BackupProtocol
	for name, c := range map[string]struct {
		ask   upgradeRequest
		code  int
		words string
	}{
		"benchmark is no parameter": {good.with("benchmark", "false"), 400, "'benchmark'"},
		"no privilege":              {readerOf("nobody", "vm/100", 1000), 400, "no permissions on /datastore/tank"},
		"another protocol":          {other, 400, "invalid protocol name"},
		"another owner":             {readerOf("bob", "vm/100", 1000), 400, "backup owner check failed!"},
		"no such snapshot":          {readerOf("alice", "vm/100", 999), 400, "does not exist."},
		"an unfinished snapshot":    {readerOf("alice", "vm/100", 2000), 400, "does not exist."},
		"no such group":             {readerOf("alice", "vm/101", 1000), 400, "does not exist."},
		"no such group, all groups": {readerOf("reader", "vm/101", 1000), 400, "does not exist."},
		"no such namespace":         {good.with("ns", "nowhere"), 400, "does not exist."},
	} {
		code, text := l.refused(c.ask)
		if code != c.code || !strings.Contains(text, c.words) {
			t.Errorf("%s: %d %q, want %d with %q", name, code, text, c.code, c.words)
		}
	}
	for _, user := range []string{"alice", "reader"} {
		k := l.begin(readerOf(user, "vm/100", 1000))
		k.raw(get("/download", "file-name", wire.ManifestName))
		k.conn.Close()
	}
}

func TestReaderGivesOnlyWhatWasDownloaded(t *testing.T) {
	l := newSessionLab(t)
	list := l.simple("alice", "vm/100", 1000)
	foreign := l.simple("alice", "vm/101", 1001)
	k := l.begin(readerOf("alice", "vm/100", 1000))
	refusal := "download chunk " + list[0].bit.id.String() + " not allowed"
	k.refuses(get("/chunk", "digest", list[0].bit.id), 401, refusal)
	k.refuses(get("/download", "file-name", "other.didx"), 400, "")
	k.refuses(get("/download", "file-name", "other.blob"), 404, "")
	k.refuses(get("/download", "file-name", "other.txt"), 400, "")
	k.refuses(get("/download", "file-name", "../owner"), 400, "")
	k.raw(get("/download", "file-name", "disk.img.didx"))
	for _, e := range list {
		if got := k.raw(get("/chunk", "digest", e.bit.id)); !bytes.Equal(got, e.bit.raw) {
			t.Errorf("chunk %s is not what was sent", e.bit.id.Short())
		}
	}
	k.refuses(get("/chunk", "digest", foreign[0].bit.id), 401, "not allowed")
	k.refuses(get("/chunk", "digest", "xy"), 400, "'digest'")
	k.refuses(post("/finish"), 404, "")
	second := l.begin(readerOf("alice", "vm/100", 1000))
	second.refuses(get("/chunk", "digest", list[0].bit.id), 401, "not allowed")
	if got := second.raw(get("/speedtest")); !bytes.Equal(got, bytes.Repeat([]byte("A"), 1<<20)) {
		t.Errorf("speedtest sends %d bytes", len(got))
	}
}

func TestReaderManyChunksAtOnce(t *testing.T) {
	l := newSessionLab(t)
	list := l.simple("alice", "vm/100", 1000)
	k := l.begin(readerOf("alice", "vm/100", 1000))
	k.raw(get("/download", "file-name", "disk.img.didx"))
	var all sync.WaitGroup
	for i := range 60 {
		all.Go(func() {
			e := list[i%len(list)]
			code, got, err := k.send(context.Background(), get("/chunk", "digest", e.bit.id))
			if err != nil || code != http.StatusOK || !bytes.Equal(got, e.bit.raw) {
				t.Errorf("chunk %s: %d, %d bytes, %v", e.bit.id.Short(), code, len(got), err)
			}
		})
	}
	all.Wait()
}

func TestReaderKeepsItsSnapshot(t *testing.T) {
	l := newSessionLab(t)
	l.simple("alice", "vm/100", 1000)
	k := l.begin(readerOf("alice", "vm/100", 1000))
	snap, err := wire.ParseSnapshot("", "vm/100/1970-01-01T00:16:40Z")
	l.must(err)
	if err := l.store().Forget(context.Background(), snap); err == nil {
		t.Error("a snapshot that is being read was forgotten")
	}
	list, err := l.tasks.List(task.Filter{Type: "reader"})
	l.must(err)
	if len(list) != 1 || list[0].UPID.ID != "tank:vm/100/000003E8" {
		t.Errorf("tasks: %+v", list)
	}
	k.conn.Close()
	if status := l.ended("reader"); status != "OK" {
		t.Errorf("task: %s", status)
	}
	l.must(l.store().Forget(context.Background(), snap))
}
