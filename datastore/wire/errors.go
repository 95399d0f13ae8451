package wire

import (
	"fmt"
	"strings"

	"holdfast/chunkstore"
)

// MissingError is the answer of a finish whose snapshot refers to chunks that
// are not stored as it says.
type MissingError struct {
	// Count is how many references are bad.
	Count int
	// Refs are the first of them, at most MissingShown.
	Refs []MissingRef
}

// MissingShown is how many bad references an error carries.
const MissingShown = 16

// MissingRef is one bad reference.
type MissingRef struct {
	File string
	Off  uint64 // offset of the chunk in the archive, in bytes
	ID   chunkstore.ID
	Why  error
}

func (e *MissingError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d references are not backed by stored chunks:", e.Count)
	for _, r := range e.Refs {
		fmt.Fprintf(&b, " %s at %d: chunk %s: %v;", r.File, r.Off, r.ID.Short(), r.Why)
	}
	return strings.TrimSuffix(b.String(), ";")
}
