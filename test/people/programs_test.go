package people_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"golang.org/x/crypto/bcrypt"

	"github.com/merlon-dev/merlon/internal/store"
	"github.com/merlon-dev/merlon/ledger"
	"github.com/merlon-dev/merlon/test/harness"
)

func basic(name, pass string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(name+":"+pass))
}

const requireLogin = `
sites:
  - {host: localhost, upstream: BACKEND, require: login, routes: [{path: /read/**, require: {scope: read}}, {path: /team/**, require: {role: team}}]}
`

// Trap 51: HTTP Basic by the accounts' passwords.
func TestBasicByAccounts(t *testing.T) {
	t.Parallel()
	p := open(t, "# insecure\noff: [waf]\ntrusted_proxies: [127.0.0.1]\nidentity:\n  basic: {realm: The shop, ask: true}\n  mfa: {required: [team]}\n"+cheap+requireLogin)
	who := p.person()
	asked := who.Program("GET", "/")
	if got := strings.Join(asked.Header.Values("Www-Authenticate"), ", "); asked.Status != 401 || !strings.Contains(got, `Basic realm="The shop", charset="UTF-8"`) {
		t.Errorf("nobody: %d %q", asked.Status, got)
	}
	who.Program("GET", "/", "Authorization", basic("bob", bobsPassword)).Want(200, "backend BOB-ID")
	if got := p.backend.field("Authorization") + p.backend.field("Cookie"); got != "" {
		t.Errorf("the backend sees %q", got)
	}
	for name, c := range map[string]struct {
		field, reason string
		status        int
	}{
		"wrong password":            {basic("bob", "wrong"), "wrong-password", 401},
		"nobody's name":             {basic("mallory", bobsPassword), "no-such-account", 401},
		"trap 47: a factor is due":  {basic("ann", annsPassword), "basic-not-enough", 401},
		"name in capitals and wide": {basic("ＢＯＢ", bobsPassword), "", 200},
		"no base64":                 {"Basic %%%", "", 401},
		"no colon":                  {"Basic " + base64.StdEncoding.EncodeToString([]byte("bob")), "", 401},
		"20 kB":                     {basic("bob", strings.Repeat("x", 20<<10)), "", 431},
	} {
		got := who.Program("GET", "/", "Authorization", c.field)
		if got.Status != c.status && !(c.status == 431 && got.Status == 401) {
			t.Errorf("%s: %d, want %d", name, got.Status, c.status)
		}
		if c.reason != "" {
			if e := p.Events(t, 1, harness.Reason(c.reason)); e[0].Kind != ledger.Login || e[0].Attrs["by"] != "basic" || strings.Contains(fmt.Sprintf("%+v", e), bobsPassword) {
				t.Errorf("%s: %+v", name, e)
			}
		}
	}

	// In clear text nobody is let in or asked, unless a trusted proxy ended TLS.
	plain := func(fields ...string) *http.Response {
		r, err := http.NewRequest("GET", "http://"+p.Insecure+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = "localhost"
		for i := 0; i+1 < len(fields); i += 2 {
			r.Header.Set(fields[i], fields[i+1])
		}
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		return res
	}
	if res := plain("Authorization", basic("bob", bobsPassword)); res.StatusCode != 403 {
		t.Errorf("in clear: %s", res.Status)
	}
	if res := plain(); res.StatusCode != 401 || strings.Contains(fmt.Sprint(res.Header["Www-Authenticate"]), "Basic") {
		t.Errorf("asked in clear: %s %q", res.Status, res.Header["Www-Authenticate"])
	}
	if res := plain("Authorization", basic("bob", bobsPassword), "X-Forwarded-Proto", "https"); res.StatusCode != 200 {
		t.Errorf("behind a proxy that ended TLS: %s", res.Status)
	}

	// Who guesses waits, also for the right password; others do not.
	from := func(addr, name, pass string) *harness.Page {
		return who.Program("GET", "/", "Authorization", basic(name, pass), "X-Forwarded-For", addr)
	}
	throttled := 0
	for i := range 20 {
		if got := from("203.0.113.7", "carol", fmt.Sprint("guess", i)); got.Status == 429 {
			throttled++
			if got.Header.Get("Retry-After") == "" {
				t.Error("no Retry-After")
			}
		}
	}
	if throttled < 5 {
		t.Errorf("%d of 20 guesses had to wait", throttled)
	}
	from("203.0.113.8", "bob", bobsPassword).Want(200)
}

func TestBasicByFile(t *testing.T) {
	t.Parallel()
	hash := func(pass string) string {
		h, err := bcrypt.GenerateFromPassword([]byte(pass), 10)
		if err != nil {
			t.Fatal(err)
		}
		return string(h)
	}
	path := filepath.Join(t.TempDir(), "htpasswd")
	write(t, path, "# staff\nreports:"+hash(annsPassword)+"\nargon:"+hashed(t, bobsPassword)+"\n")
	p := open(t, "off: [waf]\nidentity:\n  basic: {htpasswd: "+path+", groups: [scripts], roles: [reader]}\n"+cheap+requireLogin)
	who := p.person()
	who.Program("GET", "/", "Authorization", basic("reports", annsPassword)).Want(200, "backend htpasswd:reports")
	if r, g := p.backend.field("Merlon-Roles"), p.backend.field("Merlon-Groups"); r != "reader" || g != "scripts" {
		t.Errorf("roles %q, groups %q", r, g)
	}
	who.Program("GET", "/", "Authorization", basic("argon", bobsPassword)).Want(200, "backend htpasswd:argon")
	who.Program("GET", "/", "Authorization", basic("argon", annsPassword)).Want(401)
	who.Program("GET", "/", "Authorization", basic("ann", annsPassword)).Want(401) // accounts are other users
	who.Program("GET", "/team/x", "Authorization", basic("reports", annsPassword)).Want(403)

	// A changed file holds; one that cannot be used does not.
	began := time.Now()
	write(t, path, "reports:"+hash(nextPassword)+"\n")
	within(t, "the new password", began.Add(300*time.Millisecond), func() bool {
		return who.Program("GET", "/", "Authorization", basic("reports", nextPassword)).Status == 200
	})
	within(t, "the end of the old", began.Add(time.Second), func() bool {
		return who.Program("GET", "/", "Authorization", basic("reports", annsPassword)).Status == 401
	})
	write(t, path, "reports:$apr1$x$abcdefghijklmnopqrstuv\n")
	time.Sleep(1200 * time.Millisecond)
	who.Program("GET", "/", "Authorization", basic("reports", nextPassword)).Want(200)
}

func TestWeakFilesAreRefusedAtStart(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ line, want string }{
		"MD5":   {"ann:$apr1$x$abcdefghijklmnopqrstuv", "line 2: has an MD5 hash"},
		"SHA-1": {"ann:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "line 2: has a SHA-1 hash"},
		"plain": {"ann:secret", "line 2: has a hash that is neither"},
	} {
		path := filepath.Join(t.TempDir(), "htpasswd")
		write(t, path, "# users\n"+c.line+"\n")
		out := refuses(t, "identity:\n  basic: {htpasswd: "+path+"}\nsites: [{host: a, upstream: http://127.0.0.1:1}]\n")
		if !strings.Contains(out, c.want) || !strings.Contains(out, "identity.basic.htpasswd") || strings.Contains(out, "secret") || strings.Contains(out, "W6ph") {
			t.Errorf("%s: %s", name, out)
		}
	}
	out := refuses(t, "identity:\n  certificates: {}\nsites: [{host: a, upstream: http://127.0.0.1:1}]\n")
	if !strings.Contains(out, "tls.client_ca") {
		t.Errorf("certificates that nobody is asked for: %s", out)
	}
}

func TestKeys(t *testing.T) {
	t.Parallel()
	p := open(t, "off: [waf]\ntrusted_proxies: [127.0.0.1]\nidentity:\n"+cheap+requireLogin)
	who := p.person()
	create := func(args ...string) (secret, prefix string) {
		var k struct{ Secret, Key string }
		out := p.run(append([]string{"key", "create", "deploy", "--user", "ann", "-o", "json"}, args...)...)
		if err := json.Unmarshal([]byte(out), &k); err != nil || k.Secret == "" || k.Key == "" {
			t.Fatal(out, err)
		}
		return k.Secret, k.Key
	}
	key, prefix := create("--scope", "read")
	for name, fields := range map[string][]string{"Bearer": {"Authorization", "Bearer " + key}, "X-API-Key": {"X-Api-Key", key}} {
		who.Program("GET", "/read/x", fields...).Want(200, "backend ANN-ID")
		who.Program("GET", "/team/x", fields...).Want(200)
		if got := p.backend.field("Authorization") + p.backend.field("X-Api-Key"); got != "" {
			t.Errorf("%s: the backend sees %q", name, got)
		}
	}
	if got := who.Program("GET", "/", "Authorization", "Bearer "+key[:len(key)-1]+"x"); got.Status != 401 {
		t.Errorf("another key: %d", got.Status)
	}
	if got := who.Program("GET", "/?api_key="+key); got.Status != 401 {
		t.Errorf("in the address: %d", got.Status)
	}
	other, _ := create("--scope", "write", "--network", "10.8.0.0/16")
	who.Program("GET", "/", "X-Api-Key", other, "X-Forwarded-For", "10.8.1.1").Want(200)
	who.Program("GET", "/", "X-Api-Key", other, "X-Forwarded-For", "::ffff:10.8.1.1").Want(200)
	for _, from := range []string{"10.9.1.1", "10.8.1.1, 10.9.1.1"} {
		if got := who.Program("GET", "/", "X-Api-Key", other, "X-Forwarded-For", from); got.Status != 401 && got.Status != 403 {
			t.Errorf("from %s: %d", from, got.Status)
		}
	}
	who.Program("GET", "/read/x", "X-Api-Key", other, "X-Forwarded-For", "10.8.1.1").Want(403)
	short, _ := create("--expires", "1s")
	time.Sleep(1100 * time.Millisecond)
	who.Program("GET", "/", "X-Api-Key", short).Want(401)

	began := time.Now()
	p.run("key", "revoke", prefix)
	within(t, "a key's revocation", began, func() bool { return who.Program("GET", "/", "X-Api-Key", key).Status == 401 })
	p.run("user", "disable", "ann")
	began = time.Now()
	within(t, "the end of a disabled account's keys", began, func() bool {
		return who.Program("GET", "/", "X-Api-Key", other, "X-Forwarded-For", "10.8.1.1").Status == 401
	})
	if out, err := os.ReadFile(filepath.Join(p.Data, store.FileName)); err != nil || strings.Contains(string(out), key[20:]) {
		t.Errorf("the key lies in clear in the store: %v", err)
	}
}

// An issuer is somebody else's: a server with its keys, and what it signs.
type issuer struct {
	*httptest.Server
	key *ecdsa.PrivateKey
	ca  string // a file
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	i := &issuer{key: key, ca: filepath.Join(t.TempDir(), "issuer.pem")}
	i.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/keys" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "one", Algorithm: "ES256", Use: "sig"}}})
	}))
	t.Cleanup(i.Close)
	write(t, i.ca, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.Certificate().Raw})))
	return i
}

