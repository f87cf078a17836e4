package harness

import (
	"context"
	"crypto/tls"
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"
)

// A Person has a browser without scripts: it keeps cookies, follows no
// redirect, and fills in the forms that it is shown.
type Person struct {
	Base string // put before paths: "https://localhost:8443"
	HTTP *http.Client
	Head http.Header // sent with every request
	t    testing.TB
}

// A Page is what a person was answered.
type Page struct {
	Status int
	Header http.Header
	Body   string
	p      *Person
}

// NewPerson returns a person who believes any certificate.
func NewPerson(t testing.TB, base string) *Person {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &Person{Base: base, Head: http.Header{}, t: t, HTTP: &http.Client{
		Jar: jar, Transport: tr, Timeout: 30 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// BehindProxy makes the person's requests come to addr in clear text, as from
// a proxy that has ended TLS for base and says so.
func (p *Person) BehindProxy(base, addr string) {
	p.Base = base
	tr := p.HTTP.Transport.(*http.Transport)
	tr.ForceAttemptHTTP2 = false
	tr.DialTLSContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
	p.Head.Set("X-Forwarded-Proto", "https")
}

// Request returns a request as a browser makes it for a page or its form. Of
// the fields, given as names and values, those with an empty value are left
// out.
func (p *Person) Request(method, path, body string, fields ...string) *http.Request {
	p.t.Helper()
	target := path
	if strings.HasPrefix(path, "/") {
		target = p.Base + path
	}
	r, err := http.NewRequestWithContext(context.Background(), method, target, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Origin", p.Base)
	}
	for k, v := range map[string]string{"Accept": "text/html,*/*;q=0.8", "Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "navigate",
		"Sec-Fetch-Dest": "document", "User-Agent": "Mozilla/5.0 Firefox/140.0"} {
		r.Header.Set(k, v)
	}
	for k, v := range p.Head {
		r.Header[k] = v
	}
	for i := 0; i+1 < len(fields); i += 2 {
		r.Header.Set(fields[i], fields[i+1])
		if fields[i+1] == "" {
			r.Header.Del(fields[i])
		}
	}
	return r
}

// Ask sends a request and returns the answer; it may be called from several
// goroutines.
func (p *Person) Ask(r *http.Request) (*Page, error) {
	res, err := p.HTTP.Do(r)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", r.Method, r.URL, err)
	}
	return &Page{res.StatusCode, res.Header, string(body), p}, nil
}

// Do is Request and Ask.
func (p *Person) Do(method, path, body string, fields ...string) *Page {
	p.t.Helper()
	page, err := p.Ask(p.Request(method, path, body, fields...))
	if err != nil {
		p.t.Fatal(err)
	}
	return page
}

// Get opens a page.
func (p *Person) Get(path string, fields ...string) *Page {
	p.t.Helper()
	return p.Do(http.MethodGet, path, "", fields...)
}

// Program sends a request as a program does, with the person's cookies.
func (p *Person) Program(method, path string, fields ...string) *Page {
	p.t.Helper()
	return p.Do(method, path, "", append([]string{"Accept", "*/*", "Sec-Fetch-Site", "", "Sec-Fetch-Mode", "", "Sec-Fetch-Dest", "", "Origin", "",
		"User-Agent", "curl/8", "Content-Type", ""}, fields...)...)
}

// Cookies are the person's cookies as the browser sends them.
func (p *Person) Cookies() string {
	u, err := url.Parse(p.Base)
	if err != nil {
		p.t.Fatal(err)
	}
	var list []string
	for _, c := range p.HTTP.Jar.Cookies(u) {
		list = append(list, c.Name+"="+c.Value)
	}
	return strings.Join(list, "; ")
}

// SignIn signs in at a log-in page and returns where it leads.
func (p *Person) SignIn(at, name, pass string) string {
	p.t.Helper()
	return p.Get(at).Want(http.StatusOK).Send("/.merlon/login", "name", name, "password", pass).Next()
}

// Want ends the test if the page has another status, or not the texts in its
// body or its Location.
func (g *Page) Want(status int, texts ...string) *Page {
	g.p.t.Helper()
	if g.Status != status {
		g.p.t.Fatalf("status %d, want %d, Location %q\n%s", g.Status, status, g.Header.Get("Location"), g.Body)
	}
	for _, text := range texts {
		if !strings.Contains(g.Header.Get("Location")+"\n"+g.Body, text) {
			g.p.t.Fatalf("%q is not in the answer, Location %q\n%s", text, g.Header.Get("Location"), g.Body)
		}
	}
	return g
}

// SentTo returns where a redirect by 303 leads, which must begin with prefix.
func (g *Page) SentTo(prefix string) string {
	g.p.t.Helper()
	to := g.Header.Get("Location")
	if g.Status != http.StatusSeeOther || !strings.HasPrefix(to, prefix) {
		g.p.t.Fatalf("%d to %q, want 303 to %s...\n%s", g.Status, to, prefix, g.Body)
	}
	return to
}

var (
	formTag  = regexp.MustCompile(`(?s)<form method="post" action="([^"]*)"[^>]*>(.*?)</form>`)
	inputTag = regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)"`)
	refresh  = regexp.MustCompile(`http-equiv="refresh" content="0; ?url=([^"]*)"`)
)

// Form returns the request that the form with an action makes, filled in.
func (g *Page) Form(action string, fields ...string) *http.Request {
	g.p.t.Helper()
	for _, m := range formTag.FindAllStringSubmatch(g.Body, -1) {
		if html.UnescapeString(m[1]) != action {
			continue
		}
		v := url.Values{}
		for _, in := range inputTag.FindAllStringSubmatch(m[2], -1) {
			v.Set(in[1], html.UnescapeString(in[2]))
		}
		for i := 0; i+1 < len(fields); i += 2 {
			v.Set(fields[i], fields[i+1])
		}
		return g.p.Request(http.MethodPost, action, v.Encode())
	}
	g.p.t.Fatalf("there is no form for %s\n%d %s %s", action, g.Status, g.Header.Get("Location"), g.Body)
	return nil
}

// Send fills in the form with an action and sends it.
func (g *Page) Send(action string, fields ...string) *Page {
	g.p.t.Helper()
	page, err := g.p.Ask(g.Form(action, fields...))
	if err != nil {
		g.p.t.Fatal(err)
	}
	return page
}

// SignedIn returns where the page after a log-in leads; empty if it is another.
func (g *Page) SignedIn() string {
	m := refresh.FindStringSubmatch(g.Body)
	if g.Status != http.StatusOK || m == nil {
		return ""
	}
	return html.UnescapeString(m[1])
}

// Next is SignedIn, and ends the test if the page is another.
func (g *Page) Next() string {
	g.p.t.Helper()
	to := g.SignedIn()
	if to == "" {
		g.p.t.Fatalf("nobody is signed in: %d %s\n%s", g.Status, g.Header.Get("Location"), g.Body)
	}
	return to
}
