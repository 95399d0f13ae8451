package server

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"testing"

	"holdfast/datastore"
	"holdfast/datastore/access"
	"holdfast/datastore/gc"
	"holdfast/datastore/wire"
)

// Whoever sends what others may have, breaks off and comes again after the nightly
// collection is not told which of it is still there.
func TestCollectionDoesNotTellWhatOthersHave(t *testing.T) {
	l := newSessionLab(t)
	secret, control := l.bitOf(77, 5000), l.bitOf(78, 5000)
	k := l.begin(backupOf("alice", "vm/100", 1000))
	k.data(post("/dynamic_index", "archive-name", "disk.img.didx"))
	k.data(chunkUpload("dynamic", 1, secret))
	list := []entry{{0, secret}}
	k.data(appendOf("dynamic", 1, list...))
	s := summaryOf("dynamic", list...)
	k.data(closeOf("dynamic", 1, s))
	k.data(blobUpload(wire.ManifestName, l.manifestOf("vm/100", 1000, indexFile("disk.img.didx", s))))
	k.data(post("/finish"))
	k.conn.Close()
	l.endedAll("backup")

	guess := func(when int64) *talk {
		p := l.begin(backupOf("putter", "host/probe", when))
		p.data(post("/dynamic_index", "archive-name", "p.didx"))
		return p
	}
	listed := func(p *talk) (of [2]bool) {
		raw := p.raw(get(wire.ResumePath))
		return [2]bool{bytes.Contains(raw, secret.id[:]), bytes.Contains(raw, control.id[:])}
	}
	p := guess(1000)
	p.data(chunkUpload("dynamic", 1, secret))
	p.data(chunkUpload("dynamic", 1, control))
	p.conn.Close()
	l.endedAll("backup")
	p = guess(2000)
	if got := listed(p); got != [2]bool{true, true} {
		t.Errorf("before a collection: %v of secret and control are resumed, want both", got)
	}
	p.conn.Close()
	l.endedAll("backup")
	_, err := gc.Collect(context.Background(), l.store(), gc.Options{DryRun: true})
	l.must(err)
	p = guess(3000)
	if got := listed(p); got != [2]bool{true, true} {
		t.Errorf("after one that only counts: %v of secret and control are resumed, want both", got)
	}
	p.conn.Close()
	l.endedAll("backup")
	r, err := gc.Collect(context.Background(), l.store(), gc.Options{})
	l.must(err)
	p = guess(4000)
	if got := listed(p); got[0] != got[1] || r.ChunksRemoved == 0 {
		t.Errorf("after a collection of %d chunks %v of secret and control are resumed", r.ChunksRemoved, got)
	}
	p.conn.Close()
	l.endedAll("backup")
}

// Sessions that send nothing leave no files that no quota counts.
func TestEmptySessionsLeaveNoFiles(t *testing.T) {
	l := newSessionLab(t)
	l.must(l.access.SetQuota(access.Quota{Subject: "putter@pbs", BytesMax: 2 * datastore.FileBytes}))
	entries := func() (n int) {
		l.must(filepath.WalkDir(filepath.Join(l.dir, "tank"), func(string, fs.DirEntry, error) error { n++; return nil }))
		return n
	}
	session := func(group string) {
		k := l.begin(backupOf("putter", group, 1000))
		k.data(post("/dynamic_index", "archive-name", "a.didx"))
		k.refuses(chunkUpload("dynamic", 1, l.bitOf(1, 9000)), 507, "")
		k.conn.Close()
		l.endedAll("backup")
	}
	session("vm/first") // what a datastore has of every type
	before := entries()
	for i := range 20 {
		session(fmt.Sprintf("vm/g%d", i))
	}
	if n := entries(); n != before {
		t.Errorf("20 sessions whose chunks were refused leave %d files and directories", n-before)
	}
}
