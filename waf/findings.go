package waf

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/merlon-dev/merlon"
)

// maxFindings is how many matches a decision names, beside the score.
const maxFindings = 10

// maxValue is how much of a matched value a finding shows, in bytes.
const maxValue = 200

// denied words the decision about a request that the rules deny.
func (g *Guard) denied(m *message, v verdict) merlon.Decision {
	d := merlon.Refuse(http.StatusForbidden, Attack)
	switch v.by {
	case ruleQueryArguments, ruleBodyArguments:
		return *g.tooMany("query string", 1+strings.Count(m.uri, "&"))
	case ruleBadURI, 200002, 200003: // the latter are Coraza's own
		d = merlon.Refuse(http.StatusBadRequest, Malformed)
	}
	d.Findings = describe(v, m.part)
	d.Remedy = remedy(v)
	return d
}

// describe lists what matched, the gravest first, in an order that depends on
// nothing but that.
func describe(v verdict, where func(spot) string) []merlon.Finding {
	var out []merlon.Finding
	scores := map[string]int{}
	for _, h := range v.hits {
		scores[strconv.Itoa(h.rule)] = h.score
		spots := h.spots
		if i := slices.IndexFunc(spots, func(s spot) bool { return s.target != "" }); i >= 0 {
			spots = slices.DeleteFunc(slices.Clone(spots), func(s spot) bool { return s.target == "" })
		}
		if len(spots) == 0 {
			spots = []spot{{}}
		}
		for _, s := range spots {
			out = append(out, merlon.Finding{
				Rule:    strconv.Itoa(h.rule),
				Part:    where(s),
				Value:   shownValue(s),
				Message: h.message,
			})
		}
	}
	slices.SortFunc(out, func(a, b merlon.Finding) int {
		return cmp.Or(cmp.Compare(scores[b.Rule], scores[a.Rule]), cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Part, b.Part), cmp.Compare(a.Value, b.Value))
	})
	out = slices.Compact(out)
	out = out[:min(len(out), maxFindings)]
	if v.threshold > 0 && v.score > 0 {
		out = append(out, merlon.Finding{Rule: "score", Value: fmt.Sprintf("%d of %d", v.score, v.threshold), Message: "anomaly score and the threshold"})
	}
	return out
}

// part says in plain words where in the request something matched.
func (m *message) part(s spot) string {
	name := strconv.Quote(shorten(s.name))
	switch s.target {
	case Args, ArgsNames:
		what := m.argument(s)
		if s.target == ArgsNames {
			return "name of the " + what
		}
		return what
	case Headers:
		return "header " + name
	case HeaderNames:
		return "name of the header " + name
	case Cookies:
		return "cookie " + name
	case CookieNames:
		return "name of the cookie " + name
	case URI:
		return "request line"
	case Body:
		return "body"
	case XML:
		return "XML text or attribute"
	case Files:
		return "file name"
	case PartHeaders:
		return "header of the part " + name
	}
	return "request"
}

// argument tells a parameter in the query from a field in the body.
func (m *message) argument(s spot) string {
	for _, a := range m.body.args {
		if a.name != s.name {
			continue
		}
		switch m.body.kind {
		case jsonDoc:
			return "JSON field " + strconv.Quote(shorten(strings.TrimPrefix(s.name, "json.")))
		case multipartForm:
			return "multipart field " + strconv.Quote(shorten(s.name))
		case plainText:
			return "text"
		default:
			return "form field " + strconv.Quote(shorten(s.name))
		}
	}
	return "query parameter " + strconv.Quote(shorten(s.name))
}

// secretNames are words in the names of what must not be written down.
var secretNames = []string{"password", "passwd", "pwd", "secret", "token", "apikey", "api_key", "api-key", "authorization", "session", "credential", "cookie", "sid"}

func shownValue(s spot) string {
	if s.target == Args || s.target == Headers || s.target == Cookies {
		name := strings.ToLower(s.name)
		for _, w := range secretNames {
			if strings.Contains(name, w) {
				return fmt.Sprintf("[%d bytes]", len(s.value))
			}
		}
	}
	if s.target == URI || s.target == Body || s.target == Response {
		// A whole that may hold any secret: only what else it matched on says more.
		return shorten(redactQuery(s.value))
	}
	return shorten(s.value)
}

