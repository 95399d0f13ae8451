package server

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"holdfast/chunkstore"
	"holdfast/datastore"
	"holdfast/datastore/access"
	"holdfast/datastore/index"
	"holdfast/datastore/manifest"
	"holdfast/datastore/server/rest"
	"holdfast/datastore/task"
	"holdfast/datastore/wire"
)

const mib = 1 << 20

func TestBackupUpgradeChecks(t *testing.T) {
	l := newSessionLab(t)
	l.simple("alice", "vm/100", 1000)
	good := backupOf("alice", "vm/100", 2000)
	noTime := good.with("x", "y")
	noTime.params.Del("x")
	noTime.params.Del("backup-time")
	other := good
	other.protocol = wire.ReaderProtocol
	without := good
	without.protocol = ""
	for name, c := range map[string]struct {
		ask   upgradeRequest
		code  int
		words string
	}{
		"a parameter is missing":          {noTime, 400, "'backup-time'"},
		"a parameter is unknown":          {good.with("colour", "red"), 400, "'colour'"},
		"a parameter is bad":              {good.with("backup-type", "qm"), 400, "'backup-type'"},
		"parameters before privileges":    {backupOf("nobody", "qm/100", 2000), 400, "'backup-type'"},
		"no privilege":                    {backupOf("nobody", "vm/100", 2000), 403, "missing permissions 'Datastore.Backup' on '/datastore/tank'"},
		"a reader's privilege":            {backupOf("reader", "vm/100", 2000), 403, "missing permissions"},
		"another datastore":               {good.with("store", "nowhere"), 403, "missing permissions"},
		"no protocol":                     {without, 400, "missing Upgrade header"},
		"another protocol":                {other, 400, "invalid protocol name"},
		"protocol before namespace":       {other.with("ns", "nowhere"), 400, "invalid protocol name"},
		"namespace":                       {good.with("ns", "nowhere"), 404, "namespace not found"},
		"namespace before benchmark":      {good.with("ns", "nowhere").with("benchmark", "true"), 404, "namespace not found"},
		"benchmark of another group":      {good.with("benchmark", "true"), 400, "host/benchmark"},
		"the group of benchmarks":         {backupOf("alice", "host/benchmark", 2000), 400, "benchmark"},
		"another owner":                   {backupOf("bob", "vm/100", 2000), 400, "backup owner check failed"},
		"older than the newest":           {backupOf("alice", "vm/100", 999), 400, ""},
		"as old as the newest":            {backupOf("alice", "vm/100", 1000), 400, ""},
		"a credential that does not hold": {backupOf("stranger", "vm/100", 2000), 401, ""},
	} {
		code, text := l.refused(c.ask)
		if code != c.code || !strings.Contains(text, c.words) {
			t.Errorf("%s: %d %q, want %d with %q", name, code, text, c.code, c.words)
		}
	}
	if got := l.times("vm/100"); !slices.Equal(got, []int64{1000}) {
		t.Errorf("snapshots: %v", got)
	}
	k := l.begin(good.with("no-cache", "true").with("ns", ""))
	k.conn.Close()
	l.ended("backup")
}

func TestBackupReadOnlyStore(t *testing.T) {
	l := newSessionLab(t)
	d, err := l.access.Datastore("tank")
	l.must(err)
	d.Maintenance = "read-only"
	l.must(l.access.SetDatastore(d))
	without := backupOf("alice", "vm/100", 1000)
	without.protocol = "" // the mode is looked at before
	if code, text := l.refused(without); code != 400 || !strings.Contains(text, "maintenance") {
		t.Errorf("%d %s", code, text)
	}
}

// fixedImage is the image of section 15.3 of the protocol specification.
func (l *sessionLab) fixedImage() []entry {
	return []entry{{0, l.bitOf(1, 4*mib)}, {4 * mib, l.bitOf(2, 2*mib)}}
}

// backUpFixed runs section 15.3 with this content.
func (l *sessionLab) backUpFixed(when int64, list []entry, size int) {
	l.t.Helper()
	const group = "vm/100"
	k := l.begin(backupOf("alice", group, when))
	if when == 1000 && k.data(get("/previous_backup_time")) != nil {
		l.t.Error("a first backup has a previous one")
	}
	wid := int(k.data(post("/fixed_index", "archive-name", "disk.img.fidx", "size", size)).(float64))
	for _, e := range list {
		k.data(chunkUpload("fixed", wid, e.bit))
	}
	k.data(appendOf("fixed", wid, list...))
	s := summaryOf("fixed", list...)
	k.data(closeOf("fixed", wid, s))
	k.data(blobUpload(wire.ManifestName, l.manifestOf(group, when, indexFile("disk.img.fidx", s))))
	k.data(post("/finish"))
	k.conn.Close()
	if status := l.ended("backup"); status != "OK" {
		l.t.Errorf("task: %s", status)
	}
}

