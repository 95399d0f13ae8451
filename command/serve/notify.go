package serve

import (
	"fmt"
	"net"
	"strings"

	"golang.org/x/sys/unix"
)

// What the service manager is told, in its own words (sd_notify of systemd).
const (
	notifyReady    = "READY=1"
	notifyStopping = "STOPPING=1"
)

// notifyReloading says that a reload has begun; the clock tells the manager
// which of several requests it belongs to.
func notifyReloading() string {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		return "RELOADING=1"
	}
	return fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", t.Nano()/1000)
}

// notify tells the service manager of a change of state. Without one there is
// nobody to tell.
func (r Room) notify(states ...string) error {
	path := r.Env["NOTIFY_SOCKET"]
	if path == "" {
		return nil
	}
	// The net package turns a leading "@" into the abstract name space.
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(strings.Join(states, "\n"))); err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	return nil
}
