package oidc

import (
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"golang.org/x/oauth2"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/secrets"
)

const (
	fetchTimeout = 10 * time.Second
	maxAnswer    = 1 << 20
	refreshEvery = time.Hour      // how often metadata and keys are looked at again
	staleAfter   = 24 * time.Hour // how long they are used when they cannot be
	firstWait    = time.Second
	lastWait     = time.Minute
)

// algorithms are those that an ID token may be signed by: no "none", and none
// whose key is a secret that the provider and we share.
var algorithms = []string{
	oidc.RS256, oidc.RS384, oidc.RS512, oidc.ES256, oidc.ES384, oidc.ES512, oidc.PS256, oidc.PS384, oidc.PS512, oidc.EdDSA,
}

// provider is a Provider that was looked at, and what it says about itself.
type provider struct {
	Provider
	secret secrets.Secret
	signer jose.Signer       // private_key_jwt; nil if there is none
	cert   []tls.Certificate // tls_client_auth
	http   *http.Client
	keys   *keys
	now    func() time.Time

	turn    chan struct{} // held while reading or writing what follows
	known   *metadata
	fetched time.Time
	again   time.Time // not before this is it tried again
	wait    time.Duration
	failure error
}

// metadata is what a provider publishes about itself.
type metadata struct {
	provider *oidc.Provider
	algs     []string

	Issuer       string   `json:"issuer"`
	AuthURL      string   `json:"authorization_endpoint"`
	TokenURL     string   `json:"token_endpoint"`
	JWKS         string   `json:"jwks_uri"`
	UserInfo     string   `json:"userinfo_endpoint"`
	EndSession   string   `json:"end_session_endpoint"`
	PAR          string   `json:"pushed_authorization_request_endpoint"`
	SendsIssuer  bool     `json:"authorization_response_iss_parameter_supported"`
	ProofMethods []string `json:"token_endpoint_auth_methods_supported"`
	Algorithms   []string `json:"id_token_signing_alg_values_supported"`

	// Where to go with a client certificate, if elsewhere (RFC 8705, 5).
	TLS struct {
		TokenURL string `json:"token_endpoint"`
		PAR      string `json:"pushed_authorization_request_endpoint"`
	} `json:"mtls_endpoint_aliases"`
}

// resolve fetches what Merlon proves itself with.
func (p *provider) resolve() error {
	if (p.ClientSecret == "") == (p.PrivateKey == "") {
		return merlon.BadSetting("client_secret", "", "must be set, or private_key, not both")
	}
	if p.ClientCertificate != "" && p.PrivateKey == "" {
		return merlon.BadSetting("client_certificate", p.ClientCertificate, "needs its private_key")
	}
	if p.ClientSecret != "" {
		s, err := p.ClientSecret.Resolve()
		if err != nil {
			return merlon.BadSetting("client_secret", string(p.ClientSecret), err.Error())
		}
		p.secret = s
		return nil
	}
	s, err := p.PrivateKey.Resolve()
	if err == nil && p.ClientCertificate != "" {
		cert, err := os.ReadFile(p.ClientCertificate)
		if err == nil {
			p.cert = make([]tls.Certificate, 1)
			p.cert[0], err = tls.X509KeyPair(cert, []byte(s.Reveal()))
		}
		if err != nil {
			return merlon.BadSetting("client_certificate", p.ClientCertificate, err.Error())
		}
		return nil
	}
	if err == nil {
		p.signer, err = newSigner(s.Reveal(), p.KeyID)
	}
	if err != nil {
		return merlon.BadSetting("private_key", string(p.PrivateKey), err.Error())
	}
	return nil
}

func newSigner(text, id string) (jose.Signer, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, errors.New("is not in PEM")
	}
	var key any
	var err error
	switch block.Type {
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	default:
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	}
	if err != nil {
		return nil, errors.New("is not a private key")
	}
	var alg jose.SignatureAlgorithm
	switch k := key.(type) {
	case *rsa.PrivateKey:
		if k.N.BitLen() >= 2048 {
			alg = jose.RS256
		}
	case *ecdsa.PrivateKey:
		if k.Curve == elliptic.P256() {
			alg = jose.ES256
		}
	case ed25519.PrivateKey:
		alg = jose.EdDSA
	}
	if _, ok := key.(crypto.Signer); !ok || alg == "" {
		return nil, errors.New("must be RSA of 2048 bits or more, P-256 or Ed25519")
	}
	opts := (&jose.SignerOptions{}).WithType("JWT")
	if id != "" {
		opts = opts.WithHeader("kid", id)
	}
	return jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, opts)
}

