package api

import (
	"slices"
	"strings"
	"testing"
)

func TestRoles(t *testing.T) {
	// Section 7.3 of the protocol specification.
	want := map[string]string{
		"Audit":                    "Datastore.Audit Sys.Audit",
		"NoAccess":                 "",
		"DatastoreAdmin":           "Datastore.Audit Datastore.Backup Datastore.Modify Datastore.Prune Datastore.Read Datastore.Verify",
		"DatastoreReader":          "Datastore.Audit Datastore.Read Datastore.Verify",
		"DatastoreBackup":          "Datastore.Backup",
		"DatastorePowerUser":       "Datastore.Backup Datastore.Prune",
		"DatastoreAudit":           "Datastore.Audit",
		"DatastorePutOnly":         "Datastore.Put",
		"RemoteAudit":              "Remote.Audit",
		"RemoteAdmin":              "Remote.Audit Remote.Modify Remote.Read",
		"RemoteSyncOperator":       "Remote.Audit Remote.Read",
		"RemoteSyncPushOperator":   "Remote.Audit Remote.DatastoreBackup",
		"RemoteDatastorePowerUser": "Remote.Audit Remote.DatastoreBackup Remote.DatastorePrune",
		"RemoteDatastoreAdmin":     "Remote.Audit Remote.DatastoreBackup Remote.DatastoreModify Remote.DatastorePrune",
		"TapeAudit":                "Tape.Audit",
		"TapeReader":               "Tape.Audit Tape.Read",
		"TapeOperator":             "Tape.Audit Tape.Read Tape.Write",
		"TapeAdmin":                "Tape.Audit Tape.Modify Tape.Read Tape.Write",
	}
	names := slices.Clone(privilegeNames)
	slices.Sort(names)
	want["Admin"] = strings.Join(names, " ")
	list := Roles()
	for _, r := range list {
		if got := strings.Join(r.Privileges.Names(), " "); got != want[r.Name] || r.Comment == "" {
			t.Errorf("%s: %s", r.Name, got)
		}
		if p, err := ParseRole(r.Name); err != nil || p != r {
			t.Errorf("%s: %v, %v", r.Name, p, err)
		}
	}
	if len(list) != len(want) {
		t.Errorf("%d roles, want %d", len(list), len(want))
	}
	if AllPrivileges != 1<<len(privilegeNames)-1 || AllPrivileges.Has(AllPrivileges+1) {
		t.Errorf("%d names for %b", len(privilegeNames), AllPrivileges)
	}
	if p := SysAudit | TapeRead; !p.Has(TapeRead) || p.Has(TapeRead|TapeWrite) || !p.Any(TapeRead|TapeWrite) || p.Any(TapeWrite) || p.Any(0) {
		t.Error("Has or Any is wrong")
	}
}
