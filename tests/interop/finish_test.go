package interop

import (
	"bytes"
	"encoding/json"
	"testing"
)

// What finish needs, section 2.9; a refused finish changes nothing.
func TestFinishRefused(t *testing.T) {
	t.Parallel()
	s := newGroup("host")
	b := server.backup(t, server.alice, s)
	b.finish(t).refused(t, 400, "does not contain valid files")
	wid := b.index(t, "root.pxar.didx")
	b.finish(t).refused(t, 400, "open index writer")
	c := newChunk(noise(1, 400))
	b.chunk(t, "dynamic", wid, c)
	b.put(t, "dynamic", list{wid, []string{c.digest}, []int64{0}}).null(t)
	sum := dynamicSum(t, []string{c.digest}, []uint64{400})
	b.end(t, "dynamic", wid, 1, 400, sum).null(t)
	b.finish(t).refused(t, 400, "unable to update manifest")
	for _, bad := range [][]byte{plainBlob([]byte("no json")), plainBlob([]byte("[]")), plainBlob([]byte(`{"files":3}`)), plainBlob(nil),
		sealedBlob(magicSealed, noise(2, 32), manifestOf(s, nil).text())} {
		b.file(t, manifestName, bad)
		b.finish(t).refused(t, 400)
	}
	if len(server.list(t, s)) > 0 {
		t.Error("a refused finish made a snapshot")
	}
	b.do(t, "POST", "/finish", nil, "colour", "blue").refused(t, 400, "colour")
	b.describe(t, entry{"root.pxar.didx", "none", 400, sum})
	b.finish(t).null(t)
	if len(server.list(t, s)) != 1 {
		t.Error("the snapshot is not listed before the session ends")
	}

	b.finish(t).refused(t, 400, "already marked as finished")
	b.do(t, "POST", "/dynamic_index", nil, "archive-name", "b.didx").refused(t, 400)
	b.do(t, "POST", "/fixed_index", nil, "archive-name", "b.fidx", "size", "1").refused(t, 400)
	honest(c).send(t, b, "dynamic", wid).refused(t, 400)
	b.put(t, "dynamic", list{wid, []string{c.digest}, []int64{0}}).refused(t, 400)
	b.end(t, "dynamic", wid, 1, 400, sum).refused(t, 400)
	b.do(t, "GET", "/previous_backup_time", nil).null(t)
	b.hangUp()
	server.snapshot(t, server.alice, s.later(1))
}

// Text forms of manifests that other clients send, and what stays of them.
func TestManifestForms(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(map[string]any){
		"no signature":   func(m map[string]any) { delete(m, "signature") },
		"no unprotected": func(m map[string]any) { delete(m, "unprotected") },
		"no crypt mode":  func(m map[string]any) { delete(m["files"].([]any)[0].(map[string]any), "crypt-mode") },
		"own unprotected keys": func(m map[string]any) {
			m["unprotected"] = map[string]any{"mine": map[string]any{"a": []any{1.5, "<&>", nil}}}
		},
		"a signature": func(m map[string]any) { m["signature"] = digestOf([]byte("anything")) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newGroup("host")
			b := server.backup(t, server.alice, s)
			var m map[string]any
			if err := json.Unmarshal(manifestOf(s, []entry{b.archive(t, "root.pxar.didx", small(1)...)}).text(), &m); err != nil {
				t.Fatal(err)
			}
			edit(m)
			text, err := json.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			b.file(t, manifestName, plainBlob(text))
			b.finish(t).null(t)
			b.hangUp()
			got := server.rest(server.alice).get(t, s.at("/download"), s.params("file-name", manifestName)...).want(t, 200)
			back := parseManifest(t, got.body)
			if len(back.Files) != 1 || back.Files[0].Mode != "none" || back.Unprotected["chunk_upload_stats"] == nil {
				t.Errorf("the manifest came back as %+v", back)
			}
			if sig := m["signature"]; sig != nil && (back.Signature == nil || *back.Signature != sig) {
				t.Errorf("the signature came back as %v", back.Signature)
			}
			if u, ok := m["unprotected"].(map[string]any); ok && u["mine"] != nil {
				want, _ := json.Marshal(u["mine"])
				if now, _ := json.Marshal(back.Unprotected["mine"]); !bytes.Equal(now, want) {
					t.Errorf("what was unprotected came back as %s", now)
				}
			}
		})
	}
}

