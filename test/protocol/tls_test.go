package protocol_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"io"
	"maps"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/test/harness"
)

// handshake connects to a gateway with c. Whose certificate it is does not
// matter here.
func handshake(m *harness.Merlon, c *tls.Config) (tls.ConnectionState, error) {
	c = c.Clone()
	c.InsecureSkipVerify = true
	c.ServerName = "localhost"
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 20 * time.Second}, "tcp", m.HTTPS, c)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer conn.Close()
	return conn.ConnectionState(), nil
}

// TLS 1.0 and 1.1 cannot be had, 1.2 and 1.3 can, and under the modern profile
// 1.3 alone.
func TestTLSVersions(t *testing.T) {
	t.Parallel()
	url := backend(t, page).URL
	profiles := map[string]uint16{"intermediate": tls.VersionTLS12, "modern": tls.VersionTLS13}
	for profile, least := range profiles {
		file := configure(t, "tls: {profile: "+profile+"}\nsites:\n  - host: localhost\n    upstream: "+url+"\n")
		m := harness.Serve(t, harness.Options{}, "-c", file)
		for v := uint16(tls.VersionTLS10); v <= tls.VersionTLS13; v++ {
			state, err := handshake(m, &tls.Config{MinVersion: v, MaxVersion: v})
			switch {
			case v >= least && (err != nil || state.Version != v):
				t.Errorf("%s, %s: %v", profile, tls.VersionName(v), err)
			case v < least && err == nil:
				t.Errorf("%s: %s is spoken", profile, tls.VersionName(v))
			case v < least && !strings.Contains(err.Error(), "protocol version"):
				t.Errorf("%s, %s: not refused for its version: %v", profile, tls.VersionName(v), err)
			}
		}
	}
}

// A certificate of either kind is served with ephemeral keys and AEAD only: no
// CBC, no RC4, no RSA key exchange, whatever the client would take.
func TestTLSSuites(t *testing.T) {
	t.Parallel()
	cert, key := rsaCertificate(t)
	file := configure(t, "tls: {certificates: [{cert: "+cert+", key: "+key+"}]}\nsites:\n  - host: localhost\n    upstream: "+backend(t, page).URL+"\n")
	for kind, m := range map[string]*harness.Merlon{
		"ECDSA": harness.Serve(t, harness.Options{}, "--upstream", backend(t, page).URL),
		"RSA":   harness.Serve(t, harness.Options{}, "-c", file),
	} {
		good := 0
		for _, s := range slices.Concat(tls.CipherSuites(), tls.InsecureCipherSuites()) {
			if !slices.Contains(s.SupportedVersions, tls.VersionTLS12) {
				continue
			}
			may := strings.HasPrefix(s.Name, "TLS_ECDHE_"+kind+"_") && (strings.Contains(s.Name, "_GCM_") || strings.Contains(s.Name, "_CHACHA20_"))
			state, err := handshake(m, &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{s.ID}})
			switch {
			case may && (err != nil || state.CipherSuite != s.ID):
				t.Errorf("%s certificate, %s: %v", kind, s.Name, err)
			case !may && err == nil:
				t.Errorf("%s certificate: %s is spoken", kind, s.Name)
			}
			if may {
				good++
			}
		}
		if good != 3 {
			t.Errorf("%s certificate: %d suites were expected to work, want 3", kind, good)
		}
	}
}

// The key exchange resists quantum computers where the client can, and works
// where it cannot.
func TestTLSKeyExchange(t *testing.T) {
	t.Parallel()
	m := harness.Serve(t, harness.Options{}, "--upstream", backend(t, page).URL)
	for _, tt := range []struct {
		offered []tls.CurveID // nil: what Go offers
		want    tls.CurveID
	}{
		{nil, tls.X25519MLKEM768},
		{[]tls.CurveID{tls.X25519, tls.X25519MLKEM768}, tls.X25519MLKEM768},
		{[]tls.CurveID{tls.X25519}, tls.X25519},
		{[]tls.CurveID{tls.CurveP256}, tls.CurveP256},
	} {
		state, err := handshake(m, &tls.Config{CurvePreferences: tt.offered, NextProtos: []string{"h2", "http/1.1"}})
		if err != nil || state.CurveID != tt.want || state.NegotiatedProtocol != "h2" {
			t.Errorf("%v: %v with %q, want %v: %v", tt.offered, state.CurveID, state.NegotiatedProtocol, tt.want, err)
		}
	}
}

