package api

import (
	"net/url"
	"path"
	"regexp"
	"strings"

	"holdfast/datastore/wire"
)

// Op names a method: the verb, a space, and the path below /api2/json, in which {name}
// stands for one component. It becomes the parameter of that name.
type Op string

// Verb is GET, POST, PUT or DELETE.
func (o Op) Verb() string { verb, _, _ := strings.Cut(string(o), " "); return verb }

// Path is the path with its variables.
func (o Op) Path() string { _, path, _ := strings.Cut(string(o), " "); return path }

// variable is a part of a path or place that a parameter fills.
var variable = regexp.MustCompile(`\{[a-z-]+\}`)

// At is the path with values in place of its variables, in their order, each escaped as
// one component. Variables without a value stay.
func (o Op) At(values ...string) string {
	return variable.ReplaceAllStringFunc(o.Path(), func(hole string) string {
		if len(values) == 0 {
			return hole
		}
		value := values[0]
		values = values[1:]
		return url.PathEscape(value)
	})
}

// Method is one row of a table of methods.
type Method struct {
	Op Op
	// About says in a line what it does.
	About  string
	Params []Param
	// Raw says that the body is payload and not parameters.
	Raw bool
	May May
	// Answer is a value of the type of the answer's data: nil is null, and Bytes a body
	// that is no JSON.
	Answer any
}

// Bytes is the answer of methods that send a file.
type Bytes struct{}

// Verb is the verb of the method.
func (m Method) Verb() string { return m.Op.Verb() }

// Path is the path of the method, with its variables.
func (m Method) Path() string { return m.Op.Path() }

// Who is who decides whether a method may be asked for.
type Who int

// The zero value lets nobody pass.
const (
	Nobody Who = iota
	// Anybody needs no credentials.
	Anybody
	// LoggedIn is whoever has credentials that are good.
	LoggedIn
	// Local is a caller of this machine whose identity is settled. For all others there
	// is no such method.
	Local
	// Granted is who has one of Any on On.
	Granted
	// InNamespace is who has one of Any on On, which is a namespace; or one of Own
	// there, for the groups that are the caller's own.
	InNamespace
	// Self is the user whose name is the parameter userid, and who is Granted.
	Self
	// Asks is the owner of what is asked for, and who is Granted; the method finds out
	// whose it is.
	Asks
	// Lists is whoever has logged in: who is Granted gets everything, all others what is
	// their own or what they may see.
	Lists
	// Session is who has one of Any or Own on On; the session asks, and goes on asking.
	Session
)

// May says who may ask for a method. Rights can be taken away while it runs: methods that
// take long, and changes, ask again.
type May struct {
	Who Who
	// On is a path of access rules, in which {name} stands for a parameter. One of a
	// namespace may end in "/.." for the parent.
	On string
	// Any are the privileges one of which is enough.
	Any Privilege
	// Own are those one of which is enough for what is the caller's own.
	Own Privilege
	// Note is what the method asks for beyond that, for people.
	Note string
}

// Place is On with values in place of its variables.
func (m May) Place(value func(name string) string) string {
	return variable.ReplaceAllStringFunc(m.On, func(hole string) string { return value(hole[1 : len(hole)-1]) })
}

// Namespace is the namespace that On ends in.
func (m May) Namespace(value func(name string) string) wire.Namespace {
	ns := wire.Namespace(value("ns"))
	if strings.Contains(m.On, "{parent}") {
		ns = wire.Namespace(value("parent"))
	}
	if strings.HasSuffix(m.On, "/..") {
		ns = Parent(ns)
	}
	return ns
}

// Parent is the namespace that another lies in; the root lies in itself.
func Parent(ns wire.Namespace) wire.Namespace {
	if up := path.Dir(string(ns)); up != "." {
		return wire.Namespace(up)
	}
	return ""
}

// granted is who has one of the privileges on a path.
func granted(on string, list ...Privilege) May { return May{Who: Granted, On: on, Any: Of(list...)} }

// The namespace that the parameter ns names, in the datastore of the parameter store.
const thisNamespace = "/datastore/{store}/{ns}"

// groups is who has any in the namespace of the parameters, or own for what is its own.
func groups(all, own Privilege) May {
	return May{Who: InNamespace, On: thisNamespace, Any: all, Own: own}
}

// but adds what a method asks for beyond.
func (m May) but(note string) May {
	m.Note = note
	return m
}

// Of is the set of the privileges.
func Of(list ...Privilege) (p Privilege) {
	for _, q := range list {
		p |= q
	}
	return p
}

// Methods are all methods below /api2/json. The caller owns the slice.
func Methods() (all []Method) {
	for _, rows := range [][]Method{
		versionRows(), ticketRows(), userRows(), tokenRows(), aclRows(), datastoreRows(), groupRows(), snapshotRows(), deletedRows(),
		fileRows(), pruneRows(), verifyRows(), namespaceRows(), nodeRows(), taskRows(), configRows(), quotaRows(), sessionRows(),
	} {
		all = append(all, rows...)
	}
	return all
}
