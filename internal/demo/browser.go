package demo

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"sync/atomic"
)

// A browser sends what a person's browser would, with cookies of its own, and
// remembers how the requests of the shot in hand were answered.
type browser struct {
	ctx    context.Context
	http   http.Client
	base   *url.URL
	status int    // of the first answer that refused or sent to sign in, else of the last answer
	id     string // what the first answer that refused or sent to sign in gave as its id
	later  bool   // whether that refusal said that there is too much to do now
	err    error  // the first request that got no answer

	client    *http.Client  // as it was given
	people    *People       // who has an account at a log-in in front of the shop
	addresses *atomic.Int64 // how many others' browsers there were
	door      *bool         // whether there is such a log-in; nil before that was looked at
	owner     *browser      // of whom the attack was aimed at, for the twin
	keeper    *Person       // likewise
}

// A page is an answer, as far as the attacks look at it.
type page struct {
	status int
	body   string
	header http.Header
}

const userAgent = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"

// newBrowser uses client's transport with an empty cookie jar, and follows no
// redirects: every effect is looked at on its own page.
func newBrowser(ctx context.Context, client *http.Client, base string) (*browser, error) {
	u, err := url.Parse(strings.TrimSuffix(base, "/"))
	if err != nil {
		return nil, err
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, err
	}
	b := &browser{ctx: ctx, http: *client, base: u, client: client, addresses: &addresses}
	b.http.Jar = jar
	b.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return b, nil
}

// addresses counts over the whole program, so that no attack suffers from what
// another did.
var addresses atomic.Int64

// begin forgets how earlier requests were answered.
func (b *browser) begin() { b.status, b.id, b.later, b.err = 0, "", false, nil }

// evil is the page that forged requests come from.
const evil = "https://evil.example"

// from says which page made the browser send a request.
type from int

const (
	ownPage from = iota
	evilPage
	program // no page at all, as curl
)

func (b *browser) get(path string) page { return b.send(http.MethodGet, path, ownPage, "", "") }

func (b *browser) form(path string, f from, fields ...string) page {
	v := url.Values{}
	for i := 0; i+1 < len(fields); i += 2 {
		v.Set(fields[i], fields[i+1])
	}
	return b.send(http.MethodPost, path, f, "application/x-www-form-urlencoded", v.Encode())
}

func (b *browser) json(path, field, value string) page {
	body, err := json.Marshal(map[string]string{field: value})
	if err != nil {
		panic(err) // two strings are always JSON
	}
	return b.send(http.MethodPost, path, program, "application/json", string(body))
}

func (b *browser) send(method, path string, f from, kind, body string) page {
	r, err := http.NewRequestWithContext(b.ctx, method, b.base.String()+path, strings.NewReader(body))
	if err != nil {
		return b.failed(err)
	}
	if kind != "" {
		r.Header.Set("Content-Type", kind)
	}
	b.dress(r, f)
	return b.do(r)
}

// ask sends a request as a program would, with a few fields of its own.
func (b *browser) ask(method, path string, head http.Header) page {
	r, err := http.NewRequestWithContext(b.ctx, method, b.base.String()+path, nil)
	if err != nil {
		return b.failed(err)
	}
	b.dress(r, program)
	for name, values := range head {
		r.Header[name] = values
	}
	return b.do(r)
}

func (b *browser) do(r *http.Request) page {
	res, err := b.http.Do(r)
	if err != nil {
		return b.failed(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return b.failed(err)
	}
	p := page{status: res.StatusCode, body: string(text), header: res.Header}
	b.note(p)
	return p
}

// dress sets the header fields that tell the sending page.
func (b *browser) dress(r *http.Request, f from) {
	h := r.Header
	if f == program {
		h.Set("User-Agent", "curl/8.14.1")
		h.Set("Accept", "*/*")
		return
	}
	h.Set("User-Agent", userAgent)
	h.Set("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")
	h.Set("Accept-Language", "en-GB,en;q=0.9")
	h.Set("Sec-Fetch-Mode", "navigate")
	h.Set("Sec-Fetch-Dest", "document")
	h.Set("Sec-Fetch-User", "?1")
	origin, site := b.base.Scheme+"://"+b.base.Host, "same-origin"
	if f == evilPage {
		origin, site = evil, "cross-site"
	}
	h.Set("Sec-Fetch-Site", site)
	h.Set("Referer", origin+"/")
	if r.Method != http.MethodGet {
		h.Set("Origin", origin)
	}
}

func (b *browser) failed(err error) page {
	if b.err == nil {
		b.err = err
	}
	return page{}
}

func (b *browser) note(p page) {
	if b.status >= 400 || b.id != "" {
		return
	}
	b.status = p.status
	if p.status < 400 && !p.challenged() {
		return
	}
	b.later = p.status == http.StatusServiceUnavailable && strings.Contains(p.body, "#temporary-reduced-capacity")
	b.id = p.header.Get("X-Request-Id")
	if b.id == "" && strings.HasPrefix(p.header.Get("Content-Type"), "application/problem+json") {
		var problem struct {
			ID string `json:"id"`
		}
		if json.Unmarshal([]byte(p.body), &problem) == nil {
			b.id = problem.ID
		}
	}
}

// join opens a fresh account and stays logged in.
func (b *browser) join() (name string) {
	name = "guest-" + strings.ToLower(rand.Text()[:10])
	b.form("/register", ownPage, "username", name, "password", rand.Text())
	return name
}

var balancePattern = regexp.MustCompile(`<data id="balance" value="(\d+)">`)

// loggedInAs tells from the account page who is logged in; empty if nobody.
func (p page) loggedInAs() string {
	_, rest, _ := strings.Cut(p.body, `<strong id="me">`)
	name, _, ok := strings.Cut(rest, "</strong>")
	if !ok {
		return ""
	}
	return name
}

// balance reads the account page's balance; empty if it shows none.
func (p page) balance() string {
	m := balancePattern.FindStringSubmatch(p.body)
	if m == nil {
		return ""
	}
	var c cents
	if _, err := fmt.Sscan(m[1], &c); err != nil {
		return ""
	}
	return c.String()
}
