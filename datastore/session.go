package datastore

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"sync"
	"sync/atomic"
	"time"

	"holdfast/chunkstore"
	"holdfast/chunkstore/durable"
	"holdfast/chunkstore/pack"
	"holdfast/crypto"
	"holdfast/datastore/manifest"
	"holdfast/datastore/wire"
)

// Session is a snapshot being written. Besides wire.Session it implements
// wire.Asker and wire.Resumer. All methods but Close are safe for concurrent
// use. After a Finish that returned nil, everything but Blob, Previous, Base and
// Close is refused with ErrFinished.
type Session struct {
	store  *Store
	o      SessionOptions
	snap   wire.Snapshot
	chunks *pack.Store
	// arrived is written down when the snapshot is finished.
	arrived arrival
	puts    chunkWriter
	temp    string // its directory below .tmp, relative to the store
	dir     string // the snapshot in the making, in temp
	resume  *resumeList
	copies  chunkstore.Owner // whose encrypted chunks it reads and adds to
	base    *wire.Snapshot   // nil if there is none
	unbase  func()           // gives the base free
	// unsettled tells that temp must stay until the next opening.
	unsettled bool

	state atomic.Int32 // stateRunning and so on

	mu    sync.Mutex
	open  map[string]*IndexWriter // indexes not yet closed
	files map[string]written      // files that are complete
	stats *UploadStats
	lost  error // of an fsync of its files; the next one would say that all is well
}

// The states of a session. They change under its lock.
const (
	stateRunning = iota
	stateFinished
	stateClosed
)

// chunkWriter is what a session needs of one of the chunk store.
type chunkWriter interface {
	chunkstore.Session
	chunkstore.Keeper
}

var (
	_ wire.Session = (*Session)(nil)
	_ wire.Asker   = (*Session)(nil)
	_ wire.Resumer = (*Session)(nil)
)

// written is what the session knows of a file it has completed.
type written struct {
	size uint64 // as a manifest counts it
	csum [32]byte
	// classes are those that all chunks of an index may be of.
	classes chunkstore.Classes
}

// UploadStats is what the sender of a snapshot has sent.
type UploadStats = manifest.UploadStats

// ErrFinished is returned for the use of a session whose snapshot is finished.
var ErrFinished = errors.New("backup already marked as finished")

// SessionOptions say what snapshot to begin, and for whom.
type SessionOptions struct {
	Snapshot wire.Snapshot
	// Owner is who writes, "" for wire.RootUser.
	Owner wire.AuthID
	// Foreign says that the other side is not trusted: the content of plain
	// chunks is compared with their names, the namespace must exist, and the
	// group and its owner are recorded at once and stay.
	Foreign bool
	// Benchmark says that nothing is to stay, whatever happens.
	Benchmark bool
	// Patience is how long to wait for another session of the group to end. One
	// that has been told to leave is waited for up to a minute, if it is not 0.
	Patience time.Duration
	// Allowed, if it is set, is asked once more right before the snapshot comes to
	// exist; with an error it does not. The group has its last owner then, which
	// it can ask for by OwnerNow and by nothing that waits for the group.
	Allowed func() error
}

// Begin implements wire.Target for a caller on this machine, which is trusted
// and writes as wire.RootUser. Namespace and group are made when the snapshot
// is finished.
func (s *Store) Begin(ctx context.Context, snap wire.Snapshot) (wire.Session, error) {
	ss, err := s.BeginSession(ctx, SessionOptions{Snapshot: snap})
	if err != nil {
		return nil, err
	}
	return ss, nil
}

// BeginSession starts a snapshot. A group that belongs to somebody else is
// ErrOwner, one that is being written to wire.ErrBusy, a snapshot that is not
// newer than the newest finished one (unless that is known to be damaged), or has
// the name of one, wire.ErrExists, and a namespace that is missing
// chunkstore.ErrNotExist if the session is foreign.
func (s *Store) BeginSession(ctx context.Context, o SessionOptions) (*Session, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	chunks, err := s.writable(ctx)
	if err != nil {
		return nil, err
	}
	if o.Foreign {
		if err := s.checkNamespace(o.Snapshot.Group.NS); err != nil {
			return nil, err
		}
	}
	// Whoever has no business in the group must not occupy it, not for a moment.
	if !o.Benchmark {
		if _, err := s.mayClaim(ctx, o.Snapshot.Group, o.Owner); err != nil {
			return nil, fmt.Errorf("begin snapshot %s: %w", o.Snapshot, err)
		}
	}
	if err := s.enterSoon(ctx, o); err != nil {
		return nil, err
	}
	ss := &Session{
		store: s, o: o, snap: o.Snapshot, chunks: chunks, arrived: s.arriving(o.Snapshot), unbase: func() {},
		open: make(map[string]*IndexWriter), files: make(map[string]written),
	}
	if err := ss.begin(ctx); err != nil {
		ss.unbase()
		s.locks.vacate(ss.snap.Group)
		return nil, fmt.Errorf("begin snapshot %s: %w", ss.snap, noSpace(err))
	}
	if !o.Benchmark {
		s.locks.writing(ss.snap)
	}
	return ss, nil
}

