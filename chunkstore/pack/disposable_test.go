package pack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"

	"holdfast/chunkstore/pack/catalogue"
	"holdfast/chunkstore/pack/packfile"
	"holdfast/chunkstore/storetest"
)

// catalogueDamages are the ways in which a catalogue is lost. Bug museum M25
// and M26: bbolt files torn by power cuts, full disks and kills.
var catalogueDamages = map[string]func(t *testing.T, path string){
	"missing":   func(t *testing.T, path string) { remove(t, path) },
	"empty":     func(t *testing.T, path string) { edit(t, path, func([]byte) []byte { return nil }) },
	"no bolt":   func(t *testing.T, path string) { edit(t, path, func([]byte) []byte { return []byte("hello, world") }) },
	"cut short": func(t *testing.T, path string) { edit(t, path, func(b []byte) []byte { return b[:len(b)/2] }) },
	"first four pages torn": func(t *testing.T, path string) {
		edit(t, path, func(b []byte) []byte { clear(b[512 : 4*os.Getpagesize()]); return b })
	},
	"both metas": func(t *testing.T, path string) {
		edit(t, path, func(b []byte) []byte { return flip(20)(flip(os.Getpagesize() + 20)(b)) })
	},
	"newest meta": func(t *testing.T, path string) {
		edit(t, path, func(b []byte) []byte {
			first, second := binary.LittleEndian.Uint64(b[64:]), binary.LittleEndian.Uint64(b[os.Getpagesize()+64:])
			if first > second {
				return flip(20)(b)
			}
			return flip(os.Getpagesize() + 20)(b)
		})
	},
	"all but the metas": func(t *testing.T, path string) {
		edit(t, path, func(b []byte) []byte { clear(b[2*os.Getpagesize():]); return b })
	},
	"a value": func(t *testing.T, path string) {
		edit(t, path, func(b []byte) []byte { return flip(bytes.Index(b, testChunkKey()) + 35)(b) })
	},
	"version": func(t *testing.T, path string) {
		changeBolt(t, path, func(tx *bbolt.Tx) error {
			key, value := []byte("version"), binary.LittleEndian.AppendUint32(nil, 9)
			return tx.Bucket([]byte("meta")).Put(key, binary.LittleEndian.AppendUint32(value, packfile.CRC(key, value)))
		})
	},
	"no bucket": func(t *testing.T, path string) {
		changeBolt(t, path, func(tx *bbolt.Tx) error { return tx.DeleteBucket([]byte("packs")) })
	},
	"unknown packs": func(t *testing.T, path string) {
		changeBolt(t, path, func(tx *bbolt.Tx) error {
			if err := tx.DeleteBucket([]byte("packs")); err != nil {
				return err
			}
			_, err := tx.CreateBucket([]byte("packs"))
			return err
		})
	},
}

// mayStand are the damages after which the catalogue may be as good as before:
// it has one more meta page, and packs can be learned one by one.
var mayStand = map[string]bool{"newest meta": true, "first four pages torn": true, "unknown packs": true}

func testChunkKey() []byte {
	id := storetest.Chunk(0, 900).ID
	return id[:]
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func changeBolt(t *testing.T, path string, fn func(*bbolt.Tx) error) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Update(fn), db.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestCatalogueIsDisposable damages the catalogue in every way there is, after
// a clean close and after a kill, and opens the store for reading and for
// writing.
func TestCatalogueIsDisposable(t *testing.T) {
	cs := chunks(0, 35)
	for _, clean := range []bool{true, false} {
		origin := create(t)
		s := openAt(t, origin, smallPacks)
		fill(t, s, cs)
		if clean {
			closeStore(t, s)
		} else {
			kill(t, s)
		}
		for name := range catalogueDamages {
			t.Run(fmt.Sprintf("%s,clean=%v", name, clean), func(t *testing.T) {
				disposeOfCatalogue(t, origin, name, true)
				disposeOfCatalogue(t, origin, name, false)
			})
		}
	}
}

func disposeOfCatalogue(t *testing.T, origin, name string, readOnly bool) {
	t.Helper()
	dir := copyTree(t, origin)
	catalogueDamages[name](t, filepath.Join(dir, catalogue.FileName))
	o := smallPacks
	o.ReadOnly = readOnly
	s := openAt(t, dir, o)
	defer closeStore(t, s)
	if s.Opened().Rebuilt == nil && !mayStand[name] {
		t.Error("the catalogue was not built anew")
	}
	holdsAll(t, s, chunks(0, 35))
	if !readOnly {
		fill(t, s, chunks(100, 5))
	}
}
