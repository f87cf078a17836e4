package mfa

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base32"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"strings"
	"time"

	"github.com/pquerna/otp/hotp"
	"github.com/pquerna/otp/totp"

	"github.com/merlon-dev/merlon/identity/account"
)

// RFC 6238 with what every authenticator app knows. SHA-1 is not broken in
// HMAC, and many apps ignore what else the URL asks for.
const (
	period   = 30 // seconds
	skew     = 1  // steps that a phone may be off, either way
	digits   = 6
	seedSize = 20 // bytes: RFC 4226, section 4, R6

	enrolLife = 10 * time.Minute
)

// An Enrolment is a new TOTP secret, to be shown once. It is not in force yet,
// and nothing of it is stored: [Factors.ConfirmTOTP] needs a code made with it.
type Enrolment struct {
	Ticket string // the sealed secret, for ConfirmTOTP; good for 10 minutes
	Secret string // to type, in groups of four
	URL    string // otpauth://
	QR     []byte // the URL as a PNG
}

var seedText = base32.StdEncoding.WithPadding(base32.NoPadding)

// EnrolTOTP makes a secret for the account.
func (f *Factors) EnrolTOTP(ctx context.Context, a account.Account) (Enrolment, error) {
	if n, err := f.count(ctx, a.ID, account.TOTP); err != nil {
		return Enrolment{}, err
	} else if n >= maxTOTP {
		return Enrolment{}, ErrTooMany
	}
	seed := make([]byte, seedSize)
	_, _ = rand.Read(seed) // never fails
	k, err := totp.Generate(totp.GenerateOpts{Issuer: f.issuer, AccountName: cleanName(a.Name, "account"), Secret: seed})
	if err != nil {
		return Enrolment{}, err
	}
	img, err := k.Image(qrSize, qrSize)
	if err != nil {
		return Enrolment{}, err
	}
	picture, err := framed(img)
	if err != nil {
		return Enrolment{}, err
	}
	// The factor's id is made now, so that one ticket makes one factor.
	payload := append(seed, rand.Text()...)
	return Enrolment{
		Ticket: f.seal(at("totp", a.ID), f.now().Add(enrolLife), payload),
		Secret: grouped(k.Secret(), " "),
		URL:    k.URL(),
		QR:     picture,
	}, nil
}

const (
	qrSize  = 400 // pixels
	qrFrame = 48  // ISO/IEC 18004 wants four modules of white, also on a dark page
)

func framed(code image.Image) ([]byte, error) {
	whole := image.NewGray(image.Rect(0, 0, qrSize+2*qrFrame, qrSize+2*qrFrame))
	draw.Draw(whole, whole.Bounds(), image.NewUniform(color.White), image.Point{}, draw.Src)
	draw.Draw(whole, image.Rect(qrFrame, qrFrame, qrFrame+qrSize, qrFrame+qrSize), code, code.Bounds().Min, draw.Src)
	var out bytes.Buffer
	err := png.Encode(&out, whole)
	return out.Bytes(), err
}

// ConfirmTOTP puts an enrolled secret in force if code was made with it, and
// uses that code up. [ErrWrong] may be tried again with the same ticket;
// account.ErrTaken says that the ticket was confirmed before.
func (f *Factors) ConfirmTOTP(ctx context.Context, accountID, ticket, code, name string) (account.Factor, error) {
	payload, err := f.open(ticket, at("totp", accountID), seedSize+len(rand.Text()))
	if err != nil {
		return account.Factor{}, err
	}
	n, err := f.count(ctx, accountID, account.TOTP)
	switch {
	case err != nil:
		return account.Factor{}, err
	case n >= maxTOTP:
		return account.Factor{}, ErrTooMany
	}
	code, ok := cleanCode(code)
	if !ok {
		return account.Factor{}, fmt.Errorf("%w: it is not six digits", ErrWrong)
	}
	seed, now := payload[:seedSize], f.now()
	used, err := match(seed, code, step(now))
	switch {
	case err != nil:
		return account.Factor{}, err
	case used < 0:
		return account.Factor{}, fmt.Errorf("%w: it is not this secret's code", ErrWrong)
	}
	fa := account.Factor{
		ID: totpID + string(payload[seedSize:]), Account: accountID, Kind: account.TOTP,
		Name: cleanName(name, "Authenticator app"), Counter: used, Created: now,
	}
	fa.Data = f.seeds.Seal(seed, seedPlace(fa))
	return fa, f.store.AddFactor(ctx, fa)
}

