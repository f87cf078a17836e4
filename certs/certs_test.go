package certs_test

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/certs"
)

func TestProfiles(t *testing.T) {
	dir := t.TempDir()
	pairs := []certs.Pair{
		made{names: []string{"shop.example.com"}}.write(t, dir),
		made{names: []string{"rsa.example.com"}, key: rsaKey(t, 2048)}.write(t, dir),
	}
	with := func(p certs.Profile) *tls.Config {
		return newCerts(t, certs.Config{Profile: p, Certificates: pairs},
			certs.Env{Hosts: []string{"shop.example.com", "rsa.example.com"}}).TLSConfig()
	}
	intermediate, modern := with(""), with(certs.Modern)
	if intermediate.MinVersion != tls.VersionTLS12 || modern.MinVersion != tls.VersionTLS13 {
		t.Errorf("oldest versions %x and %x", intermediate.MinVersion, modern.MinVersion)
	}
	suites := func(ids ...uint16) *tls.Config {
		return &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: ids}
	}
	versions := func(v uint16) *tls.Config { return &tls.Config{MinVersion: v, MaxVersion: v} }
	for _, c := range []struct {
		name                 string
		client               *tls.Config
		host                 string
		intermediate, modern bool
	}{
		{"TLS 1.0", versions(tls.VersionTLS10), "shop", false, false},
		{"TLS 1.1", versions(tls.VersionTLS11), "shop", false, false},
		{"TLS 1.2", versions(tls.VersionTLS12), "shop", true, false},
		{"TLS 1.3", versions(tls.VersionTLS13), "shop", true, true},
		{"TLS 1.2, ECDHE, GCM, ECDSA", suites(tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256), "shop", true, false},
		{"TLS 1.2, ECDHE, GCM, RSA", suites(tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384), "rsa", true, false},
		{"TLS 1.2, ECDHE, ChaCha20", suites(tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256), "shop", true, false},
		{"CBC with SHA-1", suites(tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA), "shop", false, false},
		{"CBC with SHA-256", suites(tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256), "rsa", false, false},
		{"static RSA, GCM", suites(tls.TLS_RSA_WITH_AES_128_GCM_SHA256), "rsa", false, false},
		{"static RSA, CBC", suites(tls.TLS_RSA_WITH_AES_256_CBC_SHA), "rsa", false, false},
		{"RC4", suites(tls.TLS_RSA_WITH_RC4_128_SHA, tls.TLS_ECDHE_RSA_WITH_RC4_128_SHA), "rsa", false, false},
		{"3DES", suites(tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA, tls.TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA), "rsa", false, false},
		{"P-256", &tls.Config{CurvePreferences: []tls.CurveID{tls.CurveP256}}, "shop", true, true},
		{"P-384", &tls.Config{CurvePreferences: []tls.CurveID{tls.CurveP384}}, "shop", true, true},
		{"X25519", &tls.Config{CurvePreferences: []tls.CurveID{tls.X25519}}, "shop", true, true},
		{"P-521", &tls.Config{CurvePreferences: []tls.CurveID{tls.CurveP521}}, "shop", false, false},
		{"HTTP/2", &tls.Config{NextProtos: []string{"h2"}}, "shop", true, true},
		{"HTTP/1.1", &tls.Config{NextProtos: []string{"http/1.1"}}, "shop", true, true},
		{"another protocol (ALPACA)", &tls.Config{NextProtos: []string{"ftp", "imap"}}, "shop", false, false},
		{"an ACME challenge where there is no ACME", &tls.Config{NextProtos: []string{"acme-tls/1"}}, "shop", false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.client.ServerName = c.host + ".example.com"
			if _, err := shake(intermediate, c.client); (err == nil) != c.intermediate {
				t.Errorf("intermediate: %v", err)
			}
			if _, err := shake(modern, c.client); (err == nil) != c.modern {
				t.Errorf("modern: %v", err)
			}
		})
	}
}

