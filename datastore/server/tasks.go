package server

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"holdfast/chunkstore"
	"holdfast/datastore/access"
	"holdfast/datastore/server/meter"
	"holdfast/datastore/server/rest"
	"holdfast/datastore/task"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
)

// limitOf is the page size of a listing; 0 is all.
func (c *call) limitOf() int {
	const page = 50
	return int(c.Int("limit", page))
}

func listTasks(c *call) (any, error) {
	see, err := c.taskSight()
	if err != nil {
		return nil, err
	}
	start, limit := int(c.Int("start", 0)), c.limitOf()
	filter := task.Filter{
		Start: start, Limit: limit, Store: c.Str("store"), User: c.Str("userfilter"), Type: c.Str("typefilter"),
		Running: c.Bool("running", false), Errors: c.Bool("errors", false), Since: c.Int("since", 0), Until: c.Int("until", 0),
		States: c.Strs("statusfilter"), Visible: see,
	}
	return nil, c.streamList(func(add func(any) error) error {
		count := 0
		err := c.server.o.Tasks.Each(filter, func(i task.Info) error {
			count++
			return add(taskItem(i))
		})
		total := start + count
		if limit > 0 && count == limit {
			total++ // there may be more
		}
		c.top("total", total)
		return err
	})
}

func taskItem(i task.Info) api.TaskItem {
	u := i.UPID
	return api.TaskItem{
		UPID: u.String(), Node: "localhost", PID: u.PID, PStart: u.PStart, Start: u.Start, Type: u.Type,
		ID: orNull(u.ID), User: string(u.Auth), End: i.End, Status: i.Status,
	}
}

func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// taskSight returns which tasks the caller may see (section 5.4 of the
// protocol specification).
func (c *call) taskSight() (func(wire.UPID) bool, error) {
	everybody, err := c.seesAll()
	if err != nil {
		return nil, err
	}
	return func(u wire.UPID) bool {
		return everybody || c.auth.Owns(u.Auth) || c.mayRun(u)
	}, nil
}

// mayRun lets those see a task of a job who could have run it.
func (c *call) mayRun(u wire.UPID) bool {
	var need api.Privilege
	switch u.Type {
	case "garbage_collection", "prune", "prunejob":
		need = api.DatastoreModify
	case "verificationjob":
		need = api.DatastoreVerify
	default:
		return false
	}
	store, _, _ := strings.Cut(u.ID, ":")
	if api.CheckStoreName(store) != nil {
		return false
	}
	have, err := c.server.o.Access.Privileges(c.auth, access.DatastorePath(store, ""))
	return err == nil && have.Any(need)
}

// task returns the task that the call names, if the caller may see it.
func (c *call) task() (wire.UPID, error) {
	u, err := wire.ParseUPID(c.Str("upid"))
	if err != nil {
		return u, err
	}
	see, err := c.taskSight()
	if err == nil && !see(u) {
		err = c.denied()
	}
	return u, err
}

func taskSubdirs(c *call) (any, error) {
	_, err := c.task()
	return []api.Subdir{{Subdir: "log"}, {Subdir: "status"}}, err
}

func taskStatus(c *call) (any, error) {
	u, err := c.task()
	if err != nil {
		return nil, err
	}
	info, err := c.server.o.Tasks.Status(u)
	if err != nil {
		return nil, err
	}
	a := api.TaskStatus{
		UPID: u.String(), Node: u.Node, PID: u.PID, PStart: u.PStart, Start: u.Start, Type: u.Type,
		ID: orNull(u.ID), User: string(u.Auth.User()), Status: "running",
	}
	a.TokenID, _ = u.Auth.Token()
	if !info.Running {
		a.Status, a.Exit, a.End = "stopped", &info.Status, max(0, info.End)
	}
	return a, nil
}

