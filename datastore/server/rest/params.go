package rest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
)

// Source is a request as Parse sees it.
type Source struct {
	Request *http.Request
	URI     map[string]string // variables of the path
	Raw     bool              // the body is payload: parameters come from path and query only
}

// Parse reads and checks the parameters of a request against a table.
// What is refused is a ParamError; a body that is too long is ErrBodyTooLarge.
func Parse(table []api.Param, src Source) (Values, error) {
	p := &parser{table: table, out: make(Values), uri: src.URI}
	for name, text := range src.URI {
		p.text(name, []string{text})
	}
	if src.Raw {
		return p.query(src.Request.URL.RawQuery, nil)
	}
	switch t := contentType(src.Request); t {
	case "application/json":
		body, err := readBody(src.Request)
		if err != nil {
			return nil, err
		}
		return p.json(body)
	case "", "application/x-www-form-urlencoded":
		body, err := readBody(src.Request)
		if err != nil {
			return nil, err
		}
		return p.query(src.Request.URL.RawQuery, body)
	default:
		return nil, BadRequest("unsupported content type")
	}
}

func contentType(r *http.Request) string {
	t := r.Header.Get("Content-Type")
	if t == "" {
		return ""
	}
	media, _, err := mime.ParseMediaType(t)
	if err != nil && media == "" {
		return "unreadable"
	}
	return media
}

// readBody reads the body of a request that carries parameters.
func readBody(r *http.Request) ([]byte, error) {
	if r.Body == nil || r.Body == http.NoBody {
		return nil, nil
	}
	if r.ContentLength > wire.ParamBodyMax {
		Discard(r.Body)
		return nil, ErrBodyTooLarge
	}
	b, err := io.ReadAll(io.LimitReader(r.Body, wire.ParamBodyMax+1))
	if err != nil {
		return nil, fmt.Errorf("read request body: %w", err)
	}
	if len(b) > wire.ParamBodyMax {
		Discard(r.Body)
		return nil, ErrBodyTooLarge
	}
	return b, nil
}

// Discard reads what is little too much: a connection that is closed before it has
// been read is reset, and the client may never see the answer.
func Discard(body io.Reader) { _, _ = io.CopyN(io.Discard, body, 2*wire.ParamBodyMax) }

// parser collects the values and faults of one request.
type parser struct {
	table  []api.Param
	uri    map[string]string
	out    Values
	faults ParamError
}

func (p *parser) fault(name, why string) {
	const most = 32 // faults of one request
	if len(p.faults) < most {
		p.faults = append(p.faults, paramFault{name: ClipName(name), why: why})
	}
}

// ClipName keeps a foreign name short and printable.
func ClipName(s string) string {
	const most = 64
	if len(s) > most {
		s = s[:most] + "…"
	}
	s = strconv.QuoteToGraphic(strings.ToValidUTF8(s, "?"))
	return s[1 : len(s)-1]
}

func (p *parser) find(name string) (api.Param, bool) {
	i := slices.IndexFunc(p.table, func(d api.Param) bool { return d.Name == name })
	if i < 0 {
		return api.Param{}, false
	}
	return p.table[i], true
}

// query takes a query string and a form body.
func (p *parser) query(query string, body []byte) (Values, error) {
	fromQuery, err := url.ParseQuery(query)
	if err != nil {
		return nil, BadRequest("malformed query string")
	}
	fromQuery.Del("_dc")
	fromBody, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, BadRequest("malformed form body")
	}
	for name, list := range fromBody {
		fromQuery[name] = append(fromQuery[name], list...)
	}
	for _, name := range slices.Sorted(maps.Keys(fromQuery)) {
		if _, ok := p.uri[name]; ok {
			p.fault(name, whyDuplicate)
			continue
		}
		p.text(name, fromQuery[name])
	}
	return p.finish(whyMissing, true)
}

// text takes a parameter that came as text.
func (p *parser) text(name string, list []string) {
	d, ok := p.find(name)
	switch {
	case !ok:
		p.fault(name, whyUnknown)
	case d.Kind == api.Strs || d.Kind == api.Ints:
		p.list(d, list)
	case len(list) != 1:
		p.fault(name, whyDuplicate)
	default:
		v, err := convert(d, list[0])
		if err != nil {
			p.fault(name, err.Error())
			return
		}
		p.out[name] = v
	}
}

// list takes the elements of a list that came as text.
func (p *parser) list(d api.Param, list []string) {
	element := d
	element.Kind = api.Str
	if d.Kind == api.Ints {
		element.Kind = api.Integer
	}
	var texts []string
	var numbers []int64
	for _, s := range list {
		v, err := convert(element, s)
		if err != nil {
			p.fault(d.Name, err.Error())
			return
		}
		switch v := v.(type) {
		case string:
			texts = append(texts, v)
		case int64:
			numbers = append(numbers, v)
		}
	}
	if d.Kind == api.Ints {
		p.out[d.Name] = numbers
		return
	}
	p.out[d.Name] = texts
}

