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
	"github.com/merlon-dev/merlon/waf/internal/message"
	"github.com/merlon-dev/merlon/waf/internal/ruleset"
)

// maxFindings is how many matches a decision names, beside the score.
const maxFindings = 10

// maxValue is how much of a matched value a finding shows, in bytes.
const maxValue = 200

// denied words the decision about a request that the rules deny.
func (g *Guard) denied(m *message.Request, v message.Verdict) merlon.Decision {
	d := merlon.Refuse(http.StatusForbidden, Attack)
	switch v.By {
	case ruleset.QueryArguments, ruleset.BodyArguments:
		return disputed(*g.tooMany("query string", 1+strings.Count(m.URI, "&")), v)
	case ruleset.BadURI, 200002, 200003: // the latter are Coraza's own
		d = merlon.Refuse(http.StatusBadRequest, Malformed)
	}
	d.Findings = describe(v, func(s message.Spot) string { return partOf(m, s) })
	d.Remedy = remedy(v)
	return disputed(d, v)
}

// disputed says of a refusal that the two engines do not agree in it, so that
// who watches reasons sees each difference.
func disputed(d merlon.Decision, v message.Verdict) merlon.Decision {
	if v.Differs != "" {
		d.Reason = VerdictsDiffer
		d.Findings = append(d.Findings, differs(v))
	}
	return d
}

// describe lists what matched, the gravest first, in an order that depends on
// nothing but that.
func describe(v message.Verdict, where func(message.Spot) string) []merlon.Finding {
	var out []merlon.Finding
	scores := map[string]int{}
	for _, h := range v.Hits {
		scores[strconv.Itoa(h.Rule)] = h.Score
		spots := h.Spots
		if i := slices.IndexFunc(spots, func(s message.Spot) bool { return s.Target != "" }); i >= 0 {
			spots = slices.DeleteFunc(slices.Clone(spots), func(s message.Spot) bool { return s.Target == "" })
		}
		if len(spots) == 0 {
			spots = []message.Spot{{}}
		}
		for _, s := range spots {
			out = append(out, merlon.Finding{
				Rule:    strconv.Itoa(h.Rule),
				Part:    where(s),
				Value:   strings.Clone(shownValue(s)), // not to keep the body
				Message: h.Message,
			})
		}
	}
	slices.SortFunc(out, func(a, b merlon.Finding) int {
		return cmp.Or(cmp.Compare(scores[b.Rule], scores[a.Rule]), cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Part, b.Part), cmp.Compare(a.Value, b.Value))
	})
	out = slices.Compact(out)
	out = out[:min(len(out), maxFindings)]
	if v.Threshold > 0 && v.Score > 0 {
		out = append(out, merlon.Finding{Rule: "score", Value: fmt.Sprintf("%d of %d", v.Score, v.Threshold), Message: "anomaly score and the threshold"})
	}
	return out
}

// partOf says in plain words where in the request something matched.
func partOf(m *message.Request, s message.Spot) string {
	name := strconv.Quote(shorten(s.Name))
	switch s.Target {
	case Args, ArgsNames:
		what := argument(m, s)
		if s.Target == ArgsNames {
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
func argument(m *message.Request, s message.Spot) string {
	for _, a := range m.Body.Args {
		if a.Name != s.Name {
			continue
		}
		switch m.Body.Kind {
		case message.JSON, message.XML: // as which a body that says it is XML may be read, too
			return "JSON field " + strconv.Quote(shorten(strings.TrimPrefix(s.Name, "json.")))
		case message.Multipart:
			return "multipart field " + strconv.Quote(shorten(s.Name))
		case message.Text:
			return "text"
		default:
			return "form field " + strconv.Quote(shorten(s.Name))
		}
	}
	return "query parameter " + strconv.Quote(shorten(s.Name))
}

// secretNames are words in the names of what must not be written down.
var secretNames = []string{"password", "passwd", "pwd", "secret", "token", "apikey", "api_key", "api-key", "authorization", "session", "credential", "cookie", "sid"}

func shownValue(s message.Spot) string {
	if s.Target == Args || s.Target == Headers || s.Target == Cookies {
		name := strings.ToLower(s.Name)
		for _, w := range secretNames {
			if strings.Contains(name, w) {
				return fmt.Sprintf("[%d bytes]", len(s.Value))
			}
		}
	}
	if s.Target == URI || s.Target == Body || s.Target == Response {
		// A whole that may hold any secret: only what else it matched on says more.
		return shorten(redactQuery(s.Value))
	}
	return shorten(s.Value)
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
func remedy(v message.Verdict) string {
	hits := slices.Clone(v.Hits)
	slices.SortStableFunc(hits, func(a, b message.Hit) int {
		return cmp.Or(cmp.Compare(b.Score, a.Score), cmp.Compare(a.Rule, b.Rule))
	})
	left := 0
	for _, h := range hits {
		left += h.Score
	}
	var list []exception
	for _, h := range hits {
		if h.Score == 0 && h.Rule == v.By {
			list = append(list, exceptions(h)...)
			continue
		}
		if left < v.Threshold {
			continue
		}
		left -= h.Score
		list = append(list, exceptions(h)...)
	}
	if len(list) == 0 {
		return ""
	}
	return writeExceptions(list)
}

// exceptions names the parts in which a rule matched, or the whole rule where
// its condition was about something that has no part.
func exceptions(h message.Hit) []exception {
	var list []exception
	for _, s := range h.Spots {
		if !s.Head {
			continue
		}
		if s.Target == "" {
			return []exception{{rule: h.Rule}}
		}
		e := exception{h.Rule, s.Target, ""}
		if slices.Contains(named, s.Target) && s.Name != "" {
			e.name = exactName(s.Name)
		}
		list = append(list, e)
	}
	if len(list) == 0 {
		return []exception{{rule: h.Rule}}
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

func isAlnum(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}
