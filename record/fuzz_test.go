package record

import (
	"bufio"
	"bytes"
	"encoding/json"
	"encoding/xml"
	"html"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/merlon-dev/merlon"
)

// What is written is read again, whatever it is.
func FuzzEntry(f *testing.F) {
	f.Add("ID", "/a?b=c", "X-A", "v", []byte("body"), int64(1764249600e9), int64(-1), 403, "waf", true)
	f.Add("", "", "", "", []byte(nil), int64(0), int64(0), 0, "", false)
	f.Add("\xff\x00", "*", "\n", "\r\n", []byte("\x00"), int64(-1), int64(1)<<62, -5, "\x80", true)
	f.Fuzz(func(t *testing.T, id, target, name, value string, body []byte, ns, length int64, status int, guard string, flag bool) {
		e := Entry{
			Time: time.Unix(0, ns).UTC(), ID: id, Remote: value, TLS: flag, ServerName: name, Proto: guard, Method: id, Target: target, Host: value,
			Header: http.Header{name: {value, target}, "Empty": {}, id + "-": {""}}, Chunked: !flag, Length: length, Whole: flag,
			Outcome: Outcome{Status: status, Guard: guard, Reason: merlon.Reason(name), Hidden: flag},
		}
		if len(body) > 0 {
			e.Body = body
		}
		if flag {
			e.Outcome.Findings = []Finding{{id, name}, {"", value}}
		}
		r := bytes.NewReader(appendEntry(appendEntry(nil, &e), &Entry{Header: http.Header{}}))
		got, err := readEntry(r)
		if err != nil || !reflect.DeepEqual(got, e) {
			t.Fatalf("%v\n got %#v\nwant %#v", err, got, e)
		}
		if _, err := readEntry(r); err != nil {
			t.Fatalf("the next entry: %v", err)
		}
		if _, err := readEntry(r); err != io.EOF {
			t.Fatalf("the end: %v", err)
		}
	})
}

// What is not an entry is an error; what is one reads the same when it is
// written again.
func FuzzBadEntry(f *testing.F) {
	whole := appendEntry(nil, &Entry{ID: "ID", Header: http.Header{"A": {"b"}}, Body: []byte("x"), Outcome: Outcome{Findings: []Finding{{"1", "p"}}}})
	f.Add(whole)
	f.Add(whole[:len(whole)-1])
	f.Add(append([]byte{2, 2}, whole...))
	f.Add(bytes.Repeat([]byte{0xff}, 20))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := readEntry(bufio.NewReader(bytes.NewReader(b)))
		if err != nil {
			return
		}
		again, err := readEntry(bytes.NewReader(appendEntry(nil, &e)))
		if err != nil || !reflect.DeepEqual(again, e) {
			t.Fatalf("%v\n got %#v\nwant %#v", err, again, e)
		}
		if hr, err := e.Request(); err == nil && hr.URL == nil {
			t.Fatal("a request without an address")
		}
	})
}

// A masked value leaves nothing of the secret, everything keeps its length,
// JSON stays JSON, and to mask twice changes nothing.
func FuzzRedact(f *testing.F) {
	f.Add("password", "Hunter2", "q", "tea")
	f.Add("user[pass word]", `a"b\c`, "x.y", "{\"token\":\"1\"}")
	f.Add("api_key", "4111 1111 1111 1111", "cc", "4111 1111 1111 1111")
	f.Add("otp", "12", "n", "http://u:p1234567@h/")
	f.Add("session", "\xff\u2028", "a;b", "%70assword=1234")
	f.Fuzz(func(t *testing.T, secretName, secret, name, value string) {
		object, err := json.Marshal(map[string]any{secretName: []any{secret, 12.5, nil}, name: value})
		if err != nil {
			t.Skip()
		}
		r := &redactor{names: map[string]bool{}}
		out, ok := r.body(object, jsonBody, nil)
		if !ok || !json.Valid(out) || len(out) != len(object) {
			t.Fatalf("%s\nbecame %s", object, out)
		}
		if again, _ := r.body(out, jsonBody, nil); !bytes.Equal(again, out) {
			t.Fatalf("%s\nbecame %s\nand then %s", object, out, again)
		}
		var esc bytes.Buffer
		_ = xml.EscapeText(&esc, []byte(value))
		doc := []byte("<a n=\"" + esc.String() + "\">" + esc.String() + "<pin p='" + esc.String() + "'>" + esc.String() + "</pin></a>")
		if out, ok = r.body(doc, xmlBody, nil); !ok || len(out) != len(doc) {
			t.Fatalf("%s\nbecame %s", doc, out)
		}
		if again, ok := r.body(out, xmlBody, nil); !ok || !bytes.Equal(again, out) {
			t.Fatalf("%s\nbecame %s\nand then %s", doc, out, again)
		}
		text := secretName + "=" + secret + "&" + name + "=" + value
		pairs := r.pairs(text)
		if len(pairs) != len(text) || r.pairs(pairs) != pairs {
			t.Fatalf("%q\nbecame %q\nand then %q", text, pairs, r.pairs(pairs))
		}
		target := "/" + value + "?" + text
		if got := r.target(target); len(got) != len(target) {
			t.Fatalf("%q\nbecame %q", target, got)
		}
		for _, h := range []string{"Cookie", "Authorization", "Referer", "X-Api-Key"} {
			if got := r.header(h, secret); len(got) != len(secret) {
				t.Fatalf("%s: %q became %q", h, secret, got)
			}
		}
	})
}

// Wherever a secret that can be known by its name is put, it is not recorded.
func FuzzSecretNeverRecorded(f *testing.F) {
	f.Add("Hunter2Hunter2", uint8(0))
	f.Add("Tr0ub4dor&3xkcd", uint8(3))
	f.Fuzz(func(t *testing.T, secret string, name uint8) {
		secret = "Qx7J" + secret // stands nowhere else
		if strings.ContainsAny(secret, "&;=\r\n%+\"\\ /?") || !json.Valid([]byte(`"`+secret+`"`)) {
			t.Skip()
		}
		names := []string{"password", "user[passwd]", "api-key", "accessToken", "CVV", "client_secret", "pwd"}
		n := names[int(name)%len(names)]
		pair := "a=b&" + n + "=" + secret + "&c=d"
		for k, b := range map[kind]string{
			form:          pair,
			jsonBody:      `{"a": {"` + n + `": ["` + secret + `"]}}`,
			xmlBody:       `<a><pwd b="1">` + html.EscapeString(secret) + `</pwd><c pin='` + html.EscapeString(secret) + `'/></a>`,
			multipartForm: "--B\r\nContent-Disposition: form-data; name=\"" + n + "\"\r\n\r\n" + secret + "\r\n--B--\r\n",
		} {
			e := &Entry{Target: "/p?" + pair, Body: []byte(b), Whole: true, Header: http.Header{
				"Cookie": {"a=" + secret}, "Authorization": {"Bearer " + secret}, "Referer": {"https://h/?" + pair},
				"Content-Type": {"multipart/form-data; boundary=B"}, "X-Api-Key": {secret},
			}}
			redact(e, k)
			if wire := appendEntry(nil, e); bytes.Contains(wire, []byte(secret)) {
				t.Fatalf("recorded: %q", wire)
			}
			if !e.Whole && k != xmlBody { // which cannot hold every character
				t.Fatal("the body was left out")
			}
		}
	})
}
