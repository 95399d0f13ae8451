package manifest

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"

	"holdfast/crypto"
)

// OriginName is the small file in which a backup made with a key says where it
// belongs. The members of a manifest that a signature covers are fixed by its
// format, and its unprotected part can be taken away unnoticed; but the files of
// a snapshot are signed with their checksums, and programs that do not know this
// one leave it alone. So it can be neither changed nor left out.
const OriginName = "holdfast-origin.json.blob"

// OriginSizeMax is the largest content of that file, in bytes.
const OriginSizeMax = 4096

// originVersion is the only version there is.
const originVersion = 1

// Origin is what a signed snapshot says of the place it was made for.
type Origin struct {
	// Namespace is the one it was backed up into, "" for the root.
	Namespace string
	// Previous is the snapshot of the group that it was made after, by its time
	// in Unix seconds and the Digest of its manifest; 0 if there was none that
	// the client could read.
	Previous       int64
	PreviousDigest [32]byte
}

// originText is the file: JSON, with the digest as 64 hex digits.
type originText struct {
	Version   int             `json:"version"`
	Namespace string          `json:"namespace"`
	Previous  *originPrevious `json:"previous,omitempty"`
}

type originPrevious struct {
	Time   int64  `json:"backup-time"`
	Digest string `json:"manifest-sha256"`
}

// Encode returns the content of the file.
func (o Origin) Encode() ([]byte, error) {
	t := originText{Version: originVersion, Namespace: o.Namespace}
	if o.Previous != 0 {
		t.Previous = &originPrevious{o.Previous, hex.EncodeToString(o.PreviousDigest[:])}
	}
	return json.Marshal(t)
}

// DecodeOrigin reads the content of the file. Anything that Encode would not have
// written is ErrFormat.
func DecodeOrigin(raw []byte) (Origin, error) {
	bad := func(format string, args ...any) (Origin, error) {
		return Origin{}, fmt.Errorf("%s: %w", OriginName, fieldError("content", format, args...))
	}
	if len(raw) > OriginSizeMax {
		return bad("%d bytes, at most %d are allowed", len(raw), OriginSizeMax)
	}
	var t originText
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&t); err != nil {
		return bad("%w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return bad("more than one value")
	}
	if t.Version != originVersion {
		return bad("version %d is not known; a newer Holdfast may read it", t.Version)
	}
	o := Origin{Namespace: t.Namespace}
	if t.Previous == nil {
		return o, nil
	}
	var err error
	if o.PreviousDigest, err = parseTag(t.Previous.Digest); err != nil {
		return bad("manifest-sha256: %w", err)
	}
	if o.Previous = t.Previous.Time; o.Previous < 1 || o.Previous > timeMax {
		return bad("backup-time: %d is not within 1..%d", o.Previous, int64(timeMax))
	}
	return o, nil
}

// Digest identifies what a manifest's signature covers: notes and other marks may
// change, the digest stays.
func (m *Manifest) Digest() ([32]byte, error) {
	msg, err := m.Canonical()
	if err != nil {
		return [32]byte{}, fmt.Errorf("digest of the manifest: %w", err)
	}
	return crypto.Sum(msg), nil
}
