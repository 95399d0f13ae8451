package wire

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Limits of names, from section 4.2 of the formats specification.
const (
	// NamespaceDepthMax is the deepest namespace.
	NamespaceDepthMax = 7
	// namespaceLenMax is the longest text form of a namespace, in bytes.
	namespaceLenMax = 256
	// NotesSizeMax is the longest text that is kept with a snapshot or a group, in
	// bytes.
	NotesSizeMax = 64 << 10
	// nameLenMax is the longest single name: what a file system can hold
	// with room for the extension of a temporary file.
	nameLenMax = 200
)

// timeLayout is the only text form of a snapshot's time: UTC, whole seconds.
const timeLayout = "2006-01-02T15:04:05Z"

// Namespace is a path of names joined by "/"; "" is the root.
type Namespace string

// ParseNamespace checks a namespace against the grammar.
func ParseNamespace(s string) (Namespace, error) {
	if s == "" {
		return "", nil
	}
	if len(s) > namespaceLenMax {
		return "", nameError("namespace", s, fmt.Sprintf("longer than %d bytes", namespaceLenMax))
	}
	parts := strings.Split(s, "/")
	if len(parts) > NamespaceDepthMax {
		return "", nameError("namespace", s, fmt.Sprintf("deeper than %d levels", NamespaceDepthMax))
	}
	for _, p := range parts {
		if err := CheckSafeID("namespace", p); err != nil {
			return "", err
		}
	}
	return Namespace(s), nil
}

// Components returns the names of a namespace from the root down.
func (ns Namespace) Components() []string {
	if ns == "" {
		return nil
	}
	return strings.Split(string(ns), "/")
}

// Group is the series of snapshots of one machine.
type Group struct {
	NS   Namespace
	Type string // "vm", "ct" or "host"
	ID   string
}

// ParseGroup reads "vm/100".
func ParseGroup(ns Namespace, s string) (Group, error) {
	typ, id, ok := strings.Cut(s, "/")
	if !ok {
		return Group{}, nameError("backup group", s, `want TYPE/ID, for example "vm/100"`)
	}
	g := Group{NS: ns, Type: typ, ID: id}
	return g, g.Validate()
}

// Validate checks type and id against the grammar.
func (g Group) Validate() error {
	switch g.Type {
	case "vm", "ct", "host":
	default:
		return nameError("backup type", g.Type, "want vm, ct or host")
	}
	return CheckSafeID("backup id", g.ID)
}

// String returns "vm/100", without the namespace.
func (g Group) String() string { return g.Type + "/" + g.ID }

// Compare orders groups as listings show them: ct, host, vm; then numeric ids
// by value before all others bytewise.
func (g Group) Compare(h Group) int {
	if c := cmp.Compare(g.Type, h.Type); c != 0 {
		return c
	}
	a, aErr := strconv.ParseUint(g.ID, 10, 64)
	b, bErr := strconv.ParseUint(h.ID, 10, 64)
	switch {
	case aErr == nil && bErr == nil && a != b:
		return cmp.Compare(a, b)
	case aErr == nil && bErr != nil:
		return -1
	case aErr != nil && bErr == nil:
		return 1
	}
	return cmp.Compare(g.ID, h.ID)
}

// Snapshot names one backup of a group.
type Snapshot struct {
	Group Group
	Time  int64 // Unix seconds, at least 1
}

// ParseSnapshot reads "vm/100/2026-11-22T02:00:00Z".
func ParseSnapshot(ns Namespace, s string) (Snapshot, error) {
	i := strings.LastIndexByte(s, '/')
	if i < 0 || strings.Count(s, "/") != 2 {
		return Snapshot{}, nameError("snapshot", s, `want TYPE/ID/TIME, for example "vm/100/2026-11-22T02:00:00Z" or "vm/100/latest"`)
	}
	g, err := ParseGroup(ns, s[:i])
	if err != nil {
		return Snapshot{}, err
	}
	t, err := ParseTime(s[i+1:])
	if err != nil {
		return Snapshot{}, err
	}
	return Snapshot{Group: g, Time: t}, nil
}

