package crypto

import (
	"crypto/sha256"
	"hash"
)

// Sum returns the SHA-256 of b.
func Sum(b []byte) [32]byte { return sha256.Sum256(b) }

// NewHash returns a SHA-256 hash.
func NewHash() hash.Hash { return sha256.New() }
