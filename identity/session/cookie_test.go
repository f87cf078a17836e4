package session_test

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity/session"
)

func TestCookie(t *testing.T) {
	w := newWorld(t, session.Config{})
	_, c := w.begin("ann")
	want := session.Cookie + "=" + c.Value + "; Path=/; HttpOnly; Secure; SameSite=Lax"
	if c.String() != want {
		t.Errorf("%s, want %s", c, want)
	}
	if b, err := base64.RawURLEncoding.DecodeString(c.Value); err != nil || len(b) != 32 {
		t.Errorf("%d bytes, want 32: %v", len(b), err)
	}
	if err := c.Valid(); err != nil {
		t.Error(err)
	}
	w = newWorld(t, session.Config{Keep: true})
	if _, c := w.begin("ann"); c.MaxAge != 30*24*60*60 {
		t.Errorf("kept for %d seconds", c.MaxAge)
	}
}

func TestClear(t *testing.T) {
	h := http.Header{"Set-Cookie": {"a=b"}}
	session.Clear(h)
	if got := strings.Join(h["Set-Cookie"], "\n"); got != "a=b\n"+session.Cookie+"=; Path=/; Max-Age=0; HttpOnly; Secure; SameSite=Lax" {
		t.Error(got)
	}
	if got := h.Get("Clear-Site-Data"); got != `"cache", "storage"` {
		t.Error(got)
	}
}

const zeroID = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