// ParseTime reads the text form of a snapshot's time.
func ParseTime(s string) (int64, error) {
	t, err := time.Parse(timeLayout, s)
	if err != nil || t.Format(timeLayout) != s {
		return 0, nameError("backup time", s, "want UTC in the form 2026-11-22T02:00:00Z")
	}
	if t.Unix() < 1 {
		return 0, nameError("backup time", s, "before 1970")
	}
	return t.Unix(), nil
}

// timeMax is the last second that the text form can hold.
const timeMax = 253402300799

// Validate checks group and time.
func (s Snapshot) Validate() error {
	if s.Time < 1 || s.Time > timeMax {
		return nameError("backup time", strconv.FormatInt(s.Time, 10), "not within the years 1970 to 9999")
	}
	return s.Group.Validate()
}

// TimeString returns the time as the snapshot's directory is called.
func (s Snapshot) TimeString() string { return time.Unix(s.Time, 0).UTC().Format(timeLayout) }

// String returns "vm/100/2026-11-22T02:00:00Z", without the namespace.
func (s Snapshot) String() string { return s.Group.String() + "/" + s.TimeString() }

// CheckSafeID checks a single name: letters, digits, "_", and after the first
// character also "." and "-". what says in the error which name it is.
func CheckSafeID(what, s string) error {
	if s == "" {
		return nameError(what, s, "empty")
	}
	if len(s) > nameLenMax {
		return nameError(what, s, fmt.Sprintf("longer than %d bytes", nameLenMax))
	}
	for i, c := range []byte(s) {
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_'
		if !alnum && (i == 0 || c != '.' && c != '-') {
			return nameError(what, s, `use letters, digits, "_", and after the first character also "." and "-"`)
		}
	}
	return nil
}

// ManifestName is the file whose presence makes a snapshot finished.
const ManifestName = "index.json.blob"

// Kind is what the extension of a file in a snapshot says.
type Kind int

// The three kinds of file in a snapshot.
const (
	Blob Kind = iota + 1
	Dynamic
	Fixed
)

// CheckFileName checks the full name of a file in a snapshot and tells its
// kind.
func CheckFileName(name string) (Kind, error) {
	if err := CheckSafeID("archive name", name); err != nil {
		return 0, err
	}
	switch {
	case strings.HasSuffix(name, ".blob"):
		return Blob, nil
	case strings.HasSuffix(name, ".didx"):
		return Dynamic, nil
	case strings.HasSuffix(name, ".fidx"):
		return Fixed, nil
	}
	return 0, nameError("archive name", name, "want the extension .blob, .didx or .fidx")
}

// ErrName is wrapped by every error about a name that breaks the grammar.
var ErrName = errors.New("bad name")

// ErrProtected is returned for the removal of a protected snapshot.
var ErrProtected = errors.New("protected")

// ErrExists is returned when a snapshot of that name, or a newer one, is
// already there.
var ErrExists = errors.New("already exists")

// ErrBusy is returned when another session writes to the same group.
var ErrBusy = errors.New("busy")

// ErrStopped is returned when somebody with the right to do so has stopped the
// task that the work belongs to.
var ErrStopped = errors.New("task aborted")

// ErrUnavailable is wrapped by every error of a conversation that broke: the other
// side cannot be reached, fell silent, or has no time. It says nothing about what
// was asked for.
var ErrUnavailable = errors.New("the server is not available")

// ErrLocal is wrapped by errors of the machine that reads from a server: it has no room
// for what it must keep meanwhile. It says nothing about what was asked for.
var ErrLocal = errors.New("keep an index on this machine")

// ErrUnknown is returned by Finish when nobody can tell whether the snapshot
// was made.
var ErrUnknown = errors.New("whether the snapshot was made is not known")

func nameError(what, s, why string) error {
	const most = 80
	if len(s) > most {
		s = s[:most] + "…"
	}
	return fmt.Errorf("%s %q: %s: %w", what, s, why, ErrName)
}
