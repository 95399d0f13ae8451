package access

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"holdfast/chunkstore"
	"holdfast/datastore/wire"

	"holdfast/datastore/wire/api"
)

// set puts ACLs written as "path role id", with "-" in front of the role if
// it does not propagate.
func set(t *testing.T, s *Store, lines ...string) {
	t.Helper()
	for _, l := range lines {
		f := strings.Fields(l)
		role, own := strings.CutPrefix(f[1], "-")
		must(t, s.SetACL(ACL{Path: f[0], Role: role, ID: wire.AuthID(f[2]), Propagate: !own}))
	}
}

func TestPrivileges(t *testing.T) {
	const put = "Datastore.Put"
	for name, tc := range map[string]struct {
		acls []string
		want map[string]string // "id path" -> names
	}{
		"nothing": {nil, map[string]string{"u@pbs /": "", "u@pbs!tok /datastore/tank": "", "nobody@pbs /": ""}},
		"inherited": {[]string{"/ Audit u@pbs"}, map[string]string{
			"u@pbs /": "Datastore.Audit Sys.Audit", "u@pbs /datastore/tank/a/b": "Datastore.Audit Sys.Audit", "v@pbs /": "",
		}},
		"deeper replaces": {[]string{"/ Audit u@pbs", "/datastore/tank DatastoreBackup u@pbs"}, map[string]string{
			"u@pbs /datastore":        "Datastore.Audit Sys.Audit",
			"u@pbs /datastore/tank":   "Datastore.Backup " + put,
			"u@pbs /datastore/tank/a": "Datastore.Backup " + put,
			"u@pbs /datastore/tank2":  "Datastore.Audit Sys.Audit",
		}},
		"not propagating": {[]string{"/datastore DatastoreAudit u@pbs", "/datastore/tank -DatastoreReader u@pbs"}, map[string]string{
			"u@pbs /datastore/tank":   "Datastore.Audit Datastore.Read Datastore.Verify",
			"u@pbs /datastore/tank/a": "Datastore.Audit",
		}},
		"united": {[]string{"/datastore/tank DatastoreAudit u@pbs", "/datastore/tank -DatastoreBackup u@pbs"}, map[string]string{
			"u@pbs /datastore/tank":   "Datastore.Audit Datastore.Backup " + put,
			"u@pbs /datastore/tank/a": "Datastore.Audit",
		}},
		"NoAccess": {[]string{"/ Admin u@pbs", "/datastore/tank NoAccess u@pbs", "/datastore/tank/a DatastoreAudit u@pbs"}, map[string]string{
			"u@pbs /datastore/tank": "", "u@pbs /datastore/tank/b": "", "u@pbs /datastore/tank/a/x": "Datastore.Audit",
		}},
		"NoAccess wins": {[]string{"/datastore NoAccess u@pbs", "/datastore Admin u@pbs"}, map[string]string{
			"u@pbs /datastore": "", "u@pbs /datastore/tank": "",
		}},
		"NoAccess here only": {[]string{"/datastore -NoAccess u@pbs", "/datastore DatastoreAudit u@pbs"}, map[string]string{
			"u@pbs /datastore": "", "u@pbs /datastore/tank": "Datastore.Audit",
		}},
		"token without ACLs": {[]string{"/ Admin u@pbs"}, map[string]string{"u@pbs!tok /datastore": ""}},
		"token within its user": {[]string{"/datastore/tank DatastoreBackup u@pbs", "/ Admin u@pbs!tok"}, map[string]string{
			"u@pbs!tok /datastore/tank": "Datastore.Backup " + put, "u@pbs!tok /datastore": "", "u@pbs!tok /": "",
		}},
		"put-only token of a backup user": {
			[]string{"/datastore DatastorePowerUser u@pbs", "/datastore/tank DatastorePutOnly u@pbs!tok"},
			map[string]string{"u@pbs!tok /datastore/tank/a": put, "u@pbs!tok /datastore/other": ""},
		},
		"token of root": {[]string{"/datastore DatastoreReader root@pam!tok"}, map[string]string{
			"root@pam!tok /datastore": "Datastore.Audit Datastore.Read Datastore.Verify", "root@pam!tok /": "",
		}},
		"root": {[]string{"/ NoAccess root@pam"}, map[string]string{"root@pam /datastore/x": strings.Join(api.AllPrivileges.Names(), " ")}},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := open(t)
			must(t, s.CreateUser(user("u@pbs"), ""), s.CreateUser(user("v@pbs"), ""))
			token(t, s, "u@pbs!tok")
			token(t, s, "root@pam!tok")
			set(t, s, tc.acls...)
			for who, want := range tc.want {
				id, path, _ := strings.Cut(who, " ")
				p, err := s.Privileges(wire.AuthID(id), path)
				if got := strings.Join(p.Names(), " "); err != nil || got != want {
					t.Errorf("%s: got %q, %v; want %q", who, got, err, want)
				}
			}
		})
	}
}

