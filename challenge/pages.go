package challenge

import (
	"bytes"
	"crypto/rand"
	"embed"
	"encoding/base64"
	"errors"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/count"
	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/internal/webpage"
	"github.com/merlon-dev/merlon/secrets"
)

// Prefix is where the pages are on every site: this path, and all below it.
const Prefix = "/.merlon/challenge"

const (
	waitPath = Prefix + "/wait"
	donePath = Prefix + "/done"
)

// ours reports whether a path is one of the pages.
func ours(path string) bool {
	rest, ok := strings.CutPrefix(path, Prefix)
	return ok && (rest == "" || rest[0] == '/')
}

// pagePath returns where what d asks for is proved. A browser that changes it
// gets a pass that is not good enough.
func pagePath(d demand) string {
	return Prefix + "?bits=" + strconv.Itoa(d.bits) + "&wait=" + strconv.Itoa(int(d.wait/time.Second))
}

func withReturn(page, to string) string { return page + "&to=" + url.QueryEscape(to) }

// demandOf reads what pagePath has written.
func demandOf(q url.Values) demand {
	d := demand{bits: defaultBits, wait: defaultWait}
	if n, err := strconv.Atoi(q.Get("bits")); err == nil && n >= minBits && n <= maxBits {
		d.bits = n
	}
	if n, err := strconv.Atoi(q.Get("wait")); err == nil && n >= int(minWait/time.Second) && n <= int(maxWait/time.Second) {
		d.wait = time.Duration(n) * time.Second
	}
	return d
}

// PagesEnv is what [Pages] needs from outside.
type PagesEnv struct {
	Key   secrets.Key
	Count count.Store // bounds how many passes a client gets for waiting
	Brand string      // shown above the page; the host if empty
}

//go:embed pages/challenge.html
var pageFile string

//go:embed static
var staticFiles embed.FS

var files = [...]struct{ word, name, media string }{
	{"CSS", "challenge.css", "text/css; charset=utf-8"},
	{"JS", "challenge.js", "text/javascript; charset=utf-8"},
	{"Worker", "worker.js", "text/javascript; charset=utf-8"},
}

// Pages serves the page on which browsers prove themselves, on all sites. It
// keeps nothing: a token that was solved can be sent again for five minutes, by
// the same client to the same site, and gives the same pass, which runs out at
// the same time. Requests must be known to [merlon.From], with client and site.
type Pages struct {
	tokens, passes *sealer
	count          count.Store
	brand          string
	texts          *texts
	files          [len(files)]*webpage.File
}

// NewPages returns Pages.
func NewPages(env PagesEnv) (*Pages, error) {
	if env.Key == (secrets.Key{}) || env.Count == nil {
		return nil, errors.New("the challenge's pages need a key and something to count in")
	}
	p := &Pages{
		tokens: newSealer(env.Key, tokenPurpose), passes: newSealer(env.Key, passPurpose),
		count: env.Count, brand: env.Brand,
	}
	paths := map[string]string{}
	for i, f := range files {
		b, err := staticFiles.ReadFile("static/" + f.name)
		if err != nil {
			return nil, err
		}
		p.files[i] = webpage.NewFile(Prefix+"/"+f.name, b, f.media)
		paths[f.word] = p.files[i].Path
	}
	var err error
	p.texts, err = loadTexts(pageFile, paths)
	return p, err
}

// A visit is one request for a page.
type visit struct {
	*merlon.Request
	w      http.ResponseWriter
	p      *Pages
	text   catalogue
	client netip.Addr
	ask    demand
	to     string // where to go then: a path of this site
}

// ServeHTTP answers everything below [Prefix].
func (p *Pages) ServeHTTP(w http.ResponseWriter, hr *http.Request) {
	r := merlon.From(hr)
	if r == nil || !r.Client.IsValid() {
		http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
		return
	}
	q := hr.URL.Query()
	v := &visit{Request: r, w: w, p: p, client: merlon.Subscriber(r.Client), ask: demandOf(q), to: account.SafeReturn(q.Get("to"))}
	v.text = p.texts.choose(hr.Header.Get("Accept-Language"))
	reads := hr.Method == http.MethodGet || hr.Method == http.MethodHead
	switch {
	case hr.URL.Path == Prefix && reads:
		v.show(page{auto: true})
	case hr.URL.Path == Prefix && hr.Method == http.MethodPost:
		v.answered()
	case !reads:
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, http.StatusText(http.StatusMethodNotAllowed), http.StatusMethodNotAllowed)
	case hr.URL.Path == waitPath:
		v.waited(q.Get("token"))
	case hr.URL.Path == donePath:
		v.done()
	default:
		v.asset()
	}
}

