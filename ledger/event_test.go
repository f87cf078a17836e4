package ledger_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/ledger"
	"github.com/merlon-dev/merlon/merlontest"
)

// says is a guard with a fixed answer.
type says struct {
	name string
	d    merlon.Decision
}

func (s says) Name() string                          { return s.name }
func (s says) Check(*merlon.Request) merlon.Decision { return s.d }

// event is the event of a wire request that guards answered.
func event(t testing.TB, wire string, guards ...merlon.Guard) ledger.Event {
	t.Helper()
	r := merlontest.Request(t, wire)
	r.ID, r.Site, r.Route = "TESTID", "shop.example.com", "/api/**"
	g := merlon.NewGate(guards...)
	d := g.Check(r)
	o := merlon.Outcome{Status: 200, Upstream: true}
	if !d.Passed() {
		o = merlon.Outcome{Status: d.Code(), Guard: r.RefusedBy()}
	}
	g.Done(r, o)
	return ledger.FromRequest(r, o, ledger.Traffic{Duration: 1500 * time.Microsecond, BytesIn: 10, Inspected: 5})
}

func sqli(value string) merlon.Decision {
	d := merlon.Refuse(403, "attack")
	d.Findings = []merlon.Finding{{Rule: "942100", Part: `query parameter "q"`, Value: value, Message: "SQL injection: " + value}}
	d.Remedy = "waf:\n  exclude:\n    - rule: 942100\n      parameter: q\n"
	return d
}

func TestTheDecidingVerdictMakesTheEvent(t *testing.T) {
	pass := says{"origin", merlon.Pass("known-host")}
	refuse := says{"waf", sqli("1' or 1=1")}
	challenge := says{"identity", merlon.Decision{Effect: merlon.Challenge, Status: 401, Reason: "sign-in"}}
	unable := says{"limit", merlon.Unable(errors.New("store is down"))}
	for _, c := range []struct {
		name   string
		guards []merlon.Guard
		kind   ledger.Kind
		guard  string
		event  string
		status int
	}{
		{"all pass", []merlon.Guard{pass}, ledger.Access, "", "access", 200},
		{"refused", []merlon.Guard{pass, refuse}, ledger.Refusal, "waf", "input_validation_fail", 403},
		{"challenged", []merlon.Guard{pass, challenge}, ledger.Challenge, "identity", "authn_login_fail", 401},
		{"monitored", []merlon.Guard{merlon.Monitor(refuse), pass}, ledger.Monitored, "waf", "input_validation_fail", 200},
		{"monitored, then refused", []merlon.Guard{merlon.Monitor(refuse), challenge}, ledger.Challenge, "identity", "authn_login_fail", 401},
		{"a shadow would refuse", []merlon.Guard{pass, merlon.Shadow(refuse), says{"waf", merlon.Pass("clean")}}, ledger.Shadow, "waf", "input_validation_fail", 200},
		{"a shadow would pass", []merlon.Guard{merlon.Shadow(says{"waf", merlon.Pass("clean")}), refuse}, ledger.Refusal, "waf", "input_validation_fail", 403},
		{"a shadow, then monitored", []merlon.Guard{merlon.Shadow(unable), merlon.Monitor(refuse)}, ledger.Monitored, "waf", "input_validation_fail", 200},
		{"cannot decide", []merlon.Guard{unable}, ledger.Refusal, "limit", "guard_failed", 503},
		{"over the limit", []merlon.Guard{says{"limit", merlon.Refuse(429, "rate")}}, ledger.Refusal, "limit", "excess_rate_limit_exceeded", 429},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := event(t, "GET /a?b=c", c.guards...)
			if e.Kind != c.kind || e.Guard != c.guard || e.Name != c.event || e.Status != c.status || len(e.Verdicts) != len(c.guards) {
				t.Errorf("%s by %q, %q, %d with %d verdicts", e.Kind, e.Guard, e.Name, e.Status, len(e.Verdicts))
			}
			if e.ID != "TESTID" || e.Client != "192.0.2.1" || e.Path != "/a?b=c" || e.DurationUS != 1500 || e.Time.Location() != time.UTC {
				t.Errorf("%+v", e)
			}
		})
	}
	r := merlontest.Request(t, "GET /")
	g := merlon.NewGate(says{"waf", merlon.Refuse(502, "leak")})
	g.Check(r)
	if e := ledger.FromRequest(r, merlon.Outcome{Status: 502, Guard: "waf", Upstream: true}, ledger.Traffic{}); e.Kind != ledger.ResponseRefusal {
		t.Errorf("refused after the upstream was asked: %s", e.Kind)
	}
}

