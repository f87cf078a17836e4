package password

import (
	"bytes"
	"crypto/md5"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	gohash "hash"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
	"golang.org/x/crypto/scrypt"
)

// The kinds that are only verified.
const (
	scrypted  = "scrypt"
	pbkdf2256 = "pbkdf2-sha256"
	pbkdf2512 = "pbkdf2-sha512"
)

// bcryptMax is how many bytes of a password bcrypt sees.
const bcryptMax = 72

// A hash is a stored hash, read. What it costs is within the bounds that
// parse keeps.
type hash struct {
	kind   string
	cost   uint32 // argon2id: passes; bcrypt and scrypt: log2 of the rounds or N; PBKDF2: iterations
	memory uint32 // argon2id: KiB
	block  uint32 // scrypt: r
	lanes  uint8  // argon2id and scrypt: p
	salt   []byte
	sum    []byte // bcrypt: the whole text
	keyID  string // of the pepper; empty if there is none
	old    digest // what was hashed in place of the password
}

// A digest is what another system had stored: a fast hash of the password,
// perhaps with a salt before or after it.
type digest struct {
	name          string // empty: the password itself
	before, after []byte
}

// digests can be imported, but only within a slow hash. sha256 within bcrypt
// is what Django calls bcrypt_sha256.
var digests = map[string]func() gohash.Hash{
	"md5": md5.New, "sha1": sha1.New, "sha256": sha256.New, "sha512": sha512.New,
}

// of returns the digest of a password in lower-case hexadecimal.
func (d digest) of(password []byte) []byte {
	f := digests[d.name]()
	f.Write(d.before)
	f.Write(password)
	f.Write(d.after)
	return hex.AppendEncode(nil, f.Sum(nil))
}

// needs returns how many KiB it takes to compute the hash.
func (h *hash) needs() uint32 {
	switch h.kind {
	case argon2id:
		return h.memory
	case scrypted:
		return h.block << h.cost >> 3
	}
	return 0
}

// class names hashes that cost the same.
func (h *hash) class() string {
	return fmt.Sprintf("%s %d %d %d %d", h.kind, h.memory, h.cost, h.block, h.lanes)
}

// takes reports whether the password can be told from any other. bcrypt sees
// 72 bytes of it, and repeats what comes before a NUL, so that "a\x00a" is "a";
// scrypt and PBKDF2 fill it up with NULs, so that "a\x00" is.
func (h *hash) takes(in []byte) bool {
	switch {
	case h.keyID != "" || h.old.name != "" || h.kind == argon2id:
		return true
	case h.kind == bcrypted:
		return len(in) <= bcryptMax && bytes.IndexByte(in, 0) < 0
	}
	return !bytes.HasSuffix(in, []byte{0})
}

// check reports whether the hash is that of a password which it takes.
func (h *hash) check(in []byte, peppers map[string]*pepper) bool {
	if h.old.name != "" {
		in = h.old.of(in)
		defer clear(in)
	}
	if h.keyID != "" {
		p := peppers[h.keyID]
		if p == nil {
			return false
		}
		in = p.mix(in)
		defer clear(in)
	}
	if h.kind == bcrypted {
		return bcrypt.CompareHashAndPassword(h.sum, in) == nil
	}
	got := h.compute(in)
	return len(got) > 0 && subtle.ConstantTimeCompare(got, h.sum) == 1
}

// compute returns the sum for an input, of all kinds but bcrypt.
func (h *hash) compute(in []byte) []byte {
	var sum []byte
	switch h.kind {
	case argon2id:
		sum = argon2.IDKey(in, h.salt, h.cost, h.memory, h.lanes, uint32(len(h.sum)))
	case scrypted:
		sum, _ = scrypt.Key(in, h.salt, 1<<h.cost, int(h.block), int(h.lanes), len(h.sum))
	case pbkdf2256:
		sum, _ = pbkdf2.Key(sha256.New, string(in), h.salt, int(h.cost), len(h.sum))
	case pbkdf2512:
		sum, _ = pbkdf2.Key(sha512.New, string(in), h.salt, int(h.cost), len(h.sum))
	}
	return sum
}

// make returns the text of a new hash like h, with a salt of its own, of an
// input that is a password or what stands in its place.
func (h hash) make(in []byte, p *pepper) (string, error) {
	if p != nil {
		in = p.mix(in)
		defer clear(in)
	}
	if h.kind == bcrypted {
		text, err := bcrypt.GenerateFromPassword(in, int(h.cost))
		if err != nil {
			return "", err
		}
		h.sum = text
		return h.text(), nil
	}
	h.salt = make([]byte, saltBytes)
	rand.Read(h.salt)
	h.sum = make([]byte, sumBytes)
	h.sum = h.compute(in)
	return h.text(), nil
}

// decoy returns a hash like h that is nobody's.
func (h hash) decoy() hash {
	h.salt, h.sum = make([]byte, saltBytes), make([]byte, sumBytes)
	rand.Read(h.salt)
	rand.Read(h.sum)
	if h.kind == bcrypted {
		const alphabet = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
		e := base64.NewEncoding(alphabet).WithPadding(base64.NoPadding)
		h.sum = fmt.Appendf(nil, "$2a$%02d$%s%s", h.cost, e.EncodeToString(h.salt), e.EncodeToString(h.sum[:23]))
	}
	return h
}

// text writes a hash of the kinds that are made.
func (h *hash) text() string {
	b64 := base64.RawStdEncoding.EncodeToString
	var outer, inner string
	switch {
	case h.old.name != "":
		outer = "of=" + h.old.name
		if len(h.old.before) > 0 {
			outer += ",before=" + b64(h.old.before)
		}
		if len(h.old.after) > 0 {
			outer += ",after=" + b64(h.old.after)
		}
	case h.kind == bcrypted && h.keyID != "":
		outer = "keyid=" + h.keyID
	}
	if h.kind == bcrypted {
		inner = string(h.sum)
	} else {
		cost := fmt.Sprintf("m=%d,t=%d,p=%d", h.memory, h.cost, h.lanes)
		if h.keyID != "" {
			cost += ",keyid=" + h.keyID
		}
		inner = fmt.Sprintf("$argon2id$v=%d$%s$%s$%s", argon2.Version, cost, b64(h.salt), b64(h.sum))
	}
	if outer != "" {
		return "$merlon$" + outer + inner
	}
	return inner
}

// read parses a stored hash. Whatever is wrong with it, it returns one to
// verify with that takes as long and is nobody's.
func (h *Hasher) read(stored string) (hash, error) {
	if stored == "" {
		return h.own.decoy(), nil
	}
	got, err := parse(stored)
	if err == nil && got.keyID != "" && h.peppers[got.keyID] == nil {
		err = fmt.Errorf("the pepper with the id %s is not configured", got.keyID)
	}
	if err != nil {
		return h.own.decoy(), fmt.Errorf("%w: %w", ErrBadHash, err)
	}
	return got, nil
}

// outdated reports whether a hash that fits should be made anew.
func (h *Hasher) outdated(got hash) bool {
	if got.kind != h.own.kind || got.keyID != h.own.keyID || got.old.name != "" {
		return true
	}
	if got.kind == bcrypted {
		return got.cost < h.own.cost
	}
	// Replicas may have measured different costs: the highest stays.
	return uint64(got.memory)*uint64(got.cost) < uint64(h.own.memory)*uint64(h.own.cost) ||
		got.cost < leastTime(got.memory) || got.memory < minMemory || len(got.salt) < saltBytes || len(got.sum) < sumBytes
}
