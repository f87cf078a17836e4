package certs_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/certs"
)

const day = 24 * time.Hour

// made is a certificate to be written to files.
type made struct {
	names     []string
	ips       []net.IP
	notBefore time.Time // an hour ago if zero
	life      time.Duration
	key       crypto.Signer // ECDSA P-256 if nil
}

func (m made) pem(t testing.TB) (cert, key []byte) {
	t.Helper()
	if m.key == nil {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		check(t, err)
		m.key = k
	}
	if m.notBefore.IsZero() {
		m.notBefore = time.Now().Add(-time.Hour)
	}
	if m.life == 0 {
		m.life = 90 * day
	}
	tmpl := &x509.Certificate{
		NotBefore: m.notBefore, NotAfter: m.notBefore.Add(m.life),
		DNSNames: m.names, IPAddresses: m.ips,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, m.key.Public(), m.key)
	check(t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(m.key)
	check(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}

// write puts the certificate into dir and returns its paths.
func (m made) write(t testing.TB, dir string) certs.Pair {
	t.Helper()
	cert, key := m.pem(t)
	p := certs.Pair{Cert: filepath.Join(dir, m.names[0]+".crt"), Key: filepath.Join(dir, m.names[0]+".key")}
	check(t, os.WriteFile(p.Cert, cert, 0o644))
	check(t, os.WriteFile(p.Key, key, 0o600))
	return p
}

func rsaKey(t testing.TB, bits int) crypto.Signer {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, bits)
	check(t, err)
	return k
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newCerts makes and starts certificates.
func newCerts(t testing.TB, c certs.Config, env certs.Env) *certs.Certs {
	t.Helper()
	if env.Data == "" {
		env.Data = filepath.Join(t.TempDir(), "data")
	}
	cs, err := certs.New(c, env)
	check(t, err)
	check(t, cs.Start(context.Background()))
	t.Cleanup(func() { check(t, cs.Close()) })
	return cs
}

// notices collects what is told.
type notices struct {
	mu  sync.Mutex
	all []certs.Notice
}

func (n *notices) add(x certs.Notice) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all = append(n.all, x)
}

func (n *notices) take() []certs.Notice {
	n.mu.Lock()
	defer n.mu.Unlock()
	all := n.all
	n.all = nil
	return all
}

func (n *notices) has(reason merlon.Reason) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, x := range n.all {
		if x.Reason == reason {
			return true
		}
	}
	return false
}

// pipeConn is one end of a pipe that claims an address.
type pipeConn struct {
	net.Conn
	local net.Addr
}

func (p pipeConn) LocalAddr() net.Addr { return p.local }

// shake does a handshake over a pipe and verifies nothing: a client that
// breaks off would block, for the server is still writing.
func shake(server, client *tls.Config) (tls.ConnectionState, error) {
	return shakeAt(server, client, "127.0.0.1")
}

func shakeAt(server, client *tls.Config, addr string) (tls.ConnectionState, error) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	served := make(chan error, 1)
	go func() {
		s := tls.Server(pipeConn{a, &net.TCPAddr{IP: net.ParseIP(addr), Port: 443}}, server)
		err := s.Handshake()
		served <- err
		if err == nil {
			_, _ = s.Read(make([]byte, 1)) // lets session tickets be written
		}
		_ = a.Close()
	}()
	client = client.Clone()
	client.InsecureSkipVerify = true
	c := tls.Client(b, client)
	if err := c.Handshake(); err != nil {
		return tls.ConnectionState{}, err
	}
	_ = b.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	return c.ConnectionState(), errors.Join(<-served)
}

// shown returns the first name of the certificate that a client is shown, or
// the alert.
func shown(t testing.TB, cs *certs.Certs, sni, addr string) string {
	t.Helper()
	state, err := shakeAt(cs.TLSConfig(), &tls.Config{ServerName: sni, InsecureSkipVerify: true}, addr)
	if err != nil {
		return err.Error()
	}
	leaf := state.PeerCertificates[0]
	if len(leaf.DNSNames) > 0 {
		return leaf.DNSNames[0]
	}
	return leaf.IPAddresses[0].String()
}

// serve runs h behind cs on a loopback port and returns its address.
func serve(t testing.TB, conf *tls.Config, h http.Handler) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	serveOn(t, ln, conf, h)
	return ln.Addr().String()
}

func serveOn(t testing.TB, ln net.Listener, conf *tls.Config, h http.Handler) {
	t.Helper()
	s := &http.Server{Handler: h, TLSConfig: conf, ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(new(bytes.Buffer), "", 0)}
	go func() {
		if conf != nil {
			_ = s.ServeTLS(ln, "", "")
		} else {
			_ = s.Serve(ln)
		}
	}()
	t.Cleanup(func() { _ = s.Close() })
}

// mistakes are the lines of an error.
func mistakes(err error) string {
	if err == nil {
		return ""
	}
	return strings.TrimSpace(err.Error())
}

func eventually(t testing.TB, within time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(within); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("within %v: not %s", within, what)
		}
	}
}

// trusting is a client that trusts the local CA and nobody else.
func trusting(cs *certs.Certs) *tls.Config { return &tls.Config{RootCAs: cs.LocalCA().Pool()} }
