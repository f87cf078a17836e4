package oidc_test

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/identity/oidc"
	"github.com/merlon-dev/merlon/secrets"
)

// TestCertifiedProvider signs somebody in at a provider made of oidc-provider,
// a certified one, twice, and out again. It needs node, and
// MERLON_NODE_MODULES, a folder where "npm install oidc-provider" was done.
func TestCertifiedProvider(t *testing.T) {
	modules := os.Getenv("MERLON_NODE_MODULES")
	if modules == "" {
		t.Skip("set MERLON_NODE_MODULES to a folder where npm install oidc-provider was done")
	}
	for _, par := range []string{"no par", "par"} {
		t.Run(par, func(t *testing.T) { certified(t, modules, par) })
	}
}

func certified(t *testing.T, modules, par string) {
	dir, cert := certificate(t)
	var rp *oidc.RelyingParty
	told := make(chan oidc.Logout, 4)
	back := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		out, err := rp.VerifyLogoutToken(r.Context(), "corp", r.PostFormValue("logout_token"))
		if err != nil {
			t.Error(err)
		}
		told <- out
	}))
	back.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	back.StartTLS()
	defer back.Close()

	cmd := exec.CommandContext(t.Context(), "node", "testdata/provider.mjs", modules, dir, "https://"+host+oidc.CallbackPath("corp"), "https://"+host+"/bye", back.URL+oidc.LogoutPath("corp"), par)
	cmd.Env = append(os.Environ(), "NODE_EXTRA_CA_CERTS="+dir+"/cert.pem")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	if !lines.Scan() {
		t.Fatal("the provider does not start")
	}
	rp = party(t, oidc.Provider{
		Name: "corp", Issuer: lines.Text(), ClientID: clientID, ClientSecret: secrets.Ref("file:" + file(t, "s", secret)), CA: dir + "/cert.pem",
		Domains: []string{"corp.example"}, Groups: map[string]string{"eng": "dev"}, Scopes: []string{"openid", "email", "profile", "groups"},
	})
	browse := browser(t, dir)
	var last oidc.Proof
	for _, s := range []oidc.Start{{}, {Fresh: true}} {
		s.Host, s.ReturnTo = host, "/x?y=z"
		to, err := rp.Begin(t.Context(), "corp", s)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(to.URL, "request_uri=") != (par == "par") {
			t.Error(to.URL)
		}
		last, err = rp.Callback(t.Context(), oidc.Answer{Provider: "corp", Host: host, Query: browse(to.URL).Query(), Cookie: to.Cookie})
		if err != nil {
			t.Fatal(err)
		}
		if last.Subject != "ann" || last.Name != "ann" || !last.Authoritative || !slices.Equal(last.Groups, []string{"dev"}) || s.Fresh && time.Since(last.AuthTime) > time.Minute {
			t.Errorf("%+v", last)
		}
	}
	out, err := rp.EndSessionURL(t.Context(), "corp", last.IDToken, host, "/bye")
	if err != nil {
		t.Fatal(err)
	}
	if u := browse(out); u.Path != "/bye" {
		t.Error(u)
	}
	select {
	case out := <-told:
		if out.Subject != "ann" || out.SID == "" {
			t.Errorf("%+v", out)
		}
	case <-time.After(5 * time.Second):
		t.Error("not told of the log-out")
	}
}

// certificate makes one for loopback, also as files.
func certificate(t *testing.T) (dir string, cert tls.Certificate) {
	t.Helper()
	k, err := ecdsa.GenerateKey(ellipticP256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	certPEM, keyPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), []byte(pkcs8(t, k))
	dir = t.TempDir()
	for name, text := range map[string][]byte{"cert.pem": certPEM, "key.pem": keyPEM} {
		if err := os.WriteFile(dir+"/"+name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cert, err = tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	return dir, cert
}

var (
	formAction  = regexp.MustCompile(`action="([^"]+)"`)
	hiddenInput = regexp.MustCompile(`<input type="hidden" name="([^"]+)" value="([^"]*)"`)
)

// browser returns what follows an address and answers the provider's pages
// until it is sent back to our host.
func browser(t *testing.T, dir string) func(string) *url.URL {
	t.Helper()
	text, err := os.ReadFile(dir + "/cert.pem")
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &http.Client{Jar: jar, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	c.CheckRedirect = func(req *http.Request, _ []*http.Request) error {
		if req.URL.Host == host {
			return http.ErrUseLastResponse
		}
		return nil
	}
	return func(to string) *url.URL {
		t.Helper()
		res, err := c.Get(to)
		for range 6 {
			if err != nil {
				t.Fatal(err)
			}
			page, err2 := io.ReadAll(res.Body)
			_ = res.Body.Close()
			if u, err := res.Location(); err == nil {
				return u
			}
			m := formAction.FindSubmatch(page)
			if m == nil || err2 != nil {
				t.Fatalf("%s: %s, %v", res.Status, page, err2)
			}
			form := url.Values{"login": {"ann"}, "password": {"x"}, "logout": {"yes"}}
			for _, h := range hiddenInput.FindAllSubmatch(page, -1) {
				form.Set(string(h[1]), string(h[2]))
			}
			u, err3 := res.Request.URL.Parse(string(m[1]))
			if err3 != nil {
				t.Fatal(err3)
			}
			res, err = c.PostForm(u.String(), form)
		}
		t.Fatal(fmt.Sprint("still not back: ", to))
		return nil
	}
}