func TestMinimalBackupAndRestore(t *testing.T) {
	l := newSessionLab(t)
	list := l.fixedImage()
	l.backUpFixed(1000, list, 6*mib)
	if got := l.times("vm/100"); !slices.Equal(got, []int64{1000}) {
		t.Fatalf("snapshots: %v", got)
	}
	k := l.begin(readerOf("alice", "vm/100", 1000))
	m, err := manifest.Open(k.raw(get("/download", "file-name", wire.ManifestName)))
	l.must(err)
	var stats struct {
		Count          int `json:"count"`
		Size           int `json:"size"`
		CompressedSize int `json:"compressed_size"`
		Duplicates     int `json:"duplicates"`
	}
	l.must(json.Unmarshal(m.Unprotected["chunk_upload_stats"], &stats))
	stored := len(list[0].bit.raw) + len(list[1].bit.raw)
	if stats.Count != 2 || stats.Size < 6*mib || stats.CompressedSize != stored || stats.Duplicates != 0 {
		t.Errorf("statistics: %+v", stats)
	}
	raw := k.raw(get("/download", "file-name", "disk.img.fidx"))
	if len(raw) != 4096+64 {
		t.Errorf("index of %d bytes", len(raw))
	}
	idx, err := index.Open(bytes.NewReader(raw), int64(len(raw)), index.Fixed)
	l.must(err)
	if s, err := idx.Summary(); err != nil || s != summaryOf("fixed", list...) {
		t.Errorf("summary %v, %v", s, err)
	}
	for _, e := range list {
		if got := k.raw(get("/chunk", "digest", e.bit.id)); !bytes.Equal(got, e.bit.raw) {
			t.Errorf("chunk %s is not what was sent", e.bit.id.Short())
		}
	}
	k.conn.Close()
	if status := l.ended("reader"); status != "OK" {
		t.Errorf("reader task: %s", status)
	}
}

func TestIncrementalByPrevious(t *testing.T) {
	l := newSessionLab(t)
	old := l.simple("alice", "host/h1", 1000)
	k := l.begin(backupOf("alice", "host/h1", 2000))
	if got := k.data(get("/previous_backup_time")); got != float64(1000) {
		t.Errorf("previous time %v", got)
	}
	if _, err := manifest.Open(k.raw(get("/previous", "archive-name", wire.ManifestName))); err != nil {
		t.Error(err)
	}
	k.refuses(get("/previous", "archive-name", "other.didx"), 400, "")
	k.refuses(get("/previous", "archive-name", "other.blob"), 404, "")
	k.refuses(get("/previous", "archive-name", "other.txt"), 400, "")
	wid := int(k.data(post("/dynamic_index", "archive-name", "disk.img.didx")).(float64))
	k.refuses(appendOf("dynamic", wid, old...), 400, "no such chunk")
	raw := k.raw(get("/previous", "archive-name", "disk.img.didx"))
	if _, err := index.Open(bytes.NewReader(raw), int64(len(raw)), index.Dynamic); err != nil {
		t.Error(err)
	}
	fresh := l.bitOf(77, 500)
	k.data(chunkUpload("dynamic", wid, fresh))
	list := append(slices.Clone(old), entry{3000, fresh})
	k.data(appendOf("dynamic", wid, list...))
	s := summaryOf("dynamic", list...)
	k.data(closeOf("dynamic", wid, s))
	k.data(blobUpload(wire.ManifestName, l.manifestOf("host/h1", 2000, indexFile("disk.img.didx", s))))
	k.data(post("/finish"))
	if got := l.times("host/h1"); !slices.Equal(got, []int64{1000, 2000}) {
		t.Errorf("snapshots: %v", got)
	}
}

