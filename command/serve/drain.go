package serve

import (
	"context"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"holdfast/datastore/task"
)

// door is a listener that can be shut without being closed: who knocks then is
// sent away, while those inside go on. A closed listener would end its server,
// and with it their requests.
type door struct {
	net.Listener
	shut atomic.Bool
}

// Accept implements net.Listener.
func (d *door) Accept() (net.Conn, error) {
	for {
		conn, err := d.Listener.Accept()
		if err != nil || !d.shut.Load() {
			return conn, err
		}
		if tcp, ok := conn.(*net.TCPConn); ok {
			tcp.SetLinger(0) // a reset says more than an end
		}
		conn.Close()
	}
}

// sessionTasks are the types of tasks that are sessions of a client. Other
// tasks begin anew where they were stopped.
var sessionTasks = []string{"backup", "reader"}

// drain shuts the doors and gives sessions the time until ctx ends to come to
// their own end.
func (r *running) drain(ctx context.Context) {
	for _, l := range r.listeners {
		l.shut.Store(true)
	}
	const pace = 100 * time.Millisecond
	for r.sessions() > 0 {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pace):
		}
	}
}

// sessions counts those that are open. If they cannot be counted nobody waits
// for them.
func (r *running) sessions() int {
	list, err := r.data.Tasks.List(task.Filter{Running: true})
	if err != nil {
		r.log.Warn("count sessions", "error", err)
		return 0
	}
	list = slices.DeleteFunc(list, func(i task.Info) bool { return !slices.Contains(sessionTasks, i.UPID.Type) })
	return len(list)
}
