package server

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"holdfast/chunkstore"
	"holdfast/chunkstore/blob"
	"holdfast/crypto"
	"holdfast/datastore/access"
	"holdfast/datastore/index"
	"holdfast/datastore/manifest"
	"holdfast/datastore/wire"
)

// The indexes of an archive of files in two parts: names and attributes, and content.
const (
	metaName    = "root.mpxar.didx"
	contentName = "root.ppxar.didx"
)

// split is a snapshot of such an archive as it was sent.
type split struct {
	mode          crypto.Mode
	meta, content []bit
}

// sealers are what a client seals with.
func (l *sessionLab) sealers() map[crypto.Mode]*blob.Codec {
	l.t.Helper()
	key, err := crypto.NewKey(make([]byte, crypto.KeySize))
	l.must(err)
	codec, err := blob.NewCodec(blob.Options{Workers: 1, Key: key, Encrypt: true})
	l.must(err)
	return map[crypto.Mode]*blob.Codec{crypto.ModeNone: l.codec, crypto.ModeEncrypt: codec}
}

// eachMode runs a test for plain archives and for encrypted ones.
func eachMode(t *testing.T, test func(l *sessionLab, mode crypto.Mode)) {
	for _, mode := range []crypto.Mode{crypto.ModeNone, crypto.ModeEncrypt} {
		t.Run(string(mode), func(t *testing.T) {
			l := newSessionLab(t)
			l.codec = l.sealers()[mode]
			test(l, mode)
		})
	}
}

// listed are the entries of an index of these chunks.
func listed(bits ...bit) (list []entry) {
	off := uint64(0)
	for _, b := range bits {
		list = append(list, entry{off, b})
		off += uint64(b.size)
	}
	return list
}

// create begins a dynamic index.
func (k *talk) create(name string) (wid int) {
	k.lab.t.Helper()
	return int(k.data(post("/dynamic_index", "archive-name", name)).(float64))
}

// upload sends chunks for a writer.
func (k *talk) upload(wid int, bits ...bit) {
	k.lab.t.Helper()
	for _, b := range bits {
		k.data(chunkUpload("dynamic", wid, b))
	}
}

// written appends chunks to an index, closes it, and returns what a manifest says of it.
func (k *talk) written(wid int, name string, mode crypto.Mode, bits ...bit) manifest.File {
	k.lab.t.Helper()
	list := listed(bits...)
	k.data(appendOf("dynamic", wid, list...))
	s := summaryOf("dynamic", list...)
	k.data(closeOf("dynamic", wid, s))
	return manifest.File{Name: name, CryptMode: mode, Size: s.Size, Csum: s.Csum}
}

// finished sends the manifest and finishes.
func (k *talk) finished(group string, when int64, files ...manifest.File) {
	k.lab.t.Helper()
	k.data(blobUpload(wire.ManifestName, k.lab.manifestOf(group, when, files...)))
	k.data(post("/finish"))
}

// splitBackup makes a first snapshot of an archive in two parts, with a catalogue, an
// image and a small file besides.
func (l *sessionLab) splitBackup(user, group string, when int64, mode crypto.Mode) split {
	l.t.Helper()
	seed := byte(when % 97)
	s := split{mode: mode, meta: []bit{l.bitOf(seed, 700), l.bitOf(seed+1, 900)}, content: []bit{l.bitOf(seed+2, 5000), l.bitOf(seed+3, 6000)}}
	k := l.begin(backupOf(user, group, when))
	defer k.conn.Close()
	var files []manifest.File
	for name, bits := range map[string][]bit{metaName: s.meta, contentName: s.content, "catalog.pcat1.didx": {l.bitOf(seed+4, 300)}, "old.pxar.didx": {l.bitOf(seed+5, 400)}} {
		wid := k.create(name)
		k.upload(wid, bits...)
		files = append(files, k.written(wid, name, mode, bits...))
	}
	image := l.bitOf(seed+6, wire.FixedChunkSize)
	wid := int(k.data(post("/fixed_index", "archive-name", "disk.img.fidx", "size", image.size)).(float64))
	k.data(chunkUpload("fixed", wid, image))
	k.data(appendOf("fixed", wid, listed(image)...))
	sum := summaryOf("fixed", listed(image)...)
	k.data(closeOf("fixed", wid, sum))
	files = append(files, manifest.File{Name: "disk.img.fidx", CryptMode: mode, Size: sum.Size, Csum: sum.Csum})
	conf, err := l.codec.Encode(nil, chunkstore.Plain("secret"))
	l.must(err)
	k.data(blobUpload("a.conf.blob", conf))
	f := blobFile("a.conf.blob", conf)
	f.CryptMode = mode
	k.finished(group, when, append(files, f)...)
	return s
}

