package access

import (
	"maps"

	"holdfast/datastore/wire"
)

// Datastore is an entry of the list of datastores. ACLs and quotas of a
// datastore stay when it leaves the list.
type Datastore struct {
	Name string `json:"name"`
	// Path is the directory, absolute and clean. No datastore lies within
	// another.
	Path    string `json:"path"`
	Comment string `json:"comment,omitempty"`
	// Maintenance is "", api.MaintenanceReadOnly or api.MaintenanceOffline.
	Maintenance string `json:"maintenance,omitempty"`
	// VerifyNew has every new snapshot verified.
	VerifyNew bool `json:"verify-new,omitempty"`
}

// Datastores returns the list, sorted by name. The caller owns the slice.
func (s *Store) Datastores() ([]Datastore, error) {
	return sorted(s.config.Load().stores, func(d Datastore) string { return d.Name }), nil
}

// Datastore returns one entry, or chunkstore.ErrNotExist.
func (s *Store) Datastore(name string) (Datastore, error) {
	d, ok := s.config.Load().stores[name]
	if !ok {
		return Datastore{}, notExist("datastore", name)
	}
	return d, nil
}

// AddDatastore adds an entry. A name or directory that is taken is
// wire.ErrExists.
func (s *Store) AddDatastore(d Datastore) error {
	return s.update(func(c *config) error {
		if _, ok := c.stores[d.Name]; ok {
			return already("datastore", d.Name)
		}
		c.stores[d.Name] = d
		return nil
	})
}

// CheckNewDatastore returns the error that AddDatastore would return, before
// anything is made on a disk.
func (s *Store) CheckNewDatastore(d Datastore) error {
	stores := maps.Clone(s.config.Load().stores)
	if _, ok := stores[d.Name]; ok {
		return already("datastore", d.Name)
	}
	stores[d.Name] = d
	return (&config{stores: stores}).checkStores()
}

// SetDatastore replaces an entry.
func (s *Store) SetDatastore(d Datastore) error {
	return s.ChangeDatastore(d.Name, func(now *Datastore) { *now = d })
}

// ChangeDatastore is SetDatastore for who changes a part: change gets the entry as it
// is, and nobody else changes it until change has returned. The name stays what it is.
func (s *Store) ChangeDatastore(name string, change func(*Datastore)) error {
	return s.update(func(c *config) error {
		d, ok := c.stores[name]
		if !ok {
			return notExist("datastore", name)
		}
		change(&d)
		d.Name = name
		c.stores[name] = d
		return nil
	})
}

// RemoveDatastore takes an entry off the list and leaves the directory alone.
func (s *Store) RemoveDatastore(name string) error {
	return s.update(func(c *config) error {
		if _, ok := c.stores[name]; !ok {
			return notExist("datastore", name)
		}
		delete(c.stores, name)
		return nil
	})
}

// Quota bounds what a subject may store; 0 is no bound.
type Quota struct {
	// Subject is an ACL path below /datastore, or a user or token.
	Subject string `json:"subject"`
	// BytesMax is in bytes.
	BytesMax uint64 `json:"bytes-max,omitempty"`
	// SnapshotsPerDay is a number of new snapshots.
	SnapshotsPerDay uint32 `json:"snapshots-per-day,omitempty"`
}

// Quotas returns all quotas, sorted by subject. The caller owns the slice.
func (s *Store) Quotas() ([]Quota, error) {
	return sorted(s.config.Load().quotas, func(q Quota) string { return q.Subject }), nil
}

// Quota returns the quota of exactly this subject, or chunkstore.ErrNotExist.
func (s *Store) Quota(subject string) (Quota, error) {
	q, ok := s.config.Load().quotas[subject]
	if !ok {
		return Quota{}, notExist("quota of", subject)
	}
	return q, nil
}

// SetQuota adds or replaces a quota. A user or token must exist, a datastore
// need not.
func (s *Store) SetQuota(q Quota) error {
	_, err := s.ChangeQuota(q.Subject, func(old *Quota) { old.BytesMax, old.SnapshotsPerDay = q.BytesMax, q.SnapshotsPerDay })
	return err
}

// ChangeQuota adds or changes a quota and returns what it is then: change gets
// the one that is set, or one without bounds, and leaves alone what is to stay.
// Nobody else changes the quota meanwhile.
func (s *Store) ChangeQuota(subject string, change func(*Quota)) (q Quota, err error) {
	if len(subject) > 0 && subject[0] == '/' {
		if subject, err = parsePath(subject); err != nil {
			return Quota{}, err
		}
	} else if _, err := wire.ParseAuthID(subject); err != nil {
		return Quota{}, err
	}
	err = s.update(func(c *config) error {
		q = c.quotas[subject]
		change(&q)
		q.Subject = subject
		c.quotas[subject] = q
		return nil
	})
	return q, err
}

// RemoveQuota removes the quota of exactly this subject.
func (s *Store) RemoveQuota(subject string) error {
	return s.update(func(c *config) error {
		if _, ok := c.quotas[subject]; !ok {
			return notExist("quota of", subject)
		}
		delete(c.quotas, subject)
		return nil
	})
}