func TestTheJSONIsStable(t *testing.T) {
	e := event(t, "GET /a?b=c", says{"waf", sqli("1' or 1=1")})
	e.Time = time.Date(2026, 11, 27, 10, 0, 0, 123456789, time.FixedZone("", 3600))
	b, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{`"id":"TESTID"`, `"kind":"refusal"`, `"event":"input_validation_fail"`, `"site":"shop.example.com"`, `"route":"/api/**"`,
		`"method":"GET"`, `"host":"shop.example.com"`, `"path":"/a?b=c"`, `"client":"192.0.2.1"`, `"status":403`, `"guard":"waf"`, `"reason":"attack"`,
		`"verdicts":[{"guard":"waf","effect":"deny","reason":"attack","status":403,"findings":[{"rule":"942100","part":`, `"duration_us":1500`, `"bytes_in":10`, `"inspected":5`} {
		if !strings.Contains(string(b), s) {
			t.Errorf("no %s in %s", s, b)
		}
	}
	dir := t.TempDir()
	l := open(t, dir, ledger.Config{})
	if err := l.Append(e); err != nil {
		t.Fatal(err)
	}
	closeLog(t, l)
	if raw, _ := os.ReadFile(files(t, dir)[0]); !strings.Contains(string(raw), `"event":{"time":"2026-11-27T09:00:00.123456789Z","id":"TESTID"`) {
		t.Errorf("not in UTC: %s", raw)
	}
}

const (
	jwt  = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
	card = "4111111111111111"
	aws  = "AKIAIOSFODNN7EXAMPLE"
	pem  = "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA0Z3VS5JJcds3xfn\n-----END RSA PRIVATE KEY-----"
)

// everywhere writes e to a log and returns the bytes of the file and what is
// printed of it.
func everywhere(t testing.TB, e ledger.Event) string {
	t.Helper()
	dir := t.TempDir()
	l := open(t, dir, ledger.Config{})
	if err := l.Append(e); err != nil {
		t.Fatal(err)
	}
	closeLog(t, l)
	raw, err := os.ReadFile(files(t, dir)[0])
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, e := range query(t, dir, ledger.Filter{}) {
		_ = ledger.Format(&b, e, false)
		_ = ledger.Explain(&b, e, nil)
	}
	return string(raw) + b.String()
}

