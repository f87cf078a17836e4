package body_test

import (
	"encoding/json"
	"encoding/xml"
	"mime"
	"net/url"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/merlon-dev/merlon/waf/internal/body"
	"github.com/merlon-dev/merlon/waf/internal/message"
)

func types(t testing.TB) *body.Types {
	t.Helper()
	list, err := body.NewTypes(nil)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// read reads a body as a guard with the default settings does.
func read(t testing.TB, contentType, text string) (message.Body, error) {
	t.Helper()
	k, boundary, err := types(t).Kind(contentType)
	if err != nil {
		t.Fatal(err)
	}
	b := message.Body{Kind: k}
	return b, body.Parse(&b, []byte(text), body.Options{Boundary: boundary, Limit: 1 << 20, Most: 1000, RefuseDoctype: true})
}

// values are all names and values that are read in a document.
func values(t testing.TB, contentType, text string) ([]string, error) {
	t.Helper()
	b, err := read(t, contentType, text)
	list := b.Texts
	for _, a := range b.Args {
		list = append(list, a.Name, a.Value)
	}
	return list, err
}

// Whatever net/url reads in a form is seen.
func FuzzForm(f *testing.F) {
	for _, s := range []string{"a=1&b=%20+x", "a%42=%41", "a", "=b&&", "a=%zz&b=%3", "a[]=1&a[]=2", "a;b=1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		want, err := url.ParseQuery(s)
		if err != nil {
			return
		}
		got, err := values(t, "application/x-www-form-urlencoded", s)
		if err != nil {
			return // more fields than are inspected
		}
		for name, values := range want {
			for _, v := range values {
				if !slices.Contains(got, v) || !slices.Contains(got, name) {
					t.Fatalf("%q=%q is not seen in %q: %q", name, v, s, got)
				}
			}
		}
	})
}

// Whatever encoding/json reads in a document that is accepted is seen.
func FuzzJSON(f *testing.F) {
	for _, s := range []string{`{"a":{"b":[1,"x",null,true]}}`, `"x"`, `[]`, `{"a":1,"a":2}`, `{"":""}`, `{"a.b":1,"a":{"b":2}}`, "\ufeff{}", `[[[[]]]]`, `"\u0041\n"`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := values(t, "application/json", s)
		if err != nil || !utf8.ValidString(s) || strings.Contains(s, `\u`) {
			return // parsers differ in what they make of surrogates
		}
		var doc any
		if err := json.Unmarshal([]byte(s), &doc); err != nil {
			t.Fatalf("accepted, but encoding/json says: %v", err)
		}
		all := strings.Join(got, "\x00")
		var walk func(v any)
		walk = func(v any) {
			switch v := v.(type) {
			case string:
				if !slices.Contains(got, v) {
					t.Fatalf("%q is not seen in %s: %q", v, s, got)
				}
			case []any:
				for _, e := range v {
					walk(e)
				}
			case map[string]any:
				for k, e := range v {
					if m, ok := e.(map[string]any); !strings.Contains(all, k) && !(ok && len(m) == 0) {
						t.Fatalf("the key %q is not seen in %s", k, s)
					}
					walk(e)
				}
			}
		}
		walk(doc)
	})
}

// Whatever a strict XML reader reads in a document that is accepted is seen.
func FuzzXML(f *testing.F) {
	for _, s := range []string{`<a b="c">d<e/>&lt;</a>`, `<a><![CDATA[<b>]]></a>`, `<?xml version="1.0" encoding="utf-8"?><a/>`, `<!DOCTYPE a><a/>`, `<a b=c>`, `<a`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := values(t, "text/xml", s)
		if err != nil {
			return
		}
		dec := xml.NewDecoder(strings.NewReader(s))
		for {
			tok, err := dec.Token()
			if err != nil {
				return
			}
			switch tok := tok.(type) {
			case xml.CharData:
				if text := strings.TrimSpace(string(tok)); text != "" && !slices.Contains(got, text) {
					t.Fatalf("%q is not seen in %s: %q", text, s, got)
				}
			case xml.StartElement:
				for _, a := range tok.Attr {
					if a.Name.Space != "xmlns" && a.Name.Local != "xmlns" && a.Name.Local != "schemaLocation" && a.Value != "" && !slices.Contains(got, a.Value) {
						t.Fatalf("%q is not seen in %s: %q", a.Value, s, got)
					}
				}
			}
		}
	})
}

// A type that is accepted names one type, in one way.
func FuzzContentType(f *testing.F) {
	for _, s := range []string{"application/json; charset=utf-8", "multipart/form-data; boundary=x", "multipart/form-data; boundary=\"a b\"", "text/xml;;", "a/b, c/d", "application/json;charset=utf-7"} {
		f.Add(s)
	}
	list := types(f)
	f.Fuzz(func(t *testing.T, s string) {
		_, boundary, err := list.Kind(s)
		if err != nil {
			return
		}
		lower := strings.ToLower(s)
		_, params, perr := mime.ParseMediaType(s)
		if strings.ContainsAny(s, "\u00a0\u3000") || perr == nil && strings.EqualFold(params["charset"], "utf-7") {
			t.Fatalf("%q is accepted", s)
		}
		if boundary != "" {
			// The reading of servers that look for the first "boundary".
			_, after, _ := strings.Cut(lower, "boundary")
			after = strings.TrimPrefix(strings.TrimPrefix(after, "="), `"`)
			if !strings.HasPrefix(after, strings.ToLower(boundary)) {
				t.Fatalf("%q: the boundary %q is not the first", s, boundary)
			}
		}
	})
}

// A document is found whatever follows it, and asked for to its end.
func FuzzDocument(f *testing.F) {
	for _, s := range []string{`{"a":[1,"b"]}`, "\xef\xbb\xbf \n[{}]", `"a\u0027"`, `{"a":1`, `{]`, `"a","b"`, "1 2", "", "<a/>"} {
		f.Add(s, "]")
	}
	f.Fuzz(func(t *testing.T, s, after string) {
		doc, rest, unfinished := body.Document([]byte(s))
		if doc != nil && (unfinished || !json.Valid(doc) || !strings.HasSuffix(strings.TrimRight(s, " \t\r\n"), strings.TrimRight(string(rest), " \t\r\n")) || !strings.Contains(s, string(doc))) {
			t.Errorf("%q: document %q, unfinished %v", s, doc, unfinished)
		}
		plain := strings.TrimSpace(s)
		if plain == "" || !strings.ContainsRune("{[\"", rune(plain[0])) || !json.Valid([]byte(plain)) {
			return
		}
		if doc, _, _ := body.Document([]byte(plain + after)); string(doc) != plain {
			t.Errorf("%q before %q: document %q", plain, after, doc)
		}
		for i := 1; i < min(len(plain), 200); i++ {
			if doc, _, unfinished := body.Document([]byte(plain[:i])); doc != nil || !unfinished {
				t.Errorf("%q: document %q, unfinished %v", plain[:i], doc, unfinished)
			}
		}
	})
}
