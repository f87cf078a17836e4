package token_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity/token"
)

// attacks are the tables of JOSE's attacks: the traps 52 to 54, row by row.
func attacks(w *world) []attack {
	return slices.Concat(algorithmAttacks(w), headerAttacks(w), timeAttacks(w), claimAttacks(w), typeAttacks(w))
}

type attack struct {
	name  string
	token string
	want  merlon.Reason
}

func algorithmAttacks(w *world) []attack {
	h, c := header, w.claims(nil)
	rs, ps, es, ed := pair()["RS256"].(*rsa.PrivateKey), pair()["PS256"], pair()["ES256"].(*ecdsa.PrivateKey), pair()["EdDSA"]
	der, _ := x509.MarshalPKIXPublicKey(rs.Public())
	withEnd := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	noEnd := []byte(strings.TrimSuffix(string(withEnd), "\n"))
	hs := h("HS256", map[string]any{"kid": kid("RS256")})
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	stranger, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	input, _, _ := cutLast(mint("ES256", es, h("ES256", nil), c))
	fixed := func(r, s []byte) string {
		sig := make([]byte, 64)
		copy(sig[32-len(r):], r)
		copy(sig[64-len(s):], s)
		return input + "." + b64.EncodeToString(sig)
	}
	n := es.Params().N.Bytes()
	rows := []attack{
		{"trap 52: HS256 with the public key, PEM", mint("HS256", withEnd, hs, c), token.TokenAlgorithm},
		{"trap 52: HS256 with the public key, PEM without line end", mint("HS256", noEnd, hs, c), token.TokenAlgorithm},
		{"trap 52: HS256 with the public key, DER", mint("HS256", der, hs, c), token.TokenAlgorithm},
		{"trap 52: HS256 with a short secret", mint("HS256", []byte("secret"), hs, c), token.TokenAlgorithm},
		{"trap 52: ES256 r=s=0", fixed(nil, nil), token.TokenSignature},
		{"trap 52: ES256 r=0", fixed(nil, []byte{1}), token.TokenSignature},
		{"trap 52: ES256 r=s=n", fixed(n, n), token.TokenSignature},
		{"trap 52: ES256 in DER", func() string {
			sum := sha256.Sum256([]byte(input))
			der, _ := ecdsa.SignASN1(rand.Reader, es, sum[:])
			return input + "." + b64.EncodeToString(der)
		}(), token.TokenSignature},
		{"trap 52: ES256 signed on P-384", mint("ES256", p384, h("ES256", nil), c), token.TokenSignature},
		{"trap 52: ES384, which the issuer has not", mint("ES256", p384, h("ES384", map[string]any{"kid": kid("ES256")}), c), token.TokenAlgorithm},
		{"trap 52: ES256 by a stranger", mint("ES256", stranger, h("ES256", nil), c), token.TokenSignature},
		{"trap 52: PS256 with the RS256 key", mint("PS256", rs, h("PS256", map[string]any{"kid": kid("RS256")}), c), token.TokenKey},
		{"trap 52: RS256 with the PS256 key", mint("RS256", ps, h("RS256", map[string]any{"kid": kid("PS256")}), c), token.TokenKey},
		{"trap 52: PS256 signature called RS256", mint("PS256", rs, h("RS256", nil), c), token.TokenSignature},
		{"trap 52: RS256 with the ES256 kid", mint("RS256", rs, h("RS256", map[string]any{"kid": kid("ES256")}), c), token.TokenKey},
		{"trap 52: EdDSA by the small-order key", smallOrderToken(h("EdDSA", nil), c), token.TokenSignature},
		{"trap 52: RSA signature of one byte", func() string {
			i, _, _ := cutLast(mint("RS256", rs, h("RS256", nil), c))
			return i + ".AA"
		}(), token.TokenSignature},
		{"trap 52: EdDSA signature of another token", func() string {
			i, _, _ := cutLast(mint("EdDSA", ed, h("EdDSA", nil), c))
			_, sig, _ := cutLast(mint("EdDSA", ed, h("EdDSA", nil), w.claims(map[string]any{"sub": "bob"})))
			return i + "." + sig
		}(), token.TokenSignature},
	}
	for _, alg := range []string{"none", "None", "nOnE", "NONE", "", " ", "rs256", "RS256 ", "HS256\u0000"} {
		unsigned := mint("", nil, h(alg, map[string]any{"kid": kid("RS256")}), c)
		signed := mint("RS256", rs, h(alg, map[string]any{"kid": kid("RS256")}), c)
		want := token.TokenAlgorithm
		if strings.Contains(alg, "\u0000") {
			want = token.TokenMalformed
		}
		rows = append(rows,
			attack{"trap 52: alg " + alg + " unsigned", unsigned, token.TokenMalformed},
			attack{"trap 52: alg " + alg + " with a signature", signed, want})
	}
	return append(rows,
		attack{"trap 52: no alg", mint("RS256", rs, h("RS256", map[string]any{"alg": drop{}}), c), token.TokenAlgorithm},
		attack{"trap 52: alg null", mint("RS256", rs, h("RS256", map[string]any{"alg": nil}), c), token.TokenMalformed},
		attack{"trap 52: alg list", mint("RS256", rs, h("RS256", map[string]any{"alg": []string{"RS256"}}), c), token.TokenMalformed},
	)
}

