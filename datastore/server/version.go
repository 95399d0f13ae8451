package server

import (
	"holdfast/datastore/wire/api"
)

// The version that the protocol is spoken in: other servers and clients choose
// by it what to ask for.
const (
	protocolVersion = "3.4"
	protocolRelease = "1"
)

func getVersion(c *call) (any, error) {
	return api.VersionItem{Version: protocolVersion, Release: protocolRelease, RepoID: "holdfast", Holdfast: c.server.o.Version}, nil
}

func getPing(*call) (any, error) { return api.Pong{Pong: true}, nil }

func getDomains(c *call) (any, error) {
	c.top("digest", c.server.o.Access.Digest())
	return []api.RealmItem{
		{Realm: "pam", Type: "pam", Comment: "Holdfast administrator"},
		{Realm: "pbs", Type: "pbs", Comment: "Holdfast users", Default: true},
	}, nil
}

// nodes of this server: there is one.
func getNodes(*call) (any, error) {
	return []api.NodeItem{{Node: "localhost"}}, nil
}
