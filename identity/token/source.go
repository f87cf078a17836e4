package token

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"
	"github.com/merlon-dev/merlon"
)

const (
	maxSet       = 256 << 10
	fetchTimeout = 5 * time.Second
	refetch      = 15 * time.Minute // keys this old are fetched anew, beside the requests
	fetchGap     = 30 * time.Second // between two fetches, whoever asks for them
	retryGap     = 5 * time.Second  // the same after one that failed
)

// A source fetches the keys of one issuer, and keeps them for as long as they
// may be used. However many tokens name keys that it does not know, it asks
// the issuer no more often than every fetchGap.
type source struct {
	issuer string
	jwks   string // empty: what the issuer's metadata says
	algs   []jose.SignatureAlgorithm
	maxAge time.Duration
	client *http.Client
	now    func() time.Time
	change func() // called when keys were replaced

	mu       sync.Mutex
	keys     []*publicKey
	fetched  time.Time // when keys were; zero if never
	next     time.Time // no fetch before
	flight   chan struct{}
	findings []merlon.Finding
	err      error // of the last fetch
}

// newSource returns the source of an issuer's keys. Nothing is fetched before
// the first token: neither start nor reload hangs on other people's servers.
func newSource(c Issuer, algs []jose.SignatureAlgorithm) (*source, error) {
	t := &http.Transport{
		// No proxy: it would connect in our place, past the check below.
		DialContext:            (&net.Dialer{Timeout: fetchTimeout, Control: control(c.Private)}).DialContext,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    fetchTimeout,
		ResponseHeaderTimeout:  fetchTimeout,
		MaxResponseHeaderBytes: 32 << 10,
		DisableCompression:     true,
		DisableKeepAlives:      true,
	}
	if c.CA != "" {
		pem, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, merlon.BadSetting("ca", c.CA, err.Error())
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, merlon.BadSetting("ca", c.CA, "must hold certificates in PEM")
		}
		t.TLSClientConfig.RootCAs = pool
	}
	s := &source{issuer: c.Issuer, jwks: c.JWKS, algs: algs, maxAge: c.MaxAge, now: time.Now, change: func() {}}
	s.client = &http.Client{
		Transport: t,
		Timeout:   fetchTimeout,
		// An answer from where the operator did not point to is none.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return s, nil
}

// key implements [keySource].
func (s *source) key(ctx context.Context, kid string, alg jose.SignatureAlgorithm) (*publicKey, error) {
	now := s.now()
	s.mu.Lock()
	usable := !s.fetched.IsZero() && now.Sub(s.fetched) < s.maxAge
	old := now.Sub(s.fetched) >= refetch
	k := s.find(kid, alg)
	s.mu.Unlock()
	if usable && k != nil {
		if old {
			s.refresh(now) // not waited for
		}
		return k, nil
	}
	if flight := s.refresh(now); flight != nil {
		select {
		case <-flight:
		case <-ctx.Done():
			return nil, &Error{Why: TokenUnavailable, Err: ctx.Err()}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fetched.IsZero() || s.now().Sub(s.fetched) >= s.maxAge {
		return nil, &Error{Why: TokenUnavailable, Err: fmt.Errorf("the keys of %s: %w", s.issuer, s.err)}
	}
	if k = s.find(kid, alg); k == nil {
		return nil, refuse(TokenKey, "%s has no key %q for %s", s.issuer, kid, alg)
	}
	return k, nil
}

// find returns the key with a kid; without one, the only key for the
// algorithm. s.mu must be held.
func (s *source) find(kid string, alg jose.SignatureAlgorithm) *publicKey {
	var found *publicKey
	for _, k := range s.keys {
		switch {
		case k.alg != alg:
		case kid != "" && k.kid == kid:
			return k
		case kid == "" && found != nil:
			return nil
		case kid == "":
			found = k
		}
	}
	return found
}

// has implements [keySource].
func (s *source) has(k *publicKey) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.keys {
		if o == k {
			return true
		}
	}
	return false
}

// refreshOld fetches keys anew that are in use and old.
func (s *source) refreshOld() {
	now := s.now()
	s.mu.Lock()
	old := !s.fetched.IsZero() && now.Sub(s.fetched) >= refetch
	s.mu.Unlock()
	if old {
		s.refresh(now)
	}
}

// refresh starts to fetch the keys, or joins who does. It returns what is
// closed at the end of that, or nil if it is too early to ask again.
func (s *source) refresh(now time.Time) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flight != nil {
		return s.flight
	}
	if now.Before(s.next) {
		return nil
	}
	flight := make(chan struct{})
	s.flight, s.next = flight, now.Add(fetchGap)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*fetchTimeout)
		defer cancel()
		keys, findings, err := s.fetchSafely(ctx)
		s.mu.Lock()
		changed := s.store(keys, findings, err)
		s.flight = nil
		s.mu.Unlock()
		if changed {
			s.change()
		}
		close(flight)
	}()
	return flight
}

