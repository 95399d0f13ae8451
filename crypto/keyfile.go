package crypto

import (
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/scrypt"
)

// KDF is how the passphrase of a key file becomes a key.
type KDF int

// The three ways.
const (
	// KDFNone is no passphrase: the key lies open in the file.
	KDFNone KDF = iota
	// KDFScrypt is scrypt.
	KDFScrypt
	// KDFPBKDF2 is PBKDF2-HMAC-SHA256.
	KDFPBKDF2
)

// String returns the name of the function, as users write it.
func (k KDF) String() string {
	switch k {
	case KDFNone:
		return "none"
	case KDFScrypt:
		return "scrypt"
	case KDFPBKDF2:
		return "pbkdf2"
	}
	return fmt.Sprintf("kdf %d", int(k))
}

// Limits of what a foreign key file may cost, and what a new one does cost
// (section 5.1 of the formats specification).
const (
	keyFileSizeMax = 64 << 10 // bytes
	saltSizeMax    = 1 << 10  // bytes
	hintLenMax     = 64       // characters

	passphraseLenMin = 5 // bytes

	scryptMemoryMax = 1 << 30 // bytes
	scryptPMax      = 16
	pbkdf2IterMax   = 10_000_000

	scryptN    = 1 << 16
	scryptR    = 8
	scryptP    = 1
	pbkdf2Iter = 65535
	saltSize   = 32 // bytes
)

// sealedKeySize is the length of a key in a file with passphrase: nonce, tag,
// ciphertext.
const sealedKeySize = IVSize + TagSize + KeySize

// kdfParams are the parameters of a KDF. N, R and P belong to scrypt, Iter to
// PBKDF2, Salt to both.
type kdfParams struct {
	N, R, P uint64
	Iter    uint64
	Salt    []byte
}

// check refuses parameters that cost too much; kdf says which count.
func (p kdfParams) check(kdf KDF) error {
	if len(p.Salt) > saltSizeMax {
		return fmt.Errorf("salt has %d bytes, at most %d are allowed", len(p.Salt), saltSizeMax)
	}
	switch kdf {
	case KDFScrypt:
		return p.checkScrypt()
	case KDFPBKDF2:
		if p.Iter < 1 || p.Iter > pbkdf2IterMax {
			return fmt.Errorf("iter is %d, want 1..%d", p.Iter, pbkdf2IterMax)
		}
	}
	return nil
}

func (p kdfParams) checkScrypt() error {
	const blocks = scryptMemoryMax / 128
	switch {
	case p.N < 2 || p.N&(p.N-1) != 0:
		return fmt.Errorf("n is %d, want a power of two above 1", p.N)
	case p.R < 1 || p.R > blocks:
		return fmt.Errorf("r is %d, want 1..%d", p.R, blocks)
	case p.P < 1 || p.P > scryptPMax:
		return fmt.Errorf("p is %d, want 1..%d", p.P, scryptPMax)
	case p.N > blocks/p.R:
		return fmt.Errorf("n of %d with r of %d takes more than %d MiB of memory", p.N, p.R, scryptMemoryMax>>20)
	}
	return nil
}

// derive turns a passphrase into a key. The parameters have been checked.
func (p kdfParams) derive(kdf KDF, passphrase []byte) ([]byte, error) {
	if kdf == KDFPBKDF2 {
		return pbkdf2.Key(sha256.New, string(passphrase), p.Salt, int(p.Iter), KeySize)
	}
	return scrypt.Key(passphrase, p.Salt, int(p.N), int(p.R), int(p.P), KeySize)
}

// KeyFile is the content of a key file (section 5.1 of the formats
// specification). It holds the bare key if KDF is KDFNone, and therefore
// prints no more than a Key does.
type KeyFile struct {
	KDF    KDF
	Params kdfParams
	// Created and Modified are written with the offset of their location.
	Created, Modified time.Time
	// Data is the key, or with a passphrase nonce, tag and ciphertext.
	Data []byte
	// Fingerprint is that of the key if HasFingerprint is set; older files
	// have none.
	Fingerprint    Fingerprint
	HasFingerprint bool
	// Hint reminds of the passphrase, "" if there is none.
	Hint string
}

// KeyFileOptions say how a key goes into a file.
type KeyFileOptions struct {
	KDF        KDF
	Passphrase []byte // at least 5 bytes; none with KDFNone
	Hint       string // one line of at most 64 characters; none with KDFNone
	// Now is the time of modification, zero for the present. Created is the
	// time the key was made, zero for Now. Their locations are written too.
	Now     time.Time
	Created time.Time
	// Rand is where salt and nonce come from; nil is the system.
	Rand io.Reader
}

// NewKeyFile makes the key file of k. With a passphrase this takes a while and,
// with scrypt, 64 MiB of memory.
func NewKeyFile(k *Key, o KeyFileOptions) (*KeyFile, error) {
	if k == nil {
		return nil, fmt.Errorf("make a key file: %w", ErrNoKey)
	}
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("make a key file: %w", err)
	}
	if o.Now.IsZero() {
		o.Now = time.Now()
	}
	if o.Created.IsZero() {
		o.Created = o.Now
	}
	f := &KeyFile{
		KDF:     o.KDF,
		Created: o.Created.Truncate(time.Second), Modified: o.Now.Truncate(time.Second),
		Fingerprint: k.Fingerprint(), HasFingerprint: true,
		Hint: o.Hint,
	}
	if o.KDF == KDFNone {
		f.Data = append([]byte(nil), k.secrets().enc[:]...)
		return f, nil
	}
	if err := f.lock(k, o); err != nil {
		return nil, fmt.Errorf("make a key file: %w", err)
	}
	return f, nil
}

