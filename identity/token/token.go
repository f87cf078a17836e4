// Package token issues signed access tokens and believes those of issuers it
// was told to trust: each issuer with its own algorithms, keys, audience and
// names of claims. It also keeps what must outlive a token: the signing keys,
// what was revoked, and the families of refresh secrets.
//
// What was revoked is refused within a second on every replica, but a stolen
// token is good for whoever holds it until then or until it expires, unless it
// is bound to a client certificate. Tokens are read from the Authorization
// field only; encrypted tokens and shared-key signatures are not accepted.
package token

import (
	"errors"
	"net/http"
	"time"

	"github.com/merlon-dev/merlon"
)

// Config configures a [Service]. The zero Config issues no tokens and trusts
// no issuer.
type Config struct {
	// Issuer is the name that Merlon gives itself in the tokens it issues, the
	// "iss" claim: an https URL without query and fragment, compared byte for
	// byte. Default: none, so that no tokens are issued. Example:
	//
	//	issuer: https://shop.example.com
	Issuer string `yaml:"issuer,omitempty"`
	// Audience is for whom Merlon's own tokens are, the "aud" claim, if whoever
	// asks for a token names nobody; and whom a token must name, one of them,
	// to be accepted here. Default: the issuer. Example:
	//
	//	audience: [https://api.example.com]
	Audience []string `yaml:"audience,omitempty"`
	// Algorithm is what new signing keys are made for: RS256 or PS256 with
	// RSA-3072, ES256 or EdDSA. A change takes effect with the next key, which
	// is published a day before it signs. RS256 is what every client can
	// verify; ES256 and EdDSA sign a hundred times faster. Default: RS256.
	// Example:
	//
	//	algorithm: EdDSA
	Algorithm string `yaml:"algorithm,omitempty"`
	// Lifetime is how long an access token is good. From 30s to 15m.
	// Default: 5m. Example:
	//
	//	lifetime: 10m
	Lifetime time.Duration `yaml:"lifetime,omitempty"`
	// Rotate is how long a signing key signs. From 48h to 8760h. Default:
	// 720h, which is 30 days. Example:
	//
	//	rotate: 168h
	Rotate time.Duration `yaml:"rotate,omitempty"`
	// Refresh bounds the families of refresh secrets. Example:
	//
	//	refresh: {absolute: 168h, idle: 24h}
	Refresh RefreshConfig `yaml:"refresh,omitempty"`
	// Issuers are others whose tokens are accepted. Default: none. Example:
	//
	//	issuers:
	//	  - issuer: https://id.example.com/realms/shop
	//	    audience: [shop-api]
	Issuers []Issuer `yaml:"issuers,omitempty"`
	// Cache is how many verified tokens are remembered, about 1 KiB each, so
	// that their signatures need not be verified for every request. The
	// open connections of a token that is forgotten early are closed. From 16
	// to 1000000. Default: 16384. Example:
	//
	//	cache: 100000
	Cache int `yaml:"cache,omitempty"`
}

// RefreshConfig bounds the families of refresh secrets.
type RefreshConfig struct {
	// Absolute is how long a family lives from its log-in, however often it is
	// used. From 5m to 2160h. Default: 24h. Example:
	//
	//	absolute: 720h
	Absolute time.Duration `yaml:"absolute,omitempty"`
	// Idle is how long a family lives without being used. From 5m to 2160h,
	// no longer than absolute. Default: 1h. Example:
	//
	//	idle: 12h
	Idle time.Duration `yaml:"idle,omitempty"`
	// Grace is how long a refresh secret that was just used gives the same
	// successor once more, for two tabs that refresh at once or an answer that
	// was lost. From 1s to 30s. Default: 10s. Example:
	//
	//	grace: 5s
	Grace time.Duration `yaml:"grace,omitempty"`
}

