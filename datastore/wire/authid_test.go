package wire

import (
	"errors"
	"strings"
	"testing"
)

func TestParseAuthID(t *testing.T) {
	for s, want := range map[string]struct{ user, token, realm string }{
		"root@pam":           {"root@pam", "", "pam"},
		"backup@pbs!nightly": {"backup@pbs", "nightly", "pbs"},
		"a@b@ldap":           {"a@b@ldap", "", "ldap"},
	} {
		id, err := ParseAuthID(s)
		token, isToken := id.Token()
		if err != nil || id.User() != AuthID(want.user) || token != want.token || isToken != (want.token != "") || id.Realm() != want.realm {
			t.Errorf("ParseAuthID(%q) = %q %q %q, %v", s, id.User(), token, id.Realm(), err)
		}
	}
	for _, s := range []string{
		"", "a@", "@pam", "root", "root@p", "ro ot@pam", "ro:ot@pam", "ro/ot@pam", "a!b@pam", "root@pam!",
		"root@pam!a!b", "root@pam!a b", "root@pa m", "ro\not@pam", strings.Repeat("x", 62) + "@pam",
	} {
		if id, err := ParseAuthID(s); !errors.Is(err, ErrName) {
			t.Errorf("ParseAuthID(%q) = %q, %v; want ErrName", s, id, err)
		}
	}
}

func TestOwns(t *testing.T) {
	for _, tc := range []struct {
		caller, owner AuthID
		want          bool
	}{
		{"a@pbs", "a@pbs", true},
		{"a@pbs", "a@pbs!t", true},
		{"a@pbs!t", "a@pbs!t", true},
		{"a@pbs!t", "a@pbs", false},
		{"a@pbs!t", "a@pbs!u", false},
		{"a@pbs", "b@pbs", false},
		{"a@pbs", "b@pbs!t", false},
	} {
		if got := tc.caller.Owns(tc.owner); got != tc.want {
			t.Errorf("%s owns what is %s's: %v", tc.caller, tc.owner, got)
		}
	}
}

func FuzzParseAuthID(f *testing.F) {
	f.Add("root@pam")
	f.Add("backup@pbs!nightly")
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParseAuthID(s)
		if err != nil {
			return
		}
		if string(id) != s || !id.Owns(id) || !id.User().Owns(id) || strings.ContainsAny(s, ":/ \n") {
			t.Fatalf("%q became %q", s, id)
		}
	})
}
