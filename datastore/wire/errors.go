package wire

import (
	"errors"
	"fmt"
	"strings"

	"holdfast/chunkstore"
)

// Errors of a server, besides those of names.go, protocol.go and chunkstore. What a client
// makes of an answer, and what a command ends with, stands with each in wire/api.
var (
	// ErrNoStore is returned for a directory that holds no store.
	ErrNoStore = errors.New("no Holdfast store")
	// ErrNoDatastore is returned when a server has no datastore of that name.
	ErrNoDatastore error = narrower{"no such datastore", chunkstore.ErrNotExist}
	// ErrOwner is returned when a backup group belongs to somebody else (section 7.4 of
	// the protocol specification).
	ErrOwner error = narrower{"backup owner check failed", ErrPermission}
	// ErrMissing is what errors.Is finds in a MissingError.
	ErrMissing = errors.New("chunks are missing")
	// ErrVerification is how a verification ends that has found damage.
	ErrVerification = errors.New("verification failed - please check the log for details")
	// ErrShare is returned when the caller has all that one caller may have.
	ErrShare = errors.New("the caller has its share")
	// ErrFull is returned when all there is for callers is taken, or the server ends.
	ErrFull = errors.New("everything is taken")
	// ErrSlow is returned when the request did not come in time.
	ErrSlow = errors.New("the request came too slowly")
	// ErrNotEmpty is returned for the removal of a namespace that holds backups.
	ErrNotEmpty = errors.New("not empty")
	// ErrParameter is returned for a parameter whose value is bad.
	ErrParameter = errors.New("parameter verification failed")
	// ErrUnknownParameter is returned for a parameter that the server does not know.
	ErrUnknownParameter error = narrower{"schema does not allow additional properties", ErrParameter}
	// ErrFileSystem is wrapped by the error about a file system that a store cannot be on.
	ErrFileSystem = errors.New("the file system is not fit for a repository")
)

// narrower is an error that is another one, too, and says more.
type narrower struct {
	text string
	of   error
}

// Error implements error.
func (e narrower) Error() string { return e.text }

// Unwrap lets errors.Is find the other one.
func (e narrower) Unwrap() error { return e.of }

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

// Is makes it ErrMissing.
func (e *MissingError) Is(target error) bool { return target == ErrMissing }

func (e *MissingError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d references are not backed by stored chunks:", e.Count)
	for _, r := range e.Refs {
		fmt.Fprintf(&b, " %s at %d: chunk %s: %v;", r.File, r.Off, r.ID.Short(), r.Why)
	}
	return strings.TrimSuffix(b.String(), ";")
}
