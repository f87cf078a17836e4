package demo_test

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/merlon-dev/merlon/test/harness"
)

// What a stranger runs first: every attack gets through to the bare shop, none
// that has its guard gets through to the one behind Merlon, and every
// legitimate use works at both.
func TestDemoAttack(t *testing.T) {
	cmd := exec.Command(harness.Binary(t), "demo", "--attack", "-o", "json", "--bare", "127.0.0.1:0", "--https", "127.0.0.1:0")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s%s", err, out, stderr.String())
	}
	type shot struct{ Worked bool }
	type result struct{ Attack, Twin shot }
	var report struct {
		Attacks []struct {
			Name        string
			NotYet      string `json:"not_yet"`
			StoppedBy   string `json:"stopped_by"`
			Bare, Gated result
		}
	}
	if err := json.Unmarshal(out, &report); err != nil {
		t.Fatal(err)
	}
	mustStop := map[string]string{
		"log-in-sql": "waf", "search-union": "waf", "stored-xss": "waf", "reflected-xss": "waf",
		"command": "waf", "metadata": "waf", "form-csrf": "csrf",

		"guess": "identity: too-many-tries", "stuffing": "identity: too-many-tries", "spray": "identity: too-many-tries",
		"password-only": "access: login-required", "cookie-object": "access: login-required", "forged-header": "access: login-required",
		"after-log-out": "access: login-required", "fixation": "access: login-required",
		"forged-token": "identity: token-", "log-in-csrf": "csrf: cross-site",
		"enumeration": "the same answer", "open-redirect": "every such log-in leads to / instead",
	}
	for _, a := range report.Attacks {
		if !a.Bare.Attack.Worked || !a.Bare.Twin.Worked || !a.Gated.Twin.Worked {
			t.Errorf("%s: bare attack %v, twins %v and %v", a.Name, a.Bare.Attack.Worked, a.Bare.Twin.Worked, a.Gated.Twin.Worked)
		}
		guard, must := mustStop[a.Name]
		if must && (a.Gated.Attack.Worked || a.NotYet != "" || !strings.HasPrefix(a.StoppedBy, guard)) {
			t.Errorf("%s must be stopped by %s: got through %v, stopped by %q", a.Name, guard, a.Gated.Attack.Worked, a.StoppedBy)
		}
		if a.NotYet == "" && a.Gated.Attack.Worked {
			t.Errorf("%s gets through", a.Name)
		}
		delete(mustStop, a.Name)
	}
	if len(mustStop) > 0 {
		t.Errorf("not tried: %v", mustStop)
	}
}

// What a stranger runs then: the account that the demo prints opens the back
// office, and its password alone does not.
func TestDemoSignIn(t *testing.T) {
	cmd := exec.Command(harness.Binary(t), "demo", "--bare", "127.0.0.1:0", "--https", "127.0.0.1:0")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		_ = cmd.Wait()
	})
	var said strings.Builder
	for lines := bufio.NewScanner(out); lines.Scan(); {
		said.WriteString(lines.Text() + "\n")
		if strings.Contains(lines.Text(), "merlon why") {
			break
		}
	}
	find := func(pattern string) string {
		t.Helper()
		m := regexp.MustCompile(pattern).FindStringSubmatch(said.String())
		if m == nil {
			t.Fatalf("nothing like %s in\n%s", pattern, said.String())
		}
		return m[1]
	}
	base := find(`Merlon  (https://[^/\s]+)/admin`)
	name, pass, code := find(`user name  (keeper)`), find(`and password  (\S+)`), find(`recovery codes  (\S+)`)
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Jar: jar, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	open := func(method, path string, form url.Values) string {
		t.Helper()
		r, err := http.NewRequest(method, base+path, strings.NewReader(form.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Accept", "text/html")
		r.Header.Set("User-Agent", "Mozilla/5.0 Firefox/140.0")
		if method == http.MethodPost {
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			r.Header.Set("Origin", base)
		}
		res, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	hidden := func(page string) url.Values {
		v := url.Values{}
		for _, m := range regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)"`).FindAllStringSubmatch(page, -1) {
			v.Set(m[1], html.UnescapeString(m[2]))
		}
		return v
	}
	f := hidden(open(http.MethodGet, "/admin", nil))
	f.Set("name", name)
	f.Set("password", pass)
	second := open(http.MethodPost, "/.merlon/login", f)
	if page := open(http.MethodGet, "/admin", nil); strings.Contains(page, "ann.fletcher@mail.example") {
		t.Fatal("the password alone opens the back office")
	}
	f = hidden(second)
	f.Set("recovery", code)
	open(http.MethodPost, "/.merlon/code/recovery", f)
	if page := open(http.MethodGet, "/admin", nil); !strings.Contains(page, "ann.fletcher@mail.example") {
		t.Errorf("the back office stays closed\n%s", page)
	}
}

func TestMain(m *testing.M) {
	defer harness.Cleanup()
	m.Run()
}
