package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Limits of a JSON text, checked while it is read.
const (
	// jsonSizeMax is the longest text, in bytes.
	jsonSizeMax = 2 << 20
	// jsonDepthMax is how deep objects and arrays may nest.
	jsonDepthMax = 64
	// jsonNodesMax is how many values a text may have.
	jsonNodesMax = 1 << 16
)

// nodeKind says what a node is.
type nodeKind uint8

const (
	nullNode nodeKind = iota
	boolNode
	numberNode
	stringNode
	arrayNode
	objectNode
)

// String returns what a user would call the kind.
func (k nodeKind) String() string {
	return [...]string{"null", "a boolean", "a number", "a string", "an array", "an object"}[k]
}

// node is one value of a JSON text. Members of an object are sorted by name.
type node struct {
	kind nodeKind
	off  int      // byte offset of the value in the text
	text string   // a string's content, or a number or boolean as it stands
	keys []string // of an object, in step with kids
	kids []node   // of an object or array
}

// parseJSON reads one JSON text. It is stricter than encoding/json: the text
// must be UTF-8 without unpaired surrogates, and no object may have two members
// of one name.
func parseJSON(raw []byte) (*node, error) {
	if err := checkSize(len(raw), jsonSizeMax); err != nil {
		return nil, err
	}
	if !utf8.Valid(raw) {
		return nil, fmt.Errorf("JSON text is not UTF-8: %w", ErrFormat)
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	p := &jsonParser{raw: raw, dec: dec}
	n, err := p.value(0)
	if err != nil {
		return nil, err
	}
	off := p.off()
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("more than one JSON value, at byte %d: %w", off, ErrFormat)
	}
	return &n, nil
}

func checkSize(have, most int) error {
	if have > most {
		return fmt.Errorf("%d bytes of JSON, at most %d are allowed: %w", have, most, ErrFormat)
	}
	return nil
}

// count is how many values there are in n and below it.
func (n *node) count() int {
	all := 1
	for i := range n.kids {
		all += n.kids[i].count()
	}
	return all
}

type jsonParser struct {
	raw   []byte
	dec   *json.Decoder
	nodes int
}

// off returns the offset of the next token.
func (p *jsonParser) off() int {
	off := int(p.dec.InputOffset())
	for off < len(p.raw) && strings.IndexByte(" \t\r\n:,", p.raw[off]) >= 0 {
		off++
	}
	return off
}

// token reads the next token, which begins at offset off.
func (p *jsonParser) token() (tok json.Token, off int, err error) {
	off = p.off()
	if tok, err = p.dec.Token(); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, off, fmt.Errorf("JSON at byte %d: %w: %w", off, err, ErrFormat)
	}
	if s, ok := tok.(string); ok && strings.ContainsRune(s, utf8.RuneError) && hasLoneSurrogate(p.raw[off:p.dec.InputOffset()]) {
		return nil, off, fmt.Errorf("JSON at byte %d: unpaired surrogate in a string: %w", off, ErrFormat)
	}
	return tok, off, nil
}

// hasLoneSurrogate reports whether a string token has an escape for half of a
// surrogate pair. The decoder silently replaces those.
func hasLoneSurrogate(tok []byte) bool {
	for i := 0; i < len(tok); i++ {
		if tok[i] != '\\' {
			continue
		}
		high, ok := escape(tok[i:])
		if !ok {
			i++ // the character behind the backslash
			continue
		}
		i += escapeSize - 1
		if !utf16.IsSurrogate(high) {
			continue
		}
		low, _ := escape(tok[i+1:])
		if utf16.DecodeRune(high, low) == utf8.RuneError {
			return true
		}
		i += escapeSize
	}
	return false
}

// escapeSize is the length of an escape like \u20ac.
const escapeSize = 6

// escape decodes the \u escape that b begins with.
func escape(b []byte) (rune, bool) {
	if len(b) < escapeSize || b[0] != '\\' || b[1] != 'u' {
		return 0, false
	}
	v, err := strconv.ParseUint(string(b[2:escapeSize]), 16, 16)
	return rune(v), err == nil
}

