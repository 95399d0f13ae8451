package faults

import (
	"crypto/sha256"
	"os"
	"path/filepath"
	"testing"

	"holdfast/tests/harness"
)

// TestSelfHeal loses packs. The backup that comes next stores again what it has
// of the lost chunks, and with them the older snapshots are whole again.
func TestSelfHeal(t *testing.T) {
	harness.Long(t)
	t.Parallel()
	for name, lose := range map[string]func(t *testing.T, path string){
		"missing": func(t *testing.T, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		},
		"cut in half": func(t *testing.T, path string) {
			if err := os.Truncate(path, size(t, path)/2); err != nil {
				t.Fatal(err)
			}
		},
		"empty": func(t *testing.T, path string) {
			if err := os.Truncate(path, 0); err != nil {
				t.Fatal(err)
			}
		},
		"flipped bit": func(t *testing.T, path string) {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			b[len(b)/2] ^= 1
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
		},
	} {
		for _, chunking := range []string{"content", "fixed"} {
			t.Run(name+"/"+chunking, func(t *testing.T) {
				t.Parallel()
				selfHeal(t, lose, chunking)
			})
		}
	}
}

func selfHeal(t *testing.T, lose func(*testing.T, string), chunking string) {
	dir := t.TempDir()
	r := newRepo(t, dir)
	content := mixed(20, 20<<20)
	image := "disk0.img:" + write(t, filepath.Join(dir, "disk.raw"), content)
	for i := range int64(2) {
		r.backup(t, snap{"vm/1", i}, image, "--chunking", chunking).want(t, exitOK)
	}
	// Another session, so that there is something in another group, too.
	other := mixed(21, 2<<20)
	r.backup(t, snap{"vm/2", 0}, "disk0.img:"+write(t, filepath.Join(dir, "other.raw"), other)).want(t, exitOK)
	packs := glob(t, r.path, ".chunks/packs/*")
	lose(t, packs[len(packs)-1])
	r.verify(t).want(t, exitIntegrity, "DAMAGED")
	if got := r.backup(t, snap{"vm/1", 2}, image, "--chunking", chunking).summary(t); got.BytesNew == 0 {
		t.Error("nothing was stored again")
	}
	r.backup(t, snap{"vm/2", 1}, "disk0.img:"+filepath.Join(dir, "other.raw")).want(t, exitOK)
	r.verify(t).want(t, exitOK)
	r.verifyKeyless(t).want(t, exitOK)
	for i := range int64(3) {
		r.restored(t, snap{"vm/1", i}, "disk0.img", sha256.Sum256(content))
	}
	r.restored(t, snap{"vm/2", 0}, "disk0.img", sha256.Sum256(other))
}