func TestSecretsAreNotRecorded(t *testing.T) {
	for _, c := range []struct{ name, wire, value, secret string }{
		{"a password in the query", "GET /login?user=bob&password=hunter2x", "", "hunter2x"},
		{"its name encoded twice", "GET /login?pass%2577ord=hunter2x", "", "hunter2x"},
		{"German", "GET /login?Neues-Kennwort=hunter2x", "", "hunter2x"},
		{"French", "GET /login?mot_de_passe=hunter2x", "", "hunter2x"},
		{"Spanish", "GET /login?contraseña=hunter2x", "", "hunter2x"},
		{"an array of passwords", "GET /login?user[pwd]=hunter2x", "", "hunter2x"},
		{"a reset code", "GET /reset?code=hunter2x", "", "hunter2x"},
		{"a semicolon before the name", "GET /login?a=b;access_token=hunter2x", "", "hunter2x"},
		{"a URL in a parameter", "GET /go?next=https%3A%2F%2Fa.example%2F%3Ftoken%3Dhunter2x", "", "hunter2x"},
		{"JSON in a parameter", "GET /go?q=%7B%22api_key%22%3A%22hunter2x%22%7D", "", "hunter2x"},
		{"a token in the path", "GET /reset/" + jwt, "", jwt},
		{"a token cut off", "GET /reset/" + jwt[:30], "", jwt[:30]},
		{"a card number in the query", "GET /pay?n=" + card, "", card},
		{"with spaces", "GET /pay?n=4111+1111+1111+1111", "", "4111+1111"},
		{"with spaces, encoded", "GET /pay?n=4111%201111%201111%201111", "", "4111%201111"},
		{"a cloud key", "GET /?k=" + aws, "", aws},
		{"a password in a URL", "GET /?u=ftp://bob:hunter2x@h/", "", "hunter2x"},
		{"the Authorization field, found", "GET /\nAuthorization: Bearer abc.def-hunter2x", "saw abc.def-hunter2x there", "hunter2x"},
		{"basic credentials, found", "GET /\nAuthorization: Basic Ym9iOmh1bnRlcjI=", "Basic Ym9iOmh1bnRlcjI=", "Ym9iOmh1bnRlcjI"},
		{"a cookie, found", "GET /\nCookie: sid=0123456789abc; lang=en", "in 0123456789abc", "0123456789abc"},
		{"an API key field, found", "GET /\nX-Api-Key: hunter2x", "hunter2x", "hunter2x"},
		{"the query's password, found", "GET /?password=hunter2x", "select hunter2x", "hunter2x"},
		{"a form body, found", "GET /", "user=bob&password=hunter2x&a=b", "hunter2x"},
		{"JSON, found", "GET /", `{"client_secret" : "hunter\"2x"}`, `2x`},
		{"JSON in JSON, found", "GET /", `{\"password\":\"hunter2x\"}`, "hunter2x"},
		{"SQL, found", "GET /", "UPDATE u SET password = 'hunter2x' WHERE 1", "hunter2x"},
		{"a header, found", "GET /", "Authorization: Digest hunter2x here", "hunter2x"},
		{"a private key, found", "GET /", pem, "MIIEowIBAAKCAQEA0Z3VS5JJcds3xfn"},
		{"a private key cut off", "GET /", pem[:60], "MIIEowIBAAKCAQEA0Z3VS5JJcds3xfn"[:20]},
		{"a card number, found", "GET /", "card 4111-1111-1111-1111.", "4111-1111"},
		{"a card number among others", "GET /", "12 " + card + " 7", card[:12]},
		{"a card number in groups among others", "GET /", "12 4111 1111 1111 1111 7", "4111 1111"},
		{"a vendor's key", "GET /", "ghp_abcdefghijklmnopqrstuvwxyz0123456789", "abcdefghijkl"},
		{"cut in two by the bound on what is read", "GET /", "eyJ" + strings.Repeat("a", 1005) + " " + card, card[:13]},
		{"in a very long value", "GET /", strings.Repeat("a ", 500) + jwt + strings.Repeat(" b", 5000), jwt[:20]},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := sqli(c.value)
			d.Err = errors.New("while reading: " + c.value)
			d.Remedy = "x: " + c.value
			e := event(t, c.wire, says{"waf", d})
			b, _ := json.Marshal(e)
			if all := string(b) + everywhere(t, e); strings.Contains(all, c.secret) {
				t.Errorf("%q is in %s", c.secret, all)
			}
		})
	}
	t.Run("the value of a finding whose part is secret", func(t *testing.T) {
		d := sqli("swordfish")
		d.Findings[0].Part = "ARGS:password"
		d.Findings[0].Message = "Matched Data: swordfish found within ARGS:password: swordfish"
		if all := everywhere(t, event(t, "GET /", says{"waf", d})); strings.Contains(all, "swordfish") {
			t.Errorf("in %s", all)
		}
	})
	t.Run("an administrative act", func(t *testing.T) {
		e := ledger.Event{Kind: ledger.Admin, Message: "key " + aws, Attrs: map[string]string{"new_password": "hunter2x", "dsn": "postgres://a:hunter2x@h/d"}}
		if all := everywhere(t, e); strings.Contains(all, "hunter2x") || strings.Contains(all, aws) {
			t.Errorf("in %s", all)
		}
	})
}

