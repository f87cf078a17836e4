package traffic

import (
	"net/url"
	"strconv"
	"strings"

	"github.com/merlon-dev/merlon/waf/internal/message"
)

// A Place is where a payload can stand in a request.
type Place struct {
	Name string
	put  func(m *message.Request, payload string)
}

// Request is an ordinary request but for the payload.
func (p Place) Request(payload string) *message.Request {
	m := browser("GET", "/p/list?page=2")
	p.put(m, payload)
	return m
}

// Places are all of them.
var Places = []Place{
	{"query value", func(m *message.Request, s string) { m.URI = "/p/list?q=" + url.QueryEscape(s) }},
	{"query value as it is", func(m *message.Request, s string) { m.URI = "/p/list?q=" + s }},
	{"query name", func(m *message.Request, s string) { m.URI = "/p/list?" + url.QueryEscape(s) + "=1" }},
	{"path", func(m *message.Request, s string) { m.URI = "/p/" + url.PathEscape(s) }},
	{"path as it is", func(m *message.Request, s string) { m.URI = "/p/" + s }},
	{"cookie value", func(m *message.Request, s string) { set(m, "Cookie", "session=6f2ae1; x="+s) }},
	{"cookie name", func(m *message.Request, s string) { set(m, "Cookie", "session=6f2ae1; "+s+"=1") }},
	{"referer", func(m *message.Request, s string) { set(m, "Referer", s) }},
	{"user agent", func(m *message.Request, s string) { set(m, "User-Agent", s) }},
	{"other header", func(m *message.Request, s string) { set(m, "X-Custom", s) }},
	{"json value", func(m *message.Request, s string) { args(m, message.JSON, "json.items.0.name", s) }},
	{"json key", func(m *message.Request, s string) { args(m, message.JSON, "json."+s, "1") }},
	{"form value", func(m *message.Request, s string) { form(m, "q", s) }},
	{"form name", func(m *message.Request, s string) { form(m, s, "1") }},
	{"text", func(m *message.Request, s string) { text(m, s) }},
	{"multipart field", func(m *message.Request, s string) { part(m, "note", s, message.Part{}) }},
	{"multipart name", func(m *message.Request, s string) { part(m, s, "1", message.Part{}) }},
	{"file name", func(m *message.Request, s string) {
		part(m, "upload", "", message.Part{File: true, FileNames: []string{s}, Size: 5})
	}},
	{"part header", func(m *message.Request, s string) {
		part(m, "upload", "", message.Part{Header: []message.Pair{{Name: "X-Custom", Value: s}}, File: true, FileNames: []string{"a.txt"}, Size: 5})
	}},
	{"xml text", func(m *message.Request, s string) { xml(m, nil, []string{"one", s}) }},
	{"xml attribute", func(m *message.Request, s string) { xml(m, []string{"1.0", s}, []string{"one"}) }},
	{"host", func(m *message.Request, s string) { m.Host = s; set(m, "Host", s) }},
	{"method", func(m *message.Request, s string) { m.Method = s }},
	{"content type", func(m *message.Request, s string) { form(m, "q", "1"); set(m, "Content-Type", s) }},
	{"header name", func(m *message.Request, s string) { set(m, s, "1") }},
}

// set sets a header field.
func set(m *message.Request, name, value string) {
	for i := range m.Header {
		if strings.EqualFold(m.Header[i].Name, name) {
			m.Header[i].Value = value
			return
		}
	}
	m.Header = append(m.Header, message.Pair{Name: name, Value: value})
}

func post(m *message.Request, kind message.Kind, mediaType string, size int) {
	m.Method, m.URI = "POST", "/p/form"
	m.Body.Kind = kind
	set(m, "Content-Type", mediaType)
	set(m, "Content-Length", strconv.Itoa(size))
}

func args(m *message.Request, kind message.Kind, name, value string) {
	post(m, kind, "application/json", len(name)+len(value)+40)
	m.Body.Args = []message.Pair{{Name: "json.page", Value: "2"}, {Name: name, Value: value}, {Name: "json.who", Value: "Jane"}}
}

func form(m *message.Request, name, value string) {
	s := "page=2&" + url.QueryEscape(name) + "=" + url.QueryEscape(value)
	post(m, message.Form, "application/x-www-form-urlencoded", len(s))
	m.Body.Text = s
	m.Body.Args = []message.Pair{{Name: "page", Value: "2"}, {Name: name, Value: value}}
}

func text(m *message.Request, s string) {
	post(m, message.Text, "text/plain", len(s))
	m.Body.Text = s
	for field := range strings.SplitSeq(s, "&") {
		if name, value, _ := strings.Cut(field, "="); field != "" {
			m.Body.Args = append(m.Body.Args, message.Pair{Name: unescape(name), Value: unescape(value)})
		}
	}
}

func part(m *message.Request, name, value string, p message.Part) {
	post(m, message.Multipart, "multipart/form-data; boundary=xYzZY", len(name)+len(value)+100)
	disposition := `form-data; name="` + name + `"`
	if p.File {
		disposition += `; filename="` + p.FileNames[0] + `"`
	} else {
		m.Body.Args = []message.Pair{{Name: name, Value: value}}
	}
	p.Name = name
	p.Header = append([]message.Pair{{Name: "Content-Disposition", Value: disposition}}, p.Header...)
	m.Body.Parts = []message.Part{p}
}

func xml(m *message.Request, attrs, texts []string) {
	post(m, message.XML, "application/xml", 100)
	m.Body.Attrs, m.Body.Texts = attrs, texts
}

// browser is a request as a browser sends it.
func browser(method, uri string) *message.Request {
	return &message.Request{
		Client: client, Port: 40000, Method: method, URI: uri, Proto: "HTTP/1.1", Host: "shop.example.com",
		Header: []message.Pair{
			{Name: "Host", Value: "shop.example.com"},
			{Name: "Accept", Value: "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"},
			{Name: "Accept-Encoding", Value: "gzip, deflate, br"},
			{Name: "Accept-Language", Value: "en-US,en;q=0.5"},
			{Name: "Cookie", Value: "session=6f2ae1; theme=dark"},
			{Name: "Referer", Value: "https://shop.example.com/p"},
			{Name: "Sec-Fetch-Mode", Value: "navigate"},
			{Name: "User-Agent", Value: "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"},
		},
	}
}
