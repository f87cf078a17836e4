package mfa

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"

	"github.com/merlon-dev/merlon/identity/account"
)

// A Ceremony is one question to a browser: for a passkey, or to make one.
type Ceremony struct {
	// Ticket goes back with the answer, within 5 minutes.
	Ticket string
	// Options are for navigator.credentials: {"publicKey": {…}}, its byte
	// strings in base64url as the browser's parse…OptionsFromJSON read them.
	Options json.RawMessage
}

const (
	ceremonyLife  = 5 * time.Minute
	challengeSize = 32 // bytes

	// maxAnswer bounds what a browser may answer: attestation is not asked
	// for, so that an answer has 2 KiB at most.
	maxAnswer = 16 << 10
	// An RSA key of 4096 bits has 530 bytes; longer ones cost us time.
	maxPublic = 1024
	// Web Authentication Level 3, 4: an id has at least 100 bits.
	minID = 16
)

// BeginRegister asks the browser to make a passkey for the account at the site
// with the origin (account.Passkey: found without a name, verifies its owner,
// and so is good as the only proof) or to take a security key in
// (account.BySecurityKey: beside another proof).
func (f *Factors) BeginRegister(ctx context.Context, origin string, a account.Account, kind string) (Ceremony, error) {
	s, err := f.site(origin)
	if err != nil {
		return Ceremony{}, err
	}
	want, err := selection(kind)
	if err != nil {
		return Ceremony{}, err
	}
	if n, err := f.count(ctx, a.ID, account.Passkey); err != nil {
		return Ceremony{}, err
	} else if n >= maxPasskeys {
		return Ceremony{}, ErrTooMany
	}
	have, err := f.credentials(ctx, s, a.ID)
	if err != nil {
		return Ceremony{}, err
	}
	rp, err := f.relyingParty(s)
	if err != nil {
		return Ceremony{}, err
	}
	who := owner{id: a.ID, name: a.Name, display: cleanName(a.Display, a.Name)}
	creation, session, err := rp.BeginRegistration(who, func(o *protocol.PublicKeyCredentialCreationOptions) error {
		o.Parameters = webauthn.CredentialParametersRecommendedL3()
		o.AuthenticatorSelection = want
		o.CredentialExcludeList = descriptors(have, true)
		o.Timeout = int(ceremonyLife.Milliseconds())
		if kind == account.BySecurityKey {
			o.Hints = []protocol.PublicKeyCredentialHints{protocol.PublicKeyCredentialHintSecurityKey}
		}
		return nil
	})
	if err != nil {
		return Ceremony{}, err
	}
	return f.begin(s.place("register "+kind, a.ID), session.Challenge, nil, creation)
}

func selection(kind string) (protocol.AuthenticatorSelection, error) {
	switch kind {
	case account.Passkey:
		return protocol.AuthenticatorSelection{
			ResidentKey: protocol.ResidentKeyRequirementRequired, RequireResidentKey: protocol.ResidentKeyRequired(),
			UserVerification: protocol.VerificationRequired,
		}, nil
	case account.BySecurityKey:
		return protocol.AuthenticatorSelection{
			ResidentKey: protocol.ResidentKeyRequirementDiscouraged, RequireResidentKey: protocol.ResidentKeyNotRequired(),
			UserVerification: protocol.VerificationDiscouraged,
		}, nil
	}
	return protocol.AuthenticatorSelection{}, fmt.Errorf("kind %q: must be %q or %q", kind, account.Passkey, account.BySecurityKey)
}

// place names where a ticket is good: for one purpose, at one origin, for one
// account.
func (s site) place(purpose, accountID string) string {
	return at(purpose, s.rp, s.origin, accountID)
}

// begin seals a challenge into a ticket and remembers that it was not used.
func (f *Factors) begin(place, challenge string, who []byte, options any) (Ceremony, error) {
	raw, err := base64.RawURLEncoding.DecodeString(challenge)
	if err != nil || len(raw) != challengeSize {
		return Ceremony{}, fmt.Errorf("the challenge has %d bytes, %w", len(raw), err)
	}
	text, err := json.Marshal(options)
	if err != nil {
		return Ceremony{}, err
	}
	return Ceremony{
		Ticket:  f.seal(place, f.now().Add(ceremonyLife), append(raw, who...)),
		Options: text,
	}, nil
}