// token signs claims over those of a good token; a nil claim is left out.
func (i *issuer) token(t *testing.T, key crypto.Signer, typ string, over map[string]any) string {
	t.Helper()
	claims := map[string]any{"iss": i.URL, "aud": "shop-api", "sub": "u1", "exp": time.Now().Add(5 * time.Minute).Unix(), "iat": time.Now().Unix(), "scope": "read", "roles": []string{"team"}, "jti": "j", "client_id": "c"}
	for k, v := range over {
		if claims[k] = v; v == nil {
			delete(claims, k)
		}
	}
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, (&jose.SignerOptions{}).WithType(jose.ContentType(typ)).WithHeader("kid", "one"))
	if err != nil {
		t.Fatal(err)
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	sig, err := s.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	text, err := sig.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestTokensOfAnotherIssuer(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p := open(t, fmt.Sprintf("off: [waf]\nidentity:\n  token: {issuers: [{issuer: '%s', audience: [shop-api], jwks: '%s/keys', algorithms: [ES256], ca: %s, private: true, roles: roles}]}\n", i.URL, i.URL, i.ca)+cheap+requireLogin)
	who := p.person()
	good := i.token(t, i.key, "at+jwt", nil)
	who.Program("GET", "/read/x", "Authorization", "Bearer "+good).Want(200, "backend ")
	who.Program("GET", "/team/x", "Authorization", "Bearer "+good).Want(200)
	if got := p.backend.field("Authorization"); got != "" {
		t.Errorf("the backend sees %q", got)
	}
	if got := p.backend.field("Merlon-Subject"); !strings.Contains(got, "u1") || strings.Contains(got, "ANN") {
		t.Errorf("subject %q", got)
	}
	who.Program("GET", "/read/x", "Authorization", "Bearer "+i.token(t, i.key, "at+jwt", map[string]any{"scope": "write"})).Want(403)
	// A subject there is nobody here, whatever it is called.
	who.Program("GET", "/", "Authorization", "Bearer "+i.token(t, i.key, "at+jwt", map[string]any{"sub": "ANN-ID"})).Want(200)
	if got := p.backend.field("Merlon-Subject"); got == "ANN-ID" {
		t.Error("an issuer elsewhere has made somebody ann")
	}
	parts := strings.Split(good, ".")
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"at+jwt"}`)) + "." + parts[1] + "."
	for name, token := range map[string]string{
		"another key":          i.token(t, stranger, "at+jwt", nil),
		"another issuer":       i.token(t, i.key, "at+jwt", map[string]any{"iss": "https://evil.example"}),
		"for others":           i.token(t, i.key, "at+jwt", map[string]any{"aud": "bank"}),
		"expired":              i.token(t, i.key, "at+jwt", map[string]any{"exp": time.Now().Add(-2 * time.Minute).Unix(), "iat": time.Now().Add(-5 * time.Minute).Unix()}),
		"without an end":       i.token(t, i.key, "at+jwt", map[string]any{"exp": nil}),
		"an ID token":          i.token(t, i.key, "JWT", nil),
		"trap 52: none":        none,
		"changed":              parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"root"}`)) + "." + parts[2],
		"nothing like a token": "abc.def.ghi",
	} {
		got := who.Program("GET", "/", "Authorization", "Bearer "+token)
		if got.Status != 401 || !strings.Contains(got.Header.Get("Www-Authenticate"), "invalid_token") {
			t.Errorf("%s: %d %q", name, got.Status, got.Header.Get("Www-Authenticate"))
		}
	}
	who.Program("GET", "/?access_token="+good).Want(401)
	// Two proofs of two users are none.
	bob := p.in("bob", bobsPassword)
	bob.Program("GET", "/", "Authorization", "Bearer "+good).Want(401)
	bob.Program("GET", "/").Want(200, "backend BOB-ID")
}

