package source

import (
	"errors"
	"fmt"
	"slices"
)

const (
	// layersMax is how many files a backing chain may have.
	layersMax = 16
	// findsMax is how many pieces one Extent puts together, so that its cost
	// is bounded.
	findsMax = 64
)

// chain is a qcow2 image with its backing files, the image first. What a layer
// does not hold is asked of the next.
type chain struct {
	path   string // of the image
	layers []layer
}

// openChain opens the chain of the qcow2 file top, which it owns.
func openChain(top *file, o Options) (Image, error) {
	c := &chain{path: top.path}
	if err := c.open(top, o); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// open opens one layer after the other, beginning with f.
func (c *chain) open(f *file, o Options) error {
	var seen []identity
	for {
		seen = append(seen, f.id)
		l, err := openQcow2(f)
		if err != nil {
			return errors.Join(err, f.Close())
		}
		c.layers = append(c.layers, l)
		if l.h.backing == "" {
			return nil
		}
		if len(c.layers) == layersMax {
			return fmt.Errorf("%s: has more than %d files in its backing chain: %w", c.path, layersMax, ErrUnsupported)
		}
		next, isQcow2, err := openBacking(l, o)
		if err != nil {
			return err
		}
		if slices.Contains(seen, next.id) {
			err := fmt.Errorf("%s: backing file %s leads back to itself: %w", f.path, next.path, ErrDamaged)
			return errors.Join(err, next.Close())
		}
		if !isQcow2 {
			c.layers = append(c.layers, &raw{file: next})
			return nil
		}
		f = next
	}
}

// Size implements Image.
func (c *chain) Size() int64 { return c.layers[0].size() }

// Extent implements Image.
func (c *chain) Extent(off int64) (Extent, error) {
	size := c.Size()
	if off < 0 || off >= size {
		return Extent{}, fmt.Errorf("%s: extent at %d is not within 0..%d", c.path, off, size-1)
	}
	_, first, err := c.find(off, size-off)
	if err != nil {
		return Extent{}, err
	}
	x := Extent{Off: off, Len: first.n, Kind: kindOf(first.at)}
	for i := 1; i < findsMax && off+x.Len < size; i++ {
		_, next, err := c.find(off+x.Len, size-off-x.Len)
		// An error belongs to the extent that begins where it is.
		if err != nil || kindOf(next.at) != x.Kind {
			break
		}
		x.Len += next.n
	}
	return x, nil
}

// find tells which layer holds the bytes at off, and how many of most it
// holds. If the bytes are zero the layer means nothing.
func (c *chain) find(off, most int64) (layer, run, error) {
	for _, l := range c.layers {
		// A layer is zero behind its end, and hides what is below.
		if off >= l.size() {
			return nil, run{most, zero}, nil
		}
		r, err := l.look(off, min(most, l.size()-off))
		if err != nil {
			return nil, run{}, err
		}
		if r.at != below {
			return l, r, nil
		}
		most = r.n
	}
	return nil, run{most, zero}, nil
}

// ReadAt implements Image.
func (c *chain) ReadAt(p []byte, off int64) (int, error) {
	p, eof := clip(p, off, c.Size())
	for n := 0; n < len(p); {
		l, r, err := c.find(off+int64(n), int64(len(p)-n))
		if err != nil {
			return n, err
		}
		part := p[n : n+int(r.n)]
		if r.at == here {
			err = l.readAt(part, off+int64(n))
		} else {
			clear(part)
		}
		if err != nil {
			return n, err
		}
		n += len(part)
	}
	return len(p), eof
}

// Verify implements Image.
func (c *chain) Verify() error {
	for _, l := range c.layers {
		if err := l.verify(); err != nil {
			return err
		}
	}
	return nil
}

// Close closes every file of the chain.
func (c *chain) Close() error {
	var errs []error
	for _, l := range c.layers {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}