func TestKeyExchangeIsPostQuantumWhereTheClientCan(t *testing.T) {
	cs := newCerts(t, certs.Config{}, certs.Env{Hosts: []string{"localhost"}})
	state, err := shake(cs.TLSConfig(), &tls.Config{ServerName: "localhost"})
	check(t, err)
	if state.CurveID != tls.X25519MLKEM768 {
		t.Errorf("key exchange %v, want X25519MLKEM768", state.CurveID)
	}
}

func TestSessionsResumeButNotAcrossReloads(t *testing.T) {
	cs := newCerts(t, certs.Config{}, certs.Env{Hosts: []string{"localhost"}})
	server := cs.TLSConfig()
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig: &tls.Config{RootCAs: cs.LocalCA().Pool(), ServerName: "localhost",
			ClientSessionCache: tls.NewLRUClientSessionCache(4)},
	}}
	ask := func(addr string) bool {
		res, err := client.Get("https://" + addr)
		check(t, err)
		_, _ = io.Copy(io.Discard, res.Body)
		check(t, res.Body.Close())
		return res.TLS.DidResume
	}
	hello := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "hello") })
	first, second := serve(t, server, hello), serve(t, cs.TLSConfig(), hello)
	if ask(first) {
		t.Error("the first connection resumed something")
	}
	if !ask(first) {
		t.Error("the second connection did not resume")
	}
	if ask(second) {
		t.Error("a new configuration accepted the old one's ticket")
	}
}

func TestPlainHTTPOnTheTLSListener(t *testing.T) {
	cs := newCerts(t, certs.Config{}, certs.Env{Hosts: []string{"localhost"}})
	reached := false
	addr := serve(t, cs.TLSConfig(), http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }))
	conn, err := net.Dial("tcp", addr)
	check(t, err)
	defer conn.Close()
	check(t, conn.SetDeadline(time.Now().Add(5*time.Second)))
	_, err = io.WriteString(conn, "GET /secret HTTP/1.1\r\nHost: localhost\r\n\r\n")
	check(t, err)
	answer, _ := io.ReadAll(bufio.NewReader(conn))
	if reached {
		t.Error("the handler was reached without TLS")
	}
	// net/http itself says, in a fixed sentence, that this is no TLS.
	if s := string(answer); s != "" && !strings.HasPrefix(s, "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n") {
		t.Errorf("answer %q", s)
	}
}

func TestWhichCertificateIsShown(t *testing.T) {
	dir := t.TempDir()
	pairs := []certs.Pair{
		made{names: []string{"www.example.com", "example.com"}}.write(t, dir),
		made{names: []string{"*.example.org"}}.write(t, dir),
		made{names: []string{"api.example.org"}, ips: []net.IP{net.IPv4(192, 0, 2, 7)}}.write(t, dir),
	}
	hosts := []string{"example.com", "*.example.org"}
	open := newCerts(t, certs.Config{Certificates: pairs}, certs.Env{Hosts: hosts})
	strict := newCerts(t, certs.Config{Certificates: pairs, RequireSNI: true}, certs.Env{Hosts: hosts})
	const refused = "remote error: tls: unrecognized name"
	for _, c := range []struct{ name, sni, addr, open, strict string }{
		{"exact", "example.com", "", "www.example.com", "www.example.com"},
		{"upper case", "EXAMPLE.com", "", "www.example.com", "www.example.com"},
		{"wildcard", "shop.example.org", "", "*.example.org", "*.example.org"},
		{"exact before wildcard", "api.example.org", "", "api.example.org", "api.example.org"},
		{"a wildcard is one label only", "a.b.example.org", "", "www.example.com", refused},
		{"a wildcard is not its parent", "example.org", "", "www.example.com", refused},
		{"unknown", "evil.example", "", "www.example.com", refused},
		{"no name, by address", "", "192.0.2.7", "api.example.org", refused},
		{"no name, another address", "", "192.0.2.8", "www.example.com", refused},
		{"not a name", "a_b..example.com", "", refused, refused},
		{"NUL in it", "example.com\x00.evil.example", "", refused, refused},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.addr == "" {
				c.addr = "127.0.0.1"
			}
			if got := shown(t, open, c.sni, c.addr); got != c.open {
				t.Errorf("shown %q, want %q", got, c.open)
			}
			if got := shown(t, strict, c.sni, c.addr); got != c.strict {
				t.Errorf("require_sni: shown %q, want %q", got, c.strict)
			}
		})
	}
}

