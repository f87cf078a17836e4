// Package people_test runs the real binary and shows who gets in: people who
// sign in, programs that prove themselves, replicas that share a database, and
// who does not get in, however often they try. Browsers and what they show are
// in test/identity.
package people_test

import (
	"context"
	"errors"
	"flag"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/pquerna/otp/totp"

	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/password"
	"github.com/merlon-dev/merlon/internal/store"
	"github.com/merlon-dev/merlon/secrets"
	"github.com/merlon-dev/merlon/test/harness"
)

func TestMain(m *testing.M) {
	flag.Parse()
	// These tests wait most of the time: few cores are no reason for a queue.
	if err := flag.Set("test.parallel", "4"); err != nil {
		panic(err)
	}
	defer harness.Cleanup()
	m.Run()
}

const (
	annsPassword = "correct horse battery staple"
	bobsPassword = "tractor lamp meadow violin 7"
	nextPassword = "violet anchor biscuit ladder 3"
)

// soonest is within what time something that has ended is over everywhere: one
// second, and what a busy machine needs.
const soonest = time.Second + 700*time.Millisecond

// cheap is what hashing may cost here, so that many can log in.
const cheap = "  password: {argon2: {memory: 12MiB, time: 3}, at_once: 2, queue: 500}\n"

// A place is one Merlon, its configuration and its backend.
type place struct {
	*harness.Merlon
	t       testing.TB
	env     []string
	config  string
	backend *backend
}

// A backend answers with who it was told is asking, and remembers the fields.
type backend struct {
	*httptest.Server
	mu   sync.Mutex
	last http.Header
}

func newBackend(t testing.TB) *backend {
	t.Helper()
	b := &backend{}
	up := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}
	b.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.mu.Lock()
		b.last = r.Header.Clone()
		b.mu.Unlock()
		if r.URL.Path == "/ws" {
			c, err := up.Upgrade(w, r, nil)
			if err != nil {
				return
			}
			defer c.Close()
			_, _, _ = c.ReadMessage() // until it ends
			return
		}
		_, _ = w.Write([]byte("backend " + r.Header.Get("Merlon-Subject")))
	}))
	t.Cleanup(b.Close)
	return b
}

// field returns a field of the last request.
func (b *backend) field(name string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Join(b.last.Values(name), "|")
}

// open starts Merlon with a configuration in which BACKEND stands for a
// backend, and in which ann and bob have accounts.
func open(t testing.TB, text string) *place {
	t.Helper()
	data := t.TempDir()
	seed(t, store.Config{Dir: data}, people(t)...)
	return serve(t, data, text, nil)
}

func serve(t testing.TB, data, text string, env []string, addrs ...string) *place {
	t.Helper()
	b := newBackend(t)
	p := &place{t: t, env: env, backend: b, config: filepath.Join(t.TempDir(), "merlon.yaml")}
	write(t, p.config, strings.ReplaceAll(text, "BACKEND", b.URL))
	o := harness.Options{Data: data, Env: env, Insecure: strings.Contains(text, "# insecure")}
	if len(addrs) > 0 {
		o.Addrs = map[string]string{"https": addrs[0]}
	}
	p.Merlon = harness.Serve(t, o, "-c", p.config)
	return p
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// refuses starts Merlon with a configuration that it must not take, and
// returns what it says.
func refuses(t testing.TB, text string) string {
	t.Helper()
	path, data := filepath.Join(t.TempDir(), "merlon.yaml"), t.TempDir()
	write(t, path, text)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, harness.Binary(t), "serve", "-c", path, "--data", data, "--https", harness.FreeAddr(t), "--http", "off", "--admin", "off").CombinedOutput()
	if ee, ok := errors.AsType[*exec.ExitError](err); !ok || ee.ExitCode() <= 0 {
		t.Fatalf("it is served: %v\n%s", err, out)
	}
	if entries, err := os.ReadDir(data); err != nil || len(entries) > 0 {
		t.Errorf("something was made: %v %v", entries, err)
	}
	return string(out)
}

// run runs a subcommand with the place's configuration, as an administrator
// beside the running server would.
func (p *place) run(args ...string) string {
	p.t.Helper()
	return p.runWith("", args...)
}

