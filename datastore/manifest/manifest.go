// Package manifest is the file that makes a snapshot: which archives it has,
// how large they are, what their checksums are, and the signature over all
// that. It is the only encoder and the only decoder of that format, sections
// 4.4 to 4.6 of the formats specification. Decode and Encode are about the
// text, Open and Blob about the blob around it.
//
// A decoded manifest is well-formed, which says nothing about who wrote it:
// Verify does. The part called "unprotected" is in no case covered by the
// signature.
package manifest

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"holdfast/chunkstore"
	"holdfast/crypto"
)

// Errors of this package, matched with errors.Is.
var (
	// ErrFormat is returned for a manifest that breaks its format.
	ErrFormat = errors.New("malformed manifest")
	// ErrUnsigned is returned by Verify for a manifest without a signature.
	ErrUnsigned = errors.New("the manifest is not signed")
	// ErrNotFound is returned for an archive that is not in the manifest.
	ErrNotFound = errors.New("no such archive")
)

// Members of the unprotected part (section 4.6 of the formats specification).
const (
	keyFingerprint = "key-fingerprint"
	keyNotes       = "notes"
)

// fileName is the manifest's own name, which it must not list.
const fileName = "index.json.blob"

// Limits.
const (
	// nameSizeMax is the longest name of a backup or archive, in bytes.
	nameSizeMax = 200
	// timeMax is the last second of the year 9999.
	timeMax = 253402300799
	// sizeMax is the largest archive, in bytes: offsets fit an int64.
	sizeMax = math.MaxInt64
)

// Manifest describes one snapshot.
type Manifest struct {
	Type  string // "vm", "ct" or "host"
	ID    string
	Time  int64 // Unix seconds
	Files []File
	// Signature is 64 hex digits, "" if the manifest is not signed.
	Signature string
	// Unprotected holds what the server may change. It may be nil.
	Unprotected map[string]json.RawMessage
}

// File is one archive of a snapshot.
type File struct {
	Name      string // with the extension .fidx, .didx or .blob
	CryptMode crypto.Mode
	Size      uint64 // bytes: logical size of an index, encoded size of a blob
	// Csum is the checksum of an index's records, or the SHA-256 of an
	// encoded blob.
	Csum [32]byte
}

// metaExt is how the name of an index of metadata ends: of the archive that holds the
// names and attributes of files whose content is in another one.
const metaExt = ".mpxar.didx"

// IsMeta tells whether a file of that name is an index of metadata. Where small and
// capital letters are one, no other name may open what is none.
func IsMeta(name string) bool {
	at := len(name) - len(metaExt)
	return at > 0 && strings.EqualFold(name[at:], metaExt)
}

// ClassIn returns the class that a chunk, whose blob is of the class given, has in an
// index of that name.
func ClassIn(name string, c chunkstore.Class) chunkstore.Class {
	if IsMeta(name) {
		return c.OfMeta()
	}
	return c
}

// ClassesIn returns the classes that the chunks of an index of that name may be of.
func ClassesIn(name string) chunkstore.Classes {
	if IsMeta(name) {
		return chunkstore.MetaClasses
	}
	return chunkstore.OtherClasses
}

// Class returns the class of the chunks of an index.
func (f File) Class() chunkstore.Class {
	if f.CryptMode == crypto.ModeEncrypt {
		return ClassIn(f.Name, chunkstore.ClassEncrypted)
	}
	return ClassIn(f.Name, chunkstore.ClassPlain)
}

// ClassOf returns the class of the chunks of an index. Those of one that the manifest
// does not name are plain.
func (m *Manifest) ClassOf(name string) chunkstore.Class {
	if i := slices.IndexFunc(m.Files, func(f File) bool { return f.Name == name }); i >= 0 {
		return m.Files[i].Class()
	}
	return ClassIn(name, chunkstore.ClassPlain)
}

// clip keeps foreign text in an error message short.
func clip(s string) string {
	const most = 80
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}