// value reads one value that stands inside depth objects and arrays.
func (p *jsonParser) value(depth int) (node, error) {
	tok, off, err := p.token()
	if err != nil {
		return node{}, err
	}
	n := node{off: off}
	if p.nodes++; p.nodes > jsonNodesMax {
		return n, fmt.Errorf("JSON at byte %d: more than %d values: %w", off, jsonNodesMax, ErrFormat)
	}
	switch t := tok.(type) {
	case nil:
	case bool:
		n.kind, n.text = boolNode, strconv.FormatBool(t)
	case json.Number:
		n.kind, n.text = numberNode, t.String()
	case string:
		n.kind, n.text = stringNode, t
	case json.Delim:
		if depth >= jsonDepthMax {
			return n, fmt.Errorf("JSON at byte %d: nested deeper than %d: %w", off, jsonDepthMax, ErrFormat)
		}
		n.kind = arrayNode
		if t == '{' {
			n.kind = objectNode
		}
		err = p.children(&n, depth+1)
	}
	return n, err
}

// children reads what stands in an object or array up to its end.
func (p *jsonParser) children(n *node, depth int) error {
	for p.dec.More() {
		if n.kind == objectNode {
			key, off, err := p.token()
			if err != nil {
				return err
			}
			name, ok := key.(string)
			if !ok {
				return fmt.Errorf("JSON at byte %d: name of a member is not a string: %w", off, ErrFormat)
			}
			n.keys = append(n.keys, name)
		}
		kid, err := p.value(depth)
		if err != nil {
			return err
		}
		n.kids = append(n.kids, kid)
	}
	if _, _, err := p.token(); err != nil {
		return err
	}
	return n.sort()
}

// sort orders the members of an object by the bytes of their names.
func (n *node) sort() error {
	order := make([]int, len(n.keys))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return strings.Compare(n.keys[a], n.keys[b]) })
	if n.kind != objectNode {
		return nil
	}
	keys, kids := make([]string, len(order)), make([]node, len(order))
	for to, from := range order {
		keys[to], kids[to] = n.keys[from], n.kids[from]
		if to > 0 && keys[to] == keys[to-1] {
			return fmt.Errorf("JSON at byte %d: second member %q in one object: %w", kids[to].off, clip(keys[to]), ErrFormat)
		}
	}
	n.keys, n.kids = keys, kids
	return nil
}

// member returns the member of an object called name, nil if there is none.
func (n *node) member(name string) *node {
	if i, ok := slices.BinarySearch(n.keys, name); ok {
		return &n.kids[i]
	}
	return nil
}

// appendNode appends n to b. newline is the line break with the indentation of
// the line that n stands in; without one the output is compact.
func appendNode(b []byte, n *node, newline string) []byte {
	switch n.kind {
	case nullNode:
		return append(b, "null"...)
	case stringNode:
		return appendString(b, n.text)
	case arrayNode, objectNode:
		return appendContainer(b, n, newline)
	}
	return append(b, n.text...)
}

func appendContainer(b []byte, n *node, newline string) []byte {
	open, end, colon := byte('['), byte(']'), ":"
	if n.kind == objectNode {
		open, end = '{', '}'
	}
	inner := newline
	if newline != "" {
		inner, colon = newline+"  ", ": "
	}
	b = append(b, open)
	for i := range n.kids {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, inner...)
		if n.kind == objectNode {
			b = append(appendString(b, n.keys[i]), colon...)
		}
		b = appendNode(b, &n.kids[i], inner)
	}
	if len(n.kids) > 0 {
		b = append(b, newline...)
	}
	return append(b, end)
}

// appendString appends s in quotes with the escapes of section 4.5, which are
// fewer than those of encoding/json.
func appendString(b []byte, s string) []byte {
	const digits = "0123456789abcdef"
	b = append(b, '"')
	for _, c := range []byte(s) {
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c >= 0x20:
			b = append(b, c)
		case c == '\b':
			b = append(b, `\b`...)
		case c == '\f':
			b = append(b, `\f`...)
		case c == '\n':
			b = append(b, `\n`...)
		case c == '\r':
			b = append(b, `\r`...)
		case c == '\t':
			b = append(b, `\t`...)
		default:
			b = append(b, `\u00`...)
			b = append(b, digits[c>>4], digits[c&15])
		}
	}
	return append(b, '"')
}