func TestIncrementalByReuse(t *testing.T) {
	l := newSessionLab(t)
	old := l.fixedImage()
	l.backUpFixed(1000, old, 6*mib)
	csum := summaryOf("fixed", old...).Csum
	k := l.begin(backupOf("alice", "vm/100", 2000))
	index := func(name string, size int, sum [32]byte) request {
		return post("/fixed_index", "archive-name", name, "size", size, "reuse-csum", hex.EncodeToString(sum[:]))
	}
	k.refuses(index("disk.img.fidx", 6*mib, [32]byte{1}), 400, "")
	k.refuses(index("other.img.fidx", 6*mib, csum), 400, "")
	k.refuses(index("disk.img.fidx", 9*mib, csum), 400, "")
	k.refuses(index("disk.img.fidx", 6*mib-1, csum), 400, "")
	k.refuses(post("/fixed_index", "archive-name", "disk.img.fidx", "reuse-csum", hex.EncodeToString(csum[:])), 400, "")
	wid := int(k.data(index("disk.img.fidx", 6*mib, csum)).(float64))
	fresh := l.bitOf(9, 4*mib)
	k.data(chunkUpload("fixed", wid, fresh))
	k.data(appendOf("fixed", wid, entry{0, fresh}))
	s := summaryOf("fixed", entry{0, fresh}, old[1])
	closing := closeOf("fixed", wid, s)
	closing.params.Set("chunk-count", "1")
	closing.params.Set("size", "4194304") // what was written, not what there is
	k.data(closing)
	k.data(blobUpload(wire.ManifestName, l.manifestOf("vm/100", 2000, indexFile("disk.img.fidx", s))))
	k.data(post("/finish"))
	k.conn.Close()

	clean := l.begin(backupOf("alice", "vm/100", 3000))
	wid = int(clean.data(index("disk.img.fidx", 6*mib, s.Csum)).(float64))
	closing = closeOf("fixed", wid, s)
	closing.params.Set("chunk-count", "0")
	closing.params.Set("size", "0")
	clean.data(closing)
	clean.data(blobUpload(wire.ManifestName, l.manifestOf("vm/100", 3000, indexFile("disk.img.fidx", s))))
	clean.data(post("/finish"))
	if got := l.times("vm/100"); !slices.Equal(got, []int64{1000, 2000, 3000}) {
		t.Errorf("snapshots: %v", got)
	}
}

func TestReuseWithoutBase(t *testing.T) {
	l := newSessionLab(t)
	k := l.begin(backupOf("alice", "vm/100", 1000))
	k.refuses(post("/fixed_index", "archive-name", "a.fidx", "size", 1, "reuse-csum", strings.Repeat("0", 64)), 400, "no valid previous")
	k.refuses(get("/previous", "archive-name", wire.ManifestName), 400, "no valid previous backup")
}

func TestChunkRefusals(t *testing.T) {
	l := newSessionLab(t)
	k := l.begin(backupOf("alice", "vm/100", 1000))
	k.data(post("/fixed_index", "archive-name", "a.fidx", "size", 10*mib))
	k.data(post("/dynamic_index", "archive-name", "b.didx"))
	good, short, short2, large := l.bitOf(1, 4*mib), l.bitOf(2, 2*mib), l.bitOf(3, mib), l.bitOf(4, 5*mib)
	edit := func(q request, name, value string) request {
		q.params.Set(name, value)
		return q
	}
	damaged := bit{good.id, good.size, slices.Clone(good.raw)}
	damaged.raw[len(damaged.raw)/2] ^= 1
	foreign := bit{short.id, good.size, good.raw}
	cut := chunkUpload("fixed", 1, good)
	cut.body = io.MultiReader(bytes.NewReader(good.raw[:20]))
	long := chunkUpload("fixed", 1, good)
	long.body = io.MultiReader(bytes.NewReader(good.raw), strings.NewReader("x"))
	for name, q := range map[string]request{
		"unknown writer":          chunkUpload("fixed", 3, good),
		"writer of another kind":  chunkUpload("fixed", 2, good),
		"writer 0":                chunkUpload("fixed", 0, good),
		"writer 257":              chunkUpload("fixed", 257, good),
		"too large for the index": chunkUpload("fixed", 1, large),
		"another size":            edit(chunkUpload("fixed", 1, good), "size", "4194303"),
		"size 0":                  edit(chunkUpload("fixed", 1, good), "size", "0"),
		"size beyond":             edit(chunkUpload("dynamic", 2, good), "size", "16777217"),
		"upper-case digest":       edit(chunkUpload("fixed", 1, good), "digest", strings.ToUpper(good.id.String())),
		"announced as shorter":    edit(chunkUpload("fixed", 1, good), "encoded-size", "20"),
		"announced as longer":     edit(chunkUpload("fixed", 1, good), "encoded-size", "16777260"),
		"announced beyond":        edit(chunkUpload("fixed", 1, good), "encoded-size", "16777261"),
		"ends early":              cut,
		"goes on":                 long,
		"damaged":                 chunkUpload("fixed", 1, damaged),
		"content of another":      chunkUpload("fixed", 1, foreign),
		"one parameter too many":  edit(chunkUpload("fixed", 1, good), "colour", "red"),
	} {
		if code, text := k.fails(q); code != 400 {
			t.Errorf("%s: %d %s", name, code, text)
		}
	}
	k.refuses(appendOf("fixed", 1, entry{0, good}), 400, "no such chunk")
	k.data(chunkUpload("fixed", 1, short))
	k.refuses(chunkUpload("fixed", 1, short2), 400, "multiple end chunks")
	k.refuses(chunkUpload("fixed", 1, short), 400, "multiple end chunks")
	k.refuses(appendOf("fixed", 1, entry{8 * mib, short2}), 400, "no such chunk")
	k.data(chunkUpload("dynamic", 2, short2)) // a dynamic index has chunks of any size
	k.data(appendOf("fixed", 1, entry{8 * mib, short}))
}

