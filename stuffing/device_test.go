package stuffing_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/stuffing"
)

func (w *world) request(path, cookie string) *merlon.Request {
	hr := loginRequest(form, "email=owner@example.com&password=x")
	hr.URL.Path = path
	hr.Header.Set("Cookie", cookie)
	r := merlon.NewRequest(hr)
	r.Site = site
	return r
}

func TestKnownDevice(t *testing.T) {
	w := newWorld(t, config(), stuffing.Env{})
	owner, eve := w.known("owner@example.com"), w.known("eve@example.com")
	if again := w.known("owner@example.com"); again == owner {
		t.Error("two browsers have the same cookie")
	}
	for _, secret := range []string{"owner", "example", "@"} {
		if strings.Contains(owner, secret) {
			t.Errorf("%s tells who it is", owner)
		}
	}
	other := w.request("/x", owner)
	other.Site = "other.example.com"
	for _, c := range []struct {
		what string
		r    *merlon.Request
		want bool
	}{
		{"the owner, somewhere", w.request("/", owner), true},
		{"the owner, logging in", w.request("/api/login", owner), true},
		{"eve, somewhere", w.request("/", eve), true},
		{"eve, logging in as the owner", w.request("/api/login", eve), false},
		{"eve with both", w.request("/api/login", eve+"; "+owner), true},
		{"nobody", w.request("/", ""), false},
		{"another cookie", w.request("/", "a="+owner), false},
		{"changed", w.request("/", owner[:len(owner)-2]+"AA"), false},
		{"cut off", w.request("/", owner[:len(owner)-4]), false},
		{"another site", other, false},
	} {
		if got := w.guard.KnownDevice(c.r); got != c.want {
			t.Errorf("%s: %v", c.what, got)
		}
		if got := w.guard.Device(c.r); c.want && len(got) != 32 {
			t.Errorf("%s: is called %q", c.what, got)
		}
	}
	w.pass(364 * 24 * time.Hour)
	if !w.guard.KnownDevice(w.request("/", owner)) {
		t.Error("forgotten too early")
	}
	w.pass(3 * 24 * time.Hour)
	if w.guard.KnownDevice(w.request("/", owner)) {
		t.Error("known for more than a year")
	}
}

// TestFamily: one browser, several users.
func TestFamily(t *testing.T) {
	w := newWorld(t, config(), stuffing.Env{})
	cookie := ""
	for i := range 6 {
		if cookie == "" {
			cookie = w.known("user0@example.com")
		} else {
			cookie = w.known(fmt.Sprintf("user%d@example.com", i), cookie)
		}
	}
	for i := range 6 {
		hr := loginRequest(form, fmt.Sprintf("email=user%d@example.com&password=x", i))
		hr.Header.Set("Cookie", cookie)
		r := merlon.NewRequest(hr)
		r.Site = site
		if got := w.guard.KnownDevice(r); got != (i > 0) {
			t.Errorf("user %d of the last five: %v", i, got)
		}
	}
	if again := w.known("user3@example.com", cookie); len(again) != len(cookie) {
		t.Errorf("who is known already takes no more room: %d, %d", len(again), len(cookie))
	}
}

// TestOwnFailures: a browser that is known waits only for its own, and cannot
// be used on others.
func TestOwnFailures(t *testing.T) {
	w := newWorld(t, config(), stuffing.Env{})
	owner, eve := w.known("owner@example.com"), w.known("eve@example.com")
	w.looked.Store(0)
	for i := range 100 {
		w.try("203.0.113.9", "owner@example.com", fmt.Sprint("x", i), eve)
	}
	if n := w.looked.Load(); n > 6 {
		t.Errorf("eve's own browser helps against others: looked at %d", n)
	}
	if r := w.try("203.0.113.9", "owner@example.com", secret, owner); r.status != 200 {
		t.Errorf("the owner: %d %s", r.status, r.reason)
	}
	w.looked.Store(0)
	for i := range 100 {
		w.try("203.0.113.9", "owner@example.com", fmt.Sprint("x", i), owner)
	}
	if n := w.looked.Load(); n > 11 {
		t.Errorf("a stolen browser guesses without bound: looked at %d", n)
	}
}