// An authority issues certificates to people.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	path string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Staff CA"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{cert, key, filepath.Join(t.TempDir(), "staff.pem")}
	write(t, a.path, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	return a
}

func (a *authority) issue(t *testing.T, emails ...string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), EmailAddresses: emails, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, KeyUsage: x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestClientCertificates(t *testing.T) {
	t.Parallel()
	ours, theirs := newAuthority(t), newAuthority(t)
	data := t.TempDir()
	seed(t, store.Config{Dir: data}, someone("ann@example.com", hashed(t, annsPassword), "team"))
	p := serve(t, data, "off: [waf]\ntls: {client_ca: "+ours.path+"}\nidentity:\n  certificates: {name: email, accounts: true}\n"+cheap+requireLogin, nil)
	with := func(cert ...tls.Certificate) *harness.Person {
		who := p.person()
		who.HTTP.Transport.(*http.Transport).TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if len(cert) == 0 {
				return new(tls.Certificate), nil
			}
			return &cert[0], nil // whoever's it is
		}
		return who
	}
	ann := with(ours.issue(t, "ann@example.com"))
	ann.Program("GET", "/team/x").Want(200, "backend ANN@EXAMPLE.COM-ID")
	if got := p.backend.field("Merlon-Roles"); got != "team" {
		t.Errorf("roles %q", got)
	}
	with().Program("GET", "/").Want(401)
	with(ours.issue(t, "mallory@example.com")).Program("GET", "/").Want(403)
	with(ours.issue(t, "ann@example.com", "bob@example.com")).Program("GET", "/").Want(403)
	with(ours.issue(t)).Program("GET", "/").Want(403)
	stranger := with(theirs.issue(t, "ann@example.com"))
	if got, err := stranger.Ask(stranger.Request("GET", "/", "")); err == nil {
		t.Errorf("a certificate of another authority: %d", got.Status)
	}
	// Who has none signs in as ever.
	page := with()
	page.SignIn("/.merlon/login", "ann@example.com", annsPassword)
	page.Get("/team/x").Want(200)
	// A connection that is open outlives the account no longer than a request.
	p.run("user", "disable", "ann@example.com")
	ann.Program("GET", "/team/x").Want(403)
}
