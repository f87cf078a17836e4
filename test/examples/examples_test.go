package examples_test

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/test/harness"
	identitytest "github.com/merlon-dev/merlon/test/identity"
)

var secrets = []string{"WIKI_SECRET=" + strings.Repeat("wiki", 8), "CORP_SECRET=" + strings.Repeat("corp", 8),
	"MERLON_KEY=" + strings.Repeat("0123456789abcdef", 4), "MERLON_REDIS=redis://127.0.0.1:6379"}

func TestConfigurationsAreCorrect(t *testing.T) {
	files, err := filepath.Glob(folder + "/*/*.yaml")
	if err != nil || len(files) < 12 {
		t.Fatalf("%d configurations: %v", len(files), err)
	}
	for _, file := range files {
		name := filepath.Base(file)
		if strings.Contains(file, "corporate-login/merlon.yaml") {
			continue // needs the CA that the other one makes; see TestCorporateLogin
		}
		cmd := exec.Command(harness.Binary(t), "check", "-c", name, "--data", t.TempDir())
		cmd.Dir, cmd.Env = filepath.Dir(file), append(os.Environ(), secrets...)
		if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), "weak:") {
			t.Errorf("%s: %v\n%s", file, err, out)
		}
	}
}

func TestEveryExampleIsToldAndRun(t *testing.T) {
	list, err := os.ReadFile(folder + "/README.md")
	if err != nil {
		t.Fatal(err)
	}
	var own []byte
	for _, file := range []string{"examples_test.go", "traffic_test.go"} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		own = append(own, b...)
	}
	dirs, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range dirs {
		if !d.IsDir() {
			continue
		}
		if !strings.Contains(string(list), "["+d.Name()+"]("+d.Name()+")") {
			t.Errorf("%s is not in the list", d.Name())
		}
		if _, err := os.Stat(filepath.Join(folder, d.Name(), "README.md")); err != nil {
			t.Error(err)
		}
		if !strings.Contains(string(own), `"`+d.Name()) {
			t.Errorf("%s is not run", d.Name())
		}
	}
}

func TestLoginInFront(t *testing.T) {
	app, _ := free(t)
	startPython(t, app, folder+"/login-in-front/app.py", app)
	https, named := free(t)
	m := serve(t, https, rewrite(t, "login-in-front/merlon.yaml", "127.0.0.1:3000", app))
	b, base := newBrowser(t, m), "https://"+named
	b.open(base+"/", "Merlon-Subject", "root", "Merlon-Roles", "admin").shows(http.StatusOK, `action="/.merlon/login"`)
	b.first(m)
	b.open(base+"/", "Merlon-Subject", "root").shows(http.StatusOK, "You are "+subject(t, m, "ann")+".", "Your roles: admin.")
	newBrowser(t, m).open(base+"/board").send("/.merlon/login", "name", "ann", "password", secret).
		shows(http.StatusOK, "You are "+subject(t, m, "ann"))
}

func TestStepUp(t *testing.T) {
	app, _ := free(t)
	startGo(t, "step-up", app)
	https, named := free(t)
	m := serve(t, https, rewrite(t, "step-up/merlon.yaml", "127.0.0.1:3000", app, "fresh: 5m", "fresh: 10s"))
	b := newBrowser(t, m)
	b.first(m)
	form := b.open("https://"+named+"/").shows(http.StatusOK, "Send money")
	form.send("/transfer", "to", "bob", "amount", "5").shows(http.StatusOK, "has sent 5 to bob")
	time.Sleep(11 * time.Second)
	again := form.send("/transfer", "to", "bob <b>", "amount", "1000").shows(http.StatusOK, `action="/.merlon/prove"`)
	again.send("/.merlon/prove", "password", "not it").shows(http.StatusForbidden)
	again.send("/.merlon/prove", "password", secret).send("/transfer").
		shows(http.StatusOK, subject(t, m, "ann")+" has sent 1000 to bob &lt;b&gt;.")
}

