package client

import (
	"context"
	"fmt"
	"io"

	"holdfast/chunkstore"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
)

// lane is one connection of a reader, which is made again when it is lost.
type lane struct {
	reader *reader
	lock   chan struct{} // holds one token; whoever has it may use what follows
	conn   *conn         // nil: none
}

func newLane(r *reader) *lane {
	l := &lane{reader: r, lock: make(chan struct{}, 1)}
	l.lock <- struct{}{}
	return l
}

// ready returns a connection over which every index that is wanted has been
// downloaded.
func (l *lane) ready(ctx context.Context) (*conn, error) {
	select {
	case <-l.lock:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { l.lock <- struct{}{} }()
	if l.reader.isClosed() {
		return nil, fmt.Errorf("%w: the reader is closed: %w", errLocal, chunkstore.ErrInvalid)
	}
	if l.conn != nil && !l.conn.alive() {
		l.conn.drop()
		l.conn = nil
	}
	if l.conn == nil {
		if err := l.dial(ctx); err != nil {
			return nil, err
		}
	}
	for _, name := range l.reader.wanted() {
		if err := l.download(ctx, name); err != nil {
			return nil, err
		}
	}
	return l.conn, nil
}

// dial begins a reader session.
func (l *lane) dial(ctx context.Context) error {
	r := l.reader
	c, err := r.client.upgrade(ctx, upgrading{op: api.ReaderUpgrade, protocol: wire.ReaderProtocol, query: r.client.snapshotQuery(r.snap)})
	if err != nil {
		return err
	}
	l.conn = c
	return nil
}

// download gets an index for the access to its chunks only.
func (l *lane) download(ctx context.Context, name string) error {
	if _, ok := l.conn.seen.Load(name); ok {
		return nil
	}
	if _, err := l.conn.copy(ctx, downloadQuery(name), io.Discard, l.reader.mostIndex(name)); err != nil {
		if lost(ctx, err) {
			l.conn.drop()
		}
		return fmt.Errorf("%s: %w", name, err)
	}
	l.conn.seen.Store(name, true)
	return nil
}

// close waits until a connection that is just being made is there.
func (l *lane) close() {
	<-l.lock
	defer func() { l.lock <- struct{}{} }()
	if l.conn != nil {
		l.conn.close()
		l.conn = nil
	}
}
