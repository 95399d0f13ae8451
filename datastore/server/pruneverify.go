package server

import (
	"errors"
	"fmt"
	"slices"
	"strconv"

	"holdfast/chunkstore"
	"holdfast/datastore"
	"holdfast/datastore/access"
	"holdfast/datastore/prune"
	"holdfast/datastore/server/ledger"
	"holdfast/datastore/server/rest"
	"holdfast/datastore/task"
	"holdfast/datastore/verify"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
)

func (c *call) keep() prune.Keep {
	return prune.Keep{
		Last: int(c.Int("keep-last", 0)), Hourly: int(c.Int("keep-hourly", 0)), Daily: int(c.Int("keep-daily", 0)),
		Weekly: int(c.Int("keep-weekly", 0)), Monthly: int(c.Int("keep-monthly", 0)), Yearly: int(c.Int("keep-yearly", 0)),
	}
}

func pruneGroup(c *call) (any, error) {
	st, err := c.forGroup()
	if err != nil {
		return nil, err
	}
	if err := c.mayPruneNow(); err != nil {
		return nil, err
	}
	g, k := c.Group(), c.keep()
	if c.Bool("dry-run", false) {
		list, err := prune.Group(c.Context(), st, g, prune.Options{Keep: k, DryRun: true, Now: c.server.o.Now()})
		return pruneItems(g, list, true), err
	}
	if _, err := c.writable(); err != nil {
		return nil, err
	}
	if _, err := st.Owner(g); err != nil {
		return nil, err // a group that is not there makes no task
	}
	p := c.pruning(st)
	spec := task.Spec{Type: "prune", ID: fmt.Sprintf("%s:%s:%s", c.Str("store"), g.NS, g), Auth: c.auth}
	if c.Bool("use-task", false) {
		return c.spawn(st, spec, func(t *task.Task) error {
			_, err := p.group(t, g)
			return err
		})
	}
	job, err := c.server.accounts.Jobs.Try(c.payer, 1)
	if err != nil {
		return nil, err
	}
	defer job.Free()
	t, err := c.server.o.Tasks.Begin(c.Context(), spec)
	if err != nil {
		return nil, err
	}
	list, err := p.group(t, g)
	t.End(err)
	return pruneItems(g, list, false), err
}

func pruneItems(g wire.Group, list []prune.Decision, dry bool) []api.PruneItem {
	items := []api.PruneItem{}
	for _, d := range list {
		item := api.PruneItem{Type: g.Type, ID: g.ID, Time: d.Time, Keep: d.Keep, Protected: d.Protected}
		if dry {
			item.NS = string(g.NS)
		}
		items = append(items, item)
	}
	return items
}

var (
	_ prune.Walker = (*datastore.Store)(nil)
	_ prune.Walker = destroyer{}
)

// pruning is the pruning of groups within one task.
type pruning struct {
	server *Server
	st     *openStore
	keep   prune.Keep
	dry    bool
	now    bool                          // for good
	grant  func(ns wire.Namespace) grant // of who has begun it, in a namespace
}

// pruning is what the call asks for.
func (c *call) pruning(st *openStore) *pruning {
	p := &pruning{server: c.server, st: st, keep: c.keep(), dry: c.Bool("dry-run", false), now: c.Bool("now", false)}
	p.grant = func(ns wire.Namespace) grant {
		g := c.grantOn(ns)
		if p.now {
			g.owned = 0 // see mayPruneNow
		}
		return g
	}
	return p
}

// mayPruneNow refuses to remove for good, where that is asked for, unless the
// caller might also do so with what is in the trash.
func (c *call) mayPruneNow() error {
	if !c.Bool("now", false) {
		return nil
	}
	_, err := c.privilegesIn(c.Namespace(), c.may.Any)
	return err
}

// store is where snapshots of a namespace are removed.
func (p *pruning) store(ns wire.Namespace) prune.Store {
	to := p.st.Guarded(p.grant(ns).may)
	if p.now {
		return prune.ForGood(destroyer{to, p.st, p.server})
	}
	return to
}

