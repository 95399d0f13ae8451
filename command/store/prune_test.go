package store

import (
	"context"
	"errors"
	"net"
	"syscall"
	"testing"

	"holdfast/chunkstore"
	"holdfast/datastore/prune"
	"holdfast/datastore/wire"
)

// What goes wrong with one of three groups: which are pruned, and how it ends.
func TestEachGroup(t *testing.T) {
	gone := errors.Join(errPrune, chunkstore.ErrNotExist)
	for _, tc := range []struct {
		name   string
		err    error
		stop   bool // the user does, while the first one is pruned
		pruned int
		is     error
	}{
		{"nothing", nil, false, 3, nil},
		{"one that is not there", chunkstore.ErrNotExist, false, 2, chunkstore.ErrNotExist},
		{"a snapshot that cannot be removed", gone, false, 2, errPrune},
		{"one that is not permitted", wire.ErrPermission, false, 2, wire.ErrPermission},
		{"a server that has gone", &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, false, 0, syscall.ECONNREFUSED},
		{"a token that was revoked", wire.ErrUnauthenticated, false, 0, wire.ErrUnauthenticated},
		{"an interruption between two", nil, true, 1, context.Canceled},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		first := true
		all, err := eachGroup(ctx, []wire.Group{{ID: "a"}, {ID: "b"}, {ID: "c"}}, func(wire.Group) ([]prune.Decision, error) {
			if !first {
				return nil, nil
			}
			first = false
			if tc.stop {
				cancel()
			}
			return nil, tc.err
		})
		cancel()
		if len(all) != tc.pruned || !errors.Is(err, tc.is) {
			t.Errorf("%s: %d pruned, want %d, and %v", tc.name, len(all), tc.pruned, err)
		}
	}
}
