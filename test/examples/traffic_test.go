package examples_test

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/ledger"
	"github.com/merlon-dev/merlon/test/harness"
)

// A client is a program at an address of its own.
type client struct {
	t    *testing.T
	http *http.Client
	base string
}

// from returns a client.
func from(t *testing.T, m *harness.Merlon, base, addr string) *client {
	t.Helper()
	c := m.ClientFrom(t, addr)
	var err error
	if c.Jar, err = cookiejar.New(nil); err != nil {
		t.Fatal(err)
	}
	return &client{t, c, base}
}

// ask sends a request, and returns what came back and its body.
func (c *client) ask(method, path, body string, fields ...string) (*http.Response, string) {
	r, err := http.NewRequest(method, c.base+path, strings.NewReader(body))
	if err != nil {
		c.t.Error(err)
		return &http.Response{}, ""
	}
	r.Header.Set("User-Agent", "curl/8.14.1")
	r.Header.Set("Accept", "*/*")
	for i := 0; i+1 < len(fields); i += 2 {
		r.Header.Set(fields[i], fields[i+1])
	}
	res, err := c.http.Do(r)
	if err != nil {
		c.t.Error(err)
		return &http.Response{}, ""
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		c.t.Error(err)
	}
	return res, string(b)
}

func (c *client) logIn(email, password string) int {
	body, err := json.Marshal(map[string]string{"email": email, "password": password})
	if err != nil {
		c.t.Fatal(err)
	}
	res, _ := c.ask(http.MethodPost, "/api/login", string(body), "Content-Type", "application/json")
	return res.StatusCode
}

func TestBackendLogin(t *testing.T) {
	app, _ := free(t)
	startGo(t, "backend-login", app)
	https, named := free(t)
	base := "https://" + named
	m := serve(t, https, rewrite(t, "backend-login/merlon.yaml", "127.0.0.1:3000", app, "user_field: email", "user_field: email\n      slow: 1s"))
	const right = "sunshine-over-kinsale"
	want := func(what string, got, want int) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %d, want %d", what, got, want)
		}
	}

	ann := from(t, m, base, "127.0.0.2")
	want("ann, who mistypes", ann.logIn("ann@example.com", "sunshine"), http.StatusUnauthorized)
	want("ann", ann.logIn("ann@example.com", right), http.StatusOK)
	if _, text := ann.ask(http.MethodGet, "/api/me", ""); !strings.Contains(text, "you are ann@example.com") {
		t.Errorf("ann is told %q", text)
	}

	thief := from(t, m, base, "127.0.0.3")
	wrong := 0
	for n := range 12 {
		if thief.logIn("ann@example.com", fmt.Sprint("guess ", n)) == http.StatusUnauthorized {
			wrong++
		}
	}
	if wrong < 3 || wrong > 8 {
		t.Errorf("%d of 12 guesses reached the application, want a few", wrong)
	}
	want("the right password, guessed", thief.logIn("ann@example.com", right), http.StatusTooManyRequests)
	for n := range 20 { // from as many networks
		from(t, m, base, fmt.Sprintf("127.7.%d.1", n)).logIn("ann@example.com", fmt.Sprint("leak ", n))
	}
	want("the right password, of a stranger", from(t, m, base, "127.8.0.1").logIn("ann@example.com", right), http.StatusTooManyRequests)
	want("ann meanwhile, on a browser that is known", ann.logIn("ann@example.com", right), http.StatusOK)

	res, text := from(t, m, base, "127.0.0.4").ask(http.MethodPost, "/api/login", `{"email": "j.archer@example.com", "password": "x"}`, "Content-Type", "application/json")
	want("nobody's account", res.StatusCode, http.StatusUnauthorized)
	if strings.Contains(text, "canary") {
		t.Errorf("who tries it is told: %s", text)
	}
	m.Events(t, 1, func(e ledger.Event) bool {
		return e.Kind == ledger.Alarm && e.Message == "canary-tried" && e.Client != ""
	})
}

// key makes an account for a program, and a key for it.
func key(t *testing.T, m *harness.Merlon, config, name string) string {
	t.Helper()
	if out, code := m.Run(t, "user", "add", name+"-bot", "-c", config); code != 0 {
		t.Fatal(out)
	}
	out, code := m.Run(t, "key", "create", name, "--user", name+"-bot", "-c", config)
	found := regexp.MustCompile(`mk_\S+_\S+`).FindString(out)
	if code != 0 || found == "" {
		t.Fatalf("no key: %d\n%s", code, out)
	}
	return found
}