func taskLog(c *call) (any, error) {
	u, err := c.task()
	if err != nil {
		return nil, err
	}
	if c.Bool("download", false) {
		if c.Has("start") || c.Has("limit") || c.Has("test-status") {
			return nil, rest.BadRequest("parameter 'download' cannot be combined with others")
		}
		return nil, c.sendLog(u)
	}
	// Before the log is read: a task that ends in between must not be taken
	// for one whose log is complete.
	info, err := c.server.o.Tasks.Status(u)
	if err != nil {
		return nil, err
	}
	open, err := c.server.accounts.Files.Try(c.payer, 1)
	if err != nil {
		return nil, err
	}
	defer open.Free()
	if !c.extjs { // that says so anyway
		c.top("success", 1)
	}
	if c.Bool("test-status", false) {
		c.top("active", info.Running)
	}
	return nil, c.streamList(func(add func(any) error) error {
		n := max(1, int(c.Int("start", 0)))
		total, err := c.server.o.Tasks.EachLine(u, n, c.limitOf(), func(line string) error {
			n++
			return add(api.LogLine{N: n - 1, Text: line})
		})
		c.top("total", total)
		return err
	})
}

// sendLog answers with the file of the log.
func (c *call) sendLog(u wire.UPID) error {
	open, err := c.server.accounts.Files.Try(c.payer, 1)
	if err != nil {
		return err
	}
	defer open.Free()
	f, err := c.server.o.Tasks.OpenLog(u)
	if err != nil {
		return err
	}
	defer f.Close()
	h := c.ResponseWriter.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Disposition", fmt.Sprintf(`attachment; filename="task-%s-%s.log"`, u.Node, u.Type))
	return c.stream(func(w io.Writer) error {
		_, err := io.Copy(w, f)
		return err
	})
}

func stopTask(c *call) (any, error) {
	u, err := wire.ParseUPID(c.Str("upid"))
	if err != nil {
		return nil, err
	}
	if !c.auth.Owns(u.Auth) {
		if err := c.granted(); err != nil {
			return nil, err
		}
	}
	err = c.server.o.Tasks.Stop(u, c.auth)
	if errors.Is(err, chunkstore.ErrNotExist) {
		return nil, nil // one that is not known has ended
	}
	return nil, err
}

func nodeStatus(c *call) (any, error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return nil, fmt.Errorf("status of the machine: %w", err)
	}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return nil, fmt.Errorf("status of the machine: %w", err)
	}
	root, err := meter.OfDisk("/")
	if err != nil {
		return nil, fmt.Errorf("status of the machine: %w", err)
	}
	unit := uint64(info.Unit)
	memory := func(total, free uint64) api.Memory {
		return api.Memory{Total: total * unit, Free: free * unit, Used: (total - free) * unit}
	}
	const loadScale = 1 << 16
	load := make([]float64, 0, 3)
	for _, l := range info.Loads {
		load = append(load, float64(l)/loadScale)
	}
	cpus := runtime.NumCPU()
	return api.NodeStatus{
		CPU: min(1, load[0]/float64(cpus)), LoadAvg: load, Uptime: int64(info.Uptime),
		Memory: memory(uint64(info.Totalram), uint64(info.Freeram)), Swap: memory(uint64(info.Totalswap), uint64(info.Freeswap)),
		Root: root, KVersion: unix.ByteSliceToString(name.Sysname[:]) + " " + unix.ByteSliceToString(name.Release[:]),
		CPUInfo: api.CPUInfo{Model: runtime.GOARCH, Sockets: 1, CPUs: cpus},
		Info:    api.NodeInfo{Fingerprint: c.server.o.Fingerprint},
	}, nil
}

// nodeIdentity answers with what tells this installation from others.
func nodeIdentity(c *call) (any, error) {
	id, err := os.ReadFile("/etc/machine-id")
	if err != nil || len(strings.TrimSpace(string(id))) == 0 {
		return nil, rest.BadRequest("this machine has no id")
	}
	// The machine id itself is not for others to know.
	const digits = 32 // of a UUID without its dashes
	return api.Identity{ID: hashed("holdfast instance", strings.TrimSpace(string(id)))[:digits]}, nil
}

// nodeSubscription answers those who watch over a server and ask for the state
// of its subscription: there is none to be had.
func nodeSubscription(*call) (any, error) {
	return api.Subscription{Status: "notfound", Message: "Holdfast has no subscriptions"}, nil
}
