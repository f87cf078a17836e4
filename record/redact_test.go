package record_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/merlon-dev/merlon/record"
)

// redacted records a request and returns what is left of it.
func redacted(t *testing.T, hr *http.Request, o record.Outcome) record.Entry {
	t.Helper()
	s := open(t, record.Config{})
	s.send(t, hr, o)
	all := s.read(t)
	if len(all) != 1 {
		t.Fatalf("%d entries", len(all))
	}
	return all[0]
}

const jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"

func TestSecretsInTheTarget(t *testing.T) {
	for target, want := range map[string]string{
		"/a/b?q=tea&page=2":                 "/a/b?q=tea&page=2",
		"/?token=s3cr3t-X&q=1":              "/?token=z0zz0z_z&q=1",
		"/?user%5Bpass%57ord%5D=a%20b":      "/?user%5Bpass%57ord%5D=z_00z",
		"/?a=1;api_key=k9;b=2":              "/?a=1;api_key=z0;b=2",
		"/?q=" + jwt:                        "/?q=" + strings.Map(masked, jwt),
		"/?q=%7B%22password%22:%22x9%22%7D": "/?q=_0z_00zzzzzzzz_00__00z0_00_0z",
		"/?q=login%20password=x9%20now":     "/?q=login%20password=z0_00zzz",
		"/?4111111111111111=1":              "/?0000000000000000=1",
		"/reset/" + jwt + "/now":            "/reset/" + strings.Map(masked, jwt) + "/now",
		"/a;jsessionid=AB12/b":              "/a;jsessionid=zz00/b",
		"http://u:pw12@h/a":                 "zzzz_//z_zz00_z/z",
		"/?code=Ab1":                        "/?code=zz0",
		"/?password":                        "/?password",
		"/?password=":                       "/?password=",
		"*":                                 "*",
	} {
		hr := request("GET", "/", "", "")
		hr.RequestURI = target
		if got := redacted(t, hr, record.Outcome{}).Target; got != want {
			t.Errorf("%s:\n got %s\nwant %s", target, got, want)
		}
	}
}

func masked(c rune) rune {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z':
		return 'z'
	case '0' <= c && c <= '9':
		return '0'
	}
	return '_'
}

func TestSecretsInHeaders(t *testing.T) {
	for _, c := range []struct{ name, value, want string }{
		{"Authorization", "Bearer abc.DEF-1", "Bearer zzz_zzz_0"},
		{"Authorization", "abc", "zzz"},
		{"Proxy-Authorization", "Basic dTpw", "Basic zzzz"},
		{"Cookie", "lang=en; sid=Ab1%20; flag", "lang=zz; sid=zz0_00; zzzz"},
		{"Cookie", "a=b=c", "a=z_z"},
		{"Set-Cookie", "sid=1", "zzz_0"},
		{"X-Api-Key", "k1", "z0"},
		{"X-Csrf-Token", "k1", "z0"},
		{"Referer", "https://shop.example.com/a?token=k1&q=tea", "https://shop.example.com/a?token=z0&q=tea"},
		{"Referer", "https://u:pw12@shop.example.com/", "https___z_zz00_shop.example.com/"},
		{"X-Original-Url", "/a?password=k1", "/a?password=z0"},
		{"X-Note", "%22pin%22:%2212%22", "_00zzz_00__0000_00"},
		{"X-Note", "see " + jwt + ".", "see " + strings.Map(masked, jwt+".")},
		{"User-Agent", "Mozilla/5.0 (X11; Linux x86_64)", "Mozilla/5.0 (X11; Linux x86_64)"},
		{"Accept", "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8", "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"},
		{"Sec-Ch-Ua", `"Chromium";v="130", "Not?A_Brand";v="99"`, `"Chromium";v="130", "Not?A_Brand";v="99"`},
		{"If-None-Match", `W/"5f-18c"`, `W/"5f-18c"`},
	} {
		hr := request("GET", "/", "", "")
		hr.Header.Set(c.name, c.value)
		if got := redacted(t, hr, record.Outcome{}).Header.Get(c.name); got != c.want {
			t.Errorf("%s: %s\n got %s\nwant %s", c.name, c.value, got, c.want)
		}
		if got := hr.Header.Get(c.name); got != c.value {
			t.Errorf("the request itself was changed to %s", got)
		}
	}
}