func (p *place) runWith(stdin string, args ...string) string {
	p.t.Helper()
	cmd := exec.Command(harness.Binary(p.t), append(args, "-c", p.config, "--data", p.Data)...)
	cmd.Env = append(os.Environ(), p.env...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.Output()
	if err != nil {
		if ee, ok := errors.AsType[*exec.ExitError](err); ok {
			out = append(out, ee.Stderr...)
		}
		p.t.Fatalf("merlon %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// base is the address that people open.
func (p *place) base() string {
	_, port, err := net.SplitHostPort(p.HTTPS)
	if err != nil {
		p.t.Fatal(err)
	}
	return "https://localhost:" + port
}

func (p *place) person() *harness.Person {
	p.t.Helper()
	return harness.NewPerson(p.t, p.base())
}

// in returns a person who is signed in.
func (p *place) in(name, pass string) *harness.Person {
	p.t.Helper()
	who := p.person()
	who.SignIn("/.merlon/login", name, pass)
	return who
}

// seed makes accounts before the server starts.
func seed(t testing.TB, c store.Config, accounts ...account.Account) {
	t.Helper()
	db, err := store.Open(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range accounts {
		if err := db.Accounts().Create(context.Background(), a); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

func postgres(url string) store.Config { return store.Config{URL: secrets.New(url)} }

func people(t testing.TB) []account.Account {
	return []account.Account{
		someone("ann", hashed(t, annsPassword), "team"),
		someone("bob", hashed(t, bobsPassword)),
	}
}

func someone(name, hash string, roles ...string) account.Account {
	return account.Account{ID: strings.ToUpper(name) + "-ID", Name: name, Password: hash, PasswordSince: time.Now().Add(-time.Hour),
		Created: time.Now().Add(-time.Hour), Roles: roles, Groups: []string{name + "s"}}
}

var (
	hashesMu sync.Mutex
	hashes   = map[string]string{}
)

// hashed hashes each password once.
func hashed(t testing.TB, pass string) string {
	t.Helper()
	hashesMu.Lock()
	defer hashesMu.Unlock()
	if h := hashes[pass]; h != "" {
		return h
	}
	hasher, err := password.New(password.Config{Argon2: password.Argon2{Memory: 12 << 20, Time: 3}})
	if err == nil {
		hashes[pass], err = hasher.Hash(context.Background(), pass)
	}
	if err != nil {
		t.Fatal(err)
	}
	return hashes[pass]
}

// webSocket opens one with a person's cookies; its end is told.
func webSocket(t testing.TB, p *harness.Person) (ended <-chan time.Time) {
	t.Helper()
	d := websocket.Dialer{TLSClientConfig: p.HTTP.Transport.(*http.Transport).TLSClientConfig.Clone()}
	d.TLSClientConfig.NextProtos = nil
	c, res, err := d.Dial("wss"+strings.TrimPrefix(p.Base, "https")+"/ws", http.Header{"Origin": {p.Base}, "Cookie": {p.Cookies()}})
	if err != nil {
		t.Fatal(err, res)
	}
	t.Cleanup(func() { _ = c.Close() })
	end := make(chan time.Time, 1)
	go func() {
		_, _, _ = c.ReadMessage()
		end <- time.Now()
	}()
	return end
}

// over checks that what began at a moment has ended within a second.
func over(t testing.TB, what string, began time.Time, ended <-chan time.Time) {
	t.Helper()
	select {
	case at := <-ended:
		t.Logf("%s: over after %v", what, at.Sub(began).Round(time.Millisecond))
	case <-time.After(time.Until(began.Add(soonest))):
		t.Errorf("%s: goes on after %s", what, soonest)
	}
}

// within waits until ok, which must be within a second of a moment.
func within(t testing.TB, what string, began time.Time, ok func() bool) {
	t.Helper()
	for !ok() {
		if time.Since(began) > soonest {
			t.Errorf("%s: not after %s", what, soonest)
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Logf("%s: after %v", what, time.Since(began).Round(time.Millisecond))
}

var (
	secretText = regexp.MustCompile(`<p class="secret">([A-Z2-7 ]+)</p>`)
	linkText   = regexp.MustCompile(`https://\S+\?token=\S+`)
)

// addApp adds an authenticator app and returns its secret.
func addApp(t testing.TB, p *harness.Person) string {
	t.Helper()
	page := p.Get("/.merlon/account").Want(200).Send("/.merlon/enrol/totp").Want(200)
	m := secretText.FindStringSubmatch(page.Body)
	if m == nil {
		t.Fatalf("no secret\n%s", page.Body)
	}
	secret := strings.ReplaceAll(m[1], " ", "")
	page.Send("/.merlon/enrol/totp/confirm", "code", code(t, secret, -1)).Want(200)
	return secret
}

// code is an app's code, some steps of 30 seconds from now.
func code(t testing.TB, secret string, steps int) string {
	t.Helper()
	c, err := totp.GenerateCode(secret, time.Now().Add(time.Duration(steps)*30*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// together runs f for 0 to n-1 at the same moment.
func together(n int, f func(i int)) {
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { <-start; f(i) })
	}
	close(start)
	wg.Wait()
}

// count returns how many of a list are as wanted.
func count[T comparable](list []T, want T) int {
	return len(slices.DeleteFunc(slices.Clone(list), func(v T) bool { return v != want }))
}
