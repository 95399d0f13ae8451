package quota

import (
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"holdfast/datastore/access"
	"holdfast/datastore/wire"
)

// tally is what counts against the quota of one subject, in bytes.
type tally struct {
	pending int64 // of sessions under way
	settled int64 // of sessions that have finished since the start
	open    int   // sessions under way
	today   int   // snapshots finished today
	// left is what sessions have sent and no snapshot has: it lies in a datastore
	// until its garbage is collected.
	left map[string][]remainder
}

// remainder is what sessions have left in a datastore up to a moment.
type remainder struct {
	bytes int64
	at    uint64
}

// remaindersMax is how many of them are kept apart.
const remaindersMax = 64

// leave adds what a session has left.
func (t *tally) leave(store string, r remainder) {
	if r.bytes <= 0 {
		return
	}
	if t.left == nil {
		t.left = make(map[string][]remainder)
	}
	list := append(t.left[store], r)
	if len(list) > remaindersMax { // together they go no earlier than the later one
		list[1].bytes += list[0].bytes
		list = list[1:]
	}
	t.left[store] = list
}

// remains is what is left in all datastores.
func (t *tally) remains() (n int64) {
	for store := range t.left {
		n += t.remainsIn(store)
	}
	return n
}

func (t *tally) remainsIn(store string) (n int64) {
	for _, r := range t.left[store] {
		n += r.bytes
	}
	return n
}

// Book keeps the tallies of all subjects that have a quota. The snapshots of the
// day, and what lies in the datastores for no snapshot, are in a file too, so that a
// restart does not forget them.
type Book struct {
	path string // "" keeps nothing
	now  func() time.Time
	log  *slog.Logger

	// disk is held while the file is written, which nobody else waits for than who
	// has changed something that must not be forgotten. It comes before mu.
	disk sync.Mutex

	mu       sync.Mutex
	stale    bool // the file does not say what is counted here
	day      string
	subjects map[string]*tally
	counted  map[[2]string]uint64 // bytes by subject and datastore, when they were last counted
	running  map[*Reservation]bool
	moment   uint64 // counts what begins and ends
}

// saveStep is how much a session may send before the file is written anew, in bytes.
const saveStep = 64 << 20

// Open reads what was counted today. A file that cannot be read is told
// and begun anew.
func Open(path string, now func() time.Time, log *slog.Logger) *Book {
	b := &Book{path: path, now: now, log: log, subjects: make(map[string]*tally), counted: make(map[[2]string]uint64),
		running: make(map[*Reservation]bool)}
	b.day = b.today()
	f, err := b.load()
	if err != nil {
		log.Warn("snapshots of the day are counted anew", "error", err)
	}
	for subject, stores := range f.Left {
		for store, n := range stores {
			b.tally(subject).leave(store, remainder{bytes: n})
		}
	}
	if f.Day != b.day {
		return b
	}
	for subject, n := range f.Snapshots {
		b.tally(subject).today = n
	}
	return b
}

func (b *Book) today() string { return b.now().Format(time.DateOnly) }

// tally returns the tally of a subject. The lock must be held, but at the start.
func (b *Book) tally(subject string) *tally {
	t := b.subjects[subject]
	if t == nil {
		t = &tally{}
		b.subjects[subject] = t
	}
	return t
}

// Remember keeps what was counted for a subject in a datastore.
func (b *Book) Remember(subject, store string, n uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.counted[[2]string{subject, store}] = n
}

// Remembered is what was counted last, 0 if that was never.
func (b *Book) Remembered(subject, store string) uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.counted[[2]string{subject, store}]
}

// turn begins a new day if it is one. The lock must be held.
func (b *Book) turn() {
	if day := b.today(); day != b.day {
		b.day = day
		for _, t := range b.subjects {
			t.today = 0
		}
	}
}

// Bound is a quota that a session is under.
type Bound struct {
	access.Quota
	Used    uint64 // bytes of the finished snapshots when the session began
	Settled int64  // of the tally then
}

