package access

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"

	"holdfast/chunkstore"
)

const (
	documentFormat  = "holdfast-access"
	documentVersion = 1
	// importMax is the longest document, in bytes: more than a configuration
	// with all its lists full takes.
	importMax = 64 << 20
)

// document is the whole configuration as Export writes it.
type document struct {
	Format     string               `json:"format"`
	Version    int                  `json:"version"`
	Secret     []byte               `json:"ticket-secret"`
	Users      entries[userRecord]  `json:"users"`
	Tokens     entries[tokenRecord] `json:"tokens"`
	ACLs       entries[ACL]         `json:"acls"`
	Datastores entries[Datastore]   `json:"datastores"`
	Quotas     entries[Quota]       `json:"quotas"`
}

// entries is a JSON array whose length is bounded while it is read.
type entries[T any] []T

// UnmarshalJSON reads at most entriesMax elements.
func (l *entries[T]) UnmarshalJSON(b []byte) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if t, err := dec.Token(); err != nil || t != json.Delim('[') {
		return fmt.Errorf("want a list: %w", chunkstore.ErrInvalid)
	}
	*l = entries[T]{}
	for dec.More() {
		if len(*l) == entriesMax {
			return fmt.Errorf("list of more than %d entries: %w", entriesMax, chunkstore.ErrInvalid)
		}
		var v T
		if err := dec.Decode(&v); err != nil {
			return err
		}
		*l = append(*l, v)
	}
	return nil
}

// document returns the configuration as sorted lists.
func (c *config) document() document {
	return document{
		Format: documentFormat, Version: documentVersion, Secret: c.secret,
		Users:      sorted(c.users, userRecord.name),
		Tokens:     sorted(c.tokens, tokenRecord.name),
		ACLs:       c.aclList(),
		Datastores: sorted(c.stores, func(d Datastore) string { return d.Name }),
		Quotas:     sorted(c.quotas, func(q Quota) string { return q.Subject }),
	}
}

// sorted returns the values of a map by name; an empty list is not nil, since
// it would be null in JSON.
func sorted[K comparable, V any](m map[K]V, name func(V) string) []V {
	l := slices.AppendSeq(make([]V, 0, len(m)), maps.Values(m))
	slices.SortFunc(l, func(a, b V) int { return cmp.Compare(name(a), name(b)) })
	return l
}

// config checks a document and makes the configuration that it describes.
func (d *document) config() (*config, error) {
	c := &config{secret: d.Secret}
	c.fill()
	for _, u := range d.Users {
		c.users[u.ID] = u
	}
	for _, t := range d.Tokens {
		c.tokens[t.ID] = t
	}
	for _, a := range d.ACLs {
		c.acls[a.key()] = a.Propagate
	}
	for _, s := range d.Datastores {
		c.stores[s.Name] = s
	}
	for _, q := range d.Quotas {
		c.quotas[q.Subject] = q
	}
	for _, l := range []struct {
		what          string
		listed, found int
	}{
		{"user", len(d.Users), len(c.users)},
		{"token", len(d.Tokens), len(c.tokens)},
		{"ACL entry", len(d.ACLs), len(c.acls)},
		{"datastore", len(d.Datastores), len(c.stores)},
		{"quota", len(d.Quotas), len(c.quotas)},
	} {
		if l.listed != l.found {
			return nil, fmt.Errorf("a %s is listed twice: %w", l.what, chunkstore.ErrInvalid)
		}
	}
	return c, c.seal()
}

// Export writes the whole configuration as JSON. Passwords and tokens are in
// it as hashes, but the secret behind tickets is in it as well, so that a
// server that imports it goes on accepting the tickets of this one: who can
// read the export can make tickets.
func (s *Store) Export(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	d := s.config.Load().document()
	if err := e.Encode(d); err != nil {
		return fmt.Errorf("export users and rights: %w", err)
	}
	return nil
}

// Import replaces everything by what Export has written, in one transaction.
// Anything wrong in it is an error that wraps chunkstore.ErrInvalid, and
// nothing has changed then.
func (s *Store) Import(r io.Reader) error {
	c, err := readDocument(r)
	if err != nil {
		return fmt.Errorf("import users and rights: %w", err)
	}
	return s.update(func(next *config) error {
		*next = *c
		return nil
	})
}

// CheckExport returns the error that Import would return for a document that is
// not in order.
func CheckExport(r io.Reader) error {
	if _, err := readDocument(r); err != nil {
		return fmt.Errorf("import users and rights: %w", err)
	}
	return nil
}

// readDocument reads and checks what Export has written.
func readDocument(r io.Reader) (*config, error) {
	b, err := io.ReadAll(io.LimitReader(r, importMax+1))
	if err != nil {
		return nil, err
	}
	if len(b) > importMax {
		return nil, fmt.Errorf("longer than %d bytes: %w", importMax, chunkstore.ErrInvalid)
	}
	var head struct {
		Format  string `json:"format"`
		Version int    `json:"version"`
	}
	if err := json.Unmarshal(b, &head); err != nil || head.Format != documentFormat {
		return nil, fmt.Errorf("no export of users and rights: %w", chunkstore.ErrInvalid)
	}
	if head.Version != documentVersion {
		return nil, fmt.Errorf("version %d, this program knows %d: %w", head.Version, documentVersion, chunkstore.ErrInvalid)
	}
	var d document
	if err := decodeStrict(b, &d); err != nil {
		return nil, fmt.Errorf("%w: %w", chunkstore.ErrInvalid, err)
	}
	c, err := d.config()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", chunkstore.ErrInvalid, err)
	}
	return c, nil
}
