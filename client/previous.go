package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"

	"holdfast/chunkstore"
	"holdfast/datastore/index"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
)

// previous is the snapshot before the one being written, as a backup session
// shows it (section 2.9 of the protocol specification). It implements
// wire.Reader. Its chunks come over another connection, which is opened when
// the first is asked for.
type previous struct {
	session *session
	snap    wire.Snapshot
	bounds

	mu     sync.Mutex
	names  map[string]bool // indexes whose chunks the session knows
	chunks *reader
}

// Snapshot implements wire.Reader.
func (p *previous) Snapshot() wire.Snapshot { return p.snap }

func previousQuery(name string) query {
	return query{op: api.Previous, params: url.Values{"archive-name": {name}}}
}

// explain tells a file that is not there from other trouble: a server that does not name
// what has failed answers 400 for both.
func (p *previous) explain(name string, err error) error {
	var status *StatusError
	if errors.As(err, &status) && !status.named() && (status.Code == http.StatusBadRequest || status.Code == http.StatusNotFound) {
		err = fmt.Errorf("%w (%w)", chunkstore.ErrNotExist, err)
	}
	return fmt.Errorf("previous snapshot %s: %s: %w", p.snap, name, err)
}

// Blob implements wire.Reader.
func (p *previous) Blob(ctx context.Context, name string) (chunkstore.Blob, error) {
	if err := checkBlob(name); err != nil {
		return nil, err
	}
	b, err := p.session.conn.bytes(ctx, previousQuery(name), p.mostBlob(name))
	if err != nil {
		return nil, p.explain(name, err)
	}
	return b, nil
}

// Index implements wire.Reader. From then on the session knows the chunks of
// the index.
func (p *previous) Index(ctx context.Context, name string) (*index.Reader, error) {
	kind, err := indexKind(name)
	if err != nil {
		return nil, err
	}
	idx, err := p.session.conn.spool(ctx, previousQuery(name), kind, p.mostIndex(name))
	if err != nil {
		return nil, p.explain(name, err)
	}
	if err := p.register(name, idx); err != nil {
		return nil, errors.Join(fmt.Errorf("previous snapshot %s: %s: %w", p.snap, name, err), idx.Close())
	}
	return idx, nil
}

// register enters the chunks of an index into what the session knows.
func (p *previous) register(name string, idx *index.Reader) error {
	for e, err := range idx.All(0) {
		if err != nil {
			return err
		}
		p.session.known.add(e.ID, e.Size, false)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.names == nil {
		p.names = make(map[string]bool)
	}
	p.names[name] = true
	return nil
}

// learn makes the chunks of the previous snapshot's index of that name known
// to the session, if there is one that has not been opened yet.
func (ss *session) learn(ctx context.Context, name string) error {
	ss.mu.Lock()
	p := ss.prev
	ss.mu.Unlock()
	if p == nil || p.has(name) {
		return nil
	}
	idx, err := p.Index(ctx, name)
	if errors.Is(err, chunkstore.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return idx.Close()
}

func (p *previous) has(name string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.names[name]
}

// Get implements chunkstore.RefGetter.
func (p *previous) Get(ctx context.Context, ref chunkstore.Ref) (chunkstore.Blob, error) {
	r, err := p.reader(ctx)
	if err != nil {
		return nil, err
	}
	return r.Get(ctx, ref)
}

// reader opens the other connection.
func (p *previous) reader(ctx context.Context) (*reader, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.chunks == nil {
		r, err := p.session.client.open(ctx, p.snap)
		if err != nil {
			return nil, err
		}
		p.chunks = r
	}
	for name := range p.names {
		p.chunks.want(name)
	}
	return p.chunks, nil
}

// Close implements wire.Reader.
func (p *previous) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.chunks == nil {
		return nil
	}
	r := p.chunks
	p.chunks = nil
	return r.Close()
}
