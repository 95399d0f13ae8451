package image

import (
	"sync"

	"holdfast/chunkstore"
)

// cacheMax is how many bytes of chunks an image keeps; one larger chunk is
// kept alone.
const cacheMax = 32 << 20

// cache holds the chunks last read, by their number in the index.
type cache struct {
	mu     sync.Mutex
	chunks map[int64]*cached
	bytes  int
	clock  int64 // counts uses
}

type cached struct {
	plain chunkstore.Plain
	used  int64
}

func (c *cache) get(i int64) (chunkstore.Plain, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.chunks[i]
	if !ok {
		return nil, false
	}
	c.clock++
	e.used = c.clock
	return e.plain, true
}

func (c *cache) put(i int64, plain chunkstore.Plain) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.chunks[i]; ok {
		return
	}
	for c.bytes > 0 && c.bytes+len(plain) > cacheMax {
		c.evict()
	}
	c.clock++
	c.chunks[i] = &cached{plain: plain, used: c.clock}
	c.bytes += len(plain)
}

// evict drops the chunk that was used longest ago; there are few enough to
// look at them all.
func (c *cache) evict() {
	oldest, found := int64(0), false
	for i, e := range c.chunks {
		if !found || e.used < c.chunks[oldest].used {
			oldest, found = i, true
		}
	}
	c.bytes -= len(c.chunks[oldest].plain)
	delete(c.chunks, oldest)
}