// FuzzDevice: no cookie but ours is known, be it ours with one byte changed.
func FuzzDevice(f *testing.F) {
	w := newWorld(f, config(), stuffing.Env{})
	_, value, _ := strings.Cut(w.known("owner@example.com"), "=")
	f.Add("AQ", 3, "A")
	f.Add("AcCuBWItkU0ySp2Ww2Ap5KhRMJUd9PvFPy7lvX9lTBCpa2BuVGRcFQk90x57RBF", 80, "")
	f.Fuzz(func(t *testing.T, text string, at int, put string) {
		changed := value
		if at >= 0 && at < len(value) {
			changed = value[:at] + put + value[at+1:]
		}
		for _, v := range []string{text, changed} {
			if w.guard.KnownDevice(w.request("/", stuffing.Cookie+"=\""+v+"\"")) && v != value && !strings.Contains(v, ";") {
				t.Errorf("%q is known", v)
			}
		}
	})
}

// FuzzFold: what people cannot tell apart is one name, and folding ends.
func FuzzFold(f *testing.F) {
	w := newWorld(f, config(), stuffing.Env{})
	for _, s := range []string{"Admin", "ＡＤＭＩＮ", "ann@example.com", "a b", "é", "İ", "\u200b", "ß", "ﬁ"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		folded := w.guard.Fold(name)
		for _, other := range []string{" " + name, name + " \t", name + "\x00", "\u200b" + name} {
			if got := w.guard.Fold(other); got != folded {
				t.Errorf("%q is %q, %q is %q", name, folded, other, got)
			}
		}
		if !strings.HasPrefix(folded, "(no name)") && w.guard.Fold(folded) != folded {
			t.Errorf("%q → %q → %q", name, folded, w.guard.Fold(folded))
		}
	})
}

func TestFold(t *testing.T) {
	w := newWorld(t, config(), stuffing.Env{})
	for _, s := range []string{"Admin", "admin ", "ＡＤＭＩＮ", "ádmin", "ad\u200bmin", "admin\x00", "ad\xffmin"} {
		if got := w.guard.Fold(s); got != "admin" {
			t.Errorf("%q is %q", s, got)
		}
	}
	a, b := w.guard.Fold("my pass word"), w.guard.Fold("My  Pass word")
	if a != b || strings.Contains(a, "pass") || a == w.guard.Fold("my pass words") {
		t.Errorf("%q, %q", a, b)
	}
}

// FuzzMatches: * is anything, as in a regular expression.
func FuzzMatches(f *testing.F) {
	f.Add("/login?error*", "/login?error=1")
	f.Add("*a*b*", "xaxbx")
	f.Add("a*a", "a")
	f.Fuzz(func(t *testing.T, pattern, text string) {
		want := regexp.MustCompile("(?s)^" + strings.ReplaceAll(regexp.QuoteMeta(strings.ToValidUTF8(pattern, "")), `\*`, ".*") + "$").MatchString(strings.ToValidUTF8(text, ""))
		if got := stuffing.Matches(strings.ToValidUTF8(pattern, ""), strings.ToValidUTF8(text, "")); got != want {
			t.Errorf("%q, %q: %v", pattern, text, got)
		}
	})
}

// FuzzLoosen: a loose path has nothing left to loosen.
func FuzzLoosen(f *testing.F) {
	for _, s := range []string{"/api//login/", "/a;x/b;y", ";;//", "/./"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		loose := stuffing.Loosen(path)
		if stuffing.Loosen(loose) != loose || strings.Contains(loose, "//") || strings.Contains(loose, ";") {
			t.Errorf("%q → %q", path, loose)
		}
	})
}