func TestIndexRefusals(t *testing.T) {
	l := newSessionLab(t)
	k := l.begin(backupOf("alice", "vm/100", 1000))
	k.refuses(post("/fixed_index", "archive-name", "a.didx", "size", 1), 400, "")
	k.refuses(post("/dynamic_index", "archive-name", "a.fidx"), 400, "")
	k.refuses(post("/dynamic_index", "archive-name", "../a.didx"), 400, "")
	k.refuses(post("/fixed_index", "archive-name", "a.fidx", "size", 0), 400, "")
	k.data(post("/fixed_index", "archive-name", "a.fidx", "size", 10*mib))
	k.refuses(post("/fixed_index", "archive-name", "a.fidx", "size", 10*mib), 400, "")
	k.data(post("/dynamic_index", "archive-name", "b.didx"))
	a, b, end := l.bitOf(1, 4*mib), l.bitOf(2, 1000), l.bitOf(3, 2*mib)
	k.data(chunkUpload("fixed", 1, a))
	k.data(chunkUpload("fixed", 1, end))
	k.data(chunkUpload("dynamic", 2, b))
	unequal := appendOf("dynamic", 2, entry{0, b})
	unequal.body = strings.NewReader(`{"wid":2,"digest-list":["` + b.id.String() + `"],"offset-list":[]}`)
	huge := appendOf("dynamic", 2)
	huge.body = io.MultiReader(strings.NewReader(`{"wid":2,`), bytes.NewReader(bytes.Repeat([]byte(" "), wire.ParamBodyMax)), strings.NewReader(`"digest-list":[],"offset-list":[]}`))
	for name, q := range map[string]request{
		"gap":                  appendOf("dynamic", 2, entry{1, b}),
		"another kind":         appendOf("fixed", 2, entry{0, b}),
		"not aligned":          appendOf("fixed", 1, entry{1, a}),
		"beyond the end":       appendOf("fixed", 1, entry{12 * mib, a}),
		"over the end":         appendOf("fixed", 1, entry{8 * mib, a}),
		"short in the middle":  appendOf("fixed", 1, entry{4 * mib, end}),
		"lists differ":         unequal,
		"body is too large":    huge,
		"close with wid 3":     closeOf("dynamic", 3, index.Summary{Count: 1, Size: 1}),
		"close without chunks": closeOf("dynamic", 2, index.Summary{}),
	} {
		if code, text := k.fails(q); code != 400 {
			t.Errorf("%s: %d %s", name, code, text)
		}
	}
	k.data(appendOf("dynamic", 2)) // both lists empty
	k.data(appendOf("fixed", 1, entry{8 * mib, end}, entry{0, a}))
	stranger := l.bitOf(99, 10)
	k.refuses(appendOf("dynamic", 2, entry{0, b}, entry{1000, stranger}, entry{1010, b}), 400, "no such chunk "+stranger.id.String())
	k.data(appendOf("dynamic", 2, entry{1000, b})) // the entry before the bad one has stayed
	list := []entry{{0, b}, {1000, b}}
	wrong := summaryOf("dynamic", list...)
	wrong.Csum[0] ^= 1
	k.refuses(closeOf("dynamic", 2, wrong), 400, "")
	k.refuses(closeOf("dynamic", 2, summaryOf("dynamic", list...)), 400, "not registered")
	k.refuses(appendOf("dynamic", 2, entry{2000, b}), 400, "not registered")
	k.refuses(chunkUpload("dynamic", 2, b), 400, "not registered")
	if wid := k.data(post("/dynamic_index", "archive-name", "b.didx")); wid != float64(3) {
		t.Errorf("the next writer is %v", wid)
	}
	incomplete := summaryOf("fixed", entry{8 * mib, end}, entry{0, a})
	incomplete.Size = 10 * mib
	k.refuses(closeOf("fixed", 1, incomplete), 400, "")
}