// enterSoon takes the group for a session.
func (s *Store) enterSoon(ctx context.Context, o SessionOptions) error {
	if o.Patience <= 0 {
		return s.locks.occupy(o.Snapshot.Group)
	}
	return s.locks.occupySoon(ctx, o.Snapshot.Group, o.Patience)
}

// Leave says that nobody will use the session any more and that Close follows:
// whoever waits for the group is not sent away meanwhile.
func (ss *Session) Leave() {
	if ss.state.Load() == stateRunning {
		ss.store.locks.leave(ss.snap.Group)
	}
}

// check checks the names and fills in the owner.
func (o *SessionOptions) check() error {
	if err := o.Snapshot.Validate(); err != nil {
		return err
	}
	if _, err := wire.ParseNamespace(string(o.Snapshot.Group.NS)); err != nil {
		return err
	}
	if o.Owner == "" {
		o.Owner = wire.RootUser
	}
	_, err := wire.ParseAuthID(string(o.Owner))
	return err
}

func (ss *Session) begin(ctx context.Context) error {
	// Nothing of what a benchmark sends is ever read, by whomever. No name of a
	// user has a line feed.
	ss.copies = ownerTag("benchmark\n" + ss.o.Owner)
	if !ss.o.Benchmark {
		if err := ss.enterGroup(ctx); err != nil {
			return err
		}
	}
	var random [8]byte
	rand.Read(random[:])
	ss.temp = path.Join(tempDir, hex.EncodeToString(random[:]))
	ss.dir = path.Join(ss.temp, "snapshot")
	err := ss.store.root.MkdirAll(ss.dir, 0o700)
	if err == nil && !ss.o.Benchmark {
		ss.resume, err = ss.store.openResume(ss.temp, newResumeKey(ss.snap.Group, ss.o.Owner))
	}
	if err == nil {
		err = ss.beginChunks(ctx)
	}
	if err != nil {
		return errors.Join(err, ss.giveUp())
	}
	return nil
}

// giveUp ends a session that has made no snapshot: it lets go of its chunks, files the
// list of those that have arrived, and leaves no group that holds nothing.
func (ss *Session) giveUp() error {
	err := ss.letGo()
	if ss.o.Foreign && !ss.o.Benchmark {
		err = errors.Join(err, ss.store.giveUp(ss.snap.Group))
	}
	return err
}

func (ss *Session) letGo() (err error) {
	ss.store.lists.turn.RLock()
	defer ss.store.lists.turn.RUnlock()
	if ss.puts != nil {
		err = ss.puts.Close()
	}
	return errors.Join(err, ss.leave(true))
}

func (ss *Session) beginChunks(ctx context.Context) error {
	puts, err := ss.chunks.Begin(ctx)
	if err != nil {
		return err
	}
	var ok bool
	if ss.puts, ok = puts.(chunkWriter); !ok {
		return errors.Join(fmt.Errorf("the chunk store cannot keep or replace chunks: %w", chunkstore.ErrInvalid), puts.Close())
	}
	return nil
}

// enterGroup checks the owner and finds the base, in the order of section 2.1
// of the protocol specification. The group is occupied, and stays.
func (ss *Session) enterGroup(ctx context.Context) error {
	if err := ss.claimGroup(ctx); err != nil {
		return err
	}
	// Nobody waits for the turn that this waits for.
	if err := ss.findBase(ctx); err != nil {
		return err
	}
	_, err := ss.store.root.Lstat(snapshotPath(ss.snap))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return fmt.Errorf("its directory is there: %w", errors.Join(wire.ErrExists, err))
}