// smallOrderToken is "signed" so that it verifies under the neutral element.
func smallOrderToken(h, c any) string {
	sig := make([]byte, 64)
	sig[0] = 1
	input, _, _ := cutLast(mint("", nil, h, c))
	return input + "." + b64.EncodeToString(sig)
}

func headerAttacks(w *world) []attack {
	c := w.claims(nil)
	own := pair()["ES256"].(*ecdsa.PrivateKey)
	evil, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	es := func(change map[string]any) string { return mint("ES256", own, header("ES256", change), c) }
	by := func(change map[string]any) string { return mint("ES256", evil, header("ES256", change), c) }
	jwk, _ := json.Marshal(jose.JSONWebKey{Key: evil.Public(), KeyID: kid("ES256"), Algorithm: "ES256"})
	cert := base64Cert(evil)
	input, sig, _ := cutLast(es(nil))
	head, body, _ := strings.Cut(input, ".")
	flat := `{"payload":"` + body + `","protected":"` + head + `","signature":"` + sig + `"}`
	two := `{"payload":"` + body + `","signatures":[{"protected":"` + head + `","signature":"` + sig + `"},{"protected":"` + head + `","signature":"AA"}]}`
	hdr := func(s string) string { return mint("ES256", own, s, c) }
	rows := []attack{
		{"trap 53: kid unknown", es(map[string]any{"kid": "other"}), token.TokenKey},
		{"trap 53: kid path", es(map[string]any{"kid": "../../dev/null"}), token.TokenKey},
		{"trap 53: kid SQL", es(map[string]any{"kid": "' UNION SELECT 'x"}), token.TokenKey},
		{"trap 53: kid URL", es(map[string]any{"kid": w.url + "/evil"}), token.TokenKey},
		{"trap 53: kid empty", es(map[string]any{"kid": ""}), token.TokenMalformed},
		{"trap 53: kid number", es(map[string]any{"kid": 7}), token.TokenMalformed},
		{"trap 53: kid null", es(map[string]any{"kid": nil}), token.TokenMalformed},
		{"trap 53: jku", by(map[string]any{"jku": w.url + "/evil"}), token.TokenSignature},
		{"trap 53: x5u", by(map[string]any{"x5u": w.url + "/evil"}), token.TokenSignature},
		{"trap 53: x5c", by(map[string]any{"x5c": []string{cert}}), token.TokenSignature},
		{"trap 53: jwk", by(map[string]any{"jwk": json.RawMessage(jwk)}), token.TokenMalformed},
		{"trap 53: crit", es(map[string]any{"crit": []string{"exp"}, "exp": 1}), token.TokenMalformed},
		{"trap 53: crit empty", es(map[string]any{"crit": []string{}}), token.TokenMalformed},
		{"trap 53: b64", es(map[string]any{"b64": false}), token.TokenMalformed},
		{"trap 53: b64 and crit", es(map[string]any{"b64": false, "crit": []string{"b64"}}), token.TokenMalformed},
		{"trap 53: cty", es(map[string]any{"cty": "JWT"}), token.TokenMalformed},
		{"trap 53: zip", es(map[string]any{"zip": "DEF"}), token.TokenMalformed},
		{"trap 53: p2c", es(map[string]any{"p2c": 1000000000, "p2s": "AA"}), token.TokenMalformed},
		{"trap 53: typ logout+jwt", es(map[string]any{"typ": "logout+jwt"}), token.TokenType},
		{"trap 53: typ dpop+jwt", es(map[string]any{"typ": "dpop+jwt"}), token.TokenType},
		{"trap 53: typ secevent+jwt", es(map[string]any{"typ": "secevent+jwt"}), token.TokenType},
		{"trap 53: typ empty", es(map[string]any{"typ": ""}), token.TokenType},
		{"trap 53: typ null", es(map[string]any{"typ": nil}), token.TokenMalformed},
		{"trap 53: alg twice", hdr(`{"alg":"ES256","alg":"ES256","kid":"` + kid("ES256") + `","typ":"at+jwt"}`), token.TokenMalformed},
		{"trap 53: alg twice, once escaped", hdr(`{"alg":"ES256","\u0061lg":"none","kid":"` + kid("ES256") + `","typ":"at+jwt"}`), token.TokenMalformed},
		{"trap 53: kid twice", hdr(`{"alg":"ES256","kid":"x","kid":"` + kid("ES256") + `","typ":"at+jwt"}`), token.TokenMalformed},
		{"trap 53: ALG", hdr(`{"ALG":"ES256","kid":"` + kid("ES256") + `","typ":"at+jwt"}`), token.TokenAlgorithm},
		{"trap 53: header list", hdr(`[{"alg":"ES256"}]`), token.TokenMalformed},
		{"trap 53: header null", hdr(`null`), token.TokenMalformed},
		{"trap 53: two headers", hdr(`{"alg":"ES256","kid":"` + kid("ES256") + `","typ":"at+jwt"}{}`), token.TokenMalformed},
		{"trap 53: deep header", hdr(`{"alg":"ES256","x":` + strings.Repeat("[", 4000) + strings.Repeat("]", 4000) + `}`), token.TokenMalformed},
		{"trap 53: JSON serialisation", flat, token.TokenMalformed},
		{"trap 53: JSON serialisation after a space", " " + flat, token.TokenMalformed},
		{"trap 53: two signatures", two, token.TokenMalformed},
		{"trap 53: four parts", es(nil) + ".AA", token.TokenMalformed},
		{"trap 53: two parts", input, token.TokenMalformed},
		{"trap 53: detached payload", head + ".." + sig, token.TokenMalformed},
		{"trap 53: no header", "." + body + "." + sig, token.TokenMalformed},
		{"trap 53: nested", mint("ES256", own, header("ES256", map[string]any{"cty": "JWT"}), es(nil)), token.TokenMalformed},
		{"trap 53: nested without cty", mint("ES256", own, header("ES256", nil), es(nil)), token.TokenMalformed},
		{"trap 53: JWE with PBES2", b64.EncodeToString([]byte(`{"alg":"PBES2-HS512+A256KW","enc":"A256GCM","p2c":1000000000,"p2s":"AA","zip":"DEF"}`)) + ".AA.AA.AA.AA", token.TokenMalformed},
		{"trap 53: JWE with RSA-OAEP", b64.EncodeToString([]byte(`{"alg":"RSA-OAEP","enc":"A256GCM"}`)) + ".AA.AA.AA.AA", token.TokenMalformed},
		{"trap 53: line end in the signature", input + "." + sig[:10] + "\n" + sig[10:], token.TokenMalformed},
		{"trap 53: padding", es(nil) + "==", token.TokenMalformed},
		{"trap 53: standard base64", input + ".+/" + sig[2:], token.TokenMalformed},
		{"trap 53: spare bits set", input + "." + sig[:len(sig)-1] + spare(sig[len(sig)-1]), token.TokenMalformed},
	}
	return rows
}

