package portal_test

import (
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity"
	"github.com/merlon-dev/merlon/identity/provider"
	"github.com/merlon-dev/merlon/internal/portal"
)

func TestOnlyOurOwnFormsAreTaken(t *testing.T) {
	w := newWorld(t, identity.Config{}, portal.Config{})
	w.ann()
	good := func(b *browser) url.Values {
		v := b.get("/.merlon/login").form("/.merlon/login")
		v.Set("name", "ann")
		v.Set("password", annsPassword)
		return v
	}
	t.Run("another site's page", func(t *testing.T) {
		b := w.browser()
		for _, head := range [][]string{
			{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Origin", "https://evil.example"}, {"Origin", "null"},
			{"Origin", "http://localhost"}, {"Sec-Fetch-Site", "none"}, {"Sec-Fetch-Site", "", "Origin", "https://evil.example"},
		} {
			b.do(http.MethodPost, "/.merlon/login", good(b), head...).want(http.StatusForbidden, "came from another place")
		}
		b.do(http.MethodPost, "/.merlon/login", good(b), "Sec-Fetch-Site", "", "Sec-Fetch-Mode", "", "Sec-Fetch-Dest", "").want(http.StatusOK) // an old browser
	})
	t.Run("trap 35: login CSRF: a stranger's token and cookie", func(t *testing.T) {
		stranger, victim := w.browser(), w.browser()
		victim.do(http.MethodPost, "/.merlon/login", good(stranger)).want(http.StatusForbidden)
		victim.get("/.merlon/login")
		victim.do(http.MethodPost, "/.merlon/login", good(stranger)).want(http.StatusForbidden)
		v := good(victim)
		v.Del("csrf")
		victim.do(http.MethodPost, "/.merlon/login", v).want(http.StatusForbidden)
		v.Set("csrf", strings.Repeat("A", 64))
		victim.do(http.MethodPost, "/.merlon/login", v).want(http.StatusForbidden)
		victim.do(http.MethodPost, "/.merlon/login", good(victim), "Cookie", "__Host-merlon-form="+strings.Repeat("A", 43)).want(http.StatusForbidden)
	})
	t.Run("a token of before the log-in", func(t *testing.T) {
		b := w.browser()
		old := good(b)
		b.do(http.MethodPost, "/.merlon/login", old).want(http.StatusOK)
		b.do(http.MethodPost, "/.merlon/account/codes", old).want(http.StatusForbidden)
		b.do(http.MethodPost, "/.merlon/logout", old).want(http.StatusForbidden) // logout CSRF
	})
	t.Run("a form that is none", func(t *testing.T) {
		b := w.browser()
		v := good(b)
		v.Add("name", "bob")
		b.do(http.MethodPost, "/.merlon/login", v).want(http.StatusForbidden)
		b.do(http.MethodPost, "/.merlon/login", good(b), "Content-Type", "text/plain").want(http.StatusForbidden)
		b.do(http.MethodPost, "/.merlon/login", good(b), "Content-Type", "application/json").want(http.StatusForbidden)
		v = good(b)
		v.Set("password", strings.Repeat("x", 70<<10))
		b.do(http.MethodPost, "/.merlon/login", v).want(http.StatusForbidden) // trap 43
	})
	t.Run("a token differs on every page", func(t *testing.T) {
		b := w.browser()
		first, second := good(b).Get("csrf"), good(b).Get("csrf")
		if first == second {
			t.Error("BREACH: the token is the same")
		}
	})
}

func TestPagesAreForPeopleWhoOpenThem(t *testing.T) {
	w := newWorld(t, identity.Config{}, portal.Config{})
	w.ann()
	b := w.in()
	b.get("/.merlon/account", "Sec-Fetch-Mode", "cors", "Sec-Fetch-Dest", "empty").want(http.StatusForbidden)
	b.get("/.merlon/account", "Sec-Fetch-Dest", "iframe").want(http.StatusForbidden)
	b.do(http.MethodPut, "/.merlon/account", nil).want(http.StatusMethodNotAllowed)
	b.do(http.MethodPost, "/.merlon/account", url.Values{}).want(http.StatusMethodNotAllowed)
	b.get("/.merlon/account/codes").want(http.StatusMethodNotAllowed)
	for _, path := range []string{"/.merlon/nothing", "/.merlon/login/", "/.merlon/static/", "/.merlon/static/x.css", "/.merlon/oidc/begin/", "/.merlon/oidc/begin/corp", "/.merlon/oidc/callback/corp", "/.merlon/jwks.json", "/.merlon/account/x", "/.merlon/static/a/b.css"} {
		b.get(path).want(http.StatusNotFound)
	}
}

var assets = regexp.MustCompile(`(?:href|src)="(/\.merlon/static/[^"]+)"`)

func TestEveryAnswerIsHeldTight(t *testing.T) {
	logo := filepath.Join(t.TempDir(), "logo.png")
	if err := os.WriteFile(logo, []byte("\x89PNG\r\n\x1a\n and so on"), 0o600); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, identity.Config{Register: "open", RegisterDomains: []string{"*"}}, portal.Config{Brand: portal.Brand{Logo: logo, Color: "#0b6e4f"}})
	w.ann()
	b := w.browser()
	in := w.in()
	nonces := map[string]bool{}
	for _, pg := range []*shown{
		b.get("/.merlon/login"), b.get("/.merlon/recover"), b.get("/.merlon/register"), b.get("/.merlon/nothing"),
		b.get("/.merlon/recover/link?token=x"), b.signIn("ann", "wrong"), in.get("/.merlon/account"), in.get("/.merlon/prove"),
		in.get("/.merlon/logout"), b.get("/.merlon/account"),
	} {
		h := pg.header
		csp := h.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action"} {
			if !strings.Contains(csp, want) {
				t.Errorf("the policy lacks %s: %s", want, csp)
			}
		}
		if strings.Contains(csp, "unsafe") || h.Get("Cache-Control") != "no-store" || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("X-Frame-Options") != "DENY" {
			t.Errorf("%d: %v", pg.status, h)
		}
		if pg.body == "" {
			continue
		}
		if !strings.Contains(csp, "require-trusted-types-for 'script'") || regexp.MustCompile(` on[a-z]+=| style=|javascript:`).MatchString(pg.body) {
			t.Errorf("%s", pg.body)
		}
		nonce := regexp.MustCompile(`'nonce-([^']+)'`).FindStringSubmatch(csp)[1]
		if nonces[nonce] || strings.Count(pg.body, nonce) != 2 {
			t.Errorf("trap 37: the nonce %s is used again, or for something else", nonce)
		}
		nonces[nonce] = true
		for _, m := range regexp.MustCompile(`(?:href|src)="([^"]*)"`).FindAllStringSubmatch(pg.body, -1) {
			if !strings.HasPrefix(m[1], "/") && !strings.HasPrefix(m[1], "#") && !strings.HasPrefix(m[1], "data:") {
				t.Errorf("a page refers to elsewhere: %s", m[1])
			}
		}
	}
	found := assets.FindAllStringSubmatch(b.get("/.merlon/login").body, -1)
	if len(found) != 3 {
		t.Fatalf("assets: %v", found)
	}
	for _, m := range found {
		pg := b.get(m[1], "Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "style").want(http.StatusOK)
		if c := pg.header.Get("Cache-Control"); !strings.Contains(c, "immutable") || pg.header.Get("Set-Cookie") != "" {
			t.Errorf("%s: %q", m[1], c)
		}
	}
	for _, c := range b.http.Jar.Cookies(mustParse(t, w.server.URL)) {
		if !strings.HasPrefix(c.Name, "__Host-") {
			t.Errorf("cookie %s can be planted", c.Name)
		}
	}
}

