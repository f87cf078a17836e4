package waf_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/merlon-dev/merlon/test/corpus"
	"github.com/merlon-dev/merlon/waf"
)

// oddTypes are types of bodies as they are meant, and as they are meant to
// have a body read as what it is not.
var oddTypes = []string{
	"application/x-www-form-urlencoded", "APPLICATION/X-WWW-FORM-URLENCODED", " application/x-www-form-urlencoded ", "application/x-www-form-urlencoded;",
	"application/x-www-form-urlencoded; charset=utf-8", "application/x-www-form-urlencoded;charset=\"UTF-8\"", "application/x-www-form-urlencoded; charset=iso-8859-1",
	"application/x-www-form-urlencoded; charset=utf-16", "application/x-www-form-urlencoded; charset=utf-7", "application/x-www-form-urlencoded; charset=ibm037",
	"application/x-www-form-urlencoded; charset=utf-8; charset=utf-7", "application/x-www-form-urlencoded, application/json", "application/x-www-form-urlencodedx",
	"application/json", "application/json; charset=utf-8", "application/json;charset=utf-16le", "application/json; boundary=x", "text/json", "application/x-json",
	"application/ld+json", "application/vnd.api+json; profile=\"x\"", "application/json-patch+json", "application/jsonp", "application/x-ndjson", "application/graphql",
	"application/graphql-response+json", "application/csp-report", "application/reports+json", "application/json\t", "application/json;", "application/ json",
	"text/xml", "application/xml", "application/soap+xml; charset=utf-8; action=\"urn:x\"", "image/svg+xml", "application/xhtml+xml", "text/xml; charset=utf-16", "application/xml-dtd",
	"application/xop+xml", "text/plain", "text/plain; charset=utf-7", "text/html", "text/x-gwt-rpc; charset=utf-8", "text", "*/*", "application/*", "", "x",
	"multipart/form-data; boundary=x", "multipart/form-data;boundary=\"x\"", "Multipart/Form-Data; Boundary=x", "multipart/form-data; boundary=x; boundary=y", "multipart/form-data",
	"multipart/form-data; boundary =x", "multipart/form-data; boundary=x; charset=utf-8", "multipart/form-data; charset=utf-7; boundary=x", "multipart/form-data; boundary=\"x\\\"\"",
	"multipart/form-data; boundary*=utf-8''x", "multipart/form-data; boundary*0=x", "multipart/form-data; x=\"; boundary=y\"; boundary=x", "multipart/form-data, boundary=x",
	"multipart/mixed; boundary=x", "multipart/related; boundary=x; type=\"text/xml\"", "application/octet-stream", "application/x-protobuf", "application/grpc-web-text", "application/pdf",
}

