package wire

import (
	"errors"
	"strings"
	"testing"
)

func TestParseRepository(t *testing.T) {
	for _, tc := range []struct {
		in   string
		want Repository
	}{
		{"/srv/backup", Repository{Path: "/srv/backup"}},
		{"./store", Repository{Path: "./store"}},
		{"../x", Repository{Path: "../x"}},
		{".", Repository{Path: "."}},
		{"a/b", Repository{Path: "a/b"}},
		{`./back\up`, Repository{Path: `./back\up`}},
		{"./sftp:x", Repository{Path: "./sftp:x"}},
		{"./sftp:backup@nas:/srv/repo", Repository{Path: "./sftp:backup@nas:/srv/repo"}},
		{"./~/x", Repository{Path: "./~/x"}},
		{"/srv/a@b:c/d", Repository{Path: "/srv/a@b:c/d"}},
		{"srv/a@b:c", Repository{Path: "srv/a@b:c"}},
		{"[fe80::1%eth0]:tank", Repository{Host: "fe80::1%eth0", Datastore: "tank"}},
		{"root@pam!a@[fe80::1%br-lan.2]:8008:tank", Repository{AuthID: "root@pam!a", Host: "fe80::1%br-lan.2", Port: 8008, Datastore: "tank"}},
		{"tank", Repository{Datastore: "tank"}},
		{"pbs.lan:tank", Repository{Host: "pbs.lan", Datastore: "tank"}},
		{"pbs.lan:8007:tank", Repository{Host: "pbs.lan", Port: 8007, Datastore: "tank"}},
		{"192.0.2.7:tank", Repository{Host: "192.0.2.7", Datastore: "tank"}},
		{"backup@pbs@pbs.lan:tank", Repository{AuthID: "backup@pbs", Host: "pbs.lan", Datastore: "tank"}},
		{"backup@pbs!tok@[fd00::1]:8007:tank", Repository{AuthID: "backup@pbs!tok", Host: "fd00::1", Port: 8007, Datastore: "tank"}},
		{"[::1]:tank", Repository{Host: "::1", Datastore: "tank"}},
		{"a@b@pam@host:tank", Repository{AuthID: "a@b@pam", Host: "host", Datastore: "tank"}},
	} {
		got, err := ParseRepository(tc.in)
		if err != nil {
			t.Errorf("ParseRepository(%q): %v", tc.in, err)
			continue
		}
		if got != tc.want {
			t.Errorf("ParseRepository(%q) = %+v, want %+v", tc.in, got, tc.want)
		}
		if got.IsPath() != (tc.want.Path != "") {
			t.Errorf("ParseRepository(%q).IsPath() = %v", tc.in, got.IsPath())
		}
		if s := got.String(); s != tc.in {
			t.Errorf("ParseRepository(%q).String() = %q", tc.in, s)
		}
	}
}

func TestParseRepositoryRefuses(t *testing.T) {
	for _, tc := range []struct{ in, why string }{
		{"", "empty"},
		{"tank\n", "control"},
		{"ab", "3 to 32"},
		{strings.Repeat("x", 33), "3 to 32"},
		{strings.Repeat("x", 257), "longer than 256"},
		{"./" + strings.Repeat("x", 4095), "path longer"},
		{"-tank", "datastore name"},
		{"root@pam", "datastore name"},
		{"host:", "3 to 32"},
		{":tank", "host name"},
		{"@host:tank", "user or token"},
		{"root@host:tank", "NAME@REALM"},
		{"@pam@host:tank", "NAME@REALM"},
		{"a b@pam@host:tank", "no space"},
		{"root@p@host:tank", "realm"},
		{"root@pam!@host:tank", "token name"},
		{"root@pam!a!b@host:tank", "token name"},
		{"ho st:tank", "host name"},
		{"-host:tank", "begins with"},
		{"host:0:tank", "port"},
		{"host:65536:tank", "port"},
		{"host:+80:tank", "port"},
		{"host::tank", "port"},
		{"fd00::1:tank", "brackets"},
		{"[fd00::1:tank", "without"},
		{"[127.0.0.1]:tank", "no IPv6"},
		{"[fd00::1]8007:tank", `after "]"`},
		{"[::1]", "datastore name"},
		{"[fe80::1%a b]:tank", "interface"},
		{"[fe80::1%%]:tank", "interface"},
		{"[fe80::1%" + strings.Repeat("x", 16) + "]:tank", "interface"},
		{"sftp:backup@nas:/srv/repo", "mounted"},
		{"sftp://backup@nas/srv/repo", "no sftp://"},
		{"ssh://nas/srv/repo", "no ssh://"},
		{"backup@nas:/srv/repo", "mounted"},
		{"nas:/srv/repo", "mounted"},
		{"nas:srv/repo", "mounted"},
		{"user@pbs@host:/tank", "mounted"},
		{"rest:https://nas:8000/", "mounted"},
		{"s3:s3.amazonaws.com/bucket", "mounted"},
		{"s3://bucket/x", "no s3://"},
		{"b2:bucket:x/y", "mounted"},
		{"rclone:remote:x/y", "mounted"},
		{"smb://nas/share", "no smb://"},
		{"[fe80::1]:/x", "mounted"},
		{"file:///srv/backup", "as it is: /srv/backup"},
		{"https://root@pam!admin@127.0.0.1:8007/tank", "as root@pam!admin@127.0.0.1:8007:tank"},
		{"https://pbs.lan/tank/", "as pbs.lan:tank"},
		{"https://pbs.lan:8007", "no https://"},
		{`\\nas\share`, `no "\"`},
		{`D:\backup`, `no "\"`},
		{`back\up`, `no "\"`},
		{"~/backup", "no shell"},
		{"~anna/backup", "no shell"},
		{"$HOME/backup", "no shell"},
		{"${BACKUP}/x", "no shell"},
	} {
		r, err := ParseRepository(tc.in)
		if err == nil {
			t.Errorf("ParseRepository(%q) = %+v, want an error", tc.in, r)
			continue
		}
		if !errors.Is(err, ErrName) {
			t.Errorf("ParseRepository(%q): %v does not wrap ErrName", tc.in, err)
		}
		if !strings.Contains(err.Error(), tc.why) {
			t.Errorf("ParseRepository(%q): %v, want it to say %q", tc.in, err, tc.why)
		}
	}
}

func TestRepositoryStringOfBarePath(t *testing.T) {
	if got := (Repository{Path: "tank"}).String(); got != "./tank" {
		t.Errorf("String() = %q, want ./tank", got)
	}
}

func FuzzParseRepository(f *testing.F) {
	for _, s := range []string{"tank", "./x", "pbs.lan:8007:tank", "backup@pbs!tok@[fd00::1]:8007:tank", "[fe80::1%eth0]:tank", "[::]:0:abc", "a@b@c:d:tank"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseRepository(s)
		if err != nil {
			if !errors.Is(err, ErrName) {
				t.Fatalf("%q: %v does not wrap ErrName", s, err)
			}
			return
		}
		if r.IsPath() == (r.Datastore != "") {
			t.Fatalf("%q: %+v is neither a path nor a datastore, or both", s, r)
		}
		again, err := ParseRepository(r.String())
		if err != nil || again != r {
			t.Fatalf("%q: %+v, read again from %q: %+v, %v", s, r, r.String(), again, err)
		}
	})
}
