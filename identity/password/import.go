package password

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Import returns what to store for a hash of another system. Slow hashes that
// [Valid] knows stay as they are until their owner logs in. Of digests too
// fast to keep passwords, an argon2id hash is made, which says what is in it:
//
//	5f4dcc3b…             MD5, SHA-1, SHA-256 or SHA-512 by its length, in hexadecimal
//	sha1$salt$5f4dcc3b…   of the salt and then the password (Django); also md5, sha256, sha512
//	{SSHA}…               of the password and then the salt (RFC 2307); also MD5, SMD5, SHA, SHA256, SSHA256, SHA512, SSHA512
//
// becomes $merlon$of=sha1,before=…$argon2id$…. Whoever has the digests from
// elsewhere can still try those against a stolen database instead of
// passwords, unless there is a pepper. For a password in clear use Hash.
func (h *Hasher) Import(ctx context.Context, old string) (string, error) {
	d, sum, err := parseDigest(old)
	if err != nil {
		return old, Valid(old)
	}
	own := h.own
	if own.kind != argon2id {
		own = hash{kind: argon2id, memory: defaultMemory, cost: leastTime(defaultMemory), lanes: 1, keyID: own.keyID}
	}
	own.old = d
	leave, err := h.turns.take(ctx, own.needs(), false)
	if err != nil {
		return "", err
	}
	defer leave()
	return own.make(hex.AppendEncode(nil, sum), h.pepper)
}

var errDigest = errors.New("it is no digest that can be imported")

// parseDigest reads what Import wraps.
func parseDigest(s string) (digest, []byte, error) {
	if len(s) > maxText {
		return digest{}, nil, errDigest
	}
	if strings.HasPrefix(s, "{") {
		return parseLDAP(s)
	}
	name, rest, salted := strings.Cut(s, "$")
	d := digest{name: name}
	if salted {
		salt, sum, ok := strings.Cut(rest, "$")
		if !ok || len(salt) > maxSalt {
			return digest{}, nil, errDigest
		}
		d.before, rest = []byte(salt), sum
	} else {
		d.name, rest = map[int]string{32: "md5", 40: "sha1", 64: "sha256", 128: "sha512"}[len(s)], s
	}
	sum, err := hex.DecodeString(rest)
	f := digests[d.name]
	if err != nil || f == nil || len(sum) != f().Size() {
		return digest{}, nil, errDigest
	}
	return d, sum, nil
}

// ldapDigests are the schemes of RFC 2307 and what OpenLDAP has added, and
// whether a salt follows the sum.
var ldapDigests = map[string]struct {
	name   string
	salted bool
}{
	"{MD5}": {"md5", false}, "{SMD5}": {"md5", true},
	"{SHA}": {"sha1", false}, "{SSHA}": {"sha1", true},
	"{SHA256}": {"sha256", false}, "{SSHA256}": {"sha256", true},
	"{SHA512}": {"sha512", false}, "{SSHA512}": {"sha512", true},
}

func parseLDAP(s string) (digest, []byte, error) {
	end := strings.IndexByte(s, '}') + 1
	scheme, ok := ldapDigests[strings.ToUpper(s[:end])]
	if !ok {
		return digest{}, nil, errDigest
	}
	b, err := base64.StdEncoding.DecodeString(s[end:])
	size := digests[scheme.name]().Size()
	if err != nil || len(b) < size || len(b) > size+maxSalt || scheme.salted != (len(b) > size) {
		return digest{}, nil, errDigest
	}
	d := digest{name: scheme.name}
	if scheme.salted {
		d.after = b[size:]
	}
	return d, b[:size], nil
}

// parseMerlon reads what Import and, with a pepper, Hash write.
func parseMerlon(s string) (hash, error) {
	params, inner, ok := strings.Cut(s, "$")
	if !ok {
		return hash{}, errForm
	}
	inner = "$" + inner
	if id, ok := strings.CutPrefix(params, "keyid="); ok {
		h, err := parseBcrypt(inner)
		if err != nil || !validKeyID(id) {
			return hash{}, errors.Join(errForm, err)
		}
		h.keyID = id
		return h, nil
	}
	rest, ok := strings.CutPrefix(inner, "$argon2id$")
	if !ok {
		return hash{}, errForm
	}
	d, err := parseOf(params)
	if err != nil {
		return hash{}, err
	}
	h, err := parseArgon2(rest)
	h.old = d
	return h, err
}

func parseOf(params string) (digest, error) {
	part := strings.Split(params, ",")
	name, ok := strings.CutPrefix(part[0], "of=")
	d := digest{name: name}
	if !ok || digests[name] == nil || len(part) > 2 {
		return digest{}, errForm
	}
	if len(part) == 1 {
		return d, nil
	}
	side, text, _ := strings.Cut(part[1], "=")
	salt, err := phc.DecodeString(text)
	if err != nil || len(salt) < 1 || len(salt) > maxSalt || strings.ContainsAny(text, "\r\n") {
		return digest{}, errForm
	}
	switch side {
	case "before":
		d.before = salt
	case "after":
		d.after = salt
	default:
		return digest{}, errForm
	}
	return d, nil
}

// maxLine is how long a line of an htpasswd file may be.
const maxLine = 4096

// Htpasswd reads lines "name:hash" as Apache's htpasswd -B writes them, and
// returns the hashes by name. Empty lines and those that begin with # are left
// out. Every line that cannot be used is an error of its own, MD5 and SHA-1
// among them, and so is a name that stands there twice. The errors repeat
// neither hashes nor names.
func Htpasswd(r io.Reader) (map[string]string, error) {
	users := make(map[string]string)
	var errs []error
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	n := 0
	for lines.Scan() {
		n++
		line := strings.TrimSuffix(lines.Text(), "\r")
		if strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, stored, ok := strings.Cut(line, ":")
		_, twice := users[name]
		var why error
		switch {
		case !ok || name == "":
			why = errors.New("must have the form name:hash")
		case twice:
			why = errors.New("the name is there already")
		default:
			why = Valid(stored)
			if _, _, err := parseDigest(stored); err == nil {
				why = errors.New("plain MD5 and SHA digests are too fast to keep passwords; make it anew with htpasswd -B")
			}
		}
		if why != nil {
			errs = append(errs, fmt.Errorf("line %d: %w", n, why))
			continue
		}
		users[name] = stored
	}
	if err := lines.Err(); err != nil {
		errs = append(errs, fmt.Errorf("line %d: %w", n+1, err))
	}
	return users, errors.Join(errs...)
}
