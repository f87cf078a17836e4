package coraza_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/merlon-dev/merlon/waf/internal/coraza"
	"github.com/merlon-dev/merlon/waf/internal/message"
	"github.com/merlon-dev/merlon/waf/internal/ruleset"
)

const rules = `SecRuleEngine On
SecRequestBodyAccess On
SecResponseBodyAccess On
SecResponseBodyMimeType text/html
SecAction "id:1,phase:1,pass,nolog,setvar:tx.inbound_anomaly_score_threshold=5"
SecRule ARGS "@streq a" "id:2,phase:2,pass,log,msg:'%{MATCHED_VAR_NAME} is a',tag:'t',severity:'CRITICAL',setvar:'tx.inbound_anomaly_score_pl1=+5',setvar:'tx.blocking_inbound_anomaly_score=+5'"
SecRule TX:blocking_inbound_anomaly_score "@ge 10" "id:949110,phase:2,deny,log,status:403"
SecRule RESPONSE_BODY "@contains secret" "id:4,phase:4,deny,log,status:502"
`

func engine(t *testing.T, more ...ruleset.Source) message.Engine {
	t.Helper()
	e, err := coraza.New(append([]ruleset.Source{{Text: rules}}, more...))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// ask judges a form.
func ask(t *testing.T, e message.Engine, args ...message.Pair) (message.Exchange, message.Verdict) {
	t.Helper()
	x, v, err := e.Request(&message.Request{Client: "192.0.2.1", Method: "POST", URI: "/", Proto: "HTTP/1.1", Body: message.Body{Kind: message.Form, Args: args}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(x.Close)
	return x, v
}

func TestVerdict(t *testing.T) {
	e := engine(t)
	if info := e.Rules()[2]; info.Score != 5 || !slices.Equal(info.Tags, []string{"t"}) {
		t.Errorf("%+v", info)
	}
	a := message.Pair{Name: "x", Value: "a"}
	for _, c := range []struct {
		name  string
		args  []message.Pair
		want  message.Verdict
		spots int
	}{
		{"nothing", nil, message.Verdict{Threshold: 5, Fired: []int{1}}, 0},
		{"one", []message.Pair{a}, message.Verdict{Score: 5, Threshold: 5, Fired: []int{1, 2}}, 1},
		{"two of a name", []message.Pair{a, a}, message.Verdict{Deny: true, By: 949110, Score: 10, Threshold: 5, Fired: []int{1, 2, 949110}}, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, v := ask(t, e, c.args...)
			if v.Deny != c.want.Deny || v.By != c.want.By || v.Score != c.want.Score || v.Threshold != c.want.Threshold || !slices.Equal(v.Fired, c.want.Fired) {
				t.Errorf("%+v, want %+v", v, c.want)
			}
			var spots []message.Spot
			for _, h := range v.Hits {
				spots = append(spots, h.Spots...)
			}
			if len(spots) != c.spots {
				t.Fatalf("%d spots, want %d", len(spots), c.spots)
			}
			for _, s := range spots {
				if s != (message.Spot{Target: message.Args, Name: "x", Value: "a", Head: true}) {
					t.Errorf("%+v", s)
				}
			}
		})
	}
}

func TestResponse(t *testing.T) {
	for body, deny := range map[string]bool{"a secret": true, "nothing": false, "": false} {
		x, _ := ask(t, engine(t))
		a := &message.Response{Status: 200, Proto: "HTTP/1.1", Header: []message.Pair{{Name: "Content-Type", Value: "text/html"}}}
		if body != "" {
			a.Body = []byte(body)
		}
		v, err := x.Response(a)
		if err != nil || v.Deny != deny || deny != slices.Equal(v.Fired, []int{4}) {
			t.Errorf("%q: %+v, %v", body, v, err)
		}
	}
}

// A chain may go on in the next directive, a removed rule is gone.
func TestSources(t *testing.T) {
	own := ruleset.Source{Setting: "rules[0]", Path: "own.conf", Name: "/own.conf", Text: "SecRule ARGS \"@streq b\" \"id:5,phase:2,deny,chain\"\nSecRule ARGS \"@streq c\"\n"}
	b, c := message.Pair{Name: "x", Value: "b"}, message.Pair{Name: "y", Value: "c"}
	if _, v := ask(t, engine(t, own), b, c); !v.Deny || v.By != 5 {
		t.Errorf("the chain does not match: %+v", v)
	}
	if _, v := ask(t, engine(t, own), b); v.Deny {
		t.Errorf("half of the chain matches: %+v", v)
	}
	if _, v := ask(t, engine(t, own, ruleset.Source{Text: "SecRuleRemoveById 5"}), b, c); v.Deny {
		t.Errorf("the rule is still there: %+v", v)
	}
	own.Text = "\nSecRule ARGS \"@streq b\" \\\n\"id:5,phase:2,what\"\n"
	if _, err := coraza.New([]ruleset.Source{own}); err == nil || !strings.Contains(err.Error(), `rules[0] "own.conf:2": `) {
		t.Errorf("error %v", err)
	}
}
