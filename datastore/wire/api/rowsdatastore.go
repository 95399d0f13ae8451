package api

import (
	"errors"

	"holdfast/datastore/wire"
)

// The methods about what a datastore holds.
const (
	ListDatastores   Op = "GET /admin/datastore"
	DatastoreState   Op = "GET /admin/datastore/{store}/status"
	ActiveOperations Op = "GET /admin/datastore/{store}/active-operations"
	AllUsage         Op = "GET /status/datastore-usage"
	StartGC          Op = "POST /admin/datastore/{store}/gc"
	LastGC           Op = "GET /admin/datastore/{store}/gc"
	ListGroups       Op = "GET /admin/datastore/{store}/groups"
	DeleteGroup      Op = "DELETE /admin/datastore/{store}/groups"
	ChangeOwner      Op = "POST /admin/datastore/{store}/change-owner"
	GetGroupNotes    Op = "GET /admin/datastore/{store}/group-notes"
	SetGroupNotes    Op = "PUT /admin/datastore/{store}/group-notes"
	ListSnapshots    Op = "GET /admin/datastore/{store}/snapshots"
	DeleteSnapshot   Op = "DELETE /admin/datastore/{store}/snapshots"
	ListFiles        Op = "GET /admin/datastore/{store}/files"
	GetNotes         Op = "GET /admin/datastore/{store}/notes"
	SetNotes         Op = "PUT /admin/datastore/{store}/notes"
	GetProtected     Op = "GET /admin/datastore/{store}/protected"
	SetProtected     Op = "PUT /admin/datastore/{store}/protected"
	ListDeleted      Op = "GET /admin/datastore/{store}/deleted"
	RestoreDeleted   Op = "POST /admin/datastore/{store}/deleted"
	DestroyDeleted   Op = "DELETE /admin/datastore/{store}/deleted"
	Download         Op = "GET /admin/datastore/{store}/download"
	DownloadDecoded  Op = "GET /admin/datastore/{store}/download-decoded"
	UploadLog        Op = "POST /admin/datastore/{store}/upload-backup-log"
	PruneGroup       Op = "POST /admin/datastore/{store}/prune"
	PruneDatastore   Op = "POST /admin/datastore/{store}/prune-datastore"
	Verify           Op = "POST /admin/datastore/{store}/verify"
	ListNamespaces   Op = "GET /admin/datastore/{store}/namespace"
	CreateNamespace  Op = "POST /admin/datastore/{store}/namespace"
	DeleteNamespace  Op = "DELETE /admin/datastore/{store}/namespace"
)

const wholeStore = "/datastore/{store}"

// Privileges that let a datastore be seen, on it and below it.
const (
	SeesStore = DatastoreAudit | DatastoreBackup | DatastorePut
	SeesBelow = SeesStore | DatastoreRead | DatastoreModify
)

// Who may list groups and snapshots: with the first, all; with the second, one's own.
const (
	ListsAll = DatastoreAudit
	ListsOwn = DatastoreBackup | DatastorePut
)

// seen is who may see a datastore, or something in it.
func seen(who Who) May {
	return May{Who: who, On: wholeStore, Any: SeesBelow, Note: "on the datastore or on a namespace of it"}
}

func datastoreRows() []Method {
	store := []Param{StoreParam}
	return []Method{
		{Op: ListDatastores, About: "list datastores", Answer: []DatastoreItem{}, May: seen(Lists)},
		{Op: DatastoreState, About: "tell how full a datastore is", Answer: DatastoreStatus{}, Params: []Param{StoreParam, yesNo("verbose")}, May: seen(Asks)},
		{Op: ActiveOperations, About: "count who uses a datastore", Answer: Operations{}, Params: store, May: granted(wholeStore, DatastoreAudit)},
		{Op: AllUsage, About: "tell how full all datastores are", Answer: []DatastoreUsage{}, May: seen(Lists)},
		// Neither parameter is in the protocol: other clients do not send them.
		{Op: StartGC, About: "begin a garbage collection; answers with its task", Answer: "",
			Params: []Param{StoreParam, yesNo("dry-run"), yesNo("allow-empty")}, May: granted(wholeStore, DatastoreModify)},
		{Op: LastGC, About: "tell of the last garbage collection", Answer: Collection{}, Params: store, May: granted(wholeStore, DatastoreAudit)},
	}
}

// notesParam is a text that is kept.
var notesParam = Param{Name: "notes", Check: CheckNotes}

func groupRows() []Method {
	return []Method{
		{Op: ListGroups, About: "list groups", Answer: []GroupItem{}, Params: []Param{StoreParam, NSParam}, May: groups(ListsAll, ListsOwn)},
		{Op: DeleteGroup, About: "remove a group to the trash", Answer: Removed{}, Params: GroupParams(yesNo("error-on-protected")),
			May: groups(DatastoreModify, DatastorePrune)},
		{Op: ChangeOwner, About: "give a group to another owner", Params: GroupParams(needed("new-owner", CheckAuthID)),
			May: groups(DatastoreModify, DatastoreBackup).but("a user gives its own to its tokens and back")},
		{Op: GetGroupNotes, About: "read the notes of a group", Answer: "", Params: GroupParams(), May: groups(DatastoreAudit, DatastoreBackup)},
		{Op: SetGroupNotes, About: "write the notes of a group", Params: GroupParams(notesParam), May: groups(DatastoreModify, DatastoreBackup)},
	}
}

