package faults

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"holdfast/chunkstore"
	"holdfast/crypto"
	"holdfast/datastore/manifest"
)

// wreck is a kind of damage that is more than a bit.
type wreck struct {
	name   string
	sealed bool // a specimen with a sealed pack is needed
	do     func(t *testing.T, s *specimen)
	expect func(t *testing.T, s *specimen, o outcome)
}

// Globs of the files that are damaged.
const (
	sealedPack = ".chunks/packs/*.pack"
	openPack   = ".chunks/packs/*.open"
)

// wrecks are all of them.
func wrecks() []wreck {
	var all []wreck
	for _, list := range [][]wreck{wreckedPacks(), wreckedCaches(), wreckedSnapshots(), forged()} {
		all = append(all, list...)
	}
	return all
}

// cut truncates a file to a share of its length, in percent, less by a number
// of bytes.
func cut(pattern string, percent, less int64) func(*testing.T, *specimen) {
	return func(t *testing.T, s *specimen) {
		path := s.file(t, pattern)
		own(t, path)
		if err := os.Truncate(path, max(0, size(t, path)*percent/100-less)); err != nil {
			t.Fatal(err)
		}
	}
}

// remove removes a file.
func remove(pattern string) func(*testing.T, *specimen) {
	return func(t *testing.T, s *specimen) {
		if err := os.Remove(s.file(t, pattern)); err != nil {
			t.Fatal(err)
		}
	}
}

// overwrite writes into a file from an offset on, given in percent.
func overwrite(pattern string, percent int64, b []byte) func(*testing.T, *specimen) {
	return func(t *testing.T, s *specimen) {
		path := s.file(t, pattern)
		own(t, path)
		patch(t, path, b, size(t, path)*percent/100)
	}
}

// swap exchanges the contents of two files.
func swap(a, b string) func(*testing.T, *specimen) {
	return func(t *testing.T, s *specimen) {
		x, y := s.file(t, a), s.file(t, b)
		own(t, x)
		own(t, y)
		old := read(t, x)
		write(t, x, read(t, y))
		write(t, y, old)
	}
}

// isWhole expects that nothing happens.
func isWhole(t *testing.T, s *specimen, o outcome) {
	o.whole(t)
	s.usable(t)
}

// isFound expects that damage is found and a file named.
func isFound(word string) func(*testing.T, *specimen, outcome) {
	return func(t *testing.T, _ *specimen, o outcome) { o.found(t, word) }
}

// goesOn expects that damage is found, and that it does not reach the next
// backup of the group.
func goesOn(word string) func(*testing.T, *specimen, outcome) {
	return func(t *testing.T, s *specimen, o outcome) {
		o.found(t, word)
		s.next(t)
	}
}

// next makes a further snapshot of the group that was damaged.
func (s *specimen) next(t *testing.T) {
	t.Helper()
	s.backup(t, snap{"vm/1", 100}, "disk0.img:"+s.image).want(t, exitOK)
	s.verify(t, "vm/1/latest").want(t, exitOK)
}

// heals expects that damage is found, and that the next backup of the same image
// makes everything whole.
func heals(word string) func(*testing.T, *specimen, outcome) {
	return func(t *testing.T, s *specimen, o outcome) {
		o.found(t, word)
		s.heal(t)
	}
}

// heal backs up again what the snapshots were made from. What is then still
// broken may only be what no backup had any more.
func (s *specimen) heal(t *testing.T) {
	t.Helper()
	got := s.backup(t, snap{"vm/1", 100}, "disk0.img:"+s.image).summary(t)
	if got.BytesNew == 0 {
		t.Error("the lost chunks were not stored again")
	}
	s.verify(t, second.String()).want(t, exitOK)
	s.verify(t, "vm/1/latest").want(t, exitOK)
}

