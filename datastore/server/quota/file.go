package quota

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"holdfast/chunkstore/durable"
)

// dayFile is the file of a quotaBook.
type dayFile struct {
	Day       string         `json:"day"`
	Snapshots map[string]int `json:"snapshots"`
	// Left is in bytes, by subject and datastore; that of sessions under way is
	// in it.
	Left map[string]map[string]int64 `json:"left,omitempty"`
}

// dayFileMax caps the file, in bytes.
const dayFileMax = 8 << 20

func (b *Book) load() (f dayFile, err error) {
	if b.path == "" {
		return f, nil
	}
	raw, err := durable.ReadFile(b.path, dayFileMax)
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err != nil {
		return f, err
	}
	if err := json.Unmarshal(raw, &f); err != nil {
		return dayFile{}, fmt.Errorf("%s: %w", b.path, err)
	}
	return f, nil
}

// save writes the file if it is stale. The lock must not be held: what others have
// changed meanwhile is written with it.
func (b *Book) save() {
	if b.path == "" {
		return
	}
	b.disk.Lock()
	defer b.disk.Unlock()
	b.mu.Lock()
	if !b.stale {
		b.mu.Unlock()
		return
	}
	b.stale = false
	raw, err := b.encode()
	b.mu.Unlock()
	if err == nil {
		err = durable.WriteFile(b.path, raw, 0o600)
	}
	if err != nil {
		b.log.Warn("what counts against quotas is not kept", "error", err)
		b.mu.Lock()
		b.stale = true // for the next one to try
		b.mu.Unlock()
	}
}

// encode makes the content of the file. The lock must be held.
func (b *Book) encode() ([]byte, error) {
	f := dayFile{Day: b.day, Snapshots: make(map[string]int), Left: make(map[string]map[string]int64)}
	left := func(subject, store string, n int64) {
		if f.Left[subject] == nil {
			f.Left[subject] = make(map[string]int64)
		}
		f.Left[subject][store] += n
	}
	for subject, t := range b.subjects {
		if t.today > 0 {
			f.Snapshots[subject] = t.today
		}
		for store := range t.left {
			left(subject, store, t.remainsIn(store))
		}
	}
	for r := range b.running {
		r.saved = r.received
		for _, q := range r.under.Bounds {
			if r.received > 0 {
				left(q.Subject, r.under.Store, r.received)
			}
		}
	}
	return json.Marshal(f)
}
