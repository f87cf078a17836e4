// Package mfa proves people by more than a password: one-time codes of an
// authenticator app, recovery codes, passkeys and security keys. What is good
// once is good once, on all replicas together.
//
// It does not know who is asking and opens no session: the log-in desk calls
// it after the password, or instead of it, and counts wrong tries, without
// which six digits are soon guessed. Adding and removing factors is for those
// who have just proved themselves (a fresh step-up), which is the caller's to
// see to as well. Text messages, mails and push are not offered: they can be
// phished or read elsewhere. Attestation is not asked for, so which make a key
// is stays unknown.
package mfa

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"
	"unicode"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/secrets"
)

// Config configures [Factors]. The zero Config names Merlon in apps and gives
// each host passkeys of its own.
type Config struct {
	// Issuer is the name that authenticator apps and browsers show beside the
	// account, such as your brand: up to 64 characters, without a colon. People
	// keep the old name after a change. Default: Merlon. Example:
	//
	//	issuer: Example Shop
	Issuer string `yaml:"issuer,omitempty"`
	// PasskeyDomain is the domain whose sites share passkeys: with example.com,
	// a passkey made at shop.example.com is also good at wiki.example.com. It
	// must be one that you own, not one under which others register names.
	// Passkeys made before a change are good only where they were made.
	// Default: none: each host has passkeys of its own. Example:
	//
	//	passkey_domain: example.com
	PasskeyDomain string `yaml:"passkey_domain,omitempty"`
}

var (
	// ErrWrong: the code or answer proves nothing. What is wrong about it is
	// for the operator only.
	ErrWrong = errors.New("does not prove it")
	// ErrStale: what was begun took too long or belongs to another account,
	// site or purpose. It must begin again.
	ErrStale = errors.New("must begin again")
	// ErrCloned: a security key's counter went back: there may be a copy of
	// it. Its owner should be told, and the key removed.
	ErrCloned = errors.New("the key's counter went back; it may have been copied")
	// ErrTooMany: the account has as many factors of this kind as it may.
	ErrTooMany = errors.New("there are too many of this kind; remove one first")
)

const (
	maxTOTP     = 3 // each multiplies what a guess is worth
	maxPasskeys = 20
	maxName     = 64
	maxToken    = 512
)

// Factors enrols and checks factors. It may be used by many goroutines.
type Factors struct {
	issuer, domain string
	store          account.Store
	seeds          *secrets.Box // TOTP secrets at rest
	keys           *secrets.Box // passkeys at rest: nothing secret, but nobody shall plant one
	tickets        *secrets.Box // what a browser holds between two steps
	recovery       []byte       // keys the hashes of recovery codes
	decoys         []byte       // makes up credentials of accounts that do not exist
	decoy          account.Factor
	now            func() time.Time
}

