package identity

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/merlon-dev/merlon/identity/account"
)

// What a pending is for.
const (
	toLogIn   = "log-in"
	toStepUp  = "step-up"
	toRecover = "recover"
)

// A pending is what must be carried from one step to the next. Whoever has it
// can neither read nor change it, nor use it for another account, in another
// browser or on another site; each step looks at the account again.
type pending struct {
	Purpose string           `json:"p"`
	Account string           `json:"a"`
	Methods []string         `json:"m,omitempty"` // what was proved
	Need    account.Strength `json:"n,omitempty"` // of a step-up
	Session string           `json:"t,omitempty"` // the session of a step-up
	Site    string           `json:"s"`
	Browser []byte           `json:"b"` // SHA-256 of the cookie that the browser must have
	Expires int64            `json:"e"`
	Epoch   []byte           `json:"h"`           // of the account, as [epoch] says
	Link    []byte           `json:"l,omitempty"` // the hash of a recovery link
	Why     string           `json:"w,omitempty"` // a new password is wanted
	Proved  bool             `json:"f,omitempty"` // the second factor, before a recovery
	Enrol   bool             `json:"r,omitempty"` // a factor may be enrolled

	Issuer  string `json:"i,omitempty"` // the identity provider
	Subject string `json:"u,omitempty"`
	SID     string `json:"d,omitempty"`
	IDToken string `json:"k,omitempty"` // for the end of the session there
}

// pendingLife is how long a log-in may take; NIST SP 800-63B-4 gives ten
// minutes to what is out of band.
const pendingLife = 10 * time.Minute

// maxPending holds a pending with the longest ID token that is carried.
const maxPending = 8 << 10

// maxIDToken is how long an ID token may be that is kept; providers that write
// longer ones ask whoever logs out.
const maxIDToken = 3 << 10

// epoch changes with everything that must end what is pending: the password,
// and what ends sessions. So a new password can be set once by one pending.
func epoch(a account.Account) []byte {
	h := sha256.New()
	for _, t := range []time.Time{a.PasswordSince, a.ValidFrom} {
		b, err := t.UTC().Truncate(time.Microsecond).MarshalBinary()
		if err != nil { // only for zones with odd seconds
			panic(err)
		}
		h.Write(b)
	}
	h.Write([]byte(a.Password))
	return h.Sum(nil)[:16]
}

// seal gives p back to the browser.
func (d *Desk) seal(v Visit, p *pending, a account.Account) string {
	p.Account, p.Site, p.Epoch = a.ID, v.Site, epoch(a)
	if p.Expires == 0 {
		p.Expires = d.now().Add(pendingLife).Unix()
	}
	sum := sha256.Sum256([]byte(d.browser(v)))
	p.Browser = sum[:]
	b, err := json.Marshal(p)
	if err != nil { // it has only texts and numbers
		panic(err)
	}
	return base64.RawURLEncoding.EncodeToString(d.box.Seal(b, "pending "+v.Site))
}

var errStale = errors.New("identity: what was begun is over")

// resume opens a pending and returns the account that it is for, as it is now.
// errStale if it is not good here any more.
func (d *Desk) resume(v Visit, text string, purposes ...string) (*pending, account.Account, error) {
	none := account.Account{}
	if len(text) > maxPending {
		return nil, none, errStale
	}
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, none, errStale
	}
	b, err := d.box.Open(sealed, "pending "+v.Site)
	if err != nil {
		return nil, none, errStale
	}
	p := &pending{}
	if json.Unmarshal(b, p) != nil {
		return nil, none, errStale
	}
	c, _ := cookie(v.Request.Header, tryCookie)
	sum := sha256.Sum256([]byte(c))
	switch {
	case p.Site != v.Site, !slices.Contains(purposes, p.Purpose), d.now().Unix() >= p.Expires:
		return nil, none, errStale
	case c == "" || subtle.ConstantTimeCompare(sum[:], p.Browser) != 1:
		return nil, none, errStale
	}
	a, err := d.env.Accounts.Account(v.Context(), p.Account)
	switch {
	case errors.Is(err, account.ErrNotFound):
		return nil, none, errStale
	case err != nil:
		return nil, none, err
	case a.Disabled || subtle.ConstantTimeCompare(epoch(a), p.Epoch) != 1:
		return nil, none, errStale
	}
	if p.Purpose == toStepUp && (v.Identity == nil || v.Identity.Session != p.Session) {
		return nil, none, errStale
	}
	return p, a, nil
}

// cookiePrefix begins the names of all cookies of Merlon's own but the
// session's, which is the prefix without the dash.
const (
	tryCookie    = "__Host-merlon-try"
	deviceCookie = "__Host-merlon-device"
)

// secretLen is the length of 32 bytes in base64url.
const secretLen = 43

func newSecret() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// browser returns what tells this browser from others while a log-in is
// pending, and sees to it that the browser has it.
func (d *Desk) browser(v Visit) string {
	if c, ok := cookie(v.Request.Header, tryCookie); ok && len(c) == secretLen {
		return c
	}
	for _, line := range v.Header["Set-Cookie"] {
		if rest, ok := strings.CutPrefix(line, tryCookie+"="); ok {
			value, _, _ := strings.Cut(rest, ";")
			return value
		}
	}
	secret := newSecret()
	setCookie(v.Header, tryCookie, secret, 0)
	return secret
}

// cookie returns the value of the one cookie with a name. With two, which was
// meant is anyone's guess: there is none.
func cookie(h http.Header, name string) (string, bool) {
	value, n := "", 0
	for _, field := range h["Cookie"] {
		for part := range strings.SplitSeq(field, ";") {
			k, v, _ := strings.Cut(strings.Trim(part, " \t"), "=")
			if k == name {
				value = v
				n++
			}
		}
	}
	if n != 1 {
		return "", false
	}
	return value, true
}

// setCookie sets a cookie of the desk; with an age of 0 until the browser is
// closed, with a negative one it is removed.
func setCookie(h http.Header, name, value string, age time.Duration) {
	h.Add("Set-Cookie", (&http.Cookie{
		Name: name, Value: value, Path: "/", MaxAge: int(age / time.Second),
		Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	}).String())
}