// validate checks that every field is within the format. Errors name the field
// and wrap ErrFormat.
func (m *Manifest) validate() error {
	if err := checkType(m.Type); err != nil {
		return fieldError("backup-type", "%w", err)
	}
	if err := checkName(m.ID); err != nil {
		return fieldError("backup-id", "%w", err)
	}
	if m.Time < 1 || m.Time > timeMax {
		return fieldError("backup-time", "%d is not within 1..%d", m.Time, int64(timeMax))
	}
	seen := make(map[string]bool, len(m.Files))
	for i, f := range m.Files {
		if err := f.validate(); err != nil {
			return fmt.Errorf("files[%d].%w", i, err)
		}
		if seen[f.Name] {
			return fmt.Errorf("files[%d].%w", i, fieldError("filename", "%q is listed twice", f.Name))
		}
		seen[f.Name] = true
	}
	if m.Signature != "" {
		if err := checkSignature(m.Signature); err != nil {
			return fieldError("signature", "%w", err)
		}
	}
	return nil
}

func (f File) validate() error {
	if err := checkFileName(f.Name); err != nil {
		return fieldError("filename", "%w", err)
	}
	if _, err := crypto.ParseMode(string(f.CryptMode)); err != nil {
		return fieldError("crypt-mode", "%w", err)
	}
	if f.Size > sizeMax {
		return fieldError("size", "%d is not within 0..%d", f.Size, int64(sizeMax))
	}
	return nil
}

func fieldError(field, format string, args ...any) error {
	return fmt.Errorf("%s: %w: %w", field, fmt.Errorf(format, args...), ErrFormat)
}

func checkType(s string) error {
	switch s {
	case "vm", "ct", "host":
		return nil
	}
	return fmt.Errorf("%q is not vm, ct or host", clip(s))
}

func checkSignature(s string) error {
	_, err := parseTag(s)
	return err
}

// parseTag decodes a signature.
func parseTag(s string) (tag [32]byte, err error) {
	if len(s) != 2*len(tag) {
		return tag, fmt.Errorf("%d characters, want %d hex digits", len(s), 2*len(tag))
	}
	if _, err := hex.Decode(tag[:], []byte(s)); err != nil {
		return tag, errors.New("not hex digits")
	}
	return tag, nil
}

// checkName checks a name against the grammar of section 4.2 of the formats
// specification.
func checkName(s string) error {
	if s == "" || len(s) > nameSizeMax {
		return fmt.Errorf("name %q of %d bytes, want 1..%d", clip(s), len(s), nameSizeMax)
	}
	for i, c := range []byte(s) {
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_'
		if !alnum && (i == 0 || c != '.' && c != '-') {
			return fmt.Errorf("name %q has a character that is not allowed", clip(s))
		}
	}
	return nil
}

func checkFileName(s string) error {
	if err := checkName(s); err != nil {
		return err
	}
	if s == fileName {
		return fmt.Errorf("%q is the manifest itself", s)
	}
	for _, ext := range []string{".fidx", ".didx", ".blob"} {
		if strings.HasSuffix(s, ext) {
			return nil
		}
	}
	return fmt.Errorf("name %q does not end in .fidx, .didx or .blob", clip(s))
}

// shortNames says which files a name without server extension can mean, best
// first (section 10 of the formats specification).
var shortNames = []struct{ ext, server string }{
	{".img", ".fidx"}, {".img", ".didx"}, {".img", ".blob"},
	{".pxar", ".didx"}, {".mpxar", ".didx"}, {".ppxar", ".didx"}, {".pcat1", ".didx"},
	{".conf", ".blob"}, {".json", ".blob"}, {".key", ".blob"}, {".log", ".blob"},
}

// Lookup returns the file called name, which may lack its server extension:
// "disk0.img" is disk0.img.fidx or, if there is none, disk0.img.didx, or the
// disk0.img.blob of an empty image. A name
// that is not there is ErrNotFound, and the error lists those that are.
func (m *Manifest) Lookup(name string) (File, error) {
	candidates := []string{name}
	for _, s := range shortNames {
		if strings.HasSuffix(name, s.ext) {
			candidates = append(candidates, name+s.server)
		}
	}
	for _, c := range candidates {
		if i := slices.IndexFunc(m.Files, func(f File) bool { return f.Name == c }); i >= 0 {
			return m.Files[i], nil
		}
	}
	return File{}, fmt.Errorf("%w %q; there is: %s", ErrNotFound, clip(name), m.list())
}