func TestAPIKeys(t *testing.T) {
	app, _ := free(t)
	startGo(t, "api-keys", app)
	https, named := free(t)
	config := rewrite(t, "api-keys/merlon.yaml", "127.0.0.1:3000", app)
	m := serve(t, https, config)
	if out, code := m.Run(t, "user", "add", "report-bot", "-c", config); code != 0 {
		t.Fatal(out)
	}
	out, code := m.Run(t, "key", "create", "report", "--user", "report-bot", "--scope", "orders:read", "--expires", "30d", "-c", config)
	key := regexp.MustCompile(`mk_\S+_\S+`).FindString(out)
	if code != 0 || key == "" {
		t.Fatalf("no key: %d\n%s", code, out)
	}
	b, base := newBrowser(t, m), "https://"+named
	program := func(method, path, key string) page {
		t.Helper()
		return b.do(method, base+path, "", "Accept", "*/*", "User-Agent", "curl/8.14.1", "Origin", "", "Content-Type", "", "X-API-Key", key)
	}
	program("GET", "/orders/1001", key).shows(http.StatusOK, "harbour kettle", subject(t, m, "report-bot"))
	program("POST", "/refunds/1001", key).shows(http.StatusForbidden)
	program("GET", "/orders/1001", "").shows(http.StatusUnauthorized)
	program("GET", "/orders/1001", key[:len(key)-1]+"x").shows(http.StatusUnauthorized)
	if out, code := m.Run(t, "key", "revoke", key[:strings.LastIndexByte(key, '_')], "-c", config); code != 0 {
		t.Fatal(out)
	}
	for end := time.Now().Add(5 * time.Second); program("GET", "/orders/1001", key).status != http.StatusUnauthorized; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("a revoked key is still good")
		}
	}
}

func TestSPAToken(t *testing.T) {
	app, _ := free(t)
	https, named := free(t)
	m := serve(t, https, rewrite(t, "spa-token/merlon.yaml", "127.0.0.1:3000", app, "localhost:8443", named))
	base := "https://" + named
	startGo(t, "spa-token", app, "ISSUER="+base, "CA="+caFile(t, m))
	b := newBrowser(t, m)
	script := func(method, path string, head ...string) page {
		t.Helper()
		return b.do(method, base+path, "", append([]string{"Accept", "*/*", "Sec-Fetch-Site", "same-origin", "Sec-Fetch-Mode", "cors",
			"Sec-Fetch-Dest", "empty", "Content-Type", ""}, head...)...)
	}
	script("POST", "/.merlon/token").shows(http.StatusUnauthorized)
	b.first(m)
	var got struct {
		Token string `json:"access_token"`
	}
	for range 2 { // by the session, then by the refresh secret
		if err := json.Unmarshal([]byte(script("POST", "/.merlon/token").shows(http.StatusOK).text), &got); err != nil {
			t.Fatal(err)
		}
	}
	script("GET", "/api/hello", "Authorization", "Bearer "+got.Token).shows(http.StatusOK, "hello "+subject(t, m, "ann"), "[admin]")
	script("GET", "/api/hello").shows(http.StatusUnauthorized, "no") // the API wants a token, whoever is signed in

	// Who reaches the API without Merlon needs a token as well.
	direct := func(token string) page { return b.open("http://"+app+"/api/hello", "Authorization", "Bearer "+token) }
	direct(got.Token).shows(http.StatusOK, "hello")
	parts := strings.Split(got.Token, ".")
	direct("eyJhbGciOiJub25lIn0." + parts[1] + ".").shows(http.StatusUnauthorized)
	direct(parts[0] + "." + parts[1] + "." + strings.Repeat("A", len(parts[2]))).shows(http.StatusUnauthorized)

	t.Run("in a browser", func(t *testing.T) {
		c := identitytest.Start(t, base)
		c.SignIn("ann", secret)
		c.Away()
		c.Open("/")
		c.Press("#call")
		c.Wait(`document.getElementById("answer").textContent.startsWith("200 hello")`)
	})
}

func TestOIDCClient(t *testing.T) {
	app, _ := free(t)
	https, named := free(t)
	m := serve(t, https, rewrite(t, "oidc-client/merlon.yaml", "127.0.0.1:3001", app, "localhost:8443", named), secrets...)
	startGo(t, "oidc-client", app, append(secrets, "ISSUER=https://"+named, "CA="+caFile(t, m))...)
	newBrowser(t, m).first(m)
	b := newBrowser(t, m)
	consent := b.open("http://"+app+"/").send("/.merlon/login", "name", "ann", "password", secret).shows(http.StatusOK, "The wiki")
	consent.send("/.merlon/oauth/authorize", "answer", "allow").shows(http.StatusOK, "welcome to the wiki, ann [admin]")
	b.open("http://"+app+"/").shows(http.StatusOK, "welcome to the wiki, ann") // asked once only
	b.open("http://"+app+"/callback?code=x&state=y").shows(http.StatusForbidden, "begin again")
}

