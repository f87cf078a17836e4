package certs_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/merlon-dev/merlon/certs"
)

// local starts certificates of a local CA.
func local(t testing.TB, c certs.Config, hosts ...string) *certs.Certs {
	t.Helper()
	return newCerts(t, c, certs.Env{Hosts: hosts})
}

// verified does a handshake that trusts only the local CA.
func verified(cs *certs.Certs, sni, addr string) error {
	name := sni
	if name == "" {
		name = addr
	}
	state, err := shakeAt(cs.TLSConfig(), &tls.Config{ServerName: sni}, addr)
	if err != nil {
		return err
	}
	_, err = state.PeerCertificates[0].Verify(x509.VerifyOptions{DNSName: name, Roots: cs.LocalCA().Pool()})
	return err
}

func TestLocalCA(t *testing.T) {
	named := local(t, certs.Config{}, "shop.example.com", "*.dev.example.org", "192.0.2.7")
	strict := local(t, certs.Config{RequireSNI: true}, "shop.example.com")
	every := local(t, certs.Config{}, "*")
	for _, c := range []struct {
		name, sni, addr string
		cs              *certs.Certs
		ok              bool
	}{
		{"a host served", "shop.example.com", "127.0.0.1", named, true},
		{"below a wildcard", "a.dev.example.org", "127.0.0.1", named, true},
		{"two labels below a wildcard", "a.b.dev.example.org", "127.0.0.1", named, false},
		{"an address served", "", "192.0.2.7", named, true},
		{"an address not served", "", "192.0.2.8", named, false},
		{"a host not served", "bank.example", "127.0.0.1", named, false},
		{"localhost where it is not served", "localhost", "127.0.0.1", named, false},
		{"a host served, name required", "shop.example.com", "127.0.0.1", strict, true},
		{"a host not served, name required", "bank.example", "127.0.0.1", strict, false},
		{"every host: localhost", "localhost", "127.0.0.1", every, true},
		{"every host: loopback address", "", "127.0.0.1", every, true},
		{"every host: IPv6", "", "::1", every, true},
		{"every host: any name", "some-shop.example.com", "127.0.0.1", every, true},
		{"every host: not a name", "-bad-.example.com", "127.0.0.1", every, false},
		{"every host: not a name either", "a b", "127.0.0.1", every, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := verified(c.cs, c.sni, c.addr); (err == nil) != c.ok {
				t.Errorf("handshake: %v", err)
			}
		})
	}
	// What is not served gets the certificate of a host that is.
	if got := shown(t, named, "bank.example", "127.0.0.1"); got != "shop.example.com" {
		t.Errorf("a stranger is shown %q", got)
	}
	if got := shown(t, strict, "bank.example", "127.0.0.1"); !strings.Contains(got, "unrecognized name") {
		t.Errorf("a stranger is shown %q", got)
	}
}

func TestRootIsMadeOnceAndPrivate(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	if _, err := certs.LoadLocalCA(data); !errors.Is(err, certs.ErrNoLocalCA) {
		t.Fatalf("before: %v", err)
	}
	var wg sync.WaitGroup
	prints := make([]string, 8)
	for i := range prints {
		wg.Go(func() {
			ca, err := certs.OpenLocalCA(data, []string{"shop.example.com"})
			if err != nil {
				t.Error(err)
				return
			}
			prints[i] = ca.Fingerprint()
		})
	}
	wg.Wait()
	for _, p := range prints {
		if p != prints[0] {
			t.Fatal("two of them made different roots")
		}
	}
	for path, want := range map[string]os.FileMode{"ca": 0o700, "ca/root.key": 0o600} {
		info, err := os.Stat(filepath.Join(data, path))
		check(t, err)
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %o", path, info.Mode().Perm())
		}
	}
	left, err := os.ReadDir(data)
	check(t, err)
	if len(left) != 1 {
		t.Errorf("left behind in data: %v", left)
	}
	ca, err := certs.LoadLocalCA(data)
	check(t, err)
	root := ca.Certificate()
	if !root.IsCA || !root.MaxPathLenZero || root.KeyUsage&x509.KeyUsageCertSign == 0 || len(root.ExtKeyUsage) != 2 ||
		time.Until(root.NotAfter).Round(day) != 3650*day || root.PublicKeyAlgorithm != x509.ECDSA {
		t.Errorf("root: %+v", root)
	}
}

