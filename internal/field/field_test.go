package field_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/internal/field"
)

const (
	form  = "application/x-www-form-urlencoded"
	js    = "application/json"
	multi = "multipart/form-data; boundary=b"
)

func request(target, contentType, body string) *merlon.Request {
	hr := httptest.NewRequest(http.MethodPost, "http://shop.example.com/login"+target, strings.NewReader(body))
	if contentType != "" {
		hr.Header.Set("Content-Type", contentType)
	}
	return merlon.NewRequest(hr)
}

func part(name, value string) string {
	return "--b\r\nContent-Disposition: form-data; name=\"" + name + "\"\r\n\r\n" + value + "\r\n"
}

func gql(query, variables string) string {
	q, _ := json.Marshal(query)
	if variables == "" {
		return `{"query":` + string(q) + `}`
	}
	return `{"query":` + string(q) + `,"variables":` + variables + `}`
}

func TestValues(t *testing.T) {
	deep := func(n int) string { return strings.Repeat(`{"a":`, n) + `{"email":"ann"}` + strings.Repeat("}", n) }
	for _, c := range []struct {
		what, field, target, contentType, body string
		want                                   string // joined by |
		err                                    error
	}{
		{what: "nothing at all", field: "email"},
		{what: "the query", field: "email", target: "?email=ann&x=1", want: "ann"},
		{what: "query and form", field: "email", target: "?email=ann", contentType: form, body: "email=bob&password=x", want: "ann|bob"},
		{what: "a form", field: "email", contentType: form + "; charset=UTF-8", body: "password=x&email=ann%40example.com", want: "ann@example.com"},
		{what: "twice in a form", field: "email", contentType: form, body: "email=ann&email=bob", want: "ann|bob"},
		{what: "in an escaped name", field: "email", contentType: form, body: "%65mail=ann", want: "ann"},
		{what: "a field of another name", field: "email", contentType: form, body: "e-mail=ann&emails=x"},
		{what: "case counts for few", field: "email", contentType: form, body: "EMAIL=ann", want: "ann"},
		{what: "an array of PHP", field: "email", contentType: form, body: "email[]=ann&email[0]=bob", want: "ann|bob"},
		{what: "PHP trims", field: "user_name", contentType: form, body: "+user.name=ann&user+name=bob&user_name%00x=eve", want: "ann|bob|eve"},
		{what: "brackets in the name", field: "user[email]", contentType: form, body: "user[email]=ann&user[name]=x", want: "ann"},
		{what: "the other spelling of it", field: "user.email", contentType: form, body: "user[email]=ann&user[name]=x&users[email]=y&user[emails]=z", want: "ann"},
		{what: "the other spelling, with more", field: "user.email", contentType: form, body: "User[Email][]=ann&user[email][eq]=bob", want: "ann|bob"},
		{what: "the other spelling, in pieces", field: "user.email", contentType: multi, body: part("user[email]", "ann") + "--b--", want: "ann"},
		{what: "brackets, and JSON comes", field: "user[email]", contentType: js, body: `{"user":{"email":"ann"},"email":"x"}`, want: "ann"},
		{what: "a broken escape", field: "email", contentType: form, body: "a=%zz&email=ann", want: "ann", err: field.ErrUnreadable},
		{what: "semicolons", field: "email", contentType: form, body: "a=1;email=ann", err: field.ErrUnreadable},
		{what: "a broken query", field: "email", target: "?a=%zz", contentType: form, body: "email=ann", err: field.ErrUnreadable},

		{what: "JSON", field: "email", contentType: js, body: `{"password":"x","email":"ann"}`, want: "ann"},
		{what: "JSON behind a byte order mark", field: "email", contentType: js, body: "\ufeff" + `{"email":"ann"}`, want: "ann"},
		{what: "a number", field: "id", contentType: js, body: `{"id":12345678901234567890}`, want: "12345678901234567890"},
		{what: "null is none", field: "email", contentType: js, body: `{"email":null}`},
		{what: "an escaped member", field: "email", contentType: js, body: `{"\u0065mail":"ann"}`, want: "ann"},
		{what: "twice in JSON", field: "email", contentType: js, body: `{"email":"ann","email":"bob"}`, want: "ann|bob"},
		{what: "in another case, as Go takes it", field: "password", contentType: js, body: `{"Password":"x","paſſword":"y"}`, want: "x|y"},
		{what: "a batch", field: "email", contentType: js, body: `[{"email":"ann"},{"email":"bob"},[{"email":"eve"}]]`, want: "ann|bob|eve"},
		{what: "one after the other", field: "email", contentType: "application/x-ndjson", body: "{\"email\":\"ann\"}\n{\"email\":\"bob\"}", want: "ann|bob"},
		{what: "arrays and objects as values", field: "email", contentType: js, body: `{"email":["ann",{"$eq":"bob"},[["eve"]]]}`, want: "ann|bob|eve"},
		{what: "deeper, not asked for", field: "email", contentType: js, body: `{"user":{"email":"ann"}}`},
		{what: "a path", field: "user.email", contentType: js, body: `{"user":{"email":"ann"},"email":"x"}`, want: "ann"},
		{what: "a path through arrays", field: "users.email", contentType: js, body: `[{"users":[{"email":"ann"},{"email":"bob"}]}]`, want: "ann|bob"},
		{what: "dots in a member's name", field: "a.b.c", contentType: js, body: `{"a.b":{"c":"1"},"a":{"b.c":"2","b":{"c":"3"}},"a.b.c":"4","b.c":"x"}`, want: "1|2|3|4"},
		{what: "JSON of another kind", field: "email", contentType: "application/vnd.api+json", body: `{"email":"ann"}`, want: "ann"},
		{what: "JSON that does not say so", field: "email", contentType: "text/plain", body: ` {"email":"ann"}`, want: "ann"},
		{what: "JSON without a type", field: "email", body: `{"email":"ann"}`, want: "ann"},
		{what: "JSON that says it is a form", field: "email", contentType: form, body: `{"email":"ann"}`, want: "ann"},
		{what: "a form that looks like JSON", field: "email", contentType: form, body: `[x]=1&email=ann`, want: "ann"},
		{what: "JSON that is cut off", field: "email", contentType: js, body: `{"email":"ann"`, want: "ann", err: field.ErrUnreadable},
		{what: "JSON with comments", field: "email", contentType: js, body: `{/*x*/"email":"ann"}`, err: field.ErrUnreadable},
		{what: "text after JSON", field: "email", contentType: js, body: `{"email":"ann"} email=bob`, want: "ann", err: field.ErrUnreadable},
		{what: "UTF-16", field: "email", contentType: js, body: "{\x00\"\x00}\x00", err: field.ErrUnreadable},
		{what: "deep", field: "email", contentType: js, body: deep(31)},
		{what: "too deep", field: "email", contentType: js, body: deep(32), err: field.ErrUnreadable},
		{what: "a form that says it is JSON", field: "email", contentType: js, body: `email=ann`, err: field.ErrUnreadable},
		{what: "many", field: "email", contentType: js, body: `{"email":[` + strings.Repeat(`"a",`, 31) + `"a"]}`, want: strings.TrimSuffix(strings.Repeat("a|", 32), "|")},
		{what: "too many", field: "email", contentType: js, body: `{"email":[` + strings.Repeat(`"a",`, 32) + `"a"]}`, want: strings.TrimSuffix(strings.Repeat("a|", 32), "|"), err: field.ErrTooMany},
		{what: "too many in a form", field: "a", contentType: form, body: strings.Repeat("a=&", 33), want: strings.Repeat("|", 31), err: field.ErrTooMany},

		{what: "a number in other spellings", field: "id", contentType: js, body: `{"id":[7,7.0,70e-1,0.7E1,-0,-0.0,0e9,1e21]}`, want: "7|7|7|7|0|0|0|1000000000000000000000"},
		{what: "a number beyond all", field: "id", contentType: js, body: `{"id":[1e999,-7.50,1e-7]}`, want: "1e999|-7.5|0.0000001"},
		{what: "a number in GraphQL", field: "id", contentType: js, body: gql(`{a(id:7) b(id:70e-1)}`, ""), want: "7|7"},
		{what: "GraphQL variables", field: "email", contentType: js, body: gql(`mutation($e:String){login(email:$e)}`, `{"email":"ann"}`), want: "ann"},
		{what: "variables below an object", field: "email", contentType: js, body: gql(`mutation M($in:In!){login(input:$in){t}}`, `{"in":{"list":[{"email":"ann"},{"email":"bob"}]}}`), want: "ann|bob"},
		{what: "variables of other names", field: "email", contentType: js, body: gql(`mutation($x:String,$y:String){a:login(email:$x,p:$y){t} b:login(email:$x,p:$y){t}}`, `{"x":"ann","y":"no"}`), want: "ann|ann"},
		{what: "variables before the query", field: "email", contentType: js, body: `{"variables":{"x":"ann"},"query":"mutation($x:String){login(email:$x)}"}`, want: "ann"},
		{what: "variables as a text", field: "email", contentType: js, body: gql(`mutation($x:String){login(email:$x)}`, `"{\"x\":\"ann\",\"in\":{\"email\":\"bob\"}}"`), want: "bob|ann"},
		{what: "defaults of variables", field: "email", contentType: js, body: gql(`mutation($x: String! = "ann", $p: String = "no"){login(email:$x, password:$p)}`, ""), want: "ann"},
		{what: "literals under aliases", field: "email", contentType: js, body: gql(`mutation { a: login(email: "ann", password: "1") { t } b: login(password: "2" email : "b\u006fb") { t } }`, ""), want: "ann|bob"},
		{what: "an alias is not an argument", field: "email", contentType: js, body: gql(`{ email: name(id: "x") user { email } }`, "")},
		{what: "lists, objects, blocks", field: "email", contentType: js, body: gql(`{ a(email: ["ann", $x]) b(email: {eq: "bob"}, c: "no") d(email: """ eve """) # email: "no"
		}`, `{"x":"dan"}`), want: "ann|bob|eve|dan"},
		{what: "a batch of operations", field: "email", contentType: js, body: "[" + gql(`{a(email:"ann")}`, "") + "," + gql(`{a(email:$x)}`, `{"x":"bob"}`) + "]", want: "ann|bob"},
		{what: "an operation as the body", field: "email", contentType: "application/graphql", body: `{a(email:"ann")}`, want: "ann"},
		{what: "an operation in the query", field: "email", target: "?query=" + url.QueryEscape(`{a(email:$x)}`) + "&variables=" + url.QueryEscape(`{"x":"ann"}`), want: "ann"},
		{what: "escapes of GraphQL", field: "email", contentType: "application/graphql", body: `{a(email:"\u{41}\u{000022}\\u{42}\t\"")}`, want: "A\"\\u{42}\t\""},
		{what: "variables too deep", field: "email", contentType: js, body: gql(`{a}`, deep(9))},
		{what: "variables just not too deep", field: "email", contentType: js, body: gql(`{a}`, deep(7)), want: "ann"},
		{what: "a query that is no operation", field: "email", contentType: js, body: `{"query":"5\" {disk","email":"ann"}`, want: "ann"},

		{what: "multipart", field: "email", contentType: multi, body: part("password", "x") + part("email", "ann") + part("email", "bob") + "--b--", want: "ann|bob"},
		{what: "GraphQL in a multipart form", field: "email", contentType: multi, body: part("query", `mutation($x:String){login(email:$x)}`) + part("variables", `{"x":"ann"}`) + "--b--", want: "ann"},
		{what: "GraphQL with files", field: "email", contentType: multi, body: part("operations", gql(`mutation($x:String){login(email:$x)}`, `{"x":"ann","f":null}`)) + part("map", `{"0":["variables.f"]}`) + part("0", "x") + "--b--", want: "ann"},
		{what: "many with files", field: "email", contentType: multi, body: part("operations", "["+gql(`{a(email:"ann")}`, "")+","+gql(`{a(email:"bob")}`, "")+"]") + "--b--", want: "ann|bob"},
		{what: "a name beside a name", field: "email", contentType: multi, body: "--b\r\nContent-Disposition: form-data; name=\"email\"; name*=utf-8''x\r\n\r\nann\r\n--b--", err: field.ErrUnreadable},
		{what: "a name in pieces", field: "email", contentType: multi, body: "--b\r\nContent-Disposition: form-data; name=\"email\"; name*0=x\r\n\r\nann\r\n--b--", err: field.ErrUnreadable},
		{what: "a star in a name", field: "email", contentType: multi, body: part("a*", "x") + part("email", "ann") + "--b--", want: "ann"},
		{what: "a boundary beside a boundary", field: "email", contentType: "multipart/form-data; boundary=c; boundary*0=b", body: part("x", "ann") + "--b--", err: field.ErrUnreadable},
		{what: "multipart that is cut off", field: "email", contentType: multi, body: part("email", "ann") + part("email", "bob"), want: "ann", err: field.ErrUnreadable},
		{what: "multipart without a boundary", field: "email", contentType: "multipart/form-data", body: part("email", "ann"), err: field.ErrUnreadable},
		{what: "a part without a name", field: "email", contentType: multi, body: "--b\r\nX: 1\r\n\r\nx\r\n--b--", err: field.ErrUnreadable},
		{what: "a part with an encoding", field: "email", contentType: multi, body: "--b\r\nContent-Disposition: form-data; name=email\r\nContent-Transfer-Encoding: base64\r\n\r\nYW5u\r\n--b--", err: field.ErrUnreadable},
		{what: "a part in UTF-7", field: "email", contentType: multi, body: "--b\r\nContent-Disposition: form-data; name=email\r\nContent-Type: text/plain; charset=utf-7\r\n\r\nann\r\n--b--", err: field.ErrUnreadable},

		{what: "an unknown type", field: "email", contentType: "application/xml", body: "<email>ann</email>", err: field.ErrUnreadable},
		{what: "no type", field: "email", body: "email=ann", err: field.ErrUnreadable},
		{what: "a malformed type", field: "email", contentType: "a/b/c; =", body: "email=ann", err: field.ErrUnreadable},
		{what: "a charset", field: "email", contentType: form + "; charset=utf-16", body: "email=ann", err: field.ErrUnreadable},
		{what: "longer than what is looked at", field: "email", contentType: form, body: "email=ann&x=" + strings.Repeat("x", field.MaxBody), want: "ann", err: field.ErrUnreadable},
		{what: "behind what is looked at", field: "email", contentType: js, body: `{"x":"` + strings.Repeat("x", field.MaxBody) + `","email":"ann"}`, err: field.ErrUnreadable},
	} {
		t.Run(c.what, func(t *testing.T) {
			r := request(c.target, c.contentType, c.body)
			got, err := field.Values(r, c.field)
			if strings.Join(got, "|") != c.want || !errors.Is(err, c.err) {
				t.Errorf("%q, %v; want %q, %v", got, err, c.want, c.err)
			}
			if rest, _ := io.ReadAll(r.Request.Body); string(rest) != c.body {
				t.Error("the body was not left whole")
			}
		})
	}
}

