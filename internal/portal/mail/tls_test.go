package mail_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"github.com/merlon-dev/merlon/internal/portal/mail"
	"github.com/merlon-dev/merlon/secrets"
)

// An authority signs certificates of mail servers.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{key: newKey(t), file: filepath.Join(t.TempDir(), "ca.pem")}
	der := a.sign(t, &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mail authority"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}, &a.key.PublicKey)
	var err error
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(a.file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (a *authority) sign(t *testing.T, c *x509.Certificate, pub *ecdsa.PublicKey) []byte {
	t.Helper()
	parent := a.cert
	if parent == nil {
		parent = c
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, pub, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// server returns a certificate for an address or name, good until a time.
func (a *authority) server(t *testing.T, name string, until time.Time) tls.Certificate {
	t.Helper()
	k := newKey(t)
	c := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: until,
	}
	if ip := net.ParseIP(name); ip != nil {
		c.IPAddresses = []net.IP{ip}
	} else {
		c.DNSNames = []string{name}
	}
	return tls.Certificate{Certificate: [][]byte{a.sign(t, c, &k.PublicKey)}, PrivateKey: k}
}

// A postOffice is a mail server of a library's that remembers who came, and
// with what.
type postOffice struct {
	t      *testing.T
	server *smtp.Server
	addr   string

	mu      sync.Mutex
	came    int // connections
	clear   int // commands after EHLO without TLS
	logins  []string
	letters []string
}

// open opens it at an address; with a certificate and at once, TLS begins
// before the first word.
func open(t *testing.T, addr string, cert *tls.Certificate, atOnce bool) *postOffice {
	t.Helper()
	o := &postOffice{t: t}
	o.server = smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		_, encrypted := c.TLSConnectionState()
		o.mu.Lock()
		defer o.mu.Unlock()
		o.came++
		return &counter{o, encrypted}, nil
	}))
	o.server.Domain, o.server.ErrorLog = "mail.test", log.New(io.Discard, "", 0)
	o.server.AllowInsecureAuth = true // so that a password sent in the clear would be seen
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Skipf("nobody can listen on %s here: %v", addr, err)
	}
	o.addr = l.Addr().String()
	if cert != nil {
		c := &tls.Config{Certificates: []tls.Certificate{*cert}, MinVersion: tls.VersionTLS12}
		if atOnce {
			l = tls.NewListener(l, c)
		} else {
			o.server.TLSConfig = c
		}
	}
	served := make(chan struct{})
	go func() { defer close(served); _ = o.server.Serve(l) }()
	t.Cleanup(func() {
		_ = l.Close() // the server's Close knows nothing of it before Serve
		_ = o.server.Close()
		<-served
	})
	return o
}

func (o *postOffice) port() int {
	_, p, err := net.SplitHostPort(o.addr)
	if err != nil {
		o.t.Fatal(err)
	}
	n, err := strconv.Atoi(p)
	if err != nil {
		o.t.Fatal(err)
	}
	return n
}

type counter struct {
	o         *postOffice
	encrypted bool
}

func (c *counter) note(f func()) {
	c.o.mu.Lock()
	defer c.o.mu.Unlock()
	if !c.encrypted {
		c.o.clear++
	}
	f()
}

func (c *counter) AuthMechanisms() []string { return []string{sasl.Plain} }

func (c *counter) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, pass string) error {
		c.note(func() { c.o.logins = append(c.o.logins, user+":"+pass) })
		if pass != "hunter2" {
			return smtp.ErrAuthFailed
		}
		return nil
	}), nil
}

func (c *counter) Mail(string, *smtp.MailOptions) error { c.note(func() {}); return nil }
func (c *counter) Rcpt(string, *smtp.RcptOptions) error { return nil }

func (c *counter) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	c.note(func() { c.o.letters = append(c.o.letters, string(b)) })
	return err
}

func (c *counter) Reset()        {}
func (c *counter) Logout() error { return nil }

func passwordFile(t *testing.T, text string) secrets.Ref {
	t.Helper()
	path := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return secrets.Ref("file:" + path)
}

// post sends one letter and gives up after a few tries.
func post(t *testing.T, c mail.SMTP) {
	t.Helper()
	var mu sync.Mutex
	now := time.Now()
	p, err := mail.NewSmall(mail.Config{SMTP: c}, "", quiet, 3,
		func() time.Time { mu.Lock(); defer mu.Unlock(); return now },
		func(time.Duration) { mu.Lock(); now = now.Add(30 * time.Minute); mu.Unlock() })
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Send(mail.Letter{To: "ann@example.com", Subject: "Hello", Text: "https://shop.example/x?token=SECRET\n"}); err != nil {
		t.Fatal(err)
	}
	closed(t, p)
}

