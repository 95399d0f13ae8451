package crypto

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"hash"
)

// What OpenSSL calls an encrypted PKCS#8 key: PBES2 of RFC 8018 with PBKDF2 and
// AES-CBC. Written with HMAC-SHA256 and AES-256, read also with the other
// functions that OpenSSL has used by default.

// pkcs8Iter is the cost of a new file, pkcs8SaltSize the length of its salt in
// bytes.
const (
	pkcs8Iter     = 600_000
	pkcs8SaltSize = 16
)

var (
	oidPBES2      = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}
	oidPBKDF2     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12}
	oidHMACSHA256 = asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 9}
	oidAES256CBC  = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 42}
)

// prfs are the functions PBKDF2 can be built on.
var prfs = []struct {
	oid asn1.ObjectIdentifier
	new func() hash.Hash
}{
	{oidHMACSHA256, sha256.New},
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 7}, sha1.New},
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 11}, sha512.New},
}

// ciphers are the ciphers and the lengths of their keys in bytes.
var ciphers = []struct {
	oid     asn1.ObjectIdentifier
	keySize int
}{
	{oidAES256CBC, 32},
	{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 22}, 24},
	{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 2}, 16},
}

type encryptedKeyInfo struct {
	Algorithm pkix.AlgorithmIdentifier
	Data      []byte
}

type pbes2Params struct {
	KDF    pkix.AlgorithmIdentifier
	Cipher pkix.AlgorithmIdentifier
}

type pbkdf2Params struct {
	Salt      []byte
	Iter      int
	KeyLength int                      `asn1:"optional"`
	PRF       pkix.AlgorithmIdentifier `asn1:"optional"`
}

// pbes2 is what all those structures boil down to.
type pbes2 struct {
	prf     func() hash.Hash
	salt    []byte
	iter    int
	iv      []byte
	keySize int
}

// block derives the key and returns the cipher.
func (p pbes2) block(passphrase []byte) (cipher.Block, error) {
	key, err := pbkdf2.Key(p.prf, string(passphrase), p.salt, p.iter, p.keySize)
	if err != nil {
		return nil, fmt.Errorf("derive a key from the passphrase: %w", err)
	}
	defer clear(key)
	return aes.NewCipher(key)
}

// encryptPKCS8 returns the DER of an encrypted private key from that of a bare
// one.
func encryptPKCS8(der, passphrase []byte) ([]byte, error) {
	random := make([]byte, pkcs8SaltSize+aes.BlockSize)
	if _, err := rand.Read(random); err != nil {
		return nil, fmt.Errorf("read random bytes: %w", err)
	}
	p := pbes2{
		prf:     sha256.New,
		salt:    random[:pkcs8SaltSize],
		iter:    pkcs8Iter,
		iv:      random[pkcs8SaltSize:],
		keySize: KeySize,
	}
	block, err := p.block(passphrase)
	if err != nil {
		return nil, err
	}
	pad := aes.BlockSize - len(der)%aes.BlockSize
	data := append(bytes.Clone(der), bytes.Repeat([]byte{byte(pad)}, pad)...)
	cipher.NewCBCEncrypter(block, p.iv).CryptBlocks(data, data)
	return marshalPBES2(p, data)
}

func marshalPBES2(p pbes2, data []byte) ([]byte, error) {
	var err error
	algorithm := func(oid asn1.ObjectIdentifier, params any) (id pkix.AlgorithmIdentifier) {
		var der []byte
		if err == nil {
			der, err = asn1.Marshal(params)
		}
		return pkix.AlgorithmIdentifier{Algorithm: oid, Parameters: asn1.RawValue{FullBytes: der}}
	}
	scheme := pbes2Params{
		KDF: algorithm(oidPBKDF2, pbkdf2Params{
			Salt: p.salt,
			Iter: p.iter,
			PRF:  pkix.AlgorithmIdentifier{Algorithm: oidHMACSHA256, Parameters: asn1.NullRawValue},
		}),
		Cipher: algorithm(oidAES256CBC, p.iv),
	}
	info := encryptedKeyInfo{Algorithm: algorithm(oidPBES2, scheme), Data: data}
	if err != nil {
		return nil, fmt.Errorf("encode the encrypted key: %w", err)
	}
	return asn1.Marshal(info)
}

