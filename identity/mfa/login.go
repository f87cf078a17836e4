package mfa

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"

	"github.com/merlon-dev/merlon/identity/account"
)

// BeginLogIn asks for a passkey as the only proof, at the site with the
// origin. With an empty name it asks for whichever the browser has. Otherwise
// it asks for those of the account that the name stands for; accountID is
// empty if there is none, and the question then looks like any other (trap
// 41). It is also the question for a step-up of somebody who is known.
func (f *Factors) BeginLogIn(ctx context.Context, origin, name, accountID string) (Ceremony, error) {
	s, err := f.site(origin)
	if err != nil {
		return Ceremony{}, err
	}
	if name == "" && accountID != "" {
		return Ceremony{}, errors.New("an account is asked for without its name")
	}
	var offer []protocol.CredentialDescriptor
	who := make([]byte, sha256.Size) // anybody
	if name != "" {
		have, err := f.credentials(ctx, s, accountID)
		if err != nil {
			return Ceremony{}, err
		}
		var good []credential
		for _, c := range have {
			if c.Verified {
				good = append(good, c)
			}
		}
		made := f.decoysFor(s, name)
		if offer = descriptors(good, false); len(offer) == 0 {
			offer = made
		}
		who = whoIs(accountID) // of which nobody's is none
	}
	return f.ask(s, s.place("log-in", ""), offer, protocol.VerificationRequired, who)
}

// BeginSecond asks for one of the account's passkeys and security keys beside
// another proof. Passkeys are asked to verify their owner, which browsers may
// leave out; keys that never have are not made to ask for a PIN.
// account.ErrNotFound: the account has none for this site.
func (f *Factors) BeginSecond(ctx context.Context, origin, accountID string) (Ceremony, error) {
	s, err := f.site(origin)
	if err != nil {
		return Ceremony{}, err
	}
	have, err := f.credentials(ctx, s, accountID)
	switch {
	case err != nil:
		return Ceremony{}, err
	case len(have) == 0:
		return Ceremony{}, account.ErrNotFound
	}
	verify := protocol.VerificationDiscouraged
	for _, c := range have {
		if c.Verified {
			verify = protocol.VerificationPreferred
		}
	}
	return f.ask(s, s.place("second", accountID), descriptors(have, true), verify, whoIs(accountID))
}

// whoIs names an account in tickets, as long as any other.
func whoIs(accountID string) []byte {
	h := sha256.Sum256([]byte(at("merlon passkey", accountID)))
	return h[:]
}

func (f *Factors) ask(s site, place string, offer []protocol.CredentialDescriptor, verify protocol.UserVerificationRequirement, who []byte) (Ceremony, error) {
	rp, err := f.relyingParty(s)
	if err != nil {
		return Ceremony{}, err
	}
	options, session, err := rp.BeginDiscoverableLogin(func(o *protocol.PublicKeyCredentialRequestOptions) error {
		o.AllowedCredentials = offer
		o.UserVerification = verify
		o.Timeout = int(ceremonyLife.Milliseconds())
		return nil
	})
	if err != nil {
		return Ceremony{}, err
	}
	return f.begin(place, session.Challenge, who, options)
}

// A Proof is whom a passkey or security key has proved, and how.
type Proof struct {
	Account string
	Factor  account.Factor
	// Method is account.Passkey if the key has verified its owner, which
	// counts as two factors, and otherwise account.BySecurityKey.
	Method string
}

// FinishLogIn judges the answer to [Factors.BeginLogIn]. Errors are
// [ErrWrong], [ErrStale], account.ErrUsed and, with the Proof filled for the
// notice to its owner, [ErrCloned]; whoever asked should see no difference
// between them but "begin again". Whether the account may log in at all is the
// caller's to look up; so is, for a step-up, that it is the same account.
func (f *Factors) FinishLogIn(ctx context.Context, origin, ticket string, answer []byte) (Proof, error) {
	s, err := f.site(origin)
	if err != nil {
		return Proof{}, err
	}
	return f.finish(ctx, s, s.place("log-in", ""), ticket, answer, protocol.VerificationRequired)
}

// FinishSecond judges the answer to [Factors.BeginSecond] for the account that
// the other proof was of. Its errors are those of [Factors.FinishLogIn].
func (f *Factors) FinishSecond(ctx context.Context, origin, accountID, ticket string, answer []byte) (Proof, error) {
	s, err := f.site(origin)
	if err != nil {
		return Proof{}, err
	}
	return f.finish(ctx, s, s.place("second", accountID), ticket, answer, protocol.VerificationPreferred)
}