// group prunes one group, if that may still be done, and logs what was decided.
func (p *pruning) group(t *task.Task, g wire.Group) ([]prune.Decision, error) {
	t.Logf("prune group %s of namespace '%s'", g, g.NS)
	if err := p.grant(g.NS).ask(p.st, g); err != nil {
		return nil, fmt.Errorf("prune %s: %w", g, err)
	}
	list, err := prune.Group(t.Context(), p.store(g.NS), g, prune.Options{
		Keep: p.keep, DryRun: p.dry, Now: p.server.o.Now(), Warn: func(err error) { t.Warnf("%v", err) },
	})
	for _, d := range list {
		word := "remove"
		if d.Keep {
			word = "keep"
		}
		t.Logf("%s %s (%s)", word, wire.Snapshot{Group: g, Time: d.Time}, d.Reason)
	}
	return list, err
}

// work is the set of groups that a task goes through: all in namespaces where the caller
// may do it with all, and elsewhere its own.
func (c *call) work(st *openStore) ([]wire.Group, error) {
	spaces, err := c.subtree(st, c.Namespace())
	if err != nil {
		return nil, err
	}
	var list []wire.Group
	for _, ns := range spaces {
		have, err := c.server.o.Access.Privileges(c.auth, access.DatastorePath(c.Str("store"), ns))
		if err != nil {
			return nil, err
		}
		groups, err := st.Groups(c.Context(), ns)
		if err != nil {
			return nil, err
		}
		for _, g := range groups {
			own := have.Any(c.may.Own) && c.auth.Owns(g.Owner)
			if have.Any(c.may.Any) || own {
				list = append(list, g.Group)
			}
		}
	}
	return list, nil
}

func pruneDatastore(c *call) (any, error) {
	if err := c.mayPruneNow(); err != nil {
		return nil, err
	}
	st, err := c.writable()
	if err != nil {
		return nil, err
	}
	groups, err := c.work(st)
	if err != nil {
		return nil, err
	}
	p := c.pruning(st)
	spec := task.Spec{Type: "prune", ID: fmt.Sprintf("%s:%s", c.Str("store"), c.Namespace())}
	return c.spawn(st, spec, func(t *task.Task) error {
		var full error
		for _, g := range groups {
			_, err := p.group(t, g)
			if t.Context().Err() != nil || over(err) {
				return err
			}
			if errors.Is(err, chunkstore.ErrNoSpace) {
				full = err
			} else if err != nil {
				t.Warnf("%v", err)
			}
		}
		return full
	})
}

// errVerification is how a verification that found damage ends.
var errVerification = wire.ErrVerification

func startVerify(c *call) (any, error) {
	if c.Bool("scrub", false) {
		return startScrub(c)
	}
	if c.Has("older-than") || c.Has("rate") {
		return nil, rest.BadRequest("parameters 'older-than' and 'rate' go with 'scrub' only")
	}
	spec, err := c.verifySpec()
	if err != nil {
		return nil, err
	}
	have, err := c.here()
	if err != nil {
		return nil, err
	}
	st, err := c.checkable()
	if err != nil {
		return nil, err
	}
	groups := []wire.Group{c.Group()}
	if !c.Has("backup-type") {
		groups, err = c.work(st)
	} else if !have.Any(c.may.Any) {
		err = c.owned(st, c.Group())
	}
	if err != nil {
		return nil, err
	}
	v := &verification{
		server: c.server, payer: c.payer, st: st, only: c.Int("backup-time", 0),
		ignore: c.Bool("ignore-verified", true), days: c.Int("outdated-after", -1), workers: int(c.Int("verify-threads", 0)),
		may: func(g wire.Group) error {
			return c.grantOn(g.NS).ask(st, g)
		},
	}
	return c.spawn(st, spec, func(t *task.Task) error { return v.run(t, groups) })
}

// verifySpec names the task by what is to be verified.
func (c *call) verifySpec() (task.Spec, error) {
	store, ns := c.Str("store"), workerNamespace(c.Namespace())
	typ, id, when := c.Has("backup-type"), c.Has("backup-id"), c.Has("backup-time")
	switch {
	case typ && id && when:
		return task.Spec{Type: "verify_snapshot", ID: fmt.Sprintf("%s:%s/%s/%08X", store, ns, c.Group(), c.Int("backup-time", 0))}, nil
	case typ && id:
		return task.Spec{Type: "verify_group", ID: fmt.Sprintf("%s:%s/%s", store, ns, c.Group())}, nil
	case typ || id || when:
		return task.Spec{}, rest.BadRequest("parameters do not specify a backup group or snapshot")
	case ns == "":
		return task.Spec{Type: "verify", ID: store}, nil
	}
	return task.Spec{Type: "verify", ID: store + ":" + ns}, nil
}