func TestFinishRefusals(t *testing.T) {
	l := newSessionLab(t)
	k := l.begin(backupOf("alice", "vm/100", 1000))
	k.refuses(post("/finish"), 400, "file count == 0")
	list := k.archive("a.didx", 1)
	k.refuses(post("/finish"), 400, "")
	s := summaryOf("dynamic", list...)
	good := l.manifestOf("vm/100", 1000, indexFile("a.didx", s))
	k.refuses(blobUpload("a.didx", good), 400, "")
	damaged := slices.Clone(good)
	damaged[len(damaged)-1] ^= 1
	k.refuses(blobUpload(wire.ManifestName, damaged), 400, "")
	k.data(blobUpload(wire.ManifestName, l.manifestOf("vm/101", 1000, indexFile("a.didx", s))))
	k.refuses(post("/finish"), 400, "")
	k.data(blobUpload(wire.ManifestName, good))
	k.data(post("/dynamic_index", "archive-name", "b.didx"))
	k.refuses(post("/finish"), 400, "open index writer")
	k.refuses(closeOf("dynamic", 2, index.Summary{Count: 1, Size: 1}), 400, "")
	k.refuses(post("/finish", "colour", "red"), 400, "'colour'")
	k.data(post("/finish"))
	for _, q := range []request{
		post("/finish"), post("/dynamic_index", "archive-name", "c.didx"), blobUpload("c.blob", good), blobUpload(wire.ManifestName, good),
		chunkUpload("dynamic", 1, list[0].bit), appendOf("dynamic", 1, list...), get(wire.ResumePath),
	} {
		k.refuses(q, 400, "backup already marked as finished")
	}
	if got := k.data(get("/previous_backup_time")); got != nil {
		t.Errorf("previous time after finish: %v", got)
	}
	k.conn.Close()
	if status := l.ended("backup"); status != "OK" {
		t.Errorf("task: %s", status)
	}
}

func TestPathsOfTheSession(t *testing.T) {
	l := newSessionLab(t)
	k := l.begin(backupOf("alice", "vm/100", 1000))
	k.refuses(get("/nothing"), 404, "Path '/nothing' not found.")
	k.refuses(get("/finish"), 404, "")
	k.refuses(request{verb: http.MethodDelete, path: "/blob"}, 404, "")
	list, ok := k.data(get("/")).([]any)
	if !ok || len(list) < 10 {
		t.Errorf("subdirectories: %v", list)
	}
}

// left lists what sessions have left behind.
func (l *sessionLab) left() []string {
	l.t.Helper()
	names, err := os.ReadDir(filepath.Join(l.dir, "tank", ".tmp"))
	l.must(err)
	var list []string
	for _, n := range names {
		if n.IsDir() {
			list = append(list, n.Name())
		}
	}
	return list
}

func TestDisconnect(t *testing.T) {
	for name, leave := range map[string]func(*talk){
		"at once":                 func(k *talk) {},
		"with an open index":      func(k *talk) { k.data(post("/dynamic_index", "archive-name", "a.didx")) },
		"with everything but end": func(k *talk) { k.archive("a.didx", 1) },
		"in a chunk": func(k *talk) {
			k.data(post("/dynamic_index", "archive-name", "a.didx"))
			q := chunkUpload("dynamic", 1, k.lab.bitOf(1, mib))
			r, w := io.Pipe()
			q.body = r
			go k.send(context.Background(), q)
			w.Write(make([]byte, 10))
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newSessionLab(t)
			k := l.begin(backupOf("alice", "vm/100", 1000))
			leave(k)
			k.conn.Close()
			if status := l.ended("backup"); status != "backup ended but finished flag is not set" {
				t.Errorf("task: %s", status)
			}
			if left := l.left(); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
			if n := l.server.accounts.Known.Used(); n != 0 {
				t.Errorf("%d chunks are still remembered", n)
			}
			l.simple("alice", "vm/100", 1000) // the group is free and the name too
		})
	}
}

