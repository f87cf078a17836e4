package upstream_test

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/upstream"
)

type ca struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newCA(t testing.TB) ca {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA " + rand.Text()}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, _ := x509.ParseCertificate(der)
	return ca{cert, key}
}

func (c ca) file(t testing.TB, dir string) string {
	t.Helper()
	name := filepath.Join(dir, "ca.pem")
	write(t, name, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.cert.Raw}))
	return name
}

func write(t testing.TB, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(name+".new", b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		t.Fatal(err)
	}
}

func (c ca) issue(t testing.TB, host string, expired bool) tls.Certificate {
	t.Helper()
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<62))
	tmpl := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: host}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	if expired {
		tmpl.NotAfter = time.Now().Add(-time.Hour)
	}
	if ip := net.ParseIP(host); ip != nil {
		tmpl.IPAddresses = []net.IP{ip}
	} else {
		tmpl.DNSNames = []string{host}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, c.cert, &key.PublicKey, c.key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, _ := x509.ParseCertificate(der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func (c ca) clientFiles(t testing.TB, dir, name string) (certFile, keyFile string) {
	t.Helper()
	cert := c.issue(t, name, false)
	der, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, "client.pem"), filepath.Join(dir, "client.key")
	write(t, keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	write(t, certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}))
	return certFile, keyFile
}

func tlsBackend(t testing.TB, tc *tls.Config) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := "nobody"
		if len(r.TLS.PeerCertificates) > 0 {
			name = r.TLS.PeerCertificates[0].Subject.CommonName
		}
		_, _ = io.WriteString(w, name+" "+r.Proto)
	}))
	s.TLS = tc
	s.EnableHTTP2 = true
	s.Config.ErrorLog = discard
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func pin(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return "sha256/" + base64.StdEncoding.EncodeToString(sum[:])
}

func TestTLSToBackends(t *testing.T) {
	good, other := newCA(t), newCA(t)
	dir := t.TempDir()
	caFile := good.file(t, dir)
	serve := func(cert tls.Certificate, max uint16) string {
		return tlsBackend(t, &tls.Config{Certificates: []tls.Certificate{cert}, MaxVersion: max}).URL
	}
	leaf := good.issue(t, "127.0.0.1", false)
	right := serve(leaf, 0)
	named := serve(good.issue(t, "api.internal", false), 0)
	old := serve(leaf, tls.VersionTLS12)
	for _, c := range []struct {
		name   string
		url    string
		tls    upstream.TLS
		reason merlon.Reason
	}{
		{"verified", right, upstream.TLS{CA: caFile}, ""},
		{"verified, pinned leaf", right, upstream.TLS{CA: caFile, Pins: []string{pin(leaf.Leaf)}}, ""},
		{"verified, pinned CA", right, upstream.TLS{CA: caFile, Pins: []string{pin(other.cert), pin(good.cert)}}, ""},
		{"another key than pinned", right, upstream.TLS{CA: caFile, Pins: []string{pin(other.cert)}}, upstream.BadTLS},
		{"from an unknown CA", serve(other.issue(t, "127.0.0.1", false), 0), upstream.TLS{CA: caFile}, upstream.BadTLS},
		{"not from the system's CAs", right, upstream.TLS{}, upstream.BadTLS},
		{"expired", serve(good.issue(t, "127.0.0.1", true), 0), upstream.TLS{CA: caFile}, upstream.BadTLS},
		{"for another name", named, upstream.TLS{CA: caFile}, upstream.BadTLS},
		{"for the name that was configured", named, upstream.TLS{CA: caFile, ServerName: "api.internal"}, ""},
		{"TLS 1.2 only", old, upstream.TLS{CA: caFile}, upstream.BadTLS},
		{"TLS 1.2 where allowed", old, upstream.TLS{CA: caFile, MinVersion: "1.2"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFront(t, upstream.Config{To: []string{c.url}, TLS: c.tls}, setup{})
			res, body := get(t, f, "/")
			if c.reason == "" {
				if res.StatusCode != 200 || body != "nobody HTTP/2.0" {
					t.Errorf("%s %s %+v", res.Status, body, f.failed)
				}
				return
			}
			if d := f.last(t); res.StatusCode != 502 || d.Reason != c.reason {
				t.Errorf("%s %+v", res.Status, d)
			}
		})
	}
}

