package access

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"holdfast/chunkstore"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
)

// Limits of single values.
const (
	textMax = 256  // bytes of a comment, a name, an address
	pathMax = 4095 // bytes of the directory of a datastore
)

// check finds whatever is wrong with a configuration. Every change passes
// through it, an import and the reading of the file too.
func (c *config) check() error {
	if len(c.secret) != secretLen {
		return fmt.Errorf("secret of tickets: want %d bytes, got %d: %w", secretLen, len(c.secret), chunkstore.ErrInvalid)
	}
	if err := c.checkCounts(); err != nil {
		return err
	}
	if root, ok := c.users[wire.RootUser]; !ok || !root.Enabled || root.Expire != 0 {
		return invalid("user", wire.RootUser, "must exist, be enabled and never expire")
	}
	for _, check := range []func() error{c.checkUsers, c.checkTokens, c.checkACLs, c.checkStores, c.checkQuotas} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (c *config) checkCounts() error {
	for _, l := range []struct {
		what      string
		got, most int
	}{
		{"users", len(c.users), entriesMax},
		{"tokens", len(c.tokens), entriesMax},
		{"ACL entries", len(c.acls), entriesMax},
		{"datastores", len(c.stores), datastoresMax},
		{"quotas", len(c.quotas), entriesMax},
	} {
		if l.got > l.most {
			return fmt.Errorf("%d %s, at most %d: %w", l.got, l.what, l.most, chunkstore.ErrInvalid)
		}
	}
	return nil
}

func (c *config) checkUsers() error {
	for id, u := range c.users {
		if _, err := parseUser(id); err != nil {
			return err
		}
		if err := u.check(); err != nil {
			return err
		}
		if u.Password != "" {
			if _, err := parseHash(u.Password); err != nil {
				return invalid("user", id, "password hash: "+err.Error())
			}
		}
		if b, err := base64.RawStdEncoding.Strict().DecodeString(u.Generation); err != nil || len(b) != generationLen {
			return invalid("user", id, fmt.Sprintf("generation is not the base64 of %d bytes", generationLen))
		}
		if err := checkEnded(u.Ended); err != nil {
			return invalid("user", id, err.Error())
		}
	}
	return nil
}

// checkEnded checks the lines of tickets that a user has logged out of.
func checkEnded(lines []string) error {
	if len(lines) > endedMax {
		return fmt.Errorf("%d ended tickets, the limit is %d", len(lines), endedMax)
	}
	for _, e := range lines {
		if _, err := parseLine(e); err != nil {
			return errors.New("an ended ticket is not in the form of one")
		}
	}
	return nil
}

// parseUser checks the name of a user of this file. Tickets go into cookies,
// so a name holds nothing that would have to be encoded there.
func parseUser(id wire.AuthID) (wire.AuthID, error) {
	if _, err := wire.ParseAuthID(string(id)); err != nil {
		return "", err
	}
	switch _, isToken := id.Token(); {
	case isToken:
		return "", fmt.Errorf("user %q: is an API token: %w", id, wire.ErrName)
	case strings.ContainsAny(string(id), `;%,"\`) || !isPrintable(string(id)):
		return "", fmt.Errorf(`user %q: use printable characters, and none of ";", "%%", ",", a quote and a backslash: %w`, id, wire.ErrName)
	case id.Realm() != "pam" && id.Realm() != "pbs":
		return "", invalid("user", id, "the realms here are pam and pbs")
	}
	return id, nil
}

// parseToken checks the name of a token.
func parseToken(id wire.AuthID) error {
	_, isToken := id.Token()
	if _, err := wire.ParseAuthID(string(id)); err != nil {
		return err
	}
	if !isToken {
		return fmt.Errorf("token %q: want USER@REALM!NAME: %w", id, wire.ErrName)
	}
	return nil
}

func isPrintable(s string) bool {
	return utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || unicode.IsSpace(r) }) < 0
}

// checkText checks free text of one line.
func checkText(what, s string) error {
	if len(s) > textMax {
		return fmt.Errorf("%s: longer than %d bytes: %w", what, textMax, chunkstore.ErrInvalid)
	}
	if !utf8.ValidString(s) || strings.IndexFunc(s, unicode.IsControl) >= 0 {
		return fmt.Errorf("%s: want one line of UTF-8 without control characters: %w", what, chunkstore.ErrInvalid)
	}
	return nil
}

func (u User) check() error {
	for _, f := range [][2]string{{"comment", u.Comment}, {"first name", u.FirstName}, {"last name", u.LastName}, {"email", u.Email}} {
		if err := checkText(f[0]+" of user "+string(u.ID), f[1]); err != nil {
			return err
		}
	}
	if u.Expire < 0 {
		return invalid("user", u.ID, "expires before 1970")
	}
	return nil
}

func (c *config) checkTokens() error {
	for id, t := range c.tokens {
		if err := parseToken(id); err != nil {
			return err
		}
		if _, ok := c.users[id.User()]; !ok {
			return fmt.Errorf("token %s: %w", id, notExist("user", id.User()))
		}
		if err := checkText("comment of token "+string(id), t.Comment); err != nil {
			return err
		}
		if t.Expire < 0 {
			return invalid("token", id, "expires before 1970")
		}
		if b, err := hex.DecodeString(t.Secret); err != nil || len(b) != 32 || strings.ToLower(t.Secret) != t.Secret {
			return invalid("token", id, "secret is not a SHA-256 in lower-case hex")
		}
	}
	return nil
}

func (c *config) checkACLs() error {
	for k := range c.acls {
		if p, err := parsePath(k.path); err != nil {
			return err
		} else if p != k.path {
			return fmt.Errorf("ACL path %q: want %q: %w", k.path, p, wire.ErrName)
		}
		if _, err := api.ParseRole(k.role); err != nil {
			return err
		}
		if !c.exists(k.id) {
			return fmt.Errorf("ACL on %s: %w", k.path, notExist("user or token", k.id))
		}
	}
	return nil
}

func (c *config) checkStores() error {
	var paths []string
	for _, d := range c.stores {
		if err := d.check(); err != nil {
			return err
		}
		paths = append(paths, d.Path)
	}
	// With a separator behind it a directory sorts right before all that it
	// holds.
	for i := range paths {
		paths[i] = strings.TrimSuffix(paths[i], "/") + "/"
	}
	slices.Sort(paths)
	for i := 1; i < len(paths); i++ {
		if strings.HasPrefix(paths[i], paths[i-1]) {
			return fmt.Errorf("datastore at %s: %s is a datastore: %w", filepath.Clean(paths[i]), filepath.Clean(paths[i-1]), wire.ErrExists)
		}
	}
	return nil
}

func (d Datastore) check() error {
	if err := checkStoreName(d.Name); err != nil {
		return err
	}
	if len(d.Path) > pathMax || !filepath.IsAbs(d.Path) || filepath.Clean(d.Path) != d.Path {
		return invalid("datastore", d.Name, fmt.Sprintf("path must be absolute, clean and at most %d bytes long", pathMax))
	}
	if !utf8.ValidString(d.Path) || strings.IndexFunc(d.Path, unicode.IsControl) >= 0 {
		return invalid("datastore", d.Name, "path holds a control character or is no UTF-8")
	}
	switch d.Maintenance {
	case "", api.MaintenanceReadOnly, api.MaintenanceOffline:
	default:
		return invalid("datastore", d.Name, "maintenance is neither read-only nor offline")
	}
	return checkText("comment of datastore "+d.Name, d.Comment)
}

// checkStoreName checks the name of a datastore (section 8.1 of the protocol
// specification).
func checkStoreName(name string) error {
	if err := wire.CheckSafeID("datastore", name); err != nil {
		return err
	}
	if len(name) < 3 || len(name) > 32 {
		return fmt.Errorf("datastore %q: want 3 to 32 characters: %w", name, wire.ErrName)
	}
	return nil
}

func (c *config) checkQuotas() error {
	for subject := range c.quotas {
		if !strings.HasPrefix(subject, "/") {
			if !c.exists(wire.AuthID(subject)) {
				return fmt.Errorf("quota: %w", notExist("user or token", subject))
			}
			continue
		}
		if p, err := parsePath(subject); err != nil {
			return err
		} else if p != subject || !strings.HasPrefix(p, "/datastore/") {
			return fmt.Errorf("quota on %q: want a path below /datastore: %w", subject, wire.ErrName)
		}
	}
	return nil
}
