package waf_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/merlontest"
	"github.com/merlon-dev/merlon/waf"
)

const (
	harmless = "GET /?q=tea+and+biscuits\n" + browser
	hostile  = "GET /?q=1%27+union+select+password+from+users--+\n" + browser
)

// Every way of running the rules refuses an attack and lets the rest pass.
func TestEngines(t *testing.T) {
	for name, c := range map[string]waf.Config{
		"native":   {},
		"coraza":   {Engine: "coraza"},
		"verified": {Verify: 1},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGuard(t, c)
			if d := g.Check(merlontest.Request(t, harmless)); d.Reason != waf.Clean {
				t.Errorf("%+v", d)
			}
			d := g.Check(merlontest.Request(t, hostile))
			if d.Reason != waf.Attack || !strings.Contains(d.Remedy, "942100") {
				t.Errorf("%+v", d)
			}
		})
	}
}

// What either engine refuses is refused, and a difference is told.
func TestVerdictsDiffer(t *testing.T) {
	quiet, err := waf.Disagreeing(waf.Config{}, `SecRule ARGS "@streq tea and biscuits" "id:1,phase:2,pass,severity:NOTICE,setvar:tx.inbound_anomaly_score_pl1=+2"`)
	if err != nil {
		t.Fatal(err)
	}
	d := quiet.Check(merlontest.Request(t, harmless))
	if !d.Passed() || d.Reason != waf.VerdictsDiffer || !d.Monitored || d.Findings[0].Rule != "verify" {
		t.Errorf("%+v", d)
	}
	if d := quiet.Check(merlontest.Request(t, "GET /?q=milk\n"+browser)); d.Reason != waf.Clean {
		t.Errorf("%+v", d)
	}
	strict, err := waf.Disagreeing(waf.Config{}, `SecRule ARGS "@streq tea and biscuits" "id:1,phase:2,deny"`)
	if err != nil {
		t.Fatal(err)
	}
	d = strict.Check(merlontest.Request(t, harmless))
	if d.Passed() || d.Reason != waf.VerdictsDiffer || d.Code() != http.StatusForbidden || !told(d) {
		t.Errorf("%+v", d)
	}
	if d := strict.Check(merlontest.Request(t, hostile)); d.Passed() || d.Reason != waf.Attack || told(d) {
		t.Errorf("both refuse it alike: %+v", d)
	}
}

// So it is with answers.
func TestVerdictsDifferAboutAnswers(t *testing.T) {
	g, err := waf.Disagreeing(waf.Config{}, `SecRule RESPONSE_HEADERS:X-Likes "@streq tea and biscuits" "id:1,phase:3,deny"`)
	if err != nil {
		t.Fatal(err)
	}
	for value, want := range map[string]merlon.Reason{"tea and biscuits": waf.VerdictsDiffer, "blue": waf.ResponseClean} {
		r := merlontest.Request(t, harmless)
		g.Check(r)
		d := g.CheckResponse(r, &http.Response{StatusCode: 200, Proto: "HTTP/1.1", Header: http.Header{"X-Likes": {value}}, Body: http.NoBody})
		if d.Reason != want || d.Passed() != (want == waf.ResponseClean) || told(d) == d.Passed() {
			t.Errorf("%s: %+v", value, d)
		}
		g.Done(r, merlon.Outcome{})
	}
}

func told(d merlon.Decision) bool {
	for _, f := range d.Findings {
		if f.Rule == "verify" {
			return true
		}
	}
	return false
}