// wreckedPacks is damage to packs.
func wreckedPacks() []wreck {
	return []wreck{
		{"sealed pack empty", true, cut(sealedPack, 0, 0), heals("pack ")},
		{"sealed pack cut in its header", true, cut(sealedPack, 0, -20), heals("pack ")},
		{"sealed pack cut in half", true, cut(sealedPack, 50, 0), heals("pack ")},
		{"sealed pack cut in its table", true, cut(sealedPack, 100, 500), isWhole},
		{"sealed pack without its last byte", true, cut(sealedPack, 100, 1), isWhole},
		{"sealed pack missing", true, remove(sealedPack), heals("missing")},
		{"sealed pack with a lost page", true, overwrite(sealedPack, 40, make([]byte, 4096)), isFound("chunk ")},
		{"sealed pack zeroed", true, func(t *testing.T, s *specimen) {
			path := s.file(t, sealedPack)
			n := size(t, path)
			own(t, path)
			write(t, path, make([]byte, n))
		}, isFound("chunk ")},
		{"open pack empty", false, cut(openPack, 0, 0), isFound("pack ")},
		{"open pack cut in half", false, cut(openPack, 50, 0), isFound("pack ")},
		{"open pack without its last byte", false, cut(openPack, 100, 1), isFound("pack ")},
		{"open pack missing", false, remove(openPack), isFound("missing")},
		{"open pack with a torn record behind it", false, overwrite(openPack, 100, noise(1, 5000)), isWhole},
		{"open pack with zeros behind it", false, overwrite(openPack, 100, make([]byte, 1<<20)), isWhole},
		{"packs swapped", true, swap(sealedPack, openPack), isFound("chunk ")},
		{"both packs missing", true, func(t *testing.T, s *specimen) {
			remove(sealedPack)(t, s)
			remove(openPack)(t, s)
		}, isFound("missing")},
	}
}

// older puts files of the chunk store back to what they were before the last
// backup.
func older(names ...string) func(*testing.T, *specimen) {
	return func(t *testing.T, s *specimen) {
		for _, n := range names {
			write(t, filepath.Join(s.path, ".chunks", n), s.old[n])
		}
	}
}

func wreckedCaches() []wreck {
	both := func(t *testing.T, s *specimen) {
		remove(".chunks/catalogue.db")(t, s)
		remove(".chunks/catalogue.sum")(t, s)
	}
	return []wreck{
		{"catalogue missing", false, remove(".chunks/catalogue.db"), isWhole},
		{"catalogue sum missing", false, remove(".chunks/catalogue.sum"), isWhole},
		{"catalogue and sum missing", false, both, isWhole},
		{"epoch missing", false, remove(".chunks/epoch"), isWhole},
		{"lock missing", false, remove(".chunks/lock"), isWhole},
		{"every companion missing", false, func(t *testing.T, s *specimen) {
			for _, n := range companions {
				remove(".chunks/"+n)(t, s)
			}
		}, isWhole},
		{"catalogue empty", false, cut(".chunks/catalogue.db", 0, 0), isWhole},
		{"catalogue cut in half", false, cut(".chunks/catalogue.db", 50, 0), isWhole},
		{"catalogue cut, no sum", false, func(t *testing.T, s *specimen) {
			cut(".chunks/catalogue.db", 50, 100)(t, s)
			remove(".chunks/catalogue.sum")(t, s)
		}, isWhole},
		{"catalogue of garbage", false, func(t *testing.T, s *specimen) {
			write(t, filepath.Join(s.path, ".chunks", "catalogue.db"), noise(3, 100_000))
		}, isWhole},
		{"catalogue of garbage, no sum", false, func(t *testing.T, s *specimen) {
			remove(".chunks/catalogue.sum")(t, s)
			write(t, filepath.Join(s.path, ".chunks", "catalogue.db"), noise(4, 100_000))
		}, isWhole},
		{"catalogue with a lost page, no sum", false, func(t *testing.T, s *specimen) {
			remove(".chunks/catalogue.sum")(t, s)
			overwrite(".chunks/catalogue.db", 50, make([]byte, 4096))(t, s)
		}, isWhole},
		{"catalogue old", false, older("catalogue.db"), isWhole},
		{"catalogue and sum old", false, older("catalogue.db", "catalogue.sum"), isWhole},
		{"every companion old", false, older(companions...), isWhole},
		{"epoch old", false, older("epoch"), isWhole},
		{"epoch empty", false, cut(".chunks/epoch", 0, 0), isWhole},
		{"catalogue sum empty", false, cut(".chunks/catalogue.sum", 0, 0), isWhole},
		{"catalogue and sum of another repository", false, func(t *testing.T, s *specimen) {
			other := newRepo(t, t.TempDir())
			other.backup(t, snap{"vm/1", 1}, "disk0.img:"+write(t, other.key+".raw", mixed(5, 1<<20))).want(t, exitOK)
			for _, n := range companions[:2] {
				copyFile(t, filepath.Join(other.path, ".chunks", n), filepath.Join(s.path, ".chunks", n))
			}
		}, isWhole},
	}
}

