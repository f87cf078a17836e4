package certs_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"io"
	"io/fs"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
	"github.com/miekg/dns"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/certs"
)

// An authority is Pebble, Let's Encrypt's test server, in this process. Every
// name resolves to 127.0.0.1 for it.
type authority struct {
	url, caFile string
	down, noARI atomic.Bool
	orders      atomic.Int64
	ca          *ca.CAImpl
}

func newAuthority(t *testing.T, httpAddr, httpsAddr string, life time.Duration, eab map[string]string) *authority {
	t.Helper()
	t.Setenv("PEBBLE_VA_NOSLEEP", "1")
	t.Setenv("PEBBLE_WFE_NONCEREJECT", "0")
	quiet := log.New(io.Discard, "", 0)
	store := db.NewMemoryStore()
	for id, key := range eab {
		check(t, store.AddExternalAccountKeyByID(id, key))
	}
	a := &authority{ca: ca.New(quiet, store, "", "ecdsa", 0, 1, map[string]ca.Profile{"default": {ValidityPeriod: uint64(life / time.Second)}})}
	validator := va.New(quiet, port(t, httpAddr), port(t, httpsAddr), false, resolver(t), store)
	front := wfe.New(quiet, store, validator, a.ca, []string{"pebble.letsencrypt.org"}, true, len(eab) > 0, 0, 0)
	handler := front.Handler()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a.down.Load() {
			panic(http.ErrAbortHandler)
		}
		if a.noARI.Load() && r.URL.Path == wfe.DirectoryPath {
			rec := httptest.NewRecorder()
			handler.ServeHTTP(rec, r)
			merlon.AddHeader(w.Header(), rec.Header())
			_, _ = io.WriteString(w, strings.Replace(rec.Body.String(), `"renewalInfo"`, `"renewalNone"`, 1))
			return
		}
		if strings.HasPrefix(r.URL.Path, "/order-plz") {
			a.orders.Add(1)
		}
		handler.ServeHTTP(w, r)
	}))
	server.Config.ErrorLog = quiet
	t.Cleanup(server.Close)
	a.url = server.URL + wfe.DirectoryPath
	a.caFile = filepath.Join(t.TempDir(), "authority.pem")
	check(t, os.WriteFile(a.caFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o644))
	return a
}

func (a *authority) roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.ca.GetRootCert(0).Cert)
	return pool
}

// config asks the authority for certificates.
func (a *authority) config(c certs.ACME) certs.Config {
	c.Directory, c.CAFile, c.AgreeTOS, c.Email = a.url, a.caFile, true, "ops@example.com"
	return certs.Config{ACME: &c}
}

func port(t *testing.T, addr string) int {
	t.Helper()
	a, err := net.ResolveTCPAddr("tcp", addr)
	check(t, err)
	return a.Port
}

func resolver(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	s := &dns.Server{Listener: ln, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(q)
		if q.Question[0].Qtype == dns.TypeA {
			m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 1}, A: net.IPv4(127, 0, 0, 1)})
		}
		_ = w.WriteMsg(m)
	})}
	go func() { _ = s.ActivateAndServe() }()
	t.Cleanup(func() { _ = s.Shutdown() })
	return ln.Addr().String()
}

// An edge is both listeners of a gateway whose certificates can be replaced,
// as by a reload.
type edge struct {
	http, https string
	current     atomic.Pointer[certs.Certs]
	challenges  atomic.Int64 // asked for over plain HTTP
	others      atomic.Bool  // somebody else listened during a challenge

	stranger *certs.Certs // asked the same, for hosts of its own; may be nil
	answered atomic.Bool  // and it answered
}

// askStranger puts a challenge to certificates that are not for its host.
func (e *edge) askStranger(r *http.Request) {
	if e.stranger == nil {
		return
	}
	w := httptest.NewRecorder()
	e.stranger.HTTPChallenge(http.NotFoundHandler()).ServeHTTP(w, r)
	e.answered.CompareAndSwap(false, w.Code != http.StatusNotFound)
}