func snapshotRows() []Method {
	list := []Param{StoreParam, NSParam, Opt(TypeParam), Opt(IDParam)}
	reads, changes := groups(DatastoreAudit, DatastoreBackup), groups(DatastoreModify, DatastoreBackup)
	return []Method{
		{Op: ListSnapshots, About: "list snapshots", Answer: []SnapshotItem{}, Params: list, May: groups(ListsAll, ListsOwn)},
		{Op: DeleteSnapshot, About: "remove a snapshot to the trash", Params: SnapshotParams(), May: groups(DatastoreModify, DatastorePrune)},
		{Op: ListFiles, About: "list the files of a snapshot", Answer: []FileItem{}, Params: SnapshotParams(),
			May: groups(DatastoreAudit|DatastoreRead, DatastoreBackup)},
		{Op: GetNotes, About: "read the notes of a snapshot", Answer: "", Params: SnapshotParams(), May: reads},
		{Op: SetNotes, About: "write the notes of a snapshot", Params: SnapshotParams(notesParam), May: changes},
		{Op: GetProtected, About: "tell whether a snapshot is protected", Answer: false, Params: SnapshotParams(), May: reads},
		{Op: SetProtected, About: "protect a snapshot, or not", Params: SnapshotParams(Param{Name: "protected", Kind: Boolean}), May: changes},
	}
}

// deletedRows are about the trash of a datastore. They are Holdfast's own. The owner of a
// group that is gone has no say: its name may be somebody else's by now.
func deletedRows() []Method {
	return []Method{
		{Op: ListDeleted, About: "list what is in the trash", Answer: []DeletedItem{}, Params: []Param{StoreParam, NSParam}, May: groups(ListsAll, ListsOwn)},
		{Op: RestoreDeleted, About: "bring a snapshot back from the trash", Params: SnapshotParams(), May: groups(DatastoreModify, 0)},
		{Op: DestroyDeleted, About: "remove a snapshot for good", Params: SnapshotParams(), May: groups(DatastoreModify, 0)},
	}
}

func fileRows() []Method {
	return []Method{
		{Op: Download, About: "read a file as it is stored", Raw: true, Answer: Bytes{}, Params: SnapshotParams(FileParam), May: groups(DatastoreRead, DatastoreBackup)},
		{Op: DownloadDecoded, About: "read the content of a file", Raw: true, Answer: Bytes{}, Params: SnapshotParams(FileParam),
			May: groups(DatastoreRead, DatastoreBackup)},
		{Op: UploadLog, About: "add the log of a client to a snapshot", Raw: true, Params: SnapshotParams(), May: groups(0, DatastoreBackup)},
	}
}

// keepParams are the options of a prune, after others.
func keepParams(more ...Param) []Param {
	const most = 1 << 20
	for _, name := range []string{"keep-last", "keep-hourly", "keep-daily", "keep-weekly", "keep-monthly", "keep-yearly"} {
		more = append(more, number(name, 1, most))
	}
	// The last one is not in the protocol: other clients do not send it.
	return append(more, yesNo("dry-run"), yesNo("now"))
}

var depthParam = Param{Name: "max-depth", Kind: Integer, Optional: true, Check: Within(0, wire.NamespaceDepthMax)}

func pruneRows() []Method {
	may := groups(DatastoreModify, DatastorePrune).but("for good (`now`) with Datastore.Modify only")
	return []Method{
		{Op: PruneGroup, About: "remove old snapshots of a group; with use-task answers with the task", Answer: []PruneItem{},
			Params: keepParams(GroupParams(yesNo("use-task"))...), May: may},
		{Op: PruneDatastore, About: "remove old snapshots of many groups; answers with the task", Answer: "",
			Params: keepParams(StoreParam, NSParam, depthParam), May: may},
	}
}

// ScrubDaysMax bounds the age of checks that count, in days.
const ScrubDaysMax = 36500

func verifyRows() []Method {
	return []Method{
		{Op: Verify, About: "begin to verify snapshots; answers with the task", Answer: "",
			May: groups(DatastoreVerify, DatastoreBackup).but("`scrub` with Datastore.Verify on the datastore only"),
			Params: []Param{
				StoreParam, NSParam, Opt(TypeParam), Opt(IDParam), Opt(TimeParam), depthParam, yesNo("ignore-verified"),
				number("outdated-after", 0, 36500), number("read-threads", 1, 32), number("verify-threads", 1, 32),
				// These are not in the protocol: other clients do not send them.
				yesNo("scrub"), number("older-than", 0, ScrubDaysMax), number("rate", 0, 1<<50),
			}},
	}
}

// namespaceNameMax is the longest name that a namespace can be created with
// (section 8.1 of the protocol specification).
const namespaceNameMax = 32

func checkNamespaceName(s string) error {
	if len(s) > namespaceNameMax {
		return errors.New("want 1 to 32 characters")
	}
	return wire.CheckSafeID("namespace", s)
}

func namespaceRows() []Method {
	parent := optional("parent", CheckNamespace)
	return []Method{
		{Op: ListNamespaces, About: "list namespaces", Answer: []NamespaceItem{}, Params: []Param{StoreParam, parent, depthParam}, May: seen(Asks)},
		{Op: CreateNamespace, About: "make a namespace; answers with its name", Answer: "",
			Params: []Param{StoreParam, parent, needed("name", checkNamespaceName)},
			May:    May{Who: InNamespace, On: "/datastore/{store}/{parent}", Any: DatastoreModify}},
		{Op: DeleteNamespace, About: "remove a namespace", Answer: Removed{},
			Params: []Param{StoreParam, needed("ns", CheckNamespace), yesNo("delete-groups"), yesNo("error-on-protected")},
			May:    May{Who: InNamespace, On: thisNamespace + "/..", Any: DatastoreModify}},
	}
}
