package people_test

import (
	"encoding/pem"
	"html"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/internal/store"
	"github.com/merlon-dev/merlon/test/harness"
)

// A chain is a wiki whose people sign in at the shop's Merlon, whose people
// sign in at corp's.
type chain struct {
	corp, shop *place
	told       chan string // log-out tokens that reach the wiki
}

const corpConfig = `off: [waf]
identity:
  server:
    issuer: https://localhost:CORP
    clients:
      - id: shop
        secret: file:SECRET
        consent: false
        redirect: ["https://localhost:SHOP/.merlon/oidc/callback/corp"]
        logout: ["https://localhost:SHOP/.merlon/logout"]
        backchannel_logout: https://localhost:SHOP/.merlon/oidc/logout/corp
`

const shopConfig = `off: [waf]
identity:
  providers: [{name: corp, label: Corp, issuer: "https://localhost:CORP", client_id: shop, client_secret: "file:SECRET", ca: CA, create: true}]
  server:
    issuer: https://localhost:SHOP
    clients: [{id: wiki, public: true, consent: false, redirect: ["https://wiki.example.com/back"], scopes: [openid, offline_access], backchannel_logout: "WIKI/out"}]
`

func newChain(t *testing.T) *chain {
	t.Helper()
	c := &chain{told: make(chan string, 10)}
	wiki := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		c.told <- r.URL.Path + " " + r.PostFormValue("logout_token")
	}))
	t.Cleanup(wiki.Close)
	dir := t.TempDir()
	secret, roots := filepath.Join(dir, "secret"), filepath.Join(dir, "roots.pem")
	write(t, secret, "a-secret-of-32-characters-or-more")
	corp, shop := harness.FreeAddr(t), harness.FreeAddr(t)
	ports := []string{"SECRET", secret, "WIKI", wiki.URL}
	for name, addr := range map[string]string{"CORP": corp, "SHOP": shop} {
		_, port, err := net.SplitHostPort(addr)
		if err != nil {
			t.Fatal(err)
		}
		ports = append(ports, name, port)
	}
	// Either process reads its authorities when it first asks somebody.
	env := []string{"SSL_CERT_FILE=" + roots}
	data := t.TempDir()
	seed(t, store.Config{Dir: data}, people(t)...)
	c.corp = serve(t, data, strings.NewReplacer(ports...).Replace(corpConfig)+cheap+requireLogin, env, corp)
	ca := filepath.Join(c.corp.Data, "ca", "root.crt")
	c.shop = serve(t, t.TempDir(), strings.NewReplacer(append(ports, "CA", ca)...).Replace(shopConfig)+cheap+requireLogin, env, shop)
	root, err := os.ReadFile(filepath.Join(c.shop.Data, "ca", "root.crt"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, roots, string(root)+string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: wiki.Certificate().Raw})))
	return c
}

// in signs ann in at the shop by corp. She has a browser for each, since
// cookies do not tell the ports of one host apart.
func (c *chain) in() (atShop, atCorp *harness.Person) {
	c.shop.t.Helper()
	atShop, atCorp = c.shop.person(), c.corp.in("ann", annsPassword)
	to := atShop.Get("/.merlon/oidc/begin/corp").SentTo(c.corp.base() + "/")
	back := atCorp.Get(to, "Sec-Fetch-Site", "cross-site").SentTo(c.shop.base() + "/.merlon/oidc/callback/corp?")
	atShop.Get(back, "Sec-Fetch-Site", "cross-site").Next()
	atShop.Get("/").Want(200)
	return atShop, atCorp
}

// heard fails if the wiki is not told that a session is over.
func (c *chain) heard() {
	c.shop.t.Helper()
	select {
	case got := <-c.told:
		if !strings.HasPrefix(got, "/out eyJ") {
			c.shop.t.Errorf("the wiki was told %q", got)
		}
	case <-time.After(10 * time.Second):
		c.shop.t.Fatal("the wiki was not told")
	}
}

var alsoThere = regexp.MustCompile(`href="([^"]+)" referrerpolicy="no-referrer">Also sign out at Corp<`)

// Log-outs go through to the last application, from whichever end they come.
func TestLogOutsGoThroughAChain(t *testing.T) {
	t.Parallel()
	c := newChain(t)

	// From above: corp tells the shop, the shop the wiki.
	atShop, atCorp := c.in()
	token := c.shop.refreshToken(atShop, "openid")
	began := time.Now()
	atCorp.Get("/.merlon/logout").Send("/.merlon/logout").Want(200, "You are signed out")
	c.heard()
	within(t, "the session at the shop", began, func() bool { return atShop.Get("/").Status == 303 })
	c.shop.tokens(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}}, 400)

	// From below: the shop tells the wiki, and offers to end it at corp, too.
	atShop, atCorp = c.in()
	token = c.shop.refreshToken(atShop, "openid")
	page := atShop.Get("/.merlon/logout").Send("/.merlon/logout").Want(200, "You are signed out")
	c.heard()
	c.shop.tokens(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}}, 400)
	there := alsoThere.FindStringSubmatch(page.Body)
	if there == nil {
		t.Fatal(page.Body)
	}
	atCorp.Get("/").Want(200)
	back := atCorp.Get(html.UnescapeString(there[1]), "Sec-Fetch-Site", "cross-site").SentTo(c.shop.base() + "/.merlon/logout")
	atCorp.Get("/").Want(303)
	atShop.Get(back, "Sec-Fetch-Site", "cross-site").Want(200, "You are signed out")

	// Everywhere: offline access ends as well.
	atShop, _ = c.in()
	offline := c.shop.refreshToken(atShop, "openid offline_access")
	atShop.Get("/.merlon/logout").Send("/.merlon/logout", "everywhere", "yes").Want(200)
	c.heard()
	c.shop.tokens(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {offline}}, 400)
	if len(c.told) > 0 {
		t.Errorf("the wiki was told %d times too often", len(c.told))
	}
}
