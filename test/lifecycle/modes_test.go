package lifecycle_test

import (
	"net/http"
	neturl "net/url"
	"strings"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/ledger"
	"github.com/merlon-dev/merlon/test/harness"
)

// with puts a value into a query parameter.
func with(name, value string) string {
	return "/search?" + name + "=" + neturl.QueryEscape(value)
}

// From a refusal to its remedy: the client's id explains it, and the words that
// the explanation offers let exactly this request pass.
func TestWhyAndRemedy(t *testing.T) {
	t.Parallel()
	text := "sites:\n  - host: localhost\n    upstream: " + backend(t, hello).URL + "\n"
	file := configure(t, text)
	m := harness.Serve(t, harness.Options{}, "-c", file)
	c := client(t, m, true)

	res, body := get(t, c, url(m, with("q", attack)))
	id := refused(t, res, body, 403)
	if strings.Contains(body, "942") || strings.Contains(strings.ToLower(body), "sql") {
		t.Errorf("the client learns the cause: %s", body)
	}
	e := event(t, m, id)
	if e.Kind != ledger.Refusal || e.Guard != "waf" || e.Reason != "attack" || e.Remedy == "" {
		t.Fatalf("event: %+v", e)
	}
	rule := ""
	for _, v := range e.Verdicts {
		if v.Guard == "waf" && len(v.Findings) > 0 {
			rule = v.Findings[0].Rule
		}
	}
	why, code := m.Run(t, "why", id)
	for _, want := range []string{"waf", rule, "q", strings.TrimSpace(strings.Split(e.Remedy, "\n")[0])} {
		if code != 0 || want == "" || !strings.Contains(why, want) {
			t.Errorf("merlon why does not say %q (exit code %d):\n%s", want, code, why)
		}
	}
	for line := range strings.Lines(e.Remedy) {
		text += "    " + strings.TrimRight(line, "\n") + "\n"
	}
	rewrite(t, file, text)
	soon(t, "the reload with the remedy", func() bool { return strings.Contains(m.Output(), "configuration reloaded") })
	if res, body := get(t, c, url(m, with("q", attack))); res.StatusCode != 200 || body != "hello" {
		t.Errorf("with the remedy\n%s\nthe request is still answered %d", e.Remedy, res.StatusCode)
	}
	res, body = get(t, c, url(m, with("other", attack)))
	refused(t, res, body, 403)
	verified(t, m, c)
}

func TestMonitorAndOff(t *testing.T) {
	t.Parallel()
	b := backend(t, hello)
	rows := []struct {
		flag   string
		passes bool
		kind   ledger.Kind // of its event; empty if it must leave none
	}{
		{"--monitor", true, ledger.Monitored},
		{"--monitor=waf", true, ledger.Monitored},
		{"--off=waf", true, ""},
		{"--off=csrf", false, ledger.Refusal},
	}
	for _, row := range rows {
		t.Run(row.flag, func(t *testing.T) {
			m := harness.Serve(t, harness.Options{}, "--upstream", b.URL, row.flag)
			c := client(t, m, true)
			res, body := get(t, c, url(m, with("q", attack)))
			if row.passes && (res.StatusCode != 200 || body != "hello") {
				t.Errorf("got %d %s", res.StatusCode, body)
			}
			if !row.passes {
				refused(t, res, body, 403)
			}
			if row.passes && !strings.Contains(m.Output(), "weak") {
				t.Errorf("it does not say that this is weak:\n%s", m.Output())
			}
			verified(t, m, c) // what was recorded is on disk now
			list := events(t, m, "--id", res.Header.Get("X-Request-Id"))
			switch {
			case row.kind == "" && len(list) == 0:
			case row.kind != "" && len(list) == 1 && list[0].Kind == row.kind && list[0].Verdicts != nil:
			default:
				t.Errorf("events: %+v, want kind %q", list, row.kind)
			}
		})
	}
}

// Only the hosts of the file are answered for, on every listener.
func TestForeignHosts(t *testing.T) {
	t.Parallel()
	m := harness.Serve(t, harness.Options{}, "-c",
		configure(t, "sites:\n  - host: [localhost, shop.example.com]\n    upstream: "+backend(t, hello).URL+"\n"))
	plain := &http.Client{Timeout: 10 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	ask := func(t *testing.T, c *http.Client, target, host string) (*http.Response, string) {
		t.Helper()
		r := request(t, "GET", target, nil)
		r.Host = host
		return do(t, c, r)
	}
	for _, h2 := range []bool{false, true} {
		c := client(t, m, h2)
		if res, _ := get(t, c, url(m, "/")); res.StatusCode != 200 || res.ProtoMajor == 2 != h2 {
			t.Errorf("own host: %s %d", res.Proto, res.StatusCode)
		}
		res, body := ask(t, c, url(m, "/"), "evil.example")
		c.CloseIdleConnections()
		if id := refused(t, res, body, 421); event(t, m, id).Reason == "" {
			t.Error("the event gives no reason")
		}
	}
	t.Run("http redirects to own hosts only", func(t *testing.T) {
		for _, host := range []string{"localhost", "shop.example.com"} {
			res, _ := ask(t, plain, "http://"+m.HTTP+"/a?b=c", host)
			if to := res.Header.Get("Location"); res.StatusCode != 308 || !strings.HasPrefix(to, "https://"+host) || !strings.HasSuffix(to, "/a?b=c") {
				t.Errorf("%s: %d to %q", host, res.StatusCode, to)
			}
		}
		for _, host := range []string{"evil.example", "localhost.evil.example", "shop.example.com@evil.example"} {
			res, body := ask(t, plain, "http://"+m.HTTP+"/", host)
			if res.StatusCode < 400 || res.Header.Get("Location") != "" || strings.Contains(body, "hello") {
				t.Errorf("%s: %d to %q", host, res.StatusCode, res.Header.Get("Location"))
			}
		}
	})
	t.Run("admin", func(t *testing.T) {
		for path, part := range map[string]string{"/healthz": "ok", "/readyz": "ready", "/metrics": "merlon_"} {
			if res, body := ask(t, plain, "http://"+m.Admin+path, ""); res.StatusCode != 200 || !strings.Contains(body, part) {
				t.Errorf("%s: %d %.200s", path, res.StatusCode, body)
			}
			if res, body := ask(t, plain, "http://"+m.Admin+path, "evil.example"); res.StatusCode != 421 || strings.Contains(body, "merlon_") {
				t.Errorf("%s for a foreign host: %d %.200s", path, res.StatusCode, body)
			}
		}
		if res, _ := ask(t, plain, "http://"+m.Admin+"/debug/pprof/", ""); res.StatusCode != 404 {
			t.Errorf("profiles without telemetry.pprof: %d", res.StatusCode)
		}
	})
	verified(t, m, plain)
}