const maxForm = 8 << 10 // a path to return to has 2 KiB at most, which is three times that when escaped

// form returns what a page of ours has sent; nil if that was something else.
func (v *visit) form() url.Values {
	media, _, merr := mime.ParseMediaType(v.Header.Get("Content-Type"))
	body, whole, berr := v.Peek(maxForm)
	f, ferr := url.ParseQuery(string(body))
	if errors.Join(merr, berr, ferr) != nil || !whole || media != "application/x-www-form-urlencoded" {
		return nil
	}
	for _, values := range f {
		if len(values) > 1 {
			return nil
		}
	}
	return f
}

// answered takes the work that a browser has done.
func (v *visit) answered() {
	f := v.form()
	if f == nil {
		v.show(page{status: http.StatusBadRequest, fail: "fail.form", stuck: true})
		return
	}
	v.to = account.SafeReturn(f.Get("to"))
	token := f.Get("token")
	c, ok := v.token(token)
	switch {
	case !ok:
		v.show(page{status: http.StatusForbidden, fail: "fail.expired", auto: true})
	case !solves(token, f.Get("nonce"), int(c.bits)):
		// A browser that calculates wrongly does not do so in a loop.
		v.show(page{status: http.StatusForbidden, fail: "fail.wrong"})
	default:
		c.kind = kindWorked
		v.grant(c)
	}
}

// token returns the claim of a token that was made for this client and site,
// and not long ago.
func (v *visit) token(text string) (claim, bool) {
	c, ok := v.p.tokens.open(text, v.Site, v.client)
	age := v.Received.Sub(c.issued())
	return c, ok && c.kind == kindToken && age < tokenLife && age > -skew
}

// Passes for waiting cost nothing but time, so a client gets few of them, and
// all of an IPv6 /48, which a rented server may have, some more.
const (
	waitEvery = 10 * time.Minute
	waitBurst = 6
	waitSites = 6 // times as many for a /48
)

// few takes one of the passes that are given for waiting.
func (v *visit) few() (count.Result, error) {
	key := func(who string) count.Key {
		return make(count.Key, 0, 128).With("challenge-wait").With(v.Site).With(who)
	}
	asks := []count.Ask{{Key: key(v.client.String()), Quota: count.Quota{Every: waitEvery, Burst: waitBurst}, Cost: 1}}
	if v.client.Is6() {
		wide := netip.PrefixFrom(v.client, 48).Masked()
		asks = append(asks, count.Ask{Key: key(wide.String()), Quota: count.Quota{Every: waitEvery / waitSites, Burst: waitBurst * waitSites}, Cost: 1})
	}
	res := make([]count.Result, len(asks))
	if err := v.p.count.Take(v.Context(), asks, res, v.Received); err != nil {
		return count.Result{}, err
	}
	for _, r := range res {
		if !r.OK {
			return r, nil
		}
	}
	return res[0], nil
}

// waited takes it that a browser has waited.
func (v *visit) waited(token string) {
	c, ok := v.token(token)
	if !ok {
		v.show(page{status: http.StatusForbidden, fail: "fail.expired", auto: true})
		return
	}
	wait := time.Duration(c.wait) * time.Second
	if rest := wait - v.Received.Sub(c.issued()); rest > 0 {
		v.show(page{status: http.StatusForbidden, fail: "fail.early", auto: true, token: token, claim: c, rest: rest})
		return
	}
	res, err := v.few()
	if err != nil {
		v.w.Header().Set("Retry-After", "10")
		v.show(page{status: http.StatusServiceUnavailable, fail: "fail.busy", stuck: true})
		return
	}
	if !res.OK {
		v.w.Header().Set("Retry-After", strconv.Itoa(int(res.Retry/time.Second)+1))
		v.show(page{status: http.StatusTooManyRequests, fail: "fail.often", stuck: true, arg: int(res.Retry/time.Minute) + 1})
		return
	}
	c.kind, c.bits = kindWaited, 0
	v.grant(c)
}

