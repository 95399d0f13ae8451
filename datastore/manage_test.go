package datastore_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"holdfast/chunkstore"
	"holdfast/datastore"
	"holdfast/datastore/manifest"
	"holdfast/datastore/wire"
)

func TestVerifyState(t *testing.T) {
	l := newLab(t)
	l.store(at(10), "eve@pbs")
	if v := l.info(at(10)).Verify; v != nil {
		t.Errorf("before: %+v", v)
	}
	for _, want := range []wire.VerifyState{{State: wire.VerifyFailed, UPID: "UPID:a"}, {State: wire.VerifyOK, UPID: "UPID:b"}} {
		if err := l.SetVerifyState(t.Context(), at(10), want); err != nil {
			t.Fatal(err)
		}
		if v := l.info(at(10)).Verify; v == nil || *v != want {
			t.Errorf("after: %+v, want %+v", v, want)
		}
	}
	for _, bad := range []wire.VerifyState{{}, {State: "good"}, {State: wire.VerifyOK, UPID: strings.Repeat("x", 2000)}} {
		is(t, "a bad state", l.SetVerifyState(t.Context(), at(10), bad), chunkstore.ErrInvalid)
	}
	is(t, "no snapshot", l.SetVerifyState(t.Context(), at(20), wire.VerifyState{State: wire.VerifyOK}), chunkstore.ErrNotExist)
}

// Notes, verification, protection and log of one snapshot come from different
// connections, and none may undo another.
func TestConcurrentChangesOfASnapshot(t *testing.T) {
	l := newLab(t)
	ctx := t.Context()
	ss := l.foreign(at(10), "eve@pbs")
	m := manifest.Manifest{Type: "vm", ID: "100", Time: 10, Files: []manifest.File{l.image(ss, "disk.img.didx", "content")}}
	m.Unprotected = map[string]json.RawMessage{"from-later": json.RawMessage(`{"x":1}`)}
	raw, err := m.Blob()
	if err != nil {
		t.Fatal(err)
	}
	if err := ss.Blob(ctx, wire.ManifestName, raw); err != nil {
		t.Fatal(err)
	}
	ss.SetStats(datastore.UploadStats{Count: 1})
	if err := ss.Finish(ctx); err != nil {
		t.Fatal(err)
	}
	log := seal(t, l.codec, "log").Blob
	var wg sync.WaitGroup
	var logs atomic.Int32
	for i := range 10 {
		for _, change := range []func() error{
			func() error { return l.SetNotes(ctx, at(10), fmt.Sprint("note ", i)) },
			func() error {
				return l.SetVerifyState(ctx, at(10), wire.VerifyState{State: wire.VerifyOK, UPID: "UPID:x"})
			},
			func() error { return l.SetProtected(ctx, at(10), true) },
			func() error {
				err := l.AddLog(ctx, at(10), log)
				if err == nil {
					logs.Add(1)
				} else if errors.Is(err, wire.ErrExists) {
					err = nil
				}
				return err
			},
		} {
			wg.Go(func() {
				if err := change(); err != nil {
					t.Errorf("change: %v", err)
				}
			})
		}
	}
	wg.Wait()
	if logs.Load() != 1 {
		t.Errorf("%d logs were accepted", logs.Load())
	}
	info := l.info(at(10))
	if !strings.HasPrefix(info.Notes, "note ") || info.Verify == nil || !info.Protected || len(info.Files) != 1 {
		t.Errorf("listed: %+v", info)
	}
	r, err := l.Open(ctx, at(10))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if raw, err = r.Blob(ctx, wire.ManifestName); err != nil {
		t.Fatal(err)
	}
	after, err := manifest.Open(raw)
	if err != nil {
		t.Fatal(err)
	}
	if string(after.Unprotected["from-later"]) != `{"x":1}` || after.Unprotected["chunk_upload_stats"] == nil {
		t.Errorf("unprotected: %s", after.Unprotected)
	}
}