func TestWhatIsNoSecretIsRecordedAsItIs(t *testing.T) {
	for _, target := range []string{"/search?q=1%27+or+1%3D1--&page=2", "/a%2fb;v=1?x", "/orders/1234567890123456", "/orders/41111111111111110", "/?t=1700000000000&passport=x&author=bob",
		"/?redirect=/home&monkey=1", "/tokens", "/?encoding=utf-8"} {
		if e := event(t, "GET "+target, says{"waf", sqli("1")}); e.Path != target {
			t.Errorf("%s became %s", target, e.Path)
		}
	}
	for _, text := range []string{"token: expired", "session: unknown", "1' or 1=1 --", "code=", "status code: 500", "jwt: signature is wrong"} {
		d := sqli(text)
		d.Err = errors.New(text)
		if e := event(t, "GET /", says{"waf", d}); e.Verdicts[0].Findings[0].Value != text || e.Verdicts[0].Error != text {
			t.Errorf("%q became %q", text, e.Verdicts[0].Findings[0].Value)
		}
	}
	d := sqli("x")
	if e := event(t, "GET /", says{"waf", d}); e.Remedy != strings.TrimSuffix(d.Remedy, "") {
		t.Errorf("the remedy became %q", e.Remedy)
	}
}

// steers reports whether text holds anything that could steer a terminal or
// another reader; line ends apart.
func steers(text string) bool {
	return !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) })
}

func TestNothingInALineCanSteerAReader(t *testing.T) {
	evil := "a\r\n{\"seq\":1}\n\x1b[2J\x1b]0;t\x07\u202eb\u2066\u2028\u2029\u200b\x00\x7f\u009b\xff\xfe\"}"
	d := sqli(evil)
	d.Err = errors.New(evil)
	d.Remedy = evil
	d.Reason = merlon.Reason(evil)
	e := event(t, "GET /", says{evil, d})
	e.Path, e.UserAgent, e.Host, e.Subject, e.Route, e.Message = evil, evil, evil, evil, evil, evil
	e.Attrs = map[string]string{evil: evil}
	dir := t.TempDir()
	l := open(t, dir, ledger.Config{})
	if err := l.Append(e); err != nil {
		t.Fatal(err)
	}
	closeLog(t, l)
	raw, _ := os.ReadFile(files(t, dir)[0])
	if strings.Count(string(raw), "\n") != 1 || steers(string(raw)) {
		t.Errorf("the file holds %q", raw)
	}
	for _, got := range append(query(t, dir, ledger.Filter{}), e) { // e itself: as a tampered file might give it
		if p := printed(t, got); strings.Count(p, "\n") != 1 || steers(p) {
			t.Errorf("printed: %q", p)
		}
		var b strings.Builder
		if err := ledger.Explain(&b, got, func(string, string) string { return evil }); err != nil || steers(b.String()) {
			t.Errorf("explained: %q %v", b.String(), err)
		}
	}
}

