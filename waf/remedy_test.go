package waf_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/merlontest"
	"github.com/merlon-dev/merlon/waf"
)

// apply puts a remedy into a configuration, as an operator would.
func apply(t *testing.T, remedy string) waf.Config {
	t.Helper()
	var site struct {
		WAF waf.Config `yaml:"waf"`
	}
	if err := yaml.UnmarshalWithOptions([]byte(remedy), &site, yaml.Strict()); err != nil {
		t.Fatalf("the remedy is not YAML: %v\n%s", err, remedy)
	}
	return site.WAF
}

// With its remedy a request passes, and its neighbour is refused as before.
func TestRemedies(t *testing.T) {
	g := newGuard(t, waf.Config{Limit: 16 * merlon.KiB})
	const attack = "x' UNION SELECT name FROM users -- "
	odd := `a b"c'd|e,f[0]/ü`
	for _, c := range []struct {
		name, request, body string
		neighbour, other    string // the same attack elsewhere
		part                string
	}{
		{name: "query parameter", request: get(attack), neighbour: "GET /search?p=" + url.QueryEscape(attack) + "\n" + browser, part: `query parameter "q"`},
		{name: "odd name", request: "GET /?" + url.QueryEscape(odd) + "=" + url.QueryEscape(attack) + "\n" + browser,
			neighbour: "GET /?" + url.QueryEscape(odd+"x") + "=" + url.QueryEscape(attack) + "\n" + browser, part: `query parameter "a b`},
		{name: "form field", request: typed("application/x-www-form-urlencoded"), body: "Text=" + url.QueryEscape(attack), other: "Title=" + url.QueryEscape(attack), part: `form field "Text"`},
		{name: "JSON field", request: typed("application/json"), body: `{"a": [{"B": "` + attack + `"}]}`, other: `{"a": [1, {"B": "` + attack + `"}]}`, part: `JSON field "a.0.B"`},
		{name: "multipart field", request: typed(formType), body: field("text", attack) + endOfForm, other: field("title", attack) + endOfForm, part: `multipart field "text"`},
		{name: "cookie", request: "GET /\n" + browser + "Cookie: c=<script>alert(1)</script>\n", neighbour: "GET /\n" + browser + "Cookie: d=<script>alert(1)</script>\n", part: `cookie "c"`},
		{name: "header", request: "GET /\n" + browser + "Referer: https://a.example/<script>alert(1)</script>\n", neighbour: get(attack), part: `header "Referer"`},
		{name: "XML", request: typed("text/xml"), body: "<a>" + attack + "</a>", neighbour: get(attack), part: "XML text"},
		{name: "file name", request: typed(formType), body: file("f", "shell.php", "x") + endOfForm, neighbour: get(attack), part: "file name"},
		{name: "path", request: "GET /.git/config\n" + browser, neighbour: get("/etc/passwd"), part: "request line"},
		{name: "method", request: "PROPFIND /\n" + browser, neighbour: get(attack), part: "request"},
		{name: "no type", request: "POST /\n" + browser, body: "hello", neighbour: get(attack), part: `header "Content-Type"`},
		{name: "unknown type", request: typed("application/x-custom"), body: "hello", neighbour: get(attack), part: `header "Content-Type"`},
		{name: "DTD", request: typed("text/xml"), body: "<!DOCTYPE a><a/>", neighbour: get(attack), part: "body"},
		{name: "long", request: typed("application/json"), body: `"` + strings.Repeat("a ", 10<<10) + `"`, neighbour: get(attack), part: "body"},
		{name: "many", request: typed("application/json"), body: "[" + strings.Repeat("1,", 1200) + "1]", neighbour: get(attack), part: "body"},
		{name: "many in the query", request: "GET /?" + strings.Repeat("a=1&", 1200) + "a=1\n" + browser, neighbour: get(attack), part: "query string"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ask := func(g *waf.Guard, wire, body string) merlon.Decision {
				r := merlontest.Request(t, wire)
				if body != "" {
					setBody(r, body)
				}
				d := g.Check(r)
				g.Done(r, merlon.Outcome{})
				return d
			}
			d := ask(g, c.request, c.body)
			if d.Passed() || d.Remedy == "" {
				t.Fatalf("%s %q, remedy %q", d.Effect, d.Reason, d.Remedy)
			}
			if len(d.Findings) == 0 || !strings.HasPrefix(d.Findings[0].Part, c.part) {
				t.Errorf("the part is not named %s: %+v", c.part, d.Findings)
			}
			mended := newGuard(t, apply(t, d.Remedy))
			if d := ask(mended, c.request, c.body); !d.Passed() {
				t.Errorf("still refused: %s %+v %v", d.Reason, d.Findings, d.Err)
			}
			if c.other != "" {
				c.neighbour = c.request
			}
			if d := ask(mended, c.neighbour, c.other); d.Passed() {
				t.Errorf("the neighbour passes, too")
			}
		})
	}
}