// An Issuer is one whose tokens are accepted.
type Issuer struct {
	// Issuer is the exact "iss" claim: an https URL. Default: none; it must be
	// set. Example:
	//
	//	issuer: https://id.example.com/realms/shop
	Issuer string `yaml:"issuer"`
	// Audience is whom a token must name in "aud", at least one of them: the
	// name that this issuer knows your service by. Default: none; it must be set.
	// Example:
	//
	//	audience: [shop-api]
	Audience []string `yaml:"audience"`
	// JWKS is the https URL of the issuer's keys. Default: what the issuer's
	// metadata says at /.well-known/openid-configuration. Example:
	//
	//	jwks: https://id.example.com/realms/shop/certs
	JWKS string `yaml:"jwks,omitempty"`
	// Algorithms are those that the issuer signs with: RS256, RS384, RS512,
	// PS256, PS384, PS512, ES256, ES384, ES512, EdDSA. A key that does not say
	// what it is for is held to the first that fits it. Default: RS256, ES256,
	// EdDSA and PS256. Example:
	//
	//	algorithms: [ES256]
	Algorithms []string `yaml:"algorithms,omitempty"`
	// Types are the accepted "typ" of tokens; "none" stands for tokens without
	// one. Issuers that do not follow RFC 9068 write JWT, on ID tokens also;
	// with it, tokens that carry marks of an ID token, logout token or proof
	// are still refused. Default: at+jwt. Example:
	//
	//	types: [at+jwt, JWT]
	Types []string `yaml:"types,omitempty"`
	// Lifetime is the longest that a token may be good, from "iat" to "exp".
	// From 1m to 24h. Default: 60m. Example:
	//
	//	lifetime: 15m
	Lifetime time.Duration `yaml:"lifetime,omitempty"`
	// Skew is how far the issuer's clock may be from ours. From 1s to 60s.
	// Default: 60s. Example:
	//
	//	skew: 5s
	Skew time.Duration `yaml:"skew,omitempty"`
	// Name is the claim that people are shown and log-in rules compare. Choose
	// only one that users cannot change. Default: none; the name is the
	// issuer, "#" and the subject. Example:
	//
	//	name: email
	Name string `yaml:"name,omitempty"`
	// Groups is the claim with a user's groups, a list of texts; a name that
	// begins with a slash is a path into the claims (RFC 6901). Default: none;
	// the issuer puts nobody into groups. Example:
	//
	//	groups: groups
	Groups string `yaml:"groups,omitempty"`
	// Roles is the claim with a user's roles, as for groups. Default: none;
	// the issuer gives nobody a role. Example:
	//
	//	roles: /realm_access/roles
	Roles string `yaml:"roles,omitempty"`
	// Tenant is the claim with the customer that a user belongs to, a text, as
	// for groups. Default: none; see identity.tenant. Example:
	//
	//	tenant: org_id
	Tenant string `yaml:"tenant,omitempty"`
	// Scopes is the claim with what the token is good for: a text with spaces
	// in between, or a list. A token without it is good for no scope.
	// Default: scope. Example:
	//
	//	scopes: scp
	Scopes string `yaml:"scopes,omitempty"`
	// Methods says what the issuer's "amr" values mean here: password, totp,
	// passkey or recovery. Values that are not listed mean nothing.
	// Default: none. Example:
	//
	//	methods: {pwd: password, otp: totp}
	Methods map[string]string `yaml:"methods,omitempty"`
	// CA is a file with the certificates, in PEM, that the issuer's server is
	// verified by. Default: those of the system. Example:
	//
	//	ca: /etc/merlon/corp-ca.pem
	CA string `yaml:"ca,omitempty"`
	// Private allows the issuer's server to have a private or loopback
	// address. Default: false. Example:
	//
	//	private: true
	Private bool `yaml:"private,omitempty"`
	// MaxAge is how long keys that were fetched may be used when they cannot
	// be fetched again. From 5m to 168h. Default: 24h. Example:
	//
	//	max_age: 2h
	MaxAge time.Duration `yaml:"max_age,omitempty"`
}