// newClient returns a client for one provider's addresses: https only, with
// bounds for time and size, and redirects only of what is fetched, on the same
// host: a secret is never sent on.
func newClient(pool *x509.CertPool, cert []tls.Certificate) *http.Client {
	return &http.Client{
		Timeout: fetchTimeout,
		Transport: &bounded{&http.Transport{
			Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, MaxIdleConns: 8, IdleConnTimeout: time.Minute,
			DialContext:         (&net.Dialer{Timeout: fetchTimeout}).DialContext,
			TLSHandshakeTimeout: fetchTimeout, MaxResponseHeaderBytes: 64 << 10,
			TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: cert, MinVersion: tls.VersionTLS12},
		}},
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if via[0].Method != http.MethodGet || via[0].Header.Get("Authorization") != "" || req.URL.Host != via[0].URL.Host || len(via) > 3 {
				return errors.New("is not followed elsewhere")
			}
			return nil
		},
	}
}

// bounded refuses what is not https and answers that are too long.
type bounded struct{ next http.RoundTripper }

func (b *bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" {
		return nil, errors.New("must be https")
	}
	res, err := b.next.RoundTrip(r)
	if err == nil {
		res.Body = &limited{res.Body, maxAnswer}
	}
	return res, err
}

// limited is a body of which more than a few bytes are an error.
type limited struct {
	io.ReadCloser
	left int64
}

func (l *limited) Read(b []byte) (int, error) {
	if l.left < 0 {
		return 0, errors.New("the answer is too long")
	}
	n, err := l.ReadCloser.Read(b[:min(int64(len(b)), l.left+1)])
	l.left -= int64(n)
	if l.left < 0 {
		return 0, errors.New("the answer is too long")
	}
	return n, err
}

// discover returns what the provider says about itself, fetched when it is
// first needed and then now and again. One that is down is not asked by
// everybody who waits for it.
func (p *provider) discover(ctx context.Context) (*metadata, error) {
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-ctx.Done():
		return nil, &Error{ProviderDown, ctx.Err()}
	}
	now := p.now()
	age := now.Sub(p.fetched)
	if p.known != nil && age < refreshEvery {
		return p.known, nil
	}
	if now.Before(p.again) {
		if p.known != nil && age < staleAfter {
			return p.known, nil
		}
		return nil, &Error{ProviderDown, p.failure}
	}
	// Whoever came first may leave; the others still want to know.
	fetch, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchTimeout)
	defer cancel()
	m, err := p.fetch(fetch)
	if err == nil {
		p.known, p.fetched, p.wait, p.failure, p.again = m, now, 0, nil, time.Time{}
		p.keys.moved(m.JWKS)
		return m, nil
	}
	p.wait = min(max(2*p.wait, firstWait), lastWait)
	p.again, p.failure = now.Add(p.wait), err
	if p.known != nil && age < staleAfter {
		return p.known, nil
	}
	return nil, &Error{ProviderDown, err}
}

