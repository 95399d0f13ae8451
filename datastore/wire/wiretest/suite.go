package wiretest

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"

	"holdfast/chunkstore"
	"holdfast/chunkstore/blob"
	"holdfast/crypto"
	"holdfast/datastore/index"
	"holdfast/datastore/manifest"
	"holdfast/datastore/wire"
)

// Ports is what the suite runs on: three sides of one thing.
type Ports struct {
	wire.Source
	wire.Target
	wire.Manager
}

// Run checks that an implementation of the ports keeps their promises. open
// returns an empty one.
func Run(t *testing.T, open func(t *testing.T) Ports) {
	for name, test := range map[string]func(*testing.T, Ports){
		"what is finished is there":        finished,
		"what is not finished is not":      unfinished,
		"snapshots only get newer":         newer,
		"one session to a group":           busy,
		"finish proves every size":         provesSizes,
		"finish proves every reference":    proves,
		"finish checks the manifest":       checksManifest,
		"an index must be as announced":    announced,
		"previous is the newest":           previous,
		"names go through the grammar":     names,
		"notes, protection and forgetting": manages,
		"namespaces are apart":             namespaces,
		"one listing has all of them":      allSnapshots,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

func snapshot(id string, time int64) wire.Snapshot {
	return wire.Snapshot{Group: wire.Group{Type: "vm", ID: id}, Time: time}
}

// draft is a small snapshot being written by hand.
type draft struct {
	t     testing.TB
	key   *crypto.Key // nil: not encrypted
	codec *blob.Codec
	sess  wire.Session
	man   manifest.Manifest
}

func begin(t *testing.T, p Ports, s wire.Snapshot) *draft {
	t.Helper()
	return beginWith(t, p, s, nil)
}

func beginWith(t testing.TB, p wire.Target, s wire.Snapshot, key *crypto.Key) *draft {
	t.Helper()
	codec, err := blob.NewCodec(blob.Options{Workers: 1, Key: key, Encrypt: key != nil})
	if err != nil {
		t.Fatal(err)
	}
	sess, err := p.Begin(t.Context(), s)
	if err != nil {
		t.Fatalf("begin %s: %v", s, err)
	}
	return &draft{t: t, key: key, codec: codec, sess: sess, man: manifest.Manifest{Type: s.Group.Type, ID: s.Group.ID, Time: s.Time}}
}

func (d *draft) chunk(content string) chunkstore.Chunk {
	d.t.Helper()
	raw, err := d.codec.Encode(nil, chunkstore.Plain(content))
	if err != nil {
		d.t.Fatal(err)
	}
	return chunkstore.Chunk{ID: d.codec.Name(chunkstore.Plain(content)), PlainSize: uint32(len(content)), Blob: raw}
}

// index writes an archive of these chunks; those in skip are not put.
func (d *draft) index(name string, skip string, contents ...string) {
	d.t.Helper()
	w, err := d.sess.Create(d.t.Context(), name, -1)
	if err != nil {
		d.t.Fatal(err)
	}
	sum := index.NewSummer(index.Dynamic)
	off := uint64(0)
	for _, content := range contents {
		c := d.chunk(content)
		if content != skip {
			if _, err := w.PutChunk(d.t.Context(), c); err != nil {
				d.t.Fatal(err)
			}
		}
		e := index.Entry{Off: off, Size: c.PlainSize, ID: c.ID}
		off += uint64(c.PlainSize)
		sum.Add(e)
		if err := w.Append(d.t.Context(), []index.Entry{e}); err != nil && content != skip {
			d.t.Fatal(err)
		} else if err != nil {
			return // an implementation may refuse right away
		}
	}
	s := sum.Summary()
	if err := w.Close(d.t.Context(), s); err != nil {
		d.t.Fatal(err)
	}
	mode := crypto.ModeNone
	if d.key != nil {
		mode = crypto.ModeEncrypt
	}
	d.man.Files = append(d.man.Files, manifest.File{Name: name, CryptMode: mode, Size: s.Size, Csum: s.Csum})
}

// note writes a small file.
func (d *draft) note(name, content string) {
	d.t.Helper()
	c := d.chunk(content)
	if err := d.sess.Blob(d.t.Context(), name, c.Blob); err != nil {
		d.t.Fatal(err)
	}
	f := manifest.File{Name: name, CryptMode: crypto.ModeNone, Size: uint64(len(c.Blob)), Csum: sumOf(c.Blob)}
	if d.key != nil {
		f.CryptMode = crypto.ModeEncrypt
	}
	d.man.Files = append(d.man.Files, f)
}

func (d *draft) finish() error {
	d.t.Helper()
	if d.key != nil {
		if err := d.man.Sign(d.key); err != nil {
			d.t.Fatal(err)
		}
	}
	raw, err := d.man.Blob()
	if err != nil {
		d.t.Fatal(err)
	}
	if err := d.sess.Blob(d.t.Context(), wire.ManifestName, raw); err != nil {
		return err
	}
	return d.sess.Finish(d.t.Context())
}

func (d *draft) close() {
	d.t.Helper()
	if err := d.sess.Close(); err != nil {
		d.t.Fatal(err)
	}
}

func store(t *testing.T, p Ports, s wire.Snapshot, contents ...string) {
	t.Helper()
	Store(t, p, Content{Snapshot: s, Chunks: contents})
}

// Content is a snapshot of one archive, disk.img.didx, whose chunks have the
// contents given, and a small file, note.conf.blob, if Note is not empty; encrypted
// and signed if there is a key.
type Content struct {
	Snapshot wire.Snapshot
	Key      *crypto.Key
	Chunks   []string
	Note     string
}

// Store writes a complete snapshot.
func Store(t testing.TB, p wire.Target, c Content) {
	t.Helper()
	d := beginWith(t, p, c.Snapshot, c.Key)
	d.index("disk.img.didx", "", c.Chunks...)
	if c.Note != "" {
		d.note("note.conf.blob", c.Note)
	}
	if err := d.finish(); err != nil {
		t.Fatal(err)
	}
	d.close()
}

func listed(t *testing.T, p Ports, g wire.Group) []int64 {
	t.Helper()
	list, err := p.Snapshots(t.Context(), g)
	if err != nil && !errors.Is(err, chunkstore.ErrNotExist) {
		t.Fatal(err)
	}
	var times []int64
	for _, s := range list {
		times = append(times, s.Snapshot.Time)
	}
	return times
}

func finished(t *testing.T, p Ports) {
	s := snapshot("100", 1000)
	store(t, p, s, "hello ", "world", "hello ")
	if got := listed(t, p, s.Group); !slices.Equal(got, []int64{1000}) {
		t.Fatalf("listed: %v", got)
	}
	groups, err := p.Groups(t.Context(), "")
	if err != nil || len(groups) != 1 || groups[0].Group != s.Group || groups[0].Count != 1 || groups[0].LastTime != 1000 {
		t.Fatalf("groups: %+v, %v", groups, err)
	}
	r, err := p.Open(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	idx, err := r.Index(t.Context(), "disk.img.didx")
	if err != nil {
		t.Fatal(err)
	}
	defer idx.Close()
	codec, err := blob.NewCodec(blob.Options{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	var all []byte
	for e, err := range idx.All(0) {
		if err != nil {
			t.Fatal(err)
		}
		raw, err := r.Get(t.Context(), chunkstore.Ref{ID: e.ID, Size: e.Size})
		if err != nil {
			t.Fatal(err)
		}
		plain, err := codec.DecodeChunk(nil, e.ID, raw, int(e.Size))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, plain...)
	}
	if string(all) != "hello worldhello " {
		t.Fatalf("content is %q", all)
	}
	if _, err := r.Get(t.Context(), chunkstore.Ref{ID: chunkstore.ID{1}, Size: 1}); !errors.Is(err, chunkstore.ErrNotExist) {
		t.Errorf("a chunk that is not there: %v", err)
	}
	if _, err := r.Blob(t.Context(), "nothing.blob"); !errors.Is(err, chunkstore.ErrNotExist) {
		t.Errorf("a blob that is not there: %v", err)
	}
}

func unfinished(t *testing.T, p Ports) {
	s := snapshot("100", 1000)
	d := begin(t, p, s)
	d.index("disk.img.didx", "", "content")
	if got := listed(t, p, s.Group); len(got) != 0 {
		t.Errorf("listed while it is written: %v", got)
	}
	d.close()
	if got := listed(t, p, s.Group); len(got) != 0 {
		t.Errorf("listed after it was given up: %v", got)
	}
	if _, err := p.Open(t.Context(), s); !errors.Is(err, chunkstore.ErrNotExist) {
		t.Errorf("opened: %v", err)
	}
	if groups, err := p.Groups(t.Context(), ""); err != nil || len(groups) != 0 {
		t.Errorf("groups: %v %v", groups, err)
	}
	store(t, p, s, "content") // the same name is free
}

func newer(t *testing.T, p Ports) {
	store(t, p, snapshot("100", 1000), "a")
	for _, time := range []int64{999, 1000} {
		if _, err := p.Begin(t.Context(), snapshot("100", time)); !errors.Is(err, wire.ErrExists) {
			t.Errorf("begin at %d: %v", time, err)
		}
	}
	store(t, p, snapshot("100", 1001), "a")
	store(t, p, snapshot("101", 5), "a")
	if got := listed(t, p, snapshot("100", 1).Group); !slices.Equal(got, []int64{1000, 1001}) {
		t.Errorf("listed: %v", got)
	}
}

func busy(t *testing.T, p Ports) {
	d := begin(t, p, snapshot("100", 1000))
	if _, err := p.Begin(t.Context(), snapshot("100", 2000)); !errors.Is(err, wire.ErrBusy) {
		t.Errorf("second session in the group: %v", err)
	}
	other := begin(t, p, snapshot("101", 1000))
	other.close()
	d.close()
	begin(t, p, snapshot("100", 2000)).close()
}

func proves(t *testing.T, p Ports) {
	s := snapshot("100", 1000)
	d := begin(t, p, s)
	d.index("disk.img.didx", "never sent", "sent", "never sent", "sent too")
	if err := d.finish(); err == nil {
		t.Error("a snapshot with a missing chunk was finished")
	}
	d.close()
	if got := listed(t, p, s.Group); len(got) != 0 {
		t.Errorf("listed: %v", got)
	}
}

// provesSizes repeats a chunk under another size, right behind the first.
func provesSizes(t *testing.T, p Ports) {
	d := begin(t, p, snapshot("100", 1000))
	defer d.close()
	c := d.chunk("content")
	w, err := d.sess.Create(t.Context(), "disk.img.didx", -1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.PutChunk(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	sum := index.NewSummer(index.Dynamic)
	list := []index.Entry{{Size: c.PlainSize, ID: c.ID}, {Off: uint64(c.PlainSize), Size: c.PlainSize + 1, ID: c.ID}}
	for _, e := range list {
		sum.Add(e)
	}
	if err := w.Append(t.Context(), list); err != nil {
		return // refused right away
	}
	s := sum.Summary()
	if err := w.Close(t.Context(), s); err != nil {
		return
	}
	d.man.Files = []manifest.File{{Name: "disk.img.didx", CryptMode: crypto.ModeNone, Size: s.Size, Csum: s.Csum}}
	if err := d.finish(); err == nil {
		t.Error("a snapshot with a chunk of the wrong size was finished")
	}
}

func checksManifest(t *testing.T, p Ports) {
	for name, change := range map[string]func(*manifest.Manifest){
		"another snapshot's": func(m *manifest.Manifest) { m.Time++ },
		"a file not sent":    func(m *manifest.Manifest) { m.Files[0].Name = "other.img.didx" },
		"another checksum":   func(m *manifest.Manifest) { m.Files[0].Csum[0] ^= 1 },
		"another size":       func(m *manifest.Manifest) { m.Files[0].Size++ },
	} {
		d := begin(t, p, snapshot("100", 1000))
		d.index("disk.img.didx", "", "content")
		change(&d.man)
		if err := d.finish(); err == nil {
			t.Errorf("%s: finished", name)
		}
		d.close()
	}
}

func announced(t *testing.T, p Ports) {
	d := begin(t, p, snapshot("100", 1000))
	defer d.close()
	c := d.chunk("content")
	w, err := d.sess.Create(t.Context(), "disk.img.didx", -1)
	if err != nil {
		t.Fatal(err)
	}
	if added, err := w.PutChunk(t.Context(), c); err != nil || !added {
		t.Fatalf("put: %v %v", added, err)
	}
	if added, err := w.PutChunk(t.Context(), c); err != nil || added {
		t.Errorf("put again: %v %v, want it to be known", added, err)
	}
	if _, err := w.PutChunk(t.Context(), chunkstore.Chunk{ID: c.ID, PlainSize: 0, Blob: c.Blob}); !errors.Is(err, chunkstore.ErrInvalid) {
		t.Errorf("chunk of no size: %v", err)
	}
	e := index.Entry{Size: c.PlainSize, ID: c.ID}
	if err := w.Append(t.Context(), []index.Entry{e}); err != nil {
		t.Fatal(err)
	}
	sum := index.NewSummer(index.Dynamic)
	sum.Add(e)
	wrong := sum.Summary()
	wrong.Csum[5] ^= 1
	if err := w.Close(t.Context(), wrong); !errors.Is(err, chunkstore.ErrInvalid) {
		t.Errorf("closed with a wrong checksum: %v", err)
	}
}

func previous(t *testing.T, p Ports) {
	d := begin(t, p, snapshot("100", 1))
	if _, err := d.sess.Previous(t.Context()); !errors.Is(err, chunkstore.ErrNotExist) {
		t.Errorf("previous of the first: %v", err)
	}
	d.close()
	store(t, p, snapshot("100", 10), "old")
	store(t, p, snapshot("100", 20), "new")
	store(t, p, snapshot("101", 30), "other")
	d = begin(t, p, snapshot("100", 40))
	defer d.close()
	r, err := d.sess.Previous(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if r.Snapshot() != snapshot("100", 20) {
		t.Errorf("previous is %s", r.Snapshot())
	}
	d.index("disk.img.didx", "new", "new") // known, so it need not be sent
	if err := d.finish(); err != nil {
		t.Error(err)
	}
}

// hostile are names that must never reach a file system.
var hostile = []string{"", ".", "..", "../x", "a/b", "/etc/passwd", "a\x00b", "-x", ".hidden", "a b", "ä", string(bytes.Repeat([]byte("x"), 300)), "x\n", `a\b`}

func names(t *testing.T, p Ports) {
	d := begin(t, p, snapshot("100", 1000))
	defer d.close()
	for _, n := range hostile {
		for _, ext := range []string{".blob", ".didx", ".fidx", ""} {
			if err := d.sess.Blob(t.Context(), n+ext, d.chunk("x").Blob); n+ext != "..blob" && !errors.Is(err, wire.ErrName) {
				t.Errorf("blob %q: %v", n+ext, err)
			}
			if _, err := d.sess.Create(t.Context(), n+ext, 5); !errors.Is(err, wire.ErrName) {
				t.Errorf("index %q: %v", n+ext, err)
			}
		}
		if _, err := p.Begin(t.Context(), snapshot(n, 1)); !errors.Is(err, wire.ErrName) {
			t.Errorf("begin in group %q: %v", n, err)
		}
		if _, err := p.Snapshots(t.Context(), wire.Group{Type: n, ID: "1"}); !errors.Is(err, wire.ErrName) {
			t.Errorf("list type %q: %v", n, err)
		}
		if _, err := p.Open(t.Context(), snapshot(n, 1)); !errors.Is(err, wire.ErrName) {
			t.Errorf("open group %q: %v", n, err)
		}
	}
	if _, err := p.Begin(t.Context(), snapshot("100", 0)); !errors.Is(err, wire.ErrName) {
		t.Errorf("time 0: %v", err)
	}
}

func manages(t *testing.T, p Ports) {
	ctx := context.Background()
	s := snapshot("100", 1000)
	store(t, p, s, "a")
	store(t, p, snapshot("100", 2000), "b")
	if err := p.SetNotes(ctx, s, "before the upgrade\nsecond line"); err != nil {
		t.Fatal(err)
	}
	if n, err := p.Notes(ctx, s); err != nil || n != "before the upgrade\nsecond line" {
		t.Errorf("notes: %q %v", n, err)
	}
	if err := p.SetProtected(ctx, s, true); err != nil {
		t.Fatal(err)
	}
	if err := p.Forget(ctx, s); !errors.Is(err, wire.ErrProtected) {
		t.Errorf("forget a protected one: %v", err)
	}
	list, err := p.Snapshots(ctx, s.Group)
	if err != nil || len(list) != 2 || !list[0].Protected || list[1].Protected || list[0].Notes == "" {
		t.Errorf("list: %+v %v", list, err)
	}
	if err := p.SetProtected(ctx, s, false); err != nil {
		t.Fatal(err)
	}
	if err := p.Forget(ctx, s); err != nil {
		t.Fatal(err)
	}
	if got := listed(t, p, s.Group); !slices.Equal(got, []int64{2000}) {
		t.Errorf("listed: %v", got)
	}
	for name, err := range map[string]error{
		"forget": p.Forget(ctx, s), "notes": p.SetNotes(ctx, s, "x"), "protect": p.SetProtected(ctx, s, true),
	} {
		if !errors.Is(err, chunkstore.ErrNotExist) {
			t.Errorf("%s of what is gone: %v", name, err)
		}
	}
}

func namespaces(t *testing.T, p Ports) {
	for _, ns := range []wire.Namespace{"", "a", "a/b", "c"} {
		s := snapshot("100", 1000)
		s.Group.NS = ns
		store(t, p, s, "content of "+string(ns))
	}
	all, err := p.Namespaces(t.Context(), "")
	if err != nil || !slices.Equal(all, []wire.Namespace{"", "a", "a/b", "c"}) {
		t.Errorf("namespaces: %q %v", all, err)
	}
	below, err := p.Namespaces(t.Context(), "a")
	if err != nil || !slices.Equal(below, []wire.Namespace{"a", "a/b"}) {
		t.Errorf("below a: %q %v", below, err)
	}
	groups, err := p.Groups(t.Context(), "a")
	if err != nil || len(groups) != 1 || groups[0].Group.NS != "a" {
		t.Errorf("groups of a: %+v %v", groups, err)
	}
}
