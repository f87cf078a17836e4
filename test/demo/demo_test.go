package demo_test

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"html"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/test/harness"
	identitytest "github.com/merlon-dev/merlon/test/identity"
)

// made finds how many reports the shop has made at once.
var made = regexp.MustCompile(`; the shop makes (\d) at once$`)

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

		"guess-own": "stuffing: login-challenged", "stuffing-own": "stuffing: login-challenged",
		"decoy": "decoy: decoy-touched (/.env), then ban: banned", "scan": "ban: banned", "bots": "challenge: work-required",
		"slow": "unfinished requests wait at Merlon", "walk": "limit: rate-exceeded (walk)", "flood": "limit: rate-exceeded (search)",
		"hammer": "throttle: ",
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
		if m := made.FindStringSubmatch(a.StoppedBy); a.Name == "hammer" && (m == nil || m[1] > "4") {
			t.Errorf("more reports than four are made at once, or that is not told: %q", a.StoppedBy)
		}
		delete(mustStop, a.Name)
	}
	if len(mustStop) > 0 {
		t.Errorf("not tried: %v", mustStop)
	}
}

// start runs the demo, and returns what finds something in what it said.
func start(t *testing.T) (find func(pattern string) string) {
	t.Helper()
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
	return func(pattern string) string {
		t.Helper()
		m := regexp.MustCompile(pattern).FindStringSubmatch(said.String())
		if m == nil {
			t.Fatalf("nothing like %s in\n%s", pattern, said.String())
		}
		return m[1]
	}
}

// behind finds the shop behind Merlon.
const behind = `Merlon  (https://[^/\s]+)/admin`

// Who looks around is shut out until the line that the demo prints lets them in
// again; who sits at this machine is not, whatever they try.
func TestDemoBan(t *testing.T) {
	find := start(t)
	base, data := find(behind), find(`ban lift --data (\S+) 127\.0\.0\.66`)
	client := func(from string) func(path string) int {
		tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
		tr.DialContext = (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).DialContext
		t.Cleanup(tr.CloseIdleConnections)
		return func(path string) int {
			t.Helper()
			res, err := (&http.Client{Transport: tr}).Get(base + path)
			if err != nil {
				t.Skipf("nothing comes from %s: %v", from, err)
			}
			res.Body.Close()
			return res.StatusCode
		}
	}
	scanner, own := client("127.0.0.66"), client("127.0.0.1")
	for _, ask := range []func(string) int{scanner, own} {
		if code := ask("/.env"); code != http.StatusNotFound {
			t.Errorf("a decoy: %d, want 404", code)
		}
	}
	if code := scanner("/"); code != http.StatusForbidden && code != http.StatusTooManyRequests {
		t.Errorf("after a decoy: %d", code)
	}
	if code := own("/"); code != http.StatusOK {
		t.Errorf("who sits here: %d", code)
	}
	if out, err := exec.Command(harness.Binary(t), "ban", "lift", "--data", data, "127.0.0.66").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for end := time.Now().Add(10 * time.Second); scanner("/") != http.StatusOK; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the ban was lifted, and holds")
		}
	}
}

// A browser gets its code by itself.
func TestDemoDrop(t *testing.T) {
	c := identitytest.Start(t, start(t)(behind))
	c.Open("/drop")
	c.Wait(`document.getElementById("code")?.textContent.startsWith("KETTLE-")`)
}

// What a stranger runs then: the account that the demo prints opens the back
// office, and its password alone does not.
func TestDemoSignIn(t *testing.T) {
	find := start(t)
	base := find(behind)
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
