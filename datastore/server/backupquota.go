package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"strings"
	"sync"
	"time"

	"holdfast/chunkstore"
	"holdfast/chunkstore/durable"
	"holdfast/datastore/access"
	"holdfast/datastore/wire"
)

// tally is what counts against the quota of one subject.
type tally struct {
	pending int64 // bytes that sessions under way have declared
	settled int64 // bytes of sessions that have finished since the start
	open    int   // sessions under way
	today   int   // snapshots finished today
}

// quotaBook keeps the tallies of all subjects that have a quota. The snapshots
// of the day are in a file too, so that a restart does not forget them.
type quotaBook struct {
	path string // "" keeps nothing
	now  func() time.Time
	log  *slog.Logger

	mu       sync.Mutex
	day      string
	subjects map[string]*tally
	counted  map[[2]string]uint64 // bytes by subject and datastore, when they were last counted
}

// dayFile is the file of a quotaBook.
type dayFile struct {
	Day       string         `json:"day"`
	Snapshots map[string]int `json:"snapshots"`
}

// dayFileMax caps the file, in bytes.
const dayFileMax = 8 << 20

// openQuotaBook reads what was counted today. A file that cannot be read is told
// and begun anew.
func openQuotaBook(path string, now func() time.Time, log *slog.Logger) *quotaBook {
	b := &quotaBook{path: path, now: now, log: log, subjects: make(map[string]*tally), counted: make(map[[2]string]uint64)}
	b.day = b.today()
	f, err := b.load()
	if err != nil {
		log.Warn("snapshots of the day are counted anew", "error", err)
	}
	if f.Day != b.day {
		return b
	}
	for subject, n := range f.Snapshots {
		b.tally(subject).today = n
	}
	return b
}

func (b *quotaBook) load() (f dayFile, err error) {
	if b.path == "" {
		return f, nil
	}
	st, err := os.Stat(b.path)
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err == nil && st.Size() > dayFileMax {
		err = fmt.Errorf("%s has %d bytes: %w", b.path, st.Size(), chunkstore.ErrCorrupt)
	}
	if err != nil {
		return f, err
	}
	raw, err := os.ReadFile(b.path)
	if err != nil {
		return f, err
	}
	if err := json.Unmarshal(raw, &f); err != nil {
		return dayFile{}, fmt.Errorf("%s: %w", b.path, err)
	}
	return f, nil
}

func (b *quotaBook) today() string { return b.now().Format(time.DateOnly) }

// tally returns the tally of a subject. The lock must be held, but at the start.
func (b *quotaBook) tally(subject string) *tally {
	t := b.subjects[subject]
	if t == nil {
		t = &tally{}
		b.subjects[subject] = t
	}
	return t
}

// remember keeps what was counted for a subject in a datastore.
func (b *quotaBook) remember(subject, store string, n uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.counted[[2]string{subject, store}] = n
}

// remembered is what was counted last, 0 if that was never.
func (b *quotaBook) remembered(subject, store string) uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.counted[[2]string{subject, store}]
}

// turn begins a new day if it is one. The lock must be held.
func (b *quotaBook) turn() {
	if day := b.today(); day != b.day {
		b.day = day
		for _, t := range b.subjects {
			t.today = 0
		}
	}
}

// save writes the file. The lock must be held.
func (b *quotaBook) save() {
	if b.path == "" {
		return
	}
	f := dayFile{Day: b.day, Snapshots: make(map[string]int)}
	for subject, t := range b.subjects {
		if t.today > 0 {
			f.Snapshots[subject] = t.today
		}
	}
	raw, err := json.Marshal(f)
	if err == nil {
		err = durable.WriteFile(b.path, raw, 0o600)
	}
	if err != nil {
		b.log.Warn("snapshots of the day are not kept", "error", err)
	}
}

// bound is a quota that a session is under.
type bound struct {
	access.Quota
	used    uint64 // bytes of the finished snapshots when the session began
	settled int64  // of the tally then
}

// reservation is what one session takes of its quotas. A nil reservation is
// under none.
type reservation struct {
	book    *quotaBook
	bounds  []bound
	charged int64 // guarded by the book
	ended   bool
}

// settled reads how much has been settled for a subject so far.
func (b *quotaBook) settled(subject string) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.tally(subject).settled
}

// begin takes one of the day's snapshots, or returns wire.ErrQuota.
func (b *quotaBook) begin(bounds []bound) (*reservation, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.turn()
	for _, q := range bounds {
		t := b.tally(q.Subject)
		if q.SnapshotsPerDay > 0 && t.today+t.open >= int(q.SnapshotsPerDay) {
			return nil, fmt.Errorf("%s may add %d snapshots a day: %w", q.Subject, q.SnapshotsPerDay, wire.ErrQuota)
		}
	}
	for _, q := range bounds {
		b.tally(q.Subject).open++
	}
	r := &reservation{book: b, bounds: bounds}
	return r, nil
}

