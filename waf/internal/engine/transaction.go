package engine

import (
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/merlon-dev/merlon/waf/internal/message"
	"github.com/merlon-dev/merlon/waf/internal/seclang"
	"github.com/merlon-dev/merlon/waf/internal/transform"
)

// numVariables is more than there are.
const numVariables = 64

// A transaction is one request, its answer, and what the rules remember of
// them. It is used by one goroutine at a time.
type transaction struct {
	engine *Engine
	arena  transform.Arena

	// The message. Values of keyed variables stand together.
	items  []item
	span   [numVariables]struct{ from, to int }
	scalar [numVariables]string
	early  string     // REQBODY_PROCESSOR before the body is read
	unread bool       // it stays, since there is no body
	typed  bool       // there is a Content-Type
	intact bool       // TX is as after a clean request, or a clean answer
	named  [32]*field // what was found last at each position of a header
	phase  int

	screening
	asked
	evaluation
	more more
}

// An item is one value of a keyed variable.
type item struct {
	key, val string
	low      string // the key in lower case
	field    *field // of a header field, if anything is known of its name
}

func newTransaction(e *Engine) *transaction {
	t := &transaction{engine: e}
	t.tx = make([]value, len(e.slotName))
	t.candidates = make([]uint64, (len(e.rules)+63)/64)
	t.removed = make([]uint64, (len(e.rules)+63)/64)
	t.memo = make([]memo, len(e.nodes))
	t.seen = make([]uint32, e.checks)
	t.probed = make([]uint32, len(e.rules))
	return t
}

// Clean reports whether the screen has found nothing so far.
func (t *transaction) Clean() bool { return !t.dirty }

// forget drops what belongs to a message, so that nothing of it is kept.
func (t *transaction) forget() {
	clear(t.items)
	t.items = t.items[:0]
	clear(t.span[:])
	clear(t.scalar[:])
	t.early = ""
	clear(t.memo)
	t.screening.forget()
	t.asked = asked{}
	t.evaluation.forget()
	t.more.forget()
	t.arena.Reset()
}

// begin takes the request in.
func (t *transaction) begin(m *message.Request) {
	t.scalar[seclang.RemoteAddr] = m.Client
	t.scalar[seclang.RemotePort] = strconv.Itoa(m.Port)
	t.scalar[seclang.ServerName] = m.Host
	t.scalar[seclang.FilesCombinedSize] = "0"
	t.scalar[seclang.URIParseError] = "0"
	t.scalar[seclang.ArgumentsLimitReached] = "0"
	t.scalar[seclang.ReqbodyError] = "0"
	t.scalar[seclang.RequestBodyLength] = "0"
	t.scalar[seclang.HighestSeverity] = "255"
	t.uri(m)
	t.cookies(m.Header)
	t.headers(m.Header)
	t.body(&m.Body)
	t.chooseProcessor(m.Body.Kind)
}

func (t *transaction) open(v seclang.Variable) { t.span[v].from = len(t.items) }
func (t *transaction) shut(v seclang.Variable) { t.span[v].to = len(t.items) }

func (t *transaction) add(key, val string) {
	t.items = append(t.items, item{key, val, t.engine.lowered(key), nil})
}

// addField adds the header field at a position.
func (t *transaction) addField(position int, h *message.Pair) {
	last := &t.named[position%len(t.named)]
	f := *last
	if f == nil || f.name != h.Name {
		if f = t.engine.fields[h.Name]; f != nil {
			*last = f
		} else if f = t.engine.fields[strings.ToLower(h.Name)]; f == nil {
			t.add(h.Name, h.Value)
			return
		}
	}
	t.items = append(t.items, item{h.Name, h.Value, f.low, f})
}

func (t *transaction) has(v seclang.Variable) bool { return t.span[v].to > t.span[v].from }

