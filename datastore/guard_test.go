package datastore_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"holdfast/chunkstore"
	"holdfast/datastore"
	"holdfast/datastore/wire"
)

// Whoever guards a change is asked while nobody else can change the group, and what is
// refused changes nothing.
func TestGuardsAreAskedInsideTheLockOfTheChange(t *testing.T) {
	refusal := errors.New("not yours any more")
	log := seal(t, plainCodec(t), "a log").Blob
	for name, change := range map[string]func(ctx context.Context, to datastore.Guarded, snap wire.Snapshot) error{
		"SetOwner": func(ctx context.Context, to datastore.Guarded, s wire.Snapshot) error {
			return to.SetOwner(ctx, s.Group, "eve@pbs")
		},
		"SetGroupNotes": func(ctx context.Context, to datastore.Guarded, s wire.Snapshot) error {
			return to.SetGroupNotes(ctx, s.Group, "x")
		},
		"SetNotes": func(ctx context.Context, to datastore.Guarded, s wire.Snapshot) error {
			return to.SetNotes(ctx, s, "x")
		},
		"SetProtected": func(ctx context.Context, to datastore.Guarded, s wire.Snapshot) error {
			return to.SetProtected(ctx, s, true)
		},
		"AddLog": func(ctx context.Context, to datastore.Guarded, s wire.Snapshot) error {
			return to.AddLog(ctx, s, log)
		},
		"Forget":    func(ctx context.Context, to datastore.Guarded, s wire.Snapshot) error { return to.Forget(ctx, s) },
		"ForgetNow": func(ctx context.Context, to datastore.Guarded, s wire.Snapshot) error { return to.ForgetNow(ctx, s) },
		"ForgetGroup": func(ctx context.Context, to datastore.Guarded, s wire.Snapshot) error {
			_, err := to.ForgetGroup(ctx, s.Group)
			return err
		},
		"RestoreDeleted": func(ctx context.Context, to datastore.Guarded, s wire.Snapshot) error {
			return to.RestoreDeleted(ctx, wire.Snapshot{Group: s.Group, Time: 1000})
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			l.store(at(1000), "alice@pbs")
			l.store(at(2000), "alice@pbs")
			if err := l.Forget(t.Context(), at(1000)); err != nil {
				t.Fatal(err)
			}
			before := l.state()
			asked := 0
			guard := func(answer error) datastore.Guard {
				return func(owner func() (wire.AuthID, error)) error {
					asked++
					if id, err := owner(); err != nil && !errors.Is(err, chunkstore.ErrNotExist) || err == nil && id != "alice@pbs" {
						t.Errorf("the guard is told that the group is %s's, %v", id, err)
					}
					if !l.Store.Changing(group) {
						t.Error("asked while others may change the group")
					}
					return answer
				}
			}
			if err := change(t.Context(), l.Guarded(guard(refusal)), at(2000)); !errors.Is(err, refusal) {
				t.Errorf("refused: %v", err)
			}
			if after := l.state(); after != before {
				t.Errorf("what was refused has changed\n%s to\n%s", before, after)
			}
			if err := change(t.Context(), l.Guarded(guard(nil)), at(2000)); err != nil {
				t.Errorf("allowed: %v", err)
			}
			if after := l.state(); after == before {
				t.Error("what was allowed has changed nothing")
			}
			if asked < 2 {
				t.Errorf("asked %d times", asked)
			}
		})
	}
}

// state is all that there is of the group.
func (l *lab) state() string {
	l.t.Helper()
	owner, err := l.Owner(group)
	if errors.Is(err, chunkstore.ErrNotExist) {
		return "gone"
	}
	notes, notesErr := l.GroupNotes(group)
	list, listErr := l.Snapshots(l.t.Context(), group)
	gone, goneErr := l.Deleted(l.t.Context())
	if err := errors.Join(err, notesErr, listErr, goneErr); err != nil {
		l.t.Fatal(err)
	}
	text := fmt.Sprintf("%s %q %d in the trash", owner, notes, len(gone))
	for _, s := range list {
		text += fmt.Sprintf("; %s %q %v %v", s.Snapshot, s.Notes, s.Protected, s.Extra)
	}
	return text
}
