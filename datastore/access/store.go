// Package access knows who may do what on a server: users, API tokens, access
// control lists, tickets, quotas, and the list of datastores. It is the one
// place where a password, a ticket or a token is checked (sections 1.6 and 1.7
// of the protocol specification) and where privileges are worked out
// (section 7).
//
// Everything lies in one bbolt file that only one process has open. A change
// is a transaction: it is checked as a whole, committed, and only then seen.
// What is seen is an immutable copy in memory that is swapped after the commit,
// so that a check takes no disk access and no lock, and a revoked token, a
// disabled user or a changed password counts from the next request on.
//
// What it promises:
//
//   - passwords are kept as argon2id hashes, secrets of tokens as SHA-256;
//     neither comes out again, in no error either;
//   - comparisons of secrets take constant time, and an unknown user costs as
//     much as a wrong password;
//   - guessing is slowed down by user and by address, in bounded memory; who
//     presents a genuine ticket or token is never slowed down by others, and a
//     right password is never refused for what was tried with other names;
//   - root@pam is always there and may do everything, its tokens may not.
//
// Sentinels: chunkstore.ErrNotExist, chunkstore.ErrInvalid, wire.ErrExists,
// wire.ErrName, wire.ErrUnauthenticated; chunkstore.ErrLocked and
// chunkstore.ErrCorrupt from Open; chunkstore.ErrNoSpace and
// chunkstore.ErrReadOnly from changes.
//
// All methods are safe for concurrent use.
package access

import (
	"crypto/rand"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// Options of Open. The zero value is ready to use.
type Options struct {
	// Now is the clock, nil for the one of the system. Tickets, expiry and
	// throttling go by it.
	Now func() time.Time
	// LockWait is how long Open waits for another process to close the file.
	LockWait time.Duration
	// Random is where secrets, salts and generations come from, nil for the
	// generator of the system.
	Random io.Reader
	// Patience is how long a login is held back after too many failures before
	// it is refused; 0 is five seconds, and a negative one refuses at once.
	Patience time.Duration
	// PasswordMemory is what hashing a new password takes, in KiB, and with it how
	// hard it is to guess at one; 0 is 64 MiB.
	PasswordMemory uint32
}

// Store is an open access file.
type Store struct {
	file   *file
	now    func() time.Time
	random *source
	hashes *hasher
	brake  *brake
	ended  endedLines

	patience time.Duration

	mu     sync.Mutex // held by the one who changes
	config atomic.Pointer[config]
}

// source makes a reader of random bytes safe for concurrent use.
type source struct {
	mu sync.Mutex
	r  io.Reader
}

// read fills b.
func (s *source) read(b []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := io.ReadFull(s.r, b); err != nil {
		return fmt.Errorf("read random bytes: %w", err)
	}
	return nil
}

// Open opens the access file at path and creates it, with root@pam and a fresh
// secret for tickets, if it is not there; its directory must be. The file is
// readable for its owner only. chunkstore.ErrLocked means that another process
// has it open.
func Open(path string, o Options) (*Store, error) {
	s := &Store{now: o.Now, random: &source{r: o.Random}, hashes: newHasher(o.PasswordMemory), brake: newBrake(), ended: endedLines{list: newTable()}}
	if s.patience = o.Patience; s.patience == 0 {
		s.patience = patience
	}
	if s.now == nil {
		s.now = time.Now
	}
	if o.Random == nil {
		s.random.r = rand.Reader
	}
	fresh, err := newConfig(s.random)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	f, err := openFile(path, o.LockWait, fresh.rows)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	c, err := f.load()
	if err != nil {
		_ = f.close()
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	s.file = f
	s.config.Store(c)
	return s, nil
}

// Close releases the file. Changes are refused from then on.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.file.close()
}

// Digest returns the SHA-256 of the configuration in lower-case hex: two equal
// digests mean that nothing was changed in between.
func (s *Store) Digest() string { return s.config.Load().digest }

// update makes one change: fn works on a copy, the copy is checked as a whole,
// written, and then taken into use. After an error nothing has changed.
func (s *Store) update(fn func(*config) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.config.Load()
	next := old.clone()
	if err := fn(next); err != nil {
		return err
	}
	if err := next.seal(); err != nil {
		return err
	}
	if err := s.file.save(old.rows, next.rows); err != nil {
		return err
	}
	s.config.Store(next)
	close(old.replaced)
	return nil
}