// New returns Factors that keep what they know in store, its secrets sealed
// with keys derived from key.
func New(c Config, key secrets.Key, store account.Store) (*Factors, error) {
	f := &Factors{
		issuer:   strings.TrimSpace(c.Issuer),
		domain:   c.PasskeyDomain,
		store:    store,
		seeds:    key.Box("merlon totp"),
		keys:     key.Box("merlon passkey"),
		tickets:  key.Box("merlon mfa ticket"),
		recovery: key.Derive("merlon recovery code"),
		decoys:   key.Derive("merlon passkey decoy"),
		now:      time.Now,
	}
	var errs []error
	if f.issuer == "" {
		f.issuer = "Merlon"
	}
	if len([]rune(f.issuer)) > maxName || strings.ContainsFunc(f.issuer, func(r rune) bool { return r == ':' || !unicode.IsPrint(r) }) {
		errs = append(errs, merlon.BadSetting("issuer", c.Issuer, "must be up to 64 characters that can be read, without a colon"))
	}
	if f.domain != "" && (!hostName(f.domain) || !strings.Contains(f.domain, ".")) {
		errs = append(errs, merlon.BadSetting("passkey_domain", c.PasskeyDomain, "must be a domain in lower case such as example.com, without a port"))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return f, f.makeDecoy()
}

// Held is how many factors of each kind an account has.
type Held struct {
	TOTP         int
	Recovery     int // codes that are left
	Passkeys     int // good at this site, also as the only proof
	SecurityKeys int // good at this site, beside another proof
	Elsewhere    int // passkeys and security keys of other sites
}

// Held counts an account's factors as they stand for the site with an origin
// such as "https://shop.example.com".
func (f *Factors) Held(ctx context.Context, origin, accountID string) (Held, error) {
	var h Held
	s, siteErr := f.site(origin) // at an address without a name there are no passkeys
	all, err := f.store.Factors(ctx, accountID)
	if err != nil {
		return h, err
	}
	for _, fa := range all {
		switch fa.Kind {
		case account.TOTP:
			h.TOTP++
		case account.Recovery:
			h.Recovery++
		case account.Passkey:
			rec, err := f.record(fa)
			switch {
			case err != nil:
				return h, err
			case siteErr != nil || rec.RP != s.rp:
				h.Elsewhere++
			case rec.Verified:
				h.Passkeys++
			default:
				h.SecurityKeys++
			}
		}
	}
	return h, nil
}

// count returns how many factors of a kind the account has.
func (f *Factors) count(ctx context.Context, accountID, kind string) (int, error) {
	all, err := f.store.Factors(ctx, accountID)
	n := 0
	for _, fa := range all {
		if fa.Kind == kind {
			n++
		}
	}
	return n, err
}

// at names a place for a box. Our own ids have no NUL in them.
func at(parts ...string) string { return strings.Join(parts, "\x00") }

// seal makes a ticket that is good at one place until a time.
func (f *Factors) seal(place string, until time.Time, payload []byte) string {
	plain := binary.BigEndian.AppendUint64(nil, uint64(until.Unix()))
	return base64.RawURLEncoding.EncodeToString(f.tickets.Seal(append(plain, payload...), place))
}

// open returns what was sealed for the place, unless its time is over.
func (f *Factors) open(ticket, place string, size int) ([]byte, error) {
	if len(ticket) > maxToken {
		return nil, fmt.Errorf("%w: the ticket is too long", ErrStale)
	}
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(ticket)
	if err != nil || strings.ContainsAny(ticket, "\r\n") { // which decoding skips
		return nil, fmt.Errorf("%w: the ticket is not base64url", ErrStale)
	}
	plain, err := f.tickets.Open(sealed, place)
	if err != nil {
		return nil, fmt.Errorf("%w: the ticket %w", ErrStale, err)
	}
	if len(plain) != 8+size {
		return nil, fmt.Errorf("%w: the ticket has another length", ErrStale)
	}
	if until := time.Unix(int64(binary.BigEndian.Uint64(plain)), 0); !f.now().Before(until) {
		return nil, fmt.Errorf("%w: it ended at %s", ErrStale, until.UTC().Format(time.RFC3339))
	}
	return plain[8:], nil
}

// cleanName makes what people call a factor safe to show and short.
func cleanName(name, otherwise string) string {
	name = strings.TrimSpace(strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, name))
	if r := []rune(name); len(r) > maxName {
		name = strings.TrimSpace(string(r[:maxName]))
	}
	if name == "" {
		return otherwise
	}
	return name
}

// A site is where passkeys are made and used.
type site struct {
	origin string // as browsers write it
	rp     string // the RP ID: the name that a passkey is bound to
}

// site returns what passkeys are bound to at an origin: its host, or
// passkey_domain if the host is within it. Even then an answer is good only at
// the very origin that asked for it, so that a taken-over sub-domain can ask
// for a passkey, but cannot use what it gets.
func (f *Factors) site(origin string) (site, error) {
	u, err := url.Parse(origin)
	if err != nil || u.Opaque != "" || u.User != nil || u.Path != "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return site{}, fmt.Errorf("origin %q: must be a scheme and a host, such as https://shop.example.com", origin)
	}
	host := strings.ToLower(u.Hostname())
	local := host == "localhost" || strings.HasSuffix(host, ".localhost")
	switch {
	case u.Scheme != "https" && (u.Scheme != "http" || !local):
		return site{}, fmt.Errorf("origin %q: browsers have passkeys only with https, and at localhost", origin)
	case !hostName(host) || host != "localhost" && !strings.Contains(host, "."):
		return site{}, fmt.Errorf("origin %q: passkeys are bound to a host name with a domain; an address has none", origin)
	}
	s := site{origin: u.Scheme + "://" + host, rp: host}
	if p := u.Port(); p != "" && (u.Scheme != "https" || p != "443") && (u.Scheme != "http" || p != "80") {
		s.origin += ":" + p
	}
	if f.domain != "" && (host == f.domain || strings.HasSuffix(host, "."+f.domain)) {
		s.rp = f.domain
	}
	return s, nil
}

// hostName reports whether s is a host's name in lower-case ASCII, as it
// stands in origins.
func hostName(s string) bool {
	if net.ParseIP(s) != nil || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
		for _, c := range []byte(label) {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return false
			}
		}
	}
	return true
}

// makeDecoy makes the credential that answers are checked against which name
// none of ours, so that the time tells nothing about who has one (trap 41).
func (f *Factors) makeDecoy() error {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	pub, err := cosePublic(&k.PublicKey)
	if err != nil {
		return err
	}
	f.decoy = account.Factor{ID: "decoy", Kind: account.Passkey}
	f.decoy.Data, err = f.sealRecord(f.decoy, record{Public: pub, Verified: true})
	return err
}
