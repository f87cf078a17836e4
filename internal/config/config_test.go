package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/internal/config"
	"github.com/merlon-dev/merlon/waf"
)

func parse(t *testing.T, text string) *config.File {
	t.Helper()
	f, err := config.Parse("f", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestMistakesHaveAPlace(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"an unknown setting", "a: 1", "f:1:1: a: unknown setting; known here: "},
		{"an unknown setting deep down", "limit:\n  concurrent:\n    a: 1", "f:3:5: limit.concurrent.a: unknown setting; known here: client, route"},
		{"a setting that stands twice", "data: a\ndata: b", "f:2:1: data: is set twice"},
		{"a section that stands twice", "waf: {}\nwaf: {}", "f:2:1: waf: is set twice"},
		{"an anchor", "data: &a x", "f:1:7: data: must be written out"},
		{"an alias", "data: *a", "f:1:7: data: must be written out"},
		{"a merge key", "listen:\n  <<: {https: x}", "f:2:3: listen.<<: unknown setting"},
		{"text for a number", "max_streams: many", `f:1:14: max_streams "many": must be a whole number`},
		{"a fraction for a number", "max_streams: 1.5", `f:1:14: max_streams "1.5": must be a whole number`},
		{"text for a truth value", "proxy_protocol: maybe", `f:1:17: proxy_protocol "maybe": must be true or false`},
		{"a list for text", "data: [a]", "f:1:7: data: must be text"},
		{"a mapping for text", "data: {a: b}", "f:1:7: data: must be text, in quotes if it holds a colon"},
		{"a bad duration", "idle_timeout: soon", `f:1:15: idle_timeout "soon": must be a duration such as 30s, 5m or 1h`},
		{"a duration without a unit", "idle_timeout: 30", `f:1:15: idle_timeout "30": must be a duration such as 30s, 5m or 1h`},
		{"a bad size", "max_header: 12 apples", `f:1:13: max_header "12 apples": must be a whole number of bytes such as 512KiB, 1MiB or 2GiB`},
		{"one value for a list", "monitor: waf", `f:1:10: monitor "waf": must be a list`},
		{"one value for a section", "limit: 12", `f:1:8: limit "12": must be settings of the form key: value`},
		{"a list for a section", "csrf: [a]", "f:1:7: csrf: must be settings of the form key: value"},
		{"a list at the top", "- a", "f:1:1: must be settings of the form key: value"},
		{"text at the top", "hello", "f:1:1: must be settings of the form key: value"},
		{"line ends of two characters", "data: \"a\r\n  b\"\r\n# c\r\nx: 1", "f:4:1: x: unknown setting"},
		{"broken syntax", "sites:\n  - host: a\n  upstream: x", "f:3:3: "},
		{"several documents", "data: a\n---\ndata: b", "f:3:1: must be one YAML document, not several"},
		{"a host that is a mapping", "sites: [{host: {a: b}}]", "f:1:17: sites[0].host: must be text or a list of texts"},
		{"an address that the library splits", "sites: [{upstream: {to: [http://127.0.0.1:1]}}]", "f:1:42: sites[0].upstream.to[0]: must be text, in quotes if it holds a colon"},
		{"a backend among several that is none", "sites: [{upstream: {to: {a: b}}}]", "f:1:26: sites[0].upstream.to: must be a list"},
		{"a rule that is no number", "waf: {exclude: [{rule: x}]}", `f:1:24: waf.exclude[0].rule "x": must be a whole number or a list of them`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := config.Parse("f", []byte(c.text))
			problems, ok := errors.AsType[config.Problems](err)
			if !ok || len(problems) != 1 {
				t.Fatalf("%v: want one problem", err)
			}
			if got := problems[0].Error(); !strings.HasPrefix(got, c.want) {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestMistakesComeInTheOrderOfTheFile(t *testing.T) {
	_, err := config.Parse("f", []byte("max_streams: a\nb: 1\nsites:\n  - {upstream: {c: 1, to: x, d: 2}}\nidle_timeout: e"))
	want := []string{"max_streams", "b", "sites[0].upstream.c", "sites[0].upstream.to", "sites[0].upstream.d", "idle_timeout"}
	problems, _ := errors.AsType[config.Problems](err)
	var got []string
	for _, p := range problems {
		got = append(got, p.Setting)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestSecretInTheFileIsNotRepeated(t *testing.T) {
	for _, text := range []string{"hunter2", "'env:'", "hunter2:x", "{hunter2: x}", "[hunter2]", `"hunter2\n"`} {
		_, err := config.Parse("f", []byte("sites: [{upstream: {to: ['http://127.0.0.1:1'], sticky: {key: "+text+"}}}]"))
		if err == nil || !strings.Contains(err.Error(), "never the secret itself") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", text, err)
		}
	}
	f := parse(t, "sites: [{upstream: {to: ['http://127.0.0.1:1'], sticky: {key: 'env:KEY'}}}]")
	if k := f.Sites[0].Upstream.Sticky.Key; k != "env:KEY" {
		t.Errorf("a reference became %q", k)
	}
}

func TestShortForms(t *testing.T) {
	f := parse(t, "sites:\n  - {host: a, upstream: http://b}\n  - {host: [a, b], upstream: [http://c, http://d]}\n  - {upstream: {to: [http://e]}}\n")
	for i, want := range []struct{ host, to []string }{{[]string{"a"}, []string{"http://b"}}, {[]string{"a", "b"}, []string{"http://c", "http://d"}}, {nil, []string{"http://e"}}} {
		s := f.Sites[i]
		if !reflect.DeepEqual([]string(s.Host), want.host) || !reflect.DeepEqual(s.Upstream.To, want.to) {
			t.Errorf("site %d: %q %q", i, s.Host, s.Upstream.To)
		}
	}
}

func TestNothingIsAFile(t *testing.T) {
	for _, text := range []string{"", "# nothing", "---\n", "listen:\nwaf:\n"} {
		if f := parse(t, text); f.WAF != nil || f.Listen != (config.Listen{}) {
			t.Errorf("%q: %+v", text, f)
		}
	}
}

func TestLoadIsBounded(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(name, []byte(strings.Repeat("# no\n", 1<<20)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := config.Load(name); err == nil || !strings.Contains(err.Error(), "is larger than 4 MiB") {
		t.Error(err)
	}
}

const inherited = `
monitor: [waf]
limit: {rate: 10/s, burst: 20, hide_headers: true, concurrent: {client: 3, route: 30}}
waf: {paranoia: 2, exclude: [{rule: 1}]}
sites:
  - off: [csrf]
    limit: {burst: 40, concurrent: {client: 4}}
    waf: {exclude: [{rule: 2}]}
    routes:
      - path: /a
        monitor: []
        limit: {burst: 0, hide_headers: false}
        waf: {paranoia: 1, exclude: [{rule: 3}]}
      - path: /b
        limit:
`

func TestGuardsInherit(t *testing.T) {
	f := parse(t, inherited)
	site := f.Sites[0].Guards.Under(f.Guards)
	a := f.Sites[0].Routes[0].Guards.Under(site)
	b := f.Sites[0].Routes[1].Guards.Under(site)
	rules := func(g config.Guards) (all []int) {
		for _, e := range g.WAF.Exclude {
			all = append(all, e.Rule...)
		}
		return all
	}
	for _, c := range []struct {
		name      string
		got, want any
	}{
		{"what only the top says holds on the site", site.Monitor, []string{"waf"}},
		{"and setting by setting within a section", site.Limit.Rate, f.Limit.Rate},
		{"what the site says goes before the top", site.Limit.Burst, 40},
		{"also deep down", site.Limit.Concurrent.Client, 4},
		{"beside what the top says", site.Limit.Concurrent.Route, 30},
		{"exclusions add up, the top's first", rules(site), []int{1, 2}},
		{"and on the route", rules(a), []int{1, 2, 3}},
		{"the route goes before both", a.WAF.Paranoia, 1},
		{"a route takes what is two levels up", a.Limit.Rate, f.Limit.Rate},
		{"an empty list that is written holds", a.Monitor, []string{}},
		{"so does a zero", a.Limit.Burst, 0},
		{"and a false", a.Limit.HideHeaders, false},
		{"a key with nothing behind it says nothing", b.Limit.HideHeaders, true},
		{"nor does a route that says nothing", b.Off, []string{"csrf"}},
		{"the outer settings are not changed", rules(f.Guards), []int{1}},
		{"nor the site's", f.Sites[0].WAF.Paranoia, 0},
	} {
		if !reflect.DeepEqual(c.got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, c.got, c.want)
		}
	}
}

// A shadow is the WAF's own configuration with what it sets changed.
func TestShadow(t *testing.T) {
	f := parse(t, `
waf: {paranoia: 1, threshold: 7, ignore_responses: false, verify: 0.5, exclude: [{rule: 1}], rules: [a]}
sites:
  - waf: {threshold: 9, exclude: [{rule: 2}], shadow: {paranoia: 3, rules: [], exclude: [{rule: 3}]}}
    routes:
      - path: /a
        waf: {limit: 2MiB, shadow: {paranoia: 4}}
      - path: /b
        waf: {shadow: {shadow: {}}}
`)
	if f.Guards.Shadow() != nil {
		t.Error("a shadow where none is")
	}
	site := f.Sites[0].Guards.Under(f.Guards)
	want := waf.Config{Paranoia: 3, Threshold: 9, IgnoreResponses: true, Rules: []string{},
		Exclude: []waf.Exclude{{Rule: waf.RuleIDs{1}}, {Rule: waf.RuleIDs{2}}, {Rule: waf.RuleIDs{3}}}}
	if got := site.Shadow(); !reflect.DeepEqual(*got, want) {
		t.Errorf("the site's shadow is %+v, want %+v", *got, want)
	}
	want.Paranoia, want.Limit = 4, 2*merlon.MiB
	a := f.Sites[0].Routes[0].Guards.Under(site)
	if got := a.Shadow(); !reflect.DeepEqual(*got, want) {
		t.Errorf("the route's shadow is %+v, want %+v", *got, want)
	}
	if b := f.Sites[0].Routes[1].Guards.Under(site).Shadow(); b.Shadow == nil || b.Paranoia != 3 {
		t.Errorf("a shadow's shadow, which is a mistake, is lost: %+v", *b)
	}
}

func TestExplainFindsWhereASettingIsWritten(t *testing.T) {
	f := parse(t, inherited)
	for _, c := range []struct{ name, setting, want string }{
		{"on the route", "sites[0].routes[0].waf.paranoia", "f:13:25: sites[0].routes[0].waf.paranoia"},
		{"on the site", "sites[0].routes[0].off[0]", "f:6:11: sites[0].off[0]"},
		{"at the top", "sites[0].routes[1].limit.rate", "f:3:15: limit.rate"},
		{"at the top, for the site", "sites[0].waf.paranoia", "f:4:17: waf.paranoia"},
		{"an exclusion of the top", "sites[0].routes[0].waf.exclude[0].rule", "f:4:37: waf.exclude[0].rule"},
		{"an exclusion of the site", "sites[0].routes[0].waf.exclude[1].rule", "f:8:28: sites[0].waf.exclude[0].rule"},
		{"an exclusion of the route", "sites[0].routes[0].waf.exclude[2].rule", "f:13:45: sites[0].routes[0].waf.exclude[0].rule"},
		{"what is missing, where it is missing", "sites[0].routes[1].upstream", "f:14:9: sites[0].routes[1].upstream"},
		{"what is nowhere, without a line", "tls.files", "f:2:1: tls.files"},
	} {
		got := f.Explain(merlon.BadSetting(c.setting, "", "no"))
		if len(got) != 1 || got[0].Error() != c.want+": no" {
			t.Errorf("%s: got %v, want %s", c.name, got, c.want)
		}
	}
}

func TestExplainTellsOnce(t *testing.T) {
	text := "limit: {burst: x}\nsites: [{host: a}, {host: b}]"
	f, err := config.Parse("f", []byte(text))
	if f == nil || err == nil {
		t.Fatal(f, err)
	}
	got := f.Explain(errors.Join(err,
		merlon.BadSetting("sites[0].limit.burst", "0", "about a value that nobody wrote"),
		merlon.Within("sites[0]", errors.Join(merlon.BadSetting("host", "a", "one"), merlon.BadSetting("host", "a", "two"))),
		errors.New("no setting")))
	want := "f: no setting\nf:1:16: limit.burst \"x\": must be a whole number\nf:2:16: sites[0].host \"a\": one\nf:2:16: sites[0].host \"a\": two"
	if got.Error() != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestDefaults(t *testing.T) {
	t.Setenv("XDG_DATA_HOME", "/x")
	f := &config.File{Listen: config.Listen{HTTP: "off"}}
	if err := f.Defaults(); err != nil {
		t.Fatal(err)
	}
	if want := (config.Listen{HTTPS: "127.0.0.1:8443", Admin: "127.0.0.1:9443"}); f.Listen != want || f.Data != "/x/merlon" {
		t.Errorf("%+v %q", f.Listen, f.Data)
	}
}

func TestReasonText(t *testing.T) {
	for _, c := range []struct{ guard, reason, want string }{
		{"csrf", "cross-site", "Another site's page"},
		{"waf", "guard-failed", "The guard could not decide"},
		{"waf", "no-such-reason", ""},
	} {
		if got := config.ReasonText(c.guard, c.reason); !strings.HasPrefix(got, c.want) || (c.want == "") != (got == "") {
			t.Errorf("%s/%s: %q", c.guard, c.reason, got)
		}
	}
}

// FuzzParse: whatever the text, reading it ends, does not panic, and every
// mistake has a rule and, if it has a place, one within the text.
func FuzzParse(f *testing.F) {
	f.Add(inherited)
	f.Add("sites: [{upstream: {to: &a [*a]}}]\n---\nx: y")
	f.Add("waf: {exclude: [{rule: [1, a], target: args}]}\nidle_timeout: 5m\nmax_header: 1MiB")
	f.Add("? [a]\n: {b: c}\n!!binary x: |\n  y")
	f.Add("sites: [{host: {<<: {a: b}}}]")
	f.Fuzz(func(t *testing.T, text string) {
		began := time.Now()
		file, err := config.Parse("f", []byte(text))
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("took %v", took)
		}
		if (file == nil) && err == nil {
			t.Fatal("neither a file nor an error")
		}
		problems, ok := errors.AsType[config.Problems](err)
		if err != nil && (!ok || len(problems) == 0) {
			t.Fatalf("an error without problems: %v", err)
		}
		lines := strings.Count(text, "\n") + strings.Count(text, "\r") + 1
		for _, p := range problems {
			if p.Rule == "" || p.Line > lines+1 {
				t.Errorf("%+v in %d lines", p, lines)
			}
		}
		if file != nil {
			for i := range file.Sites {
				file.Sites[i].Guards.Under(file.Guards)
			}
		}
	})
}
