package rest

import (
	"strings"

	"holdfast/datastore/wire"
)

// Values are the parameters of a request after they were checked: string,
// int64, bool, []string or []int64 by their kind.
type Values map[string]any

// Str returns a text parameter, "" if it was not given.
func (v Values) Str(name string) string { s, _ := v[name].(string); return s }

// Int returns an integer parameter, or otherwise.
func (v Values) Int(name string, otherwise int64) int64 {
	if n, ok := v[name].(int64); ok {
		return n
	}
	return otherwise
}

// Bool returns a boolean parameter, or otherwise.
func (v Values) Bool(name string, otherwise bool) bool {
	if b, ok := v[name].(bool); ok {
		return b
	}
	return otherwise
}

// Strs returns a list of texts, nil if it was not given.
func (v Values) Strs(name string) []string { l, _ := v[name].([]string); return l }

// Ints returns a list of integers, nil if it was not given.
func (v Values) Ints(name string) []int64 { l, _ := v[name].([]int64); return l }

// Has reports whether a parameter was given.
func (v Values) Has(name string) bool { _, ok := v[name]; return ok }

// Namespace returns the parameter ns; its grammar was checked.
func (v Values) Namespace() wire.Namespace { return wire.Namespace(v.Str("ns")) }

// Group returns the group that the parameters name.
func (v Values) Group() wire.Group {
	return wire.Group{NS: v.Namespace(), Type: v.Str("backup-type"), ID: v.Str("backup-id")}
}

// Snapshot returns the snapshot that the parameters name.
func (v Values) Snapshot() wire.Snapshot {
	return wire.Snapshot{Group: v.Group(), Time: v.Int("backup-time", 0)}
}

// FirstLine returns the part of a text that listings show.
func FirstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return strings.TrimSuffix(s, "\r")
}
