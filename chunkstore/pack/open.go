package pack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"holdfast/chunkstore"
	"holdfast/chunkstore/durable"
	"holdfast/chunkstore/pack/catalogue"
	"holdfast/chunkstore/pack/packfile"
)

// OpenReport says what Open had to put right. The zero value means nothing.
type OpenReport struct {
	// Rebuilt is why the catalogue was built anew, nil if it was not; Reindex
	// is what that found.
	Rebuilt error
	Reindex ReindexReport
	// Unclean says that the last writer has not closed the store.
	Unclean      bool
	PacksAdopted int      // packs, or parts of them, that the catalogue did not know
	Chunks       uint64   // in them
	BytesCut     int64    // torn records behind the last whole one
	PacksMissing int      // packs that the catalogue knows and the disk has not
	Missing      []string // the first of their names
	Names        []string // the first files that something was wrong with
}

func (r *OpenReport) name(name string) {
	if len(r.Names) < namesMax {
		r.Names = append(r.Names, name)
	}
}

// Opened returns what Open has found.
func (s *Store) Opened() OpenReport { return s.opened }

// Open opens the store in dir. Open for writing puts right what a crash has
// left: it never needs a human. It takes a time in proportion to the number of
// packs, not of chunks, unless the catalogue has to be built anew. A directory
// that is no store is chunkstore.ErrNotExist, one that another process has
// open chunkstore.ErrLocked.
func Open(ctx context.Context, dir string, o Options) (*Store, error) {
	if err := o.check(dir); err != nil {
		return nil, fmt.Errorf("open chunk store: %w", err)
	}
	if st, err := os.Stat(packsDir(dir)); errors.Is(err, fs.ErrNotExist) || err == nil && !st.IsDir() {
		return nil, fmt.Errorf("open chunk store %s: %w", dir, chunkstore.ErrNotExist)
	} else if err != nil {
		return nil, fmt.Errorf("open chunk store: %w", err)
	}
	l, err := acquireLock(ctx, dir, o.ReadOnly, o.LockWait)
	if err != nil {
		return nil, fmt.Errorf("open chunk store: %w", err)
	}
	var s *Store
	if o.ReadOnly {
		s, l, err = openReader(ctx, dir, o, l)
	} else {
		s, err = openWriter(ctx, dir, o)
	}
	if err != nil {
		if l != nil {
			err = errors.Join(err, l.release())
		}
		return nil, fmt.Errorf("open chunk store %s: %w", dir, err)
	}
	s.lock = l
	return s, nil
}

// openReader opens a store for reading. When the packs can tell more than the
// catalogue, it becomes a writer for as long as that takes. It returns the lock to
// keep; when it returns nil, no lock is held any more.
func openReader(ctx context.Context, dir string, o Options, l *lockFile) (*Store, *lockFile, error) {
	s := newStore(dir, o)
	cause := s.load(true)
	if cause == nil {
		return s, l, nil
	}
	// A writer cannot open the catalogue while it is open here.
	if err := s.closeCatalogue(); err != nil {
		return nil, l, errors.Join(cause, err)
	}
	report, l, err := recoverOnce(ctx, dir, o, l)
	s = newStore(dir, o)
	s.opened = report
	if l == nil {
		return nil, nil, errors.Join(cause, err)
	}
	if err == nil || errors.Is(cause, errStale) && ctx.Err() == nil {
		// If nothing could be put right, as on a disk that cannot be written,
		// what the catalogue knows can be read all the same.
		if err = s.load(true); err == nil || errors.Is(err, errStale) {
			return s, l, nil
		}
	}
	return nil, l, errors.Join(cause, err, s.closeCatalogue())
}

// recoverOnce gives a shared lock back, opens the store for writing, which
// puts it right, and closes it. The lock it returns is a shared one, or nil if
// there was none to be had.
func recoverOnce(ctx context.Context, dir string, o Options, shared *lockFile) (report OpenReport, l *lockFile, err error) {
	if err := shared.release(); err != nil {
		return report, nil, err
	}
	l, err = acquireLock(ctx, dir, false, o.LockWait)
	if err != nil {
		var lerr error
		l, lerr = acquireLock(ctx, dir, true, o.LockWait)
		return report, l, errors.Join(err, lerr)
	}
	o.ReadOnly = false
	w, err := openWriter(ctx, dir, o)
	if err == nil {
		report = w.opened
		err = w.shutdown()
	}
	if derr := l.downgrade(); derr != nil {
		return report, nil, errors.Join(err, derr, l.release())
	}
	return report, l, err
}

func (s *Store) closeCatalogue() error {
	if s.cat == nil {
		return nil
	}
	return s.cat.Close()
}

// errStale says that the packs hold more than the catalogue knows.
var errStale = fmt.Errorf("%w: the packs hold more than it knows", catalogue.ErrDoubt)

