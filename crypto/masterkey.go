package crypto

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"time"
)

// Sizes of master keys (sections 5.4 and 5.5 of the formats specification).
const (
	masterBits    = 4096
	masterBitsMin = 2128 // below, a wrapped key does not fit
	masterBitsMax = 16384

	pemSizeMax = 64 << 10 // bytes
)

// pkcs1Padding is what PKCS#1 v1.5 adds to a message at least, in bytes.
const pkcs1Padding = 11

// The types of PEM blocks.
const (
	pemPublic    = "PUBLIC KEY"
	pemPrivate   = "PRIVATE KEY"
	pemEncrypted = "ENCRYPTED PRIVATE KEY"
)

// GenerateMasterKey makes an RSA key of 4096 bits and returns it in PEM: the
// private half encrypted with the passphrase, as section 5.4 of the formats
// specification wants it, and the public half. It takes seconds.
func GenerateMasterKey(passphrase []byte) (privatePEM, publicPEM []byte, err error) {
	privatePEM, publicPEM, err = generateMasterKey(masterBits, passphrase)
	if err != nil {
		return nil, nil, fmt.Errorf("generate a master key: %w", err)
	}
	return privatePEM, publicPEM, nil
}

func generateMasterKey(bits int, passphrase []byte) (privatePEM, publicPEM []byte, err error) {
	if len(passphrase) < passphraseLenMin {
		return nil, nil, fmt.Errorf("the passphrase is shorter than %d bytes", passphraseLenMin)
	}
	priv, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		return nil, nil, err
	}
	defer clear(der)
	sealed, err := encryptPKCS8(der, passphrase)
	if err != nil {
		return nil, nil, err
	}
	public, err := x509.MarshalPKIXPublicKey(&priv.PublicKey)
	if err != nil {
		return nil, nil, err
	}
	privatePEM = pem.EncodeToMemory(&pem.Block{Type: pemEncrypted, Bytes: sealed})
	publicPEM = pem.EncodeToMemory(&pem.Block{Type: pemPublic, Bytes: public})
	return privatePEM, publicPEM, nil
}

// decodePEM returns the first block of a PEM file.
func decodePEM(file []byte) (*pem.Block, error) {
	if len(file) > pemSizeMax {
		return nil, fmt.Errorf("%d bytes, at most %d are allowed: %w", len(file), pemSizeMax, ErrFormat)
	}
	block, _ := pem.Decode(file)
	if block == nil {
		return nil, fmt.Errorf("there is no PEM block: %w", ErrFormat)
	}
	return block, nil
}

// ParseMasterPublic reads a public master key in PEM. Keys of less than 2128
// bits are refused: a backup key does not fit into what they can encrypt.
func ParseMasterPublic(file []byte) (*rsa.PublicKey, error) {
	pub, err := parseMasterPublic(file)
	if err != nil {
		return nil, fmt.Errorf("read the public master key: %w", err)
	}
	return pub, nil
}

func parseMasterPublic(file []byte) (*rsa.PublicKey, error) {
	block, err := decodePEM(file)
	if err != nil {
		return nil, err
	}
	if block.Type != pemPublic {
		return nil, fmt.Errorf("PEM block %q, want %q: %w", clip(block.Type), pemPublic, ErrFormat)
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, ErrFormat)
	}
	pub, ok := key.(*rsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("not an RSA key: %w", ErrFormat)
	}
	return pub, checkMaster(pub)
}

func checkMaster(pub *rsa.PublicKey) error {
	if n := pub.N.BitLen(); n < masterBitsMin || n > masterBitsMax {
		return fmt.Errorf("modulus of %d bits, want %d..%d: %w", n, masterBitsMin, masterBitsMax, ErrFormat)
	}
	return nil
}

// ParseMasterPrivate reads a private master key in PEM, encrypted or not. A
// passphrase that does not fit is ErrWrongPassphrase.
func ParseMasterPrivate(file, passphrase []byte) (*rsa.PrivateKey, error) {
	priv, err := parseMasterPrivate(file, passphrase)
	if err != nil {
		return nil, fmt.Errorf("read the private master key: %w", err)
	}
	return priv, nil
}

