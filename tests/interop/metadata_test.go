package interop

import (
	"encoding/json"
	"testing"

	"holdfast/tests/harness"
)

// A client with --change-detection-mode metadata makes two backups with a token that may
// only put, in the requests and the order of the official one: a session for the backup,
// a second connection to read the metadata of the last snapshot, and an archive of
// content that names what it has found unchanged.
func TestMetadataModeWithAPutOnlyToken(t *testing.T) {
	harness.Long(t)
	t.Parallel()
	out, err := server.cli("token", "create", "alice@pbs!metadata", "--role", "DatastorePutOnly", "--path", "/datastore/"+store, "--json")
	if err != nil {
		t.Fatal(err)
	}
	var made harness.Announced
	if err := json.Unmarshal(out, &made); err != nil {
		t.Fatal(err)
	}
	// A token has the rights that were given to it and no others of its user.
	put := token("alice@pbs!metadata", made.Secret)
	key := noise(700, 32)
	for mode, seal := range map[string]func([]byte) chunk{"none": newChunk, "encrypt": func(b []byte) chunk { return newSealed(key, b) }} {
		t.Run(mode, func(t *testing.T) {
			s := newGroup("host")
			const metaName, contentName, other = "root.mpxar.didx", "root.ppxar.didx", "home.pxar.didx"
			meta, content := []chunk{seal(noise(701, 3000)), seal(noise(702, 4000))}, []chunk{seal(noise(703, 90000)), seal(noise(704, 80000)), seal(noise(705, 70000))}
			archive := func(b *session, name string, chunks ...chunk) entry {
				e := b.archive(t, name, chunks...)
				e.Mode = mode
				return e
			}
			b := server.backup(t, put, s)
			b.do(t, "GET", "/previous_backup_time", nil).null(t)
			b.commit(t, archive(b, contentName, content...), archive(b, metaName, meta...), archive(b, other, seal(noise(706, 500))))

			next := s.later(60)
			b = server.backup(t, put, next)
			var last int64
			if b.do(t, "GET", "/previous_backup_time", nil).into(t, &last); last != s.time {
				t.Fatalf("the last backup was at %d", last)
			}
			b.do(t, "GET", "/previous", nil, "archive-name", manifestName).want(t, 200)
			r := server.reader(t, put, s)
			parseManifest(t, r.do(t, "GET", "/download", nil, "file-name", manifestName).want(t, 200).body)
			digests, _, ends, _ := layout(meta)
			checkDynamic(t, r.do(t, "GET", "/download", nil, "file-name", metaName).want(t, 200).body, digests, ends)
			b.do(t, "GET", "/previous", nil, "archive-name", metaName).want(t, 200)
			digests, _, ends, _ = layout(content)
			checkDynamic(t, b.do(t, "GET", "/previous", nil, "archive-name", contentName).want(t, 200).body, digests, ends)
			for _, c := range meta {
				if a := r.do(t, "GET", "/chunk", nil, "digest", c.digest).want(t, 200); !sameContent(t, a.body, c) && string(a.body) != string(c.blob) {
					t.Errorf("chunk %s is another one", c.digest)
				}
			}
			for _, name := range []string{contentName, other} {
				r.do(t, "GET", "/download", nil, "file-name", name).refused(t, 403)
			}
			for _, c := range content {
				r.do(t, "GET", "/chunk", nil, "digest", c.digest).refused(t, 401, "not allowed")
			}
			// The two parts are written at the same time: one chunk of each is new.
			fresh, more := seal(noise(707, 60000)), seal(noise(708, 2000))
			p, m := b.index(t, contentName), b.index(t, metaName)
			b.chunk(t, "dynamic", p, fresh)
			b.chunk(t, "dynamic", m, more)
			now := map[string][]chunk{contentName: {content[0], fresh, content[2]}, metaName: {more, meta[1]}}
			var files []entry
			for name, wid := range map[string]int{contentName: p, metaName: m} {
				digests, starts, ends, size := layout(now[name])
				b.put(t, "dynamic", list{wid, digests, starts}).null(t)
				sum := dynamicSum(t, digests, ends)
				b.end(t, "dynamic", wid, len(digests), size, sum).null(t)
				files = append(files, entry{name, mode, size, sum})
			}
			b.describe(t, files...)
			b.finish(t).null(t)
			r.do(t, "GET", "/download", nil, "file-name", metaName).refused(t, 403) // the backup is over
			b.hangUp()
			_, a := server.tryReader(t, put, next)
			a.refused(t, 400, "no permissions on")

			whole := server.reader(t, server.carol, next)
			for name, chunks := range now {
				digests, _, ends, _ := layout(chunks)
				checkDynamic(t, whole.do(t, "GET", "/download", nil, "file-name", name).want(t, 200).body, digests, ends)
				for _, c := range chunks {
					if a := whole.do(t, "GET", "/chunk", nil, "digest", c.digest).want(t, 200); string(a.body) != string(c.blob) {
						t.Errorf("%s: chunk %s is another one", name, c.digest)
					}
				}
			}
		})
	}
}
