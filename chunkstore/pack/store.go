package pack

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"holdfast/chunkstore"
	"holdfast/chunkstore/durable"
	"holdfast/chunkstore/pack/catalogue"
	"holdfast/chunkstore/pack/packfile"
)

// Sizes and counts of a store.
const (
	// PackSizeDefault is how large a pack grows before it is sealed, in bytes.
	PackSizeDefault = 64 << 20
	packSizeMin     = 4 << 10
	packSizeMax     = 1 << 30

	// pendingMax is how many entries are held in memory before they go into
	// the catalogue: one transaction of that size is several times faster
	// than many small ones, and takes about 20 MB.
	pendingMax = 100_000
	// sealsMax is how many packs are being sealed at a time.
	sealsMax = 2
)

// errClosed is returned by a store or session after its Close.
var errClosed = errors.New("chunk store is closed")

// Options say how to open a store. The zero value opens it for writing and
// does not wait for a lock.
type Options struct {
	// ReadOnly opens a store for reading, beside other readers. It changes
	// nothing on disk unless a crash or damage has left something to put
	// right; on a disk that cannot be written it makes do with the catalogue
	// as it is, if that is sound.
	ReadOnly bool
	// LockWait is how long to wait for another process to close the store. 0
	// means not at all.
	LockWait time.Duration
	// PackSize is the size in bytes at which a pack is sealed; 0 means
	// PackSizeDefault, or less on a small file system.
	PackSize int64
	// Progress, if not nil, is called while Open builds the catalogue anew.
	Progress func(Progress)

	// hook stands in front of every change to the disk, in tests.
	hook func(op, path string, change func() error) error
	// rebuildBatch takes the place of the constant, in tests.
	rebuildBatch int
	// readHook is called after a scrub has read b at off of a pack; the error
	// takes the place of what was read. In tests.
	readHook func(path string, off int64, b []byte) error
}

func (o *Options) check(dir string) error {
	if o.PackSize == 0 {
		o.PackSize = packSizeFor(dir)
	}
	if o.PackSize < packSizeMin || o.PackSize > packSizeMax {
		return fmt.Errorf("pack size %d is not within %d..%d: %w", o.PackSize, packSizeMin, packSizeMax, chunkstore.ErrInvalid)
	}
	o.rebuildBatch = cmp.Or(o.rebuildBatch, rebuildBatch)
	if o.LockWait < 0 {
		return fmt.Errorf("lock wait %v: %w", o.LockWait, chunkstore.ErrInvalid)
	}
	return nil
}

// Store is a chunk store on disk. It implements chunkstore.Store,
// chunkstore.Walker and, by its sessions, chunkstore.Keeper. All methods are safe
// for concurrent use.
type Store struct {
	dir     string
	options Options
	disk    durable.Door
	lock    *lockFile
	epoch   epoch // of this process; zero when read-only
	handles *handles
	opened  OpenReport

	// commitLock is held by whoever changes the catalogue: it is a channel of
	// one, so that waiting for it can be given up.
	commitLock chan struct{}
	sumGone    bool // guarded by commitLock: catalogue.sum has been removed

	catMu sync.RWMutex // guards the pointer; held while reading the catalogue
	cat   *catalogue.File

	sealing  chan struct{} // a place for each pack being sealed
	sealDone sync.WaitGroup

	reserve reserve
	failure failure     // first error after which nothing may be written
	begun   atomic.Bool // there has been a session
	closing sync.Once

	mu         sync.Mutex // guards all below
	closed     bool
	healed     bool // the catalogue has been built anew since Open
	pending    catalogue.Table
	committing catalogue.Table
	flights    map[chunkstore.ID]chan struct{} // chunks being put
	packs      map[uint32]*catalogue.PackInfo
	dirty      map[uint32]bool // packs that differ from the catalogue
	stamped    map[uint32]bool // packs whose date of a check is not in the catalogue
	quarantine quarantine
	claims     []copyOf // met while the store is opened
	nextPack   uint32
	writers    map[uint32]*writer        // by pack number: all packs open for writing
	order      uint64                    // counts the sessions and sweeps begun, and catalogues built
	moves      uint64                    // counts what changes where stored chunks lie
	rebuiltAt  uint64                    // order when the last catalogue was built
	sessions   map[*session]bool         // those that are open
	filling    map[uint32]*session       // by pack number: who fills it
	sweep      *Sweep                    // the one that is running
	condemned  map[uint32]map[int64]bool // records without use in packs about to go, by offset
	idle       []*writer                 // those of them that no session has
	reusable   []uint32                  // open packs without a writer
	generation uint64                    // of looks at pack files; each Sync begins one
}

// failure keeps the first error of several.
type failure struct {
	mu  sync.Mutex
	err error
}

func (f *failure) set(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = err
	}
}

func (f *failure) get() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// packsDir is the directory that holds the packs.
func packsDir(dir string) string { return filepath.Join(dir, "packs") }

// Create makes an empty store in dir, which is made if it is missing. A store
// that is there already is fs.ErrExist.
func Create(dir string) error {
	if _, err := os.Lstat(packsDir(dir)); err == nil {
		return fmt.Errorf("create chunk store %s: %w", dir, fs.ErrExist)
	}
	if err := durable.MkdirAll(dir, 0o750); err != nil {
		return fmt.Errorf("create chunk store: %w", err)
	}
	e, err := nextEpoch(0)
	if err != nil {
		return fmt.Errorf("create chunk store: %w", err)
	}
	e.Clean = true
	if err := e.write(durable.Door{}, dir); err != nil {
		return fmt.Errorf("create chunk store: %w", err)
	}
	if err := catalogue.Create(durable.Door{}, dir, nil); err != nil {
		return fmt.Errorf("create chunk store: %w", err)
	}
	if err := durable.WriteFile(filepath.Join(dir, "lock"), nil, 0o640); err != nil {
		return fmt.Errorf("create chunk store: %w", err)
	}
	// The directory of packs comes last: it is what makes this a store.
	if err := durable.MkdirAll(packsDir(dir), 0o750); err != nil {
		return fmt.Errorf("create chunk store: %w", err)
	}
	return nil
}