func mustParse(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestBrand(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	for _, c := range []struct {
		brand portal.Brand
		want  string
	}{
		{portal.Brand{Color: "#ffe000"}, `brand.color "#ffe000": must be darker`},
		{portal.Brand{Color: "#777777"}, "must be darker"}, // 4.48 on white
		{portal.Brand{Color: "red"}, "must be written"},
		{portal.Brand{Color: "#12345g"}, "must be written"},
		{portal.Brand{Color: "#12345"}, "must be written"},
		{portal.Brand{Color: "#fff;}x{"}, "must be written"},
		{portal.Brand{Name: "a\nb"}, "brand.name"},
		{portal.Brand{Name: strings.Repeat("x", 61)}, "brand.name"},
		{portal.Brand{Logo: file("a.svg", `<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>`)}, "SVG"},
		{portal.Brand{Logo: file("b.png", `<svg/>`)}, "brand.logo"},
		{portal.Brand{Logo: file("c.png", "\x89PNG\r\n\x1a\n"+strings.Repeat("x", 300<<10))}, "256 KiB"},
		{portal.Brand{Logo: dir}, "must be a file"},
		{portal.Brand{Logo: dir + "/none"}, "no such file"},
	} {
		_, err := portal.New(portal.Config{Brand: c.brand}, portal.Env{Key: masterKey(t)})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v does not say %q", c.brand, err, c.want)
		}
	}
	for _, color := range []string{"", "#000000", "#767676", "#0000ff", "#0b6e4f", "#800000", "#333333"} {
		if _, err := portal.New(portal.Config{Brand: portal.Brand{Color: color}}, portal.Env{Key: masterKey(t)}); err != nil {
			t.Errorf("%s: %v", color, err)
		}
	}
}

