package task

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"holdfast/datastore/wire"
)

// statuses lists all ended tasks as "ID status", oldest first.
func statuses(t *testing.T, r *Registry) string {
	t.Helper()
	list, err := r.List(Filter{})
	if err != nil {
		t.Fatal(err)
	}
	out := ""
	for _, i := range list {
		out = fmt.Sprintf("%s %s\n", i.UPID.ID, i.Status) + out
	}
	return out
}

func TestTasksSurvive(t *testing.T) {
	dir, c := t.TempDir(), newClock()
	r := openTest(t, dir, c, small)
	for i, err := range []error{nil, errors.New("broken")} {
		k := begin(t, r, Spec{Type: "verify", ID: fmt.Sprint(i)})
		c.add(time.Minute)
		k.End(err)
	}
	dead := begin(t, r, Spec{Type: "verify", ID: "2"})
	dead.Logf("half way")
	kill(t, r)

	for range 2 { // the second time from an index that was written anew
		r = openTest(t, dir, c, small)
		if got := statuses(t, r); got != "0 OK\n1 broken\n2 unknown\n" {
			t.Errorf("got\n%s", got)
		}
		if i := status(t, r, dead.UPID()); i.Running || i.End < dead.UPID().Start {
			t.Errorf("%+v", i)
		}
		if lines, _, err := r.Lines(dead.UPID(), 1, 0); err != nil || len(lines) != 1 {
			t.Errorf("%q, %v", lines, err)
		}
		kill(t, r)
	}
}

func TestDamagedIndex(t *testing.T) {
	for name, damage := range map[string]func(string) string{
		"untouched":           func(s string) string { return s },
		"gone":                func(string) string { return "" },
		"torn last line":      func(s string) string { return s[:len(s)-9] },
		"without a line end":  func(s string) string { return s[:len(s)-1] },
		"torn line continued": func(s string) string { return s[:len(s)-9] + strings.Repeat("0", 9) + s },
		"zeros at the end":    func(s string) string { return s + strings.Repeat("\x00", 5000) },
		"a flipped bit":       func(s string) string { return s[:60] + string(s[60]^1) + s[61:] },
		"twice":               func(s string) string { return s + s },
		"garbage before":      func(s string) string { return strings.Repeat("x", 10_000) + "\n" + s },
	} {
		t.Run(name, func(t *testing.T) {
			dir, c := t.TempDir(), newClock()
			r := openTest(t, dir, c, small)
			for i, err := range []error{nil, errors.New("broken"), nil} {
				k := begin(t, r, Spec{Type: "verify", ID: fmt.Sprint(i)})
				c.add(time.Minute)
				k.End(err)
			}
			kill(t, r)
			path := filepath.Join(dir, indexName)
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(damage(string(b))), 0o600); err != nil {
				t.Fatal(err)
			}
			r = openTest(t, dir, c, small)
			if got := statuses(t, r); got != "0 OK\n1 broken\n2 OK\n" {
				t.Errorf("got\n%s", got)
			}
			begin(t, r, Spec{Type: "verify", ID: "3"}).End(nil)
			kill(t, r)
			r = openTest(t, dir, c, small)
			if got := statuses(t, r); got != "0 OK\n1 broken\n2 OK\n3 OK\n" {
				t.Errorf("afterwards\n%s", got)
			}
		})
	}
}

func TestOldTasksGo(t *testing.T) {
	dir, c := t.TempDir(), newClock()
	r := openTest(t, dir, c, small)
	long := begin(t, r, Spec{Type: "verify", ID: "long"})
	var last []string
	for i := range 3 * indexSlack {
		c.add(time.Minute)
		k := begin(t, r, Spec{Type: "verify", ID: fmt.Sprint(i)})
		k.End(nil)
		if i >= 3*indexSlack-small.ended {
			last = append(last, k.UPID().ID+" OK\n")
		}
		if most := 2*(small.ended+1) + indexSlack; r.index.lines > most {
			t.Fatalf("the index has %d lines, want at most %d", r.index.lines, most)
		}
	}
	want := strings.Join(last, "") + "long \n"
	if got := statuses(t, r); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if n := len(logs(t, dir)); n != small.ended+1 {
		t.Errorf("%d logs are left", n)
	}
	long.End(nil)
	if n := len(logs(t, dir)); n != small.ended {
		t.Errorf("%d logs are left", n)
	}
	kill(t, r)
	r = openTest(t, dir, c, limits{ended: 2, running: 1, log: small.log})
	if got := statuses(t, r); got != "long OK\n"+last[len(last)-1] {
		t.Errorf("with a smaller limit\n%s", got)
	}
	if n := len(logs(t, dir)); n != 2 {
		t.Errorf("%d logs are left", n)
	}
}