func TestALineIsBoundedWhateverTheClientSends(t *testing.T) {
	long := strings.Repeat("\x1b\"\\é", 1<<18)
	d := sqli(long)
	for range 100 {
		d.Findings = append(d.Findings, d.Findings[0])
	}
	d.Err, d.Remedy = errors.New(long), long
	var guards []merlon.Guard
	for i := range 60 {
		guards = append(guards, merlon.Monitor(says{fmt.Sprint("g", i), d}))
	}
	r := merlontest.Request(t, "GET /")
	r.Header = http.Header{"User-Agent": {long}}
	r.Host, r.URL.RawQuery, r.Site, r.Route = long, long, long, long
	g := merlon.NewGate(guards...)
	g.Check(r)
	start := time.Now()
	e := ledger.FromRequest(r, merlon.Outcome{Status: 200, Upstream: true}, ledger.Traffic{})
	t.Logf("the worst event took %v", time.Since(start))
	e.Message, e.ID = long, "LONG"
	dir := t.TempDir()
	l := open(t, dir, ledger.Config{})
	if err := l.Append(e); err != nil {
		t.Fatal(err)
	}
	closeLog(t, l)
	raw, _ := os.ReadFile(files(t, dir)[0])
	if len(raw) > 16<<10 || len(raw) < 1000 {
		t.Errorf("a line of %d bytes", len(raw))
	}
	if e, err := ledger.Find(dir, "LONG"); err != nil || e.Guard != "g0" || len(e.UserAgent) > 256 {
		t.Errorf("%v: %q", err, e.Guard)
	}
}

// FuzzRedaction holds that a secret appears nowhere, whatever is around it,
// and that what is written stays one visible line.
func FuzzRedaction(f *testing.F) {
	f.Add("", "", uint8(0))
	f.Add("a=b&", "&c=d", uint8(1))
	f.Add(`{"password":"`, `"}`, uint8(2))
	f.Add("x \u202e ", "\x1b[0m", uint8(3))
	f.Add("token: ", "\r\n", uint8(0))
	f.Add(strings.Repeat("a ", 600), strings.Repeat("b", 600), uint8(1))
	secrets := []string{jwt, card, aws, "-----BEGIN PRIVATE KEY-----MIIEowIBAAKCAQEA0Z3VS5JJ"}
	must := []string{"dozjgNryP4J3jVmNHl0w5N", card, "IOSFODNN7EXAMPLE", "MIIEowIBAAKCAQEA0Z3VS5JJ"}
	f.Fuzz(func(t *testing.T, before, after string, which uint8) {
		i := int(which) % len(secrets)
		// Next to it stands what could not be part of it.
		text := before + " / " + secrets[i] + " / " + after
		if strings.Contains(before+after, must[i]) {
			return
		}
		d := sqli(text)
		d.Err, d.Remedy = errors.New(text), text
		r := merlontest.Request(t, "GET /")
		r.URL.RawQuery, r.URL.Path, r.Host, r.Site = text, "/"+text, text, text
		r.Header.Set("User-Agent", text)
		g := merlon.NewGate(says{"waf", d})
		g.Check(r)
		e := ledger.FromRequest(r, merlon.Outcome{Status: 403, Guard: "waf"}, ledger.Traffic{})
		b, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		_ = ledger.Format(&out, e, false)
		_ = ledger.Explain(&out, e, nil)
		if all := string(b) + out.String(); strings.Contains(all, must[i]) {
			t.Errorf("%q is in %q", must[i], all)
		}
		if steers(out.String()) {
			t.Errorf("steers: %q", out.String())
		}
	})
}

func BenchmarkFromRequest(b *testing.B) {
	r := merlontest.Request(b, "GET /search?q=1%27+or+1%3D1&page=2&token=abcdefgh\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\nCookie: session=0123456789abcdef; theme=dark")
	g := merlon.NewGate(says{"origin", merlon.Pass("known-host")}, says{"limit", merlon.Pass("")}, says{"waf", sqli("1' or 1=1")})
	g.Check(r)
	b.ReportAllocs()
	for b.Loop() {
		_ = ledger.FromRequest(r, merlon.Outcome{Status: 403, Guard: "waf"}, ledger.Traffic{})
	}
}