func (o KeyFileOptions) check() error {
	switch o.KDF {
	case KDFNone:
		if len(o.Passphrase) > 0 || o.Hint != "" {
			return errors.New("a passphrase or a hint, but no key derivation")
		}
		return nil
	case KDFScrypt, KDFPBKDF2:
		if len(o.Passphrase) < passphraseLenMin {
			return fmt.Errorf("the passphrase is shorter than %d bytes", passphraseLenMin)
		}
		return checkHint(o.Hint)
	}
	return fmt.Errorf("unknown %v", o.KDF)
}

func checkHint(s string) error {
	if n := utf8.RuneCountInString(s); n > hintLenMax {
		return fmt.Errorf("hint has %d characters, at most %d are allowed", n, hintLenMax)
	}
	if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r == 0x7f }) {
		return errors.New("hint is not a single line of text")
	}
	return nil
}

// lock fills in parameters and data of a file with passphrase.
func (f *KeyFile) lock(k *Key, o KeyFileOptions) error {
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	f.Params = kdfParams{N: scryptN, R: scryptR, P: scryptP}
	if f.KDF == KDFPBKDF2 {
		f.Params = kdfParams{Iter: pbkdf2Iter}
	}
	f.Params.Salt = make([]byte, saltSize)
	iv := make([]byte, IVSize)
	for _, b := range [][]byte{f.Params.Salt, iv} {
		if _, err := io.ReadFull(o.Rand, b); err != nil {
			return fmt.Errorf("read random bytes: %w", err)
		}
	}
	derived, err := f.Params.derive(f.KDF, o.Passphrase)
	if err != nil {
		return fmt.Errorf("derive a key from the passphrase: %w", err)
	}
	defer clear(derived)
	aead, err := newGCM(derived)
	if err != nil {
		return err
	}
	sealed := aead.Seal(nil, iv, k.secrets().enc[:], nil)
	f.Data = append(iv, sealed[KeySize:]...)
	f.Data = append(f.Data, sealed[:KeySize]...)
	return nil
}

// NeedsPassphrase reports whether Unlock needs a passphrase.
func (f *KeyFile) NeedsPassphrase() bool { return f.KDF != KDFNone }

// Unlock returns the key. The passphrase is ignored if the file needs none; one
// that does not fit is ErrWrongPassphrase. A key that is not the one whose
// fingerprint is in the file is ErrTampered.
func (f *KeyFile) Unlock(passphrase []byte) (*Key, error) {
	k, err := f.unlock(passphrase)
	if err != nil {
		return nil, fmt.Errorf("unlock the key: %w", err)
	}
	if got := k.Fingerprint(); f.HasFingerprint && f.Fingerprint != got {
		return nil, fmt.Errorf("unlock the key: the file says key %s, it holds key %s: %w", f.Fingerprint.Short(), got.Short(), ErrTampered)
	}
	return k, nil
}

func (f *KeyFile) unlock(passphrase []byte) (*Key, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	if f.KDF == KDFNone {
		return NewKey(f.Data)
	}
	if len(passphrase) < passphraseLenMin {
		return nil, fmt.Errorf("the passphrase is shorter than %d bytes: %w", passphraseLenMin, ErrWrongPassphrase)
	}
	derived, err := f.Params.derive(f.KDF, passphrase)
	if err != nil {
		return nil, fmt.Errorf("derive a key from the passphrase: %w", err)
	}
	defer clear(derived)
	aead, err := newGCM(derived)
	if err != nil {
		return nil, err
	}
	iv, tag, ciphertext := f.Data[:IVSize], f.Data[IVSize:IVSize+TagSize], f.Data[IVSize+TagSize:]
	sealed := append(append(make([]byte, 0, sealedKeySize), ciphertext...), tag...)
	enc, err := aead.Open(sealed[:0], iv, sealed, nil)
	if err != nil {
		return nil, ErrWrongPassphrase
	}
	defer clear(enc)
	return NewKey(enc)
}

// check makes sure that deriving and cutting Data is safe.
func (f *KeyFile) check() error {
	want := sealedKeySize
	switch f.KDF {
	case KDFNone:
		want = KeySize
	case KDFScrypt, KDFPBKDF2:
	default:
		return fmt.Errorf("unknown %v: %w", f.KDF, ErrFormat)
	}
	if len(f.Data) != want {
		return fmt.Errorf("data of %d bytes, want %d with kdf %v: %w", len(f.Data), want, f.KDF, ErrFormat)
	}
	if err := f.Params.check(f.KDF); err != nil {
		return fmt.Errorf("kdf %v: %w: %w", f.KDF, err, ErrFormat)
	}
	return nil
}

// String returns a placeholder.
func (f *KeyFile) String() string { return redacted }

// GoString returns a placeholder.
func (f *KeyFile) GoString() string { return redacted }

// Format writes a placeholder for every verb.
func (f *KeyFile) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, redacted) }

// LogValue returns a placeholder.
func (f *KeyFile) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalJSON writes a placeholder; Encode is the way to write the file.
func (f *KeyFile) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }
