package waf

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/waf/internal/body"
	"github.com/merlon-dev/merlon/waf/internal/message"
)

// seen says how much of a body was inspected, where that is not all of it.
type seen struct {
	partly    bool
	inspected int64
	total     int64 // negative if not known
	stream    *formStream
}

func (s seen) findings() []merlon.Finding {
	if !s.partly {
		return nil
	}
	value := fmt.Sprintf("%d bytes, of a body of unknown length", s.inspected)
	if s.total >= 0 {
		value = fmt.Sprintf("%d of %d bytes", s.inspected, s.total)
	}
	return []merlon.Finding{{Rule: "inspected", Part: "body", Value: value, Message: "the rest is opaque and passed uninspected"}}
}

// readBody parses the body into m as far as it must be judged before the
// upstream is asked. A decision means that it cannot be.
func (g *Guard) readBody(r *merlon.Request, m *message.Request) (seen, *merlon.Decision) {
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 {
		return seen{}, nil
	}
	k, boundary, d := g.declared(r)
	if d != nil || k == message.None {
		return seen{}, d
	}
	m.Body.Kind = k
	if k == message.Opaque {
		return g.readOpaque(r, m)
	}
	coding, err := body.Coding(r.Header["Content-Encoding"])
	if err != nil {
		return seen{}, refuse(http.StatusUnsupportedMediaType, Encoding, err)
	}
	if coding == "" && k != message.Multipart && r.ContentLength > g.limit {
		return seen{}, g.tooLarge(r.ContentLength) // without reading it
	}
	head, whole, err := r.Peek(g.limit)
	if err != nil {
		d := merlon.BodyFailed(err)
		return seen{}, &d
	}
	switch {
	case whole && len(head) == 0:
		m.Body.Kind = message.None
		return seen{}, nil
	case k == message.Multipart && !whole && coding == "":
		return g.watch(r, m, boundary, head)
	case !whole:
		return seen{}, g.tooLarge(r.ContentLength)
	}
	var runs []message.Pair
	if coding != "" {
		plain, err := body.Decode(coding, head, g.limit)
		if err != nil {
			return seen{}, g.undecodable(err)
		}
		if k != message.JSON && k != message.XML {
			runs = body.Readable(head, plain)
		}
		head = plain
	}
	o := body.Options{Boundary: boundary, Limit: g.limit, Most: g.arguments, RefuseDoctype: !g.excluded.off(ruleDoctype)}
	err = readAs(&m.Body, head, o)
	m.Body.Args = append(m.Body.Args, runs...)
	if errors.Is(err, body.ErrTooMany) {
		all := message.Body{Kind: k}
		o.Most, o.RefuseDoctype = maxArguments, false
		if body.Parse(&all, head, o) != nil {
			return seen{}, g.tooMany("body", 0)
		}
		return seen{}, g.tooMany("body", max(len(all.Args), len(all.Texts)))
	}
	if err != nil {
		return seen{}, g.unparsable(err)
	}
	return seen{}, nil
}

// readAs reads a body as what it is declared to be and, since many applications
// ask for JSON whatever the type says, as JSON too if it begins with that.
func readAs(b *message.Body, text []byte, o body.Options) error {
	err := body.Parse(b, text, o)
	if err != nil || b.Kind == message.JSON || b.Kind == message.Multipart {
		return err
	}
	if doc, _, _ := body.Document(text); doc != nil {
		return body.AddDocument(b, doc, o.Most)
	}
	return nil
}

// declared says how the body is to be read, by the one type that is declared.
func (g *Guard) declared(r *merlon.Request) (message.Kind, string, *merlon.Decision) {
	fields := r.Header["Content-Type"]
	if len(fields) == 1 && fields[0] != "" {
		k, boundary, err := g.types.Kind(fields[0])
		if err == nil {
			return k, boundary, nil
		}
		if d := emptyBody(r); d != nil || r.Body == http.NoBody {
			return message.None, "", d
		}
		return 0, "", g.badType(fields[0], err)
	}
	if d := emptyBody(r); d != nil || r.Body == http.NoBody {
		return message.None, "", d
	}
	if len(fields) > 1 {
		return 0, "", g.badType(strings.Join(fields, ", "), errors.New("there are several Content-Type fields"))
	}
	if g.excluded.off(ruleNoType) && g.excluded.off(ruleNoTypeBody) {
		return message.Text, "", nil
	}
	return 0, "", g.noType()
}

