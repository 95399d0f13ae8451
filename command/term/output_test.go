package term

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"
	"time"
)

func TestFormatBytes(t *testing.T) {
	for _, tc := range []struct {
		n    int64
		want string
	}{
		{0, "0 B"}, {1, "1 B"}, {1023, "1023 B"}, {1024, "1.00 KiB"}, {1536, "1.50 KiB"},
		{10 << 10, "10.0 KiB"}, {10235, "10.0 KiB"}, {100 << 10, "100 KiB"}, {1023 << 10, "1023 KiB"},
		{1<<20 - 1, "1.00 MiB"}, {1 << 20, "1.00 MiB"}, {5 << 30, "5.00 GiB"}, {3 << 40, "3.00 TiB"},
		{1 << 60, "1.00 EiB"}, {math.MaxInt64, "8.00 EiB"}, {-1536, "-1.50 KiB"}, {math.MinInt64, "-8.00 EiB"},
	} {
		if got := Bytes(tc.n); got != tc.want {
			t.Errorf("formatBytes(%d) = %q, want %q", tc.n, got, tc.want)
		}
	}
}

func TestFormatDuration(t *testing.T) {
	for _, tc := range []struct {
		d    time.Duration
		want string
	}{
		{-time.Second, "0s"}, {0, "0.0s"}, {420 * time.Millisecond, "0.4s"}, {9940 * time.Millisecond, "9.9s"},
		{9960 * time.Millisecond, "10s"}, {59 * time.Second, "59s"}, {59700 * time.Millisecond, "1m00s"},
		{185 * time.Second, "3m05s"}, {3599500 * time.Millisecond, "1h00m"}, {26*time.Hour + 3*time.Minute, "26h03m"},
	} {
		if got := Duration(tc.d); got != tc.want {
			t.Errorf("formatDuration(%v) = %q, want %q", tc.d, got, tc.want)
		}
	}
}

func TestFormatShare(t *testing.T) {
	for _, tc := range []struct {
		part, whole int64
		want        string
	}{{0, 0, "-"}, {1, -1, "-"}, {0, 5, "0.0 %"}, {1, 3, "33.3 %"}, {5, 5, "100.0 %"}} {
		if got := Share(tc.part, tc.whole); got != tc.want {
			t.Errorf("formatShare(%d, %d) = %q, want %q", tc.part, tc.whole, got, tc.want)
		}
	}
}

func TestFormatRatio(t *testing.T) {
	for _, tc := range []struct {
		whole, stored int64
		want          string
	}{{5, 0, "-"}, {0, 5, "0.0:1"}, {42, 10, "4.2:1"}, {1000, 10, "100:1"}} {
		if got := Ratio(tc.whole, tc.stored); got != tc.want {
			t.Errorf("formatRatio(%d, %d) = %q, want %q", tc.whole, tc.stored, got, tc.want)
		}
	}
}

func TestPlural(t *testing.T) {
	if got := Plural(0, "chunk") + ", " + Plural(1, "chunk") + ", " + Plural(2, "chunk"); got != "0 chunks, 1 chunk, 2 chunks" {
		t.Errorf("plural: %s", got)
	}
}

func TestTimesInJSON(t *testing.T) {
	east := time.FixedZone("", 2*3600)
	if got := RFC3339(time.Date(2026, 11, 22, 4, 0, 0, 999, east)); got != "2026-11-22T02:00:00Z" {
		t.Errorf("rfc3339 = %q", got)
	}
	if got := UnixTime(0); got != "" {
		t.Errorf("unixTime(0) = %q", got)
	}
	if got := UnixTime(1); got != "1970-01-01T00:00:01Z" {
		t.Errorf("unixTime(1) = %q", got)
	}
}

func TestTable(t *testing.T) {
	var b bytes.Buffer
	Table(&b, [][]string{{"name", "size"}, {"long name", "1"}, {"x", ""}})
	if want := "name       size\nlong name  1\nx\n"; b.String() != want {
		t.Errorf("table = %q, want %q", b.String(), want)
	}
}

// voice says one thing of each kind.
func voice(o *Output) {
	o.Result(messageRecord{"thing", "<1>"}, func(w io.Writer) { fmt.Fprintln(w, "thing 1") })
	o.Done(messageRecord{"summary", "2"}, "summary %d", 2)
	o.Notef("note %d", 3)
	o.Verbosef("detail %d", 4)
	o.Warnf("careful %d", 5)
	o.Fail(Usagef("wrong %d", 6), ExitUsage, "")
}

func TestVoice(t *testing.T) {
	for _, tc := range []struct {
		name              string
		set               func(*Output)
		wantOut, wantErrs string
	}{
		{"plain", func(*Output) {}, "thing 1|summary 2", "holdfast: note 3|holdfast: warning: careful 5|holdfast: error: wrong 6"},
		{"verbose", func(o *Output) { o.Verbose = true }, "thing 1|summary 2",
			"holdfast: note 3|holdfast: detail 4|holdfast: warning: careful 5|holdfast: error: wrong 6"},
		{"quiet", func(o *Output) { o.Quiet = true }, "thing 1", "holdfast: warning: careful 5|holdfast: error: wrong 6"},
		{"json", func(o *Output) { o.JSON = true }, `{"message_type":"thing","message":"<1>"}|{"message_type":"summary","message":"2"}`,
			`{"message_type":"note","message":"note 3"}|{"message_type":"warning","message":"careful 5"}|` +
				`{"message_type":"exit_error","code":64,"message":"wrong 6"}`},
		{"quiet json", func(o *Output) { o.JSON, o.Quiet = true, true }, `{"message_type":"thing","message":"<1>"}|{"message_type":"summary","message":"2"}`,
			`{"message_type":"warning","message":"careful 5"}|{"message_type":"exit_error","code":64,"message":"wrong 6"}`},
	} {
		var out, err bytes.Buffer
		o := New(&out, &err, time.Now, nil)
		tc.set(o)
		voice(o)
		if got := lines(out.String()); got != tc.wantOut {
			t.Errorf("%s: results %s, want %s", tc.name, got, tc.wantOut)
		}
		if got := lines(err.String()); got != tc.wantErrs {
			t.Errorf("%s: messages %s, want %s", tc.name, got, tc.wantErrs)
		}
		if e := o.WriteError(); e != nil {
			t.Errorf("%s: %v", tc.name, e)
		}
	}
}

// lines shows the lines of s on one.
func lines(s string) string { return strings.ReplaceAll(strings.TrimSuffix(s, "\n"), "\n", "|") }

func TestResultsToErr(t *testing.T) {
	var out, err bytes.Buffer
	o := New(&out, &err, time.Now, nil)
	o.JSON = true
	o.ResultsToErr()
	o.Result(messageRecord{"thing", ""}, nil)
	if out.Len() > 0 || !json.Valid(err.Bytes()) {
		t.Errorf("results %q, messages %q", out.String(), err.String())
	}
}

func TestProgressLineIsCleared(t *testing.T) {
	var out, err bytes.Buffer
	o := New(&out, &err, time.Now, nil)
	o.draw("half")
	o.Notef("news")
	o.ClearLine()
	if want := "\r\x1b[Khalf\r\x1b[Kholdfast: news\n"; err.String() != want {
		t.Errorf("terminal got %q, want %q", err.String(), want)
	}
}
