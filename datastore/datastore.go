// Package datastore is the tree namespace/group/snapshot on a disk, and the
// sessions that add to it. A Store implements wire.Source, wire.Target and
// wire.Manager for a directory of this machine.
//
// The nouns: a namespace holds backup groups (vm/100), a group holds snapshots
// (vm/100/2026-11-22T02:00:00Z), a snapshot holds archives: index files, whose
// chunks lie in the chunk store, and blobs, among them the manifest. A store is a
// directory:
//
//	holdfast.json               what this is, in which version
//	.chunks/                    the chunk store (package chunkstore/pack)
//	.tmp/                       snapshots being written, and what is being removed
//	.trash/                     snapshots that were removed and can be brought back
//	clock                       the time that counts for them
//	.resume/                    which chunks unfinished sessions have received
//	{vm,ct,host}/ID/owner       who a backup group belongs to
//	{vm,ct,host}/ID/notes       the comment of the group
//	{vm,ct,host}/ID/TIME/       finished snapshots of the root namespace
//	ns/NAME/…                   the same again for each namespace
//
// What it promises: a snapshot is listed if and only if it is complete and
// durable, its place in the tree included. It is written in .tmp and gets its
// place by renames (appear.go says how), after the chunk store has made every
// chunk durable and every reference of every index has been looked up. What a
// killed process left in .tmp is removed when the store is next opened for
// writing.
//
// A snapshot that is removed is in the trash, whole, until the trash time of the
// store has passed on a clock that no wall clock can hurry. It keeps its chunks.
// It is never in the tree and in the trash, and never in neither, but for the
// moment in which it comes back. One function deletes what is in either.
//
// A session is embedded, of a caller that is trusted, or foreign: then plain
// chunks are compared with their names. A plain chunk and an encrypted one of one
// name are two chunks, and of encrypted ones each owner has a copy, so that no
// session can put anything in the place of what another has sent.
//
// Who may run beside whom, in one process that has the store open for writing:
//
//	         list  read  session  change  forget  restore
//	list     yes   yes   yes      yes     yes     yes
//	read           yes   yes      yes     (1)     yes
//	session              *        yes     (2)     (3)
//	change                        **      **      **
//	forget                                **      **
//	restore                                       **
//
//	change   notes, owner, protection, verification and log
//	forget   removing snapshots, groups and namespaces
//	restore  bringing snapshots back from the trash, and emptying it
//	*        one to a group, until it is finished
//	**       one after the other for each snapshot and each group
//	(1)      not the snapshot that is read
//	(2)      not the snapshot that it builds on, nor its whole group
//	(3)      nothing comes back to a group that is being written to
//
// What is not allowed is refused with wire.ErrBusy. Emptying the trash goes
// beside everything.
//
// Other processes can list at any time, which takes no lock: the tree is
// consistent at every moment, and what they find there is durable. Only a mark,
// notes or an owner they may see a moment before it is. Reading chunks takes the
// chunk store's lock shared, everything else takes it alone; so another process
// can read while no process writes.
package datastore

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"holdfast/chunkstore"
	"holdfast/chunkstore/durable"
	"holdfast/chunkstore/pack"
	"holdfast/datastore/wire"
)

// Names in the directory of a store.
const (
	configName = "holdfast.json"
	chunksDir  = ".chunks"
	tempDir    = ".tmp"
	resumeDir  = ".resume"
	resumeName = "resume" // in the directory of a session
	nsDir      = "ns"
)

// formatVersion is the version of the layout that this package writes.
const formatVersion = 1

// config is the content of holdfast.json.
type config struct {
	Format  int    `json:"holdfast-store"`
	Created string `json:"created"`
	// Check is Format again, so that a flipped bit is not taken for a store of
	// a newer program.
	Check int `json:"check"`
	// TrashDays is how long removed snapshots can be brought back; nil is the
	// default.
	TrashDays *int `json:"trash-days,omitempty"`
	// TrashCheck is TrashDays again, for the same reason as Check. Files of
	// older programs do not have it.
	TrashCheck *int `json:"trash-check,omitempty"`
}

