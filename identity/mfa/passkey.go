package mfa

import (
	"context"
	"crypto/ecdsa"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/protocol/webauthncbor"
	"github.com/go-webauthn/webauthn/protocol/webauthncose"
	"github.com/go-webauthn/webauthn/webauthn"

	"github.com/merlon-dev/merlon/identity/account"
)

// A record is what is kept of a passkey or security key, sealed.
type record struct {
	RP         string   `json:"rp"`
	Public     []byte   `json:"public"` // COSE
	Verified   bool     `json:"verified,omitempty"`
	Synced     bool     `json:"synced,omitempty"` // may be backed up; never changes
	Transports []string `json:"transports,omitempty"`
	Model      []byte   `json:"model,omitempty"` // AAGUID, as the key says; unproved
}

func (f *Factors) sealRecord(fa account.Factor, r record) ([]byte, error) {
	plain, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	return f.keys.Seal(plain, at(fa.Account, fa.ID)), nil
}

func (f *Factors) record(fa account.Factor) (record, error) {
	var r record
	plain, err := f.keys.Open(fa.Data, at(fa.Account, fa.ID))
	if err == nil {
		err = json.Unmarshal(plain, &r)
	}
	if err != nil {
		return r, fmt.Errorf("factor %s: its public key %w", fa.ID, err)
	}
	return r, nil
}

// Describe returns of which site a passkey is (a host, or passkey_domain),
// whether it is one (and not a security key that goes beside another proof)
// and whether copies of it may be on several devices.
func (f *Factors) Describe(fa account.Factor) (host string, passkey, synced bool, err error) {
	r, err := f.record(fa)
	return r.RP, r.Verified, r.Synced, err
}

// A credential is a passkey of an account with its record.
type credential struct {
	account.Factor
	record
	id []byte
}

// credentials returns those of an account that are good at a site.
func (f *Factors) credentials(ctx context.Context, s site, accountID string) ([]credential, error) {
	all, err := f.store.Factors(ctx, accountID)
	if err != nil {
		return nil, err
	}
	var list []credential
	for _, fa := range all {
		if fa.Kind != account.Passkey {
			continue
		}
		r, err := f.record(fa)
		if err != nil {
			return nil, err
		}
		id, err := base64.RawURLEncoding.DecodeString(fa.ID)
		if err != nil {
			return nil, fmt.Errorf("factor %s: %w", fa.ID, err)
		}
		if r.RP == s.rp {
			list = append(list, credential{fa, r, id})
		}
	}
	return list, nil
}

// relyingParty returns what judges answers for a site, and for nothing else:
// no other origin, and no page that another site shows in a frame.
func (f *Factors) relyingParty(s site) (*webauthn.WebAuthn, error) {
	return webauthn.New(&webauthn.Config{
		RPID:                  s.rp,
		RPDisplayName:         f.issuer,
		RPOrigins:             []string{s.origin},
		AttestationPreference: protocol.PreferNoAttestation,
	})
}

// An owner is an account as the library wants it.
type owner struct {
	id, name, display string
	credentials       []webauthn.Credential
}

// WebAuthnID is the user handle. It is no secret, but says nothing either: the
// account's id stays in our house (Web Authentication Level 3, 14.6.1).
func (o owner) WebAuthnID() []byte {
	h := sha256.Sum256([]byte(at("merlon user handle", o.id)))
	return h[:]
}

func (o owner) WebAuthnName() string                       { return o.name }
func (o owner) WebAuthnDisplayName() string                { return o.display }
func (o owner) WebAuthnCredentials() []webauthn.Credential { return o.credentials }

// cosePublic writes a P-256 key as authenticators do (RFC 9053, 7.1.1).
func cosePublic(k *ecdsa.PublicKey) ([]byte, error) {
	point, err := k.Bytes() // 4, x, y
	if err != nil {
		return nil, err
	}
	return webauthncbor.Marshal(map[int]any{1: 2, 3: int(webauthncose.AlgES256), -1: 1, -2: point[1:33], -3: point[33:65]})
}

// decoysFor makes up the credential of an account that does not exist, or has
// none here: always the same for a name, so that asking twice shows nothing
// (Web Authentication Level 3, 14.6.2).
func (f *Factors) decoysFor(s site, name string) []protocol.CredentialDescriptor {
	h := hmac.New(sha256.New, f.decoys)
	h.Write([]byte(at(s.rp, name)))
	first := h.Sum(nil)
	// Authenticators in use make ids of these lengths.
	size := []int{16, 20, 32, 32, 32, 48, 64, 64}[first[0]%8]
	id := first[1:]
	for len(id) < size {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(id))))
		id = h.Sum(id)
	}
	return []protocol.CredentialDescriptor{{Type: protocol.PublicKeyCredentialType, CredentialID: id[:size]}}
}

// spend notes that a challenge has been answered; account.ErrUsed if it was
// before. What was only asked for is not noted, or whoever asks often enough
// would fill the store: the ticket says that the challenge is ours, and until
// when.
func (f *Factors) spend(ctx context.Context, challenge []byte) error {
	h := sha256.Sum256(challenge)
	// Clocks of replicas may differ by a minute or two.
	err := f.store.AddLink(ctx, account.Link{Hash: h[:], Purpose: challengeLink, Expires: f.now().Add(2 * ceremonyLife)})
	if errors.Is(err, account.ErrTaken) {
		return fmt.Errorf("the challenge %w", account.ErrUsed)
	}
	return err
}

// challengeLink is no link but a challenge that must not be answered again.
const challengeLink = "passkey-challenge"

// why returns all that the library says about an error, for the operator.
func why(err error) error {
	var e *protocol.Error
	if errors.As(err, &e) && e.DevInfo != "" {
		return fmt.Errorf("%w: %s: %s", ErrWrong, e.Details, e.DevInfo)
	}
	return fmt.Errorf("%w: %w", ErrWrong, err)
}
