package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"

	"holdfast/chunkstore/durable"
	"holdfast/datastore/wire/api"
)

// collections remembers the last collection of each datastore, in a file too so
// that a restart does not forget it.
type collections struct {
	path string // "" keeps nothing
	log  *slog.Logger

	mu      sync.Mutex
	store   map[string]api.Collection
	running map[string]bool
}

// collectionsMax caps the file, in bytes.
const collectionsMax = 8 << 20

// openCollections reads what is known. A file that cannot be read is told and
// begun anew.
func openCollections(path string, log *slog.Logger) *collections {
	c := &collections{path: path, log: log, running: make(map[string]bool)}
	var err error
	if c.store, err = c.load(); err != nil {
		log.Warn("the last garbage collections are forgotten", "error", err)
	}
	if c.store == nil {
		c.store = make(map[string]api.Collection)
	}
	return c
}

func (c *collections) load() (known map[string]api.Collection, err error) {
	if c.path == "" {
		return nil, nil
	}
	raw, err := durable.ReadFile(c.path, collectionsMax)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(raw, &known); err != nil {
		return nil, fmt.Errorf("%s: %w", c.path, err)
	}
	return known, nil
}

// save writes the file. It is called with the lock.
func (c *collections) save() {
	if c.path == "" {
		return
	}
	raw, err := json.Marshal(c.store)
	if err == nil {
		err = durable.WriteFile(c.path, raw, 0o600)
	}
	if err != nil {
		c.log.Warn("the last garbage collection is not kept", "error", err)
	}
}

// last returns what is known of the last collection of a datastore.
func (c *collections) last(name string) api.Collection {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.store[name]
	l.Store = name
	return l
}

// begin refuses a second collection of a datastore at the same time.
func (c *collections) begin(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running[name] {
		return false
	}
	c.running[name] = true
	return true
}

// end replaces what is known; nil leaves it as it is.
func (c *collections) end(name string, l *api.Collection) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.running, name)
	if l != nil {
		l.Store = name
		c.store[name] = *l
		c.save()
	}
}

// forget is for a datastore that has left the list.
func (c *collections) forget(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.store[name]; ok {
		delete(c.store, name)
		c.save()
	}
}
