package password

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"strings"

	"golang.org/x/crypto/argon2"
)

// What a stored hash may cost at most. Each bound is about a second on a
// machine of today; who could bring in a hash with any cost could otherwise
// stop all log-ins with one.
const (
	maxMemory     = 256 << 10 // KiB
	maxMemoryTime = 1 << 20   // KiB, over all passes
	maxLanes      = 16
	maxScryptLog  = 20
	maxScryptR    = 32
	maxPBKDF2     = 3_000_000
	maxText       = 512
	maxSalt       = 64
	minSum        = 16
	maxSum        = 64
)

// Valid reports why a stored hash could not be verified, without repeating it.
// It knows
//
//	$argon2id$v=19$m=…,t=…,p=…$salt$sum       PHC; also after "argon2" (Django)
//	$2a$…, $2b$… and $2y$…                    bcrypt; also after "bcrypt$" and "bcrypt_sha256$" (Django)
//	$scrypt$ln=…,r=…,p=…$salt$sum             PHC and passlib
//	$7$…                                      scrypt of crypt(3) and libsodium
//	scrypt$n$salt$r$p$sum, scrypt:n:r:p$…     Django, Werkzeug
//	$pbkdf2-sha256$29000$salt$sum             passlib; with i=29000 PHC; sha512, too
//	pbkdf2_sha256$…, pbkdf2:sha256:29000$…    Django, Werkzeug; sha512, too
//
// and the forms of [Hasher.Hash] and [Hasher.Import].
func Valid(stored string) error {
	if _, err := parse(stored); err != nil {
		return fmt.Errorf("%w: %w", ErrBadHash, err)
	}
	return nil
}

var (
	errForm  = errors.New("it has not the form of its kind")
	errCost  = errors.New("its cost is out of bounds")
	errSizes = errors.New("its salt or sum is too short or too long")
)

// forms are the beginnings by which kinds are told, and what reads the rest.
var forms = []struct {
	prefix string
	read   func(rest string) (hash, error)
}{
	{"$argon2id$", parseArgon2},
	{"argon2$argon2id$", parseArgon2},
	{"$2a$", func(s string) (hash, error) { return parseBcrypt("$2a$" + s) }},
	{"$2b$", func(s string) (hash, error) { return parseBcrypt("$2b$" + s) }},
	{"$2y$", func(s string) (hash, error) { return parseBcrypt("$2y$" + s) }},
	{"bcrypt$", parseBcrypt},
	{"bcrypt_sha256$", parseBcryptSHA256},
	{"$scrypt$", parseScrypt},
	{"scrypt$", parseDjangoScrypt},
	{"scrypt:", parseWerkzeugScrypt},
	{"$7$", parseCryptScrypt},
	{"$pbkdf2-sha256$", func(s string) (hash, error) { return parsePBKDF2(pbkdf2256, s) }},
	{"$pbkdf2-sha512$", func(s string) (hash, error) { return parsePBKDF2(pbkdf2512, s) }},
	{"pbkdf2_sha256$", func(s string) (hash, error) { return parseTextPBKDF2(pbkdf2256, s, base64.StdEncoding) }},
	{"pbkdf2_sha512$", func(s string) (hash, error) { return parseTextPBKDF2(pbkdf2512, s, base64.StdEncoding) }},
	{"pbkdf2:sha256:", func(s string) (hash, error) { return parseTextPBKDF2(pbkdf2256, s, nil) }},
	{"pbkdf2:sha512:", func(s string) (hash, error) { return parseTextPBKDF2(pbkdf2512, s, nil) }},
	{"$merlon$", parseMerlon},
}

// refused are kinds that people have, and what to say about them.
var refused = []struct{ prefix, why string }{
	{"$apr1$", "MD5 (apr1) is too fast to keep passwords; make it anew with htpasswd -B"},
	{"$1$", "MD5 (md5crypt) is too fast to keep passwords"},
	{"$argon2i$", "argon2i is not verified, only argon2id"},
	{"$argon2d$", "argon2d is not verified, only argon2id"},
	{"$2x$", "$2x$ marks hashes of a faulty bcrypt"},
	{"$5$", "sha256crypt is not verified"},
	{"$6$", "sha512crypt is not verified"},
	{"$y$", "yescrypt is not verified"},
}

func parse(text string) (hash, error) {
	if len(text) > maxText {
		return hash{}, errForm
	}
	for _, f := range forms {
		if rest, ok := strings.CutPrefix(text, f.prefix); ok {
			return f.read(rest)
		}
	}
	for _, r := range refused {
		if strings.HasPrefix(text, r.prefix) {
			return hash{}, errors.New(r.why)
		}
	}
	if _, _, err := parseDigest(text); err == nil {
		return hash{}, errors.New("it is a bare digest, which has to be imported")
	}
	return hash{}, errors.New("its kind is not known")
}

