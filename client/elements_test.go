package client

import (
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
)

func decoded(text string) (list []int, err error) {
	err = decodeElements(strings.NewReader(text), func(n int) { list = append(list, n) })
	return list, err
}

func TestListsAreDecodedAsTheyCome(t *testing.T) {
	for name, tc := range map[string]struct {
		text string
		want []int
		err  error
	}{
		"plain":           {`{"data":[1,2,3]}`, []int{1, 2, 3}, nil},
		"members around":  {`{"total":7,"data":[1],"digest":{"x":[]}}` + "\n", []int{1}, nil},
		"null":            {`{"data":null}`, nil, nil},
		"nothing":         {` `, nil, nil},
		"no data":         {`{}`, nil, nil},
		"no list":         {`{"data":{"a":1}}`, nil, errAnswer},
		"no object":       {`[1]`, nil, errAnswer},
		"other elements":  {`{"data":[1,"x"]}`, []int{1}, errAnswer},
		"no JSON":         {`<html>`, nil, errAnswer},
		"more behind":     {`{"data":[1]}{}`, []int{1}, errAnswer},
		"cut in the list": {`{"data":[1,2`, []int{1, 2}, io.ErrUnexpectedEOF},
		"cut at the end":  {`{"data":[1,2]`, []int{1, 2}, io.ErrUnexpectedEOF},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := decoded(tc.text)
			if !reflect.DeepEqual(got, tc.want) || !errors.Is(err, tc.err) {
				t.Errorf("%v, %v; want %v, %v", got, err, tc.want, tc.err)
			}
		})
	}
}

// endlessList says begin and then the same for ever.
type endlessList struct{ begin, then string }

func (e *endlessList) Read(p []byte) (int, error) {
	n := copy(p, e.begin)
	if e.begin = e.begin[n:]; n == 0 {
		n = copy(p, strings.Repeat(e.then, len(p)/len(e.then)+1)[:max(len(p)/len(e.then), 1)*len(e.then)])
	}
	return n, nil
}

func TestAListThatNeverEndsIsRefused(t *testing.T) {
	for name, from := range map[string]*endlessList{
		"one element": {`{"data":[{"x":"`, "x"}, "one member": {`{"other":"`, "x"}, "blanks": {`{"data":[`, " "},
	} {
		t.Run(name, func(t *testing.T) {
			err := decodeElements(from, func(json.RawMessage) {})
			if !errors.Is(err, errAnswer) {
				t.Errorf("%v", err)
			}
		})
	}
}

func FuzzDecodeElements(f *testing.F) {
	for _, s := range []string{`{"data":[1,2]}`, `{"data":null,"total":1}`, ``, `{"data":[1]}x`, `{"data":[1],"data":[2]}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		list, err := decoded(text)
		var whole struct {
			Data []int `json:"data"`
		}
		if other := json.Unmarshal([]byte(text), &whole); err == nil && strings.TrimSpace(text) != "" && other != nil {
			t.Errorf("%q is taken for %v, the whole for %v", text, list, other)
		}
	})
}

// What is made of two bytes takes more than they do: there may be so many and no more.
func TestAListOfTooManyElementsIsRefused(t *testing.T) {
	text := `{"data":[` + strings.Repeat("0,", elementsMax) + "0]}"
	n := 0
	if err := decodeElements(strings.NewReader(text), func(int) { n++ }); !errors.Is(err, errAnswer) || n != elementsMax {
		t.Errorf("%d elements, %v", n, err)
	}
	var list []struct{}
	r := &reply{body: []byte(`{"data":[` + strings.Repeat("{},", valuesMax) + "{}]}")}
	if err := r.decode(&list, nil); !errors.Is(err, errAnswer) || len(list) > 0 {
		t.Errorf("%d values, %v", len(list), err)
	}
}