// uri takes the request line in, as Coraza does.
func (t *transaction) uri(m *message.Request) {
	t.scalar[seclang.RequestMethod] = m.Method
	t.scalar[seclang.RequestProtocol] = m.Proto
	t.scalar[seclang.RequestURIRaw] = m.URI
	line := t.arena.Alloc(len(m.Method) + len(m.URI) + len(m.Proto) + 2)
	n := copy(line, m.Method)
	line[n] = ' '
	n += 1 + copy(line[n+1:], m.URI)
	line[n] = ' '
	copy(line[n+1:], m.Proto)
	t.scalar[seclang.RequestLine] = text(line)

	uri, _, _ := strings.Cut(m.URI, "#")
	path, query, norm := uri, "", uri
	if i := strings.IndexByte(uri, '?'); i >= 0 {
		path, query = uri[:i], uri[i+1:]
	}
	if !plain(path, query) {
		u, err := url.ParseRequestURI(uri)
		if err != nil {
			t.scalar[seclang.URIParseError] = "1"
		} else {
			path, query, norm = u.Path, u.RawQuery, u.String()
		}
	}
	t.scalar[seclang.RequestURI] = norm
	t.scalar[seclang.RequestFilename] = path
	t.scalar[seclang.QueryString] = query
	base := path
	if i := strings.LastIndexAny(path, `/\`); i >= 0 && len(path) > i+1 {
		base = path[i+1:]
	}
	t.scalar[seclang.RequestBasename] = base
	t.open(seclang.ArgsGet)
	t.query(query)
	t.shut(seclang.ArgsGet)
}

// plain reports whether net/url would take path and query as they stand.
func plain(path, query string) bool {
	if len(path) == 0 || path[0] != '/' || len(path) > 1 && path[1] == '/' {
		return false
	}
	for i := range len(path) {
		switch c := path[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '/', c == '-', c == '_', c == '.', c == '~':
		default:
			return false
		}
	}
	for i := range len(query) {
		if query[i] < ' ' || query[i] == 0x7f {
			return false
		}
	}
	return true
}

func (t *transaction) query(q string) {
	n := 0
	for q != "" {
		field := q
		if i := strings.IndexByte(q, '&'); i >= 0 {
			field, q = q[:i], q[i+1:]
		} else {
			q = ""
		}
		if field == "" {
			continue
		}
		if n++; n > t.engine.arglim {
			t.scalar[seclang.ArgumentsLimitReached] = "1"
			return
		}
		key, val := field, ""
		if i := strings.IndexByte(field, '='); i >= 0 {
			key, val = field[:i], field[i+1:]
		}
		t.add(t.unescape(key), t.unescape(val))
	}
}

// unescape decodes what can be decoded; the rest stands for itself.
func (t *transaction) unescape(s string) string {
	if strings.IndexByte(s, '%') < 0 && strings.IndexByte(s, '+') < 0 {
		return s
	}
	b := t.arena.Alloc(len(s))
	n := 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '+':
			c = ' '
		case c == '%' && i+2 < len(s) && hex(s[i+1]) >= 0 && hex(s[i+2]) >= 0:
			c = byte(hex(s[i+1])<<4 | hex(s[i+2]))
			i += 2
		}
		b[n] = c
		n++
	}
	return text(b[:n])
}

func hex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// cookies reads Cookie fields as Coraza does: names and values without the
// control characters and spaces around them, and nothing decoded.
func (t *transaction) cookies(header []message.Pair) {
	t.open(seclang.RequestCookies)
	for _, h := range header {
		if !strings.EqualFold(h.Name, "cookie") {
			continue
		}
		rest := trimControls(h.Value)
		for rest != "" {
			var part string
			part, rest, _ = strings.Cut(rest, ";")
			name, val, _ := strings.Cut(trimControls(part), "=")
			name, val = trimControls(name), trimControls(val)
			if name != "" || val != "" {
				t.add(name, val)
			}
		}
	}
	t.shut(seclang.RequestCookies)
}

func trimControls(s string) string {
	from, to := 0, len(s)
	for from < to && (s[from] <= ' ' || s[from] == 0x7f) {
		from++
	}
	for to > from && (s[to-1] <= ' ' || s[to-1] == 0x7f) {
		to--
	}
	return s[from:to]
}

// headers takes the fields in, and the body processor that the first
// Content-Type chooses.
func (t *transaction) headers(header []message.Pair) {
	t.open(seclang.RequestHeaders)
	t.typed = false
	for i, h := range header {
		if h.Name == "" {
			continue
		}
		t.addField(i, &h)
		if !t.typed && strings.EqualFold(h.Name, "content-type") {
			t.typed = true
			switch s := strings.TrimSpace(h.Value); {
			case hasPrefixFold(s, "application/x-www-form-urlencoded"):
				t.early = "URLENCODED"
			case hasPrefixFold(s, "multipart/form-data"):
				t.early = "MULTIPART"
			}
		}
	}
	t.shut(seclang.RequestHeaders)
}

func hasPrefixFold(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}

// body takes in what was parsed of the body.
func (t *transaction) body(b *message.Body) {
	t.open(seclang.ArgsPost)
	for _, a := range b.Args {
		t.add(a.Name, a.Value)
	}
	t.shut(seclang.ArgsPost)
	switch b.Kind {
	case message.Form, message.Text:
		t.scalar[seclang.RequestBody] = b.Text
		t.scalar[seclang.RequestBodyLength] = strconv.Itoa(len(b.Text))
	case message.XML:
		t.open(seclang.XML)
		for _, s := range b.Attrs {
			t.add("//@*", s)
		}
		for _, s := range b.Texts {
			t.add("/*", s)
		}
		t.shut(seclang.XML)
	case message.Multipart:
		t.parts(b.Parts)
	}
}

func (t *transaction) parts(parts []message.Part) {
	total := int64(0)
	t.open(seclang.MultipartPartHeaders)
	for _, p := range parts {
		for _, h := range p.Header {
			t.add(p.Name, t.concat(h.Name, ": ", h.Value))
		}
		total += p.Size
	}
	t.shut(seclang.MultipartPartHeaders)
	t.scalar[seclang.FilesCombinedSize] = strconv.FormatInt(total, 10)
	t.open(seclang.MultipartName)
	for _, p := range parts {
		t.add(p.Name, p.Name)
	}
	t.shut(seclang.MultipartName)
	each := func(v seclang.Variable, f func(p *message.Part, name string)) {
		t.open(v)
		for i := range parts {
			if !parts[i].File {
				continue
			}
			for _, name := range parts[i].FileNames {
				f(&parts[i], name)
			}
		}
		t.shut(v)
	}
	each(seclang.MultipartFilename, func(p *message.Part, name string) { t.add(p.Name, name) })
	each(seclang.Files, func(_ *message.Part, name string) { t.add("", name) })
	each(seclang.FilesSizes, func(p *message.Part, name string) { t.add(name, strconv.FormatInt(p.Size, 10)) })
	t.open(seclang.FilesNames)
	for _, p := range parts {
		if p.File {
			t.add("", p.Name)
		}
	}
	t.shut(seclang.FilesNames)
}

// chooseProcessor sets REQBODY_PROCESSOR: before the body is read, to what
// the rules choose by the head; afterwards, to how the body was read.
func (t *transaction) chooseProcessor(k message.Kind) {
	t.unread = k == message.None
	for _, p := range t.engine.prelude {
		if p.typed && !t.typed {
			continue
		}
		t.phase = 1
		if p.tx != nil {
			copy(t.tx, p.tx)
			t.intact = false
		}
		t.runRule(p.rule, false)
	}
	t.fired = t.fired[:0]
	t.scalar[seclang.ReqbodyProcessor] = t.early
	switch k {
	case message.Form, message.Text:
		t.scalar[seclang.ReqbodyProcessor] = "URLENCODED"
	case message.JSON:
		t.scalar[seclang.ReqbodyProcessor] = "JSON"
	case message.XML:
		t.scalar[seclang.ReqbodyProcessor] = "XML"
	case message.Multipart:
		t.scalar[seclang.ReqbodyProcessor] = "MULTIPART"
	}
}

// answer takes the response in.
func (t *transaction) answer(a *message.Response) {
	t.open(seclang.ResponseHeaders)
	for i, h := range a.Header {
		if h.Name == "" {
			continue
		}
		t.addField(i, &h)
		if strings.EqualFold(h.Name, "content-type") {
			t.scalar[seclang.ResponseContentType], _, _ = strings.Cut(h.Value, ";")
		}
	}
	t.shut(seclang.ResponseHeaders)
	t.scalar[seclang.ResponseStatus] = strconv.Itoa(a.Status)
	t.scalar[seclang.ResponseProtocol] = a.Proto
	if a.Body != nil {
		t.scalar[seclang.ResponseBody] = text(a.Body)
		t.scalar[seclang.ResponseContentLength] = strconv.Itoa(len(a.Body))
	} else if slices.Contains(t.engine.bodies, t.scalar[seclang.ResponseContentType]) {
		t.scalar[seclang.ResponseContentLength] = "0"
	}
}

func (t *transaction) concat(parts ...string) string {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	b := t.arena.Alloc(n)
	n = 0
	for _, p := range parts {
		n += copy(b[n:], p)
	}
	return text(b)
}

// ofAnswer reports whether a variable has its value from the answer's body.
func ofAnswer(v seclang.Variable) bool {
	return v == seclang.ResponseBody || v == seclang.ResponseContentLength
}

// isAnswer reports whether a variable has its values from the answer.
func isAnswer(v seclang.Variable) bool {
	switch v {
	case seclang.ResponseHeaders, seclang.ResponseStatus, seclang.ResponseProtocol, seclang.ResponseContentType:
		return true
	}
	return ofAnswer(v)
}

// named is the variable by which Coraza calls the values of a target, but not
// their count.
func (g *target) named() seclang.Variable {
	if g.Var == seclang.XML {
		return seclang.RequestXML
	}
	return g.Var
}
