package server

import (
	"errors"
	"fmt"
	"reflect"
	"testing"

	"holdfast/datastore/server/ledger"
)

// resources are all that callers take from, by name.
func (a *accounts) resources() map[string]*ledger.Resource {
	all := make(map[string]*ledger.Resource)
	v := reflect.ValueOf(a).Elem()
	for i := range v.NumField() {
		if r, ok := reflect.NewAt(v.Field(i).Type(), v.Field(i).Addr().UnsafePointer()).Elem().Interface().(*ledger.Resource); ok {
			all[v.Type().Field(i).Name] = r
		}
	}
	return all
}

// hog takes all that one user can, through several tokens, and returns what it has.
func hog(t *testing.T, r *ledger.Resource) (held []*ledger.Hold) {
	t.Helper()
	for i := range 8 {
		p := ledger.Payer{Account: fmt.Sprint("mallory@pbs!t", i), Holder: "mallory@pbs"}
		if n := r.Left(p); n > 0 {
			h, err := r.Try(p, n)
			if err != nil {
				t.Fatal(err)
			}
			held = append(held, h)
		}
		if _, err := r.Try(p, 1); !errors.Is(err, ledger.ErrShare) && !errors.Is(err, ledger.ErrFull) {
			t.Errorf("%s: one more: %v", r.Limit().Name, err)
		}
	}
	return held
}

// For every resource of the ledger: one caller takes all it can, and ten others still log
// in, back up and restore while it holds that. The administrator has a part of what is
// there after all of them.
func TestOneCallerTakesAllItCan(t *testing.T) {
	l := newSessionLab(t)
	const others = 10
	for i := range others {
		l.user(fmt.Sprint("u", i), "DatastoreBackup")
	}
	n := 0
	run := func(t *testing.T) {
		for i := range others {
			n++
			user, group := fmt.Sprint("u", i), fmt.Sprint("vm/", 1000+n)
			list := l.simple(user, group, 1000)
			k := l.begin(readerOf(user, group, 1000))
			k.raw(get("/download", "file-name", "disk.img.didx"))
			k.raw(get("/chunk", "digest", list[0].bit.id))
			k.conn.Close()
		}
	}
	all := l.server.accounts.resources()
	if len(all) < 15 {
		t.Fatalf("only %d resources were found", len(all))
	}
	var everything []*ledger.Hold
	for name, r := range all {
		held := hog(t, r)
		everything = append(everything, held...)
		taken := int64(0)
		for _, h := range held {
			taken += h.Size()
		}
		if most := r.Limit().Total - r.Limit().Kept; taken >= r.Limit().Total || taken < 1 || taken > most {
			t.Errorf("%s: one caller has %d of %d", name, taken, r.Limit().Total)
		}
		if left := r.Left(ledger.Payer{Account: "root@pam", Admin: true}); left < 1 {
			t.Errorf("%s: nothing is left for the administrator", name)
		}
	}
	run(t) // with all of them taken at once
	for _, h := range everything {
		h.Free()
	}
}