// list names the files for an error message.
func (m *Manifest) list() string {
	const most = 20
	if len(m.Files) == 0 {
		return "nothing"
	}
	names := make([]string, 0, most+1)
	for _, f := range m.Files[:min(most, len(m.Files))] {
		names = append(names, f.Name)
	}
	if more := len(m.Files) - most; more > 0 {
		names = append(names, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(names, ", ")
}

// Notes returns the comment of the snapshot, "" if it has none. It is not
// covered by the signature.
func (m *Manifest) Notes() string {
	text, _, err := m.unprotectedText(keyNotes)
	if err != nil {
		return ""
	}
	return text
}

// SetNotes replaces the comment; "" removes it.
func (m *Manifest) SetNotes(text string) {
	if text == "" {
		delete(m.Unprotected, keyNotes)
		return
	}
	m.setUnprotectedText(keyNotes, text)
}

func (m *Manifest) unprotectedText(name string) (text string, ok bool, err error) {
	raw, ok := m.Unprotected[name]
	if !ok {
		return "", false, nil
	}
	n, err := parseJSON(raw)
	if err != nil {
		return "", false, fmt.Errorf("unprotected.%s: %w", name, err)
	}
	switch n.kind {
	case nullNode:
		return "", false, nil
	case stringNode:
		return n.text, true, nil
	}
	return "", false, fieldError("unprotected."+name, "%v instead of a string", n.kind)
}

func (m *Manifest) setUnprotectedText(name, text string) {
	if m.Unprotected == nil {
		m.Unprotected = make(map[string]json.RawMessage)
	}
	m.Unprotected[name] = appendString(nil, strings.ToValidUTF8(text, "\uFFFD"))
}

// KeyFingerprint returns the fingerprint of the key that the manifest says it
// was signed with; ok tells whether it says so. It is not covered by the
// signature.
func (m *Manifest) KeyFingerprint() (f crypto.Fingerprint, ok bool, err error) {
	text, ok, err := m.unprotectedText(keyFingerprint)
	if err != nil || !ok {
		return f, false, err
	}
	if f, err = crypto.ParseFingerprint(text); err != nil {
		return f, false, fieldError("unprotected."+keyFingerprint, "%w", err)
	}
	return f, true, nil
}

// Sign sets the signature and records the key's fingerprint.
func (m *Manifest) Sign(k *crypto.Key) error {
	if k == nil {
		return fmt.Errorf("sign the manifest: %w", crypto.ErrNoKey)
	}
	msg, err := m.Canonical()
	if err != nil {
		return fmt.Errorf("sign the manifest: %w", err)
	}
	tag := k.Sign(msg)
	m.Signature = hex.EncodeToString(tag[:])
	m.setUnprotectedText(keyFingerprint, k.Fingerprint().String())
	return nil
}

// Verify checks the signature (section 4.5 of the formats specification). No
// signature is ErrUnsigned, another key's fingerprint is crypto.ErrWrongKey, a
// signature that does not fit is crypto.ErrTampered, no key is
// crypto.ErrNoKey.
func (m *Manifest) Verify(k *crypto.Key) error {
	if k == nil {
		return fmt.Errorf("verify the manifest: %w", crypto.ErrNoKey)
	}
	if m.Signature == "" {
		return ErrUnsigned
	}
	made, ok, err := m.KeyFingerprint()
	if err != nil {
		return fmt.Errorf("verify the manifest: %w", err)
	}
	if own := k.Fingerprint(); ok && made != own {
		return fmt.Errorf("verify the manifest: it was signed with key %s, this is key %s: %w", made.Short(), own.Short(), crypto.ErrWrongKey)
	}
	tag, err := parseTag(m.Signature)
	if err != nil {
		return fmt.Errorf("verify the manifest: %w", fieldError("signature", "%w", err))
	}
	msg, err := m.Canonical()
	if err != nil {
		return fmt.Errorf("verify the manifest: %w", err)
	}
	if !k.CheckSignature(msg, tag) {
		return fmt.Errorf("verify the manifest: signature: %w", crypto.ErrTampered)
	}
	return nil
}
