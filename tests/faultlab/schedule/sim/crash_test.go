package sim

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// scene is a disk to be cut: do is what happened before.
type scene struct {
	name string
	do   func(t *testing.T)
	// want are all the states that a cut may leave; each must be seen.
	want []string
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// put makes a file with this content.
func write(t *testing.T, name, text string, sync bool) {
	t.Helper()
	f, err := Open(Dir+"/"+name, 0x42, 0o600) // O_RDWR|O_CREAT
	must(t, err)
	_, err = f.WriteAt([]byte(text), 0)
	must(t, err)
	if sync {
		must(t, f.Sync())
	}
	must(t, f.Close())
}

func syncDir(t *testing.T, name string) {
	t.Helper()
	d, err := Open(Dir+name, 0, 0)
	must(t, err)
	must(t, d.Sync())
	must(t, d.Close())
}

// state reads the two files that scenes use.
func state() string {
	s := ""
	for _, name := range []string{"a", "b", "d/a"} {
		if n, err := The().Disk.find(Dir + "/" + name); err == nil {
			s += fmt.Sprintf("%s=%s ", name, n.data)
		}
	}
	return s
}

var scenes = []scene{
	{"all is synced", func(t *testing.T) {
		write(t, "a", "x", true)
		syncDir(t, "")
	}, []string{"a=x "}},
	{"the directory is not synced", func(t *testing.T) {
		write(t, "a", "x", true)
	}, []string{"", "a=x "}},
	{"the file is not synced", func(t *testing.T) {
		write(t, "a", "xyz", false)
		syncDir(t, "")
	}, []string{"a= ", "a=x ", "a=xy ", "a=xyz "}},
	{"a file is replaced by a rename", func(t *testing.T) {
		write(t, "a", "old", true)
		syncDir(t, "")
		write(t, "b", "new", true)
		must(t, Rename(Dir+"/b", Dir+"/a"))
	}, []string{"a=old ", "a=old b=new ", "a=new "}},
	{"a rename between directories is one step", func(t *testing.T) {
		write(t, "a", "x", true)
		must(t, Mkdir(Dir+"/d", 0o700))
		syncDir(t, "")
		must(t, Rename(Dir+"/a", Dir+"/d/a"))
	}, []string{"a=x ", "d/a=x "}},
	{"either directory makes it durable", func(t *testing.T) {
		write(t, "a", "x", true)
		must(t, Mkdir(Dir+"/d", 0o700))
		must(t, Rename(Dir+"/a", Dir+"/d/a"))
		syncDir(t, "/d")
	}, []string{"d/a=x "}},
	{"a removal is not synced", func(t *testing.T) {
		write(t, "a", "x", true)
		syncDir(t, "")
		must(t, Remove(Dir+"/a"))
	}, []string{"a=x ", ""}},
	{"of two writes either may be lost", func(t *testing.T) {
		write(t, "a", "..", true)
		syncDir(t, "")
		f, err := Open(Dir+"/a", 2, 0)
		must(t, err)
		for i := range 2 {
			_, err = f.WriteAt([]byte("x"), int64(i))
			must(t, err)
		}
	}, []string{"a=.. ", "a=x. ", "a=.x ", "a=xx "}},
}

func TestPowerCut(t *testing.T) {
	for _, s := range scenes {
		seen := map[string]int{}
		for seed := range uint64(300) {
			The().Reset(&Image{Mode: 0o755, Entries: map[string]*Image{"store": {Mode: 0o755, Entries: map[string]*Image{}}}}, seed, nil)
			s.do(t)
			The().Disk.PowerCut(rand.New(rand.NewPCG(seed, 3)))
			seen[state()]++
		}
		for _, want := range s.want {
			if seen[want] == 0 {
				t.Errorf("%s: %q was never left: %v", s.name, want, seen)
			}
			delete(seen, want)
		}
		if len(seen) > 0 {
			t.Errorf("%s: this cannot be: %v", s.name, seen)
		}
	}
}

// TestKillLosesNothing is the other kind of crash.
func TestKillLosesNothing(t *testing.T) {
	The().Reset(&Image{Mode: 0o755, Entries: map[string]*Image{"store": {Mode: 0o755, Entries: map[string]*Image{}}}}, 1, nil)
	write(t, "a", "x", false)
	The().Disk.Kill()
	The().Disk.PowerCut(rand.New(rand.NewPCG(1, 1)))
	if got := state(); got != "a=x " {
		t.Errorf("left: %q", got)
	}
}
