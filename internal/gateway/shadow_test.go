package gateway_test

import (
	"fmt"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/merlon-dev/merlon/internal/gateway"
	"github.com/merlon-dev/merlon/ledger"
)

const shadowed = `
waf: {shadow: {paranoia: 4}}
sites:
  - host: shop.example.com
    upstream: BACKEND
    routes:
      - path: /lax/**
        waf: {shadow: {paranoia: 1, threshold: 1000}}
`

// A shadow's verdict is in the event and the metric, and the answer is that of
// the enforced configuration alone.
func TestShadowOfTheWAF(t *testing.T) {
	f := read(t, shadowed, newBackend(t, "app"))
	log, err := ledger.Open(f.Data, f.Ledger)
	if err != nil {
		t.Fatal(err)
	}
	m := gateway.NewMetrics(log, "test")
	g, err := gateway.New(f, gateway.Env{Log: slog.New(slog.DiscardHandler), Ledger: log, Metrics: m})
	if err != nil {
		t.Fatal(f.Explain(err))
	}
	gt := &gate{g, f.Data, log}
	const attack = "?q=x%27+UNION+SELECT+name+FROM+users+--+"
	for _, c := range []struct {
		target  string
		status  int
		verdict string
		kind    ledger.Kind
	}{
		{"/plain", 200, "same", ""},
		{"/strict?q=%7Bx%7D", 200, "stricter", ledger.Shadow},
		{"/both" + attack, 403, "same", ledger.Refusal},
		{"/lax/" + attack, 403, "laxer", ledger.Refusal},
	} {
		if res := gt.ask("GET", c.target, "shop.example.com", ""); res.StatusCode != c.status {
			t.Errorf("%s: %d", c.target, res.StatusCode)
		} else if c.status == 200 && !strings.HasPrefix(text(t, res), "app /") {
			t.Errorf("%s: the backend was not asked", c.target)
		}
	}
	for _, e := range gt.events(t) {
		var said []string
		for _, v := range e.Verdicts {
			if v.Guard == "waf" {
				said = append(said, fmt.Sprint(v.Shadow, " ", v.Effect))
			}
		}
		path, _, _ := strings.Cut(e.Path, "?")
		want := map[string]string{
			"/strict": "shadow [true deny false allow]", // and once more about the answer,
			"/both":   "refusal [true deny false deny]",
			"/lax/":   "refusal [true allow false deny]",
		}[path]
		if got := fmt.Sprint(e.Kind, " ", said); !strings.HasPrefix(got, strings.TrimSuffix(want, "]")) || want == "" {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
		if path == "/strict" && !strings.HasPrefix(e.Remedy, "waf:\n  shadow:\n    exclude:\n      - {rule: ") {
			t.Errorf("the remedy is not for the shadow:\n%s", e.Remedy)
		}
	}
	w := httptest.NewRecorder()
	promhttp.HandlerFor(m.Registry, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{
		`merlon_shadow_total{guard="waf",route="",site="shop.example.com",verdict="same"} 2`,
		`merlon_shadow_total{guard="waf",route="",site="shop.example.com",verdict="stricter"} 1`,
		`merlon_shadow_total{guard="waf",route="/lax/**",site="shop.example.com",verdict="laxer"} 1`,
	} {
		if !strings.Contains(w.Body.String(), want+"\n") {
			t.Errorf("no %s", want)
		}
	}
	if strings.Contains(w.Body.String(), "merlon_monitored_total{") {
		t.Error("a shadow is counted as monitored")
	}
}

// The rest of a long form goes on as without the shadow, though the shadow
// would have refused it.
func TestShadowLeavesLongFormsAlone(t *testing.T) {
	f := read(t, "waf: {limit: 4KiB, shadow: {paranoia: 2, arguments: 1}}\n"+shop, newBackend(t, "app"))
	g := open(t, f)
	const boundary = "xxxxxxxx"
	part := func(name, value string) string {
		return "--" + boundary + "\r\nContent-Disposition: form-data; name=\"" + name + "\"" + "\r\n\r\n" + value + "\r\n"
	}
	body := part("a", "b") + "--" + boundary + "\r\nContent-Disposition: form-data; name=\"f\"; filename=\"f.txt\"\r\nContent-Type: text/plain\r\n\r\n" +
		strings.Repeat("some text ", 100_000) + "\r\n" + part("c", "d") + "--" + boundary + "--\r\n"
	hr := httptest.NewRequest("POST", "/upload", strings.NewReader(body))
	hr.Host = "shop.example.com"
	hr.Header.Set("User-Agent", "test/1.0")
	hr.Header.Set("Accept", "*/*")
	hr.Header.Set("Content-Type", "multipart/form-data; boundary="+boundary)
	w := httptest.NewRecorder()
	g.ServeHTTP(w, hr)
	if w.Code != 200 || !strings.HasSuffix(w.Body.String(), body) {
		t.Fatalf("%d, %d bytes of %d", w.Code, w.Body.Len(), len(body))
	}
	for _, e := range g.events(t) {
		for _, v := range e.Verdicts {
			if v.Guard == "waf" && v.Effect.String() != "allow" {
				t.Errorf("the shadow saw what streamed: %+v", v)
			}
		}
	}
}

func TestShadowsAreChecked(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"waf: {shadow: {paranoia: 9}}", `merlon.yaml:1:26: waf.shadow.paranoia "9": must be from 1 to 4`},
		{"waf: {shadow: {shadow: {}}}", `merlon.yaml:1:16: waf.shadow.shadow: must not be set: a shadow is`},
		{"waf: {paranoia: 9, shadow: {threshold: 3}}", `merlon.yaml:1:17: waf.paranoia "9": must be from 1 to 4`},
	} {
		f := read(t, c.text+"\n"+shop, "http://127.0.0.1:1")
		_, err := gateway.New(f, gateway.Env{Log: slog.New(slog.DiscardHandler)})
		if got := f.Explain(err).Error(); !strings.HasPrefix(got, c.want) || strings.Contains(got, "\n") {
			t.Errorf("%s: got %s, want %s", c.text, got, c.want)
		}
	}
	f := read(t, "waf: {shadow: {paranoia: 2}}\n"+shop, "http://127.0.0.1:1")
	g, err := gateway.New(f, gateway.Env{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(f.Explain(err))
	}
	if weak := g.Weak(); len(weak) != 1 || !strings.HasPrefix(weak[0], "waf.shadow: records what it would refuse") {
		t.Errorf("weak is %q", weak)
	}
	if s := strings.Join(g.Sites()[0].Guards, ", "); s != "ban, origin, decoy, limit, challenge, waf (shadow), waf, csrf" {
		t.Errorf("the guards are %s", s)
	}
}
