package manifest_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"holdfast/datastore/manifest"
	"holdfast/tests/vectors"
)

func TestVectorsCanonicalJSON(t *testing.T) {
	var cases []struct {
		Input  string      `json:"input_json_text"`
		Output string      `json:"output_text"`
		Hex    vectors.Hex `json:"output_hex"`
	}
	vectors.Section(t, "canonical_json", &cases)
	for _, c := range cases {
		got, err := manifest.CanonicalJSON([]byte(c.Input))
		if err != nil || string(got) != c.Output || !bytes.Equal(got, c.Hex) {
			t.Errorf("%s:\n got %s, %v\nwant %s", c.Input, got, err, c.Output)
		}
	}
}

func TestCanonicalJSON(t *testing.T) {
	for in, want := range map[string]string{
		`{}`:                          `{}`,
		` [ ] `:                       `[]`,
		`"\u0000\u001f\b\f\n\r\t\/"`:  `"\u0000\u001f\b\f\n\r\t/"`,
		`"\ud83d\ude00\ufffd"`:        "\"\U0001F600\uFFFD\"",
		"\"\uFFFD \\\\ud800\"":        "\"\uFFFD \\\\ud800\"",
		`-9223372036854775808`:        `-9223372036854775808`,
		`18446744073709551615`:        `18446744073709551615`,
		`{"b":{"b":1,"a":2},"a":[3]}`: `{"a":[3],"b":{"a":2,"b":1}}`,
		`{"aa":1,"a":2,"B":3,"":4}`:   `{"":4,"B":3,"a":2,"aa":1}`,
	} {
		got, err := manifest.CanonicalJSON([]byte(in))
		if err != nil || string(got) != want {
			t.Errorf("%s: %s, %v, want %s", in, got, err, want)
		}
	}
	for in, want := range map[string]string{
		``:                                       "JSON at byte 0",
		`{`:                                      "JSON at byte 1",
		`[1,`:                                    "JSON at byte",
		`[1 2]`:                                  "JSON at byte",
		`{"a" 1}`:                                "JSON at byte",
		`{"a":1,}`:                               "JSON at byte",
		`[1,]`:                                   "JSON at byte",
		`{1:2}`:                                  "JSON at byte",
		`nul`:                                    "JSON at byte 0",
		`[1, null]`:                              "null at byte 4",
		`{"a": {"b": null}}`:                     "null at byte 12",
		`[1.0]`:                                  "number 1.0 at byte 1",
		`[1e2]`:                                  "number 1e2 at byte 1",
		`[-0]`:                                   "number -0 at byte 1",
		`[01]`:                                   "JSON at byte",
		`[18446744073709551616]`:                 "number 18446744073709551616 at byte 1",
		`[-9223372036854775809]`:                 "number -9223372036854775809",
		`{"a": 1, "a": 2}`:                       `at byte 14: second member "a"`,
		`{"a": 1, "\u0061": 2}`:                  `second member "a"`,
		`{} {}`:                                  "more than one JSON value, at byte 3",
		`1 x`:                                    "more than one JSON value",
		"\"\xff\"":                               "not UTF-8",
		"\"\x01\"":                               "JSON at byte 0",
		`["\ud800"]`:                             "byte 1: unpaired surrogate",
		`["\udc00\ud800"]`:                       "unpaired surrogate",
		`["\ud83dx\ude00"]`:                      "unpaired surrogate",
		`{"\uDBFF": 1}`:                          "unpaired surrogate",
		strings.Repeat("[", 100):                 "byte 64: nested deeper than 64",
		strings.Repeat(`{"a":`, 100000):          "nested deeper than 64",
		"[" + strings.Repeat("1,", 1<<18) + "1]": "more than 65536 values",
		strings.Repeat(" ", 16<<20+1):            "at most 2097152",
	} {
		got, err := manifest.CanonicalJSON([]byte(in))
		if !errors.Is(err, manifest.ErrFormat) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40s: %.40s, %v, want …%s…", in, got, err, want)
		}
	}
}

func FuzzCanonicalJSON(f *testing.F) {
	var cases []struct {
		Input string `json:"input_json_text"`
	}
	vectors.Section(f, "canonical_json", &cases)
	for _, c := range cases {
		f.Add([]byte(c.Input))
	}
	f.Add([]byte(text))
	f.Add([]byte(`["\ud83d\ude00","\ud800",{"a":{}},-1,true]`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		out, err := manifest.CanonicalJSON(raw)
		if err != nil {
			if !errors.Is(err, manifest.ErrFormat) {
				t.Fatalf("error without ErrFormat: %v", err)
			}
			return
		}
		again, err := manifest.CanonicalJSON(out)
		if err != nil || !bytes.Equal(out, again) {
			t.Fatalf("canonical form of a canonical form: %v\n%s\n%s", err, out, again)
		}
		var a, b any
		if err := json.Unmarshal(raw, &a); err != nil {
			t.Fatalf("accepted what encoding/json refuses: %v", err)
		}
		if err := json.Unmarshal(out, &b); err != nil || fmt.Sprint(a) != fmt.Sprint(b) {
			t.Fatalf("another value: %v\n%s\n%s", err, raw, out)
		}
	})
}
