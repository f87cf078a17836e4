package stuffing_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/merlon-dev/merlon/stuffing"
)

// What only may be a log-in makes no browser known: a page that answers every
// GET with the form would make everybody's known to everybody.
func TestNobodyIsKnownByADisguise(t *testing.T) {
	c := config()
	c.Path, c.Failed.Location = stuffing.List{"/login"}, stuffing.List{"/login?error*"}
	w := newWorld(t, c, stuffing.Env{})
	w.backend = http.HandlerFunc(func(rw http.ResponseWriter, hr *http.Request) {
		if hr.Method != "POST" {
			fmt.Fprint(rw, "<form>") // with 200, whatever the query says
			return
		}
		w.looked.Add(1)
		http.Redirect(rw, hr, "/login?error=1", http.StatusSeeOther)
	})
	for _, method := range []string{"GET", "HEAD", "PUT", "PATCH", "DELETE", "PROPFIND"} {
		hr := httptest.NewRequest(method, "https://"+site+"/login?"+url.Values{"email": {"ann@example.com"}, "password": {"x" + method}}.Encode(), nil)
		if r := w.ask("203.0.113.9", hr); r.status != 200 || r.cookie() != "" {
			t.Errorf("%s: %d, known by %q", method, r.status, r.cookie())
		}
	}
}

// A backend that answers 200 to everything but a wrong log-in: whoever sends
// what it takes for no log-in is not taken for the user.
func TestNobodyIsKnownByWhatIsNoLogIn(t *testing.T) {
	const both = "email=ann%40example.com&password=x"
	cookie := func(c *stuffing.Config) { c.Success.Cookie = "session" }
	for _, c := range []struct {
		what, method, path, body string
		fields                   []string
		set                      func(*stuffing.Config)
		known                    bool
		status                   int // of the answer; 200 if not set
	}{
		{what: "a log-in", method: "POST", path: "/api/login", body: both, known: true},
		{what: "in other letters, with a slash", method: "POST", path: "/API/login/", body: both, known: true},
		{what: "another of its methods", method: "PUT", path: "/api/login", body: both, known: true,
			set: func(c *stuffing.Config) { c.Methods = stuffing.List{"POST", "PUT"} }},
		{what: "one that says its own method", method: "POST", path: "/api/login", body: both, fields: []string{"X-HTTP-Method-Override", "post"}, known: true},
		{what: "a pattern", method: "POST", path: "/api/v2/login", body: both, known: true,
			set: func(c *stuffing.Config) { c.Path = stuffing.List{"/api/*/login"} }},
		{what: "a script", method: "POST", path: "/login.php", body: both, known: true,
			set: func(c *stuffing.Config) { c.Path = stuffing.List{"/Login.php"} }},

		{what: "a form that says what is wrong, and redirects then", method: "POST", path: "/api/login", body: both, known: true, status: 303,
			set: func(c *stuffing.Config) { c.Failed.Body = stuffing.List{"Wrong password"} }},
		{what: "and answers with another page", method: "POST", path: "/api/login", body: both,
			set: func(c *stuffing.Config) { c.Failed.Body = stuffing.List{"Wrong password"} }},
		{what: "and sets a cookie", method: "POST", path: "/api/login", body: both, known: true,
			set: func(c *stuffing.Config) { c.Failed.Body = stuffing.List{"Wrong password"}; cookie(c) }},
		{what: "a form that is redirected", method: "POST", path: "/api/login", body: both, known: true, status: 303,
			set: func(c *stuffing.Config) { c.Failed.Location = stuffing.List{"/login?error*"} }},
		{what: "and is not, since there was nothing in it", method: "POST", path: "/api/login", body: both,
			set: func(c *stuffing.Config) { c.Failed.Location = stuffing.List{"/login?error*"} }},

		{what: "another method", method: "PUT", path: "/api/login", body: both},
		{what: "another method in a field", method: "POST", path: "/api/login", body: both, fields: []string{"X-HTTP-Method-Override", "GET"}},
		{what: "another method in the form", method: "POST", path: "/api/login", body: both + "&_method=get"},
		{what: "an extension", method: "POST", path: "/api/login.txt", body: both},
		{what: "a parameter", method: "POST", path: "/api/login;x", body: both},
		{what: "behind a script", method: "POST", path: "/index.php/api/login", body: both},
		{what: "no password", method: "POST", path: "/api/login", body: "email=ann%40example.com"},
		{what: "an empty one", method: "POST", path: "/api/login", body: "email=ann%40example.com&password="},
		{what: "a shared path", method: "POST", path: "/api/login", body: both, set: func(c *stuffing.Config) { c.Shared = true }},
		{what: "a shared path, and no cookie", method: "POST", path: "/api/login", body: both,
			set: func(c *stuffing.Config) { c.Shared = true; c.Success.Cookie = "other" }},
		{what: "a shared path and a cookie", method: "POST", path: "/api/login", body: both, known: true,
			set: func(c *stuffing.Config) { c.Shared = true; cookie(c) }},
	} {
		conf := config()
		if c.set != nil {
			c.set(&conf)
		}
		w := newWorld(t, conf, stuffing.Env{})
		w.backend = http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			http.SetCookie(rw, &http.Cookie{Name: "session", Value: "1"})
			if c.status != 0 {
				rw.Header().Set("Location", "/home")
				rw.WriteHeader(c.status)
			}
		})
		hr := httptest.NewRequest(c.method, "https://"+site+c.path, strings.NewReader(c.body))
		hr.Header.Set("Content-Type", form)
		for i := 0; i < len(c.fields); i += 2 {
			hr.Header.Set(c.fields[i], c.fields[i+1])
		}
		if r := w.ask("203.0.113.9", hr); r.status != c.status && (r.status != 200 || c.status != 0) || (r.cookie() != "") != c.known {
			t.Errorf("%s: %d %s, known: %v, want %v", c.what, r.status, r.reason, r.cookie() != "", c.known)
		}
	}
}

// Other methods are not a way round the counts either.
func TestOtherMethodsAreCounted(t *testing.T) {
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "GET", "HEAD"} {
		w := newWorld(t, config(), stuffing.Env{})
		w.backend = http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { w.looked.Add(1); rw.WriteHeader(401) })
		for i := range 50 {
			hr := httptest.NewRequest(method, "https://"+site+"/api/login", strings.NewReader(fmt.Sprintf("email=ann%%40example.com&password=%d", i)))
			hr.Header.Set("Content-Type", form)
			w.ask("203.0.113.9", hr)
		}
		if n := w.looked.Load(); n > 10 {
			t.Errorf("%s: %d of 50 were looked at", method, n)
		}
	}
}