// claimGroup makes sure that the group may be written to, and finds out whose copies
// it reads.
func (ss *Session) claimGroup(ctx context.Context) error {
	// While the tree is held no namespace goes.
	ss.store.tree.RLock()
	defer ss.store.tree.RUnlock()
	// Whoever removes the group has done so, or sees that it is occupied.
	defer ss.store.locks.edit(ss.snap.Group)()
	if ss.o.Foreign {
		if err := ss.store.checkNamespace(ss.snap.Group.NS); err != nil {
			return err
		}
	}
	inherits, err := ss.store.mayClaim(ctx, ss.snap.Group, ss.o.Owner)
	if err == nil && inherits {
		err = ss.store.inherit(ss.snap.Group)
	}
	if err != nil {
		return err
	}
	if ss.o.Foreign {
		if err := ss.store.markBegun(ss.snap.Group); err != nil {
			return err
		}
		if err := ss.store.makeGroup(ss.snap.Group, ss.o.Owner); err != nil {
			return err
		}
	}
	copies, err := ss.store.Copies(ss.snap.Group)
	if errors.Is(err, chunkstore.ErrNotExist) {
		copies, err = ss.o.Owner, nil // whoever begins a group owns it
	}
	if err != nil {
		return err
	}
	ss.copies = ownerTag(copies)
	return nil
}

// running returns an error if the session has ended.
func (ss *Session) running() error {
	switch ss.state.Load() {
	case stateRunning:
		return nil
	case stateFinished:
		return fmt.Errorf("snapshot %s: %w: %w", ss.snap, ErrFinished, chunkstore.ErrInvalid)
	}
	return fmt.Errorf("snapshot %s: the session is closed: %w", ss.snap, chunkstore.ErrInvalid)
}

// Snapshot returns the name of the snapshot being written.
func (ss *Session) Snapshot() wire.Snapshot { return ss.snap }

// Has implements wire.Asker.
func (ss *Session) Has(ctx context.Context, r chunkstore.Ref) (bool, error) {
	if err := ss.running(); err != nil {
		return false, err
	}
	_, err := ss.puts.Keep(ctx, r.Key(ss.copies)) // the caller counts on it from now on
	if errors.Is(err, chunkstore.ErrNotExist) || errors.Is(err, chunkstore.ErrCorrupt) {
		return false, nil
	}
	return err == nil, err
}

// Blob implements wire.Session. A blob that comes when the snapshot is finished
// lies beside what the manifest names and replaces nothing.
func (ss *Session) Blob(ctx context.Context, name string, raw chunkstore.Blob) error {
	if err := checkBlob(name, raw); err != nil {
		return err
	}
	// Held throughout, so that Finish proves what is there in the end.
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if err := ss.running(); err != nil {
		if !errors.Is(err, ErrFinished) || ss.o.Benchmark {
			return err
		}
		return ss.store.addBlob(ctx, ss.still, blobOf{ss.snap, name, raw})
	}
	if err := durable.WriteIn(ss.store.root, path.Join(ss.dir, name), raw, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", name, noSpace(err))
	}
	ss.files[name] = written{size: uint64(len(raw)), csum: crypto.Sum(raw)}
	return nil
}

// still is the guard of whoever has the session.
func (ss *Session) still(func() (wire.AuthID, error)) error {
	if ss.o.Allowed == nil {
		return nil
	}
	return ss.o.Allowed()
}

// SetStats sets what Finish writes into the manifest about the upload.
func (ss *Session) SetStats(u UploadStats) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	ss.stats = &u
}

// Close implements wire.Session. What was not finished is gone, but for the
// list of the chunks that have arrived.
func (ss *Session) Close() error {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	before := ss.state.Swap(stateClosed)
	if before == stateClosed {
		return nil
	}
	defer ss.unbase()
	var errs []error
	for _, w := range ss.open {
		errs = append(errs, w.file.Close())
	}
	clear(ss.open)
	if before != stateRunning {
		return errors.Join(append(errs, ss.puts.Close())...)
	}
	defer ss.store.locks.vacate(ss.snap.Group)
	errs = append(errs, ss.giveUp())
	return errors.Join(errs...)
}

// leave removes what the session has in .tmp.
func (ss *Session) leave(keepList bool) error {
	return errors.Join(ss.resume.close(ss.store, keepList), ss.store.root.RemoveAll(ss.temp))
}