// spare returns a digit with the same first two bits and others after them: 64
// bytes leave four bits of the last digit unused.
func spare(c byte) string {
	const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return digits[strings.IndexByte(digits, c)|1:][:1]
}

func base64Cert(k *ecdsa.PrivateKey) string {
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, k.Public(), k)
	if err != nil {
		panic(err)
	}
	b, _ := json.Marshal(der) // standard base64
	return strings.Trim(string(b), `"`)
}

func timeAttacks(w *world) []attack {
	own := pair()["ES256"]
	now := w.clock.now()
	with := func(change map[string]any) string {
		return mint("ES256", own, header("ES256", nil), w.claims(change))
	}
	num := func(s string) json.RawMessage { return json.RawMessage(s) }
	return []attack{
		{"trap 54: no exp", with(map[string]any{"exp": drop{}}), token.TokenClaims},
		{"trap 54: exp null", with(map[string]any{"exp": nil}), token.TokenClaims},
		{"trap 54: exp text", with(map[string]any{"exp": "4102444800"}), token.TokenClaims},
		{"trap 54: exp float", with(map[string]any{"exp": num("4102444800.5")}), token.TokenClaims},
		{"trap 54: exp 4e9", with(map[string]any{"exp": num("4e9")}), token.TokenClaims},
		{"trap 54: exp 1e400", with(map[string]any{"exp": num("1e400")}), token.TokenClaims},
		{"trap 54: exp negative", with(map[string]any{"exp": num("-1")}), token.TokenClaims},
		{"trap 54: exp zero", with(map[string]any{"exp": num("0")}), token.TokenClaims},
		{"trap 54: exp 2^63", with(map[string]any{"exp": num("9223372036854775808")}), token.TokenClaims},
		{"trap 54: exp 2^63-1", with(map[string]any{"exp": num("9223372036854775807")}), token.TokenClaims},
		{"trap 54: exp list", with(map[string]any{"exp": []int64{now.Add(time.Minute).Unix()}}), token.TokenClaims},
		{"trap 54: exp true", with(map[string]any{"exp": true}), token.TokenClaims},
		{"trap 54: expired", with(map[string]any{"iat": now.Add(-10 * time.Minute).Unix(), "exp": now.Add(-61 * time.Second).Unix()}), token.TokenExpired},
		{"trap 54: good for a year", with(map[string]any{"exp": now.Add(365 * 24 * time.Hour).Unix()}), token.TokenLifetime},
		{"trap 54: exp before iat", with(map[string]any{"iat": now.Unix(), "exp": now.Add(-10 * time.Second).Unix()}), token.TokenLifetime},
		{"trap 54: no iat", with(map[string]any{"iat": drop{}}), token.TokenClaims},
		{"trap 54: iat in the future", with(map[string]any{"iat": now.Add(2 * time.Minute).Unix()}), token.TokenEarly},
		{"trap 54: nbf in the future", with(map[string]any{"nbf": now.Add(2 * time.Minute).Unix()}), token.TokenEarly},
		{"trap 54: nbf text", with(map[string]any{"nbf": "1"}), token.TokenClaims},
		{"trap 54: auth_time in the future", with(map[string]any{"auth_time": now.Add(time.Hour).Unix()}), token.TokenEarly},
	}
}

