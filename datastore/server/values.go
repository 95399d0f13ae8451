package server

import (
	"holdfast/datastore/wire"
)

// values are the parameters of a request after they were checked: string,
// int64, bool, []string or []int64 by their kind.
type values map[string]any

// str returns a text parameter, "" if it was not given.
func (v values) str(name string) string { s, _ := v[name].(string); return s }

// int returns an integer parameter, or otherwise.
func (v values) int(name string, otherwise int64) int64 {
	if n, ok := v[name].(int64); ok {
		return n
	}
	return otherwise
}

// bool returns a boolean parameter, or otherwise.
func (v values) bool(name string, otherwise bool) bool {
	if b, ok := v[name].(bool); ok {
		return b
	}
	return otherwise
}

// strs returns a list of texts, nil if it was not given.
func (v values) strs(name string) []string { l, _ := v[name].([]string); return l }

// ints returns a list of integers, nil if it was not given.
func (v values) ints(name string) []int64 { l, _ := v[name].([]int64); return l }

// has reports whether a parameter was given.
func (v values) has(name string) bool { _, ok := v[name]; return ok }

// namespace returns the parameter ns; its grammar was checked.
func (v values) namespace() wire.Namespace { return wire.Namespace(v.str("ns")) }

// group returns the group that the parameters name.
func (v values) group() wire.Group {
	return wire.Group{NS: v.namespace(), Type: v.str("backup-type"), ID: v.str("backup-id")}
}

// snapshot returns the snapshot that the parameters name.
func (v values) snapshot() wire.Snapshot {
	return wire.Snapshot{Group: v.group(), Time: v.int("backup-time", 0)}
}
