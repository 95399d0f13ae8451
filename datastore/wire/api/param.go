package api

// Kind is the type of a parameter.
type Kind int

// The kinds; in brackets the type of the value.
const (
	Str     Kind = iota // text (string)
	Integer             // (int64)
	Boolean             // (bool)
	Strs                // list of Str ([]string)
	Ints                // list of Integer ([]int64); JSON bodies only
)

// Param describes one parameter of a method.
type Param struct {
	Name     string
	Kind     Kind
	Optional bool
	// Check looks at the text form of the value, of each element of a list.
	Check func(string) error
}

// Parameters that many methods have (section 8.1 of the protocol
// specification).
var (
	StoreParam  = Param{Name: "store", Check: CheckStoreName}
	NSParam     = Param{Name: "ns", Optional: true, Check: CheckNamespace}
	TypeParam   = Param{Name: "backup-type", Check: checkType}
	IDParam     = Param{Name: "backup-id", Check: checkBackupID}
	TimeParam   = Param{Name: "backup-time", Kind: Integer, Check: checkTime}
	FileParam   = Param{Name: "file-name", Check: CheckFile}
	DigestParam = Param{Name: "digest", Optional: true, Check: CheckDigest}
)

// Opt returns the parameter as one that may be left out.
func Opt(p Param) Param {
	p.Optional = true
	return p
}

// GroupParams are the parameters of a method about a group, and more.
func GroupParams(more ...Param) []Param {
	return append([]Param{StoreParam, NSParam, TypeParam, IDParam}, more...)
}

// SnapshotParams are the parameters of a method about a snapshot, and more.
func SnapshotParams(more ...Param) []Param {
	return append([]Param{StoreParam, NSParam, TypeParam, IDParam, TimeParam}, more...)
}

// Shorthands for the rows.

func optional(name string, check func(string) error) Param {
	return Param{Name: name, Optional: true, Check: check}
}

func yesNo(name string) Param { return Param{Name: name, Kind: Boolean, Optional: true} }

func number(name string, low, high int64) Param {
	return Param{Name: name, Kind: Integer, Optional: true, Check: Within(low, high)}
}

func needed(name string, check func(string) error) Param { return Param{Name: name, Check: check} }
