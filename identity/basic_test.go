package identity_test

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity"
	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/merlontest"
)

// basicWorld is Basic over an htpasswd file or accounts.
func basicWorld(t testing.TB, c identity.Config) (*world, *identity.BasicProver) {
	t.Helper()
	w := newWorld(t, c)
	b, err := identity.NewBasic(c, w.env, nil)
	if err != nil {
		t.Fatal(err)
	}
	b.SetClock(w.now)
	return w, b
}

func basicRequest(t testing.TB, credentials string) *merlon.Request {
	t.Helper()
	return field(t, "Basic "+base64.StdEncoding.EncodeToString([]byte(credentials)))
}

func field(t testing.TB, value string) *merlon.Request {
	t.Helper()
	r := merlontest.Request(t, "GET /")
	r.Header.Set("Authorization", value)
	r.TLS = &tls.ConnectionState{}
	r.Site = "shop.example.com"
	return r
}

func reasonOf(err error) merlon.Reason {
	if e, ok := err.(interface{ Reason() merlon.Reason }); ok {
		return e.Reason()
	}
	return ""
}

func statusOf(err error) int {
	if e, ok := err.(interface{ Status() int }); ok {
		return e.Status()
	}
	return 0
}

func TestBasicAccounts(t *testing.T) {
	w, b := basicWorld(t, identity.Config{
		Basic: &identity.Basic{}, MFA: identity.MFA{Required: []string{"team"}},
		Login: []identity.Rule{{Users: []string{"ann", "zoe", "gone", "tom", "old"}}, {Users: []string{"bob"}, From: []string{"10.8.0.0/16"}}},
	})
	w.ann()
	w.add(account.Account{Name: "bob"})
	w.add(account.Account{Name: "zoe", ID: "ZOE-ID"})
	w.add(account.Account{Name: "gone", Disabled: true})
	w.add(account.Account{Name: "tom", Roles: []string{"team"}})
	w.add(account.Account{Name: "old", MustChange: true})
	if err := w.store.AddFactor(ctx, account.Factor{ID: "t.1", Account: "ZOE-ID", Kind: account.TOTP, Created: time.Now()}); err != nil {
		t.Fatal(err)
	}
	id, err := b.Prove(basicRequest(t, "ann:"+annsPassword))
	if err != nil || id.Subject != "ANN-ID" || !slices.Equal(id.Methods, []string{"basic"}) || !id.When.IsZero() {
		t.Errorf("%+v, %v", id, err)
	}
	for _, row := range []struct {
		credentials string
		why         merlon.Reason
	}{
		{"ann:wrong", identity.WrongPassword},
		{"nobody:" + annsPassword, identity.NoAccount},
		{"bob:" + annsPassword, identity.NotAllowedHere},
		{"gone:" + annsPassword, identity.AccountDisabled},
		{"zoe:" + annsPassword, identity.BasicNotEnough}, // trap 47
		{"tom:" + annsPassword, identity.BasicNotEnough}, // trap 47
		{"old:" + annsPassword, identity.BasicNotEnough},
	} {
		r := basicRequest(t, row.credentials)
		r.Client = netip.MustParseAddr("198.51.100." + fmt.Sprint(len(row.credentials)))
		if id, err := b.Prove(r); id != nil || reasonOf(err) != row.why || statusOf(err) != 401 {
			t.Errorf("%s: %+v, %v", row.credentials, id, err)
		}
	}
	// trap 45: what is remembered of one address lets nobody in from another.
	for client, in := range map[string]bool{"10.8.0.1": true, "198.51.100.99": false} {
		r := basicRequest(t, "bob:"+annsPassword)
		for range 2 {
			r.Client = netip.MustParseAddr("10.8.0.1")
			if _, err := b.Prove(r); err != nil {
				t.Fatal(err)
			}
		}
		r.Client = netip.MustParseAddr(client)
		if _, err := b.Prove(r); (err == nil) != in {
			t.Errorf("bob from %s: %v", client, err)
		}
	}
	// trap 51: browsers are answered with a realm of the configuration's words.
	g, err := identity.New(identity.Config{Basic: &identity.Basic{Ask: true}}, b)
	if err != nil {
		t.Fatal(err)
	}
	r := basicRequest(t, "ann:wrong")
	r.Host = "evil.example"
	if d := g.Check(r); d.Code() != 401 || d.Header.Get("WWW-Authenticate") != `Basic realm="shop.example.com", charset="UTF-8"` {
		t.Errorf("%+v", d)
	}
	if c := g.Challenges(r); len(c) != 1 || !strings.HasPrefix(c[0], "Basic ") {
		t.Errorf("%v", c)
	}
}