func TestCertificateThatSuitsTheClient(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	pairs := []certs.Pair{
		made{names: []string{"shop.example.com"}}.write(t, dir),
		made{names: []string{"shop.example.com"}, key: rsaKey(t, 2048)}.write(t, other),
	}
	cs := newCerts(t, certs.Config{Certificates: pairs}, certs.Env{Hosts: []string{"shop.example.com"}})
	for suite, want := range map[uint16]string{
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256: "ECDSA",
		tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256:   "RSA",
	} {
		state, err := shake(cs.TLSConfig(), &tls.Config{ServerName: "shop.example.com",
			MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{suite}})
		check(t, err)
		if got := state.PeerCertificates[0].PublicKeyAlgorithm.String(); got != want {
			t.Errorf("%s: key is %s", tls.CipherSuiteName(suite), got)
		}
	}
}

func TestEveryMistakeAtOnce(t *testing.T) {
	dir := t.TempDir()
	good := made{names: []string{"good.example.com"}}.write(t, dir)
	old := made{names: []string{"old.example.com"}, notBefore: time.Now().Add(-90 * day), life: 80 * day}.write(t, dir)
	early := made{names: []string{"early.example.com"}, notBefore: time.Now().Add(day)}.write(t, dir)
	weak := made{names: []string{"weak.example.com"}, key: rsaKey(t, 1024)}.write(t, dir)
	group := made{names: []string{"group.example.com"}}.write(t, dir)
	check(t, os.Chmod(group.Key, 0o640))
	world := made{names: []string{"world.example.com"}}.write(t, dir)
	world.GroupReadable = true
	check(t, os.Chmod(world.Key, 0o644))
	swapped := certs.Pair{Cert: good.Cert, Key: old.Key}
	missing := certs.Pair{Cert: filepath.Join(dir, "none.crt"), Key: filepath.Join(dir, "none.key")}
	backwards := certs.Pair{Cert: good.Key, Key: good.Cert}
	check(t, os.Chmod(good.Cert, 0o600))

	_, err := certs.New(certs.Config{
		Profile:      "old",
		RedirectPort: 70000,
		Certificates: []certs.Pair{good, old, early, weak, group, world, swapped, missing, backwards},
		ACME:         &certs.ACME{Email: "Ops <ops@example.com>", Directory: "http://ca.example", Challenges: []certs.Challenge{"dns-01", "http-01"}, EAB: &certs.EAB{KeyID: "k", HMACKey: "env:MERLON_TEST_NO_SUCH"}, CAFile: good.Key, Domains: []string{"*.example.com", "elsewhere.example", "localhost"}},
	}, certs.Env{Data: dir, Hosts: []string{"good.example.com", "localhost", "b@d"}})
	got := mistakes(err)
	for _, want := range []string{
		`profile "old": must be intermediate (TLS 1.2 and 1.3) or modern`,
		`redirect_port "70000": must be a port`,
		`hosts[2] "b@d": must be a host name`,
		`certificates[1].cert "` + old.Cert + `": must not have expired`,
		`certificates[2].cert "` + early.Cert + `": must be valid now`,
		`certificates[3].cert "` + weak.Cert + `": must have an RSA key of 2048 bits or more, not 1024`,
		`certificates[4].key "` + group.Key + `": must not be accessible to its group`,
		`certificates[5].key "` + world.Key + `": must not be accessible to others`,
		`certificates[6].cert "` + good.Cert + `": private key does not match public key`,
		`certificates[7].cert "` + missing.Cert + `": no such file or directory`,
		`certificates[7].key "` + missing.Key + `": no such file or directory`,
		`certificates[8].key "` + good.Cert + `": must hold a PEM private key`,
		`acme.agree_tos: must be true`,
		`acme.email "Ops <ops@example.com>": must be a plain mail address`,
		`acme.directory "http://ca.example": must be an https URL`,
		`acme.challenges[0] "dns-01": must be http-01 or tls-alpn-01`,
		`acme.challenges[1] "http-01": needs a listener for plain HTTP`,
		`acme.eab.hmac_key "env:MERLON_TEST_NO_SUCH": env:MERLON_TEST_NO_SUCH is empty or not set`,
		`acme.ca_file "` + good.Key + `": must hold PEM certificates`,
		`acme.domains[0] "*.example.com": must not be a wildcard`,
		`acme.domains[1] "elsewhere.example": must be the host of a site`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("not said: %s", want)
		}
	}
	if strings.Contains(got, "certificates[0]") {
		t.Error("the good pair was refused")
	}
	if t.Failed() {
		t.Log(got)
	}
}

