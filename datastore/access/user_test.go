package access

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"holdfast/chunkstore"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
)

func TestUserNames(t *testing.T) {
	s, _ := open(t)
	for _, id := range []wire.AuthID{"alice@pbs", "alice@pam", "a+b@pbs", "a.b-c_d@pbs", "a@b.example@pbs", "jürgen@pbs"} {
		if err := s.CreateUser(user(id), ""); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
	for id, want := range map[wire.AuthID]error{
		"": wire.ErrName, "alice": wire.ErrName, "@pbs": wire.ErrName, "a b@pbs": wire.ErrName, "a:b@pbs": wire.ErrName,
		"a/b@pbs": wire.ErrName, "a;b@pbs": wire.ErrName, "a%b@pbs": wire.ErrName, "a\x00b@pbs": wire.ErrName,
		"a\u00a0b@pbs": wire.ErrName, "a\xff@pbs": wire.ErrName, `a"b@pbs`: wire.ErrName, "alice@pbs!tok": wire.ErrName,
		"alice@ldap": chunkstore.ErrInvalid, "alice@pbs": wire.ErrExists, "root@pam": wire.ErrExists,
		wire.AuthID(strings.Repeat("x", 61) + "@pbs"): wire.ErrName,
	} {
		if err := s.CreateUser(user(id), ""); !errors.Is(err, want) {
			t.Errorf("%q: got %v, want %v", id, err, want)
		}
	}
	users, err := s.Users()
	if err != nil || len(users) != 7 || users[0].ID != "a+b@pbs" || users[6].ID != "root@pam" {
		t.Errorf("%v, %v", users, err)
	}
}

func TestUserFields(t *testing.T) {
	s, _ := open(t)
	must(t, s.CreateUser(user("alice@pbs"), ""))
	good := User{ID: "alice@pbs", Comment: "c", FirstName: "f", LastName: "l", Email: "e", Enabled: true, Expire: 7}
	must(t, s.SetUser(good))
	if got, err := s.User("alice@pbs"); err != nil || got != good {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []User{
		{ID: "alice@pbs", Comment: "a\nb"}, {ID: "alice@pbs", FirstName: "\x1b"}, {ID: "alice@pbs", LastName: "\xff"},
		{ID: "alice@pbs", Email: strings.Repeat("x", 257)}, {ID: "alice@pbs", Expire: -1},
		{ID: "root@pam"}, {ID: "root@pam", Enabled: true, Expire: 1},
	} {
		if err := s.SetUser(bad); !errors.Is(err, chunkstore.ErrInvalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	for name, err := range map[string]error{
		"set": s.SetUser(user("bob@pbs")), "remove": s.RemoveUser("bob@pbs"), "password": s.SetPassword("bob@pbs", "a secret"),
	} {
		if !errors.Is(err, chunkstore.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := s.User("bob@pbs"); !errors.Is(err, chunkstore.ErrNotExist) {
		t.Error(err)
	}
	if err := s.RemoveUser(wire.RootUser); !errors.Is(err, chunkstore.ErrInvalid) {
		t.Errorf("root@pam can be removed: %v", err)
	}
	if got, err := s.User("alice@pbs"); err != nil || got != good {
		t.Errorf("after refused changes: %+v, %v", got, err)
	}
}

func TestPasswords(t *testing.T) {
	s, _ := open(t)
	for _, p := range []string{"1234", strings.Repeat("x", 65)} {
		if err := s.CreateUser(user("alice@pbs"), p); !errors.Is(err, chunkstore.ErrInvalid) || strings.Contains(err.Error(), p) {
			t.Errorf("password of %d characters: %v", len(p), err)
		}
	}
	long := strings.Repeat("ü", 64)
	must(t, s.CreateUser(user("alice@pbs"), long))
	login(t, s, "alice@pbs", long)
	must(t, s.SetPassword("alice@pbs", "12345"))
	login(t, s, "alice@pbs", "12345")
	if _, err := s.Login(t.Context(), "alice@pbs", long, netip.Addr{}); !errors.Is(err, wire.ErrUnauthenticated) {
		t.Errorf("the old password: %v", err)
	}
	if text := export(t, s); strings.Contains(text, "12345") || strings.Contains(text, long) {
		t.Error("a password is in the export")
	}
}

func TestRemovingTakesAllWithIt(t *testing.T) {
	s, _ := open(t)
	filled(t, s)
	must(t, s.SetQuota(Quota{Subject: "alice@pbs!nightly", BytesMax: 1}), s.CreateUser(user("alice@pam"), ""))
	must(t, s.SetACL(ACL{Path: "/", Role: "Audit", ID: "alice@pam"}))
	must(t, s.RevokeToken("alice@pbs!nightly"))
	acls, err := s.ACLs()
	if err != nil || len(acls) != 2 {
		t.Errorf("after the token went: %v, %v", acls, err)
	}
	must(t, s.RemoveUser("alice@pbs"))
	if acls, err = s.ACLs(); err != nil || len(acls) != 1 || acls[0].ID != "alice@pam" {
		t.Errorf("after the user went: %v, %v", acls, err)
	}
	quotas, err := s.Quotas()
	if err != nil || len(quotas) != 1 || quotas[0].Subject != "/datastore/tank/a" {
		t.Errorf("quotas %v, %v", quotas, err)
	}
}

func TestTokenNames(t *testing.T) {
	s, _ := open(t)
	for id, want := range map[wire.AuthID]error{
		"root@pam": wire.ErrName, "root@pam!": wire.ErrName, "root@pam!a b": wire.ErrName,
		"root@pam!-ab": wire.ErrName, "bob@pbs!abc": chunkstore.ErrNotExist, "": wire.ErrName,
		wire.AuthID("root@pam!" + strings.Repeat("x", 60)): wire.ErrName,
	} {
		if secret, err := s.CreateToken(Token{ID: id, Enabled: true}); !errors.Is(err, want) || secret != "" {
			t.Errorf("%q: %v, want %v", id, err, want)
		}
	}
}

func TestTokenLife(t *testing.T) {
	s, c := open(t)
	id := wire.AuthID("alice@pbs!nightly")
	must(t, s.CreateUser(user("alice@pbs"), ""))
	first := token(t, s, id)
	if !regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(first) {
		t.Errorf("the secret %s is no UUID of version 4", first)
	}
	if _, err := s.CreateToken(Token{ID: id}); !errors.Is(err, wire.ErrExists) {
		t.Errorf("created twice: %v", err)
	}
	if strings.Contains(export(t, s), first) {
		t.Error("the secret is in the export")
	}
	accepted(t, s, withToken(id, first), id)
	second, err := s.RegenerateToken(id)
	must(t, err)
	refused(t, s, withToken(id, first), "the old secret")
	accepted(t, s, withToken(id, second), id)

	must(t, s.SetToken(Token{ID: id, Comment: "c"}))
	refused(t, s, withToken(id, second), "disabled")
	must(t, s.SetToken(Token{ID: id, Enabled: true, Expire: c.now().Unix() + 60}))
	accepted(t, s, withToken(id, second), id)
	c.add(time.Minute)
	refused(t, s, withToken(id, second), "expired")
	must(t, s.SetToken(Token{ID: id, Enabled: true}), s.SetUser(User{ID: "alice@pbs"}))
	refused(t, s, withToken(id, second), "user disabled")
	must(t, s.SetUser(user("alice@pbs")))
	accepted(t, s, withToken(id, second), id)
	must(t, s.RevokeToken(id))
	refused(t, s, withToken(id, second), "revoked")
	third := token(t, s, id)
	refused(t, s, withToken(id, second), "the secret of an earlier token of that name")
	must(t, s.RemoveUser("alice@pbs"))
	refused(t, s, withToken(id, third), "user removed")
	_, err = s.RegenerateToken(id)
	for name, err := range map[string]error{"set": s.SetToken(Token{ID: id}), "revoke": s.RevokeToken(id), "regenerate": err} {
		if !errors.Is(err, chunkstore.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTokenList(t *testing.T) {
	s, _ := open(t)
	must(t, s.CreateUser(user("al@pbs"), ""), s.CreateUser(user("alice@pbs"), ""))
	for _, id := range []wire.AuthID{"alice@pbs!two", "al@pbs!other", "alice@pbs!one"} {
		token(t, s, id)
	}
	got, err := s.Tokens("alice@pbs")
	want := []Token{{ID: "alice@pbs!one", Enabled: true}, {ID: "alice@pbs!two", Enabled: true}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	if got, err = s.Tokens("root@pam"); err != nil || got == nil || len(got) != 0 {
		t.Errorf("%v, %v", got, err)
	}
	if _, err = s.Tokens("bob@pbs"); !errors.Is(err, chunkstore.ErrNotExist) {
		t.Error(err)
	}
	if one, err := s.Token("alice@pbs!one"); err != nil || one != want[0] {
		t.Errorf("%v, %v", one, err)
	}
	if _, err := s.Token("alice@pbs!no"); !errors.Is(err, chunkstore.ErrNotExist) {
		t.Error(err)
	}
}

func TestDatastores(t *testing.T) {
	s, _ := open(t)
	must(t, s.AddDatastore(Datastore{Name: "tank", Path: "/srv/tank"}), s.AddDatastore(Datastore{Name: "tank2", Path: "/srv/tank2"}))
	for _, tc := range []struct {
		d    Datastore
		want error
	}{
		{Datastore{Name: "tank", Path: "/srv/other"}, wire.ErrExists},
		{Datastore{Name: "new", Path: "/srv/tank"}, wire.ErrExists},
		{Datastore{Name: "new", Path: "/srv/tank/sub"}, wire.ErrExists},
		{Datastore{Name: "new", Path: "/srv"}, wire.ErrExists},
		{Datastore{Name: "new", Path: "/"}, wire.ErrExists},
		{Datastore{Name: "ab", Path: "/srv/x"}, wire.ErrName},
		{Datastore{Name: "a/b", Path: "/srv/x"}, wire.ErrName},
		{Datastore{Name: strings.Repeat("x", 33), Path: "/srv/x"}, wire.ErrName},
		{Datastore{Name: "new", Path: "srv/x"}, chunkstore.ErrInvalid},
		{Datastore{Name: "new", Path: "/srv/../x"}, chunkstore.ErrInvalid},
		{Datastore{Name: "new", Path: "/srv/\n"}, chunkstore.ErrInvalid},
		{Datastore{Name: "new", Path: "/" + strings.Repeat("x", 4095)}, chunkstore.ErrInvalid},
		{Datastore{Name: "new", Path: "/srv/x", Maintenance: "delete"}, chunkstore.ErrInvalid},
		{Datastore{Name: "new", Path: "/srv/x", Comment: "a\nb"}, chunkstore.ErrInvalid},
	} {
		if err := s.AddDatastore(tc.d); !errors.Is(err, tc.want) {
			t.Errorf("%.80v: got %v, want %v", tc.d, err, tc.want)
		}
	}
	changed := Datastore{Name: "tank", Path: "/srv/moved", Comment: "c", Maintenance: api.MaintenanceOffline, VerifyNew: true}
	must(t, s.SetDatastore(changed), s.AddDatastore(Datastore{Name: "new", Path: "/srv/tank"}))
	if got, err := s.Datastore("tank"); err != nil || got != changed {
		t.Errorf("%v, %v", got, err)
	}
	must(t, s.RemoveDatastore("tank2"))
	list, err := s.Datastores()
	if err != nil || len(list) != 2 || list[0].Name != "new" || list[1] != changed {
		t.Errorf("%v, %v", list, err)
	}
	_, err = s.Datastore("tank2")
	for _, err := range []error{err, s.SetDatastore(Datastore{Name: "tank2", Path: "/x"}), s.RemoveDatastore("tank2")} {
		if !errors.Is(err, chunkstore.ErrNotExist) {
			t.Error(err)
		}
	}
}

func TestQuotas(t *testing.T) {
	s, _ := open(t)
	must(t, s.SetQuota(Quota{Subject: "/datastore//tank/a/", BytesMax: 5}), s.SetQuota(Quota{Subject: "root@pam", SnapshotsPerDay: 2}))
	must(t, s.SetQuota(Quota{Subject: "/datastore/tank/a", BytesMax: 6}))
	for subject, want := range map[string]error{
		"/": wire.ErrName, "/datastore": wire.ErrName, "/access/users": wire.ErrName, "/datastore/a..b/../c": wire.ErrName,
		"": wire.ErrName, "bob": wire.ErrName, "bob@pbs": chunkstore.ErrNotExist,
	} {
		if err := s.SetQuota(Quota{Subject: subject}); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", subject, err, want)
		}
	}
	if q, err := s.Quota("/datastore/tank/a"); err != nil || q.BytesMax != 6 {
		t.Errorf("%v, %v", q, err)
	}
	must(t, s.RemoveQuota("root@pam"))
	_, err := s.Quota("root@pam")
	for _, err := range []error{err, s.RemoveQuota("root@pam")} {
		if !errors.Is(err, chunkstore.ErrNotExist) {
			t.Error(err)
		}
	}
	if l, err := s.Quotas(); err != nil || len(l) != 1 {
		t.Errorf("%v, %v", l, err)
	}
}

func TestCaps(t *testing.T) {
	c, err := newConfig(&source{r: bytes.NewReader(make([]byte, 64))})
	must(t, err)
	for i := range datastoresMax {
		c.stores[fmt.Sprintf("s%04d", i)] = Datastore{Name: fmt.Sprintf("s%04d", i), Path: fmt.Sprintf("/srv/%04d", i)}
	}
	for i := range entriesMax {
		c.quotas[fmt.Sprintf("/datastore/q%d", i)] = Quota{Subject: fmt.Sprintf("/datastore/q%d", i)}
	}
	must(t, c.check())
	c.quotas["/datastore/more"] = Quota{Subject: "/datastore/more"}
	if err := c.check(); !errors.Is(err, chunkstore.ErrInvalid) {
		t.Errorf("one quota too many: %v", err)
	}
	delete(c.quotas, "/datastore/more")
	c.stores["more"] = Datastore{Name: "more", Path: "/srv/more"}
	if err := c.check(); !errors.Is(err, chunkstore.ErrInvalid) {
		t.Errorf("one datastore too many: %v", err)
	}
}