// verification is the verifying of groups within one task.
type verification struct {
	server  *Server
	payer   ledger.Payer
	st      *openStore
	only    int64 // time of the one snapshot, 0 for all
	ignore  bool  // leaves out what was verified
	days    int64 // after which a verification is outdated, below 0 for never
	workers int
	// may asks whether who has begun it may still verify a group; nil if that is the
	// server.
	may func(wire.Group) error
}

func (v *verification) run(t *task.Task, groups []wire.Group) error {
	done, err := v.server.verifyTurn(t, v.payer)
	if err != nil {
		return err
	}
	defer done()
	checker := verify.New(verify.Options{Source: v.st, Workers: v.workers})
	failed := 0
	for i, g := range groups {
		t.Logf("verify group %s of namespace '%s' (%d of %d)", g, g.NS, i+1, len(groups))
		n, err := v.group(t, checker, g)
		if err != nil {
			return err
		}
		failed += n
	}
	if failed > 0 {
		t.Logf("%d snapshots are damaged or could not be verified", failed)
		return errVerification
	}
	return nil
}

// waiting is a snapshot that is to be verified.
type waiting struct {
	snap    wire.Snapshot
	undated bool
}

// group verifies the snapshots of a group, the newest first.
func (v *verification) group(t *task.Task, checker *verify.Verifier, g wire.Group) (failed int, err error) {
	var list []waiting
	err = v.st.EachSnapshot(t.Context(), g, func(s wire.SnapshotInfo) error {
		if v.due(s) {
			list = append(list, waiting{s.Snapshot, s.Undated})
		}
		return nil
	})
	if err != nil {
		t.Logf("%s: %v", g, err) // it may have gone
		return 0, t.Context().Err()
	}
	for _, w := range slices.Backward(list) {
		if err := v.still(g); over(err) {
			return failed, err
		} else if err != nil {
			t.Warnf("group %s: %v", g, err)
			return failed, nil
		}
		if w.undated {
			t.Warnf("%s: %v", w.snap, datastore.ErrArrival)
		}
		ok, err := v.snapshot(t, checker, w.snap)
		if t.Context().Err() != nil {
			return failed, t.Context().Err()
		}
		if err != nil {
			t.Logf("%s: %v", w.snap, err)
		}
		if !ok {
			failed++
		}
	}
	return failed, nil
}

// still asks for the rights to verify a group.
func (v *verification) still(g wire.Group) error {
	if v.may == nil {
		return nil
	}
	return v.may(g)
}

// due reports whether a snapshot is to be verified: always if the last time
// something was found.
func (v *verification) due(s wire.SnapshotInfo) bool {
	if v.only != 0 && s.Snapshot.Time != v.only {
		return false
	}
	if !v.ignore || s.Verify == nil || s.Verify.State != wire.VerifyOK {
		return true
	}
	upid, err := wire.ParseUPID(s.Verify.UPID)
	if err != nil {
		return true
	}
	const day = 24 * 60 * 60
	age := v.server.o.Now().Unix() - upid.Start
	// One that has not been yet was made while a clock was ahead: nobody knows when.
	return age < -wire.SkewMax || v.days >= 0 && age > v.days*day
}

// snapshot verifies one snapshot and writes down the result.
func (v *verification) snapshot(t *task.Task, checker *verify.Verifier, snap wire.Snapshot) (ok bool, err error) {
	t.Logf("verify %s", snap)
	r, err := checker.Snapshot(t.Context(), snap)
	if err != nil {
		return false, err
	}
	for _, p := range r.Problems {
		t.Logf("  %s at %s: %v", p.File, strconv.FormatUint(p.Off, 10), p.Err)
	}
	t.Logf("  %d archives, %d chunks, %d bytes, %d problems", r.Archives, r.Chunks, r.Bytes, r.Count)
	state := wire.VerifyState{State: wire.VerifyOK, UPID: t.UPID().String()}
	if !r.OK() {
		state.State = wire.VerifyFailed
	}
	if v.st.frozen != nil {
		return r.OK(), nil // it is in the log
	}
	return r.OK(), v.st.SetVerifyState(t.Context(), snap, state)
}
