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
	var out []Info
	err := r.Each(f, func(i Info) error {
		out = append(out, i)
		return nil
	})
	return out, err
}

// Each visits what List returns, as long as visit returns nil. It may take its time: a
// task that ends meanwhile may be told as one that runs. What it needs is some bytes for
// each task that there is.
func (r *Registry) Each(f Filter, visit func(Info) error) error {
	for _, s := range f.States {
		if s != classOK && s != classWarning && s != classError && s != classUnknown {
			return fmt.Errorf("list tasks: state %q: want ok, warning, error or unknown: %w", s, chunkstore.ErrInvalid)
		}
	}
	running, ended := r.matching(f)
	p := page{Filter: f, visit: visit}
	for _, u := range running {
		if done, err := p.add(Info{UPID: u, Running: true}); done || err != nil {
			return err
		}
	}
	for _, e := range ended {
		if done, err := p.add(e.info()); done || err != nil {
			return err
		}
	}
	return nil
}

// matching collects what passes all but Visible, in the order of a list.
func (r *Registry) matching(f Filter) (running []wire.UPID, ended []*entry) {
	r.mu.Lock()
	for u := range r.running {
		if f.matches(Info{UPID: u, Running: true}) {
			running = append(running, u)
		}
	}
	for _, e := range r.ended {
		if f.matches(e.info()) {
			ended = append(ended, e) // it does not change any more
		}
	}
	r.mu.Unlock()
	slices.SortFunc(running, func(a, b wire.UPID) int { return compareUPIDs(b, a) })
	slices.SortFunc(ended, func(a, b *entry) int { return compareUPIDs(b.upid, a.upid) })
	return running, ended
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
type page struct {
	Filter
	visit        func(Info) error
	passed, seen int
}

// add takes the next of the list. done tells that there are enough.
func (p *page) add(i Info) (done bool, err error) {
	if p.Limit > 0 && p.seen == p.Limit {
		return true, nil
	}
	if p.Visible != nil && !p.Visible(i.UPID) {
		return false, nil
	}
	if p.passed++; p.passed <= p.Start {
		return false, nil
	}
	p.seen++
	return false, p.visit(i)
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