// trap 51, what a field may hold.
func TestBasicForms(t *testing.T) {
	hash := func(pass string) string {
		h, _ := hasher(t)
		s, err := h.Hash(ctx, pass)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	path := filepath.Join(t.TempDir(), "htpasswd")
	lines := "# scripts\nann:" + hash("pass:word:") + "\nmüller:" + hash("grün") + "\nempty:" + hash("") + "\n"
	if err := os.WriteFile(path, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	w, b := basicWorld(t, identity.Config{Basic: &identity.Basic{Htpasswd: path, Realm: "The archive", Groups: []string{"scripts"}, Roles: []string{"reader"}}})
	enc := base64.StdEncoding.EncodeToString
	for i, row := range []struct {
		name, field string
		ok          bool
		why         merlon.Reason
	}{
		{"a colon in the password", "Basic " + enc([]byte("ann:pass:word:")), true, ""},
		{"a colon ends the name", "Basic " + enc([]byte("an:n:pass:word:")), false, identity.NoAccount},
		{"lower case scheme", "basic " + enc([]byte("ann:pass:word:")), true, ""},
		{"UTF-8", "Basic " + enc([]byte("müller:grün")), true, ""},
		{"Latin-1", "Basic " + enc([]byte("m\xfcller:gr\xfcn")), true, ""},
		{"an empty password", "Basic " + enc([]byte("empty:")), true, ""},
		{"no name", "Basic " + enc([]byte(":x")), false, identity.BasicMalformed},
		{"no colon", "Basic " + enc([]byte("ann")), false, identity.BasicMalformed},
		{"no base64", "Basic !!!", false, identity.BasicMalformed},
		{"base64 with more behind it", "Basic " + enc([]byte("ann:pass:word:")) + " x", false, identity.BasicMalformed},
		{"nothing", "Basic", false, identity.BasicMalformed},
		{"20 kB", "Basic " + enc([]byte("ann:"+strings.Repeat("x", 15_000))), false, identity.BasicMalformed},
		{"control characters", "Basic " + enc([]byte("ann:x\x00y")), false, identity.BasicMalformed},
	} {
		r := field(t, row.field)
		r.Client = netip.AddrFrom4([4]byte{198, 51, 100, byte(i)})
		id, err := b.Prove(r)
		if (err == nil) != row.ok || reasonOf(err) != row.why || err != nil && statusOf(err) != 401 {
			t.Errorf("%s: %+v, %v", row.name, id, err)
		}
		if id != nil && (!slices.Equal(id.Roles, []string{"reader"}) || !strings.HasPrefix(id.Subject, "htpasswd:")) {
			t.Errorf("%s: %+v", row.name, id)
		}
	}
	r := field(t, "Basic "+enc([]byte("ann:pass:word:")))
	r.Header.Add("Authorization", "Bearer x")
	if _, err := b.Prove(r); reasonOf(err) != identity.BasicMalformed {
		t.Errorf("two fields: %v", err)
	}
	r = field(t, "Bearer x")
	if _, err := b.Prove(r); !errors.Is(err, merlon.ErrNoProof) {
		t.Errorf("another scheme: %v", err)
	}
	// trap 51: over http, also with the right password.
	r = field(t, "Basic "+enc([]byte("ann:pass:word:")))
	r.TLS = nil
	if _, err := b.Prove(r); reasonOf(err) != identity.BasicInClear || statusOf(err) != 403 {
		t.Errorf("in clear: %v", err)
	}
	g, err := identity.New(w.config, b)
	if err != nil {
		t.Fatal(err)
	}
	if d := g.Check(r); d.Header.Get("WWW-Authenticate") != "" {
		t.Errorf("a client in clear is asked for more: %v", d.Header)
	}
	proxied, err := identity.NewBasic(w.config, w.env, func(*merlon.Request) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := proxied.Prove(r); err != nil {
		t.Errorf("behind a trusted TLS terminator: %v", err)
	}
}

// Verified once a minute, dropped when the password changes, and a browser's
// connections at once are one try.
func TestBasicIsRemembered(t *testing.T) {
	w, b := basicWorld(t, identity.Config{Basic: &identity.Basic{}})
	w.ann()
	var wg sync.WaitGroup
	for range 30 {
		wg.Go(func() {
			if _, err := b.Prove(basicRequest(t, "ann:"+annsPassword)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	begin := time.Now()
	for range 100 {
		if _, err := b.Prove(basicRequest(t, "ann:"+annsPassword)); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(begin); took > time.Second {
		t.Errorf("100 requests took %v: is each hashed?", took)
	}
	h, err := w.env.Hasher.Hash(ctx, newPassword)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.Update(ctx, "ANN-ID", func(a *account.Account) error { a.Password = h; return nil }); err != nil {
		t.Fatal(err)
	}
	w.later(time.Second)
	if _, err := b.Prove(basicRequest(t, "ann:"+annsPassword)); reasonOf(err) != identity.WrongPassword {
		t.Errorf("a second after the change: %v", err)
	}
	if _, err := b.Prove(basicRequest(t, "ann:"+newPassword)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.Update(ctx, "ANN-ID", func(a *account.Account) error { a.Disabled = true; return nil }); err != nil {
		t.Fatal(err)
	}
	w.later(time.Second)
	if _, err := b.Prove(basicRequest(t, "ann:"+newPassword)); reasonOf(err) != identity.AccountDisabled {
		t.Errorf("a second after it was disabled: %v", err)
	}
}

// F17 for Basic.
func TestBasicIsThrottled(t *testing.T) {
	w, b := basicWorld(t, identity.Config{Basic: &identity.Basic{}})
	w.ann()
	var last error
	for i := range 9 {
		_, last = b.Prove(basicRequest(t, fmt.Sprintf("ann:wrong%d", i)))
	}
	if reasonOf(last) != identity.TooManyTries || statusOf(last) != 429 {
		t.Errorf("%v", last)
	}
	// trap 41: it tells nobody whose address it is, or who is in a file.
	if _, err := b.Prove(basicRequest(t, "ann@example.com:wrong")); reasonOf(err) != identity.WrongPassword {
		t.Errorf("the address of who has to wait: %v", err)
	}
	// A program that was there before is not kept out by what others try.
	w, b = basicWorld(t, identity.Config{Basic: &identity.Basic{}})
	w.ann()
	at := func(client, credentials string) error {
		r := basicRequest(t, credentials)
		r.Client = netip.MustParseAddr(client)
		_, err := b.Prove(r)
		return err
	}
	if err := at("192.0.2.1", "ann:"+annsPassword); err != nil {
		t.Fatal(err)
	}
	w.later(2 * time.Minute) // it is not remembered any more
	for i := range 20 {
		_ = at(fmt.Sprintf("100.64.%d.1", i), fmt.Sprint("ann:guess", i))
	}
	if err := at("192.0.2.9", "ann:"+annsPassword); reasonOf(err) != identity.TooManyTries {
		t.Errorf("from a new place: %v", err)
	}
	if err := at("192.0.2.1", "ann:"+annsPassword); err != nil {
		t.Errorf("from where it was proved before: %v", err)
	}
}

func TestHtpasswd(t *testing.T) {
	_, good := hasher(t)
	bcrypt := "$2y$10$LMdg.wk8Q0bI8GJ9pXQ1K.Dn3C9kxIvr5wxB0FTUJJ9Twd9oxGMkK"
	_, err := identity.ParseHtpasswd([]byte(strings.Join([]string{
		"ann:" + good, "", "# comment", "bob:" + bcrypt, "md5:$apr1$abc$def", "sha:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "crypt:rqXexS6ZhobKA",
		"plain:secret", "sha512:$6$salt$hash", "nocolon", ":" + good, "ann:" + good, "old:$2y$99$xx", "md:$1$x$y",
	}, "\n")))
	for _, line := range []string{"line 5: has an MD5", "line 6: has a SHA-1", "line 7: ", "line 8: ", "line 9: ", "line 10: ", "line 11: ", "line 12: names a user a second", "line 13: ", "line 14: has an MD5"} {
		if err == nil || !strings.Contains(err.Error(), line) {
			t.Errorf("%v does not tell %q", err, line)
		}
	}
	if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "line 1:") || strings.Contains(err.Error(), "line 4:") {
		t.Error(err)
	}
	path := filepath.Join(t.TempDir(), "htpasswd")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("ann:$apr1$abc$def\n")
	w := newWorld(t, identity.Config{})
	c := identity.Config{Basic: &identity.Basic{Htpasswd: path}}
	if _, err := identity.NewBasic(c, w.env, nil); err == nil || !strings.Contains(err.Error(), "basic.htpasswd") || !strings.Contains(err.Error(), "line 1") {
		t.Errorf("%v", err)
	}
	write("ann:" + good + "\n")
	b, err := identity.NewBasic(c, w.env, nil)
	if err != nil {
		t.Fatal(err)
	}
	b.SetClock(w.now)
	in := func(name string) bool {
		w.later(2 * time.Second)
		r := basicRequest(t, name+":"+annsPassword)
		_, err := b.Prove(r)
		return err == nil
	}
	if !in("ann") || in("eve") {
		t.Error("the file is not read")
	}
	write("ann:" + good + "\neve:" + good + "\n")
	if !in("eve") {
		t.Error("the file is not read again")
	}
	write("ann:" + good + "\neve:" + good + "\nmallory:plain text\n")
	if !in("eve") || !w.event(identity.NotDone, "") {
		t.Error("a file that cannot be used ends what was good, or nobody is told")
	}
	write("ann:" + good + "\n# and no eve any more\n")
	if in("eve") {
		t.Error("a user who was removed is remembered")
	}
}

// trap 41: names of a file are counted as others are, however they are written.
func TestWaitingTellsNobodyWhoIsInAFile(t *testing.T) {
	_, good := hasher(t)
	path := filepath.Join(t.TempDir(), "htpasswd")
	if err := os.WriteFile(path, []byte("Ann:"+good+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, identity.Config{})
	b, err := identity.NewBasic(identity.Config{Basic: &identity.Basic{Htpasswd: path}}, w.env, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"Ann", "Bob"} { // only one of them is there
		var last error
		for n := range 9 {
			r := basicRequest(t, fmt.Sprintf("%s:wrong%d", name, n))
			r.Client = netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})
			_, last = b.Prove(r)
		}
		r := basicRequest(t, strings.ToUpper(name)+":wrong")
		r.Client = netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})
		if _, err := b.Prove(r); reasonOf(last) != identity.TooManyTries || reasonOf(err) != identity.TooManyTries {
			t.Errorf("%s: %v, then %v", name, last, err)
		}
	}
}

func certificate(t testing.TB, change func(*x509.Certificate)) *merlon.Request {
	t.Helper()
	uri, err := url.Parse("spiffe://example.com/job")
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		Subject: pkix.Name{CommonName: "ann"}, Issuer: pkix.Name{CommonName: "Staff CA"}, RawIssuer: []byte("Staff CA"),
		EmailAddresses: []string{"Ann@example.com"}, URIs: []*url.URL{uri}, DNSNames: []string{"host.example.com"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	if change != nil {
		change(c)
	}
	r := merlontest.Request(t, "GET /")
	r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{c}, VerifiedChains: [][]*x509.Certificate{{c}}}
	return r
}

func TestCertificates(t *testing.T) {
	w := newWorld(t, identity.Config{})
	w.add(account.Account{ID: "ANN-ID", Name: "ann@example.com", Roles: []string{"team"}})
	w.add(account.Account{Name: "gone", Disabled: true})
	prover := func(c identity.Certificates) *identity.CertificateProver {
		p, err := identity.NewCertificates(identity.Config{Certificates: &c}, w.store)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	for name, c := range map[string]identity.Certificates{
		"ann": {Name: "cn"}, "Ann@example.com": {}, "spiffe://example.com/job": {Name: "uri"}, "host.example.com": {Name: "dns"},
	} {
		c.Groups, c.Issuers = []string{"staff"}, []string{"Other CA", "Staff CA"}
		id, err := prover(c).Prove(certificate(t, nil))
		if err != nil || id.Name != name || !slices.Equal(id.Groups, []string{"staff"}) || !slices.Equal(id.Methods, []string{"certificate"}) {
			t.Errorf("%s: %+v, %v", name, id, err)
		}
	}
	id, err := prover(identity.Certificates{Accounts: true}).Prove(certificate(t, nil))
	if err != nil || id.Subject != "ANN-ID" || !slices.Equal(id.Roles, []string{"team"}) {
		t.Errorf("%+v, %v", id, err)
	}
	a, _ := prover(identity.Certificates{}).Prove(certificate(t, nil))
	b, _ := prover(identity.Certificates{}).Prove(certificate(t, func(c *x509.Certificate) { c.NotAfter = c.NotAfter.Add(time.Hour) }))
	other, _ := prover(identity.Certificates{}).Prove(certificate(t, func(c *x509.Certificate) { c.RawIssuer = []byte("Other CA") }))
	if a.Subject != b.Subject || a.Subject == other.Subject {
		t.Errorf("subjects %s, %s, %s", a.Subject, b.Subject, other.Subject)
	}
	for name, row := range map[string]struct {
		c      identity.Certificates
		change func(*x509.Certificate)
		why    merlon.Reason
	}{
		"expired while the connection was open": {identity.Certificates{}, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) }, identity.CertificateRefused},
		"no name":                               {identity.Certificates{}, func(c *x509.Certificate) { c.EmailAddresses = nil }, identity.CertificateRefused},
		"two names":                             {identity.Certificates{}, func(c *x509.Certificate) { c.EmailAddresses = []string{"a@x.example", "b@x.example"} }, identity.CertificateRefused},
		"a name with NUL":                       {identity.Certificates{Name: "cn"}, func(c *x509.Certificate) { c.Subject.CommonName = "ann\x00x" }, identity.CertificateRefused},
		"another issuer":                        {identity.Certificates{Issuers: []string{"Other CA"}}, nil, identity.CertificateRefused},
		"no account":                            {identity.Certificates{Accounts: true, Name: "cn"}, nil, identity.NoAccount},
		"a disabled account":                    {identity.Certificates{Accounts: true, Name: "cn"}, func(c *x509.Certificate) { c.Subject.CommonName = "gone" }, identity.AccountDisabled},
		"no log-in name":                        {identity.Certificates{Accounts: true, Name: "cn"}, func(c *x509.Certificate) { c.Subject.CommonName = "a b" }, identity.CertificateRefused},
	} {
		if id, err := prover(row.c).Prove(certificate(t, row.change)); id != nil || reasonOf(err) != row.why || statusOf(err) != 403 {
			t.Errorf("%s: %+v, %v", name, id, err)
		}
	}
	unverified := certificate(t, nil)
	unverified.TLS.VerifiedChains = nil
	clear := merlontest.Request(t, "GET /")
	for name, r := range map[string]*merlon.Request{"not verified": unverified, "no TLS": clear} {
		if _, err := prover(identity.Certificates{}).Prove(r); !errors.Is(err, merlon.ErrNoProof) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, c := range []identity.Certificates{{Name: "serial"}, {Issuers: []string{}}, {Accounts: true, Roles: []string{"x"}}} {
		if _, err := identity.NewCertificates(identity.Config{Certificates: &c}, w.store); err == nil {
			t.Errorf("%+v was accepted", c)
		}
	}
}
