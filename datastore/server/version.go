package server

import (
	"net/http"

	"holdfast/datastore/access"
)

// The version that the protocol is spoken in: other servers and clients choose
// by it what to ask for.
const (
	protocolVersion = "3.4"
	protocolRelease = "1"
)

func versionMethods() []method {
	return []method{
		{verb: http.MethodGet, path: "/version", do: getVersion},
		{verb: http.MethodGet, path: "/ping", public: true, do: getPing},
		{verb: http.MethodGet, path: "/access/domains", public: true, do: getDomains},
	}
}

// sessionMethods are the two upgrades.
func sessionMethods() []method {
	backup := snapshotParams(
		param{name: "debug", kind: boolean, optional: true},
		param{name: "benchmark", kind: boolean, optional: true},
		param{name: "no-cache", kind: boolean, optional: true},
	)
	reader := snapshotParams(param{name: "debug", kind: boolean, optional: true})
	return []method{
		{verb: http.MethodGet, path: "/backup", raw: true, params: backup, do: func(c *call) (any, error) { return c.server.backupUpgrade(c) }},
		{verb: http.MethodGet, path: "/reader", raw: true, params: reader, do: func(c *call) (any, error) { return c.server.readerUpgrade(c) }},
	}
}

func getVersion(c *call) (any, error) {
	return map[string]string{
		"version": protocolVersion, "release": protocolRelease, "repoid": "holdfast", "holdfast": c.server.o.Version,
	}, nil
}

func getPing(*call) (any, error) { return map[string]bool{"pong": true}, nil }

// domain is a realm in an answer.
type domain struct {
	Realm   string `json:"realm"`
	Type    string `json:"type"`
	Comment string `json:"comment"`
	Default bool   `json:"default,omitempty"`
}

func getDomains(c *call) (any, error) {
	c.top("digest", c.server.o.Access.Digest())
	return []domain{
		{Realm: "pam", Type: "pam", Comment: "Holdfast administrator"},
		{Realm: "pbs", Type: "pbs", Comment: "Holdfast users", Default: true},
	}, nil
}

// nodes of this server: there is one.
func getNodes(c *call) (any, error) {
	if err := c.require("/system/status", access.SysAudit); err != nil {
		return nil, err
	}
	return []map[string]string{{"node": "localhost"}}, nil
}
