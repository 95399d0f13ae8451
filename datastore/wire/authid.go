package wire

import (
	"fmt"
	"strings"
)

// AuthID is who asks: a user, "name@realm", or one of its API tokens,
// "name@realm!token" (section 7.1 of the protocol specification).
type AuthID string

// RootUser is the superuser. Its tokens are not.
const RootUser AuthID = "root@pam"

// Limits of an auth-id, in bytes (section 8.1 of the protocol specification).
const (
	authIDMin = 3
	authIDMax = 64
)

// ParseAuthID checks a user or token against the grammar. Errors wrap ErrName
// and do not repeat more than the name.
func ParseAuthID(s string) (AuthID, error) {
	if why := authIDFault(s); why != "" {
		return "", nameError("user or token", s, why)
	}
	return AuthID(s), nil
}

// authIDFault says what is wrong with an auth-id, "" if nothing is.
func authIDFault(s string) string {
	if len(s) < authIDMin || len(s) > authIDMax {
		return fmt.Sprintf("want %d to %d characters", authIDMin, authIDMax)
	}
	at := strings.LastIndexByte(s, '@')
	if at < 1 {
		return "want NAME@REALM, for example root@pam"
	}
	name := s[:at]
	if strings.ContainsAny(name, ":/ !") || strings.IndexFunc(name, isControl) >= 0 {
		return `a user's name holds no space, no control character and none of ":", "/" and "!"`
	}
	realm, token, isToken := strings.Cut(s[at+1:], "!")
	if len(realm) < 2 || len(realm) > 32 || CheckSafeID("realm", realm) != nil {
		return fmt.Sprintf("realm %q: want 2 to 32 letters, digits, \"_\", \".\" or \"-\"", realm)
	}
	if isToken && (token == "" || CheckSafeID("token", token) != nil) {
		return fmt.Sprintf("token name %q: use letters, digits, \"_\", \".\" and \"-\"", token)
	}
	return ""
}

// User returns the user, without the name of a token.
func (a AuthID) User() AuthID {
	user, _, _ := strings.Cut(string(a), "!")
	return AuthID(user)
}

// Token returns the name of the token; ok is false for a user.
func (a AuthID) Token() (name string, ok bool) {
	_, name, ok = strings.Cut(string(a), "!")
	return name, ok
}

// Realm returns what stands between "@" and the token.
func (a AuthID) Realm() string {
	user := string(a.User())
	return user[strings.LastIndexByte(user, '@')+1:]
}

// Owns reports whether a counts as the owner of what belongs to owner: it is
// the same, or a is a user and owner one of its tokens. A token does not own
// what belongs to its user (section 7.4 of the protocol specification).
func (a AuthID) Owns(owner AuthID) bool {
	if a == owner {
		return true
	}
	_, isToken := a.Token()
	return !isToken && owner.User() == a
}
