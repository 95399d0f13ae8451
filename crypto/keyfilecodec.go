package crypto

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// keyFileTime is the text form of times in key files; reading also accepts "Z"
// for the offset.
const (
	keyFileTime  = "2006-01-02T15:04:05-07:00"
	keyFileTimeZ = "2006-01-02T15:04:05Z"
)

// The members of a key file in the order they are written.
type keyFileJSON struct {
	KDF         *kdfJSON `json:"kdf"`
	Created     string   `json:"created"`
	Modified    string   `json:"modified"`
	Data        []byte   `json:"data"`
	Fingerprint string   `json:"fingerprint,omitempty"`
	Hint        string   `json:"hint,omitempty"`
}

type kdfJSON struct {
	Scrypt *scryptJSON `json:"Scrypt,omitempty"`
	PBKDF2 *pbkdf2JSON `json:"PBKDF2,omitempty"`
}

type scryptJSON struct {
	N    uint64 `json:"n"`
	R    uint64 `json:"r"`
	P    uint64 `json:"p"`
	Salt []byte `json:"salt"`
}

type pbkdf2JSON struct {
	Iter uint64 `json:"iter"`
	Salt []byte `json:"salt"`
}

// Encode returns the file as one line of JSON without a line break. It shows
// the key if the file has no passphrase.
func (f *KeyFile) Encode() ([]byte, error) {
	if err := f.check(); err != nil {
		return nil, fmt.Errorf("encode key file: %w", err)
	}
	out := keyFileJSON{Data: f.Data, Hint: f.Hint}
	switch salt := append([]byte{}, f.Params.Salt...); f.KDF {
	case KDFScrypt:
		out.KDF = &kdfJSON{Scrypt: &scryptJSON{f.Params.N, f.Params.R, f.Params.P, salt}}
	case KDFPBKDF2:
		out.KDF = &kdfJSON{PBKDF2: &pbkdf2JSON{f.Params.Iter, salt}}
	}
	if f.HasFingerprint {
		out.Fingerprint = f.Fingerprint.String()
	}
	var err error
	if out.Created, err = formatTime("created", f.Created); err != nil {
		return nil, err
	}
	if out.Modified, err = formatTime("modified", f.Modified); err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(out); err != nil {
		return nil, fmt.Errorf("encode key file: %w", err)
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
}

func formatTime(field string, t time.Time) (string, error) {
	s := t.Format(keyFileTime)
	if len(s) != len(keyFileTime) {
		return "", fmt.Errorf("encode key file: %s: year %d is not within 0..9999: %w", field, t.Year(), ErrFormat)
	}
	return s, nil
}

// DecodeKeyFile reads a key file of at most 64 KiB. Parameters that would make
// Unlock take more than 1 GiB of memory or very long are refused. Errors wrap
// ErrFormat and name the member and its byte offset.
func DecodeKeyFile(raw []byte) (*KeyFile, error) {
	f, err := decodeKeyFile(raw)
	switch {
	case err == nil:
		return f, nil
	case errors.Is(err, ErrFormat):
		return nil, fmt.Errorf("decode key file: %w", err)
	}
	return nil, fmt.Errorf("decode key file: %w: %w", err, ErrFormat)
}

func decodeKeyFile(raw []byte) (*KeyFile, error) {
	if len(raw) > keyFileSizeMax {
		return nil, fmt.Errorf("%d bytes, at most %d are allowed", len(raw), keyFileSizeMax)
	}
	if !utf8.Valid(raw) {
		return nil, errors.New("the text is not UTF-8")
	}
	r := &jsonReader{raw: raw, dec: json.NewDecoder(bytes.NewReader(raw))}
	r.dec.UseNumber()
	f := &KeyFile{}
	seen, err := r.object(f.decodeMember(r))
	if err != nil {
		return nil, err
	}
	off := r.off()
	if _, err := r.dec.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("more text at byte %d", off)
	}
	for _, name := range []string{"created", "modified", "data"} {
		if !seen[name] {
			return nil, fmt.Errorf("%s is missing", name)
		}
	}
	if err := f.check(); err != nil {
		return nil, err
	}
	return f, nil
}

// decodeMember returns a function that reads the value of one member into f.
// Members of other names are skipped.
func (f *KeyFile) decodeMember(r *jsonReader) func(string) error {
	return func(name string) (err error) {
		var s string
		switch name {
		case "kdf":
			return f.decodeKDF(r)
		case "created":
			f.Created, err = r.time()
		case "modified":
			f.Modified, err = r.time()
		case "data":
			f.Data, err = r.base64()
		case "fingerprint":
			if f.HasFingerprint = !r.null(); !f.HasFingerprint {
				return nil
			}
			if s, err = r.text(); err == nil {
				f.Fingerprint, err = ParseFingerprint(s)
			}
		case "hint":
			if f.Hint, err = r.optionalText(); err == nil {
				err = checkHint(f.Hint)
			}
		default:
			err = r.skip()
		}
		return err
	}
}