func TestOpenTidiesUp(t *testing.T) {
	dir, c := t.TempDir(), newClock()
	r := openTest(t, dir, c, small)
	k := begin(t, r, Spec{Type: "verify", ID: strings.Repeat("-", 200)})
	k.End(nil)
	kill(t, r)
	if err := os.Remove(filepath.Join(dir, indexName)); err != nil {
		t.Fatal(err)
	}
	stray := filepath.Join(filepath.Dir(filepath.Join(dir, logName(k.UPID()))), "UPID:x")
	foreign := filepath.Join(filepath.Dir(stray), "notes.txt")
	temp := filepath.Join(dir, ".index.tmp-0123456789abcdef")
	for _, name := range []string{stray, foreign, temp} {
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	openTest(t, dir, c, small)
	if got := logs(t, dir); len(got) != 1 || got[0] != "notes.txt" {
		t.Errorf("left: %q", got)
	}
	if _, err := os.Stat(temp); err == nil {
		t.Error("the temporary file is still there")
	}
}

func TestIndexThatCannotBeWritten(t *testing.T) {
	dir, c := t.TempDir(), newClock()
	r := openTest(t, dir, c, small)
	r.index.f.Close()                                   // every write fails
	begin(t, r, Spec{Type: "verify", ID: "0"}).End(nil) // the second line writes it anew
	begin(t, r, Spec{Type: "verify", ID: "1"}).End(nil)
	if r.index.stale {
		t.Error("the index is still stale")
	}
	b, err := os.ReadFile(filepath.Join(dir, indexName))
	if err != nil {
		t.Fatal(err)
	}
	if i, err := readIndex(strings.NewReader(string(b)), 10); err != nil || len(i.ended) != 2 || len(i.open) != 0 || i.damaged {
		t.Errorf("%+v, %v", i, err)
	}
}

func TestReadIndexIsBounded(t *testing.T) {
	var b strings.Builder
	u := wire.UPID{Node: "n", Type: "gc", Auth: wire.RootUser}
	for i := range 1000 {
		u.TaskID = uint64(i)
		b.WriteString(record{upid: u}.encode())
		if i%2 == 0 {
			b.WriteString(record{upid: u, ended: true, end: int64(i), status: "OK"}.encode())
		}
	}
	c, err := readIndex(strings.NewReader(b.String()), 10)
	if err != nil || len(c.ended) < 10 || len(c.ended) >= 20 || len(c.open) != 10 || len(c.known) != len(c.ended) {
		t.Errorf("%d ended, %d open, %v", len(c.ended), len(c.open), err)
	}
	if last := c.ended[len(c.ended)-1]; last.upid.TaskID == u.TaskID || last.end < 900 {
		t.Errorf("the last one is %+v", last)
	}
	if _, err := readIndex(iotest.ErrReader(io.ErrClosedPipe), 10); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("got %v", err)
	}
}

func FuzzReadIndex(f *testing.F) {
	u := wire.UPID{Node: "n", PID: 1, Start: 5, Type: "prune", ID: "tank::vm/1", Auth: "a@pbs!t"}
	begun := record{upid: u}.encode()
	ended := record{upid: u, ended: true, end: 1714989600, status: "WARNINGS: 3"}.encode()
	f.Add([]byte(begun + ended))
	f.Add([]byte(begun + ended[:30]))
	f.Add([]byte("00000000 E 1 UPID:: OK\n" + begun))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := readIndex(strings.NewReader(string(b)), 3)
		if err != nil || len(c.ended) >= 6 || len(c.open) > 3 {
			t.Fatalf("%d, %d, %v", len(c.ended), len(c.open), err)
		}
		for _, e := range c.ended {
			if c.open[e.upid] || !strings.Contains(string(b), record{upid: e.upid, ended: true, end: e.end, status: e.status}.encode()) {
				t.Fatalf("%+v is not in %q", e, b)
			}
		}
	})
}

func FuzzDecodeRecord(f *testing.F) {
	f.Add("E 1 UPID:n:00000001:00000000:00000000:00000005:prune:tank:root@pam: OK")
	f.Add("B UPID:n:00000001:00000000:00000000:00000005:prune:tank\\x3a:root@pam:")
	f.Add("E -1 UPID:n:00000001:00000000:00000000:00000005:gc::root@pam: WARNINGS: 7")
	f.Fuzz(func(t *testing.T, rest string) {
		line := withSum(rest)
		r, err := decodeRecord(line)
		if err == nil && r.encode() != line+"\n" {
			t.Fatalf("%q became %+v", rest, r)
		}
		if _, err := decodeRecord(rest); err == nil {
			t.Fatalf("%q passes without a sum", rest)
		}
	})
}

func TestDecodeRecord(t *testing.T) {
	const upid = "UPID:n:00000001:00000000:00000000:00000005:prune:tank:root@pam:"
	for rest, good := range map[string]bool{
		"B " + upid:              true,
		"E 7 " + upid + " OK":    true,
		"E 7 " + upid + " a b c": true,
		"":                       false,
		"B":                      false,
		"B " + upid + " OK":      false,
		"X " + upid:              false,
		"E 7 " + upid:            false,
		"E 7 " + upid + " ":      false,
		"E 7 " + upid + "  OK":   false,
		"E 7 " + upid + " a\x1b": false,
		"E x " + upid + " OK":    false,
		"E 07 " + upid + " OK":   false,
		"E 7 UPID:n: OK":         false,
		"E 7 " + upid + strings.Repeat("x", 2000):     false,
		"E 7 " + upid + " " + string(make([]byte, 9)): false,
	} {
		if _, err := decodeRecord(withSum(rest)); (err == nil) != good {
			t.Errorf("%q: %v", rest, err)
		}
	}
}

// withSum puts the right checksum before a line.
func withSum(rest string) string {
	return fmt.Sprintf("%08x %s", crc32.Checksum([]byte(rest), castagnoli), rest)
}
