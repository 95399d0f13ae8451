package datastore_test

import (
	"errors"
	"os"
	"testing"

	"holdfast/chunkstore"
	"holdfast/chunkstore/blob"
	"holdfast/crypto"
	"holdfast/datastore"
	"holdfast/datastore/index"
	"holdfast/datastore/manifest"
	"holdfast/datastore/wire"
)

var group = wire.Group{Type: "vm", ID: "100"}

func at(time int64) wire.Snapshot { return wire.Snapshot{Group: group, Time: time} }

// lab is a store with the means to write to it by hand.
type lab struct {
	t *testing.T
	*datastore.Store
	path  string
	codec *blob.Codec
}

func newLab(t *testing.T) *lab {
	t.Helper()
	path := create(t)
	return &lab{t: t, Store: open(t, path, datastore.Options{}), path: path, codec: plainCodec(t)}
}

func plainCodec(t testing.TB) *blob.Codec {
	t.Helper()
	codec, err := blob.NewCodec(blob.Options{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	return codec
}

// keyCodec encrypts.
func keyCodec(t *testing.T) *blob.Codec {
	t.Helper()
	key, err := crypto.NewKey(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	codec, err := blob.NewCodec(blob.Options{Workers: 1, Key: key, Encrypt: true})
	if err != nil {
		t.Fatal(err)
	}
	return codec
}

func seal(t *testing.T, codec *blob.Codec, content string) chunkstore.Chunk {
	t.Helper()
	raw, err := codec.Encode(nil, chunkstore.Plain(content))
	if err != nil {
		t.Fatal(err)
	}
	return chunkstore.Chunk{ID: codec.Name(chunkstore.Plain(content)), PlainSize: uint32(len(content)), Blob: raw}
}

func (l *lab) begin(o datastore.SessionOptions) *datastore.Session {
	l.t.Helper()
	ss, err := l.BeginSession(l.t.Context(), o)
	if err != nil {
		l.t.Fatalf("begin %s: %v", o.Snapshot, err)
	}
	l.t.Cleanup(func() { ss.Close() })
	return ss
}

// foreign begins a session of the other side.
func (l *lab) foreign(snap wire.Snapshot, owner wire.AuthID) *datastore.Session {
	l.t.Helper()
	return l.begin(datastore.SessionOptions{Snapshot: snap, Owner: owner, Foreign: true})
}

func (l *lab) put(ss *datastore.Session, content string) chunkstore.Chunk {
	l.t.Helper()
	c := seal(l.t, l.codec, content)
	if _, err := ss.PutChunk(l.t.Context(), "disk.img.didx", c); err != nil {
		l.t.Fatal(err)
	}
	return c
}

// image writes a dynamic index of these chunks and returns its entry in the
// manifest.
func (l *lab) image(ss *datastore.Session, name string, contents ...string) manifest.File {
	l.t.Helper()
	w, err := ss.Create(l.t.Context(), name, -1)
	if err != nil {
		l.t.Fatal(err)
	}
	sum, off := index.NewSummer(index.Dynamic), uint64(0)
	for _, content := range contents {
		c := l.put(ss, content)
		e := index.Entry{Off: off, Size: c.PlainSize, ID: c.ID}
		sum.Add(e)
		off += uint64(c.PlainSize)
		if err := w.Append(l.t.Context(), []index.Entry{e}); err != nil {
			l.t.Fatal(err)
		}
	}
	s := sum.Summary()
	if err := w.Close(l.t.Context(), s); err != nil {
		l.t.Fatal(err)
	}
	f := manifest.File{Name: name, CryptMode: crypto.ModeNone, Size: s.Size, Csum: s.Csum}
	if l.codec.Class() == chunkstore.ClassEncrypted {
		f.CryptMode = crypto.ModeEncrypt
	}
	return f
}

func (l *lab) manifestOf(ss *datastore.Session, files ...manifest.File) {
	l.t.Helper()
	snap := ss.Snapshot()
	m := manifest.Manifest{Type: snap.Group.Type, ID: snap.Group.ID, Time: snap.Time, Files: files}
	raw, err := m.Blob()
	if err != nil {
		l.t.Fatal(err)
	}
	if err := ss.Blob(l.t.Context(), wire.ManifestName, raw); err != nil {
		l.t.Fatal(err)
	}
}

// finish completes a session with a small image.
func (l *lab) finish(ss *datastore.Session) {
	l.t.Helper()
	l.manifestOf(ss, l.image(ss, "disk.img.didx", "content"))
	if err := ss.Finish(l.t.Context()); err != nil {
		l.t.Fatal(err)
	}
}

// store writes a whole snapshot.
func (l *lab) store(snap wire.Snapshot, owner wire.AuthID) {
	l.t.Helper()
	ss := l.foreign(snap, owner)
	l.finish(ss)
	if err := ss.Close(); err != nil {
		l.t.Fatal(err)
	}
}

// info describes one snapshot, as it is listed.
func (l *lab) info(snap wire.Snapshot) wire.SnapshotInfo {
	l.t.Helper()
	list, err := l.Snapshots(l.t.Context(), snap.Group)
	if err != nil {
		l.t.Fatal(err)
	}
	for _, info := range list {
		if info.Snapshot == snap {
			return info
		}
	}
	l.t.Fatalf("snapshot %s is not listed", snap)
	return wire.SnapshotInfo{}
}

// get reads a stored chunk through a session, which knows all of them.
func (l *lab) content(snap wire.Snapshot, id chunkstore.ID, size int) (string, error) {
	l.t.Helper()
	r, err := l.Open(l.t.Context(), snap)
	if err != nil {
		l.t.Fatal(err)
	}
	defer r.Close()
	raw, err := r.Get(l.t.Context(), chunkstore.Ref{ID: id, Size: uint32(size), Class: l.codec.Class()})
	if err != nil {
		return "", err
	}
	plain, err := l.codec.DecodeChunk(nil, id, raw, size)
	return string(plain), err
}

// kill returns the path of a copy of the store: what a killed process leaves.
func (l *lab) kill() string {
	l.t.Helper()
	killed := l.t.TempDir() + "/killed"
	if err := os.CopyFS(killed, os.DirFS(l.path)); err != nil {
		l.t.Fatal(err)
	}
	return killed
}

func is(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}
