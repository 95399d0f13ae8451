package manifest

import (
	"encoding/json"
	"fmt"
)

// Members of the unprotected part that the server writes.
const (
	keyVerifyState = "verify_state"
	keyUploadStats = "chunk_upload_stats"
)

// Verification is what the server has found when it last read all of a
// snapshot: State is "ok" or "failed", UPID the task. Nothing of it is covered
// by the signature.
type Verification struct {
	State string `json:"state"`
	UPID  string `json:"upid"`
}

// Verification returns the last verification; ok tells whether there was one.
// One that cannot be read counts as none.
func (m *Manifest) Verification() (v Verification, ok bool) {
	raw, ok := m.Unprotected[keyVerifyState]
	if !ok || json.Unmarshal(raw, &v) != nil || v.State == "" {
		return Verification{}, false
	}
	return v, true
}

// SetVerification replaces the result of the last verification.
func (m *Manifest) SetVerification(v Verification) error {
	return m.setUnprotected(keyVerifyState, v)
}

// UploadStats is what the server has counted while a snapshot was sent. Sizes
// are in bytes.
type UploadStats struct {
	Count          uint64 `json:"count"` // chunks sent
	Size           uint64 `json:"size"`  // their contents, and the blobs
	CompressedSize uint64 `json:"compressed_size"`
	Duplicates     uint64 `json:"duplicates"` // of Count, those that were stored already
}

// SetUploadStats replaces the counts of the upload.
func (m *Manifest) SetUploadStats(u UploadStats) error {
	return m.setUnprotected(keyUploadStats, u)
}

// StripOwned removes what only the server writes: a sender could tell of a
// verification that has never been. It reports whether there was anything.
func (m *Manifest) StripOwned() bool {
	before := len(m.Unprotected)
	for _, name := range []string{keyVerifyState, keyUploadStats} {
		delete(m.Unprotected, name)
	}
	return len(m.Unprotected) < before
}

func (m *Manifest) setUnprotected(name string, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("manifest: unprotected.%s: %w", name, err)
	}
	if m.Unprotected == nil {
		m.Unprotected = make(map[string]json.RawMessage)
	}
	m.Unprotected[name] = raw
	return nil
}
