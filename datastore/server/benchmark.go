package server

import (
	"io"
	"net/http"

	"holdfast/datastore/server/rest"
	"holdfast/datastore/wire"
)

// The group of benchmark sessions (section 2.10 of the protocol specification).
const (
	benchmarkType = "host"
	benchmarkID   = "benchmark"
)

// checkBenchmark checks that a session is a benchmark if and only if it is in
// the group for that.
func checkBenchmark(g wire.Group, benchmark bool) error {
	special := g.Type == benchmarkType && g.ID == benchmarkID
	switch {
	case special && !benchmark:
		return rest.BadRequest("unable to run benchmark without --benchmark flags")
	case benchmark && !special:
		return rest.BadRequest("benchmark flags is only allowed on '%s/%s'", benchmarkType, benchmarkID)
	}
	return nil
}

// streamPiece is how much of what only passes through is in memory, in bytes. Its stream
// may rest as long as it likes, and there may be thousands of them.
const streamPiece = 4 << 10

// pass copies by pieces.
func pass(to io.Writer, from io.Reader) (int64, error) {
	return io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, make([]byte, streamPiece))
}

// receiveSpeedTest takes any bytes and keeps none.
func receiveSpeedTest(c *call) (any, error) {
	if _, err := pass(io.Discard, c.Body); err != nil {
		return nil, rest.ErrAnswered // the client has gone
	}
	return nil, nil
}

// speedTestSize is what a reader is sent, in bytes.
const speedTestSize = 1 << 20

// sendSpeedTest sends a run of one letter (section 3.2 of the protocol
// specification).
func sendSpeedTest(c *call) (any, error) {
	c.Header().Set("Content-Type", "application/octet-stream")
	part := make([]byte, streamPiece)
	for i := range part {
		part[i] = 'A'
	}
	c.WriteHeader(http.StatusOK)
	for range speedTestSize / len(part) {
		if _, err := c.Write(part); err != nil {
			break
		}
	}
	return nil, rest.ErrAnswered
}
