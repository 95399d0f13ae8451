package server

import (
	"net/http"

	"holdfast/datastore/access"
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
			params: []param{subject, number("bytes-max", 1<<62), number("snapshots-per-day", 1<<31), digestParam}},
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

func setQuota(c *call) (any, error) {
	if err := c.require("/access", access.PermissionsModify); err != nil {
		return nil, err
	}
	if err := c.digestMatches(); err != nil {
		return nil, err
	}
	return nil, c.server.o.Access.SetQuota(access.Quota{
		Subject: c.str("subject"), BytesMax: uint64(c.int("bytes-max", 0)), SnapshotsPerDay: uint32(c.int("snapshots-per-day", 0)),
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