func (p *provider) fetch(ctx context.Context) (*metadata, error) {
	op, err := oidc.NewProvider(oidc.ClientContext(ctx, p.http), p.Issuer) // compares the issuer
	if err != nil {
		return nil, err
	}
	m := &metadata{provider: op}
	if err := op.Claims(m); err != nil {
		return nil, err
	}
	for name, at := range map[string]string{
		"authorization_endpoint": m.AuthURL, "token_endpoint": m.TokenURL, "jwks_uri": m.JWKS, "userinfo_endpoint": m.UserInfo,
		"end_session_endpoint": m.EndSession, "pushed_authorization_request_endpoint": m.PAR,
		"mtls_endpoint_aliases.token_endpoint": m.TLS.TokenURL, "mtls_endpoint_aliases.pushed_authorization_request_endpoint": m.TLS.PAR,
	} {
		u, err := url.Parse(at)
		needed := name == "authorization_endpoint" || name == "token_endpoint" || name == "jwks_uri"
		if at == "" && !needed {
			continue
		}
		if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.Fragment != "" {
			return nil, fmt.Errorf("metadata: %s must be https", name)
		}
	}
	if len(p.cert) > 0 {
		m.TokenURL, m.PAR = cmp.Or(m.TLS.TokenURL, m.TokenURL), cmp.Or(m.TLS.PAR, m.PAR)
	}
	for _, a := range m.Algorithms {
		if slices.Contains(algorithms, a) {
			m.algs = append(m.algs, a)
		}
	}
	if len(m.algs) == 0 {
		m.algs = []string{oidc.RS256} // which every provider must offer
	}
	return m, nil
}

// config returns what x/oauth2 needs for one host.
func (p *provider) config(m *metadata, host string) *oauth2.Config {
	c := &oauth2.Config{
		ClientID: p.ClientID, ClientSecret: p.secret.Reveal(), Scopes: p.Scopes,
		RedirectURL: "https://" + host + CallbackPath(p.Name),
		Endpoint:    oauth2.Endpoint{AuthURL: m.AuthURL, TokenURL: m.TokenURL, AuthStyle: oauth2.AuthStyleInHeader},
	}
	if p.secret.Reveal() == "" || p.inForm(m) {
		c.Endpoint.AuthStyle = oauth2.AuthStyleInParams
	}
	return c
}

// inForm reports whether the secret goes into the form, since the provider
// does not take it in the header.
func (p *provider) inForm(m *metadata) bool {
	return len(m.ProofMethods) > 0 && !slices.Contains(m.ProofMethods, "client_secret_basic") && slices.Contains(m.ProofMethods, "client_secret_post")
}

// assertion returns what proves us by our key (RFC 7523), or nothing. It is
// meant for the issuer, not for an endpoint that another provider might name
// as its own.
func (p *provider) assertion() (url.Values, error) {
	if p.signer == nil {
		return nil, nil
	}
	now := p.now()
	text, err := jwt.Signed(p.signer).Claims(jwt.Claims{
		Issuer: p.ClientID, Subject: p.ClientID, Audience: jwt.Audience{p.Issuer}, ID: rand.Text(),
		IssuedAt: jwt.NewNumericDate(now), Expiry: jwt.NewNumericDate(now.Add(time.Minute)),
	}).Serialize()
	return url.Values{
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
		"client_assertion":      {text},
	}, err
}

// push sends an authorization request to the provider directly (RFC 9126), so
// that nobody can read or change it on its way through the browser.
func (p *provider) push(ctx context.Context, m *metadata, authURL string) (string, error) {
	u, err := url.Parse(authURL)
	if err != nil {
		return "", err
	}
	form := u.Query()
	proof, err := p.assertion()
	if err != nil {
		return "", err
	}
	for k, v := range proof {
		form[k] = v
	}
	byHeader := p.secret.Reveal() != "" && !p.inForm(m)
	if p.secret.Reveal() != "" && !byHeader {
		form.Set("client_secret", p.secret.Reveal())
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, m.PAR, strings.NewReader(form.Encode()))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if byHeader {
		req.SetBasicAuth(url.QueryEscape(p.ClientID), url.QueryEscape(p.secret.Reveal()))
	}
	res, err := p.http.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = res.Body.Close() }()
	var pushed struct {
		URI string `json:"request_uri"`
	}
	if res.StatusCode != http.StatusCreated {
		return "", fmt.Errorf("pushed request: %s", res.Status)
	}
	if err := json.NewDecoder(res.Body).Decode(&pushed); err != nil || pushed.URI == "" {
		return "", errors.New("pushed request: no request_uri")
	}
	u, err = url.Parse(m.AuthURL)
	if err != nil {
		return "", err
	}
	q := u.Query()
	q.Set("client_id", p.ClientID)
	q.Set("request_uri", pushed.URI)
	u.RawQuery = q.Encode()
	return u.String(), nil
}
