package task

import (
	"fmt"
	"slices"
	"strings"

	"holdfast/chunkstore"
	"holdfast/datastore/wire"
)

// Info is what is known of a task.
type Info struct {
	UPID    wire.UPID
	Running bool
	// Status is the exit string (section 5.3 of the protocol specification),
	// "" while the task runs.
	Status string
	// End is in Unix seconds, 0 while the task runs.
	End int64
}

// Filter chooses among tasks (section 4.8 of the protocol specification). The
// zero Filter lets all of them pass.
type Filter struct {
	// Start is how many of the tasks that pass are left out, Limit how many
	// are returned at most; 0 is all.
	Start, Limit int
	// Store is the name of the datastore that the work is done on.
	Store string
	// User and Type are parts of the auth-id and of the worker type.
	User, Type string
	// Running lets only those pass that run.
	Running bool
	// Errors lets those pass that run or have ended other than "OK".
	Errors bool
	// Since and Until bound the start of the task, in Unix seconds; an Until
	// of 0 is no bound.
	Since, Until int64
	// States lets only those pass that have ended in one of these: "ok",
	// "warning", "error", "unknown".
	States []string
	// Visible, if it is set, has the last word.
	Visible func(wire.UPID) bool
}

// Status returns what is known of a task. One that is not known has ended as
// "unknown".
func (r *Registry) Status(u wire.UPID) (Info, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.running[u] != nil {
		return Info{UPID: u, Running: true}, nil
	}
	if e := r.known[u]; e != nil {
		return e.info(), nil
	}
	return Info{UPID: u, Status: statusUnknown}, nil
}

func (e *entry) info() Info { return Info{UPID: e.upid, Status: e.status, End: e.end} }

// List returns the tasks that pass the filter: those that run first, the
// newest first among both. A state that there is none of is
// chunkstore.ErrInvalid.
func (r *Registry) List(f Filter) ([]Info, error) {
	for _, s := range f.States {
		if s != classOK && s != classWarning && s != classError && s != classUnknown {
			return nil, fmt.Errorf("list tasks: state %q: want ok, warning, error or unknown: %w", s, chunkstore.ErrInvalid)
		}
	}
	return f.page(r.matching(f)), nil
}

// matching collects what passes all but Visible, in the order of a list.
func (r *Registry) matching(f Filter) []Info {
	var out []Info
	r.mu.Lock()
	for u := range r.running {
		if i := (Info{UPID: u, Running: true}); f.matches(i) {
			out = append(out, i)
		}
	}
	for _, e := range r.ended {
		if i := e.info(); f.matches(i) {
			out = append(out, i)
		}
	}
	r.mu.Unlock()
	slices.SortFunc(out, func(a, b Info) int {
		if a.Running != b.Running {
			if a.Running {
				return -1
			}
			return 1
		}
		return compareUPIDs(b.UPID, a.UPID)
	})
	return out
}

func (f Filter) matches(i Info) bool {
	u := i.UPID
	switch {
	case f.Running && !i.Running,
		f.Errors && i.Status == statusOK,
		u.Start < f.Since,
		f.Until != 0 && u.Start > f.Until,
		f.Store != "" && datastoreOf(u) != f.Store:
		return false
	}
	if len(f.States) > 0 && (i.Running || !slices.Contains(f.States, class(i.Status))) {
		return false
	}
	return strings.Contains(string(u.Auth), f.User) && strings.Contains(u.Type, f.Type)
}

// page cuts Start and Limit out of a list, in which only the visible count.
func (f Filter) page(list []Info) []Info {
	var out []Info
	skip := f.Start
	for _, i := range list {
		if f.Limit > 0 && len(out) == f.Limit {
			break
		}
		if f.Visible != nil && !f.Visible(i.UPID) {
			continue
		}
		if skip > 0 {
			skip--
			continue
		}
		out = append(out, i)
	}
	return out
}

// datastoreOf tells which datastore a task works on, from the forms of worker
// ids in section 5.2 of the protocol specification.
func datastoreOf(u wire.UPID) string {
	parts := strings.Split(u.ID, ":")
	if u.Type == "syncjob" {
		if len(parts) < 3 {
			return ""
		}
		return parts[2]
	}
	return parts[0]
}