func claimAttacks(w *world) []attack {
	own := pair()["ES256"]
	with := func(change map[string]any) string {
		return mint("ES256", own, header("ES256", nil), w.claims(change))
	}
	raw := func(s string) string { return mint("ES256", own, header("ES256", nil), s) }
	return []attack{
		{"trap 54: no aud", with(map[string]any{"aud": drop{}}), token.TokenClaims},
		{"trap 54: aud null", with(map[string]any{"aud": nil}), token.TokenClaims},
		{"trap 54: aud empty list", with(map[string]any{"aud": []string{}}), token.TokenAudience},
		{"trap 54: aud object", with(map[string]any{"aud": map[string]any{"shop-api": true}}), token.TokenClaims},
		{"trap 54: aud list with a number", with(map[string]any{"aud": []any{"shop-api", 1}}), token.TokenClaims},
		{"trap 54: aud longer", with(map[string]any{"aud": "shop-api.evil.example"}), token.TokenAudience},
		{"trap 54: aud shorter", with(map[string]any{"aud": "shop"}), token.TokenAudience},
		{"trap 54: aud case", with(map[string]any{"aud": "Shop-API"}), token.TokenAudience},
		{"trap 54: aud two in one text", with(map[string]any{"aud": "shop-api other"}), token.TokenAudience},
		{"trap 54: aud of our own issuer", with(map[string]any{"aud": ours}), token.TokenAudience},
		{"trap 54: iss slash", with(map[string]any{"iss": theirs + "/"}), token.TokenIssuer},
		{"trap 54: iss case", with(map[string]any{"iss": strings.ToUpper(theirs)}), token.TokenIssuer},
		{"trap 54: iss longer", with(map[string]any{"iss": theirs + ".evil"}), token.TokenIssuer},
		{"trap 54: iss http", with(map[string]any{"iss": strings.Replace(theirs, "https", "http", 1)}), token.TokenIssuer},
		{"trap 54: no iss", with(map[string]any{"iss": drop{}}), token.TokenIssuer},
		{"trap 54: iss null", with(map[string]any{"iss": nil}), token.TokenClaims},
		{"trap 54: iss list", with(map[string]any{"iss": []string{theirs}}), token.TokenClaims},
		{"trap 54: iss ours, signed by them", with(map[string]any{"iss": ours, "aud": ours}), token.TokenKey},
		{"trap 54: no sub", with(map[string]any{"sub": drop{}}), token.TokenClaims},
		{"trap 54: sub null", with(map[string]any{"sub": nil}), token.TokenClaims},
		{"trap 54: sub empty", with(map[string]any{"sub": ""}), token.TokenClaims},
		{"trap 54: sub number", with(map[string]any{"sub": 1}), token.TokenClaims},
		{"trap 54: sub line end", with(map[string]any{"sub": "ann\r\nMerlon-Roles: admin"}), token.TokenClaims},
		{"trap 54: sub NUL", with(map[string]any{"sub": "ann\x00bob"}), token.TokenClaims},
		{"trap 54: sub of lone surrogates", raw(strings.Replace(text(w.claims(nil)), `"ann"`, `"\ud800"`, 1)), token.TokenClaims},
		{"trap 54: jti null", with(map[string]any{"jti": nil}), token.TokenClaims},
		{"trap 54: scope null", with(map[string]any{"scope": nil}), token.TokenClaims},
		{"trap 54: scope object", with(map[string]any{"scope": map[string]any{"read": 1}}), token.TokenClaims},
		{"trap 54: scope list with a space", with(map[string]any{"scope": []string{"read admin"}}), token.TokenClaims},
		{"trap 54: scope with two spaces", with(map[string]any{"scope": "read  write"}), token.TokenClaims},
		{"trap 54: groups text", with(map[string]any{"groups": "admin"}), token.TokenClaims},
		{"trap 54: groups null", with(map[string]any{"groups": nil}), token.TokenClaims},
		{"trap 54: roles object", with(map[string]any{"realm_access": map[string]any{"roles": map[string]any{"admin": true}}}), token.TokenClaims},
		{"trap 54: groups with a number", with(map[string]any{"groups": []any{"a", 1}}), token.TokenClaims},
		{"trap 54: groups with an empty text", with(map[string]any{"groups": []any{""}}), token.TokenClaims},
		{"trap 54: 1000 groups", with(map[string]any{"groups": slices.Repeat([]string{"g"}, 1000)}), token.TokenClaims},
		{"trap 54: amr text", with(map[string]any{"amr": "pwd"}), token.TokenClaims},
		{"trap 54: sub twice", raw(strings.Replace(text(w.claims(nil)), `{`, `{"sub":"admin",`, 1)), token.TokenMalformed},
		{"trap 54: member twice, deep", raw(strings.Replace(text(w.claims(nil)), `{`, `{"x":{"y":[{"z":1,"z":2}]},`, 1)), token.TokenMalformed},
		{"trap 54: not UTF-8", raw(strings.Replace(text(w.claims(nil)), `"ann"`, "\"ann\xff\"", 1)), token.TokenMalformed},
		{"trap 54: something after the claims", raw(text(w.claims(nil)) + " x"), token.TokenMalformed},
		{"trap 54: claims list", raw("[]"), token.TokenMalformed},
		{"trap 54: 64 kB", with(map[string]any{"x": strings.Repeat("x", 48<<10)}), token.TokenTooLong},
		{"trap 54: bound to a key", with(map[string]any{"cnf": map[string]any{"jkt": "AAAA"}}), token.TokenBinding},
		{"trap 54: bound to a certificate and a key", with(map[string]any{"cnf": map[string]any{"jkt": "AAAA", "x5t#S256": strings.Repeat("A", 43)}}), token.TokenBinding},
		{"trap 54: bound to half a hash", with(map[string]any{"cnf": map[string]any{"x5t#S256": "AAAA"}}), token.TokenBinding},
		{"trap 54: cnf null", with(map[string]any{"cnf": nil}), token.TokenBinding},
	}
}

// typeAttacks are other kinds of tokens of issuers that call them all "JWT".
func typeAttacks(w *world) []attack {
	jwt := func(change map[string]any) string {
		return mint("ES256", pair()["ES256"], header("ES256", map[string]any{"typ": "JWT"}), w.claims(change))
	}
	return []attack{
		{"trap 53: ID token: nonce", jwt(map[string]any{"nonce": "n"}), token.TokenType},
		{"trap 53: ID token: at_hash", jwt(map[string]any{"at_hash": "h"}), token.TokenType},
		{"trap 53: logout token", jwt(map[string]any{"events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}}}), token.TokenType},
		{"trap 53: DPoP proof", jwt(map[string]any{"htm": "GET", "htu": ours}), token.TokenType},
		{"trap 53: Keycloak ID token", jwt(map[string]any{"typ": "ID"}), token.TokenType},
		{"trap 53: Keycloak refresh token", jwt(map[string]any{"typ": "Refresh"}), token.TokenType},
		{"trap 53: Cognito ID token", jwt(map[string]any{"token_use": "id"}), token.TokenType},
	}
}
