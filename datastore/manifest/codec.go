package manifest

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"

	"holdfast/crypto"
)

// Decode reads a manifest of at most 2 MiB. Unknown members are dropped, as
// the server drops them. The errors wrap ErrFormat and name the member and its
// byte offset.
func Decode(raw []byte) (*Manifest, error) {
	m, err := decode(raw)
	if err != nil {
		return nil, fmt.Errorf("decode manifest: %w", err)
	}
	return m, nil
}

func decode(raw []byte) (*Manifest, error) {
	top, err := parseJSON(raw)
	if err != nil {
		return nil, err
	}
	if top.kind != objectNode {
		return nil, fmt.Errorf("%v at byte %d instead of an object: %w", top.kind, top.off, ErrFormat)
	}
	m := &Manifest{}
	r := fields{of: top}
	m.Type = r.text("backup-type", checkType)
	m.ID = r.text("backup-id", checkName)
	m.Time = r.time("backup-time")
	m.Files = r.files("files")
	if r.get("signature", stringNode) != nil {
		m.Signature = r.text("signature", checkSignature)
	}
	m.Unprotected = r.raw("unprotected")
	if r.err != nil {
		return nil, r.err
	}
	return m, nil
}

// fields reads the members of one object. The first error stays and stops the
// rest.
type fields struct {
	of   *node
	path string // what the object is called in errors
	err  error
}

func (r *fields) fail(name string, n *node, format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%s%s at byte %d: %w: %w", r.path, name, n.off, fmt.Errorf(format, args...), ErrFormat)
	}
}

// get returns the member if it is there and of the kind, nil otherwise. Absent
// and null are the same.
func (r *fields) get(name string, kind nodeKind) *node {
	n := r.of.member(name)
	if r.err != nil || n == nil || n.kind == nullNode {
		return nil
	}
	if n.kind != kind {
		r.fail(name, n, "%v instead of %v", n.kind, kind)
		return nil
	}
	return n
}

// must is get for a member that has to be there.
func (r *fields) must(name string, kind nodeKind) *node {
	n := r.get(name, kind)
	if n == nil {
		r.fail(name, r.of, "missing in the object that begins there")
	}
	return n
}

func (r *fields) text(name string, check func(string) error) string {
	n := r.must(name, stringNode)
	if n == nil {
		return ""
	}
	if err := check(n.text); err != nil {
		r.fail(name, n, "%w", err)
	}
	return n.text
}

func (r *fields) time(name string) int64 {
	n := r.must(name, numberNode)
	if n == nil {
		return 0
	}
	v, err := strconv.ParseInt(n.text, 10, 64)
	if err != nil || v < 1 || v > timeMax {
		r.fail(name, n, "%s is not an integer within 1..%d", clip(n.text), int64(timeMax))
	}
	return v
}

func (r *fields) size(name string) uint64 {
	n := r.must(name, numberNode)
	if n == nil {
		return 0
	}
	v, err := strconv.ParseUint(n.text, 10, 64)
	if err != nil || v > sizeMax {
		r.fail(name, n, "%s is not an integer within 0..%d", clip(n.text), int64(sizeMax))
	}
	return v
}

func (r *fields) csum(name string) (sum [32]byte) {
	n := r.must(name, stringNode)
	if n == nil {
		return sum
	}
	if len(n.text) != 2*len(sum) {
		r.fail(name, n, "%d characters, want %d hex digits", len(n.text), 2*len(sum))
		return sum
	}
	if _, err := hex.Decode(sum[:], []byte(n.text)); err != nil {
		r.fail(name, n, "not hex digits")
	}
	return sum
}

// mode reads a crypt mode; a missing one is "none".
func (r *fields) mode(name string) crypto.Mode {
	n := r.get(name, stringNode)
	if n == nil {
		return crypto.ModeNone
	}
	mode, err := crypto.ParseMode(n.text)
	if err != nil {
		r.fail(name, n, "%w", err)
	}
	return mode
}

