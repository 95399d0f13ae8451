package crypto

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
)

// Sizes in bytes.
const (
	// KeySize is the length of an encryption key.
	KeySize = 32
	// IVSize is the length of the nonce of a seal; note that it is not the
	// usual 12.
	IVSize = 16
	// TagSize is the length of the tag of a seal.
	TagSize = 16
)

// Section 2.1 of the formats specification: the id key comes from the
// encryption key by ten rounds with a fixed salt. The encryption key is 32
// random bytes, so that more rounds would add nothing.
const (
	idKeySalt   = "_id_key"
	idKeyRounds = 10
)

// nonceLabel is what the key of Nonce is derived with.
const nonceLabel = "Holdfast nonce v1"

// streamSize is how much HKDF gives at most.
const streamSize = 255 * sha256.Size

// redacted stands for a secret wherever one would be printed.
const redacted = "[redacted]"

// Key is a backup encryption key with all that is derived from it. It is safe
// for concurrent use. A nil *Key is "no key": it names chunks by their plain
// SHA-256 and can do nothing else.
type Key struct {
	// An ordinary pointer would be followed when a Key is printed by value
	// or from within another struct; this one shows as an address. It is
	// set once.
	ptr atomic.Pointer[secrets]
}

func (k *Key) secrets() *secrets { return k.ptr.Load() }

type secrets struct {
	enc  [KeySize]byte
	id   [KeySize]byte
	aead cipher.AEAD
	// namers are *namer: a hash each, so that naming allocates nothing. noncers
	// are the same for nonces, with a key that is used for nothing else.
	namers  sync.Pool
	noncers sync.Pool
}

type namer struct {
	hash hash.Hash
	sum  [32]byte
}

// NewKey makes a key of 32 bytes. It keeps no reference to enc.
func NewKey(enc []byte) (*Key, error) {
	if len(enc) != KeySize {
		return nil, fmt.Errorf("encryption key: want %d bytes, got %d: %w", KeySize, len(enc), ErrFormat)
	}
	s := &secrets{}
	copy(s.enc[:], enc)
	id, err := pbkdf2.Key(sha256.New, string(enc), []byte(idKeySalt), idKeyRounds, KeySize)
	if err != nil {
		return nil, fmt.Errorf("derive the key of names: %w", err)
	}
	copy(s.id[:], id)
	clear(id)
	s.namers.New = func() any { return &namer{hash: NewHash()} }
	nonceKey, err := hkdf.Key(sha256.New, enc, nil, nonceLabel, KeySize)
	if err != nil {
		return nil, fmt.Errorf("derive the key of nonces: %w", err)
	}
	s.noncers.New = func() any { return &namer{hash: hmac.New(NewHash, nonceKey)} }
	if s.aead, err = newGCM(enc); err != nil {
		return nil, err
	}
	k := &Key{}
	k.ptr.Store(s)
	return k, nil
}

// newGCM returns AES-256-GCM with the nonce length of the formats.
func newGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("set up the cipher: %w", err)
	}
	aead, err := cipher.NewGCMWithNonceSize(block, IVSize)
	if err != nil {
		return nil, fmt.Errorf("set up the cipher: %w", err)
	}
	return aead, nil
}

// GenerateKey makes a new key from random bytes; a nil reader is the system's.
func GenerateKey(random io.Reader) (*Key, error) {
	if random == nil {
		random = rand.Reader
	}
	var enc [KeySize]byte
	defer clear(enc[:])
	if _, err := io.ReadFull(random, enc[:]); err != nil {
		return nil, fmt.Errorf("read random bytes for a key: %w", err)
	}
	return NewKey(enc[:])
}

// Name returns the name of a chunk with this content: SHA-256 over the content
// and then the id key (section 2.2 of the formats specification), or over the
// content alone if k is nil. It allocates nothing.
func (k *Key) Name(plain []byte) [32]byte {
	if k == nil {
		return Sum(plain)
	}
	s := k.secrets()
	n := s.namers.Get().(*namer)
	n.hash.Reset()
	n.hash.Write(plain)
	n.hash.Write(s.id[:])
	n.hash.Sum(n.sum[:0])
	sum := n.sum
	s.namers.Put(n)
	return sum
}