func TestSecretsInBodies(t *testing.T) {
	const file = "multipart/form-data; boundary=B"
	for _, c := range []struct{ name, contentType, body, want string }{
		{"form", "application/x-www-form-urlencoded", "user=ann&password=Hunter2%21&q=tea", "user=ann&password=zzzzzz0_00&q=tea"},
		{"form that is JSON", "application/x-www-form-urlencoded", `{"password":"x1"}`, `{"password":"z0"}`},
		{"JSON", "application/json", `{"user":"ann","Pass\u0077ord" : "Hun\"ter2é","n":1}`, `{"user":"ann","Pass\u0077ord" : "zzz__zzz0zz","n":1}`},
		{"JSON numbers", "application/json", `{"pin": 1234, "cvv":-0.5e2, "n": 12, "otp": [1, {"a": 23}], "m": 3}`,
			`{"pin": 1111, "cvv":-1.1e1, "n": 12, "otp": [1, {"a": 11}], "m": 3}`},
		{"JSON below", "application/json", `{"credentials": {"a": ["b1", {"c": "d2"}], "e": null}, "f": "g3"}`,
			`{"credentials": {"a": ["z0", {"c": "z0"}], "e": null}, "f": "g3"}`},
		{"JSON after", "application/json", `[{"token": {"a": 1}, "b": "c1"}, "d1"]`, `[{"token": {"a": 1}, "b": "c1"}, "d1"]`},
		{"JSON in JSON", "application/json", `{"q": "{\"password\": \"x1\"}"}`, `{"q": "{\"password\": \"z0\"}"}`},
		{"GraphQL", "application/json", `{"query": "mutation { login(password: \"x1\") { id } }"}`,
			`{"query": "mutation { login(password: \"z0\") { id } }"}`},
		{"XML", "text/xml", `<a n="1" pin='23'><password type="x">H&amp;2</password><b>tea<!-- c --></b><c token = "k1"/></a>`,
			`<a n="1" pin='00'><password type="z">z_zzz_0</password><b>tea<!-- c --></b><c token = "z0"/></a>`},
		{"SOAP", "application/soap+xml", "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<s:E xmlns:s=\"urn:s\"><w:Password xmlns:w='urn:w'><![CDATA[H<2]]></w:Password>\n <q>tea</q></s:E>",
			"<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<s:E xmlns:s=\"urn:s\"><w:Password xmlns:w='zzz_z'><![CDATA[z_0]]></w:Password>\n <q>tea</q></s:E>"},
		{"XML, text", "text/xml", `<a><b>password=x1</b><b c="my pin=1234"/></a>`, `<a><b>zzzzzzzz_z0</b><b c="zz_zzz_0000"/></a>`},
		{"multipart", file, "--B\r\nContent-Disposition: form-data; name=\"password\"\r\n\r\nHunter2\r\n--B\r\nContent-Disposition: form-data; name=\"f\"; filename=\"a.txt\"\r\n\r\nthe secret text\r\n--B\r\nContent-Disposition: form-data; name=\"q\"\r\n\r\ntea\r\n--B--",
			"--B\r\nContent-Disposition: form-data; name=\"password\"\r\n\r\nzzzzzz0\r\n--B\r\nContent-Disposition: form-data; name=\"f\"; filename=\"a.txt\"\r\n\r\n\r\n--B\r\nContent-Disposition: form-data; name=\"q\"\r\n\r\ntea\r\n--B--"},
	} {
		e := redacted(t, request("POST", "/", c.contentType, c.body), record.Outcome{})
		if string(e.Body) != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, e.Body, c.want)
		}
	}
}

func TestARefusalForWhatIsNotRecordedIsMarked(t *testing.T) {
	for part, want := range map[string]bool{
		`query parameter "q"`:       false,
		`query parameter "token"`:   true,
		`form field "user"`:         false,
		`form field "Password"`:     true,
		`cookie "sid"`:              true,
		`header "Cookie"`:           true,
		`header "Authorization"`:    true,
		`header "User-Agent"`:       false,
		`header Origin`:             false,
		`request line`:              true, // it holds the token
		`name of the cookie "sid"`:  true,
		`JSON field "a.b.password"`: true,
		`form field "us\"er"`:       false,
		`name of the cookie "a\"b"`: true,
		`cookie "aaaaa…"`:           true,
		``:                          false,
	} {
		hr := request("POST", "/?q=1&token=k1", "application/x-www-form-urlencoded", "user=ann&password=x1")
		hr.Header.Set("Cookie", `sid=1; A"b`)
		hr.Header.Set("Authorization", "Bearer x")
		e := redacted(t, hr, record.Outcome{Guard: "waf", Findings: []record.Finding{{"score", ""}, {"1", part}}})
		if e.Outcome.Hidden != want {
			t.Errorf("%s: hidden %t", part, e.Outcome.Hidden)
		}
	}
}