// number reads a decimal number from 1 to most, written in the one way there is.
func number(s string, most uint64) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || strconv.FormatUint(n, 10) != s {
		return 0, errForm
	}
	if n < 1 || n > most {
		return 0, errCost
	}
	return uint32(n), nil
}

// numbers reads "a=1,b=2": the given names in the given order. What follows
// them is returned.
func numbers(s string, most uint64, names ...string) (n []uint32, rest string, err error) {
	for i, name := range names {
		var one string
		one, s, _ = strings.Cut(s, ",")
		value, ok := strings.CutPrefix(one, name+"=")
		if !ok {
			return nil, "", errForm
		}
		v, err := number(value, most)
		if err != nil {
			return nil, "", err
		}
		n = append(n, v)
		if i == len(names)-1 {
			rest = s
		}
	}
	return n, rest, nil
}

// sized refuses salts and sums that nobody makes. A short sum would be met by
// chance.
func sized(h hash, err error) (hash, error) {
	if err == nil && (len(h.salt) < 1 || len(h.salt) > maxSalt || len(h.sum) < minSum || len(h.sum) > maxSum) {
		err = errSizes
	}
	if err != nil {
		return hash{}, err
	}
	return h, nil
}

// decode reads base64 of a salt and a sum.
func (h *hash) decode(e *base64.Encoding, salt, sum string) (err error) {
	var err2 error
	h.salt, err = e.DecodeString(salt)
	h.sum, err2 = e.DecodeString(sum)
	if err != nil || err2 != nil || strings.ContainsAny(salt+sum, "\r\n") {
		return errForm
	}
	return nil
}

var phc = base64.RawStdEncoding.Strict()

func parseArgon2(s string) (hash, error) {
	part := strings.Split(s, "$")
	if len(part) != 4 || part[0] != "v="+strconv.Itoa(argon2.Version) {
		return hash{}, errForm
	}
	n, rest, err := numbers(part[1], 1<<32-1, "m", "t", "p")
	if err != nil {
		return hash{}, err
	}
	memory, passes, lanes := n[0], n[1], n[2]
	if memory > maxMemory || uint64(memory)*uint64(passes) > maxMemoryTime || lanes > maxLanes || memory < 8*lanes {
		return hash{}, errCost
	}
	h := hash{kind: argon2id, memory: memory, cost: passes, lanes: uint8(lanes)}
	if rest != "" {
		id, ok := strings.CutPrefix(rest, "keyid=")
		if !ok || !validKeyID(id) {
			return hash{}, errForm
		}
		h.keyID = id
	}
	return sized(h, h.decode(phc, part[2], part[3]))
}

func validKeyID(id string) bool {
	b, err := phc.DecodeString(id)
	return err == nil && len(b) == 6 && len(id) == 8
}

const bcryptText = 60

func parseBcrypt(s string) (hash, error) {
	if len(s) != bcryptText || s[0] != '$' || s[1] != '2' || !strings.Contains("aby", s[2:3]) || s[3] != '$' || s[6] != '$' {
		return hash{}, errForm
	}
	for i := 7; i < len(s); i++ {
		if c := s[i]; c != '.' && c != '/' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return hash{}, errForm
		}
	}
	cost, err := number(strings.TrimPrefix(s[4:6], "0"), maxBcrypt)
	if err != nil {
		return hash{}, err
	}
	if cost < 4 {
		return hash{}, errCost
	}
	return hash{kind: bcrypted, cost: cost, sum: []byte(s)}, nil
}

func parseBcryptSHA256(s string) (hash, error) {
	h, err := parseBcrypt(s)
	if err != nil {
		return hash{}, err
	}
	h.old.name = "sha256"
	return h, nil
}

// scryptCost refuses what needs more memory than argon2id may, or as much work
// as many passes over it. N must be above 1 and, with r = 1, below 2^16 (RFC 7914).
func scryptCost(log, r, p uint32) (hash, error) {
	if log > maxScryptLog || r > maxScryptR || p > maxLanes {
		return hash{}, errCost
	}
	h := hash{kind: scrypted, cost: log, block: r, lanes: uint8(p)}
	if h.needs() > maxMemory || uint64(h.needs())*uint64(p) > maxMemoryTime/2 || r == 1 && log >= 16 {
		return hash{}, errCost
	}
	return h, nil
}

func parseScrypt(s string) (hash, error) {
	part := strings.Split(s, "$")
	if len(part) != 3 {
		return hash{}, errForm
	}
	n, rest, err := numbers(part[0], 1<<32-1, "ln", "r", "p")
	if err != nil || rest != "" {
		return hash{}, errors.Join(errForm, err)
	}
	h, err := scryptCost(n[0], n[1], n[2])
	if err != nil {
		return hash{}, err
	}
	return sized(h, h.decode(phc, part[1], part[2]))
}