// FinishRegister adds what the browser has made, if its answer holds. kind and
// origin are those of the ticket; name is what its owner calls it.
// account.ErrTaken: this credential belongs to an account already.
// account.ErrUsed: the ticket was answered before.
func (f *Factors) FinishRegister(ctx context.Context, origin, accountID, kind, ticket, name string, answer []byte) (account.Factor, error) {
	s, err := f.site(origin)
	if err != nil {
		return account.Factor{}, err
	}
	want, err := selection(kind)
	if err != nil {
		return account.Factor{}, err
	}
	challenge, err := f.open(ticket, s.place("register "+kind, accountID), challengeSize)
	if err != nil {
		return account.Factor{}, err
	}
	if n, err := f.count(ctx, accountID, account.Passkey); err != nil {
		return account.Factor{}, err
	} else if n >= maxPasskeys {
		return account.Factor{}, ErrTooMany
	}
	parsed, err := parseCreation(s, answer)
	if err != nil {
		return account.Factor{}, err
	}
	if err := f.spend(ctx, challenge); err != nil {
		return account.Factor{}, err
	}
	rp, err := f.relyingParty(s)
	if err != nil {
		return account.Factor{}, err
	}
	who := owner{id: accountID}
	made, err := rp.CreateCredential(who, webauthn.SessionData{
		Challenge:        base64.RawURLEncoding.EncodeToString(challenge),
		RelyingPartyID:   s.rp,
		Origin:           s.origin,
		UserID:           who.WebAuthnID(),
		UserVerification: want.UserVerification,
		CredParams:       webauthn.CredentialParametersRecommendedL3(),
	}, parsed)
	if err != nil {
		return account.Factor{}, why(err)
	}
	return f.keep(ctx, s, accountID, kind, name, made)
}

// parseCreation reads an answer, as far as it can be told without a challenge.
func parseCreation(s site, answer []byte) (*protocol.ParsedCredentialCreationData, error) {
	if len(answer) > maxAnswer {
		return nil, fmt.Errorf("%w: the answer has more than %d bytes", ErrWrong, maxAnswer)
	}
	parsed, err := protocol.ParseCredentialCreationResponseBytes(answer)
	if err != nil {
		return nil, why(err)
	}
	object := parsed.Response.AttestationObject
	_, signed := object.AttStatement["x5c"]
	switch protocol.AttestationFormat(object.Format) {
	case protocol.AttestationFormatNone:
	case protocol.AttestationFormatPacked: // by the key itself, which browsers may pass on
		if signed {
			return nil, errAttestation
		}
	default:
		// Not asked for, and so no reason to read certificates of strangers.
		return nil, errAttestation
	}
	switch {
	case parsed.Response.CollectedClientData.Origin != s.origin:
		return nil, fmt.Errorf("%w: made at %q", ErrWrong, parsed.Response.CollectedClientData.Origin)
	case len(parsed.RawID) < minID:
		return nil, fmt.Errorf("%w: the credential's id has only %d bytes", ErrWrong, len(parsed.RawID))
	case len(object.AuthData.AttData.CredentialPublicKey) > maxPublic:
		return nil, fmt.Errorf("%w: the public key has more than %d bytes", ErrWrong, maxPublic)
	}
	return parsed, nil
}

var errAttestation = fmt.Errorf("%w: the answer has an attestation that nobody asked for", ErrWrong)

// keep stores a new credential.
func (f *Factors) keep(ctx context.Context, s site, accountID, kind, name string, made *webauthn.Credential) (account.Factor, error) {
	otherwise := "Passkey"
	if kind == account.BySecurityKey {
		otherwise = "Security key"
	}
	fa := account.Factor{
		ID: base64.RawURLEncoding.EncodeToString(made.ID), Account: accountID, Kind: account.Passkey,
		Name: cleanName(name, otherwise), Counter: int64(made.Authenticator.SignCount), Created: f.now(),
	}
	r := record{
		RP: s.rp, Public: made.PublicKey, Model: made.Authenticator.AAGUID,
		// That a key has verified its owner counts only if it did when its
		// owner brought it: whoever finds one without a PIN can give it one.
		Verified: made.Flags.UserVerified, Synced: made.Flags.BackupEligible,
	}
	for _, t := range made.Transport {
		if len(t) <= 16 && len(r.Transports) < 8 {
			r.Transports = append(r.Transports, string(t))
		}
	}
	var err error
	if fa.Data, err = f.sealRecord(fa, r); err != nil {
		return account.Factor{}, err
	}
	err = f.store.AddFactor(ctx, fa)
	if errors.Is(err, account.ErrTaken) {
		return account.Factor{}, fmt.Errorf("the credential %w", err)
	}
	return fa, err
}

// descriptors lists credentials for a browser. Their transports help it to ask
// for the right one, but tell strangers which device somebody has.
func descriptors(list []credential, transports bool) []protocol.CredentialDescriptor {
	var out []protocol.CredentialDescriptor
	for _, c := range list {
		d := protocol.CredentialDescriptor{Type: protocol.PublicKeyCredentialType, CredentialID: c.id}
		if transports {
			for _, t := range c.Transports {
				d.Transport = append(d.Transport, protocol.AuthenticatorTransport(t))
			}
		}
		out = append(out, d)
	}
	return out
}
