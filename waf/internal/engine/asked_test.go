package engine

import (
	"strings"
	"testing"

	"github.com/merlon-dev/merlon/waf/internal/message"
	"github.com/merlon-dev/merlon/waf/internal/operator"
	"github.com/merlon-dev/merlon/waf/internal/ruleset"
)

// A counting operator is slow, and counts how often it is asked.
type counting struct{ n *int }

func (c counting) Match(value, _ string) bool { *c.n++; return strings.Contains(value, "x") }

// A slow operator is asked once about each text, by whichever rule; answers
// are those of the text, and forgotten with the message.
func TestAskedOnce(t *testing.T) {
	n := 0
	tx := &transaction{}
	one, other := &link{op: operator.Operator(counting{&n}), slow: true}, &link{op: operator.Operator(counting{&n}), slow: true}
	long := strings.Repeat("a", slowFrom)
	for _, c := range []struct {
		l    *link
		text string
		want bool
		n    int
	}{
		{one, long, false, 1}, {other, strings.Clone(long), false, 1}, {one, long + "x", true, 2}, {one, long + "x", true, 2}, {other, long, false, 2},
		{one, "x", true, 3}, {one, "x", true, 4}, // short ones are not remembered
		{one, long + "1", false, 5}, {one, long + "2", false, 6}, {one, long + "3", false, 7}, {one, long + "x", true, 7}, {one, long, false, 8},
	} {
		if got := tx.asks(c.l, c.text, ""); got != c.want || n != c.n {
			t.Errorf("%.5q…%d: %v after %d questions, want %v after %d", c.text, len(c.text), got, n, c.want, c.n)
		}
	}
}

// Nothing of a message is remembered for the next, whose texts may be at
// the same place.
func TestAskedIsForgotten(t *testing.T) {
	e := native(t, []ruleset.Source{{Text: "SecRuleEngine On\nSecRule ARGS \"@detectSQLi\" \"id:1,phase:2,deny\"\n"}})
	buffer := []byte(strings.Repeat("tea ", 60))
	attack := "1' union select password from users--"
	for i, want := range []bool{false, true, false, true} {
		if want {
			copy(buffer, attack+strings.Repeat(" ", len(buffer)))
		} else {
			copy(buffer, strings.Repeat("tea ", 60))
		}
		x, v, err := e.Request(&message.Request{Method: "POST", URI: "/", Proto: "HTTP/1.1", Body: message.Body{Kind: message.JSON, Args: []message.Pair{{Name: "a", Value: text(buffer)}}}})
		if err != nil || v.Deny != want {
			t.Errorf("request %d: %+v, error %v", i, v, err)
		}
		x.Close()
	}
}