// Remedies name no more rules than must be named.
// A client that names its parameter * gets no remedy that opens all of them.
func TestRemedyNamesAStar(t *testing.T) {
	attack := func(name string) *merlon.Request {
		return merlontest.Request(t, "GET /?"+url.QueryEscape(name)+"="+url.QueryEscape("x' UNION SELECT name FROM users -- ")+"\n"+browser)
	}
	for _, name := range []string{"*", `a\*b`, `a\`, "a*"} {
		d := newGuard(t, waf.Config{}).Check(attack(name))
		if d.Passed() {
			t.Fatalf("%s passes", name)
		}
		g := newGuard(t, apply(t, d.Remedy))
		if d := g.Check(attack(name)); !d.Passed() {
			t.Errorf("%s is still refused: %+v", name, d.Findings)
		}
		if d := g.Check(attack("abc")); d.Passed() {
			t.Errorf("the remedy for %s opens abc", name)
		}
	}
}

func TestRemedyIsSmall(t *testing.T) {
	g := newGuard(t, waf.Config{Threshold: 12})
	r := merlontest.Request(t, get("x' UNION SELECT name FROM users -- "))
	d := g.Check(r)
	if d.Passed() {
		t.Fatal("passed")
	}
	all := len(d.Findings) - 1
	c := apply(t, d.Remedy)
	named := 0
	for _, x := range c.Exclude {
		named += len(x.Rule)
	}
	if named == 0 || named >= all {
		t.Errorf("%d rules of %d are excluded:\n%s", named, all, d.Remedy)
	}
	c.Threshold = 12
	if d := newGuard(t, c).Check(merlontest.Request(t, get("x' UNION SELECT name FROM users -- "))); !d.Passed() {
		t.Errorf("still refused: %+v", d.Findings)
	}
}

func TestFindings(t *testing.T) {
	g := newGuard(t, waf.Config{})
	ask := func(wire string) merlon.Decision { return g.Check(merlontest.Request(t, wire)) }

	d := ask("GET /?password=" + url.QueryEscape("hunter2' OR '1'='1") + "&api_key=k%27+OR+1%3D1--\n" + browser)
	if s := fmt.Sprint(d.Findings); d.Passed() || strings.Contains(s, "hunter2") || strings.Contains(s, "k'") {
		t.Errorf("a secret is shown: %s", s)
	}
	d = ask(get("<script>" + strings.Repeat("alert(1);", 500) + "\xff</script>"))
	for _, f := range d.Findings {
		if len(f.Value) > 200 || strings.Contains(f.Value, "\xff") {
			t.Errorf("not fit for a record: %q", f.Value)
		}
	}
	var many []string
	for i := range 30 {
		many = append(many, fmt.Sprintf("a%d=%%3Cscript%%3E", i))
	}
	d = ask("GET /?" + strings.Join(many, "&") + "\n" + browser)
	if len(d.Findings) != 11 || d.Findings[10].Rule != "score" {
		t.Errorf("%d findings: %+v", len(d.Findings), d.Findings)
	}
}

func TestExclusions(t *testing.T) {
	attack := get("<script>alert(1)</script>")
	run(t, waf.Config{Exclude: []waf.Exclude{{Tag: "attack-xss"}, {Tag: "attack-rce"}, {Tag: "attack-injection-php"}}}, []merlontest.Case{
		{Name: "rules off by tag", Request: get("<script>location</script>"), Want: waf.Clean},
		{Name: "others are on", Request: get("' OR '1'='1"), Want: waf.Attack, Status: 403},
	})
	run(t, waf.Config{Exclude: []waf.Exclude{{Tag: "OWASP_CRS", Target: waf.Args, Name: "json.items.*.html"}}}, []merlontest.Case{
		{Name: "any item", Request: post("application/json", `{"items": [{}, {"html": "<script>alert(1)</script>"}]}`), Want: waf.Clean},
		{Name: "other field", Request: post("application/json", `{"items": [{"text": "<script>alert(1)</script>"}]}`), Want: waf.Attack, Status: 403},
		{Name: "query", Request: attack, Want: waf.Attack, Status: 403},
	})
	run(t, waf.Config{Exclude: []waf.Exclude{{Tag: "OWASP_CRS", Target: waf.Args}}}, []merlontest.Case{
		{Name: "whole target", Request: attack, Want: waf.Clean},
		{Name: "names are another", Request: "GET /?%3Cscript%3Ealert(1)%3C/script%3E=1\n" + browser, Want: waf.Attack, Status: 403},
	})
	run(t, waf.Config{Exclude: []waf.Exclude{{Tag: "attack-xss"}, {Rule: waf.RuleIDs{941110}, Target: waf.Args}}}, []merlontest.Case{
		{Name: "off wholly and in part", Request: get("<script>location</script>"), Want: waf.Clean},
	})
}