// A client that goes by metadata makes its second backup with a token that may only put:
// it reads the metadata of the first one and sends what has changed.
func TestPutOnlyGoesByMetadata(t *testing.T) {
	eachMode(t, func(l *sessionLab, mode crypto.Mode) {
		old := l.splitBackup("putter", "host/web", 1000, mode)
		k := l.begin(backupOf("putter", "host/web", 2000))
		if got := k.data(get("/previous_backup_time")); got != float64(1000) {
			t.Errorf("previous time %v", got)
		}
		described := k.raw(get("/previous", "archive-name", wire.ManifestName))
		r := l.begin(readerOf("putter", "host/web", 1000))
		if got := r.raw(get("/download", "file-name", wire.ManifestName)); !bytes.Equal(got, described) {
			t.Error("two manifests of one snapshot")
		}
		raw := r.raw(get("/download", "file-name", metaName))
		if got := k.raw(get("/previous", "archive-name", metaName)); !bytes.Equal(got, raw) {
			t.Error("two indexes of one archive")
		}
		k.raw(get("/previous", "archive-name", contentName))
		for _, b := range old.meta {
			if got := r.raw(get("/chunk", "digest", b.id)); !bytes.Equal(got, b.raw) {
				t.Errorf("chunk %s is not what was sent", b.id.Short())
			}
		}
		more := l.bitOf(200, 800)
		content, meta := k.create(contentName), k.create(metaName)
		k.upload(meta, more)
		files := []manifest.File{k.written(content, contentName, mode, old.content...), k.written(meta, metaName, mode, old.meta[0], more)}
		k.finished("host/web", 2000, files...)
		if got := l.times("host/web"); !slices.Equal(got, []int64{1000, 2000}) {
			t.Errorf("snapshots: %v", got)
		}
		// The right to read ends with the backup, and the snapshot is free though the line stays.
		r.refuses(get("/chunk", "digest", old.meta[0].id), 403, "has ended")
		r.refuses(get("/download", "file-name", metaName), 403, "has ended")
		k.conn.Close()
		l.endedAll("backup")
		snap, err := wire.ParseSnapshot("", "host/web/1970-01-01T00:16:40Z")
		l.must(err)
		l.must(l.store().Forget(t.Context(), snap))
	})
}

// Nothing but the metadata comes out of such a session, and it does not tell what else
// there is.
func TestPutOnlyReadsNothingButMetadata(t *testing.T) {
	eachMode(t, func(l *sessionLab, mode crypto.Mode) {
		old := l.splitBackup("putter", "host/web", 1000, mode)
		l.begin(backupOf("putter", "host/web", 2000))
		r := l.begin(readerOf("putter", "host/web", 1000))
		for _, name := range []string{contentName, "catalog.pcat1.didx", "old.pxar.didx", "disk.img.fidx", "a.conf.blob",
			"none.blob", "none.didx", "none.fidx", "client.log.blob", "root.mpxar.fidx", "root.mpxar.blob", ".mpxar.didx"} {
			code, text := r.fails(get("/download", "file-name", name))
			if want := "read " + name + " of the previous snapshot: permission denied"; name != ".mpxar.didx" && (code != 403 || text != want) {
				t.Errorf("%s: %d %q", name, code, text)
			}
		}
		r.raw(get("/download", "file-name", metaName))
		for _, b := range old.content {
			r.refuses(get("/chunk", "digest", b.id), 401, "not allowed")
		}
		r.refuses(get("/download", "file-name", "other.mpxar.didx"), 400, "unable to open index")
		r.refuses(get("/speedtest"), 404, "not found")
	})
}

