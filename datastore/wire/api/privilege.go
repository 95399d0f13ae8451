package api

import (
	"fmt"
	"slices"

	"holdfast/chunkstore"
)

// Privilege is a set of privileges (section 7.3 of the protocol
// specification).
type Privilege uint32

// The single privileges. Names says what each is called on the wire.
// DatastorePut is Holdfast's own: it lets add snapshots to groups of one's own,
// and neither read, list nor delete anything; DatastoreBackup includes it.
const (
	SysAudit Privilege = 1 << iota
	SysModify
	SysPowerManagement
	SysConsole
	DatastoreAllocate
	DatastoreAudit
	DatastoreModify
	DatastoreRead
	DatastoreVerify
	DatastoreBackup
	DatastorePrune
	DatastorePut
	PermissionsModify
	RealmAllocate
	RemoteAudit
	RemoteModify
	RemoteRead
	RemoteDatastoreBackup
	RemoteDatastoreModify
	RemoteDatastorePrune
	TapeAudit
	TapeModify
	TapeRead
	TapeWrite

	// AllPrivileges is what the superuser has.
	AllPrivileges Privilege = 1<<iota - 1
)

// privilegeNames are in the order of the bits.
var privilegeNames = []string{
	"Sys.Audit", "Sys.Modify", "Sys.PowerManagement", "Sys.Console",
	"Datastore.Allocate", "Datastore.Audit", "Datastore.Modify", "Datastore.Read", "Datastore.Verify",
	"Datastore.Backup", "Datastore.Prune", "Datastore.Put",
	"Permissions.Modify", "Realm.Allocate",
	"Remote.Audit", "Remote.Modify", "Remote.Read",
	"Remote.DatastoreBackup", "Remote.DatastoreModify", "Remote.DatastorePrune",
	"Tape.Audit", "Tape.Modify", "Tape.Read", "Tape.Write",
}

// Names returns the privileges of the set as the wire calls them, sorted; an
// empty set gives an empty slice. The caller owns it.
func (p Privilege) Names() []string {
	names := []string{}
	for i, name := range privilegeNames {
		if p&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Has reports whether p holds all of q.
func (p Privilege) Has(q Privilege) bool { return p&q == q }

// Any reports whether p holds at least one of q.
func (p Privilege) Any(q Privilege) bool { return p&q != 0 }

// Effective adds what other privileges include.
func (p Privilege) Effective() Privilege {
	if p.Has(DatastoreBackup) {
		p |= DatastorePut
	}
	return p
}

// Role is a named set of privileges.
type Role struct {
	Name       string
	Privileges Privilege
	Comment    string
}

// RoleNoAccess takes away what was inherited.
const RoleNoAccess = "NoAccess"

// roles are all there are (section 7.3 of the protocol specification), and
// DatastorePutOnly.
var roles = []Role{
	{"Admin", AllPrivileges, "Administrator: may do everything"},
	{"Audit", SysAudit | DatastoreAudit, "May see everything"},
	{RoleNoAccess, 0, "Takes away what was granted higher up"},
	{"DatastoreAdmin", DatastoreAudit | DatastoreModify | DatastoreRead | DatastoreVerify | DatastoreBackup | DatastorePrune,
		"May do everything within a datastore"},
	{"DatastoreReader", DatastoreAudit | DatastoreVerify | DatastoreRead, "May see, read and verify everything in a datastore"},
	{"DatastoreBackup", DatastoreBackup, "May back up, and restore what is its own"},
	{"DatastorePowerUser", DatastoreBackup | DatastorePrune, "May back up, and restore and prune what is its own"},
	{"DatastoreAudit", DatastoreAudit, "May see what a datastore holds"},
	{"DatastorePutOnly", DatastorePut, "May add backups of its own, compare with the metadata of the last, and neither read, list nor remove any"},
	{"RemoteAudit", RemoteAudit, "May see remotes"},
	{"RemoteAdmin", RemoteAudit | RemoteModify | RemoteRead, "May set up remotes and read from them"},
	{"RemoteSyncOperator", RemoteAudit | RemoteRead, "May read from remotes"},
	{"RemoteSyncPushOperator", RemoteAudit | RemoteDatastoreBackup, "May push backups to remotes"},
	{"RemoteDatastorePowerUser", RemoteAudit | RemoteDatastoreBackup | RemoteDatastorePrune,
		"May push backups to remotes and prune what is its own there"},
	{"RemoteDatastoreAdmin", RemoteAudit | RemoteDatastoreBackup | RemoteDatastoreModify | RemoteDatastorePrune,
		"May push to remotes and change everything there"},
	{"TapeAudit", TapeAudit, "May see tapes"},
	{"TapeReader", TapeAudit | TapeRead, "May read tapes"},
	{"TapeOperator", TapeAudit | TapeRead | TapeWrite, "May read and write tapes"},
	{"TapeAdmin", TapeAudit | TapeRead | TapeWrite | TapeModify, "May set up, read and write tapes"},
}

// Roles returns all roles. The caller owns the slice.
func Roles() []Role { return slices.Clone(roles) }

// ParseRole finds a role by its name; an unknown one is chunkstore.ErrInvalid.
func ParseRole(name string) (Role, error) {
	for _, r := range roles {
		if r.Name == name {
			return r, nil
		}
	}
	return Role{}, fmt.Errorf("role %.80q: unknown: %w", name, chunkstore.ErrInvalid)
}
