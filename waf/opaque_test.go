package waf_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/merlontest"
	"github.com/merlon-dev/merlon/waf"
)

// escapedAttack looks like nothing until JSON is decoded.
var escapedAttack = func() string {
	var b strings.Builder
	for _, c := range "1' union select password from users--" {
		fmt.Fprintf(&b, `\u%04x`, c)
	}
	return `{"page":1,"q":"` + b.String() + `"}`
}()

// Many applications read JSON whatever the type says: another type is no way
// past.
func TestJSONOfAnotherType(t *testing.T) {
	var cases []merlontest.Case
	add := func(name, contentType, body string, want merlon.Reason, status int) {
		cases = append(cases, merlontest.Case{Name: name + " as " + contentType, Request: post(contentType, body), Want: want, Status: status})
	}
	for _, as := range []string{"application/octet-stream", "application/protobuf", "image/png", "text/plain", "application/x-www-form-urlencoded", "text/xml"} {
		add("attack", as, escapedAttack, waf.Attack, 403)
		add("attack behind a mark and white space", as, "\xef\xbb\xbf \t\r\n"+escapedAttack, waf.Attack, 403)
		add("attack with something after it", as, escapedAttack+"\n]}", waf.Attack, 403)
		add("a string", as, escapedAttack[strings.LastIndex(escapedAttack, `"\`):len(escapedAttack)-1], waf.Attack, 403)
		add("harmless", as, `{"page":1,"q":["tea and biscuits"]}`, waf.Clean, 0)
	}
	for _, as := range []string{"application/octet-stream", "application/protobuf", "image/png"} {
		add("what only begins like it", as, "{\x01\x02<script>alert(1)</script>", waf.Clean, 0)
		add("text", as, "<script>alert(1)</script>", waf.Clean, 0)
		add("white space", as, " \n", waf.Clean, 0)
		add("a table", as, `"name","note"`+"\n"+strings.Repeat(`"Jane","tea"`+"\n", 2000), waf.Clean, 0)
		add("unfinished", as, `{"a":"`, waf.Clean, 0)
		add("long", as, `{"a":"`+strings.Repeat("a", 9<<10)+`"}`, waf.TooLarge, 413)
		add("long white space", as, strings.Repeat("\n", 9<<10)+escapedAttack, waf.TooLarge, 413)
		add("long, and none behind the beginning", as, `{"a":"`+strings.Repeat("a", 5<<10)+"\n"+strings.Repeat("b", 9<<10), waf.Clean, 0)
		add("many values", as, `[1`+strings.Repeat(",1", 20)+`]`, waf.TooManyArguments, 413)
	}
	run(t, waf.Config{ContentTypes: []string{"image/png"}, Limit: 8 * merlon.KiB, Arguments: 20}, cases)
}

// What follows the first document is told as not inspected.
func TestAfterTheDocument(t *testing.T) {
	g := newGuard(t, waf.Config{})
	for body, partly := range map[string]bool{"{}": false, " {} \n": false, "{}{}": true, `{"a":[1]} x`: true, "\x00{}": true} {
		r := merlontest.Request(t, post("application/octet-stream", body))
		d := g.Check(r)
		if told := len(d.Findings) == 1 && d.Findings[0].Rule == "inspected"; !d.Passed() || told != partly {
			t.Errorf("%q: %+v", body, d)
		}
		g.Done(r, merlon.Outcome{})
	}
}

// A client of gRPC may wait for the answer before it sends, so its body is
// looked at on its way: what begins as JSON does is none.
func TestJSONAsGRPC(t *testing.T) {
	for name, c := range map[string]struct {
		contentType, body string
		refused           bool
	}{
		"a frame":           {"application/grpc", "\x00\x00\x00\x00\x02\x08\x01", false},
		"a frame of JSON":   {"application/grpc+json", "\x00\x00\x00\x00\x02{}", false},
		"base64":            {"application/grpc-web-text", "AAAAAAIIAQ==", false},
		"nothing":           {"application/grpc", "", false},
		"JSON":              {"application/grpc", escapedAttack, true},
		"JSON behind space": {"Application/gRPC-Web-Text", "\n" + escapedAttack, true},
	} {
		t.Run(name, func(t *testing.T) {
			for _, monitored := range []bool{false, true} {
				var g merlon.Guard = newGuard(t, waf.Config{})
				if monitored {
					g = merlon.Monitor(g)
				}
				r := merlontest.Request(t, typed(c.contentType))
				setBody(r, c.body)
				r.ContentLength = -1
				gate := merlon.NewGate(g)
				if d := gate.Check(r); !d.Passed() {
					t.Fatalf("%+v", d)
				}
				got, err := io.ReadAll(r.Body)
				var late *merlon.LateRefusal
				if refused := errors.As(err, &late) && late.Decision.Reason == waf.Malformed; refused != (c.refused && !monitored) {
					t.Errorf("monitored %v: read %q, error %v", monitored, got, err)
				} else if !refused && (string(got) != c.body || err != nil) || refused && len(got) > 0 {
					t.Errorf("monitored %v: the upstream gets %q, error %v", monitored, got, err)
				}
				gate.Done(r, merlon.Outcome{})
			}
		})
	}
}

// A client that waits to be told to go on is told so by the backend: its body
// is judged when that wants it, and not read before.
func TestJSONThatIsAwaited(t *testing.T) {
	long := strings.Repeat("a", 9<<10)
	for name, c := range map[string]struct {
		body string
		want merlon.Reason
	}{
		"a file":                      {"\x00\x01" + long, ""},
		"nothing":                     {"", ""},
		"harmless":                    {`{"page":1}`, ""},
		"harmless, and more":          {`{"page":1}` + long, ""},
		"begins like it":              {`{"` + strings.Repeat("a", 5<<10) + "\n" + long, ""},
		"attack":                      {escapedAttack, waf.Attack},
		"attack with something after": {escapedAttack + long, waf.Attack},
		"long":                        {`{"a":"` + long + `"}`, waf.TooLarge},
		"many values":                 {`[1` + strings.Repeat(",1", 20) + `]`, waf.TooManyArguments},
	} {
		t.Run(name, func(t *testing.T) {
			for _, monitored := range []bool{false, true} {
				var g merlon.Guard = newGuard(t, waf.Config{Limit: 8 * merlon.KiB, Arguments: 20})
				if monitored {
					g = merlon.Monitor(g)
				}
				r := merlontest.Request(t, typed("application/octet-stream"))
				r.Header.Set("Expect", "100-continue")
				sent := strings.NewReader(c.body)
				r.Body, r.ContentLength = io.NopCloser(sent), int64(len(c.body))
				gate := merlon.NewGate(g)
				if d := gate.Check(r); !d.Passed() || sent.Len() != len(c.body) {
					t.Fatalf("%d bytes are read, %+v", len(c.body)-sent.Len(), d)
				}
				got, err := io.ReadAll(r.Body)
				var late *merlon.LateRefusal
				switch refused := errors.As(err, &late); {
				case refused != (c.want != "" && !monitored):
					t.Errorf("monitored %v: error %v", monitored, err)
				case refused && (late.Decision.Reason != c.want || len(got) > 0):
					t.Errorf("%s; the upstream gets %d bytes", late.Decision.Reason, len(got))
				case !refused && (string(got) != c.body || err != nil):
					t.Errorf("monitored %v: the upstream gets %d bytes, error %v", monitored, len(got), err)
				}
				gate.Done(r, merlon.Outcome{})
			}
		})
	}
}

func TestAwaitedBodyBreaksOff(t *testing.T) {
	g := newGuard(t, waf.Config{})
	r := merlontest.Request(t, typed("application/octet-stream"))
	r.Header.Set("Expect", "100-continue")
	gone := errors.New("gone")
	r.Body, r.ContentLength = io.NopCloser(io.MultiReader(strings.NewReader(escapedAttack), iotest.ErrReader(gone))), -1
	if d := g.Check(r); !d.Passed() {
		t.Fatalf("%+v", d)
	}
	if got, err := io.ReadAll(r.Body); !errors.Is(err, gone) || len(got) > 0 {
		t.Errorf("the upstream gets %q, error %v", got, err)
	}
	g.Done(r, merlon.Outcome{})
}
