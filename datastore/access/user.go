package access

import (
	"fmt"
	"unicode/utf8"

	"holdfast/chunkstore"
	"holdfast/datastore/wire"
)

// User is somebody who can log in. The realms pam and pbs both mean users of
// this file.
type User struct {
	ID        wire.AuthID `json:"userid"`
	Comment   string      `json:"comment,omitempty"`
	FirstName string      `json:"firstname,omitempty"`
	LastName  string      `json:"lastname,omitempty"`
	Email     string      `json:"email,omitempty"`
	Enabled   bool        `json:"enable"`
	// Expire is when the user stops being able to do anything, in Unix
	// seconds; 0 is never.
	Expire int64 `json:"expire"`
}

// Lengths of a password in characters (section 4.9 of the protocol
// specification).
const (
	passwordMin = 5
	passwordMax = 64
)

// Users returns all users, sorted. The caller owns the slice.
func (s *Store) Users() ([]User, error) {
	users := []User{}
	for _, r := range sorted(s.config.Load().users, userRecord.name) {
		users = append(users, r.User)
	}
	return users, nil
}

// User returns one user, or chunkstore.ErrNotExist.
func (s *Store) User(id wire.AuthID) (User, error) {
	r, ok := s.config.Load().users[id]
	if !ok {
		return User{}, notExist("user", id)
	}
	return r.User, nil
}

// CreateUser adds a user. With password "" nobody can log in as that user
// until SetPassword is called; tokens work without.
func (s *Store) CreateUser(u User, password string) error {
	if _, err := parseUser(u.ID); err != nil {
		return err
	}
	hash := ""
	if password != "" {
		var err error
		if hash, err = s.newHash(password); err != nil {
			return fmt.Errorf("create user %s: %w", u.ID, err)
		}
	}
	gen, err := newGeneration(s.random)
	if err != nil {
		return fmt.Errorf("create user %s: %w", u.ID, err)
	}
	return s.update(func(c *config) error {
		if _, ok := c.users[u.ID]; ok {
			return already("user", u.ID)
		}
		c.users[u.ID] = userRecord{User: u, Password: hash, Generation: gen}
		return nil
	})
}

// SetUser replaces everything about a user but the password. Disabling a user
// also makes the tickets worthless that were handed out before, should the
// user be enabled again. root@pam cannot be disabled.
func (s *Store) SetUser(u User) error {
	return s.ChangeUser(u.ID, func(now *User) error {
		*now = u
		return nil
	})
}

// ChangeUser is SetUser for who changes a part: change gets the user as it is, and
// nobody else changes it until change has returned. An error of change is returned,
// and nothing is changed then. The ID stays what it is.
func (s *Store) ChangeUser(id wire.AuthID, change func(*User) error) error {
	gen, err := newGeneration(s.random)
	if err != nil {
		return fmt.Errorf("change user %s: %w", id, err)
	}
	return s.update(func(c *config) error {
		r, ok := c.users[id]
		if !ok {
			return notExist("user", id)
		}
		u := r.User
		if err := change(&u); err != nil {
			return err
		}
		if !u.Enabled {
			r.Generation = gen
		}
		u.ID = id
		r.User = u
		c.users[id] = r
		return nil
	})
}

// RemoveUser removes a user with all tokens, ACLs and quotas of theirs.
// root@pam cannot be removed.
func (s *Store) RemoveUser(id wire.AuthID) error {
	return s.update(func(c *config) error {
		if _, ok := c.users[id]; !ok {
			return notExist("user", id)
		}
		delete(c.users, id)
		for t := range c.tokens {
			if t.User() == id {
				delete(c.tokens, t)
			}
		}
		c.drop(func(a wire.AuthID) bool { return a.User() == id })
		return nil
	})
}

// SetPassword gives a user a new password and makes all tickets worthless
// that were handed out before.
func (s *Store) SetPassword(id wire.AuthID, password string) error {
	if _, err := s.User(id); err != nil {
		return err
	}
	hash, err := s.newHash(password)
	if err != nil {
		return fmt.Errorf("password of %s: %w", id, err)
	}
	gen, err := newGeneration(s.random)
	if err != nil {
		return fmt.Errorf("password of %s: %w", id, err)
	}
	return s.update(func(c *config) error {
		r, ok := c.users[id]
		if !ok {
			return notExist("user", id)
		}
		r.Password, r.Generation = hash, gen
		c.users[id] = r
		return nil
	})
}

// newHash checks a new password and hashes it.
func (s *Store) newHash(password string) (string, error) {
	if n := utf8.RuneCountInString(password); n < passwordMin || n > passwordMax {
		return "", fmt.Errorf("want %d to %d characters: %w", passwordMin, passwordMax, chunkstore.ErrInvalid)
	}
	return s.hashes.hash(password, s.random)
}