func TestCorporateLogin(t *testing.T) {
	app, _ := free(t)
	startPython(t, app, folder+"/login-in-front/app.py", app)
	corpAddr, _ := free(t)
	https, named := free(t)
	corpFile := rewrite(t, "corporate-login/corp.yaml", "127.0.0.1:8444", corpAddr, "localhost:8443", named, "127.0.0.1:3000", app)
	corp := serve(t, corpAddr, corpFile, secrets...)
	for name, group := range map[string]string{"ann": "board-editors", "bob": "others"} {
		out, code := corp.Run(t, "user", "add", name, "--group", group, "-c", corpFile)
		link := regexp.MustCompile(`https://\S+`).FindString(out)
		if code != 0 || link == "" {
			t.Fatalf("%d\n%s", code, out)
		}
		newBrowser(t, corp).open(link).send("/.merlon/recover/link").send("/.merlon/password", "new", secret)
	}
	m := serve(t, https, rewrite(t, "corporate-login/merlon.yaml", "127.0.0.1:8444", corpAddr, "127.0.0.1:3000", app,
		"data-corp/ca/root.crt", caFile(t, corp)), secrets...)
	in := func(name string) page {
		b := newBrowser(t, m, corp)
		b.open("https://"+named+"/").shows(http.StatusOK, "Example Corp")
		return b.open("https://"+named+"/.merlon/oidc/begin/corp?return_to=/").send("/.merlon/login", "name", name, "password", secret)
	}
	in("ann").shows(http.StatusOK, "You are "+subject(t, m, "ann")+".")
	in("bob").shows(http.StatusForbidden)
}

func TestBasicHtpasswd(t *testing.T) {
	app, _ := free(t)
	_, port, _ := strings.Cut(app, ":")
	startPython(t, app, "-m", "http.server", "--bind", "127.0.0.1", "--directory", folder+"/basic-htpasswd/files", port)
	https, named := free(t)
	file, err := filepath.Abs(folder + "/basic-htpasswd/htpasswd")
	if err != nil {
		t.Fatal(err)
	}
	m := serve(t, https, rewrite(t, "basic-htpasswd/merlon.yaml", "127.0.0.1:3000", app, "htpasswd: htpasswd", "htpasswd: "+file))
	b := newBrowser(t, m)
	ask := func(user, pass string) (int, string) {
		t.Helper()
		r, err := http.NewRequest(http.MethodGet, "https://"+named+"/boiler.txt", nil)
		if err != nil {
			t.Fatal(err)
		}
		if user != "" {
			r.SetBasicAuth(user, pass)
		}
		res, err := b.http.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		return res.StatusCode, strings.Join(res.Header.Values("Www-Authenticate"), ", ")
	}
	if code, how := ask("", ""); code != http.StatusUnauthorized || !strings.Contains(how, "Basic") {
		t.Errorf("without a password: %d, %q", code, how)
	}
	if code, _ := ask("joe", "boiler-room-is-cold"); code != http.StatusUnauthorized {
		t.Errorf("with a wrong password: %d", code)
	}
	if code, _ := ask("joe", "boiler-room-is-warm-7"); code != http.StatusOK {
		t.Errorf("with the right one: %d", code)
	}
}

func TestGoMiddleware(t *testing.T) {
	app, _ := free(t)
	startGo(t, "go-middleware", app, "PASSWORD="+secret)
	b := newBrowser(t)
	base := "http://" + app
	b.open(base + "/office").shows(http.StatusUnauthorized)
	logIn := b.open(base + "/")
	b.do(http.MethodPost, base+"/login", "name=ann&password=x", "Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site").shows(http.StatusForbidden)
	logIn.send("/login", "name", "ann", "password", "not it").shows(http.StatusForbidden, "wrong name or password")
	logIn.send("/login", "name", "eve", "password", "not it").shows(http.StatusForbidden, "wrong name or password")
	logIn.send("/login", "name", "ann", "password", secret).shows(http.StatusOK, "the office is open, ann")
	b.open(base+"/office").shows(http.StatusOK, "the office is open, ann")
	last := 0
	for range 8 {
		last = logIn.send("/login", "name", "ann", "password", "not it").status
	}
	if last != http.StatusTooManyRequests {
		t.Errorf("after many wrong tries: %d, want 429", last)
	}
}
