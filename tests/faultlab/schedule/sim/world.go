package sim

import (
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
)

// World is the machine. There is one in a process: what stands for os has no
// other way to find its disk.
type World struct {
	Disk   *Disk
	Random *rand.ChaCha8 // stands for crypto/rand

	life   *Life
	trail  io.Writer // gets the trace, if not nil
	digest uint64    // of the trace
	steps  int
	mutant string

	mu    sync.Mutex
	hosts []*host // without a task
}

var the = sync.OnceValue(func() *World { return &World{Disk: newDisk()} })

// The returns the machine.
func The() *World { return the() }

// Reset makes the machine new: its disk holds what the image shows, and chance
// begins from a seed. trail, if not nil, gets the trace.
func (w *World) Reset(im *Image, seed uint64, trail io.Writer) {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	w.Random = rand.NewChaCha8(key)
	w.Disk.load(im)
	w.trail, w.digest, w.steps = trail, 0, 0
}

// Steps returns how many steps there were since Reset.
func (w *World) Steps() int { return w.steps }

// Digest is a sum of the trace since Reset.
func (w *World) Digest() uint64 { return w.digest }

// Note adds a line to the trace.
func (w *World) Note(format string, args ...any) {
	if w.trail != nil {
		fmt.Fprintf(w.trail, "      | "+format+"\n", args...)
	}
}

func (w *World) trace(t *Task, op, name string) {
	w.steps++
	h := w.digest ^ uint64(t.id)<<8 ^ uint64(len(op))<<16 ^ uint64(len(name))<<24
	for i := max(0, len(name)-tail); i < len(name); i++ {
		h = h*fnvPrime ^ uint64(name[i])
	}
	w.digest = h * fnvPrime
	if w.trail != nil {
		fmt.Fprintf(w.trail, "%5d | %-10s %s %s\n", w.steps, t.name, op, strings.TrimPrefix(name, Dir+"/"))
	}
}

// fnvPrime is that of FNV-1a, and tail how much of a name counts for a digest.
const (
	fnvPrime = 0x100000001b3
	tail     = 12
)

// SetMutant breaks a rule of the store on purpose, "" none. It is for a
// program that was built with mutants.
func (w *World) SetMutant(name string) { w.mutant = name }

// Mutant reports whether this rule is to be broken.
func Mutant(name string) bool { return The().mutant == name }