func TestCodings(t *testing.T) {
	var b bytes.Buffer
	zw := gzip.NewWriter(&b)
	fmt.Fprint(zw, `{"email":"ann"}`)
	zw.Close()
	for coding, want := range map[string]error{"gzip": field.ErrUnreadable, "br": field.ErrUnreadable, "identity, gzip": field.ErrUnreadable} {
		r := request("", js, b.String())
		r.Header.Set("Content-Encoding", coding)
		if _, err := field.Values(r, "email"); !errors.Is(err, want) {
			t.Errorf("%s: %v", coding, err)
		}
	}
	r := request("", js, `{"email":"ann"}`)
	r.Header.Set("Content-Encoding", "identity")
	if got, err := field.Values(r, "email"); err != nil || len(got) != 1 {
		t.Errorf("identity: %v, %v", got, err)
	}
	r = request("", js, `{"email":"ann"}`)
	r.Header.Add("Content-Type", form)
	if _, err := field.Values(r, "email"); !errors.Is(err, field.ErrUnreadable) {
		t.Errorf("two types: %v", err)
	}
	broken := errors.New("gone")
	r = request("", js, "")
	r.Request.Body = io.NopCloser(io.MultiReader(strings.NewReader("{"), failing{broken}))
	if _, err := field.Values(r, "email"); !errors.Is(err, broken) {
		t.Errorf("a body that breaks off: %v", err)
	}
}

