package oracle_test

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/merlon-dev/merlon/waf/internal/message"
	"github.com/merlon-dev/merlon/waf/internal/oracle/traffic"
)

// Requests as no browser sends them: names that are repeated, empty or in
// other letters, cookies, addresses and fields in odd forms, several payloads
// and what surrounds them, all in one request.
func TestOdd(t *testing.T) {
	list := crsPayloads(t)
	for level, few := range map[int]int{1: 700, 2: 150, 3: 150, 4: 150} {
		t.Run(fmt.Sprint("level ", level), func(t *testing.T) {
			s := crs(t, level).compare(t, sample(map[int]int{1: 40_000, 2: 5_000, 3: 5_000, 4: 5_000}[level], few), func(i int) named {
				o := odd{traffic.NewMutator(uint64(i)), list}
				return named{fmt.Sprint("odd request ", i), o.request(), nil}
			})
			// With the race detector there are too few to say.
			if !raced && (s.flagged.Load()*3 < s.n.Load() || level == 1 && s.clean.Load()*20 < s.n.Load()) {
				t.Error("too much or too little is flagged for the comparison to have power")
			}
		})
	}
}

// An odd makes odd requests of payloads.
type odd struct {
	traffic.Mutator
	payloads []string
}

func (o odd) pick(from ...string) string { return from[o.IntN(len(from))] }

// text is a payload, a part of one or a harmless word, perhaps encoded.
func (o odd) text() string {
	s := o.payloads[o.IntN(len(o.payloads))]
	switch o.IntN(9) {
	case 0:
		s = o.Mutate(s)
	case 1:
		s = s[:o.IntN(len(s)+1)]
	case 2:
		s = o.pick("'", `"`, "<", "%", "%2", "%u", "%u00", "&#", "\x00", "\r\n", ";", "--", "/*", "\\", "${", "{{", "../", "\u017f\u212a", "\xff\xfe") + s
	case 3, 4, 5, 6:
		s = o.pick("", "1", "tea", "a b", "0", "-1", "jane@example.com", "https://shop.example.com/a?b=c", "2026-11-28", "application/json", "true", "[]")
	}
	switch o.IntN(8) {
	case 0:
		s = url.QueryEscape(s)
	case 1:
		s = url.PathEscape(url.QueryEscape(s))
	case 2:
		s = strings.ToUpper(s)
	}
	if len(s) > 1500 {
		s = s[:1500]
	}
	return s
}

func (o odd) name() string {
	if o.IntN(6) == 0 {
		return o.text()
	}
	return o.pick("a", "A", "a[]", "a[0]", "", "q", "id", "json.a", "_method", "a.b", "=", "%61", "__utma", "redirect_uri", "\u017f", "url", "/*", "//@*")
}

func (o odd) request() *message.Request {
	m := &message.Request{
		Client: o.pick("192.0.2.1", "2001:db8::1", ""), Port: 40000, Proto: o.pick("HTTP/1.1", "HTTP/1.0", "HTTP/2.0"),
		Method: o.pick("GET", "GET", "POST", "POST", "HEAD", "OPTIONS", "PUT"), Host: o.pick("shop.example.com", "192.0.2.7", "SHOP.example.com:443", ""),
		URI: o.uri(),
	}
	field := func(name, value string) { m.Header = append(m.Header, message.Pair{Name: name, Value: value}) }
	field("Host", m.Host)
	for range o.IntN(5) {
		switch o.IntN(5) {
		case 0, 1:
			field(o.pick("Cookie", "Cookie", "cookie"), o.cookies())
		case 2:
			field(o.pick("User-Agent", "Referer", "Accept", "Accept-Encoding", "Accept-Charset", "Range", "Request-Range", "Content-Encoding",
				"Content-Length", "Transfer-Encoding", "Expect", "Connection", "X-Forwarded-For", "X-Method-Override", "Cache-Control", "Upgrade", "X-File-Name"), o.text())
		case 3:
			field(o.name(), o.text())
		case 4:
			field("Accept", o.pick("*/*", "text/html;q=0.9, */*;q=0.8", "application/json", ""))
		}
	}
	if m.Method != "GET" && m.Method != "HEAD" || o.IntN(8) == 0 {
		o.body(m, field)
	}
	return m
}

func (o odd) uri() string {
	path := o.pick("/", "/index.php", "//a//b", "/a/../b", "/a;x=1/b", "/%61%2e%2e/", "/a.php/b", "/a%00.txt", "http://shop.example.com/a", "*", "a/b", "/a\\b", "/.git/config", "/a/", "/A.BAK", "/x%2fy", "/a b", "")
	if o.IntN(4) == 0 {
		path = "/" + o.text()
	}
	if o.IntN(5) == 0 {
		return path
	}
	var b strings.Builder
	b.WriteString(path + o.pick("?", "?", "?", "??", "#?", "?#", "%3f"))
	for range o.IntN(4) {
		b.WriteString(o.pick(o.name(), url.QueryEscape(o.name())))
		b.WriteString(o.pick("=", "=", "=", "", "==", "%3d"))
		b.WriteString(o.pick(o.text(), url.QueryEscape(o.text())))
		b.WriteString(o.pick("&", "&", "&&", ";", "&amp;", "%26"))
	}
	return b.String()
}