func TestLimitsByUser(t *testing.T) {
	app, _ := free(t)
	startGo(t, "limits-by-user", app)
	https, named := free(t)
	config := rewrite(t, "limits-by-user/merlon.yaml", "127.0.0.1:3000", app, "rate: 300/h", "rate: 60/h")
	m := serve(t, https, config)
	ann, bob, eve := key(t, m, config, "ann"), key(t, m, config, "bob"), key(t, m, config, "eve")
	c := from(t, m, "https://"+named, "127.0.0.2")
	get := func(path, key string) (*http.Response, string) {
		return c.ask(http.MethodGet, path, "", "X-API-Key", key)
	}

	res, text := get("/orders/1001", ann)
	policy := strings.Join(res.Header.Values("RateLimit-Policy"), ", ")
	if res.StatusCode != http.StatusOK || !strings.Contains(text, "harbour kettle") ||
		!strings.Contains(policy, `"per-user";q=30`) || !strings.Contains(policy, `"per-key";q=100000`) ||
		!strings.Contains(res.Header.Get("RateLimit"), `"per-user";r=29`) {
		t.Errorf("an order: %d, %v\n%s", res.StatusCode, res.Header, text)
	}
	passed := 1
	for range 40 {
		if res, _ := get("/orders/1001", ann); res.StatusCode == http.StatusOK {
			passed++
		}
	}
	if passed < 30 || passed > 32 { // a minute gives one back
		t.Errorf("%d requests of ann's passed, want 30", passed)
	}
	res, text = get("/orders/1001", ann)
	if wait, err := strconv.Atoi(res.Header.Get("Retry-After")); res.StatusCode != http.StatusTooManyRequests || err != nil || wait < 1 || wait > 60 ||
		!strings.Contains(text, "#quota-exceeded") {
		t.Errorf("one too many: %d, %v\n%s", res.StatusCode, res.Header, text)
	}
	if res, _ := from(t, m, "https://"+named, "127.0.0.3").ask(http.MethodGet, "/orders/1001", "", "X-API-Key", ann); res.StatusCode != http.StatusTooManyRequests {
		t.Errorf("ann from elsewhere: %d, want 429", res.StatusCode)
	}
	if res, _ := get("/orders/1001", bob); res.StatusCode != http.StatusOK {
		t.Errorf("bob from the same address: %d, want 200", res.StatusCode)
	}
	if res, _ := get("/orders/1001", ""); res.StatusCode != http.StatusUnauthorized {
		t.Errorf("nobody: %d, want 401", res.StatusCode)
	}

	// There is more for gold, once ann has the role.
	if out, code := m.Run(t, "user", "set", "ann-bot", "--role", "+gold", "-c", config); code != 0 {
		t.Fatal(out)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if res, _ = get("/orders/1001", ann); res.StatusCode == http.StatusOK || time.Now().After(end) {
			break
		}
	}
	if policy := strings.Join(res.Header.Values("RateLimit-Policy"), ", "); res.StatusCode != http.StatusOK ||
		!strings.Contains(policy, `"per-gold-user";q=300`) || strings.Contains(policy, `"per-user"`) {
		t.Errorf("ann with gold: %d, told %s", res.StatusCode, policy)
	}

	// Six reports weigh as much as the thirty orders.
	type report struct {
		Within float64
		AtOnce int `json:"at_once"`
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var made []report
	for range 9 {
		wg.Go(func() {
			res, text := get("/reports/2026", eve)
			if res.StatusCode != http.StatusOK {
				return
			}
			var r report
			if err := json.Unmarshal([]byte(text), &r); err != nil {
				t.Error(err)
			}
			mu.Lock()
			made = append(made, r)
			mu.Unlock()
		})
	}
	wg.Wait()
	if len(made) != 6 {
		t.Errorf("%d of 9 reports were made, want 6: those that wait come, and those that the limit refuses do not", len(made))
	}
	for _, r := range made {
		if r.AtOnce > 2 || r.Within <= 0 || r.Within > 20 {
			t.Errorf("a report: %d at once, want at most 2, and %g s to make it in, want up to 20", r.AtOnce, r.Within)
		}
	}
	if res, _ := c.ask(http.MethodGet, "/reports/2026", "", "X-API-Key", bob, "Merlon-Timeout", "0.001"); res.StatusCode != http.StatusOK {
		t.Errorf("who lies about the time is believed: %d", res.StatusCode)
	}
}

func TestReplicasRedis(t *testing.T) {
	env := []string{"MERLON_REDIS=" + harness.Redis(t), "MERLON_KEY=" + rand.Text() + rand.Text()}
	app, _ := free(t)
	startPython(t, app, folder+"/login-in-front/app.py", app)
	var replicas []*harness.Merlon
	var bases []string
	for _, file := range []string{"merlon.yaml", "second.yaml"} {
		https, named := free(t)
		bases = append(bases, "https://"+named)
		replicas = append(replicas, serve(t, https, rewrite(t, "replicas-redis/"+file, "127.0.0.1:3000", app, "rate: 20/min", "rate: 20/h"), env...))
	}
	// Where the machine is so busy that Redis does not answer in time, each
	// counts its part, and what they let through is not exact.
	var passed int
	for try := range 5 {
		if passed = through(t, replicas, bases, fmt.Sprint("127.0.0.", 2+try)); passed == 20 || passed == 21 {
			return
		}
		t.Logf("the two let %d through", passed)
	}
	t.Errorf("the two let %d through, want 20", passed)
}

// through returns how many of 50 requests from an address the replicas let
// through, one after the other.
func through(t *testing.T, replicas []*harness.Merlon, bases []string, addr string) (passed int) {
	t.Helper()
	var clients []*client
	for i, m := range replicas {
		clients = append(clients, from(t, m, bases[i], addr))
	}
	for n := range 50 {
		res, _ := clients[n%len(clients)].ask(http.MethodGet, "/", "")
		switch res.StatusCode {
		case http.StatusOK:
			passed++
		case http.StatusTooManyRequests:
			if wait, err := strconv.Atoi(res.Header.Get("Retry-After")); err != nil || wait < 1 {
				t.Errorf("Retry-After: %q", res.Header.Get("Retry-After"))
			}
		default:
			t.Errorf("status %d", res.StatusCode)
		}
	}
	return passed
}
