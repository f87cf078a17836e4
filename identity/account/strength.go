package account

import (
	"errors"
	"strings"
)

// The words of merlon.Identity.Methods, beside [TOTP], [Passkey] and
// [Recovery], which are methods too: how somebody was proved.
const (
	ByPassword    = "password"
	BySecurityKey = "security-key" // WebAuthn without user verification: that the key is there, not who holds it
	ByCertificate = "certificate"  // a client certificate of the TLS connection
	ByBasic       = "basic"        // a password in each request
	ByKey         = "key"          // an API key
	ByToken       = "token"        // a bearer token that does not say more
	ByOIDC        = "oidc:"        // with the provider's name after it
	// ByMFA: the provider says by amr or acr that it asked for two factors.
	// It is worth nothing without the provider's own method.
	ByMFA = "mfa"
)

// A Strength is how well somebody was proved, or must be. Each includes those
// before it, so that they may be compared by <.
type Strength uint8

const (
	// None: nothing proves anybody.
	None Strength = iota
	// Single: one factor (AAL1 of NIST SP 800-63B-4).
	Single
	// Multi: two factors of different kinds, or one authenticator that itself
	// asks for a second one (AAL2).
	Multi
	// PhishingResistant: two factors, of which one is bound by cryptography to
	// who asks for it, so that a look-alike site gets nothing it can use (SP
	// 800-63B-4, 3.2.5). That is AAL2 with phishing resistance. Whether it is
	// AAL3 hangs on the key being unable to leave its device, which nobody can
	// tell without attestation: passkeys that are synced can leave.
	PhishingResistant
)

var strengths = [...]string{"none", "single-factor", "multi-factor", "phishing-resistant"}

// String returns "none", "single-factor", "multi-factor" or "phishing-resistant".
func (s Strength) String() string {
	if int(s) < len(strengths) {
		return strengths[s]
	}
	return "unknown"
}

// MarshalText returns what String does.
func (s Strength) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what String writes. "any", for any second factor, is
// another word for "multi-factor".
func (s *Strength) UnmarshalText(text []byte) error {
	for i, word := range strengths {
		if string(text) == word {
			*s = Strength(i)
			return nil
		}
	}
	if string(text) == "any" {
		*s = Multi
		return nil
	}
	return errors.New(`must be "none", "single-factor", "any" (or "multi-factor") or "phishing-resistant"`)
}

// StrengthOf returns what methods are worth together. Words that it does not
// know are worth nothing.
//
// Two factors must be of different kinds: what somebody knows (a password)
// and what somebody has (a code, a key). Two things that one thief finds in
// one drawer stay one factor: a code and a recovery code, a certificate and a
// security key. A client certificate counts as had: whether a PIN guards its
// key cannot be seen from here, so alone it is one factor; but with a password
// it resists phishing, being bound to the TLS connection. Keys and tokens are
// for programs and never become a second factor. A log-in at a provider counts
// as known, since a password is the least that it asks for.
func StrengthOf(methods []string) Strength {
	var single, knows, has, bound, oidc, mfa bool
	for _, m := range methods {
		switch m {
		case Passkey:
			return PhishingResistant // the device has asked for its own PIN or finger
		case ByPassword, ByBasic:
			knows = true
		case TOTP, Recovery:
			has = true
		case BySecurityKey, ByCertificate:
			has, bound = true, true
		case ByKey, ByToken:
			single = true
		case ByMFA:
			mfa = true
		default:
			if name, ok := strings.CutPrefix(m, ByOIDC); ok && name != "" {
				knows, oidc = true, true
			}
		}
	}
	switch {
	case knows && bound:
		return PhishingResistant
	case knows && has, oidc && mfa:
		return Multi
	case knows || has || single:
		return Single
	}
	return None
}