func (o odd) cookies() string {
	var b strings.Builder
	for range o.IntN(4) {
		b.WriteString(o.pick("", " ", "\t", "$Version=1; ", ";"))
		b.WriteString(o.pick("session", "a", "A", "", "__utmz", "_ga", "_pk_ref", o.name()))
		b.WriteString(o.pick("=", "=", "=", "", " = ", "=="))
		b.WriteString(o.pick(o.text(), `"`+o.text()+`"`))
		b.WriteString(o.pick("; ", ";", ",", " ; ", ";;"))
	}
	return b.String()
}

func (o odd) body(m *message.Request, field func(name, value string)) {
	pairs := func() (out []message.Pair) {
		for range o.IntN(5) {
			out = append(out, message.Pair{Name: o.name(), Value: o.text()})
		}
		return out
	}
	m.Body.Kind = message.Kind(o.IntN(int(message.Opaque) + 1))
	field(o.pick("Content-Type", "content-type"), o.pick("application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/json", "application/json; charset=utf-8",
		"text/xml", "text/plain", "application/octet-stream", "application/x-www-form-urlencoded; charset=utf-7", "application/soap+xml; charset=utf-8; action=urn:x",
		"Application/JSON", " text/xml", "application/json;charset=utf-8;charset=utf-16", "application/vnd.api+json", "application/csp-report", o.text()))
	if o.IntN(3) > 0 {
		field("Content-Length", o.pick("0", "1", "100", "-1", "1e3", "007"))
	}
	switch m.Body.Kind {
	case message.Form, message.Text:
		m.Body.Args = pairs()
		for i, a := range m.Body.Args {
			m.Body.Text += strings.Repeat("&", min(i, 1)) + url.QueryEscape(a.Name) + "=" + o.pick(a.Value, url.QueryEscape(a.Value))
		}
	case message.JSON:
		m.Body.Args = pairs()
		for i := range m.Body.Args {
			m.Body.Args[i].Name = "json." + m.Body.Args[i].Name + o.pick("", "."+strconv.Itoa(i))
		}
	case message.XML:
		for range o.IntN(4) {
			m.Body.Attrs = append(m.Body.Attrs, o.text())
			m.Body.Texts = append(m.Body.Texts, o.text())
		}
	case message.Multipart:
		m.Body.Args = pairs()
		for range o.IntN(4) {
			o.part(m)
		}
	}
}

func (o odd) part(m *message.Request) {
	p := message.Part{Name: o.name(), File: o.IntN(2) == 0, Size: int64(o.IntN(3) * 7)}
	disposition := "form-data; name=\"" + p.Name + "\""
	if p.File {
		p.FileNames = []string{o.pick("a.txt", "a.php", "a.jsp;.jpg", "..\\a", o.text())}
		if o.IntN(3) == 0 {
			p.FileNames = append(p.FileNames, o.text())
		}
		disposition += "; filename=\"" + p.FileNames[0] + "\""
	}
	p.Header = []message.Pair{{Name: "Content-Disposition", Value: disposition}}
	if o.IntN(2) == 0 {
		p.Header = append(p.Header, message.Pair{
			Name:  o.pick("Content-Type", "Content-Transfer-Encoding", "X-Odd", o.name()),
			Value: o.pick("text/plain", "text/plain; charset=utf-7", "base64", o.text()),
		})
	}
	m.Body.Parts = append(m.Body.Parts, p)
}

// What rules make of a value in one request is not taken for what they make of
// it in another: few values, again and again, in requests of which some are
// exempt.
func TestSeenBefore(t *testing.T) {
	list := crsPayloads(t)
	for i, c := range configs {
		if raced && i%6 > 0 {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			p, err := newCRS(c.level, c.before, c.after)
			if err != nil {
				t.Fatal(err)
			}
			s := p.compare(t, sample(6000, 160), func(n int) named {
				o := odd{Mutator: traffic.NewMutator(uint64(n))}
				for k := range 8 {
					o.payloads = append(o.payloads, list[(k*len(list)/8+i)%len(list)])
				}
				m := traffic.Places[o.IntN(len(traffic.Places))].Request(o.pick(o.payloads...))
				if o.IntN(2) == 0 {
					m.URI = o.pick("/p/", "/q/", "/p/b?page=2&", "/q/b?q=") + url.QueryEscape(o.pick(o.payloads...))
				}
				for _, h := range []string{"Referer", "X-Custom", "User-Agent"} {
					if o.IntN(3) == 0 {
						m.Header = append(m.Header, message.Pair{Name: h, Value: o.pick(o.payloads...)})
					}
				}
				if o.IntN(3) == 0 {
					m.Method = o.pick("GET", "POST", "HEAD")
				}
				return named{fmt.Sprint("request ", n), m, answer(o.Rand)}
			})
			if s.judged.Load() == 0 || s.judged.Load() == s.n.Load() {
				t.Error("all is judged alike: the comparison has no power")
			}
		})
	}
}
