// Package wiretest is published with the ports of package wire: a reference
// implementation in memory, for tests of whatever uses the ports, and the
// conformance suite that every implementation must pass.
//
// The package imports chunkstore, crypto and the shared rooms index, manifest
// and wire.
package wiretest

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"

	"holdfast/chunkstore"
	"holdfast/crypto"
	"holdfast/datastore/index"
	"holdfast/datastore/manifest"
	"holdfast/datastore/wire"
)

// Memory keeps snapshots in memory. The zero value is empty and ready. It is safe
// for concurrent use.
type Memory struct {
	// PutChunk, if set, is called before a chunk is kept; an error is the
	// answer then.
	PutChunk func(c chunkstore.Chunk) error

	mu     sync.Mutex
	chunks map[chunkstore.Ref]chunkstore.Chunk
	snaps  map[wire.Snapshot]map[string][]byte
	marks  map[wire.Snapshot]bool // protected
	busy   map[wire.Group]bool
}

var (
	_ wire.Source  = (*Memory)(nil)
	_ wire.Target  = (*Memory)(nil)
	_ wire.Manager = (*Memory)(nil)
)

// Chunks returns how many chunks are kept.
func (m *Memory) Chunks() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.chunks)
}

// Drop forgets a chunk, as a damaged store would, or changes it if it is given
// new bytes.
func (m *Memory) Drop(id chunkstore.ID, instead chunkstore.Blob) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for r, c := range m.chunks {
		if r.ID != id {
			continue
		}
		if instead == nil {
			delete(m.chunks, r)
			continue
		}
		c.Blob = instead
		m.chunks[r] = c
	}
}

// File returns the bytes of a file of a snapshot, for a test to change.
func (m *Memory) File(s wire.Snapshot, name string) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.snaps[s][name]
}

// SetFile replaces a file of a snapshot.
func (m *Memory) SetFile(s wire.Snapshot, name string, b []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.snaps[s][name] = b
}

// Namespaces implements wire.Source.
func (m *Memory) Namespaces(_ context.Context, parent wire.Namespace) ([]wire.Namespace, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := []wire.Namespace{parent}
	for s := range m.snaps {
		below := parent == "" || strings.HasPrefix(string(s.Group.NS), string(parent)+"/")
		if below && !slices.Contains(list, s.Group.NS) {
			list = append(list, s.Group.NS)
		}
	}
	slices.Sort(list)
	return list, nil
}

// Groups implements wire.Source.
func (m *Memory) Groups(_ context.Context, ns wire.Namespace) ([]wire.GroupInfo, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	byGroup := make(map[wire.Group]*wire.GroupInfo)
	for s, files := range m.snaps {
		if s.Group.NS != ns {
			continue
		}
		g := byGroup[s.Group]
		if g == nil {
			g = &wire.GroupInfo{Group: s.Group}
			byGroup[s.Group] = g
		}
		g.Count++
		if s.Time > g.LastTime {
			g.LastTime, g.LastFiles = s.Time, nil
			for _, f := range describe(s, files).Files {
				g.LastFiles = append(g.LastFiles, f.Name)
			}
		}
	}
	var list []wire.GroupInfo
	for _, g := range byGroup {
		list = append(list, *g)
	}
	slices.SortFunc(list, func(a, b wire.GroupInfo) int { return a.Group.Compare(b.Group) })
	return list, nil
}