// newStore makes a Store that has no catalogue yet.
func newStore(dir string, o Options) *Store {
	s := &Store{
		dir:        dir,
		options:    o,
		disk:       durable.Door{Hook: o.hook},
		commitLock: make(chan struct{}, 1),
		sealing:    make(chan struct{}, sealsMax),
		pending:    catalogue.NewTable(),
		flights:    make(map[chunkstore.ID]chan struct{}),
		packs:      make(map[uint32]*catalogue.PackInfo),
		dirty:      make(map[uint32]bool),
		stamped:    make(map[uint32]bool),
		writers:    make(map[uint32]*writer),
		sessions:   make(map[*session]bool),
		filling:    make(map[uint32]*session),
		condemned:  make(map[uint32]map[int64]bool),
		generation: 1,
	}
	s.handles = newHandles(packsDir(dir))
	s.quarantine.load(dir)
	return s
}

// Dir returns the directory of the store.
func (s *Store) Dir() string { return s.dir }

// Writable returns nil, or why the store refuses writes: it was opened for
// reading, or a write has gone wrong (chunkstore.ErrReadOnly and the cause).
func (s *Store) Writable() error { return s.writable() }

// writable returns nil if the store may be written to.
func (s *Store) writable() error {
	if s.options.ReadOnly {
		return fmt.Errorf("chunk store %s: %w", s.dir, chunkstore.ErrReadOnly)
	}
	if err := s.failure.get(); err != nil {
		return fmt.Errorf("chunk store %s: %w after: %w", s.dir, chunkstore.ErrReadOnly, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errClosed
	}
	return nil
}

// usable returns nil if the store may be read.
func (s *Store) usable(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errClosed
	}
	return nil
}

// lockCommit takes commitLock.
func (s *Store) lockCommit(ctx context.Context) error {
	select {
	case s.commitLock <- struct{}{}:
		return nil
	default:
	}
	select {
	case s.commitLock <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Store) unlockCommit() { <-s.commitLock }

// Begin implements chunkstore.Store.
func (s *Store) Begin(ctx context.Context) (chunkstore.Session, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("begin session: %w", err)
	}
	if err := s.writable(); err != nil {
		return nil, fmt.Errorf("begin session: %w", err)
	}
	s.begun.Store(true)
	return s.newSession(), nil
}

// Close implements chunkstore.Store. What was put but not synced is synced
// first; if something has gone wrong that made the store read-only, Close
// returns it. Closing a store again does nothing but wait until it is closed.
func (s *Store) Close() (err error) {
	s.closing.Do(func() { err = s.close() })
	return err
}

func (s *Store) close() error {
	err := s.shutdown()
	marks := s.marksToKeep()
	err = errors.Join(err, s.lock.release())
	if len(marks) > 0 {
		s.keepMarks(marks)
	}
	return err
}

// shutdown does all of Close but giving the lock back.
func (s *Store) shutdown() error {
	s.sealDone.Wait()
	// An error of a seal in the background may have had nobody to go to.
	err := s.failure.get()
	writable := err == nil && !s.options.ReadOnly
	if writable {
		err = s.sync(context.Background())
	}
	if errors.Is(err, chunkstore.ErrNoSpace) && !s.begun.Load() {
		// Nobody has put anything: it is what Open has found in the packs, and
		// the next one finds it there again.
		err, writable = nil, false
	}
	s.mu.Lock()
	s.closed = true
	writers := s.writers
	s.writers, s.idle = make(map[uint32]*writer), nil
	s.mu.Unlock()
	for _, w := range writers {
		err = errors.Join(err, w.close())
	}
	s.catMu.Lock()
	err = errors.Join(err, s.cat.Close())
	s.catMu.Unlock()
	s.handles.closeAll()
	if err == nil && writable {
		err = s.closeClean()
	}
	return err
}

// closeClean leaves behind what makes the next start quick. A full disk is no
// error here: the next start takes a closer look then.
func (s *Store) closeClean() error {
	if err := s.epoch.check(s.dir); err != nil {
		return err
	}
	clean := s.epoch
	clean.Clean = true
	err := catalogue.WriteSum(s.disk, s.dir)
	if err == nil {
		err = clean.write(s.disk, s.dir)
	}
	if errors.Is(err, chunkstore.ErrNoSpace) {
		return nil
	}
	return err
}

// Usage is the size of a store.
type Usage struct {
	Packs        int    // pack files, missing ones not counted
	OpenPacks    int    // of them, those being filled
	MissingPacks int    // packs that the catalogue knows and the disk has not
	Chunks       uint64 // records: a chunk stored twice counts twice
	StoredBytes  uint64 // of the records without their headers
	PlainBytes   uint64 // of the contents of the chunks
	PackBytes    uint64 // size of the pack files
}

// Usage adds up what the store holds, from memory.
func (s *Store) Usage(ctx context.Context) (Usage, error) {
	var u Usage
	if err := s.usable(ctx); err != nil {
		return u, fmt.Errorf("usage: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.packs {
		if p.Dropped {
			continue
		}
		if p.Missing {
			u.MissingPacks++
			continue
		}
		u.Packs++
		if p.State == packfile.StateOpen {
			u.OpenPacks++
		}
		u.Chunks += p.Records
		u.StoredBytes += p.Stored
		u.PlainBytes += p.Plain
		u.PackBytes += uint64(p.Size)
	}
	return u, nil
}
