package server

import (
	"context"
	"fmt"
	"strings"

	"holdfast/datastore"
	"holdfast/datastore/access"
	"holdfast/datastore/server/quota"
)

// reserve finds the quotas that a session, or a log, is under and what is used of them, and
// charges them with one small file.
func (s *Server) reserve(c *call, daily bool) (*quota.Reservation, error) {
	all, err := s.o.Access.Quotas()
	if err != nil {
		return nil, err
	}
	var bounds []quota.Bound
	for _, q := range all {
		if !quota.Applies(q.Subject, c.auth, access.DatastorePath(c.Str("store"), c.Namespace())) {
			continue
		}
		b := quota.Bound{Quota: q, Settled: s.host.quotas.Settled(q.Subject)}
		if q.BytesMax > 0 {
			if b.Used, err = s.usedBy(c.Context(), q.Subject); err != nil {
				return nil, fmt.Errorf("quota of %s: %w", q.Subject, err)
			}
		}
		bounds = append(bounds, b)
	}
	r, err := s.host.quotas.Begin(quota.Terms{Bounds: bounds, Store: c.Str("store"), Daily: daily})
	if err != nil {
		return nil, err
	}
	if err := r.Charge(datastore.FileBytes); err != nil { // that says when it arrived
		r.End(false)
		return nil, err
	}
	return r, nil
}

// usedBy sums what all snapshots count that are under a quota.
func (s *Server) usedBy(ctx context.Context, subject string) (uint64, error) {
	all, err := s.o.Access.Datastores()
	if err != nil {
		return 0, err
	}
	var total uint64
	for _, d := range all {
		path := access.DatastorePath(d.Name, "")
		relevant := quota.Below(subject, path) || quota.Below(path, subject) || !strings.HasPrefix(subject, "/")
		if !relevant || maintenance(d, false) != nil {
			continue
		}
		n, err := s.usedIn(ctx, d.Name, subject)
		if ctx.Err() != nil {
			return 0, err
		}
		if err != nil {
			// Its disk may be away: that is no reason to refuse backups elsewhere.
			n = s.host.quotas.Remembered(subject, d.Name)
			s.o.Log.Warn("a quota counts what a datastore held before", "datastore", d.Name, "subject", subject, "bytes", n, "error", err)
		} else {
			s.host.quotas.Remember(subject, d.Name, n)
		}
		total = quota.Sum(total, n)
	}
	return total, nil
}

func (s *Server) usedIn(ctx context.Context, name, subject string) (total uint64, err error) {
	st, err := s.use(name)
	if err != nil {
		return 0, err
	}
	defer st.release()
	err = st.EachUsage(ctx, func(u datastore.Usage) error {
		if quota.Applies(subject, u.Owner, access.DatastorePath(name, u.Snapshot.Group.NS)) {
			total = quota.Sum(total, u.Bytes)
		}
		return nil
	})
	return total, err
}
