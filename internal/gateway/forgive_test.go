package gateway_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity/attempts"
	"github.com/merlon-dev/merlon/internal/gateway"
	"github.com/merlon-dev/merlon/secrets"
	"github.com/merlon-dev/merlon/stuffing"
)

// Who was guessed at gets in from anywhere again once that is forgiven.
func TestForgive(t *testing.T) {
	secret := strings.Repeat("0123456789", 5)
	t.Setenv("MERLON_TEST_FORGIVE", secret)
	f := read(t, "key: env:MERLON_TEST_FORGIVE\n"+shop+"    backend_login: {path: /login, user_field: email}\n", "http://127.0.0.1:1")
	key, err := secrets.NewKey(secrets.New(secret))
	if err != nil {
		t.Fatal(err)
	}
	tries := attempts.NewMemory(1 << 12)
	g, err := stuffing.New(*f.Sites[0].BackendLogin, stuffing.Env{Key: key, Store: tries})
	if err != nil {
		t.Fatal(err)
	}
	gate := merlon.NewGate(g)
	try := func(from string) merlon.Decision {
		hr := httptest.NewRequest("POST", "https://shop.example.com/login", strings.NewReader("email=Ann@example.com&password=wrong"))
		hr.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		hr.RemoteAddr = from + ":4711"
		r := merlon.NewRequest(hr)
		r.Site = "shop.example.com"
		d := gate.Check(r)
		if d.Passed() {
			gate.CheckResponse(r, &http.Response{StatusCode: http.StatusUnauthorized, Header: http.Header{}, Body: http.NoBody})
		}
		gate.Done(r, merlon.Outcome{Status: http.StatusUnauthorized, Upstream: d.Passed()})
		return d
	}
	for range 40 {
		if !try("198.51.100.1").Passed() {
			break
		}
	}
	for i := range 40 { // and from elsewhere
		try("203.0.113." + string(rune('1'+i%9)))
	}
	if try("192.0.2.1").Passed() {
		t.Fatal("nothing to forgive")
	}
	if err := gateway.Forgive(t.Context(), f, tries, "shop.example.com", "ann@example.com "); err != nil {
		t.Fatal(err)
	}
	if d := try("192.0.2.1"); !d.Passed() {
		t.Errorf("after it was forgiven: %s, %v", d.Reason, d.Findings)
	}
	if err := gateway.Forgive(t.Context(), read(t, shop, "http://127.0.0.1:1"), tries, "shop.example.com", "ann"); !errors.Is(err, gateway.ErrNoLogin) {
		t.Errorf("a site without such a log-in: %v", err)
	}
}