// grant gives the browser its pass.
func (v *visit) grant(c claim) {
	http.SetCookie(v.w, passCookie(v.p.passes.seal(c, v.Site, v.client)))
	webpage.Secure(v.w.Header())
	v.w.Header().Set("Location", withReturn(donePath+"?"+strings.TrimPrefix(pagePath(v.ask), Prefix+"?"), v.to))
	v.w.WriteHeader(http.StatusSeeOther)
}

// done sends the browser on, if it has kept its pass; otherwise it would be
// sent in a circle. It is a page and not a redirect, since what follows, such as
// a log-in elsewhere, must not be held against this page's form-action.
func (v *visit) done() {
	if from := v.Header.Get("Sec-Fetch-Site"); from == "cross-site" || from == "same-site" {
		// Only our own page leads here. Another site's link must not become one
		// of this site's, with the cookies that SameSite=Strict holds back.
		webpage.Secure(v.w.Header())
		v.w.Header().Set("Location", v.to)
		v.w.WriteHeader(http.StatusSeeOther)
		return
	}
	if _, found := passText(v.Header); found == 0 {
		v.show(page{status: http.StatusForbidden, fail: "fail.cookies", stuck: true})
		return
	}
	v.show(page{next: v.to})
}

// A page is what is to be shown.
type page struct {
	status int    // 200 if 0
	fail   string // what went wrong
	arg    int    // in it
	stuck  bool   // nothing goes on by itself
	auto   bool   // the work begins by itself
	next   string // where to go at once; empty: first the work
	token  string // to go on with this one
	claim  claim
	rest   time.Duration // of its wait
}

// A view is what the template is given.
type view struct {
	Brand, Title, Fail, Nonce    string
	Page, To, Token, Next, Again string
	Bits, Rest                   int
	Auto                         bool
}

// view makes the page's view.
func (v *visit) view(pg page) view {
	var n [16]byte
	_, _ = rand.Read(n[:])
	d := view{
		Brand: v.p.brand, Nonce: base64.RawURLEncoding.EncodeToString(n[:]),
		Page: pagePath(v.ask), To: v.to, Next: pg.next, Auto: pg.auto, Again: withReturn(pagePath(v.ask), v.to),
	}
	if d.Brand == "" {
		d.Brand = v.Host
		if host, _, err := net.SplitHostPort(v.Host); err == nil {
			d.Brand = host
		}
	}
	if pg.fail != "" {
		d.Fail = v.text.get(pg.fail, pg.arg)
	}
	switch {
	case pg.stuck:
		d.Title = v.text.get("stuck.title", 0)
	case pg.next != "":
		d.Title = v.text.get("done.title", 0)
	default:
		d.Title = v.text.get("title", 0)
	}
	if pg.stuck || pg.next != "" {
		return d
	}
	if pg.token == "" {
		pg.claim, pg.rest = newToken(v.ask.bits, v.ask.wait, v.Received), v.ask.wait
		pg.token = v.p.tokens.seal(pg.claim, v.Site, v.client)
	}
	d.Token, d.Bits = pg.token, int(pg.claim.bits)
	d.Rest = int(pg.rest/time.Second) + 1 // the token's time is in whole seconds
	d.Next = withReturn(waitPath+"?"+strings.TrimPrefix(pagePath(v.ask), Prefix+"?")+"&token="+pg.token, v.to)
	return d
}

// show writes a page.
func (v *visit) show(pg page) {
	d := v.view(pg)
	var b bytes.Buffer
	if err := v.text.page.Execute(&b, d); err != nil {
		http.Error(v.w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
		return
	}
	h := v.w.Header()
	webpage.Secure(h)
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Language", v.text.tag.String())
	// As in the portal, nothing is loaded by place but the worker, which cannot
	// carry a nonce: the backend's files are at this origin as well.
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'nonce-"+d.Nonce+"'; style-src 'nonce-"+d.Nonce+
		"'; worker-src 'self'; img-src data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'")
	h.Add("Vary", "Accept-Language")
	h.Set("Content-Length", strconv.Itoa(b.Len()))
	if pg.status == 0 {
		pg.status = http.StatusOK
	}
	v.w.WriteHeader(pg.status)
	if v.Method != http.MethodHead {
		_, _ = v.w.Write(b.Bytes()) // the browser may be gone
	}
}

// asset serves a file of the page.
func (v *visit) asset() {
	for _, f := range v.p.files {
		if f.Path == v.URL.Path {
			f.ServeHTTP(v.w, v.Request.Request)
			return
		}
	}
	v.show(page{status: http.StatusNotFound, fail: "fail.form", stuck: true})
}
