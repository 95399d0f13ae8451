package server

import (
	"context"
	"fmt"
	"strings"

	"holdfast/datastore"
	"holdfast/datastore/access"
)

// reserve finds the quotas that a session is under and what is used of them.
func (s *Server) reserve(c *call, daily bool) (*reservation, error) {
	all, err := s.o.Access.Quotas()
	if err != nil {
		return nil, err
	}
	var bounds []bound
	for _, q := range all {
		if !applies(q.Subject, c.auth, access.DatastorePath(c.Str("store"), c.Namespace())) {
			continue
		}
		b := bound{Quota: q, settled: s.host.quotas.settled(q.Subject)}
		if q.BytesMax > 0 {
			if b.used, err = s.usedBy(c.Context(), q.Subject); err != nil {
				return nil, fmt.Errorf("quota of %s: %w", q.Subject, err)
			}
		}
		bounds = append(bounds, b)
	}
	r, err := s.host.quotas.begin(terms{bounds: bounds, store: c.Str("store"), daily: daily})
	if err != nil {
		return nil, err
	}
	if err := r.charge(0); err != nil {
		r.end(false)
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
		relevant := below(subject, path) || below(path, subject) || !strings.HasPrefix(subject, "/")
		if !relevant || maintenance(d, false) != nil {
			continue
		}
		n, err := s.usedIn(ctx, d.Name, subject)
		if ctx.Err() != nil {
			return 0, err
		}
		if err != nil {
			// Its disk may be away: that is no reason to refuse backups elsewhere.
			n = s.host.quotas.remembered(subject, d.Name)
			s.o.Log.Warn("a quota counts what a datastore held before", "datastore", d.Name, "subject", subject, "bytes", n, "error", err)
		} else {
			s.host.quotas.remember(subject, d.Name, n)
		}
		total = sum(total, n)
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
		if applies(subject, u.Owner, access.DatastorePath(name, u.Snapshot.Group.NS)) {
			total = sum(total, u.Bytes)
		}
		return nil
	})
	return total, err
}