// The ids of factors are in one space, and those of passkeys, which are
// base64url, are made by their owners.
const (
	totpID     = "t."
	recoveryID = "r."
)

func seedPlace(fa account.Factor) string { return at(fa.Account, fa.ID) }

// CheckTOTP checks a code of one of the account's apps and uses it up: of two
// that come with one code, one is let in, whatever replica they ask.
// account.ErrUsed: it was a good code once, which whoever asks should not learn.
// account.ErrNotFound: the account has no app.
func (f *Factors) CheckTOTP(ctx context.Context, accountID, code string) (account.Factor, error) {
	all, err := f.store.Factors(ctx, accountID)
	if err != nil {
		return account.Factor{}, err
	}
	code, ok := cleanCode(code)
	now := f.now()
	found, replayed, hit, at := 0, false, account.Factor{}, int64(-1)
	for _, fa := range all {
		if fa.Kind != account.TOTP {
			continue
		}
		found++
		seed, err := f.seeds.Open(fa.Data, seedPlace(fa))
		if err != nil {
			return account.Factor{}, fmt.Errorf("factor %s: its secret %w", fa.ID, err)
		}
		used, err := match(seed, code, step(now))
		switch {
		case err != nil:
			return account.Factor{}, err
		case used > fa.Counter:
			hit, at = fa, used
		case used >= 0:
			// Also after the clock went back: steps that are over stay over.
			replayed = true
		}
	}
	switch {
	case found == 0:
		return account.Factor{}, account.ErrNotFound
	case ok && at >= 0:
	case ok && replayed:
		return account.Factor{}, account.ErrUsed
	default:
		return account.Factor{}, ErrWrong
	}
	if err := f.store.UseFactor(ctx, hit.ID, hit.Counter, at, nil, now); err != nil {
		if errors.Is(err, account.ErrNotFound) { // removed meanwhile
			err = ErrWrong
		}
		return account.Factor{}, err
	}
	return hit, nil
}

func step(now time.Time) int64 { return now.Unix() / period }

// match returns the last step around now that has the code, or -1: if by
// chance two steps have the same code, it is used up for both. How long it
// takes does not depend on the code.
func match(seed []byte, code string, now int64) (int64, error) {
	text := seedText.EncodeToString(seed)
	found := int64(-1)
	for s := now - skew; s <= now+skew; s++ {
		want, err := hotp.GenerateCode(text, uint64(s))
		if err != nil {
			return -1, err
		}
		if subtle.ConstantTimeCompare([]byte(want), []byte(code)) == 1 {
			found = s
		}
	}
	return found, nil
}

// cleanCode reads a code as people type it: "123 456", "123-456".
func cleanCode(text string) (code string, ok bool) {
	const longest = 32
	if len(text) > longest {
		return "", false
	}
	b := make([]byte, 0, digits)
	for _, r := range strings.TrimSpace(text) {
		switch {
		case r >= '0' && r <= '9':
			b = append(b, byte(r))
		case r == ' ' || r == '-' || r == '\u00a0':
		default:
			return "", false
		}
	}
	if len(b) != digits {
		return "", false
	}
	return string(b), true
}

// grouped writes text in groups of four.
func grouped(text, between string) string {
	var b strings.Builder
	for i, r := range text {
		if i > 0 && i%4 == 0 {
			b.WriteString(between)
		}
		b.WriteRune(r)
	}
	return b.String()
}
