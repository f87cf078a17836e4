// Package examples_test runs every example: the real binary in front of the
// real application, as its README says, on ports that are free.
package examples_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"html"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/test/harness"
)

const folder = "../../examples"

func TestMain(m *testing.M) {
	defer harness.Cleanup()
	m.Run()
}

// rewrite writes an example's configuration with other addresses and paths,
// each of which must be in it, and returns where it is.
func rewrite(t *testing.T, file string, replace ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(folder, file))
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for i := 0; i+1 < len(replace); i += 2 {
		if !strings.Contains(text, replace[i]) {
			t.Fatalf("%s is without %q", file, replace[i])
		}
		text = strings.ReplaceAll(text, replace[i], replace[i+1])
	}
	path := filepath.Join(t.TempDir(), "merlon.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// start runs an application until the test ends, and waits until it listens.
func start(t *testing.T, addr string, cmd *exec.Cmd) {
	t.Helper()
	out := new(output)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		<-ended
		if t.Failed() {
			t.Logf("the application said:\n%s", out)
		}
	})
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		select {
		case <-ended:
			t.Fatalf("the application ended:\n%s", out)
		default:
		}
		if c, err := net.Dial("tcp", addr); err == nil {
			_ = c.Close()
			return
		}
	}
	t.Fatalf("the application does not listen:\n%s", out)
}

// startGo builds and runs an example's program.
func startGo(t *testing.T, name, addr string, env ...string) {
	t.Helper()
	bin := filepath.Join(t.TempDir(), name)
	if out, err := exec.Command("go", "build", "-o", bin, folder+"/"+name).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.Command(bin)
	cmd.Env = append(append(os.Environ(), "ADDR="+addr), env...)
	start(t, addr, cmd)
}

func startPython(t *testing.T, addr string, args ...string) {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("no python3: install the package python3")
	}
	start(t, addr, exec.Command(python, args...))
}

// serve starts Merlon at https://localhost:port with an example's configuration.
func serve(t *testing.T, https, config string, env ...string) *harness.Merlon {
	t.Helper()
	return harness.Serve(t, harness.Options{Addrs: map[string]string{"https": https}, Env: env}, "-c", config)
}

// free returns a free address, and the same by name.
func free(t *testing.T) (addr, named string) {
	t.Helper()
	addr = harness.FreeAddr(t)
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return addr, "localhost:" + port
}

// caFile returns the path of Merlon's local CA.
func caFile(t *testing.T, m *harness.Merlon) string {
	t.Helper()
	out, code := m.Run(t, "ca", "--path")
	if code != 0 {
		t.Fatal("there is no local CA")
	}
	return strings.TrimSpace(out)
}

// A browser keeps cookies, follows redirects and fills in forms.
type browser struct {
	t    *testing.T
	http *http.Client
}

func newBrowser(t *testing.T, trusted ...*harness.Merlon) *browser {
	t.Helper()
	pool := x509.NewCertPool()
	for _, m := range trusted {
		pem, err := os.ReadFile(caFile(t, m))
		if err != nil {
			t.Fatal(err)
		}
		pool.AppendCertsFromPEM(pem)
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}
	t.Cleanup(tr.CloseIdleConnections)
	return &browser{t, &http.Client{Jar: jar, Transport: tr, Timeout: 30 * time.Second}}
}

// A page is where the browser is.
type page struct {
	b      *browser
	at     *url.URL
	status int
	text   string
}

var refresh = regexp.MustCompile(`http-equiv="refresh" content="0; ?url=([^"]*)"`)

// do sends a request, and goes on to where the page leads by itself.
func (b *browser) do(method, address, body string, head ...string) page {
	b.t.Helper()
	r, err := http.NewRequest(method, address, strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	r.Header.Set("Accept", "text/html")
	r.Header.Set("User-Agent", "Mozilla/5.0 Firefox/140.0")
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Origin", r.URL.Scheme+"://"+r.URL.Host)
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
	text, err := io.ReadAll(res.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	p := page{b, res.Request.URL, res.StatusCode, string(text)}
	if m := refresh.FindStringSubmatch(p.text); m != nil {
		to, err := p.at.Parse(html.UnescapeString(m[1]))
		if err != nil {
			b.t.Fatal(err)
		}
		return b.do(http.MethodGet, to.String(), "")
	}
	return p
}

func (b *browser) open(address string, head ...string) page {
	b.t.Helper()
	return b.do(http.MethodGet, address, "", head...)
}

var (
	form   = regexp.MustCompile(`(?s)<form[^>]* action="([^"]*)"[^>]*>(.*?)</form>`)
	hidden = regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)"`)
)

// send fills in the page's form whose action ends so.
func (p page) send(action string, fields ...string) page {
	p.b.t.Helper()
	for _, m := range form.FindAllStringSubmatch(p.text, -1) {
		to, err := p.at.Parse(html.UnescapeString(m[1]))
		if err != nil || !strings.HasSuffix(to.Path, action) {
			continue
		}
		v := url.Values{}
		for _, in := range hidden.FindAllStringSubmatch(m[2], -1) {
			v.Set(in[1], html.UnescapeString(in[2]))
		}
		for i := 0; i+1 < len(fields); i += 2 {
			v.Set(fields[i], fields[i+1])
		}
		return p.b.do(http.MethodPost, to.String(), v.Encode())
	}
	p.b.t.Fatalf("%s: there is no form for %s\n%s", p.at, action, p.text)
	return p
}

// shows ends the test unless the page has the status and the texts.
func (p page) shows(status int, texts ...string) page {
	p.b.t.Helper()
	for _, text := range texts {
		if !strings.Contains(p.text, text) {
			p.b.t.Fatalf("%s: status %d, without %q:\n%s", p.at, p.status, text, p.text)
		}
	}
	if p.status != status {
		p.b.t.Fatalf("%s: status %d, want %d:\n%s", p.at, p.status, status, p.text)
	}
	return p
}

const secret = "fog over the quiet harbour 61"

// first makes ann the first administrator by the link that Merlon has printed.
func (b *browser) first(m *harness.Merlon) {
	b.t.Helper()
	link := regexp.MustCompile(`https://\S+/\.merlon/first\?token=\S+`)
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if to := link.FindString(m.Output()); to != "" {
			b.open(to).send("/.merlon/first", "name", "ann", "new", secret)
			return
		}
	}
	b.t.Fatalf("no link for the first administrator\n%s", m.Output())
}

// subject returns the id of an account with a log-in name or a display name.
// Backends are told the id.
func subject(t *testing.T, m *harness.Merlon, name string) string {
	t.Helper()
	out, code := m.Run(t, "user", "list", "-o", "json")
	if code != 0 {
		t.Fatal(out)
	}
	for line := range strings.Lines(out) {
		var a struct{ ID, Name, Display string }
		if err := json.Unmarshal([]byte(line), &a); err != nil {
			t.Fatalf("%v\n%s", err, line)
		}
		if a.Name == name || a.Display == name {
			return a.ID
		}
	}
	t.Fatalf("there is no %s in %s", name, out)
	return ""
}