// decryptPKCS8 undoes encryptPKCS8.
func decryptPKCS8(der, passphrase []byte) ([]byte, error) {
	var info encryptedKeyInfo
	if err := unmarshalAll(der, &info); err != nil {
		return nil, fmt.Errorf("encrypted key: %w", err)
	}
	p, err := parsePBES2(info.Algorithm)
	if err != nil {
		return nil, fmt.Errorf("encrypted key: %w", err)
	}
	data := bytes.Clone(info.Data)
	if len(data) == 0 || len(data)%aes.BlockSize != 0 {
		return nil, fmt.Errorf("encrypted key: %d bytes of data are not whole blocks of %d: %w", len(data), aes.BlockSize, ErrFormat)
	}
	if len(passphrase) == 0 {
		return nil, fmt.Errorf("it needs a passphrase: %w", ErrWrongPassphrase)
	}
	block, err := p.block(passphrase)
	if err != nil {
		return nil, fmt.Errorf("encrypted key: %w", err)
	}
	cipher.NewCBCDecrypter(block, p.iv).CryptBlocks(data, data)
	plain, err := trimPadding(data)
	if err != nil {
		return nil, ErrWrongPassphrase
	}
	return plain, nil
}

func trimPadding(data []byte) ([]byte, error) {
	pad := int(data[len(data)-1])
	if pad < 1 || pad > aes.BlockSize {
		return nil, errPadding
	}
	head, tail := data[:len(data)-pad], data[len(data)-pad:]
	if !bytes.Equal(tail, bytes.Repeat([]byte{byte(pad)}, pad)) {
		return nil, errPadding
	}
	return head, nil
}

// errPadding is the outcome of a decryption with a wrong passphrase.
var errPadding = errors.New("bad padding")

// unmarshalAll decodes DER that nothing may follow.
func unmarshalAll(der []byte, into any) error {
	rest, err := asn1.Unmarshal(der, into)
	if err != nil {
		return fmt.Errorf("%w: %w", err, ErrFormat)
	}
	if len(rest) > 0 {
		return fmt.Errorf("%d more bytes behind the structure at byte %d: %w", len(rest), len(der)-len(rest), ErrFormat)
	}
	return nil
}

func parsePBES2(id pkix.AlgorithmIdentifier) (p pbes2, err error) {
	if !id.Algorithm.Equal(oidPBES2) {
		return p, fmt.Errorf("encryption scheme %v, want PBES2: %w", id.Algorithm, ErrFormat)
	}
	var scheme pbes2Params
	if err := unmarshalAll(id.Parameters.FullBytes, &scheme); err != nil {
		return p, fmt.Errorf("PBES2 parameters: %w", err)
	}
	if !scheme.KDF.Algorithm.Equal(oidPBKDF2) {
		return p, fmt.Errorf("key derivation %v, want PBKDF2: %w", scheme.KDF.Algorithm, ErrFormat)
	}
	var kdf pbkdf2Params
	if err := unmarshalAll(scheme.KDF.Parameters.FullBytes, &kdf); err != nil {
		return p, fmt.Errorf("PBKDF2 parameters: %w", err)
	}
	for _, c := range ciphers {
		if c.oid.Equal(scheme.Cipher.Algorithm) {
			p.keySize = c.keySize
		}
	}
	if p.keySize == 0 {
		return p, fmt.Errorf("cipher %v, want AES-CBC: %w", scheme.Cipher.Algorithm, ErrFormat)
	}
	if err := unmarshalAll(scheme.Cipher.Parameters.FullBytes, &p.iv); err != nil {
		return p, fmt.Errorf("cipher parameters: %w", err)
	}
	if len(p.iv) != aes.BlockSize {
		return p, fmt.Errorf("cipher parameters: nonce of %d bytes, want %d: %w", len(p.iv), aes.BlockSize, ErrFormat)
	}
	return p, p.setKDF(kdf)
}

// setKDF takes over the parameters of PBKDF2 that are within the limits.
func (p *pbes2) setKDF(kdf pbkdf2Params) error {
	switch {
	case kdf.Iter < 1 || kdf.Iter > pbkdf2IterMax:
		return fmt.Errorf("PBKDF2 iteration count is %d, want 1..%d: %w", kdf.Iter, pbkdf2IterMax, ErrFormat)
	case len(kdf.Salt) > saltSizeMax:
		return fmt.Errorf("PBKDF2 salt has %d bytes, at most %d are allowed: %w", len(kdf.Salt), saltSizeMax, ErrFormat)
	case kdf.KeyLength != 0 && kdf.KeyLength != p.keySize:
		return fmt.Errorf("PBKDF2 key length is %d, the cipher wants %d: %w", kdf.KeyLength, p.keySize, ErrFormat)
	}
	p.salt, p.iter = kdf.Salt, kdf.Iter
	// RFC 8018: HMAC-SHA1 unless something else is said.
	if kdf.PRF.Algorithm == nil {
		p.prf = sha1.New
		return nil
	}
	for _, f := range prfs {
		if f.oid.Equal(kdf.PRF.Algorithm) {
			p.prf = f.new
			return nil
		}
	}
	return fmt.Errorf("PBKDF2 hash function %v is not supported: %w", kdf.PRF.Algorithm, ErrFormat)
}
