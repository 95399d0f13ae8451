package server

import (
	"errors"
	"fmt"
	"io"
	"net/http"
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

func taskMethods() []method {
	const base, one = "/nodes/{node}", "/nodes/{node}/tasks/{upid}"
	node := api.Param{Name: "node", Check: checkNode}
	upid := api.Param{Name: "upid", Check: checkUPID}
	number := func(name string) api.Param {
		return api.Param{Name: name, Kind: api.Integer, Optional: true, Check: api.Within(0, 1<<53)}
	}
	text := func(name string) api.Param { return api.Param{Name: name, Optional: true, Check: api.CheckComment} }
	flag := func(name string) api.Param { return api.Param{Name: name, Kind: api.Boolean, Optional: true} }
	list := []api.Param{
		node, number("start"), number("limit"), api.Opt(api.StoreParam), flag("running"), flag("errors"), text("userfilter"),
		number("since"), number("until"), text("typefilter"),
		{Name: "statusfilter", Kind: api.Strs, Optional: true, Check: api.OneOf("ok", "warning", "error", "unknown")},
	}
	return []method{
		{Verb: http.MethodGet, Path: "/nodes", Do: getNodes},
		{Verb: http.MethodGet, Path: base + "/status", Params: []api.Param{node}, Do: nodeStatus},
		{Verb: http.MethodGet, Path: base + "/subscription", Params: []api.Param{node}, Do: nodeSubscription},
		{Verb: http.MethodGet, Path: base + "/identity", Params: []api.Param{node}, Do: nodeIdentity},
		{Verb: http.MethodGet, Path: base + "/tasks", Params: list, Do: listTasks},
		{Verb: http.MethodGet, Path: one, Params: []api.Param{node, upid}, Do: taskSubdirs},
		{Verb: http.MethodGet, Path: one + "/status", Params: []api.Param{node, upid}, Do: taskStatus},
		{Verb: http.MethodGet, Path: one + "/log", Do: taskLog,
			Params: []api.Param{node, upid, number("start"), number("limit"), flag("download"), flag("test-status")}},
		{Verb: http.MethodDelete, Path: one, Params: []api.Param{node, upid}, Do: stopTask},
	}
}

// checkNode takes any name: there is one node, whatever it is called.
func checkNode(s string) error { return wire.CheckSafeID("node", s) }

func checkUPID(s string) error {
	_, err := wire.ParseUPID(s)
	return err
}

// taskItem is a task in a listing.
type taskItem struct {
	UPID   string  `json:"upid"`
	Node   string  `json:"node"`
	PID    uint32  `json:"pid"`
	PStart uint64  `json:"pstart"`
	Start  int64   `json:"starttime"`
	Type   string  `json:"worker_type"`
	ID     *string `json:"worker_id"`
	User   string  `json:"user"`
	End    int64   `json:"endtime,omitempty"`
	Status string  `json:"status,omitempty"`
}

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
	infos, err := c.server.o.Tasks.List(task.Filter{
		Start: start, Limit: limit, Store: c.Str("store"), User: c.Str("userfilter"), Type: c.Str("typefilter"),
		Running: c.Bool("running", false), Errors: c.Bool("errors", false), Since: c.Int("since", 0), Until: c.Int("until", 0),
		States: c.Strs("statusfilter"), Visible: see,
	})
	if err != nil {
		return nil, err
	}
	list := []taskItem{}
	for _, i := range infos {
		u := i.UPID
		list = append(list, taskItem{
			UPID: u.String(), Node: "localhost", PID: u.PID, PStart: u.PStart, Start: u.Start, Type: u.Type,
			ID: orNull(u.ID), User: string(u.Auth), End: i.End, Status: i.Status,
		})
	}
	total := start + len(list)
	if limit > 0 && len(list) == limit {
		total++ // there may be more
	}
	c.top("total", total)
	return list, nil
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
	have, err := c.server.o.Access.Privileges(c.auth, "/system/tasks")
	if err != nil {
		return nil, err
	}
	return func(u wire.UPID) bool {
		return have.Any(api.SysAudit) || c.auth.Owns(u.Auth) || c.mayRun(u)
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
	return []map[string]string{{"subdir": "log"}, {"subdir": "status"}}, err
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
	a := map[string]any{
		"upid": u.String(), "node": u.Node, "pid": u.PID, "pstart": u.PStart, "starttime": u.Start, "type": u.Type,
		"id": orNull(u.ID), "user": string(u.Auth.User()), "status": "running",
	}
	if name, ok := u.Auth.Token(); ok {
		a["tokenid"] = name
	}
	if !info.Running {
		a["status"], a["exitstatus"] = "stopped", info.Status
		if info.End > 0 {
			a["endtime"] = info.End
		}
	}
	return a, nil
}

// logLine is a line of a task's log.
type logLine struct {
	N int    `json:"n"`
	T string `json:"t"`
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
	start := max(1, int(c.Int("start", 0)))
	lines, total, err := c.server.o.Tasks.Lines(u, start, c.limitOf())
	if err != nil {
		return nil, err
	}
	list := []logLine{}
	for i, l := range lines {
		list = append(list, logLine{N: start + i, T: l})
	}
	c.top("total", total)
	c.top("success", 1)
	if c.Bool("test-status", false) {
		c.top("active", info.Running)
	}
	return list, nil
}

// sendLog answers with the file of the log.
func (c *call) sendLog(u wire.UPID) error {
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
		if err := c.require("/system/tasks", api.SysModify); err != nil {
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
	if err := c.require("/system/status", api.SysAudit); err != nil {
		return nil, err
	}
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
	memory := func(total, free uint64) map[string]uint64 {
		return map[string]uint64{"total": total * unit, "free": free * unit, "used": (total - free) * unit}
	}
	const loadScale = 1 << 16
	load := make([]float64, 0, 3)
	for _, l := range info.Loads {
		load = append(load, float64(l)/loadScale)
	}
	cpus := runtime.NumCPU()
	return map[string]any{
		"cpu": min(1, load[0]/float64(cpus)), "wait": 0, "loadavg": load, "uptime": info.Uptime,
		"memory": memory(uint64(info.Totalram), uint64(info.Freeram)), "swap": memory(uint64(info.Totalswap), uint64(info.Freeswap)),
		"root": root, "kversion": unix.ByteSliceToString(name.Sysname[:]) + " " + unix.ByteSliceToString(name.Release[:]),
		"cpuinfo": map[string]any{"model": runtime.GOARCH, "sockets": 1, "cpus": cpus},
		"info":    map[string]string{"fingerprint": c.server.o.Fingerprint},
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
	return map[string]string{"pbs-instance-id": hashed("holdfast instance", strings.TrimSpace(string(id)))[:digits]}, nil
}

// nodeSubscription answers those who watch over a server and ask for the state
// of its subscription: there is none to be had.
func nodeSubscription(*call) (any, error) {
	return map[string]string{"status": "notfound", "message": "Holdfast has no subscriptions"}, nil
}