func TestPrivilegesBelow(t *testing.T) {
	s, _ := open(t)
	for _, id := range []wire.AuthID{"ns@pbs", "hidden@pbs", "own@pbs"} {
		must(t, s.CreateUser(user(id), ""))
	}
	token(t, s, "ns@pbs!tok")
	set(t, s, "/datastore/tank/a/b DatastoreBackup ns@pbs", "/datastore/tank2 DatastoreAudit ns@pbs", "/ Admin ns@pbs!tok",
		"/datastore Admin hidden@pbs", "/datastore/tank -NoAccess hidden@pbs", "/datastore/tank/x -DatastoreReader own@pbs")
	for who, want := range map[string]api.Privilege{
		"ns@pbs /datastore/tank":      api.DatastoreBackup | api.DatastorePut,
		"ns@pbs /datastore/tank/a/b":  api.DatastoreBackup | api.DatastorePut,
		"ns@pbs /datastore/tank/a/bc": 0,
		"ns@pbs /datastore/tank/c":    0,
		"ns@pbs /":                    api.DatastoreBackup | api.DatastorePut | api.DatastoreAudit,
		"ns@pbs!tok /datastore/tank":  api.DatastoreBackup | api.DatastorePut, // through the ACL of its user
		"hidden@pbs /datastore/tank":  api.AllPrivileges,                      // everywhere but on the store itself
		"own@pbs /datastore/tank":     api.DatastoreAudit | api.DatastoreRead | api.DatastoreVerify,
		"root@pam /":                  api.AllPrivileges,
		"nobody@pbs /":                0,
	} {
		id, path, _ := strings.Cut(who, " ")
		if p, err := s.PrivilegesBelow(wire.AuthID(id), path); err != nil || p != want {
			t.Errorf("%s: got %v, %v; want %v", who, p.Names(), err, want.Names())
		}
	}
	if _, err := s.PrivilegesBelow("root@pam", "/nowhere"); !errors.Is(err, wire.ErrName) {
		t.Error(err)
	}
}

func TestPrivilegesEndAtOnce(t *testing.T) {
	s, c := open(t)
	must(t, s.CreateUser(user("u@pbs"), ""))
	token(t, s, "u@pbs!tok")
	set(t, s, "/ Admin u@pbs", "/ Admin u@pbs!tok")
	expect := func(when string, user, token bool) {
		t.Helper()
		for id, want := range map[wire.AuthID]bool{"u@pbs": user, "u@pbs!tok": token} {
			if p, err := s.Privileges(id, "/"); err != nil || (p == api.AllPrivileges) != want || (p == 0) == want {
				t.Errorf("%s: %s has %v, %v", when, id, p.Names(), err)
			}
		}
	}
	expect("at first", true, true)
	must(t, s.SetToken(Token{ID: "u@pbs!tok"}))
	expect("token disabled", true, false)
	must(t, s.SetToken(Token{ID: "u@pbs!tok", Enabled: true, Expire: c.now().Unix() + 1}))
	expect("token not yet expired", true, true)
	c.add(time.Second)
	expect("token expired", true, false)
	must(t, s.SetToken(Token{ID: "u@pbs!tok", Enabled: true}), s.SetUser(User{ID: "u@pbs"}))
	expect("user disabled", false, false)
	must(t, s.SetUser(User{ID: "u@pbs", Enabled: true, Expire: c.now().Unix()}))
	expect("user expired", false, false)
	must(t, s.SetUser(user("u@pbs")), s.RemoveACL(ACL{Path: "/", Role: "Admin", ID: "u@pbs!tok"}))
	expect("ACL removed", true, false)
	must(t, s.RemoveUser("u@pbs"))
	expect("user removed", false, false)
}

