package server

import (
	"net/http"

	"holdfast/datastore/access"
)

// The bounds of a quota; 0 is none.
const (
	quotaBytes     = "bytes-max"
	quotaSnapshots = "snapshots-per-day"
)

func quotaMethods() []method {
	const path = "/access/quota"
	subject := param{name: "subject", check: checkComment}
	number := func(name string, most int64) param {
		return param{name: name, kind: integer, optional: true, check: within(0, most)}
	}
	return []method{
		{verb: http.MethodGet, path: path, params: []param{opt(subject)}, do: listQuotas},
		{verb: http.MethodPut, path: path, do: setQuota,
			params: []param{subject, number(quotaBytes, 1<<62), number(quotaSnapshots, 1<<31), digestParam}},
		{verb: http.MethodDelete, path: path, params: []param{subject, digestParam}, do: removeQuota},
	}
}

// listQuotas shows a caller its own quotas, and all of them to who may see
// the configuration.
func listQuotas(c *call) (any, error) {
	have, err := c.server.o.Access.Privileges(c.auth, "/access")
	if err != nil {
		return nil, err
	}
	all, err := c.server.o.Access.Quotas()
	if err != nil {
		return nil, err
	}
	list := []access.Quota{}
	for _, q := range all {
		mine := q.Subject == string(c.auth) || q.Subject == string(c.auth.User())
		if !mine && !have.Any(access.SysAudit|access.PermissionsModify) || c.has("subject") && q.Subject != c.str("subject") {
			continue
		}
		list = append(list, q)
	}
	c.top("digest", c.server.o.Access.Digest())
	return list, nil
}

// setQuota changes the bounds that are named and leaves the others as they are.
// It answers with the quota that counts from now on.
func setQuota(c *call) (any, error) {
	if err := c.require("/access", access.PermissionsModify); err != nil {
		return nil, err
	}
	if err := c.digestMatches(); err != nil {
		return nil, err
	}
	if !c.has(quotaBytes) && !c.has(quotaSnapshots) {
		return nil, badRequest("want '%s' or '%s'", quotaBytes, quotaSnapshots)
	}
	return c.server.o.Access.ChangeQuota(c.str("subject"), func(q *access.Quota) {
		q.BytesMax = uint64(c.int(quotaBytes, int64(q.BytesMax)))
		q.SnapshotsPerDay = uint32(c.int(quotaSnapshots, int64(q.SnapshotsPerDay)))
	})
}

func removeQuota(c *call) (any, error) {
	if err := c.require("/access", access.PermissionsModify); err != nil {
		return nil, err
	}
	if err := c.digestMatches(); err != nil {
		return nil, err
	}
	return nil, missing(c.server.o.Access.RemoveQuota(c.str("subject")))
}