// newConfig describes a store that is made now. trashDays may be nil.
func newConfig(trashDays *int) config {
	return config{
		Format: formatVersion, Check: formatVersion, Created: time.Now().UTC().Format(time.RFC3339),
		TrashDays: trashDays, TrashCheck: trashDays,
	}
}

// whole reports whether what is there twice is the same.
func (c config) whole() bool {
	if c.TrashCheck != nil && (c.TrashDays == nil || *c.TrashDays != *c.TrashCheck) {
		return false
	}
	return c.Format >= 1 && c.Check == c.Format
}

// TrashDaysDefault is the trash time of a store that nothing else was said
// about, in days.
const TrashDaysDefault = 7

func (c config) trashDays() int {
	if c.TrashDays == nil {
		return TrashDaysDefault
	}
	return *c.TrashDays
}

// configMax caps how much of holdfast.json is read, in bytes.
const configMax = 64 << 10

// ErrNoStore is returned for a directory that holds no store.
var ErrNoStore = wire.ErrNoStore

// ErrConfig is wrapped, with chunkstore.ErrCorrupt, when the configuration of a
// store that is there cannot be read.
var ErrConfig = errors.New("the configuration " + configName + " is lost or damaged, holdfast repair makes it anew")

// Options says how to open a store.
type Options struct {
	// ReadOnly opens for listing and reading.
	ReadOnly bool
	// LockWait is how long to wait for a store that another process has
	// open; 0 means not at all.
	LockWait time.Duration
	// Notify, if set, gets a line of text about what a person should know:
	// a catalogue that was rebuilt, a pack that is missing.
	Notify func(message string)
	// Now reads the clock; nil is time.Now. Times with a monotonic reading
	// are compared by it.
	Now func() time.Time
	// Uptime is boot.Uptime, or stands for it. If it is nil and Now is set,
	// nothing is known of starts of the machine.
	Uptime func() (id string, since time.Duration)
	// Turns are for the manifests of the store; nil are a few for everybody.
	Turns Turns
}

// Store is an open store. All methods but Close are safe for concurrent use.
type Store struct {
	path  string
	root  *os.Root
	opts  Options
	locks *locks
	// tree is held while namespaces come and go, and shared while a group is
	// made in one.
	tree sync.RWMutex
	// making is held while a namespace is made, and shared by those who list
	// them.
	making sync.RWMutex
	proofs *prover
	turns  Turns // for manifests
	// counted is what snapshots count.
	counted *counted

	trashTime time.Duration
	clock     *clock
	// returns is held while a snapshot goes back from the trash to the tree,
	// and shared while somebody looks for snapshots in both.
	returns sync.RWMutex
	// leaving is held shared while a snapshot leaves for good, until that is
	// durable.
	leaving  sync.RWMutex
	lists    lists
	claims   claims
	removals atomic.Uint32     // entries made in the trash by this process
	onStep   func(name string) // set by tests

	mu     sync.Mutex
	chunks *pack.Store // opened when first needed if read-only
}

var (
	_ wire.Source  = (*Store)(nil)
	_ wire.Target  = (*Store)(nil)
	_ wire.Manager = (*Store)(nil)
)

// CreateOptions say what store to make.
type CreateOptions struct {
	// TrashDays is for how many days removed snapshots can be brought back; 0
	// removes them at once.
	TrashDays int
}