// Snapshots implements wire.Source.
func (m *Memory) Snapshots(_ context.Context, g wire.Group) ([]wire.SnapshotInfo, error) {
	if err := g.Validate(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []wire.SnapshotInfo
	for s, files := range m.snaps {
		if s.Group == g {
			info := describe(s, files)
			info.Protected = m.marks[s]
			list = append(list, info)
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("group %s: %w", g, chunkstore.ErrNotExist)
	}
	slices.SortFunc(list, func(a, b wire.SnapshotInfo) int { return int(a.Snapshot.Time - b.Snapshot.Time) })
	return list, nil
}

// AllSnapshots implements wire.Source.
func (m *Memory) AllSnapshots(ctx context.Context, ns wire.Namespace) iter.Seq2[wire.SnapshotInfo, error] {
	return func(yield func(wire.SnapshotInfo, error) bool) {
		groups, err := m.Groups(ctx, ns)
		if err != nil {
			yield(wire.SnapshotInfo{}, err)
			return
		}
		for _, g := range groups {
			list, err := m.Snapshots(ctx, g.Group)
			if err != nil {
				yield(wire.SnapshotInfo{}, err)
				return
			}
			for _, info := range list {
				if !yield(info, nil) {
					return
				}
			}
		}
	}
}

func describe(s wire.Snapshot, files map[string][]byte) wire.SnapshotInfo {
	info := wire.SnapshotInfo{Snapshot: s}
	mf, err := manifest.Open(files[wire.ManifestName])
	if err != nil {
		info.Damage = err.Error()
		return info
	}
	for _, f := range mf.Files {
		info.Files = append(info.Files, wire.FileInfo{Name: f.Name, CryptMode: string(f.CryptMode), Size: f.Size})
		info.Size += f.Size
	}
	info.Notes = mf.Notes()
	if fp, ok, err := mf.KeyFingerprint(); err == nil && ok {
		info.Fingerprint = fp.String()
	}
	return info
}

// Open implements wire.Source.
func (m *Memory) Open(_ context.Context, s wire.Snapshot) (wire.Reader, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.snaps[s]; !ok {
		return nil, fmt.Errorf("snapshot %s: %w", s, chunkstore.ErrNotExist)
	}
	return &reader{m: m, snap: s}, nil
}

type reader struct {
	m    *Memory
	snap wire.Snapshot
}

func (r *reader) Snapshot() wire.Snapshot { return r.snap }
func (r *reader) Close() error            { return nil }

func (r *reader) Get(ctx context.Context, ref chunkstore.Ref) (chunkstore.Blob, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r.m.mu.Lock()
	defer r.m.mu.Unlock()
	c, ok := r.m.chunks[ref]
	if !ok {
		return nil, fmt.Errorf("chunk %s: %w", ref.ID.Short(), chunkstore.ErrNotExist)
	}
	return bytes.Clone(c.Blob), nil
}

func (r *reader) file(name string, want ...wire.Kind) ([]byte, wire.Kind, error) {
	kind, err := wire.CheckFileName(name)
	if err != nil {
		return nil, 0, err
	}
	if !slices.Contains(want, kind) {
		return nil, 0, fmt.Errorf("%s: %w", name, wire.ErrName)
	}
	r.m.mu.Lock()
	defer r.m.mu.Unlock()
	b, ok := r.m.snaps[r.snap][name]
	if !ok {
		return nil, 0, fmt.Errorf("%s: %w", name, chunkstore.ErrNotExist)
	}
	return bytes.Clone(b), kind, nil
}

func (r *reader) Blob(_ context.Context, name string) (chunkstore.Blob, error) {
	b, _, err := r.file(name, wire.Blob)
	return b, err
}

func (r *reader) Index(_ context.Context, name string) (*index.Reader, error) {
	b, kind, err := r.file(name, wire.Dynamic, wire.Fixed)
	if err != nil {
		return nil, err
	}
	k := index.Dynamic
	if kind == wire.Fixed {
		k = index.Fixed
	}
	return index.Open(bytes.NewReader(b), int64(len(b)), k)
}

// Forget implements wire.Manager.
func (m *Memory) Forget(_ context.Context, s wire.Snapshot) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.snaps[s]; !ok {
		return fmt.Errorf("snapshot %s: %w", s, chunkstore.ErrNotExist)
	}
	if m.marks[s] {
		return fmt.Errorf("snapshot %s: %w", s, wire.ErrProtected)
	}
	delete(m.snaps, s)
	return nil
}

// Notes implements wire.Manager.
func (m *Memory) Notes(_ context.Context, s wire.Snapshot) (string, error) {
	mf, err := manifest.Open(m.File(s, wire.ManifestName))
	if err != nil {
		return "", fmt.Errorf("snapshot %s: %w", s, chunkstore.ErrNotExist)
	}
	return mf.Notes(), nil
}

// SetNotes implements wire.Manager.
func (m *Memory) SetNotes(_ context.Context, s wire.Snapshot, text string) error {
	mf, err := manifest.Open(m.File(s, wire.ManifestName))
	if err != nil {
		return fmt.Errorf("snapshot %s: %w", s, chunkstore.ErrNotExist)
	}
	mf.SetNotes(text)
	raw, err := mf.Blob()
	if err != nil {
		return err
	}
	m.SetFile(s, wire.ManifestName, raw)
	return nil
}

// SetProtected implements wire.Manager.
func (m *Memory) SetProtected(_ context.Context, s wire.Snapshot, protected bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.snaps[s]; !ok {
		return fmt.Errorf("snapshot %s: %w", s, chunkstore.ErrNotExist)
	}
	if m.marks == nil {
		m.marks = make(map[wire.Snapshot]bool)
	}
	m.marks[s] = protected
	return nil
}

// sumOf is what a manifest says of a blob.
func sumOf(raw chunkstore.Blob) [32]byte { return crypto.Sum(raw) }