// listening reports whether anybody listens on the ports of challenges.
func listening() bool {
	for _, addr := range []string{"127.0.0.1:80", "127.0.0.1:443"} {
		if conn, err := net.DialTimeout("tcp", addr, time.Second); err == nil {
			_ = conn.Close()
			return true
		}
	}
	return false
}

func newEdge(t *testing.T) *edge {
	t.Helper()
	e := &edge{}
	before := listening()
	e.http = serve(t, nil, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/.well-known/") {
			e.challenges.Add(1)
			e.others.CompareAndSwap(false, !before && listening())
			e.askStranger(r)
		}
		cs := e.current.Load()
		cs.HTTPChallenge(cs.Redirect(e.https, nil)).ServeHTTP(w, r)
	}))
	conf := &tls.Config{NextProtos: []string{"h2", "http/1.1", "acme-tls/1"},
		GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			if slices.Contains(h.SupportedProtos, "acme-tls/1") {
				e.others.CompareAndSwap(false, !before && listening())
			}
			return e.current.Load().TLSConfig(), nil
		}}
	e.https = serve(t, conf, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "hello") }))
	return e
}

// dial does a verified handshake for host.
func (e *edge) dial(roots *x509.CertPool, host string) (*x509.Certificate, error) {
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", e.https, &tls.Config{ServerName: host, RootCAs: roots})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0], nil
}

func (e *edge) start(t *testing.T, c certs.Config, env certs.Env) *certs.Certs {
	t.Helper()
	cs, err := certs.New(c, env)
	check(t, err)
	e.current.Store(cs)
	check(t, cs.Start(context.Background()))
	t.Cleanup(func() { check(t, cs.Close()) })
	return cs
}

func TestACMEIssues(t *testing.T) {
	hmac := base64.RawURLEncoding.EncodeToString([]byte("an account's key of thirty-two b"))
	t.Setenv("MERLON_TEST_HMAC", hmac)
	for _, c := range []struct {
		name string
		acme certs.ACME
		eab  map[string]string
		http bool // challenges come over plain HTTP
	}{
		{"HTTP-01", certs.ACME{Challenges: []certs.Challenge{certs.HTTP01}}, nil, true},
		{"TLS-ALPN-01", certs.ACME{Challenges: []certs.Challenge{certs.TLSALPN01}}, nil, false},
		{"external account", certs.ACME{Challenges: []certs.Challenge{certs.TLSALPN01}, EAB: &certs.EAB{KeyID: "kid-1", HMACKey: "env:MERLON_TEST_HMAC"}},
			map[string]string{"kid-1": hmac}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := newEdge(t)
			a := newAuthority(t, e.http, e.https, 90*day, c.eab)
			data := t.TempDir()
			elsewhere := a.config(certs.ACME{})
			elsewhere.ACME.Directory = "https://127.0.0.1:1/nobody"
			e.stranger = newCerts(t, elsewhere, certs.Env{Hosts: []string{"other.example.com"}, HTTP: true})
			var told notices
			cs := e.start(t, a.config(c.acme), certs.Env{Data: data, Hosts: []string{"shop.example.com"}, HTTP: true, Notify: told.add})
			if in := cs.Certificates(); len(in) != 1 || in[0].Source != certs.FromACME || !in[0].Missing {
				t.Errorf("before: %+v", in)
			}
			if _, err := e.dial(a.roots(), "shop.example.com"); err == nil || !strings.Contains(err.Error(), "unrecognized name") {
				t.Errorf("before there is a certificate: %v; it must not be one of our own making", err)
			}
			eventually(t, 15*time.Second, "a certificate", func() bool { return !cs.Certificates()[0].Missing })
			leaf, err := e.dial(a.roots(), "shop.example.com")
			check(t, err)
			if leaf.PublicKeyAlgorithm != x509.ECDSA {
				t.Errorf("the key is %s", leaf.PublicKeyAlgorithm)
			}
			if got := e.challenges.Load() > 0; got != c.http {
				t.Errorf("challenged over plain HTTP: %v, want %v", got, c.http)
			}
			if !told.has(certs.CertificateRenewed) || told.has(certs.IssuanceFailed) {
				t.Errorf("told %+v", told.take())
			}
			if e.answered.Load() {
				t.Error("a challenge was answered for a host that is not configured")
			}
			if e.others.Load() {
				t.Error("a listener was opened for the challenge")
			}
			onlyOwnerReads(t, filepath.Join(data, "acme"))
			strangers(t, e, a)
		})
	}
}

