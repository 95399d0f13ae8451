package verify_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"testing"

	"holdfast/chunkstore"
	"holdfast/chunkstore/blob"
	"holdfast/client"
	"holdfast/crypto"
	"holdfast/datastore/manifest"
	"holdfast/datastore/verify"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/wiretest"
)

func snapshot(time int64) wire.Snapshot {
	return wire.Snapshot{Group: wire.Group{Type: "vm", ID: "100"}, Time: time}
}

func testKey(t *testing.T, b byte) *crypto.Key {
	t.Helper()
	k, err := crypto.NewKey(bytes.Repeat([]byte{b}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func stored(t *testing.T, key *crypto.Key) *wiretest.Memory {
	t.Helper()
	m := &wiretest.Memory{}
	wiretest.Store(t, m, wiretest.Content{Snapshot: snapshot(1), Key: key, Chunks: []string{"one", "two", "three", "two"}})
	wiretest.Store(t, m, wiretest.Content{Snapshot: snapshot(2), Key: key, Chunks: []string{"two", "four"}})
	return m
}

func check(t *testing.T, o verify.Options, time int64) verify.Report {
	t.Helper()
	r, err := verify.New(o).Snapshot(t.Context(), snapshot(time))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestHealthySnapshot(t *testing.T) {
	key := testKey(t, 1)
	for name, c := range map[string]struct {
		stored, given     *crypto.Key
		signed, decrypted bool
	}{
		"plain":           {nil, nil, false, false},
		"plain and a key": {nil, key, false, false},
		"encrypted":       {key, nil, false, false},
		"with its key":    {key, key, true, true},
	} {
		r := check(t, verify.Options{Source: stored(t, c.stored), Key: c.given}, 1)
		if !r.OK() || r.Chunks != 4 || r.Bytes != 14 || r.Archives != 1 || r.Signed != c.signed || r.Decrypted != c.decrypted {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// id returns the name of a content.
func id(t *testing.T, key *crypto.Key, content string) chunkstore.ID {
	t.Helper()
	c, err := blob.NewCodec(blob.Options{Key: key, Encrypt: key != nil})
	if err != nil {
		t.Fatal(err)
	}
	return c.Name(chunkstore.Plain(content))
}

func seal(t *testing.T, key *crypto.Key, content string) chunkstore.Blob {
	t.Helper()
	c, err := blob.NewCodec(blob.Options{Key: key, Encrypt: key != nil})
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.Encode(nil, chunkstore.Plain(content))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestDamageIsFoundAndPlaced(t *testing.T) {
	key := testKey(t, 1)
	for name, c := range map[string]struct {
		key     *crypto.Key // what it was made with
		given   *crypto.Key
		instead chunkstore.Blob // nil: the chunk is gone
		want    error
	}{
		"missing":              {nil, nil, nil, chunkstore.ErrNotExist},
		"other plain content":  {nil, nil, seal(t, nil, "owt"), chunkstore.ErrCorrupt},
		"garbage, no key":      {key, nil, chunkstore.Blob("this is no blob at all, but it is long enough to be one"), chunkstore.ErrCorrupt},
		"other content, key":   {key, key, seal(t, key, "owt"), chunkstore.ErrCorrupt},
		"other key's, key":     {key, key, seal(t, testKey(t, 2), "two"), chunkstore.ErrCorrupt},
		"plain for encrypted":  {key, key, seal(t, nil, "two"), chunkstore.ErrCorrupt},
		"missing of encrypted": {key, key, nil, chunkstore.ErrNotExist},
	} {
		t.Run(name, func(t *testing.T) {
			m := stored(t, c.key)
			m.Drop(id(t, c.key, "two"), c.instead)
			v := verify.New(verify.Options{Source: m, Key: c.given})
			for _, time := range []int64{1, 2} {
				r, err := v.Snapshot(t.Context(), snapshot(time))
				if err != nil {
					t.Fatal(err)
				}
				places := map[int64]int64{1: 2, 2: 1}[time]
				if r.Count != places || len(r.Problems) != int(places) {
					t.Fatalf("snapshot %d: %d problems, want %d: %v", time, r.Count, places, r.Problems)
				}
				p := r.Problems[0]
				if !errors.Is(p.Err, c.want) || p.File != "disk.img.didx" || p.ID != id(t, c.key, "two") {
					t.Errorf("snapshot %d: %+v, want %v", time, p, c.want)
				}
			}
		})
	}
}

// checking is a source on this machine: it knows what it has stored, and that one chunk
// is not so any more.
type checking struct {
	wire.Source
	bad chunkstore.ID
}

func (c checking) Open(ctx context.Context, s wire.Snapshot) (wire.Reader, error) {
	r, err := c.Source.Open(ctx, s)
	return checkingReader{r, c.bad}, err
}

type checkingReader struct {
	wire.Reader
	bad chunkstore.ID
}

func (c checkingReader) Check(_ context.Context, r chunkstore.Ref) error {
	if r.ID == c.bad {
		return chunkstore.ErrCorrupt
	}
	return nil
}

func (c checkingReader) Key(r chunkstore.Ref) (chunkstore.Key, error) {
	return r.Key(chunkstore.OwnerOf("somebody")), nil
}

func TestStoreIsAskedWithoutAKey(t *testing.T) {
	key := testKey(t, 1)
	r := check(t, verify.Options{Source: checking{stored(t, key), id(t, key, "three")}}, 1)
	if r.Count != 1 || r.Problems[0].Off != 6 {
		t.Errorf("%+v", r)
	}
}

func TestDamagedFiles(t *testing.T) {
	for name, c := range map[string]struct {
		file string
		want string
	}{"index": {"disk.img.didx", "disk.img.didx"}, "manifest": {wire.ManifestName, wire.ManifestName}} {
		m := stored(t, nil)
		b := m.File(snapshot(1), c.file)
		b[len(b)-3] ^= 1
		r := check(t, verify.Options{Source: m}, 1)
		if r.OK() || r.Problems[0].File != c.want {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

func TestWrongKeyIsAnErrorNotDamage(t *testing.T) {
	_, err := verify.New(verify.Options{Source: stored(t, testKey(t, 1)), Key: testKey(t, 2)}).Snapshot(t.Context(), snapshot(1))
	if !errors.Is(err, crypto.ErrWrongKey) {
		t.Errorf("%v", err)
	}
}

func TestStrippedSignatureIsFound(t *testing.T) {
	key := testKey(t, 1)
	m := stored(t, key)
	mf, err := manifest.Open(m.File(snapshot(1), wire.ManifestName))
	if err != nil {
		t.Fatal(err)
	}
	mf.Signature, mf.Unprotected = "", nil
	raw, err := mf.Blob()
	if err != nil {
		t.Fatal(err)
	}
	m.SetFile(snapshot(1), wire.ManifestName, raw)
	r := check(t, verify.Options{Source: m, Key: key}, 1)
	if r.OK() || !errors.Is(r.Problems[0].Err, manifest.ErrUnsigned) {
		t.Errorf("%+v", r)
	}
}

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := verify.New(verify.Options{Source: stored(t, nil)}).Snapshot(ctx, snapshot(1)); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// breaking is a source that gives nothing while its failure is set.
type breaking struct {
	wire.Source
	failure *error
}

func (b breaking) Open(ctx context.Context, s wire.Snapshot) (wire.Reader, error) {
	r, err := b.Source.Open(ctx, s)
	return breakingReader{r, b.failure}, err
}

type breakingReader struct {
	wire.Reader
	failure *error
}

func (b breakingReader) Get(ctx context.Context, r chunkstore.Ref) (chunkstore.Blob, error) {
	if *b.failure != nil {
		return chunkstore.Blob{}, *b.failure
	}
	return b.Reader.Get(ctx, r)
}

// What kept the verifier from looking is no damage, and is forgotten when it has passed.
func TestWhatPreventsLookingIsNoDamage(t *testing.T) {
	for name, failure := range map[string]error{
		"connection":  fmt.Errorf("read: %w", wire.ErrUnavailable),
		"locked":      chunkstore.ErrLocked,
		"stopped":     wire.ErrStopped,
		"rights":      wire.ErrPermission,
		"login":       wire.ErrUnauthenticated,
		"file rights": &fs.PathError{Op: "open", Path: "x", Err: syscall.EACCES},
		"descriptors": &fs.PathError{Op: "open", Path: "x", Err: syscall.EMFILE},
		"memory":      syscall.ENOMEM,
		"own disk":    fmt.Errorf("%w: %w", wire.ErrLocal, syscall.ENOSPC),
		"mount":       &fs.PathError{Op: "read", Path: "x", Err: syscall.ESTALE},
		"busy server": &client.StatusError{Code: 503, Text: "too much to do"},
	} {
		t.Run(name, func(t *testing.T) {
			now := failure
			v := verify.New(verify.Options{Source: breaking{stored(t, nil), &now}})
			if r, err := v.Snapshot(t.Context(), snapshot(1)); !errors.Is(err, failure) || r.Count != 0 {
				t.Errorf("%+v, %v", r, err)
			}
			now = nil
			if r, err := v.Snapshot(t.Context(), snapshot(1)); err != nil || !r.OK() || r.Chunks != 4 {
				t.Errorf("afterwards: %+v, %v", r, err)
			}
		})
	}
	damage := error(&fs.PathError{Op: "read", Path: "x", Err: syscall.EIO})
	if r := check(t, verify.Options{Source: breaking{stored(t, nil), &damage}}, 1); r.OK() {
		t.Error("a sector that cannot be read is damage")
	}
}