func (r *fields) files(name string) []File {
	list := r.must(name, arrayNode)
	if list == nil {
		return nil
	}
	files := make([]File, 0, len(list.kids))
	seen := make(map[string]bool, len(list.kids))
	for i := range list.kids {
		n := &list.kids[i]
		entry := fmt.Sprintf("%s[%d]", name, i)
		if n.kind != objectNode {
			r.fail(entry, n, "%v instead of an object", n.kind)
			return nil
		}
		file := fields{of: n, path: entry + "."}
		f := file.file()
		if seen[f.Name] {
			file.fail("filename", n.member("filename"), "%q is listed twice", clip(f.Name))
		}
		if file.err != nil {
			r.err = file.err
			return nil
		}
		seen[f.Name] = true
		files = append(files, f)
	}
	return files
}

func (r *fields) file() File {
	return File{
		Name:      r.text("filename", checkFileName),
		CryptMode: r.mode("crypt-mode"),
		Size:      r.size("size"),
		Csum:      r.csum("csum"),
	}
}

// raw reads an object whose members are kept as they are.
func (r *fields) raw(name string) map[string]json.RawMessage {
	n := r.get(name, objectNode)
	if n == nil {
		return nil
	}
	m := make(map[string]json.RawMessage, len(n.keys))
	for i, key := range n.keys {
		m[key] = appendNode(nil, &n.kids[i], "")
	}
	return m
}

// Encode returns the text form of section 4.4 of the formats specification:
// indented by two spaces, members sorted. One that Decode would refuse is not made.
func (m *Manifest) Encode() ([]byte, error) {
	text, err := m.encode(bounds{size: jsonSizeMax, values: jsonNodesMax})
	if err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	return text, nil
}

// CheckNew refuses a manifest that has just come, and that could outgrow what can be
// read when notes and the results of verifications are added to it. The errors wrap
// ErrFormat.
func (m *Manifest) CheckNew() error {
	_, err := m.encode(bounds{size: newSizeMax, values: newNodesMax})
	return err
}

// Bounds of a new manifest: its text as it will be stored, in bytes, and its values.
const (
	newSizeMax  = jsonSizeMax / 2
	newNodesMax = jsonNodesMax / 2
)

// bounds are those of a text.
type bounds struct{ size, values int }

func (m *Manifest) encode(most bounds) ([]byte, error) {
	if err := m.validate(); err != nil {
		return nil, err
	}
	top := m.signed()
	signature := node{}
	if m.Signature != "" {
		signature = stringValue(m.Signature)
	}
	unprotected := node{kind: objectNode}
	for key, raw := range m.Unprotected {
		n, err := parseJSON(raw)
		if err != nil {
			return nil, fmt.Errorf("unprotected.%s: %w", clip(key), err)
		}
		unprotected.put(key, *n)
	}
	if err := unprotected.sort(); err != nil {
		return nil, fmt.Errorf("unprotected: %w", err)
	}
	// Both names come behind those of the signed part.
	top.put("signature", signature)
	top.put("unprotected", unprotected)
	if n := top.count(); n > most.values {
		return nil, fmt.Errorf("%d JSON values, at most %d are allowed: %w", n, most.values, ErrFormat)
	}
	text := appendNode(nil, &top, "\n")
	return text, checkSize(len(text), most.size)
}

// Canonical returns the bytes that are signed: the known members without
// signature and unprotected, in canonical form.
func (m *Manifest) Canonical() ([]byte, error) {
	if err := m.validate(); err != nil {
		return nil, fmt.Errorf("canonical form of the manifest: %w", err)
	}
	top := m.signed()
	return appendNode(nil, &top, ""), nil
}

// signed returns the signed part. The members are put in sorted order.
func (m *Manifest) signed() node {
	files := node{kind: arrayNode}
	for _, f := range m.Files {
		file := node{kind: objectNode}
		file.put("crypt-mode", stringValue(string(f.CryptMode)))
		file.put("csum", stringValue(hex.EncodeToString(f.Csum[:])))
		file.put("filename", stringValue(f.Name))
		file.put("size", node{kind: numberNode, text: strconv.FormatUint(f.Size, 10)})
		files.kids = append(files.kids, file)
	}
	top := node{kind: objectNode}
	top.put("backup-id", stringValue(m.ID))
	top.put("backup-time", node{kind: numberNode, text: strconv.FormatInt(m.Time, 10)})
	top.put("backup-type", stringValue(m.Type))
	top.put("files", files)
	return top
}

func stringValue(s string) node { return node{kind: stringNode, text: s} }

// put adds a member.
func (n *node) put(name string, v node) {
	n.keys = append(n.keys, name)
	n.kids = append(n.kids, v)
}