// Who may only put opens the snapshot that his own backup builds on, while it runs, and
// is refused anything else in the same words as ever.
func TestPutOnlyReadsOnlyItsBase(t *testing.T) {
	l := newSessionLab(t)
	for user, groups := range map[string][]string{"putter": {"host/web", "host/mail"}, "alice": {"host/alice"}} {
		for _, g := range groups {
			l.splitBackup(user, g, 1000, crypto.ModeNone)
			l.splitBackup(user, g, 2000, crypto.ModeNone)
		}
	}
	secret, err := l.access.CreateToken(access.Token{ID: "putter@pbs!other", Enabled: true})
	l.must(err)
	l.must(l.access.SetACL(access.ACL{Path: "/datastore/tank", Role: "DatastorePutOnly", ID: "putter@pbs!other", Propagate: true}))
	l.tokens["other"] = "PBSAPIToken=putter@pbs!other:" + secret
	wrong := map[string]upgradeRequest{
		"an older one":        readerOf("putter", "host/web", 1000),
		"the one being made":  readerOf("putter", "host/web", 3000),
		"none":                readerOf("putter", "host/web", 1500),
		"another group":       readerOf("putter", "host/mail", 2000),
		"another's group":     readerOf("putter", "host/alice", 2000),
		"no group":            readerOf("putter", "host/none", 2000),
		"another namespace":   readerOf("putter", "host/web", 2000).with("ns", "none"),
		"another token":       readerOf("other", "host/web", 2000),
		"who may not put":     readerOf("nobody", "host/web", 2000),
		"another type":        readerOf("putter", "vm/web", 2000),
		"without any upgrade": {user: "putter", method: "reader", params: readerOf("putter", "host/web", 1000).params},
	}
	check := func(when string) {
		t.Helper()
		for what, u := range wrong {
			if code, text := l.refused(u); code != 400 || !strings.HasPrefix(text, "no permissions on /datastore/tank") || strings.Contains(text, " does ") {
				t.Errorf("%s, %s: %d %s", what, when, code, text)
			}
		}
	}
	right := readerOf("putter", "host/web", 2000)
	wrong["the base"] = right
	check("without a backup")
	delete(wrong, "the base")
	k := l.begin(backupOf("putter", "host/web", 3000))
	check("in a backup")
	r := l.begin(right)
	r.raw(get("/download", "file-name", metaName))
	k.conn.Close() // the backup is given up
	l.endedAll("backup")
	r.refuses(get("/download", "file-name", metaName), 403, "has ended")
	wrong["the base"] = right
	check("after a backup")
	// One that a verification has found damaged is no base, and nor is any other.
	snap, err := wire.ParseSnapshot("", "host/web/1970-01-01T00:33:20Z")
	l.must(err)
	l.must(l.store().SetVerifyState(t.Context(), snap, wire.VerifyState{State: wire.VerifyFailed}))
	l.begin(backupOf("putter", "host/web", 3000))
	check("in a backup without a base")
}