// redactQuery blanks the values of secret parameters.
func redactQuery(s string) string {
	lower := strings.ToLower(s)
	if !slices.ContainsFunc(secretNames, func(w string) bool { return strings.Contains(lower, w) }) {
		return s
	}
	fields := strings.FieldsFunc(s, func(r rune) bool { return r == '&' || r == '?' })
	for i, f := range fields {
		name, _, ok := strings.Cut(f, "=")
		n := strings.ToLower(name)
		if ok && slices.ContainsFunc(secretNames, func(w string) bool { return strings.Contains(n, w) }) {
			fields[i] = name + "=[hidden]"
		}
	}
	return strings.Join(fields, "&")
}

// shorten makes any text fit for a record.
func shorten(s string) string {
	if len(s) > maxValue {
		cut := maxValue - len("…")
		for cut > 0 && !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = s[:cut] + "…"
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// An exception is one line of a remedy.
type exception struct {
	rule   int
	target Target
	name   string
}

// remedy returns the smallest exclusions with which the same request passes:
// of the rules that matched, as few as bring the score below the threshold,
// each only for the parts in which it matched.
func remedy(v verdict) string {
	hits := slices.Clone(v.hits)
	slices.SortStableFunc(hits, func(a, b hit) int {
		return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(a.rule, b.rule))
	})
	left := 0
	for _, h := range hits {
		left += h.score
	}
	var list []exception
	for _, h := range hits {
		if h.score == 0 && h.rule == v.by {
			list = append(list, exceptions(h)...)
			continue
		}
		if left < v.threshold {
			continue
		}
		left -= h.score
		list = append(list, exceptions(h)...)
	}
	if len(list) == 0 {
		return ""
	}
	return writeExceptions(list)
}

// exceptions names the parts in which a rule matched, or the whole rule where
// its condition was about something that has no part.
func exceptions(h hit) []exception {
	var list []exception
	for _, s := range h.spots {
		if !s.head {
			continue
		}
		if s.target == "" {
			return []exception{{rule: h.rule}}
		}
		e := exception{h.rule, s.target, ""}
		if slices.Contains(named, s.target) && s.name != "" {
			e.name = s.name
		}
		list = append(list, e)
	}
	if len(list) == 0 {
		return []exception{{rule: h.rule}}
	}
	return list
}

func writeExceptions(list []exception) string {
	slices.SortFunc(list, func(a, b exception) int {
		return cmp.Or(cmp.Compare(a.target, b.target), cmp.Compare(a.name, b.name), cmp.Compare(a.rule, b.rule))
	})
	list = slices.Compact(list)
	var b strings.Builder
	b.WriteString("waf:\n  exclude:")
	for i := 0; i < len(list); {
		j := i
		var rules []string
		for ; j < len(list) && list[j].target == list[i].target && list[j].name == list[i].name; j++ {
			rules = append(rules, strconv.Itoa(list[j].rule))
		}
		one := rules[0]
		if len(rules) > 1 {
			one = "[" + strings.Join(rules, ", ") + "]"
		}
		fmt.Fprintf(&b, "\n    - {rule: %s", one)
		if list[i].target != "" {
			fmt.Fprintf(&b, ", target: %s", list[i].target)
		}
		if list[i].name != "" {
			fmt.Fprintf(&b, ", name: %s", yamlScalar(list[i].name))
		}
		b.WriteString("}")
		i = j
	}
	return b.String()
}

// yamlScalar quotes a text where YAML would not read it as it stands.
func yamlScalar(s string) string {
	for i, c := range []byte(s) {
		if !isAlnum(c) && (i == 0 || c != '_' && c != '-' && c != '.' && c != '/' && c != '+') {
			return strconv.Quote(s) // YAML's double-quoted style knows Go's escapes
		}
	}
	switch strings.ToLower(s) {
	case "", "true", "false", "yes", "no", "on", "off", "null", "y", "n":
		return strconv.Quote(s)
	}
	if s[0] >= '0' && s[0] <= '9' {
		return strconv.Quote(s)
	}
	return s
}
