package datastore

import (
	"context"
	"errors"

	"holdfast/chunkstore"
)

// keepAll makes the session count on stored chunks, and calls miss for each of which the
// store does not say that it is there: with its place in refs and the reason. It ends
// with the first error of miss.
func (ss *Session) keepAll(ctx context.Context, refs []chunkstore.Ref, miss func(i int, why error) error) error {
	keys := make([]chunkstore.Key, len(refs))
	for i, r := range refs {
		keys[i] = r.Key(ss.copies)
	}
	rest, err := ss.puts.KeepAll(ctx, keys)
	if err != nil {
		return err
	}
	for _, i := range rest {
		_, err := ss.puts.Keep(ctx, keys[i])
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil {
			continue
		}
		if err := miss(i, err); err != nil {
			return err
		}
	}
	return nil
}

// HasAll is Has for many chunks, in a fraction of the time. It returns the places in refs,
// rising, of those that are not there. refs are only read.
func (ss *Session) HasAll(ctx context.Context, refs []chunkstore.Ref) (missing []int, err error) {
	if err := ss.running(); err != nil {
		return nil, err
	}
	err = ss.keepAll(ctx, refs, func(i int, why error) error {
		if !errors.Is(why, chunkstore.ErrNotExist) && !errors.Is(why, chunkstore.ErrCorrupt) {
			return why
		}
		missing = append(missing, i)
		return nil
	})
	return missing, err
}