func TestReadingCookies(t *testing.T) {
	const it = session.Cookie + "=" + zeroID
	for _, c := range []struct {
		name   string
		fields []string
		want   merlon.Reason // "ok" or "none"
	}{
		{"alone", []string{it}, "ok"},
		{"among others", []string{"a=b; " + it + "; c=d"}, "ok"},
		{"without spaces", []string{"a=b;" + it + ";c=d"}, "ok"},
		{"with tabs", []string{"\t" + it + "\t"}, "ok"},
		{"in the second field", []string{"a=b", it}, "ok"},
		{"none", nil, "none"},
		{"another's name", []string{"__Host-merlon2=" + zeroID + "; x__Host-merlon=" + zeroID}, "none"},
		{"trap 39: another case", []string{"__host-merlon=" + zeroID}, "none"},
		{"trap 39: percent-encoded", []string{"%5f_Host-merlon=" + zeroID}, "none"},
		{"trap 39: a space within", []string{"__Host-merlon =" + zeroID}, "none"},
		{"without =", []string{session.Cookie}, "none"},
		{"trap 39: joined by a comma", []string{"a=b, " + it}, "none"},
		{"trap 39: twice", []string{it + "; " + it}, session.TwoCookies},
		{"twice in two fields", []string{it, it}, session.TwoCookies},
		{"twice, one malformed", []string{it + "; " + session.Cookie + "=x"}, session.TwoCookies},
		{"empty", []string{session.Cookie + "="}, session.BadCookie},
		{"trap 39: quoted", []string{session.Cookie + `="` + zeroID + `"`}, session.BadCookie},
		{"too short", []string{it[:len(it)-1]}, session.BadCookie},
		{"too long", []string{it + "A"}, session.BadCookie},
		{"padded", []string{it + "="}, session.BadCookie},
		{"another spelling of the last bits", []string{it[:len(it)-1] + "B"}, session.BadCookie},
		{"a line end within", []string{it[:len(it)-2] + "\nA"}, session.BadCookie},
		{"the other alphabet", []string{it[:len(it)-2] + "+A"}, session.BadCookie},
	} {
		h, err := session.HashOf(http.Header{"Cookie": c.fields})
		got := merlon.Reason("ok")
		if e, ok := errors.AsType[*session.Error](err); ok {
			got = e.Reason
		} else if errors.Is(err, merlon.ErrNoProof) {
			got = "none"
		}
		if got != c.want || got == "ok" && h != sha256.Sum256(make([]byte, 32)) {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestStrip(t *testing.T) {
	const it = session.Cookie + "=" + zeroID
	for _, c := range []struct{ in, want []string }{
		{nil, nil},
		{[]string{"a=b"}, []string{"a=b"}},
		{[]string{it}, nil},
		{[]string{it + "; a=b"}, []string{"a=b"}},
		{[]string{"a=b; " + it + "; c=d"}, []string{"a=b; c=d"}},
		{[]string{"a=b", it, "c=d"}, []string{"a=b", "c=d"}},
		{[]string{it + "; " + it}, nil},
		{[]string{"a=" + session.Cookie, "b=c"}, []string{"a=" + session.Cookie, "b=c"}},
		{[]string{session.Cookie + "=x; a=b"}, []string{"a=b"}},
	} {
		h := http.Header{}
		if c.in != nil {
			h["Cookie"] = c.in
		}
		session.Strip(h)
		if strings.Join(h["Cookie"], "|") != strings.Join(c.want, "|") || len(h["Cookie"]) != len(c.want) {
			t.Errorf("%q: %q, want %q", c.in, h["Cookie"], c.want)
		}
	}
}

// What is read is what net/http reads, if it is there once; and what was
// stripped proves nobody, and has every other cookie still.
func FuzzCookies(f *testing.F) {
	for _, s := range []string{
		session.Cookie + "=" + zeroID, "a=b; " + session.Cookie + "=" + zeroID + ";c", ";;=;" + session.Cookie + "=",
		session.Cookie + "=\"" + zeroID + "\"", session.Cookie + "=x; " + session.Cookie + "=" + zeroID,
	} {
		f.Add(s, "d=e")
	}
	f.Fuzz(func(t *testing.T, one, two string) {
		h := http.Header{"Cookie": {one, two}}
		hash, err := session.HashOf(h)
		if err == nil {
			found := 0
			for _, c := range (&http.Request{Header: h}).Cookies() {
				if c.Name != session.Cookie {
					continue
				}
				found++
				b, err := base64.RawURLEncoding.Strict().DecodeString(c.Value)
				if err != nil || len(b) != 32 || sha256.Sum256(b) != hash {
					t.Errorf("%q %q: net/http reads %q", one, two, c.Value)
				}
			}
			if found != 1 {
				t.Errorf("%q %q: net/http finds %d", one, two, found)
			}
		}
		before := others(h)
		session.Strip(h)
		if _, err := session.HashOf(h); !errors.Is(err, merlon.ErrNoProof) {
			t.Errorf("%q %q: stripped, and still: %v", one, two, err)
		}
		if after := others(h); before != after {
			t.Errorf("%q %q: the others were %q and are %q", one, two, before, after)
		}
	})
}

func others(h http.Header) string {
	var b strings.Builder
	for _, c := range (&http.Request{Header: h}).Cookies() {
		if c.Name != session.Cookie {
			b.WriteString(c.String() + "\n")
		}
	}
	return b.String()
}

func TestByPerson(t *testing.T) {
	const (
		firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:150.0) Gecko/20100101 Firefox/150.0"
		chrome  = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/150.0.0.0 Safari/537.36"
		safari  = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.0 Safari/605.1.15"
	)
	for _, c := range []struct {
		name, method string
		header       []string
		want         bool
	}{
		{"a link that was clicked", "GET", []string{"Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document", "Sec-Fetch-User", "?1", "User-Agent", chrome}, true},
		{"trap 49: a page that reloads itself", "GET", []string{"Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document", "User-Agent", chrome}, false},
		{"trap 49: the same in Firefox", "GET", []string{"Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document", "User-Agent", firefox}, false},
		{"not every Safari tells", "GET", []string{"Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document", "User-Agent", safari}, true},
		{"trap 49: a frame that reloads itself", "GET", []string{"Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "iframe", "User-Agent", safari}, false},
		{"trap 49: fetch", "GET", []string{"Sec-Fetch-Mode", "cors", "Sec-Fetch-Dest", "empty"}, false},
		{"trap 49: fetch with HEAD", "HEAD", []string{"Sec-Fetch-Mode", "cors"}, false},
		{"an image", "GET", []string{"Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "image"}, false},
		{"trap 49: a WebSocket", "GET", []string{"Sec-Fetch-Mode", "websocket", "Upgrade", "websocket"}, false},
		{"a form", "POST", []string{"Sec-Fetch-Mode", "navigate"}, true},
		{"something that is saved", "PUT", []string{"Sec-Fetch-Mode", "cors"}, true},
		{"an old browser's page", "GET", []string{"Accept", "text/html,application/xhtml+xml,*/*;q=0.8"}, true},
		{"trap 49: an old browser's fetch", "GET", []string{"Accept", "*/*"}, false},
		{"a preflight", "OPTIONS", nil, false},
	} {
		hr := &http.Request{Method: c.method, Header: http.Header{}}
		for i := 0; i < len(c.header); i += 2 {
			hr.Header.Set(c.header[i], c.header[i+1])
		}
		if got := session.ByPerson(hr); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
