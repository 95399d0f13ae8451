// Package worker does the steps of a script on an open repository, for the agent
// and for tests that have to be in the middle of one. It promises nothing but to do
// what lab.Request says.
//
// It imports crypto, client/backup, datastore with its rooms gc and wire, and
// tests/faultlab/lab.
package worker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"holdfast/client/backup"
	"holdfast/crypto"
	"holdfast/datastore"
	"holdfast/datastore/gc"
	"holdfast/datastore/wire"
	"holdfast/tests/faultlab/lab"
)

// Losing is a backup during which all packs vanish, after the last question and
// before the snapshot is finished.
const Losing = "losing backup"

// Worker is an open repository.
type Worker struct {
	Store *datastore.Store
	Key   *crypto.Key
}

// Open opens a repository and reads a key that needs no passphrase.
func Open(ctx context.Context, path, keyfile string) (*Worker, error) {
	b, err := os.ReadFile(keyfile)
	if err != nil {
		return nil, err
	}
	f, err := crypto.DecodeKeyFile(b)
	if err != nil {
		return nil, err
	}
	key, err := f.Unlock(nil)
	if err != nil {
		return nil, err
	}
	s, err := datastore.Open(ctx, path, datastore.Options{})
	return &Worker{s, key}, err
}

// Do does one step. It may run beside others.
func (w *Worker) Do(ctx context.Context, r lab.Request) error {
	if r.Kind == lab.GC {
		_, err := gc.Collect(ctx, w.Store, gc.Options{AllowEmpty: true})
		return err
	}
	snap, err := wire.ParseSnapshot("", r.Name)
	if err != nil {
		return err
	}
	switch r.Kind {
	case lab.Backup:
		return w.backup(ctx, insisting{w.Store}, snap, r.Sources)
	case Losing:
		return w.backup(ctx, losing{w.Store}, snap, r.Sources)
	case lab.Forget:
		return w.Store.Forget(ctx, snap)
	case lab.ForgetNow:
		return w.Store.ForgetNow(ctx, snap)
	case lab.Undelete:
		return w.Store.RestoreDeleted(ctx, snap)
	case lab.Notes:
		return w.Store.SetNotes(ctx, snap, r.Text)
	}
	return fmt.Errorf("request %q is not known", r.Kind)
}

func (w *Worker) backup(ctx context.Context, to wire.Target, snap wire.Snapshot, sources []string) error {
	o := backup.Options{Target: to, Snapshot: snap, Key: w.Key, Mode: crypto.ModeEncrypt, Workers: 1}
	for _, text := range sources {
		archive, err := backup.ParseArchive(text)
		if err != nil {
			return err
		}
		o.Archives = append(o.Archives, archive)
	}
	_, err := backup.Run(ctx, o)
	return err
}

// insisting is a store whose sessions are asked once more when they could not be
// finished, as clients may.
type insisting struct{ *datastore.Store }

// Begin implements wire.Target.
func (i insisting) Begin(ctx context.Context, snap wire.Snapshot) (wire.Session, error) {
	s, err := i.BeginSession(ctx, datastore.SessionOptions{Snapshot: snap})
	if err != nil {
		return nil, err
	}
	return insistingSession{s}, nil
}

type insistingSession struct{ *datastore.Session }

// Finish implements wire.Session.
func (s insistingSession) Finish(ctx context.Context) error {
	err := s.Session.Finish(ctx)
	if err == nil {
		return nil
	}
	if again := s.Session.Finish(ctx); again != nil {
		return errors.Join(err, again)
	}
	return nil
}

// losing is a store that loses its packs before a session is finished.
type losing struct{ *datastore.Store }

// Begin implements wire.Target.
func (l losing) Begin(ctx context.Context, snap wire.Snapshot) (wire.Session, error) {
	s, err := l.BeginSession(ctx, datastore.SessionOptions{Snapshot: snap})
	if err != nil {
		return nil, err
	}
	return &losingSession{s, l.Path()}, nil
}

type losingSession struct {
	*datastore.Session
	path string
}

// Finish implements wire.Session.
func (s *losingSession) Finish(ctx context.Context) error {
	packs, err := filepath.Glob(filepath.Join(s.path, ".chunks", "packs", "*"))
	if err != nil {
		return err
	}
	for _, p := range packs {
		if err := os.Remove(p); err != nil {
			return err
		}
	}
	return s.Session.Finish(ctx)
}
