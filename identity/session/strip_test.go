package session_test

import (
	"net/http"
	"slices"
	"testing"

	"github.com/merlon-dev/merlon/identity/session"
)

func TestStripCookies(t *testing.T) {
	known, pass := session.Cookie+"-known", session.Cookie+"-pass"
	for _, c := range []struct{ in, want []string }{
		{[]string{"a=1; " + known + "=x; b=2", session.Cookie + "=y"}, []string{"a=1; b=2"}},
		{[]string{pass + "=y"}, nil},
		{[]string{"a=1;b=2"}, []string{"a=1;b=2"}},
		{[]string{session.Cookie + "x=1"}, []string{session.Cookie + "x=1"}},
		{[]string{session.Cookie + " =1; a=1"}, []string{"a=1"}},
	} {
		h := http.Header{"Cookie": slices.Clone(c.in)}
		if session.StripCookies(h); !slices.Equal(h["Cookie"], c.want) {
			t.Errorf("%q: %q", c.in, h["Cookie"])
		}
	}
}

func TestStripAnswer(t *testing.T) {
	h := http.Header{"Set-Cookie": {session.Cookie + "-known=planted; Secure", "a=1", "=" + session.Cookie + "=x"}}
	if session.StripAnswer(h); !slices.Equal(h["Set-Cookie"], []string{"a=1"}) {
		t.Errorf("%q", h["Set-Cookie"])
	}
}
