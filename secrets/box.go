package secrets

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
)

// A Key is one that others are derived from. Two purposes never share a key,
// and no derived key tells anything about another (RFC 5869).
type Key struct{ master Secret }

// MinKey is how many bytes the text of a [Key] must have.
const MinKey = 32

// NewKey returns a key with the given text, at least [MinKey] bytes that
// nobody can guess: a person's password will not do.
func NewKey(s Secret) (Key, error) {
	if n := len(s.Reveal()); n < MinKey {
		return Key{}, fmt.Errorf("must have at least %d random bytes; it has %d", MinKey, n)
	}
	return Key{s}, nil
}

// Derive returns 32 bytes for one purpose, such as "merlon totp".
func (k Key) Derive(purpose string) []byte {
	b, err := hkdf.Key(sha256.New, []byte(k.master.Reveal()), nil, purpose, 32)
	if err != nil { // 32 bytes are within every bound
		panic(err)
	}
	return b
}

// Box returns a box for one purpose.
func (k Key) Box(purpose string) *Box {
	block, err := aes.NewCipher(k.Derive(purpose))
	if err != nil { // 32 bytes are an AES-256 key
		panic(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err)
	}
	return &Box{aead}
}

// A Box keeps small texts secret and whole with AES-256-GCM. Its nonces are
// random: seal no more than 2^32 texts with one key (NIST SP 800-38D, 8.3).
type Box struct{ aead cipher.AEAD }

// Seal hides plain. Only who names the same place gets it back: the account
// and the column it stands in, say, so that no text can be moved elsewhere.
func (b *Box) Seal(plain []byte, place string) []byte {
	return b.aead.Seal(nil, nil, plain, []byte(place))
}

// Open returns what was sealed for the place.
func (b *Box) Open(sealed []byte, place string) ([]byte, error) {
	plain, err := b.aead.Open(nil, nil, sealed, []byte(place))
	if err != nil {
		return nil, errors.New("was not sealed with this key for this place, or was changed")
	}
	return plain, nil
}
