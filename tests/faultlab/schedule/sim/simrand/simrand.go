// Package rand stands for crypto/rand in the programs of the schedules.
//
// The package imports package sim.
package rand

import "holdfast/tests/faultlab/schedule/sim"

// Read fills b with what follows from the seed.
func Read(b []byte) (int, error) { return sim.The().Random.Read(b) }
