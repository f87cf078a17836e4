package oracle_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/merlon-dev/merlon/waf/internal/engine"
	"github.com/merlon-dev/merlon/waf/internal/message"
	"github.com/merlon-dev/merlon/waf/internal/oracle/traffic"
)

// judge asks about an answer of which the beginning is a, followed by pieces,
// and returns the verdict that ended it.
func judge(t *testing.T, e *engine.Engine, m *message.Request, a *message.Response, pieces ...string) message.Verdict {
	t.Helper()
	x, v, err := e.Request(m)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	if v.Deny {
		return v
	}
	v, err = x.Response(a)
	for _, piece := range pieces {
		if err == nil && !v.Deny {
			buf := []byte(piece)
			v, err = x.(message.Continuer).More(buf)
			clear(buf) // which the engine may not have kept
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// A piece that comes after a beginning is judged as if it were the body, and
// again as nothing new.
func TestMore(t *testing.T) {
	for level, n := range map[int]int{1: sample(4000, 400), 2: sample(2000, 200), 4: sample(2000, 200)} {
		t.Run(fmt.Sprint("level ", level), func(t *testing.T) {
			e := crs(t, level).native
			denied := 0
			for i := range n {
				r := rand.New(rand.NewPCG(uint64(i), 6))
				m, a := traffic.Ordinary(r), answer(r)
				if r.IntN(10) == 0 {
					m = traffic.Places[0].Request("' or 1=1")
				}
				whole := judge(t, e, m, a)
				body := string(a.Body)
				head := *a
				head.Body = []byte{}
				if judge(t, e, m, &head).Deny {
					continue
				}
				for k, pieces := range [][]string{{body}, {body, body, "and so on"}, {"<p>", body}} {
					v := judge(t, e, m, &head, pieces...)
					if v.Deny != whole.Deny || v.Score != whole.Score || v.Deny && len(v.Hits) != len(whole.Hits) {
						t.Fatalf("answer %d, in way %d: denied %v by %d, score %d, %v; as a whole %v by %d, %d, %v\n%s", i, k,
							v.Deny, v.By, v.Score, v.Hits, whole.Deny, whole.By, whole.Score, whole.Hits, show(named{"", m, a}))
					}
				}
				if whole.Deny {
					denied++
				}
			}
			if denied*20 < n {
				t.Errorf("%d denied of %d: too few to compare", denied, n)
			}
		})
	}
}

// Hand-written rules whose meaning could be another one for pieces.
func TestMoreRules(t *testing.T) {
	if raced {
		t.Skip("compiles many times")
	}
	const page = "<p>an ordinary page</p>"
	for _, c := range []struct {
		name, rules string
		pieces      []string
		deny        bool
	}{
		{"a leak", `SecRule RESPONSE_BODY "@contains boom" "id:1,phase:4,deny"`, []string{page, "a boom"}, true},
		{"what must be there", `SecRule RESPONSE_BODY "!@contains page" "id:1,phase:4,deny"`, []string{"the rest"}, false},
		{"equality", `SecRule RESPONSE_BODY "@streq rest" "id:1,phase:4,deny"`, []string{"rest"}, false},
		{"a length", `SecRule RESPONSE_BODY "@lt 10" "id:1,phase:4,deny,t:length"`, []string{"rest"}, false},
		{"the header, once", `SecRule RESPONSE_HEADERS:X-Odd "@rx ." "id:1,phase:4,pass,setvar:tx.outbound_anomaly_score_pl1=+3"`, []string{page, page, page}, false},
		{"every answer, once", `SecAction "id:1,phase:4,pass,setvar:tx.outbound_anomaly_score_pl1=+1"`, []string{page, "ORA-", page, page, page, page}, false},
		{"a little, again and again", `SecRule RESPONSE_BODY "@contains ice" "id:1,phase:4,pass,setvar:tx.outbound_anomaly_score_pl1=+3"`, []string{"ice", "ice", "ice"}, false},
		{"a little of two things", `SecRule RESPONSE_BODY "@contains ice" "id:1,phase:4,pass,setvar:tx.outbound_anomaly_score_pl1=+3"
SecRule RESPONSE_BODY "@contains tea" "id:2,phase:4,pass,setvar:tx.outbound_anomaly_score_pl1=+3"`, []string{"ice", page, "tea"}, true},
		{"of the beginning and the rest", `SecRule RESPONSE_BODY "@contains ordinary" "id:1,phase:4,pass,setvar:tx.outbound_anomaly_score_pl1=+3"
SecRule RESPONSE_BODY "@contains tea" "id:2,phase:4,pass,setvar:tx.outbound_anomaly_score_pl1=+3"`, []string{"tea"}, true},
		{"of the header and the rest", `SecRule RESPONSE_HEADERS:X-Odd "@rx ." "id:1,phase:3,pass,setvar:tx.outbound_anomaly_score_pl1=+3"
SecRule RESPONSE_BODY "@contains tea" "id:2,phase:4,pass,setvar:tx.outbound_anomaly_score_pl1=+3"`, []string{"tea"}, true},
		{"a chain", `SecRule RESPONSE_STATUS "!@streq 404" "id:1,phase:4,deny,chain"
SecRule RESPONSE_BODY "@contains tea"`, []string{"tea"}, true},
		{"allowed by the beginning", `SecRule RESPONSE_BODY "@contains ordinary" "id:1,phase:4,allow"
SecRule RESPONSE_BODY "@contains tea" "id:2,phase:4,deny"`, []string{"tea"}, false},
		{"allowed by the header", `SecRule RESPONSE_HEADERS:X-Odd "@rx ." "id:1,phase:3,allow"
SecRule RESPONSE_BODY "@contains tea" "id:2,phase:4,deny"`, []string{"tea"}, false},
		{"only detected", `SecRule RESPONSE_HEADERS:X-Odd "@rx ." "id:1,phase:3,pass,ctl:ruleEngine=DetectionOnly"
SecRule RESPONSE_BODY "@contains tea" "id:2,phase:4,pass,setvar:tx.outbound_anomaly_score_pl1=+9"`, []string{"tea", "tea"}, false},
		{"switched off", `SecRule RESPONSE_HEADERS:X-Odd "@rx ." "id:1,phase:3,pass,ctl:ruleEngine=Off"
SecRule RESPONSE_BODY "@contains tea" "id:2,phase:4,deny"`, []string{"tea"}, false},
		{"captures", `SecRule RESPONSE_BODY "@rx key=(\w+)" "id:1,phase:4,capture,deny,chain"
SecRule TX:1 "@streq tea"`, []string{"key=milk", "key=tea"}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := newCRS(1, c.rules, "")
			if err != nil {
				t.Fatal(err)
			}
			r := rand.New(rand.NewPCG(1, 1))
			m := traffic.Ordinary(r)
			a := &message.Response{Status: 200, Proto: "HTTP/1.1", Body: []byte(page),
				Header: []message.Pair{{Name: "Content-Type", Value: "text/html"}, {Name: "X-Odd", Value: "1"}}}
			if v := judge(t, p.native, m, a); v.Deny {
				t.Fatalf("the beginning is denied by %d", v.By)
			}
			if v := judge(t, p.native, m, a, c.pieces...); v.Deny != c.deny {
				t.Errorf("denied %v by %d, score %d, %+v", v.Deny, v.By, v.Score, v.Hits)
			}
		})
	}
}
