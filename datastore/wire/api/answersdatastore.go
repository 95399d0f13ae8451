package api

import "holdfast/datastore/wire"

// DatastoreConfig is the configuration of a datastore.
type DatastoreConfig struct {
	Name        string `json:"name"`
	Path        string `json:"path"`
	Comment     string `json:"comment,omitempty"`
	Maintenance string `json:"maintenance-mode,omitempty"`
	VerifyNew   bool   `json:"verify-new,omitempty"`
}

// DatastoreItem is a datastore in a list.
type DatastoreItem struct {
	Store       string  `json:"store"`
	Comment     *string `json:"comment"`
	Maintenance string  `json:"maintenance,omitempty"`
	Mount       string  `json:"mount-status"`
	Backend     string  `json:"backend-type"`
}

// Usage is how full a file system is.
type Usage struct {
	Total uint64 `json:"total"`
	Used  uint64 `json:"used"`
	Avail uint64 `json:"avail"`
}

// DatastoreStatus is how full a datastore is, roughly if the caller may not audit it.
type DatastoreStatus struct {
	Usage
	GC     *GCStatus             `json:"gc-status,omitempty"`
	Counts map[string]*TypeCount `json:"counts,omitempty"`
}

// TypeCount counts what there is of one backup type.
type TypeCount struct {
	Groups    int `json:"groups"`
	Snapshots int `json:"snapshots"`
}

// Operations counts who uses a datastore.
type Operations struct {
	Read  int64 `json:"read"`
	Write int64 `json:"write"`
}

// DatastoreUsage is a datastore in the overview of all: with Usage, or an Error, or
// neither for who may not see it whole.
type DatastoreUsage struct {
	Store   string `json:"store"`
	Mount   string `json:"mount-status"`
	Backend string `json:"backend-type"`
	*Usage
	Error string `json:"error,omitempty"`
}

// GCStatus is what a garbage collection has found and removed (section 4.6 of the
// protocol specification).
type GCStatus struct {
	UPID           *string `json:"upid"`
	IndexFileCount uint64  `json:"index-file-count"`
	IndexDataBytes uint64  `json:"index-data-bytes"` // of all archives
	DiskBytes      uint64  `json:"disk-bytes"`       // of chunks in use
	DiskChunks     uint64  `json:"disk-chunks"`
	RemovedBytes   uint64  `json:"removed-bytes"` // by which the store has shrunk
	RemovedChunks  uint64  `json:"removed-chunks"`
	PendingBytes   uint64  `json:"pending-bytes"` // garbage that stays for now
	PendingChunks  uint64  `json:"pending-chunks"`
	RemovedBad     uint64  `json:"removed-bad"`
	StillBad       uint64  `json:"still-bad"` // packs that were left because of damage
}

// Collection is the last garbage collection of a datastore.
type Collection struct {
	GCStatus
	Store    string `json:"store"`
	End      int64  `json:"last-run-endtime,omitempty"`
	State    string `json:"last-run-state,omitempty"`
	Duration *int64 `json:"duration,omitempty"` // seconds
}

// NamespaceItem is a namespace in a list.
type NamespaceItem struct {
	NS string `json:"ns"`
}

// GroupItem is a group in a list (section 4.2 of the protocol specification).
type GroupItem struct {
	Type    string   `json:"backup-type"`
	ID      string   `json:"backup-id"`
	Last    int64    `json:"last-backup"`
	Count   int      `json:"backup-count"`
	Files   []string `json:"files"`
	Owner   string   `json:"owner,omitempty"`
	Comment string   `json:"comment,omitempty"`
}

// Removed tells what a removal has done.
type Removed struct {
	Groups    int `json:"removed-groups"`
	Protected int `json:"protected-snapshots"`
	Snapshots int `json:"removed-snapshots"`
}

// FileItem is a file of a snapshot. One that its manifest does not name has no size.
type FileItem struct {
	Name      string  `json:"filename"`
	CryptMode string  `json:"crypt-mode,omitempty"`
	Size      *uint64 `json:"size,omitempty"`
}

// SnapshotItem is a snapshot in a list (section 4.3 of the protocol specification). One
// that is being written has no size and no files.
type SnapshotItem struct {
	Type        string            `json:"backup-type"`
	ID          string            `json:"backup-id"`
	Time        int64             `json:"backup-time"`
	Files       []FileItem        `json:"files"`
	Size        *uint64           `json:"size,omitempty"`
	Comment     string            `json:"comment,omitempty"`
	Verify      *wire.VerifyState `json:"verification,omitempty"`
	Fingerprint string            `json:"fingerprint,omitempty"`
	Owner       string            `json:"owner,omitempty"`
	Protected   bool              `json:"protected"`
	// These are not in the protocol; other clients leave them alone.
	Arrived  int64 `json:"arrived,omitempty"`
	Misdated bool  `json:"misdated,omitempty"`
	Undated  bool  `json:"undated,omitempty"`
}

// DeletedItem is a snapshot in the trash.
type DeletedItem struct {
	Type      string      `json:"backup-type"`
	ID        string      `json:"backup-id"`
	Time      int64       `json:"backup-time"`
	Owner     wire.AuthID `json:"owner,omitempty"`
	Deleted   int64       `json:"deleted"` // when
	Left      int64       `json:"left"`    // seconds that it stays at least
	Protected bool        `json:"protected"`
}

// PruneItem is what was decided about a snapshot.
type PruneItem struct {
	Type      string `json:"backup-type"`
	ID        string `json:"backup-id"`
	Time      int64  `json:"backup-time"`
	Keep      bool   `json:"keep"`
	Protected bool   `json:"protected"`
	NS        string `json:"ns,omitempty"`
}