// strangers are told nothing and get nothing issued.
func strangers(t *testing.T, e *edge, a *authority) {
	t.Helper()
	before := a.orders.Load()
	for range 5 {
		leaf, err := e.dial(a.roots(), "bank.example")
		if err == nil {
			t.Errorf("bank.example got the certificate of %v", leaf.DNSNames)
		}
	}
	if a.orders.Load() != before {
		t.Error("a name that a client made up was ordered")
	}
	for _, protos := range [][]string{{"acme-tls/1"}, {"acme-tls/1", "h2"}, {"h2", "acme-tls/1"}} {
		for _, host := range []string{"shop.example.com", "bank.example"} {
			if _, err := shake(e.current.Load().TLSConfig(), &tls.Config{ServerName: host, NextProtos: protos}); err == nil {
				t.Errorf("%s, %v: a challenge handshake without a challenge", host, protos)
			}
		}
	}
	for _, host := range []string{"shop.example.com", "bank.example"} {
		if res := raw(t, e.http, "GET /.well-known/acme-challenge/abc HTTP/1.1\nHost: "+host); res.StatusCode != 404 {
			t.Errorf("%s: status %d for a challenge without a challenge", host, res.StatusCode)
		}
	}
}

func onlyOwnerReads(t *testing.T, dir string) {
	t.Helper()
	keys := 0
	check(t, filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %o", p, info.Mode().Perm())
		}
		if strings.HasSuffix(p, ".key") {
			keys++
		}
		return nil
	}))
	if keys != 2 {
		t.Errorf("%d keys, want those of the account and of the certificate", keys)
	}
}

func TestACMERenewsWithoutDroppingAConnection(t *testing.T) {
	e := newEdge(t)
	a := newAuthority(t, e.http, e.https, 6*time.Second, nil)
	a.noARI.Store(true) // else it says when
	cs := e.start(t, a.config(certs.ACME{}), certs.Env{Data: t.TempDir(), Hosts: []string{"shop.example.com"}, HTTP: true, Interval: 100 * time.Millisecond})
	eventually(t, 15*time.Second, "a certificate", func() bool { return !cs.Certificates()[0].Missing })
	first, err := e.dial(a.roots(), "shop.example.com")
	check(t, err)
	dials := 0
	kept := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 1, TLSClientConfig: &tls.Config{ServerName: "shop.example.com", RootCAs: a.roots()},
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			dials++
			return new(net.Dialer).DialContext(ctx, network, addr)
		}}}
	var last *x509.Certificate
	eventually(t, 15*time.Second, "another certificate", func() bool {
		if last, err = e.dial(a.roots(), "shop.example.com"); err != nil {
			t.Fatal(err)
		}
		res, err := kept.Get("https://" + e.https)
		check(t, err)
		_, _ = io.Copy(io.Discard, res.Body)
		check(t, res.Body.Close())
		return last.SerialNumber.Cmp(first.SerialNumber) != 0
	})
	if dials != 1 {
		t.Errorf("the connection from before the renewal was dropped: %d dials", dials)
	}
	if bytes.Equal(last.RawSubjectPublicKeyInfo, first.RawSubjectPublicKeyInfo) {
		t.Error("the renewed certificate has the old key")
	}
	if left := first.NotAfter.Sub(last.NotBefore); left < time.Second || left > 3*time.Second {
		t.Errorf("of 6 s of life it was renewed with %v left, want about a third", left)
	}
}

