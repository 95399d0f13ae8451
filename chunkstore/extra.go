package chunkstore

import "context"

// Walker is a store that can name all its chunks.
type Walker interface {
	// Walk calls fn once for every chunk that the store knew when Walk was
	// called, damaged ones included, in no stated order, and stops at the
	// first error, which it returns.
	Walk(ctx context.Context, fn func(ID, Info) error) error
}

// Replacer is a session that can store a chunk in place of one that is there
// already, because the caller has found the new one to be the better.
type Replacer interface {
	// Replace stores a chunk as Put does, whether the store has it or not.
	// From its return on Get answers with the new one.
	Replace(ctx context.Context, c Chunk) error
}

// Keeper is a session that can hold on to a chunk which it has not put.
type Keeper interface {
	// Keep tells the sizes of a stored chunk as Store.Stat does. Until the
	// session is closed the chunk is not removed.
	Keep(ctx context.Context, id ID) (Info, error)
}
