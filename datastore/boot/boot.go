// Package boot tells which start of this machine it is, and how much time has
// passed since: a clock that nobody can set, which goes on while the machine
// sleeps, and by which processes that follow one another can measure the time
// between them. It says nothing about the time before the start.
package boot

import (
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// idPath is where the kernel names its start; idMax caps that name, in bytes.
const (
	idPath = "/proc/sys/kernel/random/boot_id"
	idMax  = 64
)

// Uptime returns the name of this start of the machine, of at most 64 characters
// 0-9, a-f and "-", and the time since. The name is "" if the kernel does not
// tell.
func Uptime() (id string, since time.Duration) {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return "", 0
	}
	raw, err := os.ReadFile(idPath)
	if err != nil {
		return "", 0
	}
	id = strings.TrimSpace(string(raw))
	if !Valid(id) {
		return "", 0
	}
	return id, time.Duration(t.Nano())
}

// Valid tells whether a text may be the name of a start.
func Valid(id string) bool {
	return id != "" && len(id) <= idMax && strings.Trim(id, "0123456789abcdef-") == ""
}
