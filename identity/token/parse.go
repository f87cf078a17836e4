package token

import (
	"errors"
	"fmt"
	"strings"

	"github.com/merlon-dev/merlon"
)

// maxToken is how many bytes a token may have.
const maxToken = 16 << 10

// A raw token is one that was read and not yet believed.
type raw struct {
	token          string
	alg, kid, typ  string
	iss            string
	header, claims members
}

func refuse(why merlon.Reason, format string, a ...any) *Error {
	return &Error{Why: why, Err: fmt.Errorf(format, a...)}
}

// parse reads a token in compact serialisation (RFC 7515, 7.1).
func parse(token string) (*raw, error) {
	if len(token) > maxToken {
		return nil, refuse(TokenTooLong, "has %d bytes", len(token))
	}
	if strings.HasPrefix(token, refreshPrefix) {
		return nil, refuse(TokenType, "is a refresh secret")
	}
	if strings.HasPrefix(strings.TrimLeft(token, " \t\r\n"), "{") {
		return nil, refuse(TokenMalformed, "is in JSON serialisation")
	}
	if i := strings.IndexFunc(token, notBase64url); i >= 0 {
		return nil, refuse(TokenMalformed, "has the character %q", token[i])
	}
	head, rest, _ := strings.Cut(token, ".")
	payload, sig, ok := strings.Cut(rest, ".")
	switch n := strings.Count(sig, "."); {
	case n == 2:
		return nil, refuse(TokenMalformed, "is encrypted")
	case !ok || n > 0:
		return nil, refuse(TokenMalformed, "does not have three parts")
	case head == "" || payload == "" || sig == "":
		return nil, refuse(TokenMalformed, "has an empty part")
	}
	if _, err := base64url.DecodeString(sig); err != nil {
		return nil, refuse(TokenMalformed, "signature: %w", err)
	}
	r := &raw{token: token}
	var err error
	if r.header, err = readPart(head); err != nil {
		return nil, refuse(TokenMalformed, "header %w", err)
	}
	if err := r.readHeader(); err != nil {
		return nil, &Error{Why: TokenMalformed, Err: err}
	}
	if r.claims, err = readPart(payload); err != nil {
		return nil, refuse(TokenMalformed, "payload %w", err)
	}
	if r.iss, err = r.claims.text("iss"); err != nil {
		return nil, &Error{Why: TokenClaims, Err: err}
	}
	return r, nil
}

func notBase64url(r rune) bool {
	return (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.'
}

func readPart(s string) (members, error) {
	b, err := base64url.DecodeString(s)
	if err != nil {
		return nil, err
	}
	return readObject(b)
}

// unwanted are header members that change what a token is, or ask to be
// believed by themselves: extensions (RFC 7515, 4.1.11; RFC 7797), an
// embedded key, which is a DPoP proof's, and those of encrypted tokens.
// What names a key elsewhere, such as jku, x5u and x5c, is never looked at:
// honest issuers send it.
var unwanted = [...]string{"crit", "b64", "jwk", "enc", "zip", "epk", "apu", "apv", "iv", "tag", "p2s", "p2c"}

func (r *raw) readHeader() (err error) {
	for _, name := range unwanted {
		if r.header.has(name) {
			return fmt.Errorf("header has %s", name)
		}
	}
	if r.alg, err = r.header.text("alg"); err != nil {
		return err
	}
	if r.kid, err = r.header.text("kid"); err != nil {
		return err
	}
	if r.header.has("kid") && r.kid == "" {
		return errors.New("kid is empty")
	}
	if r.typ, err = r.header.text("typ"); err != nil {
		return err
	}
	cty, err := r.header.text("cty")
	if err != nil {
		return err
	}
	if cty != "" {
		return errors.New("holds another token")
	}
	return nil
}

// mediaType returns the one form of a "typ": RFC 7515, 4.1.9 lets the
// "application/" be left out.
func mediaType(typ string) string {
	typ = strings.ToLower(typ)
	if rest, ok := strings.CutPrefix(typ, "application/"); ok && !strings.Contains(rest, "/") {
		return rest
	}
	return typ
}