// inSecond is a file of the second snapshot.
func inSecond(name string) string { return second.String() + "/" + name }

func inFirst(name string) string { return first.String() + "/" + name }

func wreckedSnapshots() []wreck {
	return []wreck{
		{"index missing", false, remove(inSecond("disk0.img.didx")), goesOn("disk0.img.didx")},
		{"index empty", false, cut(inSecond("disk0.img.didx"), 0, 0), goesOn("disk0.img.didx")},
		{"index cut in half", false, cut(inSecond("disk0.img.didx"), 50, 0), goesOn("disk0.img.didx")},
		{"index without its last entry", false, cut(inSecond("disk0.img.didx"), 100, 40), goesOn("disk0.img.didx")},
		{"fixed index without its last entry", false, cut(fixed.String()+"/disk1.img.fidx", 100, 32), goesOn("disk1.img.fidx")},
		{"indexes swapped", false, swap(inFirst("disk0.img.didx"), inSecond("disk0.img.didx")), goesOn("disk0.img.didx")},
		{"small file missing", false, remove(inSecond("machine.conf.blob")), goesOn("machine.conf.blob")},
		{"small file empty", false, cut(inSecond("machine.conf.blob"), 0, 0), goesOn("machine.conf.blob")},
		{"small files swapped", false, swap(inFirst("machine.conf.blob"), inSecond("machine.conf.blob")), goesOn("machine.conf.blob")},
		{"manifest empty", false, cut(inSecond("index.json.blob"), 0, 0), goesOn("manifest")},
		{"manifests swapped", false, swap(inFirst("index.json.blob"), inSecond("index.json.blob")), goesOn("")},
		{"manifest missing", false, remove(inSecond("index.json.blob")), goesOn("index.json.blob is missing")},
		{"index is a directory", false, func(t *testing.T, s *specimen) {
			remove(inSecond("disk0.img.didx"))(t, s)
			if err := os.Mkdir(filepath.Join(s.at(second), "disk0.img.didx"), 0o700); err != nil {
				t.Fatal(err)
			}
		}, goesOn("disk0.img.didx")},
		{"snapshot under another name", false, func(t *testing.T, s *specimen) {
			move(t, s.at(second), s.at(snap{"vm/2", 2}))
		}, func(t *testing.T, s *specimen, _ outcome) {
			s.refused(t, snap{"vm/2", 2})
		}},
		{"snapshot with another time", false, func(t *testing.T, s *specimen) {
			move(t, s.at(second), s.at(snap{"vm/1", 50}))
		}, func(t *testing.T, s *specimen, _ outcome) {
			s.refused(t, snap{"vm/1", 50})
			s.next(t)
		}},
		{"config empty", false, cut("holdfast.json", 0, 0), isConfigFound},
		{"config of garbage", false, overwrite("holdfast.json", 0, noise(6, 60)), isConfigFound},
		{"config missing", false, remove("holdfast.json"), isConfigFound},
	}
}

func isConfigFound(t *testing.T, _ *specimen, o outcome) {
	for _, r := range append(o.broken, o.keyed, o.keyless) {
		r.want(t, exitIntegrity, "holdfast.json")
	}
}