func TestACMEAuthorityDown(t *testing.T) {
	e := newEdge(t)
	a := newAuthority(t, e.http, e.https, 6*time.Second, nil)
	env := certs.Env{Data: t.TempDir(), Hosts: []string{"shop.example.com"}, HTTP: true, Interval: 100 * time.Millisecond}
	var told notices
	env.Notify = func(n certs.Notice) {
		if n.Reason == certs.CertificateRenewed {
			a.down.Store(true)
		}
		told.add(n)
	}
	cs := e.start(t, a.config(certs.ACME{}), env)
	eventually(t, 15*time.Second, "a certificate", func() bool { return !cs.Certificates()[0].Missing })
	eventually(t, 15*time.Second, "told that renewal failed", func() bool { return told.has(certs.IssuanceFailed) })
	if _, err := e.dial(a.roots(), "shop.example.com"); err != nil {
		t.Errorf("while the authority is down: %v", err)
	}
	// A restart meanwhile serves what is stored, from the first handshake on.
	check(t, cs.Close())
	again := e.start(t, a.config(certs.ACME{}), env)
	if _, err := e.dial(a.roots(), "shop.example.com"); err != nil {
		t.Errorf("restarted while the authority is down: %v", err)
	}
	eventually(t, 10*time.Second, "told that it has run out", func() bool { return told.has(certs.CertificateExpired) })
	if in := again.Certificates()[0]; in.Missing || in.Source != certs.FromACME {
		t.Errorf("after its end: %+v", in)
	}
	if state, err := shake(again.TLSConfig(), &tls.Config{ServerName: "shop.example.com"}); err != nil || !strings.Contains(state.PeerCertificates[0].Issuer.CommonName, "Pebble") {
		t.Errorf("after its end it is not served any more, or another instead: %v", err)
	}
}

// A reload starts the new before it closes the old, which may be holding on to
// an order that does not come off.
func TestACMEReload(t *testing.T) {
	e := newEdge(t)
	a := newAuthority(t, e.http, e.https, 90*day, nil)
	a.down.Store(true)
	var told notices
	env := certs.Env{Data: t.TempDir(), Hosts: []string{"shop.example.com"}, HTTP: true, Notify: told.add}
	old := e.start(t, a.config(certs.ACME{}), env)
	eventually(t, 10*time.Second, "told that it failed", func() bool { return told.has(certs.IssuanceFailed) })
	a.down.Store(false)
	env.Hosts = append(env.Hosts, "api.example.com")
	e.start(t, a.config(certs.ACME{}), env)
	check(t, old.Close())
	for _, host := range env.Hosts {
		eventually(t, 15*time.Second, "a certificate for "+host, func() bool {
			_, err := e.dial(a.roots(), host)
			return err == nil
		})
	}
}

// Without an address certmagic would ask a person for one.
func TestACMEWithoutEmailAndWithALog(t *testing.T) {
	var out lockedBuffer
	e := newEdge(t)
	a := newAuthority(t, e.http, e.https, 90*day, nil)
	c := a.config(certs.ACME{})
	c.ACME.Email = ""
	cs := e.start(t, c, certs.Env{Data: t.TempDir(), Hosts: []string{"shop.example.com"}, HTTP: true,
		Logger: slog.New(slog.NewJSONHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	eventually(t, 15*time.Second, "a certificate", func() bool { return !cs.Certificates()[0].Missing })
	text := out.String()
	if !strings.Contains(text, `"msg":"acme: certificate obtained successfully"`) || !strings.Contains(text, `"identifier":"shop.example.com"`) {
		t.Errorf("the log does not tell of it: %s", text)
	}
	if strings.Contains(text, "PRIVATE KEY") || strings.Contains(text, `"level":"INFO"`) {
		t.Errorf("the log tells too much: %s", text)
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