type failing struct{ error }

func (f failing) Read([]byte) (int, error) { return 0, f.error }

func TestAbsentBody(t *testing.T) {
	r := merlon.NewRequest(httptest.NewRequest(http.MethodGet, "http://shop.example.com/", nil))
	if n := testing.AllocsPerRun(100, func() { field.Values(r, "email") }); n > 0 {
		t.Errorf("%v allocations for a request without a body", n)
	}
}

// FuzzForm: what net/http finds in a form is found.
func FuzzForm(f *testing.F) {
	f.Add("a=1&email=ann", "email=%41&x", true)
	f.Add("", "--b\r\nContent-Disposition: form-data; name=\"email\"\r\n\r\nann\r\n--b--", false)
	f.Add("query={a(email:%22x%22)}", "variables={\"email\":1}", true)
	f.Fuzz(func(t *testing.T, query, body string, urlencoded bool) {
		contentType := multi
		if urlencoded {
			contentType = form
		}
		build := func() *merlon.Request {
			r := request("", contentType, body)
			r.URL.RawQuery = query
			return r
		}
		theirs := build()
		if urlencoded {
			theirs.ParseForm()
		} else {
			theirs.ParseMultipartForm(1 << 20)
		}
		r := build()
		got, err := field.Values(r, "email")
		if err != nil {
			return
		}
		for _, v := range theirs.Form["email"] {
			if !slices.Contains(got, v) {
				t.Errorf("net/http found %q, not in %q", v, got)
			}
		}
	})
}

