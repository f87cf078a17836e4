package engine

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/merlon-dev/merlon/test/corpus"
	"github.com/merlon-dev/merlon/waf/internal/coraza"
	"github.com/merlon-dev/merlon/waf/internal/message"
	"github.com/merlon-dev/merlon/waf/internal/ruleset"
	"github.com/merlon-dev/merlon/waf/internal/seclang"
)

func sources(level int) []ruleset.Source {
	return []ruleset.Source{
		{Text: "Include @coraza.conf-recommended\nSecAction \"id:99000,phase:1,pass,nolog,t:none,setvar:'tx.blocking_paranoia_level=" + fmt.Sprint(level) + "'\"\nSecRxPreFilter Off\nInclude @crs-setup.conf.example\n"},
		{Text: "Include @owasp_crs/*.conf"},
		{Text: "SecRuleEngine On\nSecAuditEngine Off\nSecRequestBodyAccess On\nSecResponseBodyAccess On\n"},
	}
}

func native(t testing.TB, src []ruleset.Source) *Engine {
	t.Helper()
	var list []seclang.Source
	for _, s := range src {
		list = append(list, seclang.Source{Name: s.Name, Text: s.Text})
	}
	rs, err := seclang.Parse(ruleset.Files{}, list...)
	if err != nil {
		t.Fatal(err)
	}
	e, err := New(rs)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func toMessage(hr *http.Request) *message.Request {
	m := &message.Request{Client: "192.0.2.1", Port: 40000, Method: hr.Method, URI: hr.RequestURI, Proto: hr.Proto, Host: hr.Host}
	m.Header = append(m.Header, message.Pair{Name: "Host", Value: hr.Host})
	var names []string
	for k := range hr.Header {
		names = append(names, k)
	}
	sort.Strings(names)
	for _, k := range names {
		for _, v := range hr.Header[k] {
			m.Header = append(m.Header, message.Pair{Name: k, Value: v})
		}
	}
	b, _ := io.ReadAll(hr.Body)
	if len(b) > 0 && strings.Contains(hr.Header.Get("Content-Type"), "urlencoded") {
		m.Body.Kind = message.Form
		m.Body.Text = string(b)
		for f := range strings.SplitSeq(string(b), "&") {
			if f == "" {
				continue
			}
			k, v, _ := strings.Cut(f, "=")
			tr := &transaction{}
			m.Body.Args = append(m.Body.Args, message.Pair{Name: strings.Clone(tr.unescape(k)), Value: strings.Clone(tr.unescape(v))})
		}
	}
	return m
}

func TestSmoke(t *testing.T) {
	for _, level := range []int{1, 2, 3, 4} {
		t.Run(fmt.Sprint(level), func(t *testing.T) { smoke(t, level) })
	}
}

func smoke(t *testing.T, level int) {
	src := sources(level)
	e := native(t, src)
	o, err := coraza.New(src)
	if err != nil {
		t.Fatal(err)
	}
	list, err := corpus.CRS()
	if err != nil {
		t.Fatal(err)
	}
	n, bad, clean := 0, 0, 0
	for i := 0; i < len(list); i += 7 {
		hr, err := list[i].HTTP()
		if err != nil {
			continue
		}
		m := toMessage(hr)
		x, v, err := e.Request(m)
		if err != nil {
			t.Fatal(err)
		}
		if !x.(*transaction).dirty {
			clean++
		}
		x.Close()
		ox, ov, err := o.Request(m)
		if err != nil {
			t.Fatal(err)
		}
		ox.Close()
		n++
		mine, theirs := visible(e, v.Fired), visible(e, ov.Fired)
		if v.Deny != ov.Deny || v.Score != ov.Score || !slices.Equal(mine, theirs) {
			if bad++; bad < 10 {
				t.Errorf("%s: %s %q\nnative deny %v score %d %v\ncoraza deny %v score %d %v", list[i].ID, m.Method, m.URI, v.Deny, v.Score, mine, ov.Deny, ov.Score, theirs)
			}
		}
	}
	t.Logf("%d requests, %d different, %d clean", n, bad, clean)
}

func visible(e *Engine, ids []int) []int {
	var out []int
	for _, id := range ids {
		if e.Visible(id) {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

func TestStats(t *testing.T) {
	for _, level := range []int{1, 2, 3, 4} {
		e := native(t, sources(level))
		for phase, ops := range e.phases {
			var kept, always, noeffect, assign, sep int
			var alw []int
			for _, o := range ops {
				if o.rule == nil {
					assign++
					continue
				}
				kept++
				if o.rule.always {
					always++
					alw = append(alw, o.rule.id)
				}
				if !o.rule.effect {
					noeffect++
				}
				if o.rule.separate {
					sep++
				}
			}
			t.Log(level, phase, "kept", kept, "always", always, alw, "noeffect", noeffect, "sep", sep, "assign", assign)
		}
		var whole []int
		for _, r := range e.inbound.whole {
			whole = append(whole, r.id)
		}
		t.Log("classes", len(e.inbound.classes), "checks", e.checks, "whole", whole, "demand", e.requestAll, e.respondAll, "nodes", len(e.nodes), "lits", len(e.inbound.refs), "prelude", len(e.prelude))
	}
}
