package gateway_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
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
	"github.com/merlon-dev/merlon/test/harness"
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
	Header         http.Header
	Body           string
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
		case "/plant":
			for _, c := range r.URL.Query()["set"] {
				w.Header().Add("Set-Cookie", c)
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

func (w *town) browser() *harness.Person {
	w.t.Helper()
	b := harness.NewPerson(w.t, "https://localhost:"+w.port())
	if w.insecure {
		b.BehindProxy("https://shop.example.com", w.Addr("insecure_http"))
	}
	return b
}

// raw asks for a path that is written exactly so.
func raw(t testing.TB, b *harness.Person, path string) *http.Response {
	t.Helper()
	u, err := url.Parse(b.Base)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := tls.Dial("tcp", "127.0.0.1:"+u.Port(), &tls.Config{InsecureSkipVerify: true, ServerName: u.Hostname()})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nAccept: text/html\r\nConnection: close\r\n\r\n", path, u.Host)
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	_ = res.Body.Close()
	return res
}

// in returns a browser in which ann or bob is signed in.
func (w *town) in(name string) *harness.Person {
	w.t.Helper()
	b := w.browser()
	b.SignIn("/.merlon/login", name, map[string]string{"ann": annsPassword, "bob": bobsPassword}[name])
	return b
}
