package access

import (
	"encoding/hex"
	"fmt"

	"holdfast/crypto"
	"holdfast/datastore/wire"
)

// Token is a credential of a user for a machine. It has only the rights that
// ACLs give to itself, and of these only those that its user has as well.
type Token struct {
	ID      wire.AuthID `json:"tokenid"`
	Comment string      `json:"comment,omitempty"`
	Enabled bool        `json:"enable"`
	// Expire is in Unix seconds; 0 is never.
	Expire int64 `json:"expire"`
}

// Tokens returns the tokens of a user, sorted; a user who does not exist is
// chunkstore.ErrNotExist. The caller owns the slice.
func (s *Store) Tokens(user wire.AuthID) ([]Token, error) {
	c := s.config.Load()
	if _, ok := c.users[user]; !ok {
		return nil, notExist("user", user)
	}
	tokens := []Token{}
	for _, r := range sorted(c.tokens, tokenRecord.name) {
		if r.ID.User() == user {
			tokens = append(tokens, r.Token)
		}
	}
	return tokens, nil
}

// Token returns one token, or chunkstore.ErrNotExist.
func (s *Store) Token(id wire.AuthID) (Token, error) {
	r, ok := s.config.Load().tokens[id]
	if !ok {
		return Token{}, notExist("token", id)
	}
	return r.Token, nil
}

// CreateToken adds a token to a user who exists and returns its secret, which
// is kept nowhere.
func (s *Store) CreateToken(t Token) (secret string, err error) {
	secret, hash, err := s.newSecret()
	if err != nil {
		return "", fmt.Errorf("create token %s: %w", t.ID, err)
	}
	err = s.update(func(c *config) error {
		if _, ok := c.tokens[t.ID]; ok {
			return already("token", t.ID)
		}
		c.tokens[t.ID] = tokenRecord{Token: t, Secret: hash}
		return nil
	})
	if err != nil {
		return "", err
	}
	return secret, nil
}

// SetToken replaces everything about a token but the secret.
func (s *Store) SetToken(t Token) error {
	return s.ChangeToken(t.ID, func(now *Token) { *now = t })
}

// ChangeToken is SetToken for who changes a part: change gets the token as it is, and
// nobody else changes it until change has returned. The ID stays what it is.
func (s *Store) ChangeToken(id wire.AuthID, change func(*Token)) error {
	return s.update(func(c *config) error {
		r, ok := c.tokens[id]
		if !ok {
			return notExist("token", id)
		}
		change(&r.Token)
		r.ID = id
		c.tokens[id] = r
		return nil
	})
}

// RegenerateToken gives a token a new secret and returns it. The old one does
// not work any more.
func (s *Store) RegenerateToken(id wire.AuthID) (string, error) {
	secret, hash, err := s.newSecret()
	if err != nil {
		return "", fmt.Errorf("new secret of token %s: %w", id, err)
	}
	err = s.update(func(c *config) error {
		r, ok := c.tokens[id]
		if !ok {
			return notExist("token", id)
		}
		r.Secret = hash
		c.tokens[id] = r
		return nil
	})
	if err != nil {
		return "", err
	}
	return secret, nil
}

// RevokeToken removes a token with its ACLs and quotas, so that a later token
// of the same name has no rights.
func (s *Store) RevokeToken(id wire.AuthID) error {
	return s.update(func(c *config) error {
		if _, ok := c.tokens[id]; !ok {
			return notExist("token", id)
		}
		delete(c.tokens, id)
		c.drop(func(a wire.AuthID) bool { return a == id })
		return nil
	})
}

// newSecret makes the secret of a token, a UUID of version 4 as text, and the
// hash that is kept. The 122 random bits of a UUID are far beyond guessing,
// so a fast hash does.
func (s *Store) newSecret() (secret, hash string, err error) {
	var b [16]byte
	if err := s.random.read(b[:]); err != nil {
		return "", "", err
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	secret = fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
	return secret, hashSecret(secret), nil
}

// hashSecret is how the secret of a token is kept.
func hashSecret(secret string) string {
	sum := crypto.Sum([]byte(secret))
	return hex.EncodeToString(sum[:])
}