// Plain HTTP on the TLS port gets no answer in clear text.
func TestPlainHTTPOnTLSPort(t *testing.T) {
	t.Parallel()
	var seen counted
	m := harness.Serve(t, harness.Options{}, "--upstream", backend(t, seen.ServeHTTP).URL)
	for _, text := range []string{
		"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
	} {
		conn, err := net.Dial("tcp", m.HTTPS)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second)) // a connection that is there takes it
		if _, err := io.WriteString(conn, text); err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(conn)
		if nerr, ok := err.(net.Error); ok && nerr.Timeout() {
			t.Errorf("%.10q: the connection stays open", text)
		}
		// At most a TLS alert: RFC 8446, section 6.
		if len(answer) > 0 && (len(answer) != 7 || answer[0] != 21) {
			t.Errorf("%.10q is answered with %q", text, answer)
		}
	}
	if n := seen.began.Load(); n != 0 {
		t.Errorf("the backend saw %d requests", n)
	}
	serves(t, m.Client(t))
}

// rsaCertificate makes a certificate for localhost.
func rsaCertificate(t *testing.T) (certFile, keyFile string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return write("cert.pem", "CERTIFICATE", cert), write("key.pem", "PRIVATE KEY", private)
}

// publicCA are findings about the certificate that come from its local CA, by
// testssl's ids.
var publicCA = map[string]string{
	"cert_chain_of_trust": "the local CA is known to no program but those that were told",
	"cert_revocation":     "the local CA revokes nothing; its certificates are replaced instead",
}

// An independent prober finds nothing above LOW in the default configuration.
func TestTestssl(t *testing.T) {
	if os.Getenv("MERLON_FULL") == "" {
		t.Skip("takes minutes; set MERLON_FULL=1 to run testssl")
	}
	program, err := exec.LookPath("testssl")
	if err != nil {
		if program, err = exec.LookPath("testssl.sh"); err != nil {
			t.Skip("testssl is not installed (Debian package testssl.sh)")
		}
	}
	m := harness.Serve(t, harness.Options{}, "--upstream", backend(t, page).URL, "--off=limit")
	report := filepath.Join(t.TempDir(), "report.json")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "--jsonfile", report, "-p", "-s", "-f", "-S", "-P", "-h", "-U", "--quiet", "--color", "0", "--warnings", "off", m.HTTPS)
	cmd.WaitDelay = time.Second
	out, runErr := cmd.CombinedOutput()
	if ctx.Err() != nil {
		t.Fatalf("testssl did not end in time\n%s", out)
	}
	text, err := os.ReadFile(report)
	if err != nil {
		t.Fatalf("%v, %v\n%s", err, runErr, out)
	}
	var findings []struct{ ID, Severity, Finding string }
	if err := json.Unmarshal(text, &findings); err != nil {
		t.Fatal(err)
	}
	if len(findings) < 80 {
		t.Errorf("testssl reports only %d findings\n%s", len(findings), out)
	}
	listed := maps.Clone(publicCA)
	for _, f := range findings {
		switch f.Severity {
		case "LOW":
			t.Logf("LOW %s: %s", f.ID, f.Finding)
		case "MEDIUM", "HIGH", "CRITICAL", "FATAL":
			if _, ok := publicCA[f.ID]; !ok {
				t.Errorf("%s %s: %s", f.Severity, f.ID, f.Finding)
			}
			delete(listed, f.ID)
		}
	}
	for id, why := range listed {
		t.Errorf("%s is no finding any more; take it out of the list (%s)", id, why)
	}
}