// store keeps what was fetched, and reports whether a key went away. Keys that
// are what they were stay the same pointers. s.mu must be held.
func (s *source) store(keys []*publicKey, findings []merlon.Finding, err error) bool {
	now := s.now()
	s.err = err
	if err != nil {
		s.next = now.Add(retryGap)
		return false
	}
	kept := 0
	for i, k := range keys {
		for _, o := range s.keys {
			if o.equal(k) {
				keys[i] = o
				kept++
			}
		}
	}
	changed := kept < len(s.keys)
	s.keys, s.findings, s.fetched = keys, findings, now
	return changed
}

// fetchSafely keeps a panic over what another server says from ending ours.
func (s *source) fetchSafely(ctx context.Context) (keys []*publicKey, findings []merlon.Finding, err error) {
	defer func() {
		if p := recover(); p != nil {
			keys, findings, err = nil, nil, fmt.Errorf("panic: %v", p)
		}
	}()
	return s.fetch(ctx)
}

func (s *source) fetch(ctx context.Context) ([]*publicKey, []merlon.Finding, error) {
	from := s.jwks
	if from == "" {
		var err error
		if from, err = s.discover(ctx); err != nil {
			return nil, nil, err
		}
	}
	b, err := s.get(ctx, from)
	if err != nil {
		return nil, nil, err
	}
	return readSet(b, s.algs)
}

// discover returns what the issuer's metadata names as its keys (OpenID
// Connect Discovery 1.0, 4.3: the issuer in it must be the very same).
func (s *source) discover(ctx context.Context) (string, error) {
	b, err := s.get(ctx, strings.TrimSuffix(s.issuer, "/")+"/.well-known/openid-configuration")
	if err != nil {
		return "", err
	}
	if _, err := readObject(b); err != nil {
		return "", fmt.Errorf("the metadata %w", err)
	}
	var meta struct {
		Issuer string `json:"issuer"`
		JWKS   string `json:"jwks_uri"`
	}
	if err := json.Unmarshal(b, &meta); err != nil {
		return "", err
	}
	if meta.Issuer != s.issuer {
		return "", fmt.Errorf("the metadata is that of %q", meta.Issuer)
	}
	if rule := badURL(meta.JWKS, true); rule != "" {
		return "", fmt.Errorf("jwks_uri %q %s", meta.JWKS, rule)
	}
	return meta.JWKS, nil
}

func (s *source) get(ctx context.Context, from string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	res, err := s.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", from, res.Status)
	}
	b, err := io.ReadAll(io.LimitReader(res.Body, maxSet+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxSet {
		return nil, errors.New(from + " answers with more than 256 KiB")
	}
	return b, nil
}

// badURL returns what is wrong with an https URL; empty if nothing is.
func badURL(text string, query bool) string {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return "must be a URL"
	case u.Scheme != "https" || u.Host == "" || u.Hostname() == "":
		return "must be an https URL"
	case u.User != nil:
		return "must have no password in it"
	case u.Fragment != "" || strings.HasSuffix(text, "#"):
		return "must have no fragment"
	case !query && (u.RawQuery != "" || u.ForceQuery):
		return "must have no query"
	}
	return ""
}
