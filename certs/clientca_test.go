package certs_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/certs"
)

// A staffCA issues certificates to people.
type staffCA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newStaffCA(t *testing.T) *staffCA {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Staff CA"}, NotBefore: time.Now().Add(-day), NotAfter: time.Now().Add(day),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	check(t, err)
	cert, err := x509.ParseCertificate(der)
	check(t, err)
	return &staffCA{cert, key}
}

func (ca *staffCA) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw})
}

// issue returns a client's certificate that holds from before until after now.
func (ca *staffCA) issue(t *testing.T, before, after time.Duration, usage x509.ExtKeyUsage) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "ann"}, EmailAddresses: []string{"ann@example.com"},
		NotBefore: time.Now().Add(-before), NotAfter: time.Now().Add(after), ExtKeyUsage: []x509.ExtKeyUsage{usage}, KeyUsage: x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, ca.cert, key.Public(), ca.key)
	check(t, err)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestClientsAreAskedForCertificates(t *testing.T) {
	dir := t.TempDir()
	ours, others := newStaffCA(t), newStaffCA(t)
	path := filepath.Join(dir, "staff.pem")
	check(t, os.WriteFile(path, ours.pem(), 0o600))
	pair := made{names: []string{"shop.example.com"}}.write(t, dir)
	env := certs.Env{Hosts: []string{"shop.example.com"}}
	asking := newCerts(t, certs.Config{Certificates: []certs.Pair{pair}, ClientCA: path}, env).TLSConfig()
	silent := newCerts(t, certs.Config{Certificates: []certs.Pair{pair}}, env).TLSConfig()
	for name, c := range map[string]struct {
		cert *tls.Certificate
		good bool
	}{
		"none":                   {nil, true},
		"ours":                   {ours.issue(t, time.Hour, time.Hour, x509.ExtKeyUsageClientAuth), true},
		"expired":                {ours.issue(t, 2*time.Hour, -time.Hour, x509.ExtKeyUsageClientAuth), false},
		"not yet":                {ours.issue(t, -time.Hour, 2*time.Hour, x509.ExtKeyUsageClientAuth), false},
		"a server's":             {ours.issue(t, time.Hour, time.Hour, x509.ExtKeyUsageServerAuth), false},
		"of another of its name": {others.issue(t, time.Hour, time.Hour, x509.ExtKeyUsageClientAuth), false},
	} {
		asked := false
		client := &tls.Config{ServerName: "shop.example.com", MaxVersion: tls.VersionTLS12, // where the client learns of a refusal in its handshake
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				asked = true
				if c.cert == nil {
					return new(tls.Certificate), nil
				}
				return c.cert, nil
			}}
		if _, err := shake(asking, client); (err == nil) != c.good || !asked {
			t.Errorf("%s: asked %v, %v", name, asked, err)
		}
		asked = false
		if _, err := shake(silent, client); err != nil || asked {
			t.Errorf("%s, where nobody is asked: asked %v, %v", name, asked, err)
		}
	}
}

func TestWrongClientCA(t *testing.T) {
	dir := t.TempDir()
	ca := newStaffCA(t)
	leaf := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.issue(t, time.Hour, time.Hour, x509.ExtKeyUsageClientAuth).Certificate[0]})
	for name, c := range map[string]struct {
		text []byte
		want string
	}{
		"empty":            {nil, "must hold certificates"},
		"text":             {[]byte("hello"), "must hold certificates"},
		"a leaf":           {append(ca.pem(), leaf...), "certificate 2, of CN=ann, is not an authority's"},
		"a key":            {pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte{1}}), "block 1 is a PRIVATE KEY"},
		"broken":           {pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte{1}}), "certificate 1: "},
		"cut off":          {append(ca.pem(), ca.pem()[:100]...), "nothing after them"},
		"large":            {[]byte(strings.Repeat(" ", 1<<20+1)), "larger than 1 MiB"},
		"two, which is ok": {append(ca.pem(), newStaffCA(t).pem()...), ""},
	} {
		path := filepath.Join(dir, "ca.pem")
		check(t, os.WriteFile(path, c.text, 0o600))
		_, err := certs.New(certs.Config{ClientCA: path}, certs.Env{Data: dir, Hosts: []string{"a.example"}})
		if (c.want == "") != (err == nil) || err != nil && (!strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "client_ca \"")) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := certs.New(certs.Config{ClientCA: filepath.Join(dir, "none")}, certs.Env{Data: dir, Hosts: []string{"a.example"}}); err == nil {
		t.Error("a file that is not there is taken")
	}
}
