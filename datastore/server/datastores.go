package server

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"holdfast/chunkstore"
	"holdfast/datastore"
	"holdfast/datastore/access"
	"holdfast/datastore/server/budget"
	"holdfast/datastore/server/rest"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
)

var _ datastore.Turns = (*budget.Turns)(nil)

// openStore is a datastore that the server has open, or is opening.
type openStore struct {
	*datastore.Store
	conf  access.Datastore
	turns *budget.Turns

	opening sync.Mutex
	users   atomic.Int64 // calls, sessions and tasks that work on it
	gone    bool         // closed for good; guarded by opening
	// frozen is why the store could only be opened for reading, nil if it can be
	// written to. It is set before use returns and does not change.
	frozen error
}

// release gives back what use has taken.
func (o *openStore) release() { o.users.Add(-1) }

// use opens a datastore if that has not been done, and holds it until release.
func (s *Server) use(name string) (*openStore, error) {
	d, err := s.o.Access.Datastore(name)
	if errors.Is(err, chunkstore.ErrNotExist) {
		return nil, rest.Refuse(wire.ErrNoDatastore, "datastore '%s' does not exist", name)
	}
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return nil, rest.Refuse(wire.ErrFull, "server is shutting down")
	}
	o := s.stores[name]
	if o == nil {
		o = &openStore{}
		s.stores[name] = o
	}
	o.users.Add(1)
	s.mu.Unlock()
	if err := s.openOnce(o, d); err != nil {
		o.release()
		return nil, err
	}
	return o, nil
}

// openOnce opens the store unless it is open. A second caller waits.
func (s *Server) openOnce(o *openStore, d access.Datastore) error {
	o.opening.Lock()
	defer o.opening.Unlock()
	if o.gone {
		return rest.BadRequest("datastore '%s' is being removed", d.Name)
	}
	if o.Store != nil {
		return nil
	}
	t := s.accounts.NewTurns()
	st, err := s.openDatastore(d, t, false)
	if cannotWrite(err) {
		// Reading never needs to write.
		only, oerr := s.openDatastore(d, t, true)
		if oerr == nil {
			s.o.Log.Warn("the datastore can only be read", "datastore", d.Name, "error", err)
			o.frozen, st, err = err, only, nil
		}
	}
	if err != nil {
		return fmt.Errorf("datastore '%s': %w", d.Name, err)
	}
	o.Store, o.conf, o.turns = st, d, t
	return nil
}

// cannotWrite reports whether err says that a disk takes nothing, though it may
// be read: it is mounted so, or full to the last block.
func cannotWrite(err error) bool {
	for _, is := range []error{syscall.EROFS, chunkstore.ErrNoSpace, syscall.ENOSPC, syscall.EDQUOT} {
		if errors.Is(err, is) {
			return true
		}
	}
	return false
}

// useToWrite is use for what has to write. A datastore that could only be opened
// for reading is opened anew, unless somebody reads there.
func (s *Server) useToWrite(name string) (*openStore, error) {
	o, err := s.use(name)
	if err != nil || o.frozen == nil {
		return o, err
	}
	refused := frozenError(name, o.frozen)
	o.release()
	if err := s.retire(name); errors.Is(err, wire.ErrBusy) {
		return nil, refused
	} else if err != nil {
		return nil, err
	}
	if o, err = s.use(name); err != nil || o.frozen == nil {
		return o, err
	}
	defer o.release()
	return nil, frozenError(name, o.frozen)
}

// frozenError refuses to change a datastore that could not be opened for
// writing. Where it is full, making room helps, and so that is what it is.
func frozenError(name string, why error) error {
	err := fmt.Errorf("datastore '%s' can only be read: %w", name, why)
	if errors.Is(why, syscall.EROFS) {
		err = fmt.Errorf("%w: %w", err, chunkstore.ErrReadOnly)
	}
	return err
}

// retire closes a datastore that nobody uses, or returns wire.ErrBusy.
func (s *Server) retire(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.stores[name]
	if o == nil {
		return nil
	}
	if o.users.Load() > 0 {
		return fmt.Errorf("datastore '%s' is in use: %w", name, wire.ErrBusy)
	}
	// Nobody can begin to use it while s.mu is held, so this does not wait.
	o.opening.Lock()
	defer o.opening.Unlock()
	o.gone = true
	delete(s.stores, name)
	if o.Store == nil {
		return nil
	}
	return o.Store.Close()
}

// closeStores closes all datastores once nobody uses them.
func (s *Server) closeStores(ctx context.Context) error {
	var errs []error
	for _, name := range s.openNames() {
		err := s.retire(name)
		for errors.Is(err, wire.ErrBusy) && ctx.Err() == nil {
			select {
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
			}
			err = s.retire(name)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (s *Server) openNames() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.stores))
}

// store returns the datastore that the call names, for reading. It is held
// until the method returns.
func (c *call) store() (*openStore, error) { return c.hold(false) }

// writable returns the datastore that the call names, for changing it.
func (c *call) writable() (*openStore, error) { return c.hold(true) }

// checkable returns the datastore that the call names for a check, which notes
// what it finds where that can be written.
func (c *call) checkable() (*openStore, error) {
	st, err := c.store()
	if err != nil {
		return nil, err
	}
	d, err := c.server.o.Access.Datastore(c.Str("store"))
	if err == nil {
		err = maintenance(d, true)
	}
	return st, err
}