// Create makes a new, empty store at path, which must be an empty directory or
// not exist, and lie within no other store. What a Create that was killed has left counts as empty.
func Create(path string, o CreateOptions) error {
	if o.TrashDays < 0 || o.TrashDays > wire.TrashDaysMax {
		return fmt.Errorf("create store: a trash time of %d days, want 0 to %d: %w", o.TrashDays, wire.TrashDaysMax, chunkstore.ErrInvalid)
	}
	if err := errors.Join(checkOutside(path), checkVacant(path)); err != nil {
		return fmt.Errorf("create store: %w", err)
	}
	_, absent := os.Lstat(path)
	if err := durable.MkdirAll(path, 0o700); err != nil {
		return fmt.Errorf("create store: %w", noSpace(err))
	}
	if err := probe(path); err != nil {
		if absent != nil {
			_ = os.Remove(path) // it was made just now
		}
		return fmt.Errorf("create store: %w", err)
	}
	if err := os.RemoveAll(filepath.Join(path, chunksDir)); err != nil {
		return fmt.Errorf("create store: %w", err)
	}
	for _, dir := range []string{chunksDir, tempDir} {
		if err := durable.MkdirAll(filepath.Join(path, dir), 0o700); err != nil {
			return fmt.Errorf("create store: %w", noSpace(err))
		}
	}
	if err := pack.Create(filepath.Join(path, chunksDir)); err != nil {
		return fmt.Errorf("create store: %w", noSpace(err))
	}
	raw, err := json.Marshal(newConfig(&o.TrashDays))
	if err != nil {
		return fmt.Errorf("create store: %w", err)
	}
	// Last, because its presence makes the directory a store.
	if err := durable.WriteFile(filepath.Join(path, configName), append(raw, '\n'), 0o600); err != nil {
		return fmt.Errorf("create store: %w", noSpace(err))
	}
	return nil
}