// The statistics of section 2.9: uploads of closed writers, and the encoded
// length of every blob.
func TestUploadStatistics(t *testing.T) {
	t.Parallel()
	s := newGroup("host")
	b := server.backup(t, server.alice, s)
	chunks := []chunk{newChunk(noise(uint64(groups.Load())<<8|1, 3000)), newChunk(noise(uint64(groups.Load())<<8|2, 5000))}
	files := []entry{b.archive(t, "root.pxar.didx", chunks...)}
	wid := b.index(t, "lost.didx")
	b.chunk(t, "dynamic", wid, newChunk(noise(uint64(groups.Load())<<8|3, 7000)))
	b.end(t, "dynamic", wid, 1, 7000, digestOf(nil)).refused(t, 400) // its uploads do not count
	wid = b.index(t, "twice.didx")
	b.chunk(t, "dynamic", wid, chunks[0])
	b.put(t, "dynamic", list{wid, []string{chunks[0].digest}, []int64{0}}).null(t)
	sum := dynamicSum(t, []string{chunks[0].digest}, []uint64{3000})
	b.end(t, "dynamic", wid, 1, 3000, sum).null(t)
	conf := plainBlob(noise(9, 100))
	files = append(files, entry{"twice.didx", "none", 3000, sum}, b.file(t, "a.conf.blob", conf))
	index := plainBlob(manifestOf(s, files).text())
	b.file(t, manifestName, index)
	b.finish(t).null(t)
	b.hangUp()
	m := parseManifest(t, server.rest(server.alice).get(t, s.at("/download"), s.params("file-name", manifestName)...).want(t, 200).body)
	stats, _ := m.Unprotected["chunk_upload_stats"].(map[string]any)
	want := float64(3000 + 5000 + 3000 + len(conf) + len(index))
	if stats["count"] != 3.0 || stats["duplicates"] != 1.0 || stats["size"] != want {
		t.Errorf("the statistics are %v, want 3 uploads of %v bytes, one of them a duplicate", stats, want)
	}
}

// GET previous, section 2.9.
func TestPrevious(t *testing.T) {
	t.Parallel()
	s := newGroup("host")
	b := server.backup(t, server.alice, s)
	b.do(t, "GET", "/previous", nil, "archive-name", manifestName).refused(t, 400, "no valid previous backup")
	chunks, conf := small(77), plainBlob([]byte("conf"))
	files := []entry{b.archive(t, "root.pxar.didx", chunks...), b.file(t, "a.conf.blob", conf)}
	b.commit(t, files...)

	b = server.backup(t, server.alice, s.later(1))
	digests, starts, ends, size := layout(chunks)
	wid := b.index(t, "root.pxar.didx")
	b.put(t, "dynamic", list{wid, digests, starts}).refused(t, 400, "no such chunk")
	b.do(t, "GET", "/previous", nil, "archive-name", "none.blob").refused(t, 404)
	b.do(t, "GET", "/previous", nil, "archive-name", "none.didx").refused(t, 400)
	b.do(t, "GET", "/previous", nil, "archive-name", "none.fidx").refused(t, 400)
	b.do(t, "GET", "/previous", nil, "archive-name", "owner").refused(t, 400)
	b.do(t, "GET", "/previous", nil).refused(t, 400, "archive-name")
	if got := b.do(t, "GET", "/previous", nil, "archive-name", "a.conf.blob").want(t, 200); !bytes.Equal(got.body, conf) {
		t.Errorf("the blob came as %q", got.body)
	}
	b.put(t, "dynamic", list{wid, digests, starts}).refused(t, 400, "no such chunk") // blobs register nothing
	checkDynamic(t, b.do(t, "GET", "/previous", nil, "archive-name", "root.pxar.didx").want(t, 200).body, digests, ends)
	b.put(t, "dynamic", list{wid, digests, starts}).null(t)
	b.end(t, "dynamic", wid, len(chunks), size, files[0].Sum).null(t)
	b.describe(t, files[0])
	b.finish(t).null(t)
	b.do(t, "GET", "/previous", nil, "archive-name", "a.conf.blob").want(t, 200)
	b.do(t, "GET", "/previous_backup_time", nil).envelope(t)
}

// The client closes within milliseconds after the answer to finish, or does
// not wait for it: then the snapshot is there whole or not at all.
func TestCloseWithFinish(t *testing.T) {
	t.Parallel()
	for range 5 {
		s := newGroup("host")
		b := server.backup(t, server.alice, s)
		files := []entry{b.archive(t, "root.pxar.didx", small(5)...)}
		b.describe(t, files...)
		if _, _, err := b.open("POST", "/finish", "", true); err != nil {
			t.Fatal(err)
		}
		b.hangUp()
		server.free(t, s.later(1)).hangUp()
		if l, ok := server.list(t, s)[s.time]; ok && len(l.Files) != 2 {
			t.Errorf("the snapshot is listed as %+v", l)
		}
	}
}