func TestACLs(t *testing.T) {
	s, _ := open(t)
	must(t, s.CreateUser(user("u@pbs"), ""))
	for _, tc := range []struct {
		acl  ACL
		want error
	}{
		{ACL{Path: "datastore", Role: "Audit", ID: "u@pbs"}, wire.ErrName},
		{ACL{Path: "/nowhere", Role: "Audit", ID: "u@pbs"}, wire.ErrName},
		{ACL{Path: "/datastore/../x", Role: "Audit", ID: "u@pbs"}, wire.ErrName},
		{ACL{Path: "/datastore/a b", Role: "Audit", ID: "u@pbs"}, wire.ErrName},
		{ACL{Path: "/datastore" + strings.Repeat("/a", 10), Role: "Audit", ID: "u@pbs"}, wire.ErrName},
		{ACL{Path: "/datastore/" + strings.Repeat("a", 600), Role: "Audit", ID: "u@pbs"}, wire.ErrName},
		{ACL{Path: "/", Role: "Nobody", ID: "u@pbs"}, chunkstore.ErrInvalid},
		{ACL{Path: "/", Role: "", ID: "u@pbs"}, chunkstore.ErrInvalid},
		{ACL{Path: "/", Role: "Audit", ID: "v@pbs"}, chunkstore.ErrNotExist},
		{ACL{Path: "/", Role: "Audit", ID: "u@pbs!tok"}, chunkstore.ErrNotExist},
	} {
		if err := s.SetACL(tc.acl); !errors.Is(err, tc.want) {
			t.Errorf("%.100v: got %v, want %v", tc.acl, err, tc.want)
		}
	}
	set(t, s, "/remote/r/store"+strings.Repeat("/a", 7)+" Audit u@pbs", "//datastore// Audit u@pbs", "/ -Audit u@pbs", "/ Audit u@pbs")
	got, err := s.ACLs()
	want := []ACL{
		{"/", "Audit", "u@pbs", true}, {"/datastore", "Audit", "u@pbs", true},
		{"/remote/r/store" + strings.Repeat("/a", 7), "Audit", "u@pbs", true},
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	must(t, s.RemoveACL(ACL{Path: "/datastore/", Role: "Audit", ID: "u@pbs"}))
	if err := s.RemoveACL(want[1]); !errors.Is(err, chunkstore.ErrNotExist) {
		t.Error(err)
	}
}

func TestDatastorePath(t *testing.T) {
	for want, got := range map[string]string{
		"/datastore/tank": DatastorePath("tank", ""), "/datastore/tank/a/b": DatastorePath("tank", "a/b"),
	} {
		if p, err := parsePath(got); got != want || p != want || err != nil {
			t.Errorf("%s, %s, %v; want %s", got, p, err, want)
		}
	}
}

func TestPermissions(t *testing.T) {
	s, _ := open(t)
	must(t, s.CreateUser(user("u@pbs"), ""), s.AddDatastore(Datastore{Name: "tank", Path: "/srv/tank"}))
	set(t, s, "/datastore -DatastoreAudit u@pbs", "/datastore DatastoreBackup u@pbs", "/datastore/old/ns NoAccess u@pbs")
	got, err := s.Permissions("u@pbs", "")
	want := map[string]map[string]bool{
		"/datastore":      {"Datastore.Audit": false, "Datastore.Backup": true, "Datastore.Put": true},
		"/datastore/tank": {"Datastore.Backup": true, "Datastore.Put": true},
	}
	if err != nil || !maps.EqualFunc(got, want, maps.Equal) {
		t.Errorf("%v, %v", got, err)
	}
	got, err = s.Permissions("u@pbs", "/datastore/tank/")
	if err != nil || len(got) != 1 || !maps.Equal(got["/datastore/tank"], want["/datastore/tank"]) {
		t.Errorf("%v, %v", got, err)
	}
	if got, err = s.Permissions("root@pam", "/system"); err != nil || len(got["/system"]) != len(api.AllPrivileges.Names()) {
		t.Errorf("%v, %v", got, err)
	}
	if _, err = s.Permissions("v@pbs", ""); !errors.Is(err, chunkstore.ErrNotExist) {
		t.Error(err)
	}
	if _, err = s.Permissions("u@pbs", "/x"); !errors.Is(err, wire.ErrName) {
		t.Error(err)
	}
}
