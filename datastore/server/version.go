package server

import (
	"net/http"

	"holdfast/datastore/wire/api"
)

// The version that the protocol is spoken in: other servers and clients choose
// by it what to ask for.
const (
	protocolVersion = "3.4"
	protocolRelease = "1"
)

func versionMethods() []method {
	return []method{
		{Verb: http.MethodGet, Path: "/version", Do: getVersion},
		{Verb: http.MethodGet, Path: "/ping", Public: true, Do: getPing},
		{Verb: http.MethodGet, Path: "/access/domains", Public: true, Do: getDomains},
	}
}

// sessionMethods are the two upgrades.
func sessionMethods() []method {
	backup := api.SnapshotParams(
		api.Param{Name: "debug", Kind: api.Boolean, Optional: true},
		api.Param{Name: "benchmark", Kind: api.Boolean, Optional: true},
		api.Param{Name: "no-cache", Kind: api.Boolean, Optional: true},
	)
	reader := api.SnapshotParams(api.Param{Name: "debug", Kind: api.Boolean, Optional: true})
	return []method{
		{Verb: http.MethodGet, Path: "/backup", Raw: true, Params: backup, Do: func(c *call) (any, error) { return c.server.backupUpgrade(c) }},
		{Verb: http.MethodGet, Path: "/reader", Raw: true, Params: reader, Do: func(c *call) (any, error) { return c.server.readerUpgrade(c) }},
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
	if err := c.require("/system/status", api.SysAudit); err != nil {
		return nil, err
	}
	return []map[string]string{{"node": "localhost"}}, nil
}
