package task

import (
	"errors"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"

	"holdfast/chunkstore"
)

func TestClean(t *testing.T) {
	for _, tc := range []struct {
		in   string
		most int
		want string
	}{
		{"", 9, ""},
		{"a\tb\r\nc\x00\x7f", 99, "a b  c  "},
		{"grüße €", 99, "grüße €"},
		{"\x1b[31mred\u009b\u202eevil\u2028", 99, " [31mred  evil "},
		{"bad\xff\xfe", 99, "bad??"},
		{"abcdef", 3, "abc"},
		{"ab€", 4, "ab"},
		{"ab€", 5, "ab€"},
	} {
		if got := clean(tc.in, tc.most); got != tc.want {
			t.Errorf("clean(%q, %d) = %q, want %q", tc.in, tc.most, got, tc.want)
		}
	}
}

func TestLongLinesAreCut(t *testing.T) {
	r := openTest(t, t.TempDir(), newClock(), defaultLimits)
	k := begin(t, r, Spec{Type: "verify"})
	k.Logf("%s", strings.Repeat("x", 1<<20))
	k.End(errors.New(strings.Repeat("é", 1<<20)))
	lines, total, err := r.Lines(k.UPID(), 1, 0)
	if err != nil || total != 2 || len(lines[0]) != 27+messageMax || len(lines[1]) != 27+len(taskError)+statusMax || !utf8.ValidString(lines[1]) {
		t.Errorf("%d lines, %v; lengths %d, %d", total, err, len(lines[0]), len(lines[1]))
	}
	if got := status(t, r, k.UPID()).Status; taskError+got != lines[1][27:] {
		t.Errorf("the status differs from the log: %d bytes", len(got))
	}
}

func TestLogIsCapped(t *testing.T) {
	dir := t.TempDir()
	r := openTest(t, dir, newClock(), small)
	k := begin(t, r, Spec{Type: "verify"})
	for range 1000 {
		k.Logf("%s", strings.Repeat("x", 100))
		k.Warnf("y")
	}
	stop(t, k)
	k.Logf("short")
	k.End(errors.New(strings.Repeat("z", 10_000)))
	text := logText(t, r, k.UPID())
	if int64(len(text)) > small.log || int64(len(text)) < small.log/2 {
		t.Errorf("the log has %d bytes", len(text))
	}
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	for i, want := range []string{"the log is full at 16 KiB, more was dropped", abortRequest, "stopped by root@pam", taskError + strings.Repeat("z", statusMax)} {
		if got := lines[len(lines)-4+i][27:]; got != want {
			t.Errorf("line %d from the end is %.60q, want %.60q", 4-i, got, want)
		}
	}
	k = begin(t, r, Spec{Type: "verify"})
	for range 1000 {
		k.Warnf("y")
	}
	k.End(nil)
	if got := status(t, r, k.UPID()).Status; got != "WARNINGS: 1000" {
		t.Errorf("dropped warnings are not counted: %q", got)
	}
}