func parseMasterPrivate(file, passphrase []byte) (*rsa.PrivateKey, error) {
	block, err := decodePEM(file)
	if err != nil {
		return nil, err
	}
	der := block.Bytes
	switch block.Type {
	case pemEncrypted:
		if der, err = decryptPKCS8(der, passphrase); err != nil {
			return nil, err
		}
	case pemPrivate:
	default:
		return nil, fmt.Errorf("PEM block %q, want %q or %q: %w", clip(block.Type), pemEncrypted, pemPrivate, ErrFormat)
	}
	defer clear(der)
	key, err := x509.ParsePKCS8PrivateKey(der)
	switch {
	case err != nil && block.Type == pemEncrypted:
		// The padding fits a wrong passphrase once in 256 times.
		return nil, ErrWrongPassphrase
	case err != nil:
		return nil, fmt.Errorf("not a PKCS#8 key: %w", ErrFormat)
	}
	priv, ok := key.(*rsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("not an RSA key: %w", ErrFormat)
	}
	return priv, checkMaster(&priv.PublicKey)
}

// WrapKey returns the backup key encrypted for the holder of the master key,
// which is the content of rsa-encrypted.key.blob (section 5.5 of the formats
// specification). created is when the key was made.
func WrapKey(pub *rsa.PublicKey, k *Key, created, now time.Time) ([]byte, error) {
	if err := checkMaster(pub); err != nil {
		return nil, fmt.Errorf("wrap the key for the master key: %w", err)
	}
	f, err := NewKeyFile(k, KeyFileOptions{KDF: KDFNone, Created: created, Now: now})
	if err != nil {
		return nil, fmt.Errorf("wrap the key for the master key: %w", err)
	}
	msg, err := f.Encode()
	if err != nil {
		return nil, fmt.Errorf("wrap the key for the master key: %w", err)
	}
	defer clear(msg)
	if most := pub.Size() - pkcs1Padding; len(msg) > most {
		return nil, fmt.Errorf("wrap the key for the master key: message of %d bytes, at most %d fit the modulus: %w", len(msg), most, ErrFormat)
	}
	//lint:ignore SA1019 the format has this padding and no other
	out, err := rsa.EncryptPKCS1v15(rand.Reader, pub, msg)
	if err != nil {
		return nil, fmt.Errorf("wrap the key for the master key: %w", err)
	}
	return out, nil
}

// UnwrapKey undoes WrapKey. A master key that is not the one the key was
// wrapped for is ErrWrongKey; what comes out is never another key than the one
// whose fingerprint was wrapped with it.
func UnwrapKey(priv *rsa.PrivateKey, ciphertext []byte) (*KeyFile, error) {
	f, err := unwrapKey(priv, ciphertext)
	if err != nil {
		return nil, fmt.Errorf("unwrap the key with the master key: %w", err)
	}
	return f, nil
}

func unwrapKey(priv *rsa.PrivateKey, ciphertext []byte) (*KeyFile, error) {
	if len(ciphertext) != priv.Size() {
		return nil, fmt.Errorf("%d bytes, this master key makes %d: %w", len(ciphertext), priv.Size(), ErrWrongKey)
	}
	//lint:ignore SA1019 the format has this padding and no other
	msg, err := rsa.DecryptPKCS1v15(nil, priv, ciphertext)
	if err != nil {
		return nil, errNotMaster
	}
	defer clear(msg)
	// Libraries differ in what a wrong key yields: an error or random bytes.
	f, err := DecodeKeyFile(msg)
	if err != nil {
		return nil, errNotMaster
	}
	if f.NeedsPassphrase() {
		return nil, fmt.Errorf("the wrapped key has a passphrase of its own: %w", ErrFormat)
	}
	if _, err := f.Unlock(nil); err != nil {
		return nil, err
	}
	return f, nil
}

// errNotMaster tells nothing about the plain text.
var errNotMaster = fmt.Errorf("what comes out is no key file, the key was wrapped for another master key or is damaged: %w", ErrWrongKey)
