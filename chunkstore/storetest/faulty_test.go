package storetest_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"holdfast/chunkstore"
	"holdfast/chunkstore/mem"
	"holdfast/chunkstore/storetest"
)

func TestFaultyWithoutFaults(t *testing.T) {
	storetest.Run(t, func(*testing.T) chunkstore.Store { return storetest.NewFaulty(mem.New()) })
}

// script is one use of a store that calls every operation twice. It returns
// the errors by operation and call.
func script(s chunkstore.Store, c, d chunkstore.Chunk) map[string]error {
	ctx := context.Background()
	errs := make(map[string]error)
	note := func(op storetest.Op, n int, err error) { errs[fmt.Sprint(op, n)] = err }
	for n := 1; n <= 2; n++ {
		se, err := s.Begin(ctx)
		note(storetest.OpBegin, n, err)
		if err != nil {
			continue
		}
		x := c
		if n == 2 {
			x = d
		}
		_, err = se.Put(ctx, x)
		note(storetest.OpPut, n, err)
		note(storetest.OpSync, n, se.Sync(ctx))
		note(storetest.OpCloseSession, n, se.Close())
		_, err = s.Get(ctx, x.Key())
		note(storetest.OpGet, n, err)
		_, err = s.Stat(ctx, x.Key())
		note(storetest.OpStat, n, err)
		note(storetest.OpCheck, n, s.Check(ctx, x.Key()))
	}
	for n := 1; n <= 2; n++ {
		note(storetest.OpClose, n, s.Close())
	}
	return errs
}

func TestFaultTable(t *testing.T) {
	broken := errors.New("on order")
	c, d := storetest.Chunk(1, 100), storetest.Chunk(2, 100)
	for _, op := range storetest.Ops {
		for _, after := range []bool{false, true} {
			for count := 1; count <= 2; count++ {
				t.Run(fmt.Sprintf("%s %d after=%v", op, count, after), func(t *testing.T) {
					inner := mem.New()
					f := storetest.NewFaulty(inner)
					f.Fail(storetest.Fault{Op: op, Count: count, After: after, Err: broken})
					errs := script(f, c, d)
					if err := errs[fmt.Sprint(op, count)]; !errors.Is(err, broken) {
						t.Errorf("the call gave %v", err)
					}
					if err := errs[fmt.Sprint(op, 3-count)]; errors.Is(err, broken) {
						t.Errorf("the other call gave %v", err)
					}
					happened := inner.Len() == 2
					if want := after || op != storetest.OpPut && op != storetest.OpBegin; op != storetest.OpBegin && happened != want {
						t.Errorf("%d chunks are stored, want two: %v", inner.Len(), want)
					}
					if op == storetest.OpBegin && inner.Len() != 1 {
						t.Errorf("%d chunks are stored, want one", inner.Len())
					}
				})
			}
		}
	}
}

func TestFaultForever(t *testing.T) {
	broken := errors.New("on order")
	f := storetest.NewFaulty(mem.New())
	f.Fail(storetest.Fault{Op: storetest.OpStat, Count: 2, Forever: true, Err: broken})
	for n := 1; n <= 4; n++ {
		_, err := f.Stat(context.Background(), storetest.Chunk(1, 50).Key())
		if errors.Is(err, broken) != (n >= 2) {
			t.Errorf("call %d: %v", n, err)
		}
	}
	if f.Calls(storetest.OpStat) != 4 || f.Calls(storetest.OpGet) != 0 {
		t.Errorf("calls: %d stat, %d get", f.Calls(storetest.OpStat), f.Calls(storetest.OpGet))
	}
}
