package main

import (
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// memoryFloor is what the collector lets a process have before it works harder,
// in bytes. Left to itself it lets the memory become twice what is in use, and
// more while a busy machine keeps it from its work. About 50 MiB are in use by a
// backup or a restore on two cores, and by a server with one client.
const memoryFloor = 100 << 20

// memoryRoom is the least that there is room for besides what is in use, in bytes: a
// backup whose line is slow, or whose machine is busy, has all of its window under way,
// about 95 MiB with the rest. It holds no pointers and is collected in a moment.
const memoryRoom = 32 << 20

// memoryLook is how often the limit is fitted to what is in use.
const memoryLook = time.Second

// memoryLimit is the limit for so many bytes in use. What is little is kept near;
// much may grow by nearly half, or a process that needs it would do nothing but collect.
func memoryLimit(live uint64) int64 {
	return max(memoryFloor, int64(live)+max(memoryRoom, int64(live/2)-memoryRoom))
}

// boundMemory keeps the memory of the process near what is in use, until the
// function it returns is called. The user's GOMEMLIMIT goes before it.
func (a *app) boundMemory() (stop func()) {
	if _, ok := a.env["GOMEMLIMIT"]; ok {
		return func() {}
	}
	old := debug.SetMemoryLimit(memoryFloor)
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		fitMemory(end)
	}()
	return func() {
		close(end)
		<-ended
		debug.SetMemoryLimit(old)
	}
}

// fitMemory fits the limit to what is in use until end is closed.
func fitMemory(end <-chan struct{}) {
	tick := time.NewTicker(memoryLook)
	defer tick.Stop()
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	for {
		select {
		case <-end:
			return
		case <-tick.C:
		}
		metrics.Read(live)
		debug.SetMemoryLimit(memoryLimit(live[0].Value.Uint64()))
	}
}
