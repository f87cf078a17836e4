package gateway_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"html"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/password"
	"github.com/merlon-dev/merlon/internal/gateway"
	"github.com/merlon-dev/merlon/ledger"
)

const (
	annsPassword = "correct horse battery staple"
	bobsPassword = "tractor lamp meadow violin 7"
)

// cheap are password settings that cost little; the WAF is off where it is not
// the question, since its rules take time to compile.
const cheap = local + `
identity:
  password: {argon2: {memory: 12MiB, time: 3}, at_once: 2, queue: 500}
`

// A sent request is what reached the backend.
type sent struct {
	method, target string
	header         http.Header
	body           string
}

// A backend of a town remembers what reaches it, and keeps connections open.
type backend struct {
	*httptest.Server
	mu   sync.Mutex
	sent []sent
}

func openBackend(t testing.TB) *backend {
	t.Helper()
	b := &backend{}
	up := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}
	b.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		b.mu.Lock()
		b.sent = append(b.sent, sent{r.Method, r.URL.RequestURI(), r.Header.Clone(), string(body)})
		b.mu.Unlock()
		switch r.URL.Path {
		case "/ws":
			c, err := up.Upgrade(w, r, nil)
			if err != nil {
				return
			}
			defer c.Close()
			for {
				if _, _, err := c.ReadMessage(); err != nil {
					return
				}
			}
		case "/stream":
			w.Header().Set("Content-Type", "text/event-stream")
			for {
				if _, err := io.WriteString(w, "data: x\n\n"); err != nil {
					return
				}
				w.(http.Flusher).Flush()
				select {
				case <-r.Context().Done():
					return
				case <-time.After(50 * time.Millisecond):
				}
			}
		default:
			_, _ = fmt.Fprintf(w, "backend %s", r.Header.Get("Merlon-Subject"))
		}
	}))
	t.Cleanup(b.Close)
	return b
}

// all returns what has reached the backend.
func (b *backend) all() []sent {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.sent)
}

// last returns what reached it last.
func (b *backend) last(t testing.TB) sent {
	t.Helper()
	all := b.all()
	if len(all) == 0 {
		t.Fatal("nothing has reached the backend")
	}
	return all[len(all)-1]
}

// A town is a running server with people who can sign in.
type town struct {
	*gateway.Server
	t        testing.TB
	backend  *backend
	data     string
	insecure bool // browsers go to insecure_http, as a proxy in front would
}

// settle starts a server for a configuration in which BACKEND stands for a
// backend. Ann and Bob live there.
func settle(t *testing.T, text string) *town {
	t.Helper()
	b := openBackend(t)
	f := read(t, text, b.URL)
	w := &town{t: t, backend: b, data: f.Data, insecure: f.Listen.InsecureHTTP != ""}
	var err error
	if w.Server, err = gateway.NewServer(context.Background(), f, slog.New(slog.DiscardHandler), "test"); err != nil {
		t.Fatal(f.Explain(err))
	}
	t.Cleanup(func() {
		w.Gateway() // as it is at the end
		ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		defer cancel()
		_ = w.Shutdown(ctx) // what a test leaves open is cut off
	})
	for name, pass := range map[string]string{"ann": annsPassword, "bob": bobsPassword} {
		a := account.Account{ID: strings.ToUpper(name) + "-ID", Name: name, Password: hashed(t, pass), PasswordSince: time.Now(), Created: time.Now().Add(-time.Hour)}
		if name == "ann" {
			a.Roles, a.Groups = []string{"team"}, []string{"ops, and more", "staff"}
		}
		if err := w.Stores().Accounts.Create(context.Background(), a); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

var (
	hasherOnce sync.Once
	hasher     *password.Hasher
	hashes     sync.Map
)

// hashed hashes each password once.
func hashed(t testing.TB, pass string) string {
	t.Helper()
	hasherOnce.Do(func() {
		hasher, _ = password.New(password.Config{Argon2: password.Argon2{Memory: 12 << 20, Time: 3}})
	})
	if h, ok := hashes.Load(pass); ok {
		return h.(string)
	}
	h, err := hasher.Hash(context.Background(), pass)
	if err != nil {
		t.Fatal(err)
	}
	hashes.Store(pass, h)
	return h
}

// port is where browsers connect to.
func (w *town) port() string {
	name := "https"
	if w.insecure {
		name = "insecure_http"
	}
	_, port, _ := net.SplitHostPort(w.Addr(name))
	return port
}

// events returns the events with a name or reason, when there are some.
func (w *town) events(what string, some int) (found []ledger.Event) {
	w.t.Helper()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end) && len(found) < some; time.Sleep(10 * time.Millisecond) {
		found = nil
		for e, err := range ledger.Query(w.data, ledger.Filter{}) {
			if err != nil {
				w.t.Fatal(err)
			}
			if e.Name == what || string(e.Reason) == what {
				found = append(found, e)
			}
		}
	}
	return found
}

// A browser keeps cookies, follows no redirect and fills in forms.
type browser struct {
	t    testing.TB
	base string
	jar  http.CookieJar
	http *http.Client
	head http.Header // sent with every request
}

func (w *town) browser() *browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
	w.t.Cleanup(tr.CloseIdleConnections)
	b := &browser{t: w.t, base: "https://localhost:" + w.port(), jar: jar, head: http.Header{}, http: &http.Client{
		Jar: jar, Transport: tr, Timeout: 20 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	if w.insecure {
		// A proxy ends TLS and speaks plain HTTP to us; the jar must see https.
		b.base = "https://shop.example.com"
		addr := w.Addr("insecure_http")
		tr.ForceAttemptHTTP2 = false
		tr.DialTLSContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, addr)
		}
		b.head.Set("X-Forwarded-Proto", "https")
	}
	return b
}