// convert turns the text form of a value into its kind, and checks it.
func convert(d api.Param, s string) (any, error) {
	var v any
	switch d.Kind {
	case api.Integer:
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return nil, errors.New("invalid integer")
		}
		v = n
	case api.Boolean:
		b, ok := parseBool(s)
		if !ok {
			return nil, errors.New("expected boolean value")
		}
		v = b
	default:
		v = s
	}
	if d.Check != nil {
		if err := d.Check(s); err != nil {
			return nil, err
		}
	}
	return v, nil
}

func parseBool(s string) (value, ok bool) {
	switch strings.ToLower(s) {
	case "1", "on", "yes", "true":
		return true, true
	case "0", "off", "no", "false":
		return false, true
	}
	return false, false
}

// json takes a JSON body; the query string does not count then.
func (p *parser) json(body []byte) (Values, error) {
	members, err := objectMembers(body)
	if err != nil {
		return nil, err
	}
	for _, m := range members {
		if _, ok := p.uri[m.name]; ok {
			continue
		}
		d, ok := p.find(m.name)
		if !ok {
			p.fault(m.name, strings.TrimSuffix(whyUnknown, "."))
			continue
		}
		if _, ok := p.out[m.name]; ok {
			p.fault(m.name, whyDuplicate)
			continue
		}
		v, err := convertJSON(d, m.raw)
		if err != nil {
			p.fault(m.name, err.Error())
			continue
		}
		p.out[m.name] = v
	}
	return p.finish("property is missing and it is not optional", false)
}

// finish looks for missing parameters. Those of a form are only told when
// nothing else was wrong.
func (p *parser) finish(why string, form bool) (Values, error) {
	if !form || len(p.faults) == 0 {
		for _, d := range p.table {
			_, ok := p.out[d.Name]
			faulty := slices.ContainsFunc(p.faults, func(f paramFault) bool { return f.name == d.Name })
			if !ok && !d.Optional && !faulty {
				p.fault(d.Name, why)
			}
		}
	}
	if len(p.faults) > 0 {
		return nil, p.faults
	}
	return p.out, nil
}

// member is one member of a JSON object.
type member struct {
	name string
	raw  json.RawMessage
}

// membersMax is how many members a JSON object may have that carries parameters. No method
// has as many, and each takes some hundred bytes, of which its text may be five.
const membersMax = 128

// objectMembers takes a JSON object apart; an empty body counts as {}.
func objectMembers(body []byte) ([]member, error) {
	if len(bytes.TrimSpace(body)) == 0 {
		return nil, nil
	}
	bad := BadRequest("request body is not one JSON object")
	dec := json.NewDecoder(bytes.NewReader(body))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, bad
	}
	var list []member
	for dec.More() {
		if len(list) == membersMax {
			return nil, BadRequest("request body has more than %d parameters", membersMax)
		}
		t, err := dec.Token()
		name, ok := t.(string)
		if err != nil || !ok {
			return nil, bad
		}
		m := member{name: name}
		if err := dec.Decode(&m.raw); err != nil {
			return nil, bad
		}
		list = append(list, m)
	}
	if _, err := dec.Token(); err != nil { // the closing brace
		return nil, bad
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, bad
	}
	return list, nil
}

// convertJSON reads a JSON value of the kind a parameter has; nothing is
// converted from one type to another.
func convertJSON(d api.Param, raw json.RawMessage) (any, error) {
	switch d.Kind {
	case api.Integer:
		return convertNumber(d, raw)
	case api.Boolean:
		var b *bool
		if json.Unmarshal(raw, &b) != nil || b == nil {
			return nil, errors.New("expected boolean value")
		}
		return *b, nil
	case api.Strs, api.Ints:
		return convertArray(d, raw)
	}
	var s *string
	if json.Unmarshal(raw, &s) != nil || s == nil {
		return nil, errors.New("expected string value")
	}
	return convert(d, *s)
}

func convertNumber(d api.Param, raw json.RawMessage) (any, error) {
	return convert(api.Param{Kind: api.Integer, Check: d.Check}, string(bytes.TrimSpace(raw)))
}

func convertArray(d api.Param, raw json.RawMessage) (any, error) {
	if d.Kind == api.Ints {
		list := []int64{}
		if json.Unmarshal(raw, &list) != nil || list == nil {
			return nil, errors.New("expected array of integers")
		}
		return list, nil
	}
	list := []string{}
	if json.Unmarshal(raw, &list) != nil || list == nil {
		return nil, errors.New("expected array of strings")
	}
	for _, s := range list {
		if d.Check == nil {
			break
		}
		if err := d.Check(s); err != nil {
			return nil, err
		}
	}
	return list, nil
}
