package wire

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"holdfast/tests/vectors"
)

func TestParseSnapshot(t *testing.T) {
	good := map[string]Snapshot{
		"vm/100/2024-06-05T14:24:36Z":   {Group{Type: "vm", ID: "100"}, 1717597476},
		"ct/a.b-c/1970-01-01T00:00:01Z": {Group{Type: "ct", ID: "a.b-c"}, 1},
		"host/_x/9999-12-31T23:59:59Z":  {Group{Type: "host", ID: "_x"}, timeMax},
	}
	for s, want := range good {
		got, err := ParseSnapshot("", s)
		if err != nil || got != want || got.String() != s || got.Validate() != nil {
			t.Errorf("ParseSnapshot(%q) = %v, %v", s, got, err)
		}
	}
	for _, s := range []string{
		"", "/", "//", "vm", "vm/100", "vm/100/", "vm//2024-06-05T14:24:36Z", "/100/2024-06-05T14:24:36Z",
		"qm/100/2024-06-05T14:24:36Z", "vm/100/2024-06-05T14:24:36", "vm/100/2024-06-05T14:24:36+00:00",
		"vm/100/2024-6-05T14:24:36Z", "vm/100/2024-06-05t14:24:36z", "vm/100/2024-06-31T14:24:36Z",
		"vm/100/2024-06-05T14:24:36.5Z", "vm/100/1970-01-01T00:00:00Z", "vm/100/1969-12-31T23:59:59Z",
		"vm/../2024-06-05T14:24:36Z", "vm/.hidden/2024-06-05T14:24:36Z", "vm/-x/2024-06-05T14:24:36Z",
		"vm/a b/2024-06-05T14:24:36Z", "vm/a\x00/2024-06-05T14:24:36Z", "vm/100/2024-06-05T14:24:36Z/x",
		"vm/100/latest",
	} {
		if got, err := ParseSnapshot("", s); !errors.Is(err, ErrName) {
			t.Errorf("ParseSnapshot(%q) = %v, %v; want ErrName", s, got, err)
		}
	}
}

func TestNamespaces(t *testing.T) {
	for s, depth := range map[string]int{"": 0, "a": 1, "a/b": 2, "a/b/c/d/e/f/g": 7} {
		ns, err := ParseNamespace(s)
		if err != nil || len(ns.Components()) != depth {
			t.Errorf("ParseNamespace(%q) = %v, %v", s, ns.Components(), err)
		}
	}
	for _, s := range []string{"/", "a/", "/a", "a//b", "a/../b", ".", "a/b/c/d/e/f/g/h", strings.Repeat("x", 257), "a/b\n"} {
		if _, err := ParseNamespace(s); !errors.Is(err, ErrName) {
			t.Errorf("ParseNamespace(%q): %v", s, err)
		}
	}
}

func TestGroupsSort(t *testing.T) {
	want := []Group{
		{Type: "ct", ID: "7"}, {Type: "host", ID: "elsa"}, {Type: "vm", ID: "9"}, {Type: "vm", ID: "10"},
		{Type: "vm", ID: "A"}, {Type: "vm", ID: "a"},
	}
	got := slices.Clone(want)
	slices.Reverse(got)
	slices.SortFunc(got, Group.Compare)
	if !slices.Equal(got, want) {
		t.Errorf("sorted: %v", got)
	}
}

func TestCheckFileName(t *testing.T) {
	for name, want := range map[string]Kind{
		"index.json.blob": Blob, "disk0.img.didx": Dynamic, "drive-scsi0.img.fidx": Fixed, "x.blob": Blob,
		"disk0.img": 0, "": 0, ".blob": 0, "../x.blob": 0, "a/b.didx": 0, "x.DIDX": 0, "x.didx ": 0,
		strings.Repeat("x", nameLenMax) + ".blob": 0,
	} {
		got, err := CheckFileName(name)
		if got != want || (err == nil) != (want != 0) {
			t.Errorf("CheckFileName(%q) = %v, %v", name, got, err)
		}
	}
}

func TestVectorTimes(t *testing.T) {
	var paths []struct {
		Epoch int64  `json:"epoch"`
		Dir   string `json:"snapshot_dir_name"`
	}
	vectors.Section(t, "paths", &paths)
	checked := 0
	for _, p := range paths {
		if p.Dir == "" {
			continue
		}
		checked++
		if got := (Snapshot{Time: p.Epoch}).TimeString(); got != p.Dir {
			t.Errorf("%d is %s, want %s", p.Epoch, got, p.Dir)
		}
		if got, err := ParseTime(p.Dir); err != nil || got != p.Epoch {
			t.Errorf("%s is %d, %v, want %d", p.Dir, got, err, p.Epoch)
		}
	}
	if checked == 0 {
		t.Error("no vector was checked")
	}
}

func FuzzParseSnapshot(f *testing.F) {
	f.Add("a/b", "vm/100/2024-06-05T14:24:36Z")
	f.Add("", "host/x/1970-01-01T00:00:01Z")
	f.Add("../x", "vm/../2024-06-05T14:24:36Z")
	f.Fuzz(func(t *testing.T, ns, s string) {
		n, err := ParseNamespace(ns)
		if err != nil {
			return
		}
		snap, err := ParseSnapshot(n, s)
		if err != nil {
			if !errors.Is(err, ErrName) {
				t.Fatalf("%v does not wrap ErrName", err)
			}
			return
		}
		if snap.String() != s || strings.Contains(s, "..") && strings.Contains(s, "/..") {
			t.Fatalf("%q became %q", s, snap)
		}
		if err := snap.Validate(); err != nil {
			t.Fatalf("%q parses but is not valid: %v", s, err)
		}
	})
}