func TestTwoSessionsOfAGroup(t *testing.T) {
	l := newSessionLab(t)
	k := l.begin(backupOf("alice", "vm/100", 1000))
	if code, text := l.refused(backupOf("alice", "vm/100", 2000)); code != 400 || !strings.Contains(text, "another backup is already running") {
		t.Errorf("%d %s", code, text)
	}
	l.simple("alice", "vm/101", 1000)
	list := k.archive("a.didx", 1)
	k.data(blobUpload(wire.ManifestName, l.manifestOf("vm/100", 1000, indexFile("a.didx", summaryOf("dynamic", list...)))))
	k.data(post("/finish"))
	l.simple("alice", "vm/100", 2000) // while the first connection is still open
}

// Whoever comes back right after he has broken off a session finds the group
// free, however long the server takes to notice.
func TestComeBackAtOnce(t *testing.T) {
	l := newSessionLab(t)
	for i := range 20 {
		k := l.begin(backupOf("alice", "vm/100", 1000+int64(i)))
		k.archive("a.didx", 1)
		if i%2 == 0 {
			k.conn.Close()
		} else {
			k.conn.(*ahead).cut()
		}
	}
	l.simple("alice", "vm/100", 2000)
}

func TestOwnerStays(t *testing.T) {
	l := newSessionLab(t)
	k := l.begin(backupOf("alice", "vm/100", 1000))
	k.conn.Close()
	l.ended("backup")
	if code, text := l.refused(backupOf("bob", "vm/100", 2000)); code != 400 || text != "backup owner check failed (bob@pbs!key is not the owner)" {
		t.Errorf("%d %s", code, text)
	}
	if got := l.times("vm/100"); got != nil {
		t.Errorf("snapshots: %v", got)
	}
}

func TestTaskAbort(t *testing.T) {
	l := newSessionLab(t)
	k := l.begin(backupOf("alice", "vm/100", 1000))
	k.archive("a.didx", 1)
	list, err := l.tasks.List(task.Filter{Type: "backup"})
	l.must(err)
	if len(list) != 1 || list[0].UPID.ID != "tank:vm/100" || list[0].UPID.Auth != "alice@pbs!key" {
		t.Fatalf("tasks: %+v", list)
	}
	body, more := io.Pipe()
	open := make(chan string, 1)
	go func() {
		q := post("/blob", "file-name", "a.blob", "encoded-size", 100)
		q.body = body
		code, text, err := k.send(context.Background(), q)
		open <- fmt.Sprint(code, " ", string(text), " ", err)
	}()
	_, err = more.Write([]byte("x")) // the request is under way
	l.must(err)
	l.must(l.tasks.Stop(list[0].UPID, "root@pam"))
	more.Close()
	if got := <-open; got != "400 the session was stopped by root@pam: task aborted <nil>" {
		t.Errorf("the open request: %s", got)
	}
	if status := l.ended("backup"); status != "task aborted" {
		t.Errorf("task: %s", status)
	}
	l.simple("alice", "vm/100", 1000) // the group is free, although
	for range 2 {
		code, text, err := k.send(context.Background(), get("/previous_backup_time"))
		if err != nil || code != 400 || string(text) != "the session was stopped by root@pam: task aborted" {
			t.Errorf("the next request: %d %q, %v", code, text, err)
		}
	}
}

func TestBenchmark(t *testing.T) {
	l := newSessionLab(t)
	k := l.begin(backupOf("alice", "host/benchmark", 1000).with("benchmark", "true"))
	for _, n := range []int{0, 1, 4 * mib} {
		q := post("/speedtest")
		q.body = bytes.NewReader(make([]byte, n))
		if k.data(q) != nil {
			t.Error("speedtest answers something")
		}
	}
	k.refuses(post("/speedtest", "x", 1), 400, "")
	k.conn.Close()
	if status := l.ended("benchmark"); status != "OK" {
		t.Errorf("task: %s", status)
	}
	if got := l.times("host/benchmark"); got != nil {
		t.Errorf("snapshots: %v", got)
	}
	again := l.begin(backupOf("bob", "host/benchmark", 1000).with("benchmark", "true"))
	again.conn.Close()
}