func TestNoPlaintextRetry(t *testing.T) {
	lines := make(chan string, 10)
	plain := rawBackend(t, func(conn net.Conn, br *bufio.Reader) {
		line, _ := br.ReadString('\n')
		lines <- line
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	})
	f := newFront(t, upstream.Config{To: []string{strings.Replace(plain, "http", "https", 1)}}, setup{})
	res, _ := get(t, f, "/secret")
	if d := f.last(t); res.StatusCode != 502 || d.Reason != upstream.BadTLS {
		t.Errorf("%s %+v", res.Status, d)
	}
	close(lines)
	for line := range lines {
		if strings.Contains(line, "secret") {
			t.Errorf("asked in cleartext: %q", line)
		}
	}
}

func TestMutualTLS(t *testing.T) {
	good, other := newCA(t), newCA(t)
	dir := t.TempDir()
	roots := x509.NewCertPool()
	roots.AddCert(good.cert)
	b := tlsBackend(t, &tls.Config{Certificates: []tls.Certificate{good.issue(t, "127.0.0.1", false)}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: roots})
	c := upstream.Config{To: []string{b.URL}, TLS: upstream.TLS{CA: good.file(t, dir)}}

	res, _ := get(t, newFront(t, c, setup{}), "/")
	if res.StatusCode != 502 {
		t.Error("without a certificate:", res.Status)
	}
	wrong := c
	wrong.TLS.Cert, wrong.TLS.Key = other.clientFiles(t, t.TempDir(), "merlon")
	f := newFront(t, wrong, setup{})
	res, _ = get(t, f, "/")
	if d := f.last(t); res.StatusCode != 502 || d.Reason != upstream.BadTLS && d.Reason != upstream.Closed { // in TLS 1.3 the alert races with the reset
		t.Errorf("with a stranger's certificate: %s %+v", res.Status, d)
	}
	c.TLS.Cert, c.TLS.Key = good.clientFiles(t, dir, "merlon")
	f = newFront(t, c, setup{})
	if res, body := get(t, f, "/"); res.StatusCode != 200 || body != "merlon HTTP/2.0" {
		t.Error(res.Status, body)
	}
	good.clientFiles(t, dir, "merlon-renewed")
	eventually(t, "a renewed client certificate is not used", func() bool {
		_, body := get(t, f, "/")
		return body == "merlon-renewed HTTP/2.0"
	})
	write(t, c.TLS.Cert, []byte("half written"))
	eventually(t, "a broken certificate file is not reported", func() bool { return f.pool.Stats().TLSFiles != nil })
	if res, body := get(t, f, "/"); res.StatusCode != 200 || body != "merlon-renewed HTTP/2.0" {
		t.Error("a broken file took the old certificate away:", res.Status, body)
	}
	if err := os.Chmod(c.TLS.Key, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := upstream.New(c); err == nil || !strings.Contains(err.Error(), "readable by others") {
		t.Error("a key that others may read was accepted:", err)
	}
}

func TestWebSocketOverTLSBackend(t *testing.T) {
	good := newCA(t)
	e := echo(t)
	b := httptest.NewUnstartedServer(e.Config.Handler)
	b.TLS = &tls.Config{Certificates: []tls.Certificate{good.issue(t, "127.0.0.1", false)}}
	b.EnableHTTP2 = true
	b.StartTLS()
	defer b.Close()
	f := newFront(t, upstream.Config{To: []string{b.URL}, TLS: upstream.TLS{CA: good.file(t, t.TempDir())}}, setup{})
	if err := say(dialWS(t, f), "hello"); err != nil {
		t.Error(err)
	}
}

func TestUnixSocket(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) }), Protocols: new(http.Protocols)}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetUnencryptedHTTP2(true)
	go func() { _ = srv.Serve(l) }()
	defer srv.Close()
	for to, want := range map[string]string{"unix:" + socket: "HTTP/1.1", "h2c+unix:" + socket: "HTTP/2.0"} {
		f := newFront(t, upstream.Config{To: []string{to}}, setup{})
		if res, body := get(t, f, "/"); res.StatusCode != 200 || body != want {
			t.Error(to, res.Status, body)
		}
	}
}