// FuzzJSON: what encoding/json finds is found.
func FuzzJSON(f *testing.F) {
	for _, s := range []string{`{"email":"ann","Email":"bob"}`, `[{"email":"ann"}]`, `{"query":"{a(email:$x)}","variables":{"x":"y","in":{"email":"ann"}}}`, `{"variables":"{\"email\":\"x\"}"}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, body string) {
		if len(body) > field.MaxBody {
			return
		}
		type user struct {
			Email     string
			Variables struct{ Email string }
		}
		var one user
		var many []user
		var want []string
		if err := json.Unmarshal([]byte(body), &one); err == nil {
			want = append(want, one.Email, one.Variables.Email)
		} else if json.Unmarshal([]byte(body), &many) == nil {
			for _, u := range many {
				want = append(want, u.Email, u.Variables.Email)
			}
		}
		got, err := field.Values(request("", js, body), "email")
		if err != nil {
			return
		}
		for _, v := range want {
			if v != "" && !slices.Contains(got, v) {
				t.Errorf("encoding/json found %q, not in %q", v, got)
			}
		}
	})
}

// FuzzGraphQL: an argument is found whatever stands around it, and nothing
// takes long.
func FuzzGraphQL(f *testing.F) {
	f.Add("ann", "mutation", "1")
	f.Fuzz(func(t *testing.T, user, around, other string) {
		quoted, _ := json.Marshal(user)
		if len(user)+len(around)+len(other) > 1<<12 || strings.ContainsAny(around, "\"#{}[]()$:=") {
			return
		}
		o, _ := json.Marshal(other)
		text := around + " { a: login(password: " + string(o) + " email: " + string(quoted) + ") { t } }"
		got, err := field.Values(request("", "application/graphql", text), "email")
		var want string
		json.Unmarshal(quoted, &want)
		if err != nil || !slices.Contains(got, want) {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	})
}

func BenchmarkValues(b *testing.B) {
	var w bytes.Buffer
	m := multipart.NewWriter(&w)
	m.WriteField("email", "ann@example.com")
	m.WriteField("password", "correct horse")
	m.Close()
	for name, c := range map[string][2]string{
		"form":      {form, "email=ann%40example.com&password=correct+horse"},
		"json":      {js, `{"email":"ann@example.com","password":"correct horse"}`},
		"graphql":   {js, gql(`mutation($e:String!,$p:String!){login(email:$e,password:$p){token}}`, `{"e":"ann@example.com","p":"correct horse"}`)},
		"multipart": {m.FormDataContentType(), w.String()},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if got, err := field.Values(request("", c[0], c[1]), "email"); err != nil || len(got) != 1 {
					b.Fatal(got, err)
				}
			}
		})
	}
}