func (f *Factors) finish(ctx context.Context, s site, place, ticket string, answer []byte, verify protocol.UserVerificationRequirement) (Proof, error) {
	payload, err := f.open(ticket, place, challengeSize+sha256.Size)
	if err != nil {
		return Proof{}, err
	}
	challenge, who := payload[:challengeSize], payload[challengeSize:]
	if len(answer) > maxAnswer {
		return Proof{}, fmt.Errorf("%w: the answer has more than %d bytes", ErrWrong, maxAnswer)
	}
	parsed, err := protocol.ParseCredentialRequestResponseBytes(answer)
	if err != nil {
		return Proof{}, why(err)
	}
	if got := parsed.Response.CollectedClientData.Origin; got != s.origin {
		return Proof{}, fmt.Errorf("%w: answered at %q", ErrWrong, got)
	}
	if err := f.spend(ctx, challenge); err != nil {
		return Proof{}, err
	}
	c, known, err := f.find(ctx, s, who, parsed)
	if err != nil {
		return Proof{}, err
	}
	used, err := f.judge(s, c, challenge, parsed, verify)
	switch {
	case known != nil:
		return Proof{}, known
	case err != nil:
		return Proof{}, why(err)
	}
	verified := c.Verified && parsed.Response.AuthenticatorData.Flags.UserVerified()
	p := Proof{Account: c.Account, Factor: c.Factor, Method: account.BySecurityKey}
	if verified {
		p.Method = account.Passkey
	} else if verify == protocol.VerificationRequired {
		return Proof{}, fmt.Errorf("%w: the key did not verify its owner when it was taken in", ErrWrong)
	}
	if used.Authenticator.CloneWarning {
		p.Method = ""
		return p, fmt.Errorf("%w: %d after %d", ErrCloned, parsed.Response.AuthenticatorData.Counter, c.Counter)
	}
	err = f.store.UseFactor(ctx, c.ID, c.Counter, int64(used.Authenticator.SignCount), nil, f.now())
	if errors.Is(err, account.ErrNotFound) {
		err = fmt.Errorf("%w: the key was removed meanwhile", ErrWrong)
	}
	if err != nil {
		return Proof{}, err
	}
	return p, nil
}

// find returns the credential that an answer names. If it is none that may
// answer, wrong says why, and there is a decoy to spend the same time on.
func (f *Factors) find(ctx context.Context, s site, who []byte, parsed *protocol.ParsedCredentialAssertionData) (c credential, wrong, err error) {
	fa, err := f.store.Factor(ctx, base64.RawURLEncoding.EncodeToString(parsed.RawID))
	anybody := bytes.Equal(who, make([]byte, len(who)))
	switch {
	case errors.Is(err, account.ErrNotFound):
		fa, wrong = f.decoy, fmt.Errorf("%w: nobody has this credential", ErrWrong)
	case err != nil:
		return c, nil, err
	case fa.Kind != account.Passkey:
		fa, wrong = f.decoy, fmt.Errorf("%w: factor %s is no passkey", ErrWrong, fa.ID)
	case !anybody && subtle.ConstantTimeCompare(who, whoIs(fa.Account)) != 1:
		fa, wrong = f.decoy, fmt.Errorf("%w: credential %s belongs to another account", ErrWrong, fa.ID)
	case anybody && len(parsed.Response.UserHandle) == 0:
		fa, wrong = f.decoy, fmt.Errorf("%w: the answer does not say whose it is", ErrWrong)
	}
	r, err := f.record(fa)
	if err != nil {
		return c, nil, err
	}
	if wrong == nil && r.RP != s.rp {
		wrong = fmt.Errorf("%w: credential %s is for %s", ErrWrong, fa.ID, r.RP)
	}
	return credential{fa, r, parsed.RawID}, wrong, nil
}

// judge checks the answer against the credential: challenge, origin, RP ID,
// user handle, flags and signature.
func (f *Factors) judge(s site, c credential, challenge []byte, parsed *protocol.ParsedCredentialAssertionData, verify protocol.UserVerificationRequirement) (*webauthn.Credential, error) {
	rp, err := f.relyingParty(s)
	if err != nil {
		return nil, err
	}
	who := owner{id: c.Account, credentials: []webauthn.Credential{{
		ID: c.id, PublicKey: c.Public,
		Flags:         webauthn.CredentialFlags{UserVerified: c.Verified, BackupEligible: c.Synced},
		Authenticator: webauthn.Authenticator{SignCount: uint32(c.Counter), AAGUID: c.Model},
	}}}
	return rp.ValidateLogin(who, webauthn.SessionData{
		Challenge:        base64.RawURLEncoding.EncodeToString(challenge),
		RelyingPartyID:   s.rp,
		Origin:           s.origin,
		UserID:           who.WebAuthnID(),
		UserVerification: verify,
	}, parsed)
}
