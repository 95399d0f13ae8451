package wire_test

import (
	"fmt"

	"holdfast/datastore/wire"
)

func ExampleParseRepository() {
	for _, s := range []string{"/srv/backup", "root@pam!web@backup.example.org:8007:tank", "tank", "https://backup.example.org"} {
		r, err := wire.ParseRepository(s)
		switch {
		case err != nil:
			fmt.Println("no repository:", s)
		case r.IsPath():
			fmt.Println("the directory", r.Path)
		default:
			fmt.Printf("datastore %q of host %q, as %q\n", r.Datastore, r.Host, r.AuthID)
		}
	}
	// Output:
	// the directory /srv/backup
	// datastore "tank" of host "backup.example.org", as "root@pam!web"
	// datastore "tank" of host "", as ""
	// no repository: https://backup.example.org
}

func ExampleParseSnapshot() {
	s, err := wire.ParseSnapshot("", "vm/100/2026-11-22T02:00:00Z")
	fmt.Println(s.Group.Type, s.Group.ID, s.Time, err)
	_, err = wire.ParseSnapshot("", "vm/../2026-11-22T02:00:00Z")
	fmt.Println("a name that leads elsewhere is refused:", err != nil)
	// Output:
	// vm 100 1795312800 <nil>
	// a name that leads elsewhere is refused: true
}
