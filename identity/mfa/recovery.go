package mfa

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/merlon-dev/merlon/identity/account"
)

const (
	recoveryCodes = 10
	recoverySize  = 10 // bytes: 80 bits, where NIST SP 800-63B-4, 3.1.2.1, asks for 64 at rest
)

// Crockford's alphabet has no I, L, O and U.
const crockford = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

var codeText = base32.NewEncoding(crockford).WithPadding(base32.NoPadding)

// NewRecoveryCodes replaces the account's recovery codes by ten new ones, such
// as "7K2M-9XQ4-0TZB-HC5E", to be shown once. Each is good once.
func (f *Factors) NewRecoveryCodes(ctx context.Context, accountID string) ([]string, error) {
	codes := make([]string, recoveryCodes)
	with := make([]account.Factor, recoveryCodes)
	now := f.now()
	for i := range codes {
		b := make([]byte, recoverySize)
		_, _ = rand.Read(b) // never fails
		code := codeText.EncodeToString(b)
		codes[i] = grouped(code, "-")
		with[i] = account.Factor{ID: f.recoveryID(accountID, code), Account: accountID, Kind: account.Recovery, Created: now}
	}
	if err := f.store.ReplaceFactors(ctx, accountID, account.Recovery, with); err != nil {
		return nil, err
	}
	return codes, nil
}

// UseRecoveryCode uses a code up: of two that come with one code, one is let
// in. [ErrWrong]: there is no such code, or no longer.
func (f *Factors) UseRecoveryCode(ctx context.Context, accountID, code string) error {
	code, ok := cleanRecovery(code)
	if !ok {
		return fmt.Errorf("%w: it is not 16 letters and digits", ErrWrong)
	}
	err := f.store.RemoveFactor(ctx, accountID, f.recoveryID(accountID, code))
	if errors.Is(err, account.ErrNotFound) {
		return fmt.Errorf("%w: no recovery code, or it was used", ErrWrong)
	}
	return err
}

// recoveryID is all that is stored of a code: its hash, bound to the account,
// so that a row moved to another account is worth nothing there, and keyed.
func (f *Factors) recoveryID(accountID, code string) string {
	h := hmac.New(sha256.New, f.recovery)
	h.Write([]byte(at(accountID, code)))
	return recoveryID + base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

// cleanRecovery reads a code as people type it: in lower case, with spaces or
// dashes anywhere, with O for 0 and I or L for 1.
func cleanRecovery(text string) (code string, ok bool) {
	const longest = 64
	if len(text) > longest {
		return "", false
	}
	n := codeText.EncodedLen(recoverySize)
	b := make([]byte, 0, n)
	for _, r := range text {
		switch {
		case r >= 'a' && r <= 'z':
			r -= 'a' - 'A'
		case r == ' ' || r == '-' || r == '\u00a0' || r >= '\u2010' && r <= '\u2015' || r == '\t' || r == '\r' || r == '\n':
			continue
		}
		switch r {
		case 'O':
			r = '0'
		case 'I', 'L':
			r = '1'
		}
		if !strings.ContainsRune(crockford, r) || len(b) == n {
			return "", false
		}
		b = append(b, byte(r))
	}
	return string(b), len(b) == n
}