// emptyBody looks whether a body of unknown length has anything in it, and
// puts http.NoBody in its place if not.
func emptyBody(r *merlon.Request) *merlon.Decision {
	if r.ContentLength > 0 {
		return nil
	}
	_, empty, err := r.Peek(0)
	if err != nil {
		d := merlon.BodyFailed(err)
		return &d
	}
	if empty {
		r.Body = http.NoBody
	}
	return nil
}

func refuse(status int, reason merlon.Reason, err error) *merlon.Decision {
	d := merlon.Refuse(status, reason)
	d.Err = err
	return &d
}

func (g *Guard) tooLarge(length int64) *merlon.Decision {
	d := refuse(http.StatusRequestEntityTooLarge, TooLarge, fmt.Errorf("the body is longer than the inspection limit of %s", merlon.Size(g.limit)))
	d.Findings = []merlon.Finding{{Part: "body", Message: d.Err.Error()}}
	if length > 0 && merlon.Size(length) <= maxLimit {
		next := (merlon.Size(length) + merlon.MiB - 1) / merlon.MiB * merlon.MiB
		d.Remedy = "waf:\n  limit: " + next.String()
		d.Findings[0].Value = fmt.Sprintf("%d bytes", length)
	}
	return d
}

// tooMany refuses a request of n values; 0 if they were not counted.
func (g *Guard) tooMany(part string, n int) *merlon.Decision {
	d := refuse(http.StatusRequestEntityTooLarge, TooManyArguments, fmt.Errorf("the %s has more than %d values", part, g.arguments))
	d.Findings = []merlon.Finding{{Part: part, Message: d.Err.Error()}}
	if n > g.arguments && n <= maxArguments {
		d.Remedy = fmt.Sprintf("waf:\n  arguments: %d", n)
		d.Findings[0].Value = strconv.Itoa(n)
	}
	return d
}

func (g *Guard) badType(value string, err error) *merlon.Decision {
	d := refuse(http.StatusUnsupportedMediaType, ContentType, err)
	d.Findings = []merlon.Finding{{Part: `header "Content-Type"`, Value: shorten(value), Message: err.Error()}}
	media, _, _ := strings.Cut(value, ";")
	media = strings.ToLower(strings.TrimSpace(media))
	if g.types.Addable(media) {
		d.Remedy = "waf:\n  content_types: [" + yamlScalar(media) + "]"
	}
	return d
}

func (g *Guard) noType() *merlon.Decision {
	d := refuse(http.StatusUnsupportedMediaType, ContentType, errors.New("the body's type is not declared"))
	d.Findings = []merlon.Finding{{Rule: strconv.Itoa(ruleNoType), Part: `header "Content-Type"`, Message: "missing, although there is a body"}}
	d.Remedy = fmt.Sprintf("waf:\n  exclude:\n    - {rule: [%d, %d]}", ruleNoType, ruleNoTypeBody)
	return d
}

func (g *Guard) unparsable(err error) *merlon.Decision {
	switch {
	case errors.Is(err, body.ErrTooLong):
		return g.tooLarge(0)
	case errors.Is(err, body.ErrTooMany):
		return g.tooMany("body", 0)
	}
	d := refuse(http.StatusBadRequest, Malformed, err)
	d.Findings = []merlon.Finding{{Part: "body", Message: err.Error()}}
	if errors.Is(err, body.ErrDoctype) {
		d.Findings[0].Rule = strconv.Itoa(ruleDoctype)
		d.Remedy = fmt.Sprintf("waf:\n  exclude:\n    - {rule: %d}", ruleDoctype)
	}
	return d
}

func (g *Guard) undecodable(err error) *merlon.Decision {
	if errors.Is(err, body.ErrTooLong) || errors.Is(err, body.ErrBomb) {
		d := refuse(http.StatusRequestEntityTooLarge, TooLarge, err)
		d.Findings = []merlon.Finding{{Part: "compressed body", Message: err.Error()}}
		return d
	}
	d := refuse(http.StatusBadRequest, Malformed, err)
	d.Findings = []merlon.Finding{{Part: "compressed body", Message: err.Error()}}
	return d
}
