package api

import (
	"errors"
	"path/filepath"
	"strings"

	"holdfast/datastore/wire"
)

// The methods about the server itself, and the two upgrades.
const (
	Version          Op = "GET /version"
	Ping             Op = "GET /ping"
	ListRealms       Op = "GET /access/domains"
	ListNodes        Op = "GET /nodes"
	NodeState        Op = "GET /nodes/{node}/status"
	NodeSubscription Op = "GET /nodes/{node}/subscription"
	NodeIdentity     Op = "GET /nodes/{node}/identity"
	ListTasks        Op = "GET /nodes/{node}/tasks"
	TaskSubdirs      Op = "GET /nodes/{node}/tasks/{upid}"
	TaskState        Op = "GET /nodes/{node}/tasks/{upid}/status"
	TaskLog          Op = "GET /nodes/{node}/tasks/{upid}/log"
	StopTask         Op = "DELETE /nodes/{node}/tasks/{upid}"
	ListConfigured   Op = "GET /config/datastore"
	CreateDatastore  Op = "POST /config/datastore"
	GetConfigured    Op = "GET /config/datastore/{name}"
	SetConfigured    Op = "PUT /config/datastore/{name}"
	RemoveDatastore  Op = "DELETE /config/datastore/{name}"
	BackupUpgrade    Op = "GET /backup"
	ReaderUpgrade    Op = "GET /reader"
)

func versionRows() []Method {
	return []Method{
		{Op: Version, About: "tell which server this is", Answer: VersionItem{}, May: May{Who: LoggedIn}},
		{Op: Ping, About: "tell that the server is there", Answer: Pong{}, May: May{Who: Anybody}},
		{Op: ListRealms, About: "list where users come from", Answer: []RealmItem{}, May: May{Who: Anybody}},
	}
}

// nodeParam takes any name: there is one node, whatever it is called.
var nodeParam = Param{Name: "node", Check: func(s string) error { return wire.CheckSafeID("node", s) }}

func nodeRows() []Method {
	node := []Param{nodeParam}
	return []Method{
		{Op: ListNodes, About: "list the nodes: there is one", Answer: []NodeItem{}, May: granted("/system/status", SysAudit)},
		{Op: NodeState, About: "tell how the machine is", Answer: NodeStatus{}, Params: node, May: granted("/system/status", SysAudit)},
		{Op: NodeSubscription, About: "tell that there are no subscriptions", Answer: Subscription{}, Params: node, May: May{Who: LoggedIn}},
		{Op: NodeIdentity, About: "tell what this installation is told from others by", Answer: Identity{}, Params: node, May: May{Who: LoggedIn}},
	}
}

func checkUPID(s string) error {
	_, err := wire.ParseUPID(s)
	return err
}

// ownTask is who has begun a task, and who has the privilege.
func ownTask(who Who, any Privilege) May { return May{Who: who, On: "/system/tasks", Any: any} }

func taskRows() []Method {
	const most = 1 << 53
	upid := needed("upid", checkUPID)
	page := []Param{number("start", 0, most), number("limit", 0, most)}
	one := []Param{nodeParam, upid}
	const jobs = "collections, prunes and verification jobs with the privilege for them, too"
	return []Method{
		{Op: ListTasks, About: "list tasks, the last first", Answer: []TaskItem{}, May: ownTask(Lists, SysAudit).but(jobs),
			Params: append([]Param{nodeParam, Opt(StoreParam), yesNo("running"), yesNo("errors"), optional("userfilter", CheckComment),
				number("since", 0, most), number("until", 0, most), optional("typefilter", CheckComment),
				{Name: "statusfilter", Kind: Strs, Optional: true, Check: OneOf("ok", "warning", "error", "unknown")}}, page...)},
		{Op: TaskSubdirs, About: "list what there is of a task", Answer: []Subdir{}, Params: one, May: ownTask(Asks, SysAudit).but(jobs)},
		{Op: TaskState, About: "tell how a task goes or has ended", Answer: TaskStatus{}, Params: one, May: ownTask(Asks, SysAudit).but(jobs)},
		{Op: TaskLog, About: "read the log of a task", Answer: []LogLine{}, May: ownTask(Asks, SysAudit).but(jobs),
			Params: append([]Param{nodeParam, upid, yesNo("download"), yesNo("test-status")}, page...)},
		{Op: StopTask, About: "stop a task", Params: one, May: ownTask(Asks, SysModify)},
	}
}

// TrashDays is the parameter that says for how many days removed snapshots of a new
// datastore can be brought back. It is Holdfast's own.
const TrashDays = "trash-days"

// checkPath wants the directory of a datastore.
func checkPath(s string) error {
	const most = 4096
	if len(s) > most || !filepath.IsAbs(s) || filepath.Clean(s) != s || strings.ContainsAny(s, "\x00\n\r") {
		return errors.New("want an absolute path without '.', '..' and repeated slashes")
	}
	return nil
}

func configRows() []Method {
	name := needed("name", CheckStoreName)
	settings := func(more ...Param) []Param {
		return append(more, optional("comment", CheckComment), yesNo("verify-new"))
	}
	const one = "/datastore/{name}"
	return []Method{
		{Op: ListConfigured, About: "list the configuration of datastores", Answer: []DatastoreConfig{},
			May: May{Who: Lists, On: "/datastore/{name}", Any: DatastoreAudit | DatastoreAllocate}},
		{Op: CreateDatastore, About: "make a datastore; answers with the task", Answer: "", May: granted("/datastore", DatastoreAllocate),
			Params: settings(name, optional("path", checkPath), yesNo("reuse-datastore"), number(TrashDays, 0, wire.TrashDaysMax))},
		{Op: GetConfigured, About: "tell the configuration of a datastore", Answer: DatastoreConfig{}, Params: []Param{name},
			May: granted(one, DatastoreAudit, DatastoreAllocate)},
		{Op: SetConfigured, About: "change the configuration of a datastore", May: granted(one, DatastoreAllocate),
			Params: settings(name, DigestParam, optional("maintenance-mode", OneOf(MaintenanceReadOnly, MaintenanceOffline)),
				Param{Name: "delete", Kind: Strs, Optional: true, Check: OneOf("comment", "verify-new", "maintenance-mode")})},
		{Op: RemoveDatastore, About: "take a datastore off the list; with destroy-data answers with the task that removes it", Answer: "",
			Params: []Param{name, DigestParam, yesNo("destroy-data"), yesNo("keep-job-configs")}, May: granted(one, DatastoreAllocate)},
	}
}

// What the maintenance mode of a datastore may be besides "".
const (
	MaintenanceReadOnly = "read-only"
	MaintenanceOffline  = "offline"
)

// sessionRows are the two upgrades.
func sessionRows() []Method {
	return []Method{
		{Op: BackupUpgrade, About: "begin a backup session", Raw: true, Answer: Bytes{},
			Params: SnapshotParams(yesNo("debug"), yesNo("benchmark"), yesNo("no-cache")),
			May:    May{Who: Session, On: thisNamespace, Own: DatastoreBackup | DatastorePut}},
		{Op: ReaderUpgrade, About: "begin a reader session", Raw: true, Answer: Bytes{}, Params: SnapshotParams(yesNo("debug")),
			May: May{Who: Session, On: thisNamespace, Any: DatastoreRead, Own: DatastoreBackup,
				Note: "with Datastore.Put the metadata that one's own running backup builds on"}},
	}
}