// Terms are what a session is under.
type Terms struct {
	Bounds []Bound
	Store  string // that the session writes to
	Daily  bool   // it counts as a snapshot of the day when it is finished
}

// Reservation is what one session takes of its quotas: what its snapshot will count,
// or what it has sent where that is more. A nil reservation is under none.
type Reservation struct {
	book  *Book
	under Terms

	// Guarded by the book.
	logical  int64 // bytes of the snapshot as far as it is known
	received int64 // bytes that were sent, whether the store had them or not
	charged  int64
	saved    int64 // of received, in the file
	ended    bool
}

// Settled reads how much has been settled for a subject so far.
func (b *Book) Settled(subject string) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.tally(subject).settled
}

// Begin takes one of the day's snapshots if the session is to make one, or returns
// wire.ErrQuota.
func (b *Book) Begin(t Terms) (*Reservation, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.turn()
	for _, q := range t.Bounds {
		n := b.tally(q.Subject)
		if t.Daily && q.SnapshotsPerDay > 0 && n.today+n.open >= int(q.SnapshotsPerDay) {
			return nil, fmt.Errorf("%s may add %d snapshots a day: %w", q.Subject, q.SnapshotsPerDay, wire.ErrQuota)
		}
	}
	if t.Daily {
		for _, q := range t.Bounds {
			b.tally(q.Subject).open++
		}
	}
	r := &Reservation{book: b, under: t}
	b.running[r] = true
	return r, nil
}

// Charge counts n more bytes of the snapshot, or returns wire.ErrQuota.
func (r *Reservation) Charge(n int64) error { return r.add(n, 0) }

// Receive counts n more bytes that were sent, or returns wire.ErrQuota. They count
// even if the store has them already: otherwise the answer would tell.
func (r *Reservation) Receive(n int64) error { return r.add(0, n) }

func (r *Reservation) add(logical, received int64) error {
	if r == nil {
		return nil
	}
	due, err := r.count(logical, received)
	if due {
		r.book.save()
	}
	return err
}

// count is add without the file. due tells that it must be written.
func (r *Reservation) count(logical, received int64) (due bool, err error) {
	r.book.mu.Lock()
	defer r.book.mu.Unlock()
	more := max(satisfy(r.logical, logical), satisfy(r.received, received)) - r.charged
	for _, q := range r.under.Bounds {
		t := r.book.tally(q.Subject)
		// What others have finished since is in used or in settled; in both
		// if it happened while used was being counted.
		have := Sum(q.now(t), uint64(t.pending), uint64(t.remains()))
		if q.BytesMax > 0 && more >= 0 && Sum(have, uint64(more)) > q.BytesMax {
			return false, fmt.Errorf("%s may have %d bytes in snapshots and what interrupted ones have left, has %d, of which a garbage collection frees up to %d, and would get %d more: %w",
				q.Subject, q.BytesMax, have, t.remains(), more, wire.ErrQuota)
		}
	}
	r.logical, r.received = satisfy(r.logical, logical), satisfy(r.received, received)
	r.settle()
	due = r.received-r.saved >= saveStep && len(r.under.Bounds) > 0
	r.book.stale = r.book.stale || due
	return due, nil
}

// now is what the finished snapshots of a subject count, as far as it is known.
func (q Bound) now(t *tally) uint64 {
	since := t.settled - q.Settled
	if since < 0 { // some have gone
		return q.Used - min(q.Used, uint64(-since))
	}
	return Sum(q.Used, uint64(since))
}

// satisfy adds without overflow.
func satisfy(a, b int64) int64 {
	if b > math.MaxInt64-a {
		return math.MaxInt64
	}
	return a + b
}

// settle makes the tallies agree with what the session takes. The lock must be held.
func (r *Reservation) settle() {
	now := max(r.logical, r.received)
	for _, q := range r.under.Bounds {
		t := r.book.tally(q.Subject)
		if r.ended { // a file that was added to a finished snapshot
			t.settled += now - r.charged
		} else {
			t.pending += now - r.charged
		}
	}
	r.charged = now
}