// oddBodies are where an attack can stand in a body.
func oddBodies(attack string) map[string]string {
	u := strings.NewReplacer("%", "%25", "&", "%26", "+", "%2B", "=", "%3D", ";", "%3B", " ", "+").Replace(attack)
	j := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(attack)
	x := strings.NewReplacer("&", "&amp;", "<", "&lt;").Replace(attack)
	part := func(header, s string) string {
		return "--x\r\nContent-Disposition: form-data; " + header + "\r\n\r\n" + s + "\r\n--x--\r\n"
	}
	var units strings.Builder
	for _, c := range attack {
		fmt.Fprintf(&units, `\u%04x`, c)
	}
	return map[string]string{
		"form": "a=1&q=" + u, "form, raw": "a=1&q=" + attack, "form, name": u + "=1", "form, semicolon": "a=1;q=" + u, "form, repeated": "q=1&q=" + u + "&q=2", "form, no name": "=" + u,
		"form, empty fields": "&&&q=" + u + "&&", "form, broken escapes": "a=%&b=%zz&q=%" + u, "form, null": "a=%00&q=" + u, "form, brackets": "q[]=1&q[x]=" + u,
		"json": `{"a":1,"q":"` + j + `"}`, "json, key": `{"` + j + `":1}`, "json, units": `{"q":"` + units.String() + `"}`, "json, repeated": `{"q":"` + j + `","q":1}`, "json, array": `[[["` + j + `"]]]`,
		"json, alone": `"` + j + `"`, "json, white": " \t\r\n{\"q\" \n: \"" + j + "\" }\n\n", "json, mark": "\xef\xbb\xbf{\"q\":\"" + j + `"}`, "json, after": `{"a":1}{"q":"` + j + `"}`,
		"json, comment": `{/*x*/"q":"` + j + `"}`, "json, single quotes": `{'q':"` + j + `"}`, "json, lines": "{\"a\":1}\n{\"q\":\"" + j + "\"}\n", "json, deep": strings.Repeat(`{"a":`, 100) + `"` + j + `"` + strings.Repeat("}", 100),
		"json, trailing comma": `{"q":"` + j + `",}`, "json, NaN": `{"a":NaN,"q":"` + j + `"}`, "json, numbers": `{"a":1e999,"b":-0,"q":"` + j + `"}`, "graphql": `{"query":"{a(b:\"` + strings.ReplaceAll(j, `\`, `\\`) + `\"){c}}"}`,
		"graphql, variables": `{"query":"query($v:S){a(b:$v){c}}","variables":{"v":["` + j + `"]}}`, "graphql, batch": `[{"query":"{a}"},{"query":"query($v:S){a}","variables":{"v":"` + j + `"}}]`,
		"xml": "<a><b>" + x + "</b></a>", "xml, attribute": `<a b="` + strings.ReplaceAll(x, `"`, "&quot;") + `"/>`, "xml, cdata": "<a><![CDATA[" + attack + "]]></a>", "xml, comment between": "<a>" + x[:1] + "<!-- c -->" + x[1:] + "</a>",
		"xml, head": `<?xml version="1.0" encoding="utf-8"?>` + "\n<a>" + x + "</a>", "xml, latin": `<?xml version="1.0" encoding="utf-16"?><a>` + x + "</a>", "xml, unfinished": "<a><b>" + x + "</b>",
		"xml, entity": `<!DOCTYPE a [<!ENTITY e "` + x + `">]><a>&e;</a>`, "xml, name": "<a><" + "b>1</b><c d:e=\"" + strings.ReplaceAll(x, `"`, "&quot;") + "\"/></a>",
		"soap":      `<s:Envelope xmlns:s="urn:s"><s:Body><q>` + x + "</q></s:Body></s:Envelope>",
		"multipart": part(`name="q"`, attack), "multipart, name": part(`name="`+strings.ReplaceAll(attack, `"`, "")+`"`, "1"), "multipart, file name": part(`name="f"; filename="`+strings.ReplaceAll(attack, `"`, "")+`"`, "1"),
		"multipart, plain name": part("name=q", attack), "multipart, single": part("name='q'", attack), "multipart, line ends": strings.ReplaceAll(part(`name="q"`, attack), "\r\n", "\n"),
		"multipart, preamble": "preamble\r\n" + part(`name="q"`, attack), "multipart, no end": strings.TrimSuffix(part(`name="q"`, attack), "--x--\r\n"), "multipart, after the end": part(`name="a"`, "1") + part(`name="q"`, attack),
		"multipart, folded": part("name=\"a\";\r\n name=\"q\"", attack), "multipart, encoded": strings.Replace(part(`name="q"`, attack), "\r\n\r\n", "\r\nContent-Transfer-Encoding: base64\r\n\r\n", 1),
		"multipart, charset": strings.Replace(part(`name="q"`, attack), "\r\n\r\n", "\r\nContent-Type: text/plain; charset=utf-7\r\n\r\n", 1), "multipart, file": part(`name="q"; filename=""`, attack),
		"multipart, file twice": part(`name="q"; filename="a.txt"; filename=""`, attack), "multipart, filename*": part(`name="q"; filename*=utf-8''`, attack), "multipart, charset field": part(`name="_charset_"`, "utf-7"),
		"plain": attack,
	}
}

// Whatever type a body claims to have: what Coraza, which has a reader of its
// own, refuses is refused.
func TestSameAsCorazaOnTypes(t *testing.T) {
	attacks := []string{"1' union select password from users--", "<script>alert(1)</script>", "${jndi:ldap://a/b}", "; cat /etc/passwd"}
	var list []corpus.Request
	for i, contentType := range oddTypes {
		for name, body := range oddBodies(attacks[i%len(attacks)]) {
			list = append(list, corpus.Request{
				ID: fmt.Sprintf("%s as %q", name, contentType), Method: "POST", Path: "/p", Proto: "HTTP/1.1", Body: []byte(body),
				Header: []corpus.Field{{Name: "Accept", Value: "*/*"}, {Name: "Content-Type", Value: contentType}, {Name: "User-Agent", Value: "Mozilla/5.0"}},
			})
		}
	}
	s := differ(t, waf.Config{}, share(list, 10))
	if s.both*4 < s.n {
		t.Errorf("of %d requests only %d were refused: the comparison has no power", s.n, s.both)
	}
}
