package server

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// methodOf is one row of a table of methods, which work on a C.
type methodOf[C any] struct {
	verb string
	// path is relative to /api2/json; {name} stands for one component, which
	// becomes the parameter of that name.
	path   string
	params []param
	// raw says that the body is payload and not parameters.
	raw bool
	// public methods are answered without credentials.
	public bool
	// local methods exist only for callers of this machine whose identity is settled.
	local bool
	do    func(C) (any, error)
}

// treeOf is a place in the tree of paths, and what lies below it. The zero value is an
// empty tree.
type treeOf[C any] struct {
	children map[string]*treeOf[C]
	variable *treeOf[C] // child for any component
	name     string
	methods  map[string]*methodOf[C]
}

// add puts a method into the tree.
func (n *treeOf[C]) add(m *methodOf[C]) {
	for _, part := range components(m.path) {
		if name, ok := strings.CutPrefix(part, "{"); ok {
			if n.variable == nil {
				n.variable = &treeOf[C]{name: strings.TrimSuffix(name, "}")}
			}
			n = n.variable
			continue
		}
		if n.children == nil {
			n.children = make(map[string]*treeOf[C])
		}
		if n.children[part] == nil {
			n.children[part] = &treeOf[C]{}
		}
		n = n.children[part]
	}
	if n.methods == nil {
		n.methods = make(map[string]*methodOf[C])
	}
	n.methods[m.verb] = m
}

// lookup walks to the node of a path and collects its variables.
func (n *treeOf[C]) lookup(parts []string) (*treeOf[C], map[string]string) {
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

// of returns the method of a verb, nil if there is none; of no node there is none.
func (n *treeOf[C]) of(verb string) *methodOf[C] {
	if n == nil {
		return nil
	}
	return n.methods[verb]
}

// subdirs is what GET returns for a node without a method of its own.
func (n *treeOf[C]) subdirs() []map[string]string {
	list := []map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(n.children)) {
		list = append(list, map[string]string{"subdir": name})
	}
	return list
}

// components cuts a path at its slashes; repeated ones count once.
func components(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
}

// pathOf decodes the path of a request into components.
func pathOf(r *http.Request) ([]string, error) {
	parts := components(r.URL.EscapedPath())
	for i, p := range parts {
		decoded, err := url.PathUnescape(p)
		if err != nil {
			return nil, badRequest("malformed path")
		}
		if strings.HasPrefix(decoded, ".") {
			return nil, badRequest("path component begins with '.'")
		}
		parts[i] = decoded
	}
	return parts, nil
}