// Refund takes back a charge for what has come to nothing; what was sent stays.
func (r *Reservation) Refund(n int64) {
	if r == nil {
		return
	}
	r.book.mu.Lock()
	defer r.book.mu.Unlock()
	r.logical -= n
	r.settle()
}

// Resume takes over what an interrupted session has left of chunks that the session
// may now refer to.
func (r *Reservation) Resume(n int64) {
	if r == nil {
		return
	}
	r.book.mu.Lock()
	defer r.book.mu.Unlock()
	taken := int64(0)
	for _, q := range r.under.Bounds {
		t, want := r.book.tally(q.Subject), n
		list := t.left[r.under.Store]
		for i := range list {
			part := min(want, list[i].bytes)
			list[i].bytes, want = list[i].bytes-part, want-part
		}
		taken = max(taken, n-want)
	}
	r.received += taken
	r.settle()
}

// Sum adds without overflow.
func Sum(list ...uint64) (n uint64) {
	for _, v := range list {
		if v > math.MaxUint64-n {
			return math.MaxUint64
		}
		n += v
	}
	return n
}

// End settles what the session took. What was sent and is in no snapshot counts until
// the garbage has been collected.
func (r *Reservation) End(finished bool) {
	if r == nil {
		return
	}
	if r.end(finished) {
		r.book.save()
	}
}

// end is End without the file. due tells that it must be written.
func (r *Reservation) end(finished bool) (due bool) {
	b := r.book
	b.mu.Lock()
	defer b.mu.Unlock()
	if r.ended {
		return false
	}
	r.ended = true
	delete(b.running, r)
	b.turn()
	b.moment++
	keeps := int64(0) // what the snapshot counts
	if finished {
		keeps = r.logical
	}
	for _, q := range r.under.Bounds {
		t := b.tally(q.Subject)
		t.pending -= r.charged
		t.settled += keeps
		t.leave(r.under.Store, remainder{bytes: r.received - keeps, at: b.moment})
		if r.under.Daily {
			t.open--
		}
		if r.under.Daily && finished {
			t.today++
		}
	}
	r.charged, r.received = keeps, min(r.received, keeps)
	b.stale = b.stale || len(r.under.Bounds) > 0
	return b.stale
}

// Removed charges what a snapshot has counted that is gone for good, as something that
// is left.
func (b *Book) Removed(subject, store string, bytes uint64) {
	defer b.save()
	b.mu.Lock()
	defer b.mu.Unlock()
	n := int64(min(bytes, math.MaxInt64/2))
	b.moment++
	t := b.tally(subject)
	t.settled -= n // sessions under way have counted it in used
	t.leave(store, remainder{bytes: n, at: b.moment})
	b.stale = true
}

// Mark returns the moment up to which a collection that begins now in a datastore frees
// what is in no snapshot. Sessions under way pay for what they hold themselves.
func (b *Book) Mark() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.moment++
	return b.moment
}

// Collected gives back what a collection has freed that began at a mark.
func (b *Book) Collected(store string, mark uint64) {
	defer b.save()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, t := range b.subjects {
		if len(t.left[store]) == 0 {
			continue
		}
		t.left[store] = slices.DeleteFunc(t.left[store], func(r remainder) bool { return r.at <= mark })
		if len(t.left[store]) == 0 {
			delete(t.left, store)
		}
	}
	b.stale = true
}

// Applies reports whether a quota is about a caller or about a path.
func Applies(subject string, auth wire.AuthID, path string) bool {
	return wire.AuthID(subject).Owns(auth) || Below(subject, path)
}

// Below reports whether path is subject or lies below it.
func Below(subject, path string) bool {
	return path == subject || strings.HasPrefix(path, strings.TrimSuffix(subject, "/")+"/")
}