// WCAG 2.2 AA: text 4.5, the edges of inputs 3, on light pages and dark ones,
// with any brand's color that is accepted.
func TestEverythingCanBeRead(t *testing.T) {
	if c, err := portal.Contrast("#000000", "#ffffff"); err != nil || c < 20.9 || c > 21.1 {
		t.Fatalf("black on white is %v, %v", c, err)
	}
	if c, _ := portal.Contrast("#777777", "#ffffff"); c < 4.47 || c > 4.49 {
		t.Fatalf("#777 on white is %v", c)
	}
	variable := regexp.MustCompile(`--([a-z-]+): (#[0-9a-f]{6})`)
	for _, color := range []string{"", "#000000", "#767676", "#0000ff", "#0b6e4f", "#800000", "#c0004e", "#008000"} {
		p, err := portal.New(portal.Config{Brand: portal.Brand{Color: color}}, portal.Env{Key: masterKey(t)})
		if err != nil {
			t.Fatal(err)
		}
		light, dark, _ := strings.Cut(p.Style(), "@media (prefers-color-scheme: dark)")
		for scheme, css := range map[string]string{"light": light, "dark": dark} {
			v := map[string]string{}
			for _, m := range variable.FindAllStringSubmatch(css, -1) {
				if v[m[1]] == "" {
					v[m[1]] = m[2]
				}
			}
			for _, c := range []struct {
				front, back string
				least       float64
			}{
				{"ink", "card", 4.5}, {"ink", "ground", 4.5}, {"soft", "card", 4.5}, {"soft", "ground", 4.5}, {"brand", "card", 4.5},
				{"on-brand", "brand", 4.5}, {"bad", "card", 4.5}, {"bad", "bad-ground", 4.5}, {"good", "good-ground", 4.5}, {"edge", "card", 3},
			} {
				got, err := portal.Contrast(v[c.front], v[c.back])
				if err != nil || got < c.least {
					t.Errorf("%q, %s: %s %s on %s %s is %.2f, %v", color, scheme, c.front, v[c.front], c.back, v[c.back], got, err)
				}
			}
		}
	}
}

// What an application is allowed, a person says on a page that they see: a
// script of the site does not get the form that says it for them.
func TestScriptsDoNotReadWhatApplicationsAreAllowedBy(t *testing.T) {
	w := newWorld(t, identity.Config{}, portal.Config{})
	w.ann()
	ask := provider.Ask{Client: "The wiki", Host: "wiki.example", Scopes: []string{"openid"}, Action: provider.Authorize, Ticket: "TICKET"}
	w.more = func(rw http.ResponseWriter, r *merlon.Request) bool {
		switch r.URL.Path {
		case provider.Authorize:
			w.portal.Pages().Consent(rw, r.Request, ask)
		case provider.EndSession:
			w.portal.Pages().ConfirmLogOut(rw, r.Request, ask)
		default:
			return false
		}
		return true
	}
	b := w.in()
	for _, path := range []string{provider.Authorize, provider.EndSession} {
		b.get(path).want(http.StatusOK, "TICKET")
		b.get(path, "Sec-Fetch-Mode", "", "Sec-Fetch-Dest", "").want(http.StatusOK, "TICKET") // an old browser
		for _, head := range [][]string{{"Sec-Fetch-Mode", "cors", "Sec-Fetch-Dest", "empty"}, {"Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "iframe"}} {
			if got := b.get(path, head...).want(http.StatusForbidden); strings.Contains(got.body, "TICKET") {
				t.Errorf("%s by %v is given the form", path, head)
			}
		}
	}
}
