package storetest

import (
	"context"
	"sync"

	"holdfast/chunkstore"
)

// Op names an operation of a store or session.
type Op string

// The operations that Faulty can fail.
const (
	OpGet          Op = "get"
	OpStat         Op = "stat"
	OpCheck        Op = "check"
	OpBegin        Op = "begin"
	OpPut          Op = "put"
	OpSync         Op = "sync"
	OpCloseSession Op = "close session"
	OpClose        Op = "close"
)

// Ops are all operations.
var Ops = []Op{OpGet, OpStat, OpCheck, OpBegin, OpPut, OpSync, OpCloseSession, OpClose}

// Fault is one failure to come.
type Fault struct {
	Op Op
	// Count is which call of the operation fails, counted from 1.
	Count int
	// After lets the operation happen first: it has worked, and the caller
	// is told that it has not. Otherwise it does not happen at all.
	After bool
	// Forever fails every later call too.
	Forever bool
	// Err is what the caller gets.
	Err error
}

// Faulty is a store that fails on order and is else the store it wraps. It is
// safe for concurrent use.
type Faulty struct {
	inner chunkstore.Store

	mu     sync.Mutex // guards all below
	faults []Fault
	calls  map[Op]int
}

// NewFaulty wraps s, without a fault.
func NewFaulty(s chunkstore.Store) *Faulty {
	return &Faulty{inner: s, calls: make(map[Op]int)}
}

// Fail orders a failure.
func (f *Faulty) Fail(fault Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = append(f.faults, fault)
}

// Calls returns how often an operation was called.
func (f *Faulty) Calls(op Op) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[op]
}

// do counts a call and runs it, unless a fault comes before.
func (f *Faulty) do(op Op, call func() error) error {
	f.mu.Lock()
	f.calls[op]++
	var hit *Fault
	for i := range f.faults {
		x := &f.faults[i]
		if x.Op == op && (x.Count == f.calls[op] || x.Forever && f.calls[op] > x.Count) {
			hit = x
		}
	}
	f.mu.Unlock()
	switch {
	case hit == nil:
		return call()
	case !hit.After:
		return hit.Err
	}
	if err := call(); err != nil {
		return err
	}
	return hit.Err
}

// Get implements chunkstore.Getter.
func (f *Faulty) Get(ctx context.Context, k chunkstore.Key) (b chunkstore.Blob, err error) {
	err = f.do(OpGet, func() (err error) { b, err = f.inner.Get(ctx, k); return err })
	if err != nil {
		return nil, err
	}
	return b, nil
}

// Stat implements chunkstore.Store.
func (f *Faulty) Stat(ctx context.Context, k chunkstore.Key) (info chunkstore.Info, err error) {
	err = f.do(OpStat, func() (err error) { info, err = f.inner.Stat(ctx, k); return err })
	if err != nil {
		return chunkstore.Info{}, err
	}
	return info, nil
}

// Check implements chunkstore.Store.
func (f *Faulty) Check(ctx context.Context, k chunkstore.Key) error {
	return f.do(OpCheck, func() error { return f.inner.Check(ctx, k) })
}

// Begin implements chunkstore.Store.
func (f *Faulty) Begin(ctx context.Context) (chunkstore.Session, error) {
	var se chunkstore.Session
	err := f.do(OpBegin, func() (err error) { se, err = f.inner.Begin(ctx); return err })
	if err == nil {
		return &faultySession{f: f, inner: se}, nil
	}
	if se != nil {
		// Nobody else will ever close it.
		_ = se.Close()
	}
	return nil, err
}

// Close implements chunkstore.Store.
func (f *Faulty) Close() error { return f.do(OpClose, f.inner.Close) }

// faultySession is a session of a Faulty store.
type faultySession struct {
	f     *Faulty
	inner chunkstore.Session
}

// Put implements chunkstore.Session.
func (se *faultySession) Put(ctx context.Context, c chunkstore.Chunk) (added bool, err error) {
	err = se.f.do(OpPut, func() (err error) { added, err = se.inner.Put(ctx, c); return err })
	return added && err == nil, err
}

// Sync implements chunkstore.Session.
func (se *faultySession) Sync(ctx context.Context) error {
	return se.f.do(OpSync, func() error { return se.inner.Sync(ctx) })
}

// Close implements chunkstore.Session.
func (se *faultySession) Close() error { return se.f.do(OpCloseSession, se.inner.Close) }