func TestAddLog(t *testing.T) {
	l := newLab(t)
	ctx := t.Context()
	log := seal(t, keyCodec(t), "log of the client").Blob
	is(t, "no snapshot", l.AddLog(ctx, at(10), log), chunkstore.ErrNotExist)
	l.store(at(10), "eve@pbs")
	damaged := slices.Clone(log)
	damaged[len(damaged)-1] ^= 1
	is(t, "damaged", l.AddLog(ctx, at(10), damaged), chunkstore.ErrCorrupt)
	is(t, "too large", l.AddLog(ctx, at(10), make([]byte, chunkstore.BlobSizeMax+1)), chunkstore.ErrInvalid)
	if err := l.AddLog(ctx, at(10), log); err != nil {
		t.Fatal(err)
	}
	is(t, "a second one", l.AddLog(ctx, at(10), log), wire.ErrExists)
	if info := l.info(at(10)); !slices.Equal(info.Extra, []string{"client.log.blob"}) {
		t.Errorf("extra: %q", info.Extra)
	}
	want := []string{"client.log.blob", "disk.img.didx", "index.json.blob"}
	if files, err := l.Files(at(10)); err != nil || !slices.Equal(files, want) {
		t.Errorf("files: %q %v", files, err)
	}
	_, err := l.Files(at(20))
	is(t, "files of no snapshot", err, chunkstore.ErrNotExist)
	r, err := l.Open(ctx, at(10))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := r.Blob(ctx, datastore.LogName); err != nil || string(got) != string(log) {
		t.Errorf("read back: %v", err)
	}
}

func TestReadersKeepTheirSnapshot(t *testing.T) {
	l := newLab(t)
	ctx := t.Context()
	l.store(at(10), "eve@pbs")
	var readers []wire.Reader
	for range 2 {
		r, err := l.Open(ctx, at(10))
		if err != nil {
			t.Fatal(err)
		}
		readers = append(readers, r)
	}
	for _, r := range readers {
		is(t, "forget", l.Forget(ctx, at(10)), wire.ErrBusy)
		if err := l.SetNotes(ctx, at(10), "while it is read"); err != nil {
			t.Errorf("notes: %v", err)
		}
		for range 2 { // closing twice counts once
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	if err := l.Forget(ctx, at(10)); err != nil {
		t.Errorf("forget: %v", err)
	}
	_, err := l.Open(ctx, at(10))
	is(t, "open", err, chunkstore.ErrNotExist)
}

func TestForgetInTwoNamespacesAtOnce(t *testing.T) {
	l := newLab(t)
	var wg sync.WaitGroup
	for _, ns := range []wire.Namespace{"", "a", "b", "c"} {
		snap := at(10)
		snap.Group.NS = ns
		ss := l.begin(datastore.SessionOptions{Snapshot: snap})
		l.finish(ss)
		ss.Close()
		defer wg.Wait()
		wg.Go(func() {
			if err := l.Forget(t.Context(), snap); err != nil {
				t.Errorf("%q: %v", ns, err)
			}
		})
	}
}

func TestReadOnlyStoreRefusesAllOtherChanges(t *testing.T) {
	l := newLab(t)
	l.store(at(10), "eve@pbs")
	if err := l.Store.Close(); err != nil {
		t.Fatal(err)
	}
	s := open(t, l.path, datastore.Options{ReadOnly: true})
	ctx := t.Context()
	_, forget := s.ForgetGroup(ctx, group)
	_, remove := s.RemoveNamespace(ctx, "a", datastore.RemoveOptions{})
	_, begin := s.BeginSession(ctx, datastore.SessionOptions{Snapshot: at(20), Foreign: true})
	for name, err := range map[string]error{
		"owner": s.SetOwner(ctx, group, "bob@pbs"), "group notes": s.SetGroupNotes(ctx, group, "x"),
		"verify state": s.SetVerifyState(ctx, at(10), wire.VerifyState{State: wire.VerifyOK}),
		"log":          s.AddLog(ctx, at(10), seal(t, l.codec, "log").Blob),
		"namespace":    s.CreateNamespace(ctx, "a"), "group": forget, "remove": remove, "begin": begin,
	} {
		is(t, name, err, chunkstore.ErrReadOnly)
	}
	if owner, err := s.Owner(group); err != nil || owner != "eve@pbs" {
		t.Errorf("owner: %q %v", owner, err)
	}
}
