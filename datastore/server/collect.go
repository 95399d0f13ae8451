package server

import (
	"errors"
	"fmt"
	"time"

	"holdfast/datastore"
	"holdfast/datastore/gc"
	"holdfast/datastore/server/rest"
	"holdfast/datastore/task"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
)

// gcStatusOf translates a report. Packs are mended or left, never removed for
// being bad.
func gcStatusOf(r gc.Report) api.GCStatus {
	s := api.GCStatus{
		IndexFileCount: uint64(r.Indexes), IndexDataBytes: r.IndexBytes,
		DiskBytes: r.UsedBytes, DiskChunks: r.UsedChunks, RemovedChunks: r.ChunksRemoved,
		StillBad: uint64(len(r.Left)),
	}
	if r.BytesRemoved > r.BytesMoved {
		s.RemovedBytes = r.BytesRemoved - r.BytesMoved
	}
	if gone := r.UsedChunks + r.ChunksRemoved; r.Chunks > gone {
		s.PendingChunks = r.Chunks - gone
		s.PendingBytes = r.StoredBytes - min(r.StoredBytes, r.UsedBytes+s.RemovedBytes)
	}
	return s
}

func startCollection(c *call) (any, error) {
	st, err := c.writable()
	if err != nil {
		return nil, err
	}
	name, s := c.Str("store"), c.server
	if !s.gc.begin(name) {
		return nil, rest.Refuse(wire.ErrBusy, "garbage collection of datastore '%s' is running already", name)
	}
	o := gc.Options{DryRun: c.Bool("dry-run", false), AllowEmpty: c.Bool("allow-empty", false), Progress: new(gc.Progress)}
	upid, err := c.spawn(st, task.Spec{Type: "garbage_collection", ID: name}, func(t *task.Task) error {
		return s.collect(t, st.Store, o)
	})
	if err != nil {
		s.gc.end(name, nil)
		return nil, err
	}
	return upid, nil
}

// collect runs a collection and notes how it went.
func (s *Server) collect(t *task.Task, st *datastore.Store, o gc.Options) error {
	name := t.UPID().ID
	done := &api.Collection{State: "unknown"}
	defer func() { s.gc.end(name, done) }()
	t.Logf("collect the garbage of datastore '%s'", name)
	begin := s.o.Now()
	mark := s.host.quotas.Mark()
	stop := followCollection(t, o.Progress)
	report, err := gc.Collect(t.Context(), st, o)
	stop()
	if errors.Is(err, gc.ErrNothingFound) {
		report = onlyFound(report)
	}
	describeCollection(t, report, collected{dry: o.DryRun, err: err})
	end := s.o.Now()
	if o.DryRun {
		done = nil // what the last one has done stays
		return err
	}
	if err == nil {
		s.host.quotas.Collected(name, mark)
	}
	upid, took := t.UPID().String(), int64(end.Sub(begin).Seconds())
	done = &api.Collection{GCStatus: gcStatusOf(report), State: "OK", End: end.Unix(), Duration: &took}
	done.UPID = &upid
	if err != nil {
		done.State = rest.Clip(err.Error())
	}
	return err
}

// followPace is how often a running task tells how far it is.
const followPace = 10 * time.Second

// followCollection writes down how far a collection is until stop is called.
func followCollection(t *task.Task, p *gc.Progress) (stop func()) {
	return follow(t, func() string {
		return fmt.Sprintf("read %d of %d indexes, swept %d of %d packs", p.IndexesRun.Load(), p.Indexes.Load(), p.PacksDone.Load(), p.Packs.Load())
	})
}

// follow writes down how far the work of a task is until stop is called.
func follow(t *task.Task, state func() string) (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(followPace)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
				t.Logf("%s", state())
			}
		}
	}()
	return func() {
		close(quit)
		<-done
	}
}

// collected is how a collection has ended.
type collected struct {
	dry bool
	err error
}

// onlyFound leaves of a report what was found: a collection that was refused has
// counted what it would have done.
func onlyFound(r gc.Report) gc.Report {
	r.PacksTotal, r.PacksDone, r.PacksRemoved, r.PacksRewritten, r.Left = 0, 0, 0, 0, nil
	r.ChunksRemoved, r.BytesRemoved, r.ChunksMoved, r.BytesMoved, r.GarbageBytes = 0, 0, 0, 0, 0
	return r
}

// describeCollection writes down what a collection has found and done. One that
// has failed may have come to neither.
func describeCollection(t *task.Task, r gc.Report, c collected) {
	if !c.dry {
		t.Logf("from the trash %s gone for good", plural(uint64(r.TrashRemoved), "snapshot has", "snapshots have"))
	}
	if c.err == nil || r.Indexes > 0 {
		t.Logf("%s of archives of %s, %d of them in the trash, with %s to chunks", plural(uint64(r.Indexes), "index", "indexes"),
			size(r.IndexBytes), r.Deleted, plural(r.References, "reference", "references"))
	}
	if c.err != nil && r.Chunks == 0 {
		t.Logf("no chunk was removed")
		return
	}
	t.Logf("stored: %s of %s, in use: %d of %s", plural(r.Chunks, "chunk", "chunks"), size(r.StoredBytes), r.UsedChunks, size(r.UsedBytes))
	verb := "removed"
	if c.dry {
		verb = "would be removed"
	}
	if !c.dry || c.err == nil {
		t.Logf("%s %s: %s removed whole, %d rewritten, %s for %s written again", plural(r.ChunksRemoved, "chunk", "chunks"), verb,
			plural(uint64(r.PacksRemoved), "pack", "packs"), r.PacksRewritten, size(r.BytesRemoved), size(r.BytesMoved))
	}
	if c.err == nil {
		t.Logf("garbage that stays in packs with little of it: %s", size(r.GarbageBytes))
	}
	for _, why := range r.Left {
		t.Warnf("%s", why)
	}
}

func collectionStatus(c *call) (any, error) {
	if _, err := c.store(); err != nil {
		return nil, err
	}
	return c.server.gc.last(c.Str("store")), nil
}

// spawn runs work on a datastore as a task of the caller, and returns its UPID.
// The datastore is held until the work has ended.
func (c *call) spawn(st *openStore, spec task.Spec, work func(*task.Task) error) (string, error) {
	spec.Auth = c.auth
	job, err := c.server.accounts.Jobs.Try(c.payer, 1)
	if err != nil {
		return "", err
	}
	st.users.Add(1)
	upid, err := c.server.o.Tasks.Go(spec, func(t *task.Task) error {
		defer job.Free()
		defer st.release()
		return work(t)
	})
	if err != nil {
		job.Free()
		st.release()
		return "", err
	}
	return upid.String(), nil
}

// workerNamespace is how a worker id names a namespace: as the directories of
// the datastore are called.
func workerNamespace(ns wire.Namespace) string {
	text := ""
	for _, c := range ns.Components() {
		text += "/ns/" + c
	}
	if text == "" {
		return ""
	}
	return text[1:]
}