// charge counts n more bytes of the session, or returns wire.ErrQuota.
func (r *reservation) charge(n int64) error {
	if r == nil {
		return nil
	}
	r.book.mu.Lock()
	defer r.book.mu.Unlock()
	for _, q := range r.bounds {
		t := r.book.tally(q.Subject)
		// What others have finished since is in used or in settled; in both
		// if it happened while used was being counted.
		have := sum(q.used, uint64(t.settled-q.settled), uint64(t.pending))
		if q.BytesMax > 0 && sum(have, uint64(n)) > q.BytesMax {
			return fmt.Errorf("%s may have %d bytes in snapshots, has %d and would get %d more: %w",
				q.Subject, q.BytesMax, have, n, wire.ErrQuota)
		}
	}
	for _, q := range r.bounds {
		r.book.tally(q.Subject).pending += n
	}
	r.charged += n
	return nil
}

// refund takes back a charge for what has come to nothing.
func (r *reservation) refund(n int64) {
	if r == nil {
		return
	}
	r.book.mu.Lock()
	defer r.book.mu.Unlock()
	for _, q := range r.bounds {
		r.book.tally(q.Subject).pending -= n
	}
	r.charged -= n
}

// sum adds without overflow.
func sum(list ...uint64) (n uint64) {
	for _, v := range list {
		if v > math.MaxUint64-n {
			return math.MaxUint64
		}
		n += v
	}
	return n
}

// end settles what the session took, or gives it back.
func (r *reservation) end(finished bool) {
	if r == nil {
		return
	}
	r.book.mu.Lock()
	defer r.book.mu.Unlock()
	if r.ended {
		return
	}
	r.ended = true
	r.book.turn()
	for _, q := range r.bounds {
		t := r.book.tally(q.Subject)
		t.open--
		t.pending -= r.charged
		if finished {
			t.settled += r.charged
			t.today++
		}
	}
	if finished && len(r.bounds) > 0 {
		r.book.save()
	}
}

// reserve finds the quotas that a session is under and what is used of them.
func (s *Server) reserve(c *call) (*reservation, error) {
	all, err := s.o.Access.Quotas()
	if err != nil {
		return nil, err
	}
	var bounds []bound
	for _, q := range all {
		if !applies(q.Subject, c.auth, access.DatastorePath(c.str("store"), c.namespace())) {
			continue
		}
		b := bound{Quota: q, settled: s.host.quotas.settled(q.Subject)}
		if q.BytesMax > 0 {
			if b.used, err = s.usedBy(c.Context(), q.Subject); err != nil {
				return nil, fmt.Errorf("quota of %s: %w", q.Subject, err)
			}
		}
		bounds = append(bounds, b)
	}
	r, err := s.host.quotas.begin(bounds)
	if err != nil {
		return nil, err
	}
	if err := r.charge(0); err != nil {
		r.end(false)
		return nil, err
	}
	return r, nil
}

// applies reports whether a quota is about a caller or about a path.
func applies(subject string, auth wire.AuthID, path string) bool {
	return wire.AuthID(subject).Owns(auth) || below(subject, path)
}

// below reports whether path is subject or lies below it.
func below(subject, path string) bool {
	return path == subject || strings.HasPrefix(path, strings.TrimSuffix(subject, "/")+"/")
}

// usedBy sums the logical sizes of all snapshots that count against a quota.
func (s *Server) usedBy(ctx context.Context, subject string) (uint64, error) {
	all, err := s.o.Access.Datastores()
	if err != nil {
		return 0, err
	}
	var total uint64
	for _, d := range all {
		path := access.DatastorePath(d.Name, "")
		relevant := below(subject, path) || below(path, subject) || !strings.HasPrefix(subject, "/")
		if !relevant || maintenance(d, false) != nil {
			continue
		}
		n, err := s.usedIn(ctx, d.Name, subject)
		if ctx.Err() != nil {
			return 0, err
		}
		if err != nil {
			// Its disk may be away: that is no reason to refuse backups elsewhere.
			n = s.host.quotas.remembered(subject, d.Name)
			s.o.Log.Warn("a quota counts what a datastore held before", "datastore", d.Name, "subject", subject, "bytes", n, "error", err)
		} else {
			s.host.quotas.remember(subject, d.Name, n)
		}
		total = sum(total, n)
	}
	return total, nil
}

func (s *Server) usedIn(ctx context.Context, name, subject string) (total uint64, err error) {
	st, err := s.use(name)
	if err != nil {
		return 0, err
	}
	defer st.release()
	spaces, err := st.Namespaces(ctx, "")
	if err != nil {
		return 0, err
	}
	for _, ns := range spaces {
		groups, err := st.Groups(ctx, ns)
		if err != nil && !errors.Is(err, chunkstore.ErrNotExist) {
			return 0, err
		}
		for _, g := range groups {
			if !applies(subject, g.Owner, access.DatastorePath(name, ns)) {
				continue
			}
			n, err := groupSize(ctx, st, g.Group)
			if err != nil {
				return 0, err
			}
			total = sum(total, n)
		}
	}
	return total, nil
}

// groupSize sums the sizes of a group's snapshots; one that vanishes meanwhile
// has none.
func groupSize(ctx context.Context, from wire.Source, g wire.Group) (total uint64, err error) {
	list, err := from.Snapshots(ctx, g)
	if errors.Is(err, chunkstore.ErrNotExist) {
		return 0, nil
	}
	for _, snap := range list {
		total = sum(total, snap.Size)
	}
	return total, err
}