// Letters and the password go out encrypted, to whom the certificate names and
// nobody else, by STARTTLS and with TLS at once.
func TestLettersGoOutEncrypted(t *testing.T) {
	ours, others := newAuthority(t), newAuthority(t)
	later := time.Now().Add(time.Hour)
	// An address for each: port 465 is one that only TLS at once has.
	for _, at := range []struct {
		name, host, port string
	}{{"STARTTLS", "127.0.0.1", "0"}, {"465", "127.0.0.46", "465"}} {
		for _, c := range []struct {
			name string
			cert *tls.Certificate // nil: no TLS
			pass string
			ok   bool
		}{
			{"good", new(ours.server(t, at.host, later)), "hunter2", true},
			{"wrong password", new(ours.server(t, at.host, later)), "hunter3", false},
			{"another name", new(ours.server(t, "mail.example", later)), "hunter2", false},
			{"another authority", new(others.server(t, at.host, later)), "hunter2", false},
			{"expired", new(ours.server(t, at.host, time.Now().Add(-time.Hour))), "hunter2", false},
			{"no TLS", nil, "hunter2", false},
		} {
			t.Run(at.name+", "+c.name, func(t *testing.T) {
				o := open(t, net.JoinHostPort(at.host, at.port), c.cert, at.port == "465")
				post(t, mail.SMTP{Host: at.host, Port: o.port(), User: "u", Password: passwordFile(t, c.pass), CA: ours.file, Timeout: 2 * time.Second})
				o.mu.Lock()
				defer o.mu.Unlock()
				if o.clear > 0 {
					t.Errorf("%d commands in the clear, log-ins %q, letters %q", o.clear, o.logins, o.letters)
				}
				if (len(o.letters) == 1) != c.ok || c.ok && (o.logins[0] != "u:hunter2" || !strings.Contains(o.letters[0], "token=3DSECRET")) {
					t.Errorf("log-ins %q, letters %q", o.logins, o.letters)
				}
				if c.name != "good" && c.name != "wrong password" && len(o.logins) > 0 {
					t.Errorf("the password went to a stranger: %q", o.logins)
				}
			})
		}
	}
}

// Without ca a server on loopback is one of the system's own and needs no
// certificate; TLS at once is verified all the same.
func TestTheSystemsAuthoritiesAreAskedOtherwise(t *testing.T) {
	cert := newAuthority(t).server(t, "127.0.0.46", time.Now().Add(time.Hour))
	o := open(t, "127.0.0.46:465", &cert, true)
	post(t, mail.SMTP{Host: "127.0.0.46", Port: 465, Timeout: 2 * time.Second})
	if len(o.letters) > 0 {
		t.Error("a certificate of nobody was believed")
	}
}

// SC-50: a server that is down delays nobody, and what waits for it goes out
// when it is back.
func TestLettersWaitForTheServer(t *testing.T) {
	a := newAuthority(t)
	cert := a.server(t, "127.0.0.1", time.Now().Add(time.Hour))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr, port := l.Addr().String(), l.Addr().(*net.TCPAddr).Port
	_ = l.Close()
	var mu sync.Mutex
	now, pauses := time.Now(), 0
	back := make(chan *postOffice, 1)
	p, err := mail.NewSmall(mail.Config{SMTP: mail.SMTP{Host: "127.0.0.1", Port: port, CA: a.file, Timeout: 2 * time.Second}}, "", quiet, 5,
		func() time.Time { mu.Lock(); defer mu.Unlock(); return now },
		func(d time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			now = now.Add(d)
			if pauses++; pauses == 3 {
				back <- open(t, addr, &cert, false)
			}
		})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for _, text := range []string{"first\n", "second\n"} {
		if err := p.Send(mail.Letter{To: "ann@example.com", Subject: "Hello", Text: text}); err != nil {
			t.Fatal(err)
		}
	}
	if d := time.Since(began); d > time.Second {
		t.Errorf("whoever asked waited %v", d)
	}
	closed(t, p)
	var o *postOffice
	select {
	case o = <-back:
	default:
		t.Fatal("it was not tried again")
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.letters) != 2 || !strings.Contains(o.letters[0], "first") || !strings.Contains(o.letters[1], "second") || pauses != 3 {
		t.Errorf("after %d pauses: %q", pauses, o.letters)
	}
	if err := p.Send(mail.Letter{To: "ann@example.com", Subject: "x"}); !errors.Is(err, mail.ErrClosed) {
		t.Error(err)
	}
}
