package mem_test

import (
	"context"
	"errors"
	"testing"

	"holdfast/chunkstore"
	"holdfast/chunkstore/mem"
	"holdfast/chunkstore/storetest"
)

func TestConformance(t *testing.T) {
	storetest.Run(t, func(*testing.T) chunkstore.Store { return mem.New() })
}

func TestDamageIsFoundAndHealed(t *testing.T) {
	ctx := context.Background()
	s := mem.New()
	se, err := s.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	c := storetest.Chunk(1, 100)
	if _, err := se.Put(ctx, c); err != nil {
		t.Fatal(err)
	}
	s.Damage(c.Key())
	if err := s.Check(ctx, c.Key()); !errors.Is(err, chunkstore.ErrCorrupt) {
		t.Errorf("check: %v", err)
	}
	if added, err := se.Put(ctx, c); err != nil || !added {
		t.Errorf("put over damage: %v, %v", added, err)
	}
	storetest.Holds(t, s, c)
	s.Remove(c.Key())
	s.Damage(c.Key())
	storetest.Lacks(t, s, c.Key())
	if s.Len() != 0 {
		t.Errorf("%d chunks", s.Len())
	}
}