func TestUnknownSize(t *testing.T) {
	l := newSessionLab(t)
	k := l.begin(backupOf("alice", "vm/100", 1000))
	wid := int(k.data(post("/fixed_index", "archive-name", "pipe.img.fidx")).(float64))
	list := l.fixedImage()
	for _, e := range list {
		k.data(chunkUpload("fixed", wid, e.bit))
	}
	k.data(appendOf("fixed", wid, list...))
	s := summaryOf("fixed", list...)
	k.data(closeOf("fixed", wid, s))
	k.data(blobUpload(wire.ManifestName, l.manifestOf("vm/100", 1000, indexFile("pipe.img.fidx", s))))
	k.data(post("/finish"))
}

func TestResume(t *testing.T) {
	l := newSessionLab(t)
	k := l.begin(backupOf("alice", "vm/100", 1000))
	list := k.archive("a.didx", 1)
	k.conn.Close()
	l.ended("backup")
	k = l.begin(backupOf("alice", "vm/100", 2000))
	got, err := wire.ParseChunkSizes(k.raw(get(wire.ResumePath)))
	l.must(err)
	for _, e := range list {
		if !slices.Contains(got, wire.ChunkSize{ID: e.bit.id, Size: uint32(e.bit.size)}) {
			t.Errorf("chunk %s is not among %d to resume", e.bit.id.Short(), len(got))
		}
	}
	k.data(post("/dynamic_index", "archive-name", "a.didx"))
	k.data(appendOf("dynamic", 1, list...))
	s := summaryOf("dynamic", list...)
	k.data(closeOf("dynamic", 1, s))
	k.data(blobUpload(wire.ManifestName, l.manifestOf("vm/100", 2000, indexFile("a.didx", s))))
	k.data(post("/finish"))
	k.conn.Close()
	k = l.begin(backupOf("bob", "vm/200", 1000))
	if got := k.raw(get(wire.ResumePath)); len(got) > 0 {
		t.Errorf("another group resumes with %d bytes", len(got))
	}
}

func TestPutOnly(t *testing.T) {
	l := newSessionLab(t)
	k := l.begin(backupOf("putter", "vm/100", 1000))
	list := k.archive("a.didx", 1)
	conf := l.manifestOf("vm/1", 1) // any blob
	k.data(blobUpload("secret.conf.blob", conf))
	k.data(blobUpload(wire.ManifestName, l.manifestOf("vm/100", 1000,
		indexFile("a.didx", summaryOf("dynamic", list...)), blobFile("secret.conf.blob", conf))))
	k.data(post("/finish"))
	k.conn.Close()
	k = l.begin(backupOf("putter", "vm/100", 2000))
	k.raw(get("/previous", "archive-name", wire.ManifestName))
	k.raw(get("/previous", "archive-name", "a.didx"))
	k.refuses(get("/previous", "archive-name", "secret.conf.blob"), 403, "")
	// A client that goes by metadata looks for it in what its backup builds on.
	r := l.begin(readerOf("putter", "vm/100", 1000))
	r.raw(get("/download", "file-name", wire.ManifestName))
	r.refuses(get("/download", "file-name", "a.didx"), 403, "permission denied")
	r.refuses(get("/download", "file-name", "secret.conf.blob"), 403, "permission denied")
	r.refuses(get("/chunk", "digest", list[0].bit.id), 401, "not allowed")
	k.conn.Close()
	l.endedAll("backup")
	if code, _ := l.refused(readerOf("putter", "vm/100", 1000)); code != 400 {
		t.Errorf("a reader session without a backup: %d", code)
	}
}

func TestPreviousWithLostChunk(t *testing.T) {
	l := newSessionLab(t)
	list := l.simple("alice", "vm/100", 1000)
	packs, err := filepath.Glob(filepath.Join(l.dir, "tank", ".chunks", "packs", "*"))
	l.must(err)
	for _, p := range packs {
		l.must(os.Chmod(p, 0o600))
		raw, err := os.ReadFile(p)
		l.must(err)
		at := bytes.Index(raw, list[0].bit.raw)
		if at < 0 {
			continue
		}
		f, err := os.OpenFile(p, os.O_RDWR, 0)
		l.must(err)
		_, err = f.WriteAt([]byte{raw[at+15] ^ 1}, int64(at+15))
		l.must(err)
		l.must(f.Close())
	}
	if err := l.store().Check(context.Background(), list[0].bit.key("alice@pbs")); err == nil {
		t.Fatal("the chunk is not damaged")
	}
	k := l.begin(backupOf("alice", "vm/100", 2000))
	k.refuses(get("/previous", "archive-name", "disk.img.didx"), 400, "not stored any more")
	k.data(post("/dynamic_index", "archive-name", "disk.img.didx"))
	k.refuses(appendOf("dynamic", 1, list[1]), 400, "no such chunk")
	for _, e := range list {
		k.data(chunkUpload("dynamic", 1, e.bit))
	}
	l.must(l.store().Check(context.Background(), list[0].bit.key("alice@pbs")))
}

