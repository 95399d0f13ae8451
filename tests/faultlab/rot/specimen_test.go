package rot

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"holdfast/crypto"
	"holdfast/datastore"
	"holdfast/datastore/image"
	"holdfast/datastore/manifest"
	"holdfast/datastore/verify"
	"holdfast/datastore/wire"
)

// specimen is a repository in memory, with all that it must give back.
type specimen struct {
	files map[string][]byte // by their paths
	modes map[string]fs.FileMode
	dirs  []string
	key   *crypto.Key
	sums  map[string][32]byte // "SNAPSHOT FILE" -> SHA-256 of the content
}

// newSpecimen makes a repository with a few snapshots, sealed packs and an open
// one.
func newSpecimen(seed uint64) (*specimen, error) {
	dir, err := here.MkdirTemp()
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	w, err := here.NewWorld(filepath.Join(dir, "store"), seed)
	for range 9 {
		if err == nil {
			err = w.Step()
		}
	}
	if err != nil {
		return nil, err
	}
	s := &specimen{files: map[string][]byte{}, modes: map[string]fs.FileMode{}, sums: map[string][32]byte{}}
	if err := s.read(w.Path); err != nil {
		return nil, err
	}
	for name, snap := range w.Snaps {
		for archive, sum := range snap.Sums {
			s.sums[name+" "+fileOf(archive)] = sum
		}
	}
	b, err := os.ReadFile(w.Key)
	if err != nil {
		return nil, err
	}
	f, err := crypto.DecodeKeyFile(b)
	if err != nil {
		return nil, err
	}
	s.key, err = f.Unlock(nil)
	return s, err
}

// fileOf is how an archive is called in a snapshot.
func fileOf(archive string) string {
	if strings.HasSuffix(archive, ".img") {
		return archive + ".didx"
	}
	return archive + ".blob"
}

func (s *specimen) read(top string) error {
	return filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(top, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			s.dirs = append(s.dirs, rel)
			return nil
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		s.modes[rel] = st.Mode().Perm()
		s.files[rel], err = os.ReadFile(path)
		return err
	})
}

// lay writes the repository to dir, with some files changed; nil removes one.
func (s *specimen) lay(dir string, changed map[string][]byte) error {
	for _, d := range s.dirs {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return err
		}
	}
	for name, b := range s.files {
		if c, ok := changed[name]; ok {
			if b = c; b == nil {
				continue
			}
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, s.modes[name]|0o200); err != nil {
			return err
		}
	}
	return nil
}

// result is what becomes of a damaged repository.
type result struct {
	open   error // the repository could not be opened
	report verify.StoreReport
	broken map[string]error // "SNAPSHOT FILE" that did not come back
	wrong  []string         // those that came back with other bytes
}

// inspect verifies a repository without the key and reads everything back with it.
func (s *specimen) inspect(ctx context.Context, dir string) (result, error) {
	r := result{broken: map[string]error{}}
	store, err := datastore.Open(ctx, dir, datastore.Options{})
	if err != nil {
		r.open = err
		return r, nil
	}
	defer store.Close()
	if r.report, err = verify.Store(ctx, store, verify.StoreOptions{}); err != nil {
		return r, err
	}
	for name, want := range s.sums {
		snapName, file, _ := strings.Cut(name, " ")
		snap, err := wire.ParseSnapshot("", snapName)
		if err != nil {
			return r, err
		}
		sum, err := s.content(ctx, store, snap, file)
		switch {
		case err != nil:
			r.broken[name] = err
		case sum != want:
			r.wrong = append(r.wrong, name)
		}
	}
	return r, nil
}

// content reads a file of a snapshot.
func (s *specimen) content(ctx context.Context, store *datastore.Store, snap wire.Snapshot, file string) (sum [32]byte, err error) {
	r, err := store.Open(ctx, snap)
	if err != nil {
		return sum, err
	}
	defer r.Close()
	m, err := image.OpenManifest(ctx, r, image.Trust{Key: s.key})
	if err != nil {
		return sum, err
	}
	i := slices.IndexFunc(m.Files, func(f manifest.File) bool { return f.Name == file })
	if i < 0 {
		return sum, fmt.Errorf("the manifest names no %s", file)
	}
	if strings.HasSuffix(file, ".blob") {
		b, err := image.ReadBlob(ctx, r, m.Files[i], s.key)
		return sha256.Sum256(b), err
	}
	img, err := image.Open(ctx, image.Options{Reader: r, File: m.Files[i], Key: s.key, Workers: 1})
	if err != nil {
		return sum, err
	}
	defer img.Close()
	h := sha256.New()
	for e, err := range img.Index().All(0) {
		if err != nil {
			return sum, err
		}
		plain, err := img.Chunk(ctx, e, nil)
		if err != nil {
			return sum, err
		}
		h.Write(plain)
	}
	return [32]byte(h.Sum(nil)), nil
}

// named reports whether a verification has named a file that did not come back.
func (r *result) named(name string) bool {
	snap, file, _ := strings.Cut(name, " ")
	return slices.ContainsFunc(r.report.Affected, func(a verify.Affected) bool {
		return a.Snapshot.String() == snap && (a.File == file || a.File == wire.ManifestName || a.File == "")
	})
}

// pick returns the paths that a kind of damage is for.
func (s *specimen) pick(random *rand.Rand, match func(string) bool) string {
	var list []string
	for name := range s.files {
		if match(name) {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	if len(list) == 0 {
		return ""
	}
	return list[random.IntN(len(list))]
}

// index header: what verification can tell ends here and begins again with the
// entries. Between lie a random number, the time, and room for later versions:
// nothing in the format vouches for them, and nothing depends on them.
const (
	indexMagicEnd   = 8
	indexCsum       = 32
	indexCsumEnd    = 64
	indexHeaderSize = 4096
)

// significant is what is left of a file without the bytes that mean nothing.
func significant(name string, b []byte) []byte {
	if filepath.Base(name) == "holdfast.json" {
		return settings(b)
	}
	if !strings.HasSuffix(name, ".didx") || len(b) < indexHeaderSize {
		return b
	}
	return slices.Concat(b[:indexMagicEnd], b[indexCsum:indexCsumEnd], b[indexHeaderSize:])
}

// settings is what a configuration says, read as the store reads it: without the
// date it was made at, and with names in upper case too.
func settings(b []byte) []byte {
	var c struct {
		Format    int  `json:"holdfast-store"`
		TrashDays *int `json:"trash-days"`
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return b
	}
	if c.TrashDays == nil {
		return fmt.Append(nil, c.Format)
	}
	return fmt.Append(nil, c.Format, *c.TrashDays)
}
