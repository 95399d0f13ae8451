package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// memoryFloor is what the collector lets a server have before it works harder,
// in bytes. Left to itself it lets the memory become twice what is in use, and
// what is in use can come from many callers at once.
const memoryFloor = 300 << 20

// memoryLook is how often the limit is fitted to what is in use.
const memoryLook = 5 * time.Second

// boundMemory keeps the memory of the process near what is in use, until ctx
// ends. The user's GOMEMLIMIT goes before it.
func (a *app) boundMemory(ctx context.Context) {
	if _, ok := a.env["GOMEMLIMIT"]; ok {
		return
	}
	old := debug.SetMemoryLimit(memoryFloor)
	go func() {
		defer debug.SetMemoryLimit(old)
		tick := time.NewTicker(memoryLook)
		defer tick.Stop()
		live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			metrics.Read(live)
			// Half as much again, or a large server would do nothing but collect.
			debug.SetMemoryLimit(max(memoryFloor, int64(live[0].Value.Uint64()/2*3)))
		}
	}()
}