// scryptN is scryptCost for an N that is written out.
func scryptN(n, r, p string) (hash, error) {
	var v [3]uint32
	for i, s := range []string{n, r, p} {
		var err error
		if v[i], err = number(s, 1<<32-1); err != nil {
			return hash{}, err
		}
	}
	if v[0] < 2 || bits.OnesCount32(v[0]) != 1 {
		return hash{}, errCost
	}
	return scryptCost(uint32(bits.TrailingZeros32(v[0])), v[1], v[2])
}

func parseDjangoScrypt(s string) (hash, error) {
	part := strings.Split(s, "$")
	if len(part) != 5 {
		return hash{}, errForm
	}
	h, err := scryptN(part[0], part[2], part[3])
	if err != nil {
		return hash{}, err
	}
	err = h.decode(base64.StdEncoding.Strict(), "", part[4])
	h.salt = []byte(part[1])
	return sized(h, err)
}

func parseWerkzeugScrypt(s string) (hash, error) {
	part := strings.Split(s, "$")
	cost := strings.Split(part[0], ":")
	if len(part) != 3 || len(cost) != 3 {
		return hash{}, errForm
	}
	h, err := scryptN(cost[0], cost[1], cost[2])
	if err != nil {
		return hash{}, err
	}
	h.salt = []byte(part[1])
	if h.sum, err = hex.DecodeString(part[2]); err != nil {
		err = errForm
	}
	return sized(h, err)
}

// itoa64 are the digits of crypt(3).
const itoa64 = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// crypt64 reads digits of crypt(3), the lowest first, into n bits.
func crypt64(s string) (n uint32, ok bool) {
	for i := range len(s) {
		d := strings.IndexByte(itoa64, s[i])
		if d < 0 {
			return 0, false
		}
		n |= uint32(d) << (6 * i)
	}
	return n, true
}

// parseCryptScrypt reads N, r and p, a salt that is taken as text, and a sum
// in groups of three bytes, the lowest six bits first.
func parseCryptScrypt(s string) (hash, error) {
	if len(s) < 1+5+5 {
		return hash{}, errForm
	}
	log, ok := crypt64(s[:1])
	r, ok2 := crypt64(s[1:6])
	p, ok3 := crypt64(s[6:11])
	salt, text, ok4 := strings.Cut(s[11:], "$")
	if !ok || !ok2 || !ok3 || !ok4 || len(text) != 43 {
		return hash{}, errForm
	}
	if log < 1 || r < 1 || p < 1 {
		return hash{}, errCost
	}
	h, err := scryptCost(log, r, p)
	if err != nil {
		return hash{}, err
	}
	for len(text) > 0 {
		group := min(4, len(text))
		v, ok := crypt64(text[:group])
		if !ok {
			return hash{}, errForm
		}
		for range group * 6 / 8 {
			h.sum = append(h.sum, byte(v))
			v >>= 8
		}
		if v != 0 {
			return hash{}, errForm
		}
		text = text[group:]
	}
	h.salt = []byte(salt)
	return sized(h, nil)
}

func pbkdf2Cost(kind, rounds string) (hash, error) {
	n, err := number(rounds, maxPBKDF2)
	return hash{kind: kind, cost: n}, err
}

func parsePBKDF2(kind, s string) (hash, error) {
	part := strings.Split(s, "$")
	if len(part) != 3 {
		return hash{}, errForm
	}
	rounds, named := strings.CutPrefix(part[0], "i=")
	rounds, length, hasLength := strings.Cut(rounds, ",l=")
	if hasLength && !named {
		return hash{}, errForm
	}
	h, err := pbkdf2Cost(kind, rounds)
	if err != nil {
		return hash{}, err
	}
	salt, sum := part[1], part[2]
	if !named { // passlib writes "." for "+"
		if strings.Contains(salt+sum, "+") {
			return hash{}, errForm
		}
		salt, sum = strings.ReplaceAll(salt, ".", "+"), strings.ReplaceAll(sum, ".", "+")
	}
	err = h.decode(phc, salt, sum)
	if err == nil && hasLength && strconv.Itoa(len(h.sum)) != length {
		err = errForm
	}
	return sized(h, err)
}

// parseTextPBKDF2 reads rounds$salt$sum with a salt that is taken as text; the
// sum is hexadecimal if there is no encoding.
func parseTextPBKDF2(kind, s string, e *base64.Encoding) (hash, error) {
	part := strings.Split(s, "$")
	if len(part) != 3 {
		return hash{}, errForm
	}
	h, err := pbkdf2Cost(kind, part[0])
	if err != nil {
		return hash{}, err
	}
	if e != nil {
		err = h.decode(e.Strict(), "", part[2])
	} else if h.sum, err = hex.DecodeString(part[2]); err != nil {
		err = errForm
	}
	h.salt = []byte(part[1])
	return sized(h, err)
}
