package access

import (
	"bytes"
	"cmp"
	"crypto/hmac"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"holdfast/chunkstore"
	"holdfast/crypto"
	"holdfast/datastore/wire"
)

// Limits of the configuration, so that no list grows without bound and what
// Export writes is never more than what Import reads.
const (
	entriesMax    = 10000 // of each list
	datastoresMax = 1000
	secretLen     = 32 // bytes of the secret behind tickets
	generationLen = 16
)

// config is everything the file holds. One that was sealed is never changed
// again.
type config struct {
	secret []byte
	users  map[wire.AuthID]userRecord
	tokens map[wire.AuthID]tokenRecord
	acls   map[aclKey]bool // the value says whether it propagates
	stores map[string]Datastore
	quotas map[string]Quota

	// What seal works out:
	rows                map[row]string
	digest              string
	grants              map[wire.AuthID]map[string]grant
	ticketKey, guardKey []byte
	replaced            chan struct{} // closed when another one is in use
}

// userRecord is a user as it is kept.
type userRecord struct {
	User
	// Password is an argon2id hash in its text form, "" if there is none.
	Password string `json:"password,omitempty"`
	// Generation is random and goes into the signature of the user's
	// tickets: a new one makes them worthless.
	Generation string `json:"generation"`
	// Ended are the lines of tickets that the user has logged out of, in hex,
	// as long as there can be tickets of theirs.
	Ended []string `json:"ended,omitempty"`
}

// tokenRecord is a token as it is kept.
type tokenRecord struct {
	Token
	// Secret is the SHA-256 of the secret, in hex.
	Secret string `json:"secret-sha256"`
}

func (r userRecord) name() string  { return string(r.ID) }
func (r tokenRecord) name() string { return string(r.ID) }

type aclKey struct {
	path string
	id   wire.AuthID
	role string
}

// newConfig is what a new file holds.
func newConfig(random *source) (*config, error) {
	c := &config{secret: make([]byte, secretLen), users: map[wire.AuthID]userRecord{}}
	if err := random.read(c.secret); err != nil {
		return nil, err
	}
	gen, err := newGeneration(random)
	if err != nil {
		return nil, err
	}
	c.users[wire.RootUser] = userRecord{User: User{ID: wire.RootUser, Enabled: true}, Generation: gen}
	return c, c.seal()
}

func newGeneration(random *source) (string, error) {
	b := make([]byte, generationLen)
	if err := random.read(b); err != nil {
		return "", err
	}
	return base64.RawStdEncoding.EncodeToString(b), nil
}

// clone copies what may be changed.
func (c *config) clone() *config {
	return &config{
		secret: c.secret,
		users:  maps.Clone(c.users),
		tokens: maps.Clone(c.tokens),
		acls:   maps.Clone(c.acls),
		stores: maps.Clone(c.stores),
		quotas: maps.Clone(c.quotas),
	}
}

// seal checks the whole configuration and works out what is derived from it.
func (c *config) seal() error {
	c.fill()
	if err := c.check(); err != nil {
		return err
	}
	c.ticketKey = mac(c.secret, "holdfast ticket")
	c.guardKey = mac(c.secret, "holdfast csrf")
	c.grants = grantsOf(c.acls)
	c.replaced = make(chan struct{})
	var err error
	if c.rows, err = c.encode(); err != nil {
		return err
	}
	c.digest = digestOf(c.rows)
	return nil
}

// fill makes the maps that are nil.
func (c *config) fill() {
	if c.users == nil {
		c.users = map[wire.AuthID]userRecord{}
	}
	if c.tokens == nil {
		c.tokens = map[wire.AuthID]tokenRecord{}
	}
	if c.acls == nil {
		c.acls = map[aclKey]bool{}
	}
	if c.stores == nil {
		c.stores = map[string]Datastore{}
	}
	if c.quotas == nil {
		c.quotas = map[string]Quota{}
	}
}

// mac is HMAC-SHA256.
func mac(key []byte, text string) []byte {
	h := hmac.New(crypto.NewHash, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

// encode returns the rows of the file.
func (c *config) encode() (map[row]string, error) {
	rows := map[row]string{}
	put := func(bucket, key string, v any) error {
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		if err := e.Encode(v); err != nil {
			return fmt.Errorf("encode %s: %w", bucket, err)
		}
		rows[row{bucket, key}] = b.String()
		return nil
	}
	d := c.document()
	err := put(bucketMeta, keySecret, c.secret)
	for _, r := range d.Users {
		err = cmp.Or(err, put(bucketUsers, string(r.ID), r))
	}
	for _, r := range d.Tokens {
		err = cmp.Or(err, put(bucketTokens, string(r.ID), r))
	}
	for _, r := range d.ACLs {
		err = cmp.Or(err, put(bucketACLs, r.rowKey(), r))
	}
	for _, r := range d.Datastores {
		err = cmp.Or(err, put(bucketStores, r.Name, r))
	}
	for _, r := range d.Quotas {
		err = cmp.Or(err, put(bucketQuotas, r.Subject, r))
	}
	return rows, err
}

// digestOf hashes everything but what belongs to the file alone.
func digestOf(rows map[row]string) string {
	h := crypto.NewHash()
	for _, k := range slices.SortedFunc(maps.Keys(rows), row.compare) {
		if k.bucket != bucketMeta {
			fmt.Fprintf(h, "%s\x00%q\x00%s", k.bucket, k.key, rows[k])
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// active tells whether a user or token can be used at all at a time in Unix
// seconds: it exists, is enabled and not expired, and so is its user.
func (c *config) active(id wire.AuthID, now int64) bool {
	u, ok := c.users[id.User()]
	if !ok || !u.Enabled || u.Expire != 0 && now >= u.Expire {
		return false
	}
	if _, isToken := id.Token(); !isToken {
		return true
	}
	t, ok := c.tokens[id]
	return ok && t.Enabled && (t.Expire == 0 || now < t.Expire)
}

// drop removes the ACL entries and quotas of everybody that gone accepts.
func (c *config) drop(gone func(wire.AuthID) bool) {
	maps.DeleteFunc(c.acls, func(k aclKey, _ bool) bool { return gone(k.id) })
	maps.DeleteFunc(c.quotas, func(subject string, _ Quota) bool { return gone(wire.AuthID(subject)) })
}

// exists tells whether a user or token is in the file, usable or not.
func (c *config) exists(id wire.AuthID) bool {
	_, user := c.users[id]
	_, token := c.tokens[id]
	return user || token
}

func notExist(what string, name any) error {
	return fmt.Errorf("%s %v: %w", what, name, chunkstore.ErrNotExist)
}

func already(what string, name any) error {
	return fmt.Errorf("%s %v: %w", what, name, wire.ErrExists)
}

func invalid(what string, name any, why string) error {
	return fmt.Errorf("%s %v: %s: %w", what, name, why, chunkstore.ErrInvalid)
}
