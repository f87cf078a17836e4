package challenge

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"math/bits"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/secrets"
)

// Cookie is the name of the cookie that holds a pass. As with the session's,
// browsers take it only from the host itself, over TLS or on loopback.
const Cookie = "__Host-merlon-pass"

// What the two derived keys are for.
const (
	tokenPurpose = "merlon challenge token"
	passPurpose  = "merlon challenge pass"
)

const (
	kindToken  byte = 1 // what a page asks for
	kindWorked byte = 2 // a pass for work
	kindWaited byte = 3 // a pass for having waited
)

const (
	idSize      = 12
	payloadSize = 1 + 1 + 2 + 8 + idSize
	sealedSize  = payloadSize + sha256.Size
	textSize    = (sealedSize*8 + 5) / 6

	tokenLife = 5 * time.Minute
	skew      = time.Minute // between replicas' clocks
)

// A claim is what a token asks to be proved, or what a pass says was. It names
// neither site nor client: these are part of what is authenticated.
type claim struct {
	kind byte
	bits uint8
	wait uint16 // seconds
	when int64  // when the token was made, Unix seconds
	id   [idSize]byte
}

// name is the claim's id as text.
func (c *claim) name() string { return hex.EncodeToString(c.id[:]) }

// issued is when the token was made, from which a pass counts, too: sending a
// solved token again gives the same pass, not a later one.
func (c *claim) issued() time.Time { return time.Unix(c.when, 0) }

func (c *claim) put(b *[payloadSize]byte) {
	b[0], b[1] = c.kind, c.bits
	binary.BigEndian.PutUint16(b[2:], c.wait)
	binary.BigEndian.PutUint64(b[4:], uint64(c.when))
	copy(b[12:], c.id[:])
}

func (c *claim) get(b []byte) {
	c.kind, c.bits = b[0], b[1]
	c.wait = binary.BigEndian.Uint16(b[2:])
	c.when = int64(binary.BigEndian.Uint64(b[4:]))
	copy(c.id[:], b[12:])
}

// newToken returns the claim of a token.
func newToken(work int, wait time.Duration, now time.Time) claim {
	c := claim{kind: kindToken, bits: uint8(work), wait: uint16(wait / time.Second), when: now.Unix()}
	_, _ = rand.Read(c.id[:]) // never fails
	return c
}

// A sealer authenticates claims with HMAC-SHA-256, each for one site and one
// client.
type sealer struct{ macs sync.Pool }

type macState struct {
	hash.Hash
	buf [payloadSize + 2 + 16 + 256]byte
	sum [sha256.Size]byte
}

func newSealer(k secrets.Key, purpose string) *sealer {
	key := k.Derive(purpose)
	return &sealer{sync.Pool{New: func() any { return &macState{Hash: hmac.New(sha256.New, key)} }}}
}

// mac computes m.sum over the payload, the site and the client.
func (m *macState) mac(payload []byte, site string, client netip.Addr) []byte {
	b := append(m.buf[:0], payload...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(site))) // a host's name is shorter
	a := client.As16()                                      // an IPv4 address is mapped there, of which there is only one
	b = append(append(b, a[:]...), site...)
	m.Reset()
	m.Write(b)
	return m.Sum(m.sum[:0])
}

// seal returns the claim's text.
func (s *sealer) seal(c claim, site string, client netip.Addr) string {
	m := s.macs.Get().(*macState)
	defer s.macs.Put(m)
	var payload [payloadSize]byte
	c.put(&payload)
	sum := m.mac(payload[:], site, client)
	return base64.RawURLEncoding.EncodeToString(append(payload[:], sum...))
}

var strict = base64.RawURLEncoding.Strict()

// open returns the claim in a text that was sealed for the site and client.
// Each claim has one text only.
func (s *sealer) open(text, site string, client netip.Addr) (c claim, ok bool) {
	if len(text) != textSize || !client.IsValid() {
		return claim{}, false
	}
	var in [textSize]byte
	copy(in[:], text)
	var b [sealedSize]byte
	// Line ends, which the decoder leaves out, make it too short.
	if n, err := strict.Decode(b[:], in[:]); err != nil || n != sealedSize {
		return claim{}, false
	}
	m := s.macs.Get().(*macState)
	defer s.macs.Put(m)
	if !hmac.Equal(m.mac(b[:payloadSize], site, client), b[payloadSize:]) {
		return claim{}, false
	}
	c.get(b[:payloadSize])
	return c, true
}

const maxNonce = 16 // digits; 2^53, the last whole number that scripts count to, has so many

// solves reports whether nonce is work enough for a token: SHA-256 of the
// token's text and the nonce in decimal begins with so many zero bits.
func solves(token, nonce string, want int) bool {
	if nonce == "" || len(nonce) > maxNonce || strings.Trim(nonce, "0123456789") != "" {
		return false
	}
	var b [textSize + maxNonce]byte
	n := copy(b[:], token)
	n += copy(b[n:], nonce)
	sum := sha256.Sum256(b[:n])
	return bits.LeadingZeros64(binary.BigEndian.Uint64(sum[:])) >= want
}

// Why a pass is not good, for the operator.
const (
	noPass      = "none"
	twoPasses   = "there are two of them"
	foreignPass = "was not made for this client and site, or was changed"
	weakPass    = "was got with less than this route asks for"
	oldPass     = "has run out"
)

// pass returns the good pass that r brings, or why there is none.
func (g *Guard) pass(r *merlon.Request) (claim, string) {
	text, found := passText(r.Header)
	switch {
	case found == 0:
		return claim{}, noPass
	case found > 1:
		return claim{}, twoPasses
	}
	c, ok := g.passes.open(text, r.Site, merlon.Subscriber(r.Client))
	if !ok {
		return claim{}, foreignPass
	}
	return c, g.ask.unmet(c, r.Received)
}

// unmet says why a pass is not good enough, or nothing.
func (d demand) unmet(c claim, now time.Time) string {
	life := d.pass
	switch c.kind {
	case kindWorked:
		if int(c.bits) < d.bits {
			return weakPass
		}
	case kindWaited:
		if time.Duration(c.wait)*time.Second < d.wait.Truncate(time.Second) {
			return weakPass
		}
		life /= lesser
	default:
		return foreignPass
	}
	if age := now.Sub(c.issued()); age >= life || age < -skew {
		return oldPass
	}
	return ""
}

// passText returns the value of the pass's cookie, and how many there are. With
// two, which of them the host has set is anyone's guess.
func passText(h http.Header) (text string, found int) {
	for _, field := range h["Cookie"] {
		for part := range strings.SplitSeq(field, ";") {
			if name, value, ok := strings.Cut(strings.Trim(part, " \t"), "="); ok && name == Cookie {
				text = value
				found++
			}
		}
	}
	return text, found
}

// passCookie returns the cookie that holds a pass. It proves work and nobody's
// identity, so it also goes with what other sites' pages send: a form that a
// bank or an identity provider has a browser post must not be lost.
func passCookie(text string) *http.Cookie {
	return &http.Cookie{
		Name: Cookie, Value: text, Path: "/", MaxAge: int(maxPass / time.Second),
		Secure: true, HttpOnly: true, SameSite: http.SameSiteNoneMode,
	}
}