// checkVacant returns nil if a store may be made at path: there is nothing, or
// only what a store has before its first chunk and its configuration, or what
// file systems and file managers put everywhere.
func checkVacant(path string) error {
	names, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, n := range names {
		if n.Name() == configName {
			return fmt.Errorf("%s is one: %w", path, wire.ErrExists)
		}
		if n.Name() != chunksDir && n.Name() != tempDir && !durable.IsTemp(n.Name()) && !isLitter(n.Name()) {
			return fmt.Errorf("%s is not empty: %w", path, wire.ErrExists)
		}
	}
	packs, err := os.ReadDir(filepath.Join(path, chunksDir, "packs"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(packs) > 0 {
		return fmt.Errorf("%s holds packs of a store whose %s is lost: %w", path, configName, wire.ErrExists)
	}
	return nil
}

// hasPacks reports whether there are packs at path, of a store that has lost
// something else, then.
func hasPacks(path string) bool {
	packs, err := os.ReadDir(filepath.Join(path, chunksDir, "packs"))
	return err == nil && len(packs) > 0
}

func readConfig(path string) (config, error) {
	var c config
	f, err := durable.Open(filepath.Join(path, configName))
	if errors.Is(err, fs.ErrNotExist) && hasPacks(path) {
		return c, fmt.Errorf("open store %s: %w: %w", path, ErrConfig, chunkstore.ErrCorrupt)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return c, fmt.Errorf("open store %s: %w", path, ErrNoStore)
	}
	if err != nil {
		return c, fmt.Errorf("open store: %w", err)
	}
	defer f.Close()
	raw, err := durable.ReadCapped(f, configMax)
	if err != nil {
		return c, fmt.Errorf("open store: %w", err)
	}
	if err := json.Unmarshal(raw, &c); err != nil || !c.whole() {
		return c, fmt.Errorf("open store: %s: %w: %w", f.Name(), ErrConfig, chunkstore.ErrCorrupt)
	}
	if days := c.trashDays(); days < 0 || days > wire.TrashDaysMax {
		return c, fmt.Errorf("open store: %s: a trash time of %d days, want 0 to %d: %w: %w", f.Name(), days, wire.TrashDaysMax, ErrConfig, chunkstore.ErrCorrupt)
	}
	if c.Format > formatVersion {
		return c, fmt.Errorf("open store: %s: its format %d is newer than this program's %d: %w", f.Name(), c.Format, formatVersion, chunkstore.ErrInvalid)
	}
	return c, nil
}

// Open opens a store. For writing it waits for, and then holds, the lock, and
// removes what a killed session left.
func Open(ctx context.Context, path string, o Options) (*Store, error) {
	conf, err := readConfig(path)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	s := &Store{path: path, root: root, opts: o, locks: newLocks(), turns: o.Turns, counted: newCounted(), trashTime: time.Duration(conf.trashDays()) * 24 * time.Hour}
	if s.turns == nil {
		s.turns = make(fewTurns, manifestsAtOnce)
	}
	s.clock = newClock(filepath.Join(path, clockName), o.Now, o.Uptime)
	if s.proofs, err = newProver(); err != nil {
		return nil, errors.Join(fmt.Errorf("open store: %w", err), root.Close())
	}
	if !o.ReadOnly {
		if _, err := s.chunkStore(ctx); err != nil {
			return nil, errors.Join(err, root.Close())
		}
	}
	if err := s.begin(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if o.ReadOnly {
		s.settlePending(ctx)
	}
	return s, nil
}

// begin sets the clock and, in a store that is open for writing, removes what a
// killed process left.
func (s *Store) begin() error {
	if err := s.clock.start(s.highMark); err != nil {
		return fmt.Errorf("open store %s: %w", s.path, err)
	}
	if s.opts.ReadOnly {
		return nil
	}
	if err := errors.Join(s.sweepTemp(), s.sweepTrash()); err != nil {
		return err
	}
	s.tellOwner()
	// A store may have been copied, or its file system mounted in another way.
	if err := forgiveFull(s.probeNames()); err != nil {
		return fmt.Errorf("open store for writing: %w", err)
	}
	_ = s.clock.save() // it is slow then, no more
	s.takeReserve()
	// The mark may be one that an earlier process has used: its clock was put
	// back. So the names of both must differ in the number.
	var random [4]byte
	rand.Read(random[:])
	s.removals.Store(binary.LittleEndian.Uint32(random[:]) >> 1)
	return nil
}

// sweepTemp removes what sessions of a killed process left, but for the lists
// of what they had received. What they had made durable gets its place. The lock
// is held, so none of it belongs to anybody.
func (s *Store) sweepTemp() error {
	names, err := durable.ReadDirIn(s.root, tempDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("clean up %s: %w", tempDir, err)
	}
	for _, n := range names {
		if isLitter(n.Name()) || !n.IsDir() && !durable.IsTemp(n.Name()) {
			continue // not ours
		}
		snap, ok, err := s.announced(path.Join(tempDir, n.Name()))
		if err == nil && ok {
			err = s.settle(snap)
		}
		if err != nil {
			return fmt.Errorf("clean up %s: %w", tempDir, err)
		}
		s.salvageResume(filepath.Join(tempDir, n.Name()))
		if err := s.root.RemoveAll(filepath.Join(tempDir, n.Name())); err != nil {
			return fmt.Errorf("clean up %s: %w", tempDir, err)
		}
	}
	return nil
}

// chunkStore opens the chunk store when it is first needed.
func (s *Store) chunkStore(ctx context.Context) (*pack.Store, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.chunks != nil {
		return s.chunks, nil
	}
	c, err := pack.Open(ctx, filepath.Join(s.path, chunksDir), pack.Options{
		ReadOnly: s.opts.ReadOnly, LockWait: s.opts.LockWait,
	})
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", s.path, err)
	}
	s.chunks = c
	s.notify(c.Opened())
	return c, nil
}

// writable returns the chunk store, or an error if the store was opened for
// reading.
func (s *Store) writable(ctx context.Context) (*pack.Store, error) {
	if s.opts.ReadOnly {
		return nil, fmt.Errorf("store %s was opened for reading: %w", s.path, chunkstore.ErrReadOnly)
	}
	return s.chunkStore(ctx)
}

// Path returns the directory of the store.
func (s *Store) Path() string { return s.path }

// Close releases the store and its lock. Sessions must be closed before.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	if s.chunks != nil && !s.opts.ReadOnly {
		_ = s.clock.save() // it is slow then, no more
	}
	if s.chunks != nil {
		err = s.chunks.Close()
		s.chunks = nil
	}
	return errors.Join(err, s.root.Close())
}
