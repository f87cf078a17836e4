package identitytest_test

import (
	"flag"
	"fmt"
	"html"
	"io"
	"mime/quotedprintable"
	"net/http"
	"net/http/httptest"
	"net/mail"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/test/harness"
	identitytest "github.com/merlon-dev/merlon/test/identity"
)

func TestMain(m *testing.M) {
	flag.Parse()
	defer harness.Cleanup()
	m.Run()
}

const (
	password = "correct horse battery staple 9"
	another  = "tractor lamp meadow violin 7"
)

// A shop is a backend that knows nothing of signing in: Merlon tells it who
// somebody is.
type shop struct {
	*httptest.Server
	mu   sync.Mutex
	paid []string
}

func newShop(t *testing.T) *shop {
	t.Helper()
	s := &shop{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.URL.Path == "/pay" && r.Method == http.MethodPost {
			s.mu.Lock()
			s.paid = append(s.paid, r.URL.RawQuery+" "+string(body))
			s.mu.Unlock()
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = fmt.Fprintf(w, "<!doctype html><title>shop</title><p id=path>%s<p id=who>%s<form method=post action='/pay?x=1'><input name=note value='5 &amp; 6'><button id=pay>pay</button></form><p id=body>%s",
			html.EscapeString(r.URL.Path), html.EscapeString(r.Header.Get("Merlon-Name")+r.Header.Get("Merlon-Subject")), html.EscapeString(string(body)))
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *shop) payments() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.paid)
}

// link waits for a letter that was written after the others and leads to a page.
func link(t *testing.T, folder, page string, seen map[string]bool) string {
	t.Helper()
	pattern := regexp.MustCompile(`https://\S+/\.merlon/` + page + `\?token=\S+`)
	for range 100 {
		names, err := filepath.Glob(filepath.Join(folder, "*.eml"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range slices.Backward(names) {
			if seen[name] {
				continue
			}
			if found := pattern.FindString(text(t, name)); found != "" {
				seen[name] = true
				return found
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("no letter leads to %s", page)
	return ""
}

// text reads a letter as people do.
func text(t *testing.T, name string) string {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	m, err := mail.ReadMessage(f)
	if err != nil {
		return "" // not written to its end
	}
	b, err := io.ReadAll(decode(m))
	if err != nil {
		return ""
	}
	return string(b)
}

// Everything that people do, in a real browser, through the real binary with
// all its guards.
func TestPeople(t *testing.T) {
	s := newShop(t)
	letters := t.TempDir()
	addr := harness.FreeAddr(t)
	_, port, _ := strings.Cut(addr, ":")
	base := "https://localhost:" + port
	config := filepath.Join(t.TempDir(), "merlon.yaml")
	if err := os.WriteFile(config, []byte(fmt.Sprintf(`
identity:
  register: open
  register_domains: [example.com]
  brand: {name: The Harbour Shop, color: "#0b6e4f"}
  mail: {folder: %q}
sites:
  - host: localhost
    origin: %s
    upstream: %s
    routes:
      - {path: /basket/**, require: login}
      - {path: /pay, require: {login: true, fresh: 10s}}
      - {path: /vault/**, require: {mfa: phishing-resistant}}
`, letters, base, s.URL)), 0o600); err != nil {
		t.Fatal(err)
	}
	m := harness.Serve(t, harness.Options{Addrs: map[string]string{"https": addr}}, "--config", config)
	first := ""
	for range 100 { // it is printed just after Merlon is ready
		if first = regexp.MustCompile(`https://\S+/\.merlon/first\?token=\S+`).FindString(m.Output()); first != "" {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if !strings.HasPrefix(first, base) {
		t.Fatalf("no link for the first administrator: %s", m.Output())
	}
	seen := map[string]bool{}
	b := identitytest.Start(t, base)
	b.Authenticator()

	b.Open(first)
	b.Fill("#name", "root")
	b.Fill("#new", password)
	b.Press(`form[action="/.merlon/first"] button`)
	b.Away()
	b.LogOut(false)

	b.Register("ann@example.com", "Ann O'Gull", password, func() string { return link(t, letters, "register/link", seen) })
	b.LogOut(false)
	b.Open("/basket/7?a=1")
	b.At("/.merlon/login")
	b.FillIn("ann@example.com", password)
	b.At("/basket/7")

	// A form that came too late goes on after a fresh proof, to the byte.
	b.Open("/")
	time.Sleep(11 * time.Second)
	b.Press("#pay")
	b.Shows("Prove it is you")
	b.Fill("#password", password)
	b.Press(`form[action="/.merlon/prove"] button`)
	b.At("/pay")
	if got := b.Text("#body"); got != "note=5+%26+6" {
		t.Errorf("the backend got %q", got)
	}

	secret, codes := b.AddApp()
	b.LogOut(true)
	b.SignIn("ann@example.com", password)
	b.GiveCode(identitytest.Code(t, secret, 0))
	b.Away()
	b.LogOut(false)
	b.SignIn("ann@example.com", password)
	b.GiveRecoveryCode(codes[3])
	b.Away()

	b.AddPasskey()
	b.Shows("It is added")
	b.LogOut(true)
	b.SignInByPasskey()
	b.Open("/vault/gold")
	b.At("/vault/gold")

	b.NoAuthenticator()
	b.LogOut(true)
	b.Recover("ann@example.com", another, identitytest.Code(t, secret, 1), func() string { return link(t, letters, "recover/link", seen) })
	b.LogOut(true)
	b.SignIn("ann@example.com", password)
	b.Shows("That did not work")
	b.Open("/basket/7")
	b.At("/.merlon/login")

	if c := b.Complaints(); len(c) > 0 {
		t.Errorf("the browser complains: %q", c)
	}
	if got := s.payments(); !slices.Equal(got, []string{"x=1 note=5+%26+6"}) {
		t.Errorf("paid: %q", got)
	}
	out := m.Output()
	for _, never := range []string{password, another, strings.ReplaceAll(secret, " ", ""), codes[3]} {
		if strings.Contains(out, never) {
			t.Errorf("the log holds a secret: %s", out)
		}
	}
}

func decode(m *mail.Message) io.Reader {
	if strings.EqualFold(m.Header.Get("Content-Transfer-Encoding"), "quoted-printable") {
		return quotedprintable.NewReader(m.Body)
	}
	return m.Body
}
