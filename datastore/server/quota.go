package server

import (
	"net/http"

	"holdfast/datastore/access"
	"holdfast/datastore/server/rest"
	"holdfast/datastore/wire/api"
)

// The bounds of a quota; 0 is none.
const (
	quotaBytes     = "bytes-max"
	quotaSnapshots = "snapshots-per-day"
)

func quotaMethods() []method {
	const path = "/access/quota"
	subject := api.Param{Name: "subject", Check: api.CheckComment}
	number := func(name string, most int64) api.Param {
		return api.Param{Name: name, Kind: api.Integer, Optional: true, Check: api.Within(0, most)}
	}
	return []method{
		{Verb: http.MethodGet, Path: path, Params: []api.Param{api.Opt(subject)}, Do: listQuotas},
		{Verb: http.MethodPut, Path: path, Do: setQuota,
			Params: []api.Param{subject, number(quotaBytes, 1<<62), number(quotaSnapshots, 1<<31), api.DigestParam}},
		{Verb: http.MethodDelete, Path: path, Params: []api.Param{subject, api.DigestParam}, Do: removeQuota},
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
		if !mine && !have.Any(api.SysAudit|api.PermissionsModify) || c.Has("subject") && q.Subject != c.Str("subject") {
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
	if err := c.require("/access", api.PermissionsModify); err != nil {
		return nil, err
	}
	if err := c.digestMatches(); err != nil {
		return nil, err
	}
	if !c.Has(quotaBytes) && !c.Has(quotaSnapshots) {
		return nil, rest.BadRequest("want '%s' or '%s'", quotaBytes, quotaSnapshots)
	}
	return c.server.o.Access.ChangeQuota(c.Str("subject"), func(q *access.Quota) {
		q.BytesMax = uint64(c.Int(quotaBytes, int64(q.BytesMax)))
		q.SnapshotsPerDay = uint32(c.Int(quotaSnapshots, int64(q.SnapshotsPerDay)))
	})
}

func removeQuota(c *call) (any, error) {
	if err := c.require("/access", api.PermissionsModify); err != nil {
		return nil, err
	}
	if err := c.digestMatches(); err != nil {
		return nil, err
	}
	return nil, missing(c.server.o.Access.RemoveQuota(c.Str("subject")))
}
