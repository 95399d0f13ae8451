package datastore_test

import (
	"errors"
	"fmt"
	"testing"

	"holdfast/datastore"
	"holdfast/datastore/wire"
)

// Many groups that were claimed and never filled do not keep their owners out;
// one with a snapshot, in the trash too, does.
func TestManyEmptyGroupsKeepNobodyOut(t *testing.T) {
	l := newLab(t)
	named := func(id string, time int64) wire.Snapshot {
		return wire.Snapshot{Group: wire.Group{Type: "vm", ID: id}, Time: time}
	}
	begin := func(s wire.Snapshot, owner wire.AuthID) error {
		ss, err := l.BeginSession(t.Context(), datastore.SessionOptions{Snapshot: s, Owner: owner, Foreign: true})
		if err == nil {
			err = ss.Close()
		}
		return err
	}
	full := l.foreign(named("full", 10), "mallory@pbs!t")
	l.finish(full)
	l.must(full.Close())
	thrown := l.foreign(named("thrown", 10), "mallory@pbs!t")
	l.finish(thrown)
	l.must(thrown.Close())
	l.must(begin(named("thrown", 20), "mallory@pbs!t"))
	l.must(l.Forget(t.Context(), named("thrown", 10)))
	for i := range 300 {
		id := fmt.Sprint(1000 + i)
		l.must(begin(named(id, 10), "mallory@pbs!t"))
		if i == 0 {
			is(t, "one empty group", begin(named(id, 10), "alice@pbs!t"), datastore.ErrOwner)
		}
	}
	for _, id := range []string{"1000", "1299"} {
		l.must(begin(named(id, 20), "alice@pbs!t"))
		if owner, err := l.Owner(named(id, 1).Group); err != nil || owner != "alice@pbs!t" {
			t.Errorf("owner of %s: %s, %v", id, owner, err)
		}
		if copies, err := l.Copies(named(id, 1).Group); err != nil || copies != "alice@pbs!t" {
			t.Errorf("copies of %s: %s, %v", id, copies, err)
		}
	}
	is(t, "a group with a snapshot", begin(named("full", 20), "alice@pbs!t"), datastore.ErrOwner)
	if _, err := l.Owner(named("thrown", 1).Group); err == nil {
		is(t, "a group with one in the trash", begin(named("thrown", 20), "alice@pbs!t"), datastore.ErrOwner)
	}
}

// Who may not write to a group is told so at once, even while its owner writes:
// the request has not had the group for a moment.
func TestAStrangerOccupiesNothing(t *testing.T) {
	l := newLab(t)
	l.store(at(10), "alice@pbs!t")
	ss := l.foreign(at(20), "alice@pbs!t")
	defer ss.Close()
	_, err := l.BeginSession(t.Context(), datastore.SessionOptions{Snapshot: at(30), Owner: "mallory@pbs!t", Foreign: true})
	if !errors.Is(err, datastore.ErrOwner) || errors.Is(err, wire.ErrBusy) {
		t.Errorf("%v, want the owner check to come first", err)
	}
}

// What is taken away while a snapshot is being finished counts.
func TestFinishAsksOnceMore(t *testing.T) {
	l := newLab(t)
	gone := errors.New("rights have gone")
	ss := l.begin(datastore.SessionOptions{Snapshot: at(10), Owner: "alice@pbs!t", Foreign: true, Allowed: func() error { return gone }})
	defer ss.Close()
	l.manifestOf(ss, l.image(ss, "disk.img.didx", "content"))
	is(t, "finish", ss.Finish(t.Context()), gone)
	if n, err := l.Count(group); n != 0 || err != nil {
		t.Errorf("%d snapshots, %v", n, err)
	}
}