func move(t *testing.T, from, to string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// refused fails the test unless a snapshot that is not what its place says is
// refused with and without the key.
func (s *specimen) refused(t *testing.T, name snap) {
	t.Helper()
	target := filepath.Join(filepath.Dir(s.path), "target")
	for _, more := range [][]string{nil, {"--crypt-mode", "none"}} {
		s.restore(t, name, "machine.conf", target, more...).want(t, exitIntegrity, "manifest")
		gone(t, target)
	}
	s.verify(t).want(t, exitIntegrity, name.String())
	s.verifyKeyless(t).want(t, exitIntegrity, name.String())
}

// forge rewrites the manifest of the second snapshot as somebody could who can
// write to the repository and has no key, or another one.
func forge(change func(t *testing.T, m *manifest.Manifest)) func(*testing.T, *specimen) {
	return func(t *testing.T, s *specimen) {
		path := filepath.Join(s.at(second), "index.json.blob")
		m, err := manifest.Open(chunkstore.Blob(read(t, path)))
		if err != nil {
			t.Fatal(err)
		}
		change(t, m)
		raw, err := m.Blob()
		if err != nil {
			t.Fatal(err)
		}
		write(t, path, raw)
	}
}

// unsign strips a manifest of all that shows that it was signed.
func unsign(m *manifest.Manifest) {
	m.Signature = ""
	delete(m.Unprotected, "key-fingerprint")
}

func otherKey(t *testing.T) *crypto.Key {
	t.Helper()
	k, err := crypto.NewKey(bytes.Repeat([]byte{42}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func forged() []wreck {
	return []wreck{
		{"manifest unsigned", false, forge(func(_ *testing.T, m *manifest.Manifest) { unsign(m) }), isForgery(exitIntegrity, "sign")},
		{"manifest without signature", false, forge(func(_ *testing.T, m *manifest.Manifest) { m.Signature = "" }), isForgery(exitIntegrity, "sign")},
		{"manifest without fingerprint", false, forge(func(_ *testing.T, m *manifest.Manifest) {
			delete(m.Unprotected, "key-fingerprint")
		}), func(t *testing.T, s *specimen, o outcome) {
			// The signature is right; who asks with the key may see that.
			if len(o.broken) > 0 {
				isForgery(exitIntegrity, "")(t, s, o)
			}
		}},
		{"manifest signed by another key", false, forge(func(t *testing.T, m *manifest.Manifest) {
			if err := m.Sign(otherKey(t)); err != nil {
				t.Fatal(err)
			}
		}), isForgery(exitKey, "key")},
		{"manifest signed by another key in our name", false, forge(func(t *testing.T, m *manifest.Manifest) {
			ours := m.Unprotected["key-fingerprint"]
			if err := m.Sign(otherKey(t)); err != nil {
				t.Fatal(err)
			}
			m.Unprotected["key-fingerprint"] = ours
		}), isForgery(exitIntegrity, "signature")},
		{"manifest of the first index", false, forge(func(_ *testing.T, m *manifest.Manifest) {
			m.Files[0].Size--
		}), isForgery(exitIntegrity, "")},
		{"manifest that calls the image unencrypted", false, forge(func(_ *testing.T, m *manifest.Manifest) {
			unsign(m)
			for i := range m.Files {
				m.Files[i].CryptMode = crypto.ModeNone
			}
		}), isForgery(exitIntegrity, "")},
	}
}

// isForgery expects that both archives of the second snapshot are refused, and
// that verifying with the key finds out.
func isForgery(code int, word string) func(*testing.T, *specimen, outcome) {
	return func(t *testing.T, s *specimen, o outcome) {
		if len(o.broken) != 2 {
			t.Errorf("%d restores were refused, want the two of that snapshot", len(o.broken))
		}
		for _, r := range o.broken {
			if r.Code != code {
				t.Errorf("want exit %d: %s", code, r)
			}
			r.says(t, word)
		}
		if o.keyed.Code != code {
			t.Errorf("verify with the key, want exit %d: %s", code, o.keyed)
		}
		// The other snapshots are none the worse.
		s.verify(t, first.String()).want(t, exitOK)
	}
}
