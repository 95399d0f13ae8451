package rest

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"holdfast/datastore/wire/api"
)

// Method is a row of a table of methods, with what is done for it: with a C.
type Method[C any] struct {
	api.Method
	// Do answers: with what becomes the data of the answer, or ErrAnswered.
	Do func(C) (any, error)
}

// Tree is a place in the tree of paths, and what lies below it. The zero value is an
// empty tree.
type Tree[C any] struct {
	children map[string]*Tree[C]
	variable *Tree[C] // child for any component
	name     string
	methods  map[string]*Method[C]
}

// Add puts a method into the tree.
func (n *Tree[C]) Add(m *Method[C]) {
	for _, part := range components(m.Path()) {
		if name, ok := strings.CutPrefix(part, "{"); ok {
			if n.variable == nil {
				n.variable = &Tree[C]{name: strings.TrimSuffix(name, "}")}
			}
			n = n.variable
			continue
		}
		if n.children == nil {
			n.children = make(map[string]*Tree[C])
		}
		if n.children[part] == nil {
			n.children[part] = &Tree[C]{}
		}
		n = n.children[part]
	}
	if n.methods == nil {
		n.methods = make(map[string]*Method[C])
	}
	n.methods[m.Verb()] = m
}

// Lookup walks to the node of a path and collects its variables.
func (n *Tree[C]) Lookup(parts []string) (*Tree[C], map[string]string) {
	uri := make(map[string]string)
	for _, part := range parts {
		switch {
		case n.children[part] != nil:
			n = n.children[part]
		case n.variable != nil:
			n = n.variable
			uri[n.name] = part
		default:
			return nil, nil
		}
	}
	return n, uri
}

// Of returns the method of a verb, nil if there is none; of no node there is none.
func (n *Tree[C]) Of(verb string) *Method[C] {
	if n == nil {
		return nil
	}
	return n.methods[verb]
}

// Subdirs is what GET returns for a node without a method of its own.
func (n *Tree[C]) Subdirs() []api.Subdir {
	list := []api.Subdir{}
	for _, name := range slices.Sorted(maps.Keys(n.children)) {
		list = append(list, api.Subdir{Subdir: name})
	}
	return list
}

// components cuts a path at its slashes; repeated ones count once.
func components(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
}

// PathOf decodes the path of a request into components.
func PathOf(r *http.Request) ([]string, error) {
	parts := components(r.URL.EscapedPath())
	for i, p := range parts {
		decoded, err := url.PathUnescape(p)
		if err != nil {
			return nil, BadRequest("malformed path")
		}
		if strings.HasPrefix(decoded, ".") {
			return nil, BadRequest("path component begins with '.'")
		}
		parts[i] = decoded
	}
	return parts, nil
}
