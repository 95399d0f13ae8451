package server

import (
	"fmt"

	"holdfast/datastore/access"
	"holdfast/datastore/server/meter"
	"holdfast/datastore/wire/api"
)

// usageFor is how full the disk of a datastore is, exactly to who may audit it or the
// system.
func (c *call) usageFor(d access.Datastore) (api.Usage, error) {
	have, err := c.server.o.Access.Privileges(c.auth, access.DatastorePath(d.Name, ""))
	if err != nil {
		return api.Usage{}, err
	}
	system, err := c.server.o.Access.Privileges(c.auth, "/system")
	if err != nil {
		return api.Usage{}, err
	}
	tell := c.server.fullness.Of
	if have.Any(api.DatastoreAudit) || system.Any(api.SysAudit) {
		tell = meter.OfStore
	}
	u, err := tell(d.Path)
	if err != nil {
		err = fmt.Errorf("status of datastore '%s': %w", d.Name, err)
	}
	return u, err
}

// audits reports whether the caller may see what a whole datastore holds.
func (c *call) audits(store string) (bool, error) {
	have, err := c.server.o.Access.Privileges(c.auth, access.DatastorePath(store, ""))
	return have.Any(api.DatastoreAudit), err
}
