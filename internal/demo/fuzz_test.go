package demo_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/merlon-dev/merlon/internal/demo"
)

func fuzzShop(f *testing.F) *demo.Shop {
	shop, err := demo.New(f.Context())
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { shop.Close() })
	return shop
}

// Whatever is typed into the tools, the page answers, stays small, and a
// visitor who is not logged in leaves the pretend machine whole.
func FuzzTools(f *testing.F) {
	shop := fuzzShop(f)
	for _, s := range []string{"printer.example", "x; rm -rf /", "x && cat ../../etc/passwd | ls", "; ls ''", `require('child_process').exec("id").toString()`, "orders.today()", strings.Repeat("cat /etc/passwd;", 200)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, typed string) {
		if len(typed) > 8<<10 {
			t.Skip("more than the shop reads of a form")
		}
		for path, field := range map[string]string{"/tools/ping": "host", "/tools/run": "command"} {
			r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(url.Values{field: {typed}}.Encode()))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			w := httptest.NewRecorder()
			shop.ServeHTTP(w, r)
			if w.Code != http.StatusOK || w.Body.Len() > 512<<10 {
				t.Errorf("%s with %q: status %d, %d bytes", path, typed, w.Code, w.Body.Len())
			}
		}
		w := httptest.NewRecorder()
		shop.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/tools", nil))
		if !strings.Contains(w.Body.String(), `<data id="files" value="11">`) {
			t.Errorf("%q reached another visitor's machine", typed)
		}
	})
}

// Whatever comes back in the visitor's cookie, the page answers; the hole is
// that the role is believed, and only that.
func FuzzVisitorCookie(f *testing.F) {
	shop := fuzzShop(f)
	for _, s := range []string{`{"class":"shop.Visitor","name":"Ann","role":"admin"}`, `{"name":"<script>"}`, `{`, `[]`, `null`, ""} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, object []byte) {
		r := httptest.NewRequest(http.MethodGet, "/admin", nil)
		r.AddCookie(&http.Cookie{Name: "shop_visitor", Value: base64.RawURLEncoding.EncodeToString(object)})
		w := httptest.NewRecorder()
		shop.ServeHTTP(w, r)
		admin := strings.Contains(w.Body.String(), "ann.fletcher@mail.example")
		if (w.Code == http.StatusOK) != admin || w.Code != http.StatusOK && w.Code != http.StatusForbidden || strings.Contains(w.Body.String(), "<script") {
			t.Errorf("with %q: status %d, customers shown: %v", object, w.Code, admin)
		}
	})
}

// Whatever token comes, the API answers; the hole is that one may say that it
// is not signed, and only that.
func FuzzOfficeToken(f *testing.F) {
	shop := fuzzShop(f)
	part := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	for _, s := range []string{
		part(`{"alg":"none"}`) + "." + part(`{"role":"admin"}`) + ".", part(`{"alg":"HS256"}`) + "." + part(`{"role":"admin"}`) + ".AAAA",
		part(`{"alg":"none"}`) + "." + part(`{"role":"member"}`) + ".", "..", "", "a.b.c", "." + part("null") + ".",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, token string) {
		r := httptest.NewRequest(http.MethodGet, "/api/office/customers", nil)
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		shop.ServeHTTP(w, r)
		head, _, _ := strings.Cut(token, ".")
		b, _ := base64.RawURLEncoding.DecodeString(head)
		var says struct{ Alg string }
		unsigned := json.Unmarshal(b, &says) == nil && says.Alg == "none"
		if w.Code != http.StatusForbidden && (w.Code != http.StatusOK || !unsigned) {
			t.Errorf("with %q: status %d", token, w.Code)
		}
	})
}
