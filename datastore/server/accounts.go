package server

import "holdfast/datastore/server/ledger"

// accounts is what callers take from the server, each with what one of them may
// have and what is kept for administrators. docs/server.md has the table.
type accounts struct {
	requests *ledger.Resource // and sessions, at once
	streams  *ledger.Resource // of all sessions, at once
	windows  *ledger.Resource // bytes that have arrived and are not read
}

// Bounds of what arrives for the sessions, in bytes but for the streams. A stream
// that is open takes some 12 KiB of memory.
const (
	streamsMax    = 16384
	windowBudget  = 128 << 20
	windowShare   = 96 << 20
	windowMin     = 128 << 10
	windowReserve = 48 << 20 // of a share, for windows of the least size
)

func newAccounts(l Limits) *accounts {
	each := int64(l.PerToken)
	return &accounts{
		requests: ledger.New(ledger.Limit{Name: "requests and sessions", Total: max(int64(l.Connections), 3*each), Kept: each / 2, Share: 2 * each, Each: each}),
		streams:  ledger.New(ledger.Limit{Name: "streams", Total: streamsMax, Kept: streamsMax / 16, Share: streamsMax * 3 / 4}),
		windows:  ledger.New(ledger.Limit{Name: "windows of sessions", Total: windowBudget, Kept: windowBudget / 16, Share: windowShare}),
	}
}

// window takes the window of a session, at most h2ConnWindow bytes. Those who
// come while their owner has many get smaller ones.
func (a *accounts) window(p ledger.Payer) (*ledger.Hold, error) {
	const part = 4 // of what is left
	size := min(max((a.windows.Left(p)-windowReserve)/part, windowMin), h2ConnWindow)
	return a.windows.Try(p, size)
}