func (f *KeyFile) decodeKDF(r *jsonReader) error {
	if r.null() {
		return nil
	}
	seen, err := r.object(func(name string) error {
		switch name {
		case "Scrypt":
			f.KDF = KDFScrypt
		case "PBKDF2":
			f.KDF = KDFPBKDF2
		default:
			return errors.New("unknown function, want Scrypt or PBKDF2")
		}
		return f.Params.decode(r, name)
	})
	if err == nil && len(seen) != 1 {
		err = fmt.Errorf("%d functions instead of one", len(seen))
	}
	return err
}

// decode reads the parameters of the function called kdf.
func (p *kdfParams) decode(r *jsonReader, kdf string) error {
	want := []string{"n", "r", "p", "salt"}
	if kdf == "PBKDF2" {
		want = []string{"iter", "salt"}
	}
	seen, err := r.object(func(name string) (err error) {
		switch name {
		case "n":
			p.N, err = r.uint()
		case "r":
			p.R, err = r.uint()
		case "p":
			p.P, err = r.uint()
		case "iter":
			p.Iter, err = r.uint()
		case "salt":
			p.Salt, err = r.base64()
		default:
			err = r.skip()
		}
		return err
	})
	for _, name := range want {
		if err == nil && !seen[name] {
			err = fmt.Errorf("%s is missing", name)
		}
	}
	return err
}

// jsonReader reads the JSON of a key file token by token, so that errors can
// say where they are.
type jsonReader struct {
	raw []byte
	dec *json.Decoder
}

// off returns the offset of the next token.
func (r *jsonReader) off() int {
	off := int(r.dec.InputOffset())
	for off < len(r.raw) && strings.IndexByte(" \t\r\n:,", r.raw[off]) >= 0 {
		off++
	}
	return off
}

// object reads an object and calls member for each, which must read the value.
// Errors of member are completed with name and offset. A name may stand only
// once; seen has those that did.
func (r *jsonReader) object(member func(name string) error) (seen map[string]bool, err error) {
	off := r.off()
	if tok, err := r.dec.Token(); err != nil || tok != json.Delim('{') {
		return nil, fmt.Errorf("want a JSON object at byte %d", off)
	}
	seen = make(map[string]bool)
	for r.dec.More() {
		off := r.off()
		tok, err := r.dec.Token()
		name, ok := tok.(string)
		if err != nil || !ok {
			return nil, fmt.Errorf("want a member at byte %d", off)
		}
		off = r.off()
		if seen[name] {
			return nil, fmt.Errorf("%s at byte %d: second member of that name", clip(name), off)
		}
		seen[name] = true
		if err := member(name); err != nil {
			return nil, fmt.Errorf("%s at byte %d: %w", clip(name), off, err)
		}
	}
	off = r.off()
	if _, err := r.dec.Token(); err != nil {
		return nil, fmt.Errorf("want the end of an object at byte %d", off)
	}
	return seen, nil
}

// null reports whether the next value is null, and then reads it.
func (r *jsonReader) null() bool {
	if !bytes.HasPrefix(r.raw[r.off():], []byte("null")) {
		return false
	}
	_, err := r.dec.Token()
	return err == nil
}

func (r *jsonReader) text() (string, error) {
	tok, err := r.dec.Token()
	s, ok := tok.(string)
	if err != nil || !ok {
		return "", errors.New("want a string")
	}
	return s, nil
}

func (r *jsonReader) optionalText() (string, error) {
	if r.null() {
		return "", nil
	}
	return r.text()
}

func (r *jsonReader) uint() (uint64, error) {
	tok, err := r.dec.Token()
	n, ok := tok.(json.Number)
	if err != nil || !ok {
		return 0, errors.New("want a number")
	}
	v, err := strconv.ParseUint(n.String(), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s is not an unsigned 64-bit integer", clip(n.String()))
	}
	return v, nil
}

// base64 reads bytes. What they are is not repeated in the error: it may be a
// key.
func (r *jsonReader) base64() ([]byte, error) {
	s, err := r.text()
	if err != nil {
		return nil, err
	}
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || strings.ContainsAny(s, "\r\n") {
		return nil, errors.New("want base64 with padding")
	}
	return b, nil
}

func (r *jsonReader) time() (time.Time, error) {
	s, err := r.text()
	if err != nil {
		return time.Time{}, err
	}
	layout := keyFileTime
	if len(s) == len(keyFileTimeZ) {
		layout = keyFileTimeZ
	}
	t, err := time.Parse(layout, s)
	if err != nil || len(s) != len(layout) {
		return time.Time{}, fmt.Errorf("%q is not a time like %s", clip(s), keyFileTime)
	}
	return t, nil
}

// skip reads one value of any kind.
func (r *jsonReader) skip() error {
	var raw json.RawMessage
	if err := r.dec.Decode(&raw); err != nil {
		return errors.New("want a value")
	}
	return nil
}
