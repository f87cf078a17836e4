package oracle_test

import (
	"math/rand/v2"
	"testing"

	"github.com/merlon-dev/merlon/waf/internal/oracle/traffic"
)

// The CRS as operators tune it: what stands before and after it.
var configs = []struct {
	name          string
	level         int
	before, after string
}{
	{"blocking early", 1, `SecAction "id:1000,phase:1,pass,nolog,setvar:tx.early_blocking=1"`, ""},
	{"detecting at a higher level", 1, `SecAction "id:1000,phase:1,pass,nolog,setvar:tx.detection_paranoia_level=4"`, ""},
	{"other scores", 2, `SecAction "id:1000,phase:1,pass,nolog,setvar:tx.critical_anomaly_score=4,setvar:tx.notice_anomaly_score=1,\
		setvar:tx.inbound_anomaly_score_threshold=9"`, ""},
	{"exclusions by condition", 2, `SecRule REQUEST_FILENAME "@beginsWith /p/" "id:1000,phase:1,pass,nolog,ctl:ruleRemoveTargetByTag=attack-sqli;ARGS:q,ctl:ruleRemoveById=941100-941200"
		SecRule REQUEST_METHOD "@streq POST" "id:1001,phase:1,pass,nolog,ctl:ruleRemoveByTag=attack-rce,ctl:ruleRemoveTargetById=920272;REQUEST_HEADERS:User-Agent"
		SecRule ARGS:page "@streq 2" "id:1002,phase:2,pass,nolog,ctl:ruleRemoveTargetById=932100-932999;ARGS,chain"
		SecRule REQUEST_HEADERS:X-Custom "@rx ."`, ""},
	{"exclusions for all", 3, "", `SecRuleRemoveById 920350 942000-942200 920273
		SecRuleRemoveByTag attack-injection-php
		SecRuleUpdateTargetById 941100 "!ARGS:q|!REQUEST_COOKIES:/x/"
		SecRuleUpdateTargetByTag attack-lfi "!REQUEST_HEADERS"
		SecRuleUpdateActionById 930120 "pass"`},
	{"rules of the operator's", 1, `SecRule REQUEST_HEADERS:User-Agent "@contains sqlmap" "id:1000,phase:1,deny,status:418"
		SecRule ARGS "@rx (?i)select" "id:1001,phase:2,pass,severity:CRITICAL,msg:'SQL',setvar:'tx.inbound_anomaly_score_pl1=+%{tx.critical_anomaly_score}'"`,
		`SecRule TX:blocking_inbound_anomaly_score "@ge 15" "id:2000,phase:2,deny,status:429"
		SecRule TX:/^inbound_anomaly_score_pl/ "@gt 20" "id:2001,phase:2,deny,status:430"
		SecRule RESPONSE_STATUS "@streq 500" "id:2002,phase:3,pass,setvar:'tx.outbound_anomaly_score_pl1=+2'"`},
	{"some clients are let pass", 1, `SecRule REQUEST_HEADERS:Referer "@rx ^https://shop" "id:1000,phase:1,allow,chain"
		SecRule REQUEST_METHOD "@streq GET"
		SecRule REQUEST_COOKIES:theme "@streq dark" "id:1001,phase:1,pass,ctl:ruleEngine=DetectionOnly"`, ""},
}

func TestConfigurations(t *testing.T) {
	payloads, list := crsPayloads(t), crsTests(t)
	for i, c := range configs {
		if raced && i%6 > 0 {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			p, err := newCRS(c.level, c.before, c.after)
			if err != nil {
				t.Fatal(err)
			}
			s := p.compare(t, sample(3000, 90), func(i int) named {
				r := rand.New(rand.NewPCG(uint64(i), 5))
				if r.IntN(2) == 0 {
					return list[r.IntN(len(list))]
				}
				place, payload := traffic.Places[r.IntN(len(traffic.Places))], payloads[r.IntN(len(payloads))]
				return named{place.Name + " " + payload, place.Request(payload), answer(r)}
			})
			if s.judged.Load() == 0 || s.judged.Load() == s.n.Load() {
				t.Error("all is judged alike: the comparison has no power")
			}
		})
	}
}