func TestVerifyNew(t *testing.T) {
	l := newSessionLab(t)
	d, err := l.access.Datastore("tank")
	l.must(err)
	d.VerifyNew = true
	l.must(l.access.SetDatastore(d))
	l.simple("alice", "vm/100", 1000)
	if status := l.ended("verify"); status != "OK" {
		t.Errorf("verify: %s", status)
	}
	list, err := l.store().Snapshots(context.Background(), wire.Group{Type: "vm", ID: "100"})
	l.must(err)
	if list[0].Verify == nil || list[0].Verify.State != wire.VerifyOK {
		t.Errorf("state: %+v", list[0].Verify)
	}
}

func TestQuotas(t *testing.T) {
	l := newSessionLab(t)
	l.must(l.access.SetQuota(access.Quota{Subject: "alice@pbs", BytesMax: 5000 + 5*datastore.FileBytes}))
	l.simple("alice", "vm/100", 1000) // 3000 bytes and three files
	k := l.begin(backupOf("alice", "vm/101", 1000))
	k.refuses(post("/fixed_index", "archive-name", "a.fidx", "size", mib), 507, "quota")
	k.data(post("/dynamic_index", "archive-name", "a.didx"))
	one := l.bitOf(1, 1400)
	k.data(chunkUpload("dynamic", 1, one))
	k.data(appendOf("dynamic", 1, entry{0, one}))
	k.refuses(appendOf("dynamic", 1, entry{1400, one}), 507, "quota")
	k.conn.Close()
	l.ended("backup")
	l.simple("bob", "vm/102", 1000)
	l.must(l.access.SetQuota(access.Quota{Subject: "/datastore/tank", SnapshotsPerDay: 1}))
	l.simple("bob", "vm/102", 2000)
	if code, text := l.refused(backupOf("bob", "vm/102", 3000)); code != 507 || !strings.Contains(text, "1 snapshots a day") {
		t.Errorf("%d %s", code, text)
	}
}

// piecewise hands out a little at a time.
type piecewise struct{ from io.Reader }

func (r *piecewise) Read(p []byte) (int, error) {
	time.Sleep(time.Millisecond)
	return r.from.Read(p[:min(len(p), 8<<10)])
}

func TestSlowUploadsDoNotStarve(t *testing.T) {
	l := newSessionLab(t)
	l.server.accounts.Incoming = tight(chunkstore.BlobSizeMax + 2*mib)
	k := l.begin(backupOf("alice", "vm/100", 1000))
	k.data(post("/dynamic_index", "archive-name", "a.didx"))
	const uploads = 70
	list := make([]request, uploads)
	for i := range list {
		list[i] = chunkUpload("dynamic", 1, l.incompressible(byte(i), mib))
		list[i].body = &piecewise{list[i].body} // so that all of them go on at the same pace
	}
	done := make(chan error, uploads)
	for _, q := range list {
		go func() {
			code, text, err := k.send(context.Background(), q)
			if err == nil && code != http.StatusOK {
				err = &rest.StatusError{Code: code, Text: string(text)}
			}
			done <- err
		}()
	}
	for range uploads {
		select {
		case err := <-done:
			l.must(err)
		case <-time.After(testWait):
			t.Fatal("the uploads wait for each other")
		}
	}
}

// incompressible is a chunk that is as long sealed as it is plain.
func (l *sessionLab) incompressible(seed byte, n int) bit {
	l.t.Helper()
	plain := make([]byte, n)
	for i := 0; i < n; i += sha256.Size {
		sum := sha256.Sum256([]byte{seed, byte(i >> 5), byte(i >> 13), byte(i >> 21)})
		copy(plain[i:], sum[:])
	}
	raw, err := l.codec.Encode(nil, plain)
	l.must(err)
	return bit{id: l.codec.Name(plain), size: n, raw: raw}
}