// load opens the catalogue and reads what it says of the packs, and what the
// disk shows of them. Only a reader gets errStale, with the catalogue open.
func (s *Store) load(readOnly bool) error {
	c, err := catalogue.Open(s.dir, readOnly)
	if err != nil {
		return err
	}
	number, packs, err := c.Header()
	if err != nil {
		return errors.Join(err, c.Close())
	}
	s.cat, s.packs = c, packs
	known := make(map[packfile.ID]bool, len(packs))
	for no, p := range packs {
		s.nextPack = max(s.nextPack, no+1)
		known[p.ID] = true
	}
	s.epoch.Number = max(s.epoch.Number, number)
	if !readOnly {
		return nil
	}
	files, err := packfile.List(packsDir(s.dir))
	if err != nil {
		return err
	}
	s.compare(files)
	for _, f := range files {
		if !known[f.ID] && (f.State == packfile.StateSealed || f.Size > packfile.HeaderSize) {
			return errStale
		}
	}
	for _, p := range packs {
		if p.State == packfile.StateOpen && p.Size > p.SavedTo {
			return errStale
		}
	}
	return nil
}

// compare notes what the disk shows of the packs that are known.
func (s *Store) compare(files []packfile.File) {
	found := make(map[packfile.ID]packfile.File, len(files))
	for _, f := range files {
		found[f.ID] = f
	}
	for _, p := range s.packs {
		f, ok := found[p.ID]
		p.Seen, p.Missing, p.Size = s.generation, !ok, f.Size
		if !ok {
			if s.opened.PacksMissing++; len(s.opened.Missing) < namesMax {
				s.opened.Missing = append(s.opened.Missing, p.Name())
			}
			s.opened.name(p.Name())
		}
	}
}

// openWriter opens a store for writing. The caller holds the exclusive lock. A
// file system that copies on write has no room on a full disk even for a file
// that is written over: there the reserve is let go, and taken again as soon as
// the store is open, as far as there is room.
func openWriter(ctx context.Context, dir string, o Options) (*Store, error) {
	s, err := openWriterOnce(ctx, dir, o)
	if !errors.Is(err, chunkstore.ErrNoSpace) {
		if err == nil {
			s.keepReserve(s.reserveSize())
		}
		return s, err
	}
	gave, giveErr := giveReserve(durable.Door{Hook: o.hook}, dir)
	if giveErr != nil || !gave {
		return nil, errors.Join(err, giveErr)
	}
	if s, err = openWriterOnce(ctx, dir, o); err == nil {
		s.keepReserve(0)
	}
	return s, err
}

func openWriterOnce(ctx context.Context, dir string, o Options) (*Store, error) {
	s := newStore(dir, o)
	last, err := readEpoch(dir)
	s.opened.Unclean = err != nil || !last.Clean
	if s.epoch, err = nextEpoch(last.Number); err != nil {
		return nil, err
	}
	// The new epoch comes first: from here on another writer that has lost
	// its lock cannot commit.
	if err := s.epoch.write(s.disk, dir); err != nil {
		return nil, err
	}
	if err := s.prepare(ctx); err != nil {
		s.handles.closeAll()
		return nil, errors.Join(err, s.closeCatalogue())
	}
	return s, nil
}

// prepare makes catalogue and packs agree.
func (s *Store) prepare(ctx context.Context) error {
	if err := s.removeTemps(); err != nil {
		return err
	}
	ours := s.epoch.Number
	err := s.load(false)
	if err == nil {
		err = s.reconcile(ctx)
	}
	if errors.Is(err, catalogue.ErrDoubt) || errors.Is(err, fs.ErrNotExist) {
		err = s.startOver(ctx, err)
	}
	if err != nil || s.epoch.Number == ours {
		return err
	}
	// The epoch file was lost or is an old copy: go on from what the catalogue
	// has seen.
	s.epoch.Number++
	return s.epoch.write(s.disk, s.dir)
}

// startOver forgets what the catalogue has said and builds it anew.
func (s *Store) startOver(ctx context.Context, cause error) error {
	if err := s.closeCatalogue(); err != nil {
		return err
	}
	s.cat, s.nextPack, s.reusable = nil, 0, nil
	s.packs, s.dirty = make(map[uint32]*catalogue.PackInfo), make(map[uint32]bool)
	s.pending, s.claims = catalogue.NewTable(), nil
	s.opened = OpenReport{Rebuilt: cause, Unclean: s.opened.Unclean}
	var err error
	if s.opened.Reindex, err = s.rebuildLocked(ctx, s.options.Progress); err != nil {
		return err
	}
	return s.reconcile(ctx)
}

// tempPrefixes are what the names of temporary files in a store begin with.
var tempPrefixes = []string{".catalogue.", ".epoch.", ".quarantine."}

// removeTemps removes what a crash has left of temporary files.
func (s *Store) removeTemps() error {
	des, err := os.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("remove temporary files: %w", err)
	}
	for _, de := range des {
		ours := slices.ContainsFunc(tempPrefixes, func(p string) bool { return strings.HasPrefix(de.Name(), p) })
		if !durable.IsTemp(de.Name()) || !ours {
			continue
		}
		path := filepath.Join(s.dir, de.Name())
		if err := s.disk.Do("remove", path, func() error { return durable.IgnoreMissing(os.Remove(path)) }); err != nil {
			return err
		}
	}
	return nil
}