// Two processes, not only two goroutines.
func TestRootIsMadeOnceByTwoProcesses(t *testing.T) {
	if data := os.Getenv("MERLON_TEST_CA"); data != "" {
		ca, err := certs.OpenLocalCA(data, []string{"*"})
		check(t, err)
		fmt.Println("print=" + ca.Fingerprint())
		return
	}
	data := filepath.Join(t.TempDir(), "data")
	var wg sync.WaitGroup
	outs := make([]string, 3)
	for i := range outs {
		wg.Go(func() {
			cmd := exec.Command(os.Args[0], "-test.run=^TestRootIsMadeOnceByTwoProcesses$")
			cmd.Env = append(os.Environ(), "MERLON_TEST_CA="+data)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("%v: %s", err, out)
			}
			_, after, _ := strings.Cut(string(out), "print=")
			outs[i], _, _ = strings.Cut(after, "\n")
		})
	}
	wg.Wait()
	if outs[0] == "" || outs[0] != outs[1] || outs[1] != outs[2] {
		t.Errorf("roots %q", outs)
	}
}

func TestRootThatCannotBeUsed(t *testing.T) {
	for _, c := range []struct {
		name, want string
		spoil      func(dir string) error
	}{
		{"key readable by others", "root.key: must not be accessible to others", func(d string) error { return os.Chmod(d+"/root.key", 0o644) }},
		{"folder open to others", "must not be accessible to others (chmod 700)", func(d string) error { return os.Chmod(d, 0o755) }},
		{"key lost", "root.key: no such file", func(d string) error { return os.Remove(d + "/root.key") }},
		{"certificate lost", "root.crt: no such file", func(d string) error { return os.Remove(d + "/root.crt") }},
		{"key of another", "do not belong together", func(d string) error {
			other, err := os.MkdirTemp(filepath.Dir(d), "other")
			if err != nil {
				return err
			}
			if _, err := certs.OpenLocalCA(other, nil); err != nil {
				return err
			}
			return os.Rename(other+"/ca/root.key", d+"/root.key")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			data := t.TempDir()
			_, err := certs.OpenLocalCA(data, []string{"localhost"})
			check(t, err)
			check(t, c.spoil(filepath.Join(data, "ca")))
			_, err = certs.New(certs.Config{}, certs.Env{Data: data, Hosts: []string{"localhost"}})
			if !strings.Contains(mistakes(err), c.want) || !strings.Contains(mistakes(err), data) {
				t.Errorf("New says %q, want %q", mistakes(err), c.want)
			}
		})
	}
}

func TestRootSignsOnlyForWhatItWasMadeFor(t *testing.T) {
	data := t.TempDir()
	ca, err := certs.OpenLocalCA(data, []string{"shop.example.co.uk", "10.1.2.3"})
	check(t, err)
	text := ca.TrustText()
	if !strings.Contains(text, "for these names only") || !strings.Contains(text, "example.co.uk") {
		t.Errorf("the text does not say so: %s", text)
	}
	for _, hosts := range [][]string{{"api.example.co.uk"}, {"localhost", "printer.local", "*.test"}, {"192.168.1.9", "::1"}} {
		if _, err := certs.New(certs.Config{}, certs.Env{Data: data, Hosts: hosts}); err != nil {
			t.Errorf("%v: %v", hosts, err)
		}
	}
	for _, host := range []string{"bank.example", "other.co.uk", "co.uk", "8.8.8.8"} {
		_, err := certs.New(certs.Config{}, certs.Env{Data: data, Hosts: []string{host}})
		if !strings.Contains(mistakes(err), "may not sign for this one") {
			t.Errorf("%s: %v", host, err)
		}
	}
	// Under "*" it serves what it may sign for, and no more.
	cs := newCerts(t, certs.Config{}, certs.Env{Data: data, Hosts: []string{"*"}})
	if err := verified(cs, "www.example.co.uk", "127.0.0.1"); err != nil {
		t.Errorf("www.example.co.uk: %v", err)
	}
	if got := shown(t, cs, "bank.example", "127.0.0.1"); !strings.Contains(got, "unrecognized name") {
		t.Errorf("bank.example is shown %q", got)
	}
}

