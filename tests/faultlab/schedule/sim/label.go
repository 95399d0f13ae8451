package sim

import "unsafe"

// A goroutine is known by the label that the profiler of the runtime keeps for
// it: it is the only thing that belongs to a goroutine and can be read in no
// time.

//go:linkname profLabel runtime/pprof.runtime_getProfLabel
func profLabel() unsafe.Pointer

//go:linkname setProfLabel runtime/pprof.runtime_setProfLabel
func setProfLabel(labels unsafe.Pointer)

// labelled looks to the profiler like an empty set of labels: a slice without
// elements.
type labelled struct{ _ [3]uintptr }

// current returns the task that this goroutine is, nil if it is none.
func current() *Task { return (*Task)(profLabel()) }