const (
	// TokenMalformed: what was sent as a token is not a signed JWT in its
	// strict form: three parts of base64url, no duplicate members, no critical
	// or embedded headers, not encrypted, not nested.
	TokenMalformed merlon.Reason = "token-malformed"
	// TokenTooLong: the token has more than 16 KiB. Let the issuer put fewer
	// groups into it.
	TokenTooLong merlon.Reason = "token-too-long"
	// TokenIssuer: no trusted issuer has exactly the name in the token. If it
	// should be one, add it to issuers; a slash at the end makes a difference.
	TokenIssuer merlon.Reason = "token-issuer"
	// TokenAlgorithm: the token is signed with an algorithm that its issuer is
	// not trusted with. If the issuer has changed it, change algorithms.
	TokenAlgorithm merlon.Reason = "token-algorithm"
	// TokenType: the token is of another type than access tokens have, perhaps
	// an ID token or a refresh secret. If the issuer does not follow RFC 9068,
	// set its types to [JWT].
	TokenType merlon.Reason = "token-type"
	// TokenKey: the issuer has no such key. It was asked for its keys again,
	// unless that was done a moment ago.
	TokenKey merlon.Reason = "token-key"
	// TokenSignature: the signature is not one of the issuer's key.
	TokenSignature merlon.Reason = "token-signature"
	// TokenClaims: a claim is missing or has a form that it must not have.
	TokenClaims merlon.Reason = "token-claims"
	// TokenAudience: the token is for somebody else. If this service has
	// another name with the issuer, add it to audience.
	TokenAudience merlon.Reason = "token-audience"
	// TokenExpired: the token is no longer good; clients get a new one.
	TokenExpired merlon.Reason = "token-expired"
	// TokenEarly: the token is not good yet. Clocks may differ by skew.
	TokenEarly merlon.Reason = "token-early"
	// TokenLifetime: the token is good for longer than its issuer may say.
	// Raise lifetime of that issuer if it cannot be told to issue shorter ones.
	TokenLifetime merlon.Reason = "token-lifetime"
	// TokenRevoked: the token, its session or all older tokens of its subject
	// were revoked.
	TokenRevoked merlon.Reason = "token-revoked"
	// TokenBinding: the token is bound to a key, and the request does not
	// prove to have it. Bound to certificates is what can be proved here.
	TokenBinding merlon.Reason = "token-binding"
	// TokenUnavailable: the issuer's keys, or the list of what was revoked,
	// cannot be had, and what was known is too old. See the cause.
	TokenUnavailable merlon.Reason = "token-unavailable"

	// RefreshUnknown: there is no such family of refresh secrets, or no longer.
	RefreshUnknown merlon.Reason = "refresh-unknown"
	// RefreshExpired: the family was not used for too long, or is too old.
	RefreshExpired merlon.Reason = "refresh-expired"
	// RefreshReused: a refresh secret was used that had been replaced before.
	// Whoever had a copy of it, one of the two is a thief: the family was
	// revoked, and its owner has to log in again.
	RefreshReused merlon.Reason = "refresh-reused"
	// RefreshClient: a refresh secret was used by another client than the one
	// it was given to. The family was revoked.
	RefreshClient merlon.Reason = "refresh-client"
	// RefreshLost: a refresh secret is newer than the store knows, so the
	// store has lost something. The family was revoked.
	RefreshLost merlon.Reason = "refresh-lost"
)

// An Error says why a token or refresh secret is not accepted.
type Error struct {
	Why     merlon.Reason
	Err     error  // for the operator only
	Subject string // whose it was, if its signature or secret holds; otherwise empty
	Family  string // the family of refresh secrets that was revoked, if one was
}

func (e *Error) Error() string {
	if e.Err == nil {
		return string(e.Why)
	}
	return string(e.Why) + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Reason returns the stable word for the cause.
func (e *Error) Reason() merlon.Reason { return e.Why }

// Status returns the HTTP status that fits: 401, or 503 if the fault is not
// the token's.
func (e *Error) Status() int {
	if e.Why == TokenUnavailable {
		return http.StatusServiceUnavailable
	}
	return http.StatusUnauthorized
}

// Challenge returns the WWW-Authenticate value for a refusal with err, or
// with no token at all if err is nil (RFC 6750, section 3).
func Challenge(err error) string {
	if err == nil || errors.Is(err, merlon.ErrNoProof) {
		return "Bearer"
	}
	return `Bearer error="invalid_token"`
}

// Claims are what a token says. Issue takes them, Verify returns them.
type Claims struct {
	ID       string   // jti; Issue makes one if it is empty
	Issuer   string   // iss; Issue sets it
	Subject  string   // sub
	Audience []string // aud; Issue takes Config.Audience if there are none
	Client   string   // client_id
	Scopes   []string // scope; nil if the token has none
	Groups   []string
	Roles    []string
	Name     string    // name
	Tenant   string    // whose claim an issuer's configuration names
	Methods  []string  // amr
	AuthTime time.Time // auth_time; zero if the token has none
	Session  string    // sid
	Issued   time.Time // iat; Issue sets it
	Expires  time.Time // exp; Issue makes it Config.Lifetime from now if it is zero
	// Certificate is the SHA-256 hash, in base64url, of the client
	// certificate that the token is bound to (RFC 8705); empty if it is not.
	Certificate string
}

// A Grant is what a family of refresh secrets stands for.
type Grant struct {
	Subject  string
	Client   string
	Session  string
	Audience []string
	Scopes   []string
	Methods  []string
	AuthTime time.Time
}

// A Refresh is one refresh secret, for the client to keep in a place that no
// script reads.
type Refresh struct {
	Secret  string
	Family  string
	Expires time.Time // when it ends if it is not used; never later than the family
}
