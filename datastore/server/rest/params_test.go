package rest

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"holdfast/datastore/wire/api"
)

// testTable has a parameter of every kind.
func testTable() []api.Param {
	return []api.Param{
		{Name: "s", Check: api.CheckComment}, {Name: "i", Kind: api.Integer, Optional: true, Check: api.Within(-5, 5)},
		{Name: "b", Kind: api.Boolean, Optional: true}, {Name: "l", Kind: api.Strs, Optional: true, Check: api.OneOf("x", "y")},
		{Name: "n", Kind: api.Ints, Optional: true}, {Name: "u", Optional: true},
	}
}

func parse(kind, query, body string, uri map[string]string) (Values, error) {
	r := &http.Request{
		Method: "POST", URL: &url.URL{RawQuery: query}, Header: http.Header{"Content-Type": {kind}},
		Body: http.NoBody, ContentLength: int64(len(body)),
	}
	if body != "" {
		r.Body = readCloser{strings.NewReader(body)}
	}
	return Parse(testTable(), Source{Request: r, URI: uri})
}

type readCloser struct{ *strings.Reader }

func (readCloser) Close() error { return nil }

func TestParamKinds(t *testing.T) {
	const js = "application/json"
	for _, in := range []struct{ kind, query, body string }{
		{"", "s=a+b&i=-3&b=Yes&l=x&l=y&n=1&n=2&_dc=9", ""},
		{"application/x-www-form-urlencoded", "s=a%20b&l=x", "i=-3&b=on&l=y&n=1&n=2"},
		{js, "zzz=1", ` {"s":"a b","i":-3,"b":true,"l":["x","y"],"n":[1,2]} `},
	} {
		v, err := parse(in.kind, in.query, in.body, map[string]string{"u": "from the path"})
		if err != nil {
			t.Errorf("%+v: %v", in, err)
			continue
		}
		c := v
		if c.Str("s") != "a b" || c.Int("i", 0) != -3 || !c.Bool("b", false) || strings.Join(c.Strs("l"), "") != "xy" ||
			len(c.Ints("n")) != 2 || c.Ints("n")[1] != 2 || c.Str("u") != "from the path" {
			t.Errorf("%+v: %v", in, v)
		}
		if c.Has("zzz") || c.Int("zzz", 7) != 7 || !c.Bool("zzz", true) || c.Str("zzz") != "" || c.Strs("zzz") != nil {
			t.Errorf("%+v: what was not given", in)
		}
	}
}

func TestPathWinsOverJSON(t *testing.T) {
	v, err := parse("application/json", "", `{"s":"x","u":5}`, map[string]string{"u": "path"})
	if err != nil || v["u"] != "path" {
		t.Errorf("%v %v", v, err)
	}
}

func TestParamFaults(t *testing.T) {
	for _, tc := range []struct{ kind, query, body, want string }{
		{"", "s=a&i=6", "", "'i': want -5 to 5"},
		{"", "s=a&i=1&i=2", "", "'i': duplicate parameter."},
		{"", "s=a&b=maybe", "", "'b': expected boolean value"},
		{"", "s=a&l=z", "", "'l': want one of: x, y"},
		{"", "s=a&n=q", "", "'n': invalid integer"},
		{"", "i=9", "", "parameter verification failed - 'i'"}, // and not a word about s
		{"application/json", "", `{"i":9}`, "- 's': property is missing"},
		{"application/json", "", `{"s":"a","l":"x"}`, "'l': expected array"},
		{"application/json", "", `{"s":"a","l":[1]}`, "'l': expected array"},
		{"application/json", "", `{"s":"a","l":["x","z"]}`, "'l': want one of"},
		{"application/json", "", `{"s":"a","l":null}`, "'l': expected array"},
		{"application/json", "", `{"s":"a","n":[1.5]}`, "'n': expected array of integers"},
		{"application/json", "", `{"s":"a","i":"1"}`, "'i': invalid integer"},
		{"application/json", "", `{"s":"a","i":1e2}`, "'i': invalid integer"},
		{"application/json", "", `{"s":"a","b":1}`, "'b': expected boolean value"},
		{"application/json", "", `{"s":1}`, "'s': expected string value"},
	} {
		_, err := parse(tc.kind, tc.query, tc.body, nil)
		var faults ParamError
		if !errors.As(err, &faults) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%+v: %v", tc, err)
		}
	}
}

// FuzzParams must never panic, must give back only what the table knows, and
// answer every fault with a text that fits a line each.
func FuzzParams(f *testing.F) {
	f.Add("s=a&i=1", "", false)
	f.Add("", `{"s":"a","n":[1,2],"l":["x"]}`, true)
	f.Add("s=%ff&b=on&zz=1", "s=2", false)
	f.Add("", `{"s":"\ud800","a\nb":1}`, true)
	f.Fuzz(func(t *testing.T, query, body string, js bool) {
		kind := ""
		if js {
			kind = "application/json"
		}
		v, err := parse(kind, query, body, map[string]string{"u": "x"})
		var faults ParamError
		if errors.As(err, &faults) && strings.Count(err.Error(), "\n") > len(faults) {
			t.Fatalf("a name or reason breaks the line: %q", err)
		}
		if (err == nil) != (v != nil) {
			t.Fatalf("%v and %v", v, err)
		}
		for name := range v {
			p := parser{table: testTable()}
			if _, ok := p.find(name); !ok {
				t.Fatalf("%q is in no table", name)
			}
		}
	})
}

// A body of many short members takes many times its length when it is taken apart: it is
// refused at the first that no method can have.
func TestObjectsOfManyMembersAreRefused(t *testing.T) {
	var status *StatusError
	_, err := parse("application/json", "", "{"+strings.Repeat(`"":0,`, membersMax)+`"s":"a"}`, nil)
	if !errors.As(err, &status) || status.Code != http.StatusBadRequest || !strings.Contains(status.Text, "more than 128 parameters") {
		t.Errorf("%v", err)
	}
}
