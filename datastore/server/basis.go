package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"

	"holdfast/chunkstore"
	"holdfast/datastore"
	"holdfast/datastore/image"
	"holdfast/datastore/index"
	"holdfast/datastore/manifest"
	"holdfast/datastore/server/rest"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
)

// bases are the snapshots that the backup sessions under way build on. The metadata of
// such a snapshot is read by who makes the backup, though he may do nothing else: a
// client that goes by metadata compares with it what it finds on the disk. The zero
// value is ready for use.
type bases struct {
	mu   sync.Mutex
	list map[baseOf]*basis
}

// baseOf is where a backup is made. There is one session at a time.
type baseOf struct {
	store string
	group wire.Group
}

// basis is what one backup session builds on.
type basis struct {
	all  *bases
	of   baseOf
	snap wire.Snapshot
	auth wire.AuthID     // who makes the backup
	ctx  context.Context // ends when the snapshot is made, or is not to be
	over context.CancelFunc
}

// begin notes what a session builds on, nil if on nothing.
func (l *bases) begin(store string, auth wire.AuthID, session *datastore.Session) *basis {
	snap, ok := session.Base()
	if !ok {
		return nil
	}
	b := &basis{all: l, of: baseOf{store, snap.Group}, snap: snap, auth: auth}
	b.ctx, b.over = context.WithCancel(context.Background())
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.list == nil {
		l.list = make(map[baseOf]*basis)
	}
	l.list[b.of] = b
	return b
}

// of returns the basis of the backup that somebody is making, nil unless it is this
// snapshot.
func (l *bases) of(store string, auth wire.AuthID, snap wire.Snapshot) *basis {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.list[baseOf{store, snap.Group}]
	if b == nil || b.auth != auth || b.snap != snap {
		return nil
	}
	return b
}

// end says that the session needs it no more. It may be called again, and for none.
func (b *basis) end() {
	if b == nil {
		return
	}
	b.over()
	b.all.mu.Lock()
	defer b.all.mu.Unlock()
	if b.all.list[b.of] == b { // the next session may have begun
		delete(b.all.list, b.of)
	}
}

// running returns an error once the session has ended.
func (b *basis) running() error {
	if b.ctx.Err() == nil {
		return nil
	}
	return &rest.StatusError{Code: http.StatusForbidden, Text: "permission check failed - the backup that builds on the snapshot has ended"}
}

// metadataUpgrade begins a reader session of who may put and not read: for the metadata
// of the snapshot that his own backup, which must be under way, builds on. To ask for
// anything else is answered as if there were no such thing as this.
func (s *Server) metadataUpgrade(c *call, path string, have api.Privilege) (any, error) {
	refusal := rest.BadRequest("no permissions on %s", path).Meaning(wire.ErrPermission)
	if !have.Has(api.DatastorePut) {
		return nil, refusal
	}
	base := s.bases.of(c.Str("store"), c.auth, c.Snapshot())
	if base == nil {
		return nil, refusal
	}
	st, err := c.store()
	if err != nil {
		return nil, err
	}
	if err := checkUpgrade(c.Request, wire.ReaderProtocol); err != nil {
		return nil, err
	}
	snapshot, err := st.Open(c.Context(), base.snap)
	if errors.Is(err, chunkstore.ErrNotExist) {
		return nil, refusal
	}
	if err != nil {
		return nil, err
	}
	needs := rights{path: path, any: api.DatastorePut,
		owner: func() (wire.AuthID, error) { return st.OwnerNow(base.snap.Group) }, still: base.running}
	return nil, s.upgrade(c, opening{
		store: st, spec: readerSpec(c), protocol: wire.ReaderProtocol, rights: needs, cancel: snapshot.Close,
		start: func(v *conversation) session {
			v.task.Logf("reading the metadata of %s from datastore '%s' for the backup of %s", base.snap, c.Str("store"), c.auth)
			// An idle line does not keep the snapshot longer than the backup does.
			context.AfterFunc(base.ctx, func() { _ = snapshot.Close() })
			r := newReading(v, snapshot)
			r.metadata = true
			return r
		},
	})
}

// mayRead refuses what is no metadata to who may read no more, whether it is there or not.
func (r *reading) mayRead(name string) error {
	if !r.metadata || name == wire.ManifestName || manifest.IsMeta(name) {
		return nil
	}
	return fmt.Errorf("read %s of the previous snapshot: %w", name, wire.ErrPermission)
}

// described makes sure that an index is the one which the manifest describes.
func described(m *manifest.Manifest, name string, idx *index.Reader) error {
	i := slices.IndexFunc(m.Files, func(f manifest.File) bool { return f.Name == name })
	if i < 0 {
		return fmt.Errorf("%s: %w", name, datastore.ErrNotNamed)
	}
	return image.CheckIndex(idx, m.Files[i])
}