// Nonce returns the nonce to seal content with: the first IVSize bytes of HMAC-SHA-256,
// with a key derived from this one for nothing else, of kind and content. Equal contents
// have equal nonces, so that whoever has the key seals them to equal bytes, and no nonce
// ever meets two contents. It allocates nothing.
func (k *Key) Nonce(kind byte, content []byte) [IVSize]byte {
	s := k.secrets()
	n := s.noncers.Get().(*namer)
	n.hash.Reset()
	n.sum[0] = kind
	n.hash.Write(n.sum[:1])
	n.hash.Write(content)
	n.hash.Sum(n.sum[:0])
	iv := [IVSize]byte(n.sum[:IVSize])
	s.noncers.Put(n)
	return iv
}

// Fingerprint returns the fingerprint of the key (section 2.3 of the formats
// specification).
func (k *Key) Fingerprint() Fingerprint {
	constant := Sum([]byte(fingerprintInput))
	return Sum(append(constant[:], k.secrets().id[:]...))
}

// Sign returns the authentication tag of msg (section 2.4 of the formats
// specification).
func (k *Key) Sign(msg []byte) [32]byte {
	mac := hmac.New(sha256.New, k.secrets().id[:])
	mac.Write(msg)
	return [32]byte(mac.Sum(nil))
}

// CheckSignature reports whether tag is the tag of msg, in constant time.
func (k *Key) CheckSignature(msg []byte, tag [32]byte) bool {
	want := k.Sign(msg)
	return hmac.Equal(want[:], tag[:])
}

// Seal encrypts plain with AES-256-GCM and appends ciphertext and then the tag
// (TagSize bytes) to dst. iv has IVSize bytes and must never be used for two contents
// (see Nonce).
// plain may be the very bytes that follow dst in its array: then it is
// encrypted in place. With room for len(plain)+TagSize bytes in dst nothing is
// allocated.
func (k *Key) Seal(dst, iv, plain []byte) []byte {
	return k.secrets().aead.Seal(dst, iv, plain, nil)
}

// Open checks tag, decrypts ciphertext and appends the content to dst. dst
// must not overlap the other slices; with room for len(ciphertext)+TagSize
// bytes in it nothing is allocated. A tag that does not fit is ErrTampered,
// and then nothing of the content is left in dst.
func (k *Key) Open(dst, iv, tag, ciphertext []byte) ([]byte, error) {
	if len(iv) != IVSize || len(tag) != TagSize {
		return nil, fmt.Errorf("nonce of %d and tag of %d bytes, want %d and %d: %w", len(iv), len(tag), IVSize, TagSize, ErrFormat)
	}
	head := len(dst)
	buf := append(slices.Grow(dst, len(ciphertext)+TagSize), ciphertext...)
	buf = append(buf, tag...)
	plain, err := k.secrets().aead.Open(buf[:head], iv, buf[head:], nil)
	if err != nil {
		return nil, ErrTampered
	}
	return plain, nil
}

// Stream returns bytes that depend on the key and the label and on nothing
// else: HKDF-SHA256 of the id key, without salt, the label as info. It has
// 8160 bytes, all that HKDF gives, and ends there.
func (k *Key) Stream(label string) (io.Reader, error) {
	b, err := hkdf.Key(sha256.New, k.secrets().id[:], nil, label, streamSize)
	if err != nil {
		return nil, fmt.Errorf("derive %s: %w", label, err)
	}
	return bytes.NewReader(b), nil
}

// String returns a placeholder.
func (k *Key) String() string { return redacted }

// GoString returns a placeholder.
func (k *Key) GoString() string { return redacted }

// Format writes a placeholder for every verb.
func (k *Key) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue returns a placeholder.
func (k *Key) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalJSON writes a placeholder.
func (k *Key) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// MarshalText writes a placeholder.
func (k *Key) MarshalText() ([]byte, error) { return []byte(redacted), nil }