func TestLinesThatCannotBeWritten(t *testing.T) {
	c := newClock()
	r := openTest(t, t.TempDir(), c, small)
	k := begin(t, r, Spec{Type: "verify"})
	k.Logf("one")
	good := k.log.f
	closed, err := os.Create(t.TempDir() + "/x")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	k.log.f = closed
	k.Logf("two")
	k.Logf("three")
	k.log.f = good
	k.Logf("four")
	k.End(nil)
	var got []string
	for line := range strings.Lines(logText(t, r, k.UPID())) {
		got = append(got, line[27:])
	}
	if want := []string{"one\n", "2 lines could not be written\n", "four\n", "TASK OK\n"}; !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

func TestTaskWithoutLog(t *testing.T) {
	dir := t.TempDir()
	r := openTest(t, dir, newClock(), small)
	k := begin(t, r, Spec{Type: "prune"})
	k.log.f.Close()
	k.log.f = nil // as on a disk that is full
	if err := r.root.Remove(logName(k.UPID())); err != nil {
		t.Fatal(err)
	}
	k.Logf("x")
	if lines, total, err := r.Lines(k.UPID(), 1, 0); len(lines) != 0 || total != 0 || err != nil {
		t.Errorf("%v, %d, %v", lines, total, err)
	}
	k.End(nil)
	if _, err := r.OpenLog(k.UPID()); !errors.Is(err, chunkstore.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	kill(t, r)
	r = openTest(t, dir, newClock(), small)
	if got := status(t, r, k.UPID()).Status; got != "OK" {
		t.Errorf("got %q", got)
	}
}

func TestLines(t *testing.T) {
	r := openTest(t, t.TempDir(), newClock(), small)
	k := begin(t, r, Spec{Type: "verify"})
	for _, s := range []string{"a", "b", "c", "d"} {
		k.Logf("%s", s)
	}
	check := func(start, limit int, want string, wantTotal int) {
		t.Helper()
		lines, total, err := r.Lines(k.UPID(), start, limit)
		got := ""
		for _, l := range lines {
			got += l[27:]
		}
		if err != nil || got != want || total != wantTotal {
			t.Errorf("Lines(%d, %d) = %q, %d, %v; want %q, %d", start, limit, got, total, err, want, wantTotal)
		}
	}
	check(0, 0, "abcd", 4)
	check(1, 0, "abcd", 4)
	check(1, 2, "ab", 4)
	check(3, 2, "cd", 4)
	check(4, 500, "d", 4)
	check(5, 500, "", 4)
	check(-3, -1, "abcd", 4)
	k.End(nil)
	check(4, 500, "dTASK OK", 5)
}

func TestReadLines(t *testing.T) {
	for in, want := range map[string][]string{
		"": nil, "\n": {""}, "a": {"a"}, "a\n\nb": {"a", "", "b"},
		strings.Repeat("x", 3*messageMax): {strings.Repeat("x", 2*messageMax), strings.Repeat("x", messageMax)},
	} {
		var got []string
		total, err := readLines(strings.NewReader(in), 1, 0, func(line string) error {
			got = append(got, line)
			return nil
		})
		if err != nil || total != len(want) || !reflect.DeepEqual(got, want) {
			t.Errorf("%.20q: %d lines, %v", in, total, err)
		}
	}
	for _, in := range []io.Reader{io.MultiReader(strings.NewReader("a\n"), iotest.ErrReader(io.ErrClosedPipe)), strings.NewReader("a")} {
		if _, err := readLines(in, 1, 0, func(string) error { return io.ErrClosedPipe }); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("got %v", err)
		}
	}
}

func TestStates(t *testing.T) {
	const stamp = "2024-05-06T12:00:00+02:00"
	for line, want := range map[string]string{
		stamp + ": TASK OK":                 "OK",
		stamp + ": TASK WARNINGS: 3":        "WARNINGS: 3",
		stamp + ": TASK ERROR: no":          "no",
		stamp + ": TASK ERROR: a: b":        "a: b",
		stamp + ": TASK WARNINGS: ":         "",
		stamp + ": TASK WARNINGS: 0":        "",
		stamp + ": TASK WARNINGS: 03":       "",
		stamp + ": TASK ERROR: OK":          "",
		stamp + ": TASK ERROR: unknown":     "",
		stamp + ": TASK ERROR: WARNINGS: 1": "",
		stamp + ": TASK ERROR: ":            "",
		stamp + ": TASK OKAY":               "",
		stamp + ":  TASK OK":                "",
		stamp + ": hello":                   "",
		stamp:                               "",
		": TASK OK":                         "",
		"yesterday: TASK OK":                "",
		"":                                  "",
	} {
		end, got, ok := lastState([]byte("before\n" + line + "\n"))
		if ok != (want != "") || ok && (got != want || end != 1714989600) {
			t.Errorf("%q: %d, %q, %v; want %q", line, end, got, ok, want)
		}
	}
	if _, _, ok := lastState([]byte(stamp + ": TASK OK")); ok {
		t.Error("a torn line was believed")
	}
}

func FuzzState(f *testing.F) {
	f.Add([]byte("2024-05-06T12:00:00+02:00: TASK OK\n"))
	f.Add([]byte("x\n2024-05-06T12:00:00+02:00: TASK WARNINGS: 3\n"))
	f.Add([]byte("2024-05-06T12:00:00-11:30: TASK ERROR: WARNINGS\n"))
	f.Fuzz(func(t *testing.T, tail []byte) {
		_, status, ok := lastState(tail)
		if !ok {
			return
		}
		if !validStatus(status) || !strings.HasSuffix(string(tail), ": "+stateLine(status)+"\n") {
			t.Fatalf("%q gave %q", tail, status)
		}
	})
}

func FuzzErrorStatus(f *testing.F) {
	f.Add("WARNINGS: 1")
	f.Add("\n")
	f.Add(strings.Repeat("é", statusMax))
	f.Fuzz(func(t *testing.T, text string) {
		s := errorStatus(text)
		if !validStatus(s) || class(s) != classError || errorStatus(s) != s || len(s) > statusMax {
			t.Fatalf("%q became %q", text, s)
		}
	})
}