func TestHostsWithoutCertificate(t *testing.T) {
	dir := t.TempDir()
	pair := made{names: []string{"shop.example.com", "*.example.org"}}.write(t, dir)
	for _, c := range []struct {
		name  string
		conf  certs.Config
		hosts []string
		want  string // part of the error; empty if there must be none
	}{
		{"all have one", certs.Config{Certificates: []certs.Pair{pair}}, []string{"shop.example.com", "a.example.org", "*.example.org", "*"}, ""},
		{"one has none", certs.Config{Certificates: []certs.Pair{pair}}, []string{"shop.example.com", "api.example.com"},
			`certificates "api.example.com": no certificate is for this host`},
		{"ACME gets what files lack", certs.Config{Certificates: []certs.Pair{pair}, ACME: &certs.ACME{AgreeTOS: true}},
			[]string{"shop.example.com", "api.example.com"}, ""},
		{"ACME cannot get a wildcard", certs.Config{ACME: &certs.ACME{AgreeTOS: true}}, []string{"*.example.com"},
			`acme.domains[0] "*.example.com": must not be a wildcard`},
		{"a public authority does not issue for localhost", certs.Config{ACME: &certs.ACME{AgreeTOS: true}}, []string{"localhost"},
			`acme.domains[0] "localhost": cannot have a public certificate`},
		{"every host is no domain", certs.Config{ACME: &certs.ACME{AgreeTOS: true}}, []string{"*"}, `acme.domains: must name the hosts`},
		{"domains leave one out", certs.Config{ACME: &certs.ACME{AgreeTOS: true, Domains: []string{"shop.example.com"}}},
			[]string{"shop.example.com", "api.example.com"}, `certificates "api.example.com": no certificate is for this host`},
	} {
		t.Run(c.name, func(t *testing.T) {
			data := filepath.Join(dir, "data")
			_, err := certs.New(c.conf, certs.Env{Data: data, Hosts: c.hosts})
			if got := mistakes(err); c.want == "" && err != nil || !strings.Contains(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if _, err := os.Stat(data); err == nil {
				t.Error("New wrote to the data folder")
			}
		})
	}
}

func TestCertificatesForMetrics(t *testing.T) {
	dir := t.TempDir()
	pair := made{names: []string{"shop.example.com"}, life: 30 * day}.write(t, dir)
	cs := newCerts(t, certs.Config{Certificates: []certs.Pair{pair}}, certs.Env{Hosts: []string{"shop.example.com"}})
	all := cs.Certificates()
	if len(all) != 1 || all[0].Source != certs.FromFile || all[0].Name != "shop.example.com" || all[0].Place != pair.Cert ||
		time.Until(all[0].NotAfter).Round(day) != 30*day || !slices.Equal(all[0].Hosts, []string{"shop.example.com"}) {
		t.Errorf("certificates %+v", all)
	}
	if cs.LocalCA() != nil {
		t.Error("a local CA beside files")
	}
}
