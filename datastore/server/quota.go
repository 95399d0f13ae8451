package server

import (
	"holdfast/datastore/access"
	"holdfast/datastore/server/rest"
	"holdfast/datastore/wire/api"
)

// listQuotas shows a caller its own quotas, and all of them to who may see
// the configuration.
func listQuotas(c *call) (any, error) {
	everybody, err := c.seesAll()
	if err != nil {
		return nil, err
	}
	all, err := c.server.o.Access.Quotas()
	if err != nil {
		return nil, err
	}
	list := []api.QuotaItem{}
	for _, q := range all {
		mine := q.Subject == string(c.auth) || q.Subject == string(c.auth.User())
		if !mine && !everybody || c.Has("subject") && q.Subject != c.Str("subject") {
			continue
		}
		list = append(list, api.QuotaItem(q))
	}
	c.top("digest", c.server.o.Access.Digest())
	return list, nil
}

// setQuota changes the bounds that are named and leaves the others as they are.
// It answers with the quota that counts from now on.
func setQuota(c *call) (any, error) {
	if err := c.digestMatches(); err != nil {
		return nil, err
	}
	if !c.Has(api.QuotaBytes) && !c.Has(api.QuotaSnapshots) {
		return nil, rest.BadRequest("want '%s' or '%s'", api.QuotaBytes, api.QuotaSnapshots)
	}
	q, err := c.server.o.Access.ChangeQuota(c.Str("subject"), func(q *access.Quota) {
		q.BytesMax = uint64(c.Int(api.QuotaBytes, int64(q.BytesMax)))
		q.SnapshotsPerDay = uint32(c.Int(api.QuotaSnapshots, int64(q.SnapshotsPerDay)))
	})
	return api.QuotaItem(q), err
}

func removeQuota(c *call) (any, error) {
	if err := c.digestMatches(); err != nil {
		return nil, err
	}
	return nil, missing(c.server.o.Access.RemoveQuota(c.Str("subject")))
}