// An answer is what a browser was answered.
type answer struct {
	b      *browser
	status int
	header http.Header
	body   string
}

// do sends a request as a person's browser would: a header of "" is left out.
func (b *browser) do(method, path, body string, head ...string) *answer {
	b.t.Helper()
	target := path
	if strings.HasPrefix(path, "/") {
		target = b.base + path
	}
	r, err := http.NewRequest(method, target, strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Origin", b.base)
	}
	for k, v := range map[string]string{"Accept": "text/html,*/*;q=0.8", "Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "navigate",
		"Sec-Fetch-Dest": "document", "User-Agent": "Mozilla/5.0 Firefox/140.0"} {
		r.Header.Set(k, v)
	}
	for k, v := range b.head {
		r.Header[k] = v
	}
	for i := 0; i+1 < len(head); i += 2 {
		r.Header.Set(head[i], head[i+1])
		if head[i+1] == "" {
			r.Header.Del(head[i])
		}
	}
	res, err := b.http.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return &answer{b, res.StatusCode, res.Header, string(got)}
}

func (b *browser) get(path string, head ...string) *answer {
	b.t.Helper()
	return b.do(http.MethodGet, path, "", head...)
}

// raw asks for a path that is written exactly so.
func (b *browser) raw(path string) *http.Response {
	b.t.Helper()
	u, err := url.Parse(b.base)
	if err != nil {
		b.t.Fatal(err)
	}
	conn, err := tls.Dial("tcp", "127.0.0.1:"+u.Port(), &tls.Config{InsecureSkipVerify: true, ServerName: u.Hostname()})
	if err != nil {
		b.t.Fatal(err)
	}
	defer conn.Close()
	_, _ = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nAccept: text/html\r\nConnection: close\r\n\r\n", path, u.Host)
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		b.t.Fatalf("%s: %v", path, err)
	}
	_ = res.Body.Close()
	return res
}

// program sends a request as a program would, with the browser's cookies.
func (b *browser) program(method, path string, head ...string) *answer {
	b.t.Helper()
	return b.do(method, path, "", append([]string{"Accept", "*/*", "Sec-Fetch-Site", "", "Sec-Fetch-Mode", "", "Sec-Fetch-Dest", "", "Origin", "",
		"User-Agent", "curl/8", "Content-Type", ""}, head...)...)
}

// want ends the test if the answer has another status, or not the texts in its
// body or its Location.
func (a *answer) want(status int, texts ...string) *answer {
	a.b.t.Helper()
	if a.status != status {
		a.b.t.Fatalf("status %d, want %d, Location %q\n%s", a.status, status, a.header.Get("Location"), a.body)
	}
	for _, text := range texts {
		if !strings.Contains(a.header.Get("Location")+"\n"+a.body, text) {
			a.b.t.Fatalf("%q is not in the answer, Location %q\n%s", text, a.header.Get("Location"), a.body)
		}
	}
	return a
}

// sentTo is a redirect by 303; it returns where to.
func (a *answer) sentTo(prefix string) string {
	a.b.t.Helper()
	to := a.header.Get("Location")
	if a.status != http.StatusSeeOther || !strings.HasPrefix(to, prefix) {
		a.b.t.Fatalf("%d to %q, want 303 to %s...\n%s", a.status, to, prefix, a.body)
	}
	return to
}

var (
	formTag  = regexp.MustCompile(`(?s)<form method="post" action="([^"]*)"[^>]*>(.*?)</form>`)
	inputTag = regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)"`)
)

// send fills in the form with an action and sends it.
func (a *answer) send(action string, fields ...string) *answer {
	a.b.t.Helper()
	for _, m := range formTag.FindAllStringSubmatch(a.body, -1) {
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
		return a.b.do(http.MethodPost, action, v.Encode())
	}
	a.b.t.Fatalf("there is no form for %s\n%d %s", action, a.status, a.body)
	return nil
}

var refresh = regexp.MustCompile(`http-equiv="refresh" content="0; ?url=([^"]*)"`)

// next is where the page after a log-in leads.
func (a *answer) next() string {
	a.b.t.Helper()
	m := refresh.FindStringSubmatch(a.want(http.StatusOK).body)
	if m == nil {
		a.b.t.Fatalf("the page leads nowhere\n%s", a.body)
	}
	return html.UnescapeString(m[1])
}

// signIn signs in at a log-in page and returns where it leads.
func (b *browser) signIn(at, name, pass string) string {
	b.t.Helper()
	return b.get(at).want(http.StatusOK).send("/.merlon/login", "name", name, "password", pass).next()
}

// in returns a browser in which ann or bob is signed in.
func (w *town) in(name string) *browser {
	w.t.Helper()
	b := w.browser()
	b.signIn("/.merlon/login", name, map[string]string{"ann": annsPassword, "bob": bobsPassword}[name])
	return b
}

// cookies returns the browser's cookies as it would send them.
func (b *browser) cookies() string {
	u, _ := url.Parse(b.base)
	var list []string
	for _, c := range b.jar.Cookies(u) {
		list = append(list, c.Name+"="+c.Value)
	}
	return strings.Join(list, "; ")
}