// The rights of such a session are asked at each of its requests.
func TestMetadataIsReadWithTheRightsOfTheMoment(t *testing.T) {
	for name, take := range map[string]func(l *sessionLab){
		"the token": func(l *sessionLab) { l.must(l.access.RevokeToken("putter@pbs!key")) },
		"the privilege": func(l *sessionLab) {
			l.must(l.access.RemoveACL(access.ACL{Path: "/datastore/tank", Role: "DatastorePutOnly", ID: "putter@pbs!key"}))
		},
		"the group": func(l *sessionLab) {
			l.must(l.store().SetOwner(l.t.Context(), wire.Group{Type: "host", ID: "web"}, "alice@pbs"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newSessionLab(t)
			old := l.splitBackup("putter", "host/web", 1000, crypto.ModeNone)
			l.begin(backupOf("putter", "host/web", 2000))
			r := l.begin(readerOf("putter", "host/web", 1000))
			r.raw(get("/download", "file-name", metaName))
			take(l)
			for _, q := range []request{get("/chunk", "digest", old.meta[0].id), get("/download", "file-name", metaName), get("/download", "file-name", wire.ManifestName)} {
				if code, text := r.fails(q); code != 403 && !strings.Contains(text, "owner check failed") {
					t.Errorf("%v: %d %s", q.params, code, text)
				}
			}
		})
	}
}

// What was sent or inherited as metadata counts for metadata, whatever it is, and for
// nothing else; so does content.
func TestMetadataIsKnownApart(t *testing.T) {
	eachMode(t, func(l *sessionLab, mode crypto.Mode) {
		old := l.splitBackup("putter", "host/web", 1000, mode)
		k := l.begin(backupOf("putter", "host/web", 2000))
		for _, name := range []string{metaName, contentName, "catalog.pcat1.didx", "old.pxar.didx", "disk.img.fidx"} {
			k.raw(get("/previous", "archive-name", name))
		}
		meta, content, loud := k.create(metaName), k.create(contentName), k.create("LOUD.MPXAR.didx")
		more, data := l.bitOf(200, 800), l.bitOf(201, 900)
		k.upload(meta, more)
		k.upload(content, data)
		for _, b := range append(slices.Clone(old.content), data) {
			for _, wid := range []int{meta, loud} {
				k.refuses(appendOf("dynamic", wid, listed(b)...), 400, "no such chunk")
			}
		}
		for _, b := range append(slices.Clone(old.meta), more) {
			k.refuses(appendOf("dynamic", content, listed(b)...), 400, "no such chunk")
		}
		// Not that one and the same chunk could not be both: it has to be sent for both.
		k.upload(meta, data)
		f := k.written(meta, metaName, mode, append(slices.Clone(old.meta), more, data)...)
		g := k.written(content, contentName, mode, append(slices.Clone(old.content), data)...)
		k.refuses(closeOf("dynamic", loud, index.Summary{Count: 1, Size: 1}), 400, "")
		k.finished("host/web", 2000, f, g)
		// Whoever may read all reads both.
		r := l.begin(readerOf("reader", "host/web", 2000))
		r.raw(get("/download", "file-name", contentName))
		r.raw(get("/download", "file-name", metaName))
		for _, b := range slices.Concat(old.meta, old.content, []bit{more, data}) {
			if got := r.raw(get("/chunk", "digest", b.id)); !bytes.Equal(got, b.raw) {
				t.Errorf("chunk %s is not what was sent", b.id.Short())
			}
		}
	})
}

// Garbage under the names of content, sent as metadata, is what is read back then: it
// opens no content, of its own group or another's, and spoils none.
func TestGarbageAsMetadataOpensNoContent(t *testing.T) {
	l := newSessionLab(t)
	l.codec = l.sealers()[crypto.ModeEncrypt]
	old := l.splitBackup("putter", "host/web", 1000, crypto.ModeEncrypt)
	others := l.splitBackup("alice", "host/alice", 1001, crypto.ModeEncrypt)
	var garbage []bit
	for i, b := range slices.Concat(old.content, others.content, others.meta) {
		g := l.bitOf(byte(230+i), b.size)
		g.id = b.id
		garbage = append(garbage, g)
	}
	k := l.begin(backupOf("putter", "host/web", 2000))
	meta := k.create(metaName)
	k.upload(meta, garbage...)
	k.finished("host/web", 2000, k.written(meta, metaName, crypto.ModeEncrypt, garbage...))
	k.conn.Close()
	l.endedAll("backup")
	k = l.begin(backupOf("putter", "host/web", 3000))
	r := l.begin(readerOf("putter", "host/web", 2000))
	r.raw(get("/download", "file-name", metaName))
	for _, g := range garbage {
		if got := r.raw(get("/chunk", "digest", g.id)); !bytes.Equal(got, g.raw) {
			t.Errorf("%d bytes of somebody come back for garbage", len(got))
		}
	}
	k.conn.Close()
	for group, bits := range map[string][]bit{"host/web": old.content, "host/alice": slices.Concat(others.content, others.meta)} {
		when := map[string]int64{"host/web": 1000, "host/alice": 1001}[group]
		r := l.begin(readerOf("reader", group, when))
		r.raw(get("/download", "file-name", contentName))
		r.raw(get("/download", "file-name", metaName))
		for _, b := range bits {
			if got := r.raw(get("/chunk", "digest", b.id)); !bytes.Equal(got, b.raw) {
				t.Errorf("%s: chunk %s is not what was sent", group, b.id.Short())
			}
		}
	}
}

// Who goes on with an interrupted backup is told of content only: it is not said for
// which archives what he is told of need not be sent.
func TestMetadataIsNotResumed(t *testing.T) {
	l := newSessionLab(t)
	k := l.begin(backupOf("putter", "host/web", 1000))
	meta, content := k.create(metaName), k.create(contentName)
	a, b := l.bitOf(1, 500), l.bitOf(2, 600)
	k.upload(meta, a)
	k.upload(content, b)
	k.conn.Close()
	l.endedAll("backup")
	k = l.begin(backupOf("putter", "host/web", 2000))
	list, err := wire.ParseChunkSizes(k.raw(get(wire.ResumePath)))
	l.must(err)
	if want := []wire.ChunkSize{{ID: b.id, Size: uint32(b.size)}}; !slices.Equal(list, want) {
		t.Errorf("told of %v, want %v", list, want)
	}
	k.refuses(appendOf("dynamic", k.create(metaName), listed(b)...), 400, "no such chunk")
}

// An index that is not the one of the manifest is not sent to who may read no more than
// metadata, whatever has put it there.
func TestMetadataIsThatOfTheManifest(t *testing.T) {
	l := newSessionLab(t)
	k := l.begin(backupOf("putter", "host/web", 1000))
	named, other := k.create(metaName), k.create("other.mpxar.didx")
	a, b := l.bitOf(1, 500), l.bitOf(2, 600)
	k.upload(named, a, b)
	f := k.written(named, metaName, crypto.ModeNone, a)
	k.written(other, "other.mpxar.didx", crypto.ModeNone, b)
	k.finished("host/web", 1000, f)
	k.conn.Close()
	l.endedAll("backup")
	l.begin(backupOf("putter", "host/web", 2000))
	r := l.begin(readerOf("putter", "host/web", 1000))
	r.refuses(get("/download", "file-name", "other.mpxar.didx"), 400, "does not name it")
	r.refuses(get("/chunk", "digest", b.id), 401, "not allowed")
	r.raw(get("/download", "file-name", metaName))
	r.raw(get("/chunk", "digest", a.id))
}