func (c *call) hold(write bool) (*openStore, error) {
	name := c.Str("store")
	if err := c.server.offered(name, write); err != nil {
		return nil, err
	}
	use := c.server.use
	if write {
		use = c.server.useToWrite
	}
	o, err := use(name)
	if err != nil {
		return nil, err
	}
	c.held = append(c.held, o)
	return o, nil
}

// offered refuses a datastore that is not in the list, or that is not for use.
func (s *Server) offered(name string, write bool) error {
	d, err := s.o.Access.Datastore(name)
	if errors.Is(err, chunkstore.ErrNotExist) {
		return rest.Refuse(wire.ErrNoDatastore, "datastore '%s' does not exist", name)
	}
	if err != nil {
		return err
	}
	return maintenance(d, write)
}

// maintenance refuses what the maintenance mode of a datastore rules out.
func maintenance(d access.Datastore, write bool) error {
	mode, message, _ := strings.Cut(d.Maintenance, ",")
	message = strings.TrimPrefix(message, "message=")
	if mode == "offline" || mode == "read-only" && write {
		return rest.BadRequest("datastore '%s' is in %s maintenance mode: %s", d.Name, mode, message)
	}
	return nil
}

// sight is how much of a datastore a caller sees.
type sight struct{ whole, some bool }

func (c *call) sight(store string) (v sight, err error) {
	path := access.DatastorePath(store, "")
	have, err := c.server.o.Access.Privileges(c.auth, path)
	if err != nil {
		return v, err
	}
	below, err := c.server.o.Access.PrivilegesBelow(c.auth, path)
	v.whole = have.Any(api.SeesStore)
	v.some = v.whole || below.Any(api.SeesBelow)
	return v, err
}

func listDatastores(c *call) (any, error) {
	all, err := c.server.o.Access.Datastores()
	if err != nil {
		return nil, err
	}
	list := []api.DatastoreItem{}
	for _, d := range all {
		v, err := c.sight(d.Name)
		if err != nil {
			return nil, err
		}
		if !v.some {
			continue
		}
		item := api.DatastoreItem{Store: d.Name, Maintenance: d.Maintenance, Mount: "nonremovable", Backend: "filesystem"}
		if v.whole && d.Comment != "" {
			item.Comment = &d.Comment
		}
		list = append(list, item)
	}
	return list, nil
}

func datastoreStatus(c *call) (any, error) {
	// Whether there is such a datastore, and whether it is open to anybody, comes
	// before the rights (section 4.1 of the protocol specification).
	if err := c.server.offered(c.Str("store"), false); err != nil {
		return nil, err
	}
	v, err := c.sight(c.Str("store"))
	if err != nil {
		return nil, err
	}
	if !v.some {
		return nil, c.denied()
	}
	st, err := c.store()
	if err != nil {
		return nil, err
	}
	var a api.DatastoreStatus
	if !v.whole {
		return a, nil
	}
	if a.Usage, err = c.usageFor(st.conf); err != nil {
		return nil, err
	}
	if !c.Bool("verbose", false) {
		return a, nil
	}
	// What a collection has found is of everybody's chunks.
	audits, err := c.audits(c.Str("store"))
	if err != nil {
		return nil, err
	}
	a.GC = new(api.GCStatus) // clients expect one: that of no collection at all
	if audits {
		last := c.server.gc.last(c.Str("store"))
		a.GC = &last.GCStatus
	}
	a.Counts, err = c.counts(st)
	return a, err
}

// counts counts the groups that the caller sees.
func (c *call) counts(st *openStore) (map[string]*api.TypeCount, error) {
	counts := map[string]*api.TypeCount{"ct": nil, "host": nil, "vm": nil, "other": nil}
	spaces, err := st.Namespaces(c.Context(), "")
	if err != nil {
		return nil, err
	}
	for _, ns := range spaces {
		groups, err := c.visibleIn(st, ns)
		if err != nil {
			return nil, err
		}
		for _, g := range groups {
			n, err := st.Count(g.Group)
			if err != nil {
				return nil, err
			}
			if n == 0 {
				continue
			}
			if counts[g.Group.Type] == nil {
				counts[g.Group.Type] = &api.TypeCount{}
			}
			counts[g.Group.Type].Groups++
			counts[g.Group.Type].Snapshots += n
		}
	}
	return counts, nil
}

func activeOperations(c *call) (any, error) {
	st, err := c.store()
	if err != nil {
		return nil, err
	}
	// Every store is open for writing; this call does not count.
	return api.Operations{Write: st.users.Load() - 1}, nil
}

func datastoreUsage(c *call) (any, error) {
	all, err := c.server.o.Access.Datastores()
	if err != nil {
		return nil, err
	}
	list := []api.DatastoreUsage{}
	for _, d := range all {
		v, err := c.sight(d.Name)
		if err != nil {
			return nil, err
		}
		if !v.some {
			continue
		}
		item := api.DatastoreUsage{Store: d.Name, Mount: "nonremovable", Backend: "filesystem"}
		if v.whole {
			item.Usage, item.Error = c.usageOf(d)
		}
		list = append(list, item)
	}
	return list, nil
}

func (c *call) usageOf(d access.Datastore) (*api.Usage, string) {
	if err := maintenance(d, false); err != nil {
		return nil, err.Error()
	}
	u, err := c.usageFor(d)
	if err != nil {
		return nil, err.Error()
	}
	return &u, ""
}
