package oracle_test

import (
	"strings"
	"testing"

	"github.com/merlon-dev/merlon/waf/internal/message"
)

// A pattern finds letters outside ASCII that (?i) takes for s and k, also where
// a value has no s and no k besides.
func TestLettersThatFold(t *testing.T) {
	for _, rule := range []string{
		`"@rx (?i)kkk" "id:1,phase:2,deny"`,
		`"@rx (?i)k" "id:1,phase:2,deny"`,
		`"@rx (?i)[ks]" "id:1,phase:2,deny,t:removeNulls"`,
		`"@rx (?i)skskss" "id:1,phase:2,deny,t:urlDecodeUni,t:jsDecode"`,
		`"@rx (?i)skskss" "id:1,phase:2,deny,t:base64Decode"`,
		`"@rx (?i)skskss" "id:1,phase:2,deny,t:removeWhitespace"`,
		`"@rx (?i)skskss|kkk|jks" "id:1,phase:2,deny,t:lowercase"`,
		`"@rx (?i)skskss" "id:1,phase:2,deny,multiMatch,t:replaceComments,t:removeNulls"`,
	} {
		p, err := newPair(alone(on + "SecRule ARGS|QUERY_STRING|REQUEST_COOKIES " + rule)...)
		if err != nil {
			t.Fatal(err)
		}
		s := &tally{}
		for _, v := range []string{
			"\u212a\u212a\u212a", "\u212a", "\u017f", "\u017f\u212a\u017f\u212a\u017f\u017f", "x\u017f\u212a\u017f\u212a\u017f\u017f%20a\\x20", "xb/ihKrFv+KEqsW/xb8g", "4oSq4oSq4oSq",
			"\u017f \u212a\u017f\u212a \u017f\u017f", "\xc5\x00\xbf", "\xe2\x84\x00\xaa", "\xc5", "\xe2\x84", "\u00e9", "skskss", "kkk", "none",
		} {
			m := &message.Request{Method: "POST", URI: "/?a=" + strings.ReplaceAll(v, "\x00", "%00"), Proto: "HTTP/1.1", Host: "h"}
			m.Header = []message.Pair{{Name: "Cookie", Value: "a=" + v}}
			m.Body = message.Body{Kind: message.Form, Args: []message.Pair{{Name: "a", Value: v}}}
			if diff := p.one(s, named{rule, m, nil}); diff != "" {
				t.Error(diff)
			}
		}
		if s.flagged.Load() < 1 || s.clean.Load() < 2 {
			t.Errorf("%s: no power: %s", rule, s)
		}
	}
}