func TestNamesThatClientsMakeUpTakeNoMemory(t *testing.T) {
	cs := local(t, certs.Config{}, "*")
	conf := cs.TLSConfig()
	for i := range certs.MaxLeaves + 200 {
		h := &tls.ClientHelloInfo{ServerName: fmt.Sprintf("n%d.example.com", i), Conn: pipeConn{nil, &net.TCPAddr{}}}
		cert, err := conf.GetCertificate(h)
		if err != nil || cert == nil {
			t.Fatalf("%v %v", cert, err)
		}
	}
	if n := certs.Leaves(cs.LocalCA()); n != certs.MaxLeaves {
		t.Errorf("%d leafs are kept, want %d", n, certs.MaxLeaves)
	}
}

func TestLeafsAreShortLivedAndReplacedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cs, err := certs.New(certs.Config{}, certs.Env{Data: t.TempDir(), Hosts: []string{"localhost"}})
		check(t, err)
		check(t, cs.Start(context.Background()))
		defer cs.Close()
		conf := cs.TLSConfig()
		leaf := func() *x509.Certificate {
			cert, err := conf.GetCertificate(&tls.ClientHelloInfo{ServerName: "localhost"})
			check(t, err)
			return cert.Leaf
		}
		first := leaf()
		life := first.NotAfter.Sub(first.NotBefore)
		if life > 90*day {
			t.Errorf("a leaf lives %v", life)
		}
		time.Sleep(time.Until(first.NotAfter) - life/3 - time.Minute)
		if leaf() != first {
			t.Error("replaced too early")
		}
		time.Sleep(2 * time.Minute)
		if again := leaf(); again == first || time.Until(again.NotAfter) < life*9/10 {
			t.Error("not replaced with a third of its life left")
		}
	})
}

func TestTrustText(t *testing.T) {
	data := filepath.Join(t.TempDir(), "it's here")
	ca, err := certs.OpenLocalCA(data, []string{"*"})
	check(t, err)
	text := ca.TrustText()
	quoted := `'` + strings.ReplaceAll(ca.Path(), `'`, `'\''`) + `'`
	for _, want := range []string{ca.Path(), ca.Fingerprint(), "Debian", "Fedora", "macOS", "Windows", "Firefox", "curl --cacert " + quoted, "any name"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in %s", want, text)
		}
	}
	out, err := exec.Command("sh", "-c", "cat "+quoted).Output()
	if err != nil || !strings.Contains(string(out), "BEGIN CERTIFICATE") {
		t.Errorf("the path as quoted for a shell: %v %s", err, out)
	}
}

func BenchmarkHandshakeCallback(b *testing.B) {
	cs := local(b, certs.Config{}, "*")
	conf := cs.TLSConfig()
	b.Run("known name", func(b *testing.B) {
		h := &tls.ClientHelloInfo{ServerName: "localhost"}
		b.ReportAllocs()
		for b.Loop() {
			_, _ = conf.GetCertificate(h)
		}
	})
	b.Run("new name", func(b *testing.B) {
		i := 0
		b.ReportAllocs()
		for b.Loop() {
			i++
			_, _ = conf.GetCertificate(&tls.ClientHelloInfo{ServerName: fmt.Sprintf("n%d.example.com", i)})
		}
	})
	b.Run("whole handshake", func(b *testing.B) {
		for b.Loop() {
			a, c := net.Pipe()
			go func() { _ = tls.Client(c, &tls.Config{ServerName: "localhost", InsecureSkipVerify: true}).Handshake() }()
			s := tls.Server(a, conf)
			_ = s.Handshake()
			_ = a.Close()
			_ = c.Close()
		}
	})
}
